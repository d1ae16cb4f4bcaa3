"""Integration paths: how much of the image a mask shows at each position between the baseline and the image.

A path turns the value m of a mask into a coverage ``clamp(slope m + shift, 0, 1)``, by which image and
baseline are blended. The methods average the score over the positions of a path. A new path is one more
entry in `PATHS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# The golden ratio: positions that advance by this part of their interval cover it evenly after any number of
# iterations.
_GOLDEN = (5**0.5 - 1) / 2

# Where the first term's first position lies within its part.
_FIRST = 0.5

# The narrowest ramp of the threshold path. A mask without contrast, as at the start, still has a gradient.
_NARROWEST = 0.2

# Upsampling may round 1 to 1 + eps: the gradient must not become zero there.
_ROUNDING = 1e-5


class LinearCoverage(NamedTuple):
    """How masks turn into coverage, for each row, term and position of the path."""

    slope: Tensor  # (n, T, K)
    shift: Tensor  # (n, T, K)

    def cover(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Coverage and its derivative with respect to the maps.

        Args:
            maps: ``(B, H, W)``, for a coverage ``(B,)``.

        Returns:
            Both ``(B, H, W)``.
        """
        slope, shift = self.slope.reshape(-1, 1, 1), self.shift.reshape(-1, 1, 1)
        line = torch.addcmul(shift, slope, maps)
        coverage = line.clamp(0, 1)
        return coverage, slope * ((line - coverage).abs() <= _ROUNDING)

    def select(self, rows: Tensor) -> LinearCoverage:
        """The coverage of some rows."""
        return LinearCoverage(self.slope[rows], self.shift[rows])

    def flat(self, items: Tensor) -> LinearCoverage:
        """That ``(B,)`` of some items of the flattened rows, terms and positions."""
        return LinearCoverage(self.slope.flatten()[items], self.shift.flatten()[items])


# (cells, extent, iteration, steps) to coverage; see `scaled` and `threshold`.
CoverageOf = Callable[[Tensor, Tensor, int, int], LinearCoverage]


@dataclass(frozen=True)
class IntegrationPath:
    """An integration path.

    Attributes:
        coverage: makes the coverage of each row, term and position.
        follows_extent: whether the path ends at the row's extent instead of removing the whole mask.
            If so, the L1 term is divided by the extent.
    """

    coverage: CoverageOf
    follows_extent: bool = False


def scaled(cells: Tensor, extent: Tensor, iteration: int, steps: int) -> LinearCoverage:
    """Coverage ``a m`` at the positions a = 1/K, 2/K, ..., 1 (I-GOS, eq. 6; all published methods).

    Args:
        cells: ``(n, T, s * s)`` each term's mask.
        extent: not used.
        iteration: not used.
        steps: K.
    """
    positions = (torch.arange(steps, device=cells.device) + 1).to(cells.dtype) / steps
    slope = positions.expand(*cells.shape[:2], steps)
    return LinearCoverage(slope, torch.zeros_like(slope))


def threshold(cells: Tensor, extent: Tensor, iteration: int, steps: int) -> LinearCoverage:
    """Coverage by the order of the cells: at position a, the lowest share a of the mask's cells is removed.

    So the deletion and insertion terms are differentiable versions of the areas under the deletion and
    insertion curves. Cells whose value is within half a width of the a-quantile are blended. The width is the
    mask's standard deviation, but at least 0.2. The gradient treats quantile and width as constants. This
    path is not from the papers.

    The positions lie in [0, extent], which is [0, 1] for a classifier. This interval is split into K equal
    parts with one position in each. The position within a part depends on the term and moves with each
    iteration, so a small K is enough. Nothing of it is random.

    Args:
        cells: ``(n, T, s * s)`` each term's mask.
        extent: ``(n,)`` in (0, 1], the share of the cells that deletion and insertion curves remove.
        iteration: of the optimiser, from 0.
        steps: K.
    """
    terms, count = cells.shape[1:]
    term = torch.arange(terms, device=cells.device).to(cells.dtype) / terms
    within = (_FIRST + term + iteration * _GOLDEN % 1) % 1
    positions = (torch.arange(steps, device=cells.device) + within.unsqueeze(1)) / steps
    place = positions * extent.reshape(-1, 1, 1) * (count - 1)
    below = place.long()
    ordered = cells.sort(2).values
    low = ordered.gather(2, below)
    high = ordered.gather(2, (below + 1).clamp_max(count - 1))
    quantile = torch.lerp(low, high, place - below)
    width = cells.std(2, correction=0).clamp_min(_NARROWEST).unsqueeze(2)
    return LinearCoverage((1 / width).expand_as(quantile), 0.5 - quantile / width)


PATHS = {
    "scaled": IntegrationPath(scaled),
    "threshold": IntegrationPath(threshold, follows_extent=True),
}
