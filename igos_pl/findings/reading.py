"""Reads the explanations of a result, one for each image and class, in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igos_pl.errors import IgosError
from igos_pl.store import MaskFile

SIDE = 16  # p: pooled masks have p x p cells
_BLOCK_CELLS = 1 << 22  # cells of the masks that are read at once
_SAMPLES = 8  # positions in a pooled cell, along each side, at which a mask is interpolated


@dataclass(frozen=True)
class Units:
    """One explanation for each image and class, so that every image counts once.

    Attributes:
        rows: ``(n,)`` rows of the result, ascending.
        classes: ``(n,)`` the place of each row's class in ``names``.
        names: of the classes.
        left_out: how many explanations repeat a class of their image (several objects, or several starts).
        failed: how many explanations have a mask that is not finite; they are not among the rows.
    """

    rows: NDArray[np.int64]
    classes: NDArray[np.int64]
    names: list[str]
    left_out: int
    failed: int

    def __len__(self) -> int:
        return len(self.rows)


def units_of(masks: MaskFile) -> Units:
    """Choose an explanation for each image and class: the first target's, with its best start."""
    numbers = np.arange(len(masks))
    good = np.flatnonzero(masks.table.read_bytes("status", numbers) == b"ok")
    images, classes = (_places(masks, name, good) for name in ("sample_id", "label_name"))
    keys = [masks.read(name, good) for name in ("target", "best")]
    order = np.lexsort((-keys[1].astype(np.int64), keys[0], classes[1], images[1]))
    pairs = np.stack([images[1], classes[1]])[:, order]
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(pairs, axis=1) != 0).any(0)
    chosen = np.sort(order[first])
    return Units(
        good[chosen],
        classes[1][chosen],
        [name.decode() for name in classes[0].tolist()],
        left_out=len(good) - len(chosen),
        failed=len(masks) - len(good),
    )


def _places(masks: MaskFile, column: str, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The different texts of a column as UTF-8, and the place of each row's text among them."""
    values, places = np.unique(masks.table.read_bytes(column, rows), return_inverse=True)
    return values, places


@dataclass(frozen=True)
class Block:
    """Some explanations in the order of `Units`.

    Attributes:
        units: the place of the first one, and of the one after the last.
        pooled: ``(n, p, p)`` mean saliency of each cell of the network's input, high = important.
        peak: ``(n,)`` the largest saliency of each mask.
        boxes: ``(n, 4)`` x1 y1 x2 y2 of the explained object as shares of the input's width and height; NaN
            where there is none.
    """

    units: slice
    pooled: NDArray[np.float32]
    peak: NDArray[np.float32]
    boxes: NDArray[np.float64]


def blocks(masks: MaskFile, units: Units) -> Iterator[Block]:
    """Read the units' masks, a block at a time.

    Raises:
        IgosError: if the masks are not square grids.
    """
    if not len(units):
        return
    shape = masks.read("masks", units.rows[:1]).shape[1:]
    if len(shape) != 2:
        raise IgosError(f"Findings need masks of the shape (s, s), but these have the shape {shape}")
    down, across = map(pooling, shape)
    size = max(1, _BLOCK_CELLS // math.prod(shape))
    for start in range(0, len(units), size):
        part = slice(start, min(start + size, len(units)))
        rows = units.rows[part]
        saliency = 1 - masks.read("masks", rows).astype(np.float32)
        pooled = np.asarray(down @ saliency @ across.T, np.float32)
        yield Block(part, pooled, saliency.max((1, 2)), _boxes_in_input(masks, rows))


def pooling(cells: int) -> NDArray[np.float32]:
    """The matrix ``(p, cells)`` that takes one side of a mask to p cells of equal extent.

    Each is the mean of the mask as it is scaled to the input: linear, with the outermost cells' centres at
    the edges.
    """
    places = (np.arange(SIDE * _SAMPLES) + 0.5) / (SIDE * _SAMPLES) * (cells - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells)))
    return np.asarray(weights.reshape(SIDE, _SAMPLES, cells).mean(1), np.float32)


def _boxes_in_input(masks: MaskFile, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    boxes = masks.read("box", rows).astype(np.float64)
    if np.isnan(boxes).all():
        return boxes
    images = masks.image_rows(masks.table.read_bytes("sample_id", rows))
    frames = masks.image_table.read("frame", images)
    extent = np.tile(frames[:, 2:] - frames[:, :2], 2)
    return np.asarray((boxes - np.tile(frames[:, :2], 2)) / extent, np.float64)
