"""What makes a mask small and smooth: L1, total variation, bilateral total variation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from igos_pl.data.geometry import upsample

BILATERAL_SIGMA = 0.01


def differences(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Finite differences of ``(B, C, H, W)`` down the rows and along the columns."""
    return grid[..., 1:, :] - grid[..., :-1, :], grid[..., :, 1:] - grid[..., :, :-1]


def area(masks: Tensor) -> Tensor:
    """How much a mask removes, ``mean(|1 - m|)``: ``(B, 1, s, s)`` to ``(B,)`` in [0, 1]."""
    return (1 - masks).abs().flatten(1).mean(1)


def total_variation(masks: Tensor) -> Tensor:
    """Mean squared differences of neighbouring cells: ``(B, 1, s, s)`` to ``(B,)`` (I-GOS, eq. 3)."""
    down, along = differences(masks)
    return down.square().flatten(1).mean(1) + along.square().flatten(1).mean(1)


class EdgeWeights(NamedTuple):
    """Where an image is flat (near 1) or has an edge (near 0), between neighbouring pixels."""

    down: Tensor  # (B, 1, H-1, W)
    along: Tensor  # (B, 1, H, W-1)

    def select(self, rows: Tensor) -> EdgeWeights:
        """The weights of some images of the batch."""
        return EdgeWeights(self.down[rows], self.along[rows])


def edge_weights(images: Tensor, sigma: float = BILATERAL_SIGMA) -> EdgeWeights:
    """``exp(-g / sigma)``, g the squared difference of neighbouring pixels averaged over the channels.

    Args:
        images: ``(B, C, H, W)``, normalised for the network.
        sigma: the bandwidth, in squared units of ``images``.
    """
    down, along = (torch.exp(-step.square().mean(1, keepdim=True) / sigma) for step in differences(images))
    return EdgeWeights(down, along)


def bilateral_total_variation(masks: Tensor, weights: EdgeWeights) -> Tensor:
    """Total variation with a smaller penalty at the edges of the image (iGOS++, section 3.3).

    It is half the plain total variation of the mask's cells, plus half the mean squared differences of the
    upsampled mask, each weighted by `edge_weights`.

    Args:
        masks: ``(B, 1, s, s)``.
        weights: of the same B images.

    Returns:
        ``(B,)``.
    """
    size = (weights.along.shape[-2], weights.down.shape[-1])
    down, along = differences(upsample(masks, size))
    weighted = (weights.down * down.square()).flatten(1).mean(1) + (weights.along * along.square()).flatten(
        1
    ).mean(1)
    return 0.5 * (total_variation(masks) + weighted)
