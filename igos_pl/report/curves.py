"""Deletion and insertion curves on one axis, and their mean with a confidence band."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igos_pl.store import MaskFile

# The fractions at which the report shows curves, whatever the number of points of a run's curves.
AXIS = np.linspace(0, 1, 51)

# The half width of a 95 % confidence interval in standard errors.
NORMAL_95 = 1.96

_BLOCK = 8192  # rows that are read at once
_KINDS = ("deletion", "insertion")


def on_axis(curves: NDArray[np.float32]) -> NDArray[np.float64]:
    """Curves at the fractions of `AXIS`, by linear interpolation.

    Args:
        curves: ``(R, P)`` scores at P equally spaced fractions from 0 to 1. Rows that were not computed are
            NaN.

    Returns:
        ``(R, 51)``.
    """
    points = curves.shape[1]
    if points < 2:
        return np.full((len(curves), len(AXIS)), np.nan)
    # Each value of the result is a weighted sum of the two nearest points.
    place = AXIS * (points - 1)
    left = np.minimum(place.astype(np.int64), points - 2)
    share = place - left
    known = np.asarray(curves, np.float64)
    return np.asarray(known[:, left] * (1 - share) + known[:, left + 1] * share)


def read_curves(masks: MaskFile, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The deletion and insertion curves of some rows at the fractions of `AXIS`, each ``(R, 51)``."""
    return {kind: on_axis(masks.read(f"{kind}_curve", rows)) for kind in _KINDS}


def read_measured(masks: MaskFile, rows: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Which values of `read_curves` were measured, each ``(R, 51)``. The others are interpolated."""
    found = {}
    for kind in _KINDS:
        measured = np.asarray(masks.read(f"{kind}_measured", rows), bool)
        place = AXIS * (measured.shape[1] - 1)
        point = place.round().astype(np.int64)
        found[kind] = measured[:, point] & np.isclose(place, point)
    return found


@dataclass(frozen=True)
class MeanCurve:
    """The mean of many curves.

    Attributes:
        mean: ``(51,)``.
        half_width: ``(51,)`` half of the 95 % confidence interval. Explanations of one image count as one
            observation, because they depend on each other. NaN for a single image.
        rows: the number of curves.
    """

    mean: NDArray[np.float64]
    half_width: NDArray[np.float64]
    rows: int

    def band(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lower and the upper end of the confidence interval, each ``(51,)``.

        They are clipped to [0, 1], the range of scores, or at the mean where it is outside of this range.
        """
        low, high = self.mean - self.half_width, self.mean + self.half_width
        return np.maximum(low, np.minimum(self.mean, 0)), np.minimum(high, np.maximum(self.mean, 1))


class _Sums:
    """What the mean of curves and its standard error need, gathered block by block."""

    def __init__(self) -> None:
        self.rows = self.images = 0
        self.total = np.zeros(len(AXIS))
        # Over the images: of the squared sums of curves, of count times sum, and of squared counts.
        self.squares, self.products, self.counts = np.zeros(len(AXIS)), np.zeros(len(AXIS)), 0.0

    def add(self, curves: NDArray[np.float64], images: NDArray[np.int64]) -> None:
        """Add curves ``(R, 51)``. No image may be in two blocks."""
        known = np.isfinite(curves).all(1)
        curves, images = curves[known], images[known]
        if not len(curves):
            return
        starts = np.flatnonzero(np.diff(images, prepend=images[0] - 1))
        sums = np.add.reduceat(curves, starts, axis=0)
        counts = np.diff(starts, append=len(images)).astype(np.float64)
        self.rows += len(curves)
        self.images += len(starts)
        self.total += sums.sum(0)
        self.squares += np.square(sums).sum(0)
        self.products += (counts[:, None] * sums).sum(0)
        self.counts += float(np.square(counts).sum())

    def mean(self) -> MeanCurve | None:
        if not self.rows:
            return None
        mean = self.total / self.rows
        if self.images == 1:
            return MeanCurve(mean, np.full(len(AXIS), np.nan), self.rows)
        spread = self.squares - 2 * mean * self.products + np.square(mean) * self.counts
        variance = spread.clip(0) * self.images / (self.images - 1) / self.rows**2
        return MeanCurve(mean, NORMAL_95 * np.sqrt(variance), self.rows)


def mean_curves(
    masks: MaskFile, images: NDArray[np.int64], groups: dict[str, NDArray[np.bool_]]
) -> dict[str, dict[str, MeanCurve]]:
    """The mean curves of groups of explanations. The curves are read in blocks.

    Args:
        masks: the result.
        images: ``(R,)`` the image of each explanation.
        groups: which of the R explanations are in a group.

    Returns:
        By group: the mean ``deletion`` and ``insertion``. Groups without a curve are left out.
    """
    sums = {name: {kind: _Sums() for kind in _KINDS} for name in groups}
    order = np.argsort(images, kind="stable")
    for rows in _blocks(order, images):
        curves = read_curves(masks, rows)
        for name, members in groups.items():
            chosen = members[rows]
            for kind in _KINDS:
                sums[name][kind].add(curves[kind][chosen], images[rows][chosen])
    found = {name: {kind: kinds[kind].mean() for kind in _KINDS} for name, kinds in sums.items()}
    return {
        name: {kind: curve for kind, curve in kinds.items() if curve is not None}
        for name, kinds in found.items()
        if any(kinds.values())
    }


def _blocks(order: NDArray[np.int64], images: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows in the order of their images, in blocks that end between two images."""
    ends: Sequence[int] = np.append(np.flatnonzero(np.diff(images[order])) + 1, len(order)).tolist()
    start = 0
    for end, following in zip(ends, [*ends[1:], None], strict=True):
        if following is None or following - start > _BLOCK:
            if end > start:
                yield order[start:end]
            start = end
