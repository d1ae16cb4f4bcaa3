"""Where the saliency lies: in the corners, at the edges, and on or off the explained object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igos_pl.findings.reading import SIDE, Block

_CORNER = SIDE // 4  # a corner is a square with a quarter of the sides
_DEPTH = SIDE // 8  # an edge is the middle half of a side, an eighth deep
AREA = 1 / 16  # of each corner and of each edge, as a share of the image

# A mask is concentrated in a place if the place holds so many times as much saliency as its area would if the
# saliency were the same everywhere. Masks of planted marks reach 5 to 14 times, others rarely 3.
CONCENTRATED = 2.5 * AREA

# A box is enlarged by this share of the image on all sides, because masks are coarse.
_MARGIN = 1 / SIDE

# The places, as rows and columns of a pooled mask.
_LOW, _MIDDLE, _HIGH = slice(0, _CORNER), slice(_CORNER, SIDE - _CORNER), slice(SIDE - _CORNER, SIDE)
_FIRST, _LAST = slice(0, _DEPTH), slice(SIDE - _DEPTH, SIDE)
PLACES = {
    "top left corner": (_LOW, _LOW),
    "top right corner": (_LOW, _HIGH),
    "bottom left corner": (_HIGH, _LOW),
    "bottom right corner": (_HIGH, _HIGH),
    "top edge": (_FIRST, _MIDDLE),
    "bottom edge": (_LAST, _MIDDLE),
    "left edge": (_MIDDLE, _FIRST),
    "right edge": (_MIDDLE, _LAST),
}


@dataclass(frozen=True)
class Shares:
    """Where the saliency of n masks lies.

    Attributes:
        places: ``(n, 8)`` the share of each mask's saliency in each of `PLACES`, without what lies in the
            explained object's box; NaN for a mask without saliency.
        lift: ``(n,)`` the saliency in the object's box divided by what saliency that is the same everywhere
            would have there; NaN without a box, or if the box covers nearly everything.
    """

    places: NDArray[np.float32]
    lift: NDArray[np.float32]


# If a box covers more of the image, saliency cannot miss it.
_LARGEST_BOX = 0.7


def shares_of(block: Block) -> Shares:
    """Measure a block of masks."""
    total = block.pooled.sum((1, 2), dtype=np.float64)
    total[total <= 0] = np.nan
    inside = box_coverage(block.boxes)
    outside = block.pooled * (1 - inside)
    places = np.stack([outside[:, rows, columns].sum((1, 2)) for rows, columns in PLACES.values()], 1)
    area = inside.mean((1, 2))
    area[np.isnan(block.boxes).any(1) | (area > _LARGEST_BOX) | (area == 0)] = np.nan
    lift = (block.pooled * inside).sum((1, 2)) / total / area
    return Shares((places / total[:, None]).astype(np.float32), lift.astype(np.float32))


def box_coverage(boxes: NDArray[np.float64]) -> NDArray[np.float32]:
    """The share ``(n, p, p)`` of each pooled cell that lies in a slightly enlarged box.

    Args:
        boxes: ``(n, 4)`` x1 y1 x2 y2 as shares of the image's sides; nothing is covered where it is NaN.
    """
    start = np.arange(SIDE) / SIDE
    low, high = boxes[:, :2, None] - _MARGIN, boxes[:, 2:, None] + _MARGIN
    overlap = np.minimum(high, start + 1 / SIDE) - np.maximum(low, start)
    across, down = np.moveaxis(np.nan_to_num(np.maximum(overlap, 0) * SIDE), 1, 0)
    return np.asarray(down[:, :, None] * across[:, None, :], np.float32)
