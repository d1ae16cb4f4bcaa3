"""How much two saliency masks agree: the rank correlation of their cells, and the overlap of the top ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from igos_pl.data.explanation import Explanation
from igos_pl.data.geometry import Frame, pooled
from igos_pl.solver.order import array_ranks

Saliency = NDArray[np.float64]

TOP = (0.1, 0.2)  # shares of the cells whose overlap is measured
_FINER = 4  # pixels for a cell, where two masks lie differently in their image


def agreement(one: Explanation, other: Explanation) -> tuple[float, ...]:
    """The rank correlation of two masks of one image, and the overlap of their top 10% and 20% of cells.

    The masks are compared cell by cell where both networks see the same part of the image; a larger mask is
    averaged down to the size of the smaller one. Otherwise they are compared pixel by pixel on the part that
    both see.

    Returns:
        Three numbers: Spearman's correlation in [-1, 1], and two IoUs in [0, 1]. NaN if one of the masks has
        the same value everywhere, or the networks see no common part.
    """
    a, b = _aligned(one, other)
    if not a.size or np.ptp(a) == 0 or np.ptp(b) == 0:
        return (np.nan,) * (1 + len(TOP))
    return rank_correlation(a, b), *top_overlaps(a, b, TOP)


def rank_correlation(a: Saliency, b: Saliency) -> float:
    """Spearman's correlation of two arrays of one shape. Equal values share the mean of their ranks."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def top_overlaps(a: Saliency, b: Saliency, shares: Sequence[float]) -> list[float]:
    """The IoU of the most salient cells of two arrays of one shape, for each share.

    Args:
        a: saliency.
        b: saliency.
        shares: of the cells that count as the most salient.
    """
    places = array_ranks(-np.stack((a, b)))
    overlaps = []
    for share in shares:
        one, other = places < max(1, round(share * a.size))
        overlaps.append(float((one & other).sum() / (one | other).sum()))
    return overlaps


def _ranks(values: Saliency) -> Saliency:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[places.ravel()])


def _aligned(one: Explanation, other: Explanation) -> tuple[Saliency, Saliency]:
    """Two masks' saliency on one grid."""
    a, b = one.saliency.astype(np.float64), other.saliency.astype(np.float64)
    size = min(len(a), len(b))
    frames = one.frame, other.frame
    boxes = [_shares(frame) for frame in frames]
    if np.allclose(boxes[0], boxes[1], atol=1e-3):
        return pooled(a, size), pooled(b, size)
    side = _FINER * size
    left, top = np.maximum(boxes[0][:2], boxes[1][:2])
    right, bottom = np.minimum(boxes[0][2:], boxes[1][2:])
    rows = slice(max(0, round(top * side)), max(0, round(bottom * side)))
    columns = slice(max(0, round(left * side)), max(0, round(right * side)))
    seen = []
    for explanation, box in zip((one, other), boxes, strict=True):
        x1, y1, x2, y2 = (float(corner) for corner in box * side)
        scaled = Frame(side, side, (x1, y1, x2, y2), explanation.frame.input_size)
        whole = scaled.saliency_on_original(explanation.saliency)
        seen.append(whole[rows, columns].astype(np.float64))
    return seen[0], seen[1]


def _shares(frame: Frame) -> NDArray[np.float64]:
    """What a network sees, x1 y1 x2 y2, as shares of the image's width and height."""
    return np.array(frame.box) / (frame.width, frame.height, frame.width, frame.height)
