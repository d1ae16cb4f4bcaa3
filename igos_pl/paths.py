"""Integration paths: what a mask covers of an image at each position between the baseline and the image.

A path turns the value m of a mask into a coverage ``clamp(slope m + shift, 0, 1)``: a perturbed image is the
blend of image and baseline by it. The methods average the score over the positions of a path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Positions that advance by this part of their interval leave no gaps, however many iterations there are.
_GOLDEN = (5**0.5 - 1) / 2

# The narrowest ramp of the threshold path, so that a mask that begins without contrast has a gradient.
_NARROWEST = 0.2


# Upsampling makes a little more than 1 of cells of 1, which must not cost them their gradient.
_ROUNDING = 1e-5


class Ramps(NamedTuple):
    """How masks turn into coverage, for each row, term and position of the path."""

    slope: Tensor  # (n, T, K)
    shift: Tensor  # (n, T, K)

    def cover(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Coverage and its derivative with respect to the maps.

        Args:
            maps: ``(B, H, W)``, for ramps ``(B,)``.

        Returns:
            Both ``(B, H, W)``.
        """
        slope, shift = self.slope.reshape(-1, 1, 1), self.shift.reshape(-1, 1, 1)
        line = torch.addcmul(shift, slope, maps)
        coverage = line.clamp(0, 1)
        return coverage, slope * ((line - coverage).abs() <= _ROUNDING)

    def select(self, rows: Tensor) -> Ramps:
        """Those of some rows."""
        return Ramps(self.slope[rows], self.shift[rows])

    def flat(self, items: Tensor) -> Ramps:
        """The ramps ``(B,)`` of some items of the flattened rows, terms and positions."""
        return Ramps(self.slope.flatten()[items], self.shift.flatten()[items])


class Course(NamedTuple):
    """Where on its path a row is, whatever its mask.

    Attributes:
        offset: ``(n,)`` in [0, 1), where the moving positions begin.
        extent: ``(n,)`` in (0, 1], the share of the cells that the row's deletion and insertion curves take.
    """

    offset: Tensor
    extent: Tensor

    def select(self, rows: Tensor) -> Course:
        """That of some rows."""
        return Course(self.offset[rows], self.extent[rows])


def scaled(cells: Tensor, course: Course, iteration: int, steps: int) -> Ramps:
    """Coverage ``a m`` at the positions a = 1/K, 2/K, ..., 1 (I-GOS, eq. 6; all published methods).

    Args:
        cells: ``(n, T, s * s)`` each term's mask.
        course: not used.
        iteration: of the optimiser; not used.
        steps: K.
    """
    positions = (torch.arange(steps, device=cells.device) + 1).to(cells.dtype) / steps
    slope = positions.expand(*cells.shape[:2], steps)
    return Ramps(slope, torch.zeros_like(slope))


def threshold(cells: Tensor, course: Course, iteration: int, steps: int) -> Ramps:
    """Coverage by the order of the cells: at position a the lowest share a of the mask is uncovered.

    So deletion and insertion terms average over what the deletion and insertion curves average over, made
    differentiable: cells within half a width of the a-quantile are blended. The width is the mask's standard
    deviation, at least 0.2; quantile and width count as constants in the gradient. Not from the papers.

    There is one position in each K-th of the row's extent, which is all of [0, 1] for a classifier. Its place
    within that K-th is the row's own, another for each term, and moves on with each iteration: so few
    positions suffice.

    Args:
        cells: ``(n, T, s * s)`` each term's mask.
        course: of the n rows.
        iteration: of the optimiser, from 0.
        steps: K.
    """
    terms, count = cells.shape[1:]
    term = torch.arange(terms, device=cells.device).to(cells.dtype) / terms
    within = (course.offset.unsqueeze(1) + term + iteration * _GOLDEN % 1) % 1
    positions = (torch.arange(steps, device=cells.device) + within.unsqueeze(2)) / steps
    place = positions * course.extent.reshape(-1, 1, 1) * (count - 1)
    below = place.long()
    ordered = cells.sort(2).values
    low = ordered.gather(2, below)
    high = ordered.gather(2, (below + 1).clamp_max(count - 1))
    quantile = torch.lerp(low, high, place - below)
    width = cells.std(2, correction=0).clamp_min(_NARROWEST).unsqueeze(2)
    return Ramps((1 / width).expand_as(quantile), 0.5 - quantile / width)


PATHS: dict[str, Callable[[Tensor, Course, int, int], Ramps]] = {"scaled": scaled, "threshold": threshold}
