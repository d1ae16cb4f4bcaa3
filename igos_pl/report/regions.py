"""The order of the regions of masks, as the curves take them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igos_pl.solver.order import array_ranks


@dataclass(frozen=True)
class RegionOrder:
    """The G regions of a mask, the most important first.

    Attributes:
        rank: ``(s, s)`` the number of each cell's region, from 0.
        places: ``(G,)`` a curve takes a region once it takes more cells than this.
        sizes: ``(G,)`` cells.
        half: how many regions hold half of the saliency; 0 without saliency.
    """

    rank: NDArray[np.int64]
    places: NDArray[np.int64]
    sizes: NDArray[np.int64]
    half: int

    @property
    def salient_share(self) -> float:
        """The share of the cells in the regions that hold half of the saliency; NaN without saliency."""
        return float(self.sizes[: self.half].sum() / self.rank.size) if self.half else np.nan


def region_orders(masks: NDArray[np.float32], labels: NDArray[np.int32]) -> list[RegionOrder]:
    """The orders of the regions of some masks.

    Args:
        masks: ``(R, s, s)`` in [0, 1], low = important.
        labels: ``(R, s, s)`` the label of each cell's region.
    """
    orders = []
    for mask, place in zip(masks, array_ranks(masks, labels), strict=True):
        places, first, rank, sizes = np.unique(
            place, return_index=True, return_inverse=True, return_counts=True
        )
        sums = ((1 - mask.flat[first].astype(np.float64)) * sizes).cumsum()
        half = int((sums < sums[-1] / 2).sum()) + 1 if sums[-1] > 0 else 0
        orders.append(RegionOrder(rank.reshape(mask.shape), places, sizes, half))
    return orders
