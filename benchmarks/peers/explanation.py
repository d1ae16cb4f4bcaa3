"""What every method returns, and how saliency becomes a mask as ours: low is important."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from peers.partitions import Grid, Partition

# The cells along the side of a mask of those methods that give a saliency of pixels.
CELLS = 28


@dataclass(frozen=True)
class Explanation:
    """A value for every region.

    Attributes:
        partition: of the image into G regions.
        mask: ``(G,)``, low is important.
    """

    partition: Partition
    mask: Tensor

    def values_in(self, partition: Partition) -> Tensor:
        """The mask in another partition: the means of its pixels.

        Returns:
            ``(G',)``; in a partition that equals the explanation's own, the mask itself.
        """
        if partition == self.partition:
            return self.mask
        return partition.means(self.partition.spread(self.mask[None])[0])


def of_cells(saliency: Tensor, size: tuple[int, int]) -> Explanation:
    """An explanation from the saliency ``(s, s)`` of an image's cells, scaled to [0, 1]; high is important.

    A saliency that is the same everywhere gives ones.
    """
    low, high = saliency.min(), saliency.max()
    scaled = (saliency - low) / (high - low).clamp_min(torch.finfo(saliency.dtype).tiny)
    return Explanation(Grid(len(saliency), size), 1 - scaled.flatten())


def of_pixels(saliency: Tensor) -> Explanation:
    """An explanation in 28 x 28 cells from the saliency ``(H, W)`` of pixels; a cell counts by its mean."""
    cells = min(CELLS, *saliency.shape)
    pooled = F.adaptive_avg_pool2d(saliency[None], cells)[0]
    return of_cells(pooled, (saliency.shape[0], saliency.shape[1]))


def of_map(saliency: Tensor, size: tuple[int, int]) -> Explanation:
    """An explanation in 28 x 28 cells from a coarse map ``(h, w)``, which is resized bilinearly."""
    fine = F.interpolate(saliency[None, None], (CELLS, CELLS), mode="bilinear", align_corners=False)
    return of_cells(fine[0, 0], size)


def of_order(order: Tensor, partition: Partition) -> Explanation:
    """An explanation from the numbers ``(G,)`` of all regions, the most important first."""
    mask = torch.empty(len(order))
    mask[order] = torch.linspace(0, 1, len(order))
    return Explanation(partition, mask)
