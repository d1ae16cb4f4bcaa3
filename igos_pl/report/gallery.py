"""The explanations that a report shows one by one: their pictures, masks, curves and numbers."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from igos_pl.data.geometry import Frame, has_few_cells
from igos_pl.data.text import printable
from igos_pl.report.choice import Choice
from igos_pl.report.curves import read_curves, read_measured
from igos_pl.report.folder import ReportFolder, compact_floats
from igos_pl.report.numbers import LOCALISATION, Numbers
from igos_pl.report.pictures import (
    KEPT,
    OK,
    Drawing,
    Picture,
    Style,
    Subject,
    make_picture,
    picture_path,
    thumbnail_path,
)
from igos_pl.report.regions import RegionOrder, region_orders
from igos_pl.store import MaskFile

_MOST_CELLS = 64  # along a side; larger masks are averaged for the page
_FILE_BYTES, _FILE_ROWS = 1 << 18, 128  # of the masks in one script
_BLOCK = 512  # explanations that are read at once
_AHEAD = 2  # blocks that are being drawn

_SCALE = 65535  # masks are stored as 16-bit fractions


@dataclass(frozen=True)
class Where:
    """Where the images are.

    Attributes:
        root: the folder from which the run read them; None if it is not known.
        moved_to: the folder in which they are now; None for the place that the run read them from.
    """

    root: Path | None
    moved_to: Path | None

    def candidates(self, sample_id: str, path: str) -> tuple[str, ...]:
        """The places where an image may be, the likeliest first.

        Ids that lead out of the folder are not followed.
        """
        if self.moved_to is None:
            return (path,) if path else ()
        names = [sample_id]
        if self.root is not None and path and Path(path).is_relative_to(self.root):
            names.append(str(Path(path).relative_to(self.root)))
        if path:
            names.append(Path(path).name)
        inside = [name for name in dict.fromkeys(names) if name and ".." not in Path(name).parts]
        return tuple(str(self.moved_to / name.lstrip("/")) for name in inside)


@dataclass(frozen=True)
class _Block:
    """Explanations that are drawn together: whole images.

    Attributes:
        subjects: the images with their explanations.
        salient: for each explanation, the share of the cells that hold half of its saliency.
        curves: of the explanations, see `igos_pl.report.curves.read_curves`.
        measured: which of their points were measured.
        orders: of the regions of each explanation; None for masks of single cells.
    """

    subjects: list[Subject]
    salient: list[float]
    curves: dict[str, NDArray[np.float64]]
    measured: dict[str, NDArray[np.bool_]]
    orders: list[RegionOrder] | None


class Gallery:
    """Writes the explanations that a report shows.

    Args:
        masks: the result.
        numbers: of all explanations.
        choice: which explanations are shown.
        where: the images are.

    Attributes:
        mask_size: the cells along the side of a mask.
        cells: the cells along the side of a mask as the page shows it.
    """

    def __init__(self, masks: MaskFile, numbers: Numbers, choice: Choice, where: Where) -> None:
        self._masks, self._numbers, self._choice, self._where = masks, numbers, choice, where
        self.rows = choice.rows
        self._images, self._image_of = np.unique(numbers.image[self.rows], return_inverse=True)
        self._columns = {
            name: masks.image_table.read(name, self._images)
            for name in ("sample_id", "path", "width", "height", "frame", "input_size", "ground_truth")
            if len(self._images)
        }
        self.mask_size = int(masks.read("masks", self.rows[:1]).shape[1]) if len(self.rows) else 1
        self.cells = math.ceil(self.mask_size / math.ceil(self.mask_size / _MOST_CELLS))
        self.per_file = int(np.clip(_FILE_BYTES // (2 * self.cells**2), 4, _FILE_ROWS))
        self.pictures: list[Picture] = []
        self._thumbnails: list[str] = []
        self._salient: list[float] = []
        self._largest: list[float] = []

    def __len__(self) -> int:
        return len(self.rows)

    def write(self, folder: ReportFolder, on_drawn: Callable[[int, int], None]) -> None:
        """Write pictures, thumbnails, masks and curves.

        Args:
            folder: of the report.
            on_drawn: called with the number of explanations that are drawn, and the number in all.

        Raises:
            IgosError: if they cannot be written.
        """
        from igos_pl.solver.baselines import blur_parameters  # imports torch, which drawing does not need

        if not len(self.rows):
            return
        sizes = {(int(h), int(w)) for h, w in self._columns["input_size"]}
        kind = str(self._masks.attributes.get("baseline", "blur"))
        style = Style(
            folder.path,
            kind,
            {size: blur_parameters(size) for size in sizes} if kind == "blur" else {},
        )
        script = _Scripts(folder, self.per_file, self.cells, self.mask_size)
        done = 0
        for block, made in _drawn(self._blocks(folder.digests), style):
            self.pictures += made
            drawings = [drawing for subject in block.subjects for drawing in subject.drawings]
            names = [drawing.name for drawing in drawings]
            self._thumbnails += names
            self._largest += [drawing.largest for drawing in drawings]
            self._salient += block.salient
            for name in names:
                folder.keep(thumbnail_path(folder.path, name))
            for picture in made:
                if picture.state in (OK, KEPT):
                    folder.keep(picture_path(folder.path, picture.name))
            script.add(block, made)
            done += len(names)
            on_drawn(done, len(self.rows))
        script.close()

    def _blocks(self, digests: dict[str, str]) -> Iterator[_Block]:
        """The explanations with their images, block by block."""
        ends = np.append(np.flatnonzero(np.diff(self._image_of)) + 1, len(self.rows))
        start = 0
        for place, end in enumerate(ends.tolist()):
            if place + 1 < len(ends) and ends[place + 1] - start <= _BLOCK:
                continue
            rows = self.rows[start:end]
            masks = np.nan_to_num(np.asarray(self._masks.read("masks", rows), np.float32), nan=1).clip(0, 1)
            orders = None
            if "regions" in self._masks.table.schema:
                orders = region_orders(masks, self._masks.read("regions", rows))
            saliency = 1 - masks
            groups = self._image_of[start:end]
            subjects = []
            for image in range(int(groups[0]), int(groups[-1]) + 1):
                members = np.flatnonzero(groups == image)
                subjects.append(self._subject(image, rows[members], saliency[members], digests))
            salient = [one.salient_share for one in orders] if orders else _salient_shares(saliency).tolist()
            curves, measured = read_curves(self._masks, rows), read_measured(self._masks, rows)
            yield _Block(subjects, salient, curves, measured, orders)
            start = end

    def _subject(
        self, image: int, rows: NDArray[np.int64], masks: NDArray[np.float32], digests: dict[str, str]
    ) -> Subject:
        sample_id, path = str(self._columns["sample_id"][image]), str(self._columns["path"][image])
        frame = self._frame(image)
        name = _digest(sample_id, frame.width, frame.height)
        columns = self._numbers.columns
        drawings = []
        for row, saliency in zip(rows.tolist(), masks, strict=True):
            x1, y1, x2, y2 = (float(corner) for corner in columns["box"][row])
            key = (name, int(columns["target"][row]), int(columns["start_cell"][row]))
            digest = _digest(*key, saliency.tobytes().hex())
            largest = frame.largest_on_original(saliency)
            drawings.append(Drawing(digest, saliency, largest, (x1, y1, x2, y2)))
        candidates = self._where.candidates(sample_id, path)
        return Subject(name, candidates, frame, tuple(drawings), digests.get(name, ""))

    def _frame(self, image: int) -> Frame:
        left, top, right, bottom = (float(value) for value in self._columns["frame"][image])
        height, width = (int(value) for value in self._columns["input_size"][image])
        size = int(self._columns["width"][image]), int(self._columns["height"][image])
        return Frame(*size, (left, top, right, bottom), (height, width))

    def data(self) -> dict[str, Any]:
        """What the page needs to know of every explanation, as columns for JSON."""
        rows, numbers = self.rows, self._numbers
        columns = {name: values[rows] for name, values in numbers.columns.items()}
        truths = self._columns.get("ground_truth", np.empty(0, np.int64)).tolist()
        names = dict(zip(numbers.labels.tolist(), numbers.class_names, strict=True))
        statuses, status = np.unique(numbers.status[rows], return_inverse=True)
        optional = {name: columns[name] for name in LOCALISATION} | {
            "size": numbers.size[rows],
            "diversity": columns["diversity"],
        }
        return {
            "images": {
                "name": [printable(str(name)) for name in self._columns.get("sample_id", ())],
                "truth": [printable(str(names.get(truth, truth))) if truth >= 0 else "" for truth in truths],
                "picture": [picture.name if picture.state in (OK, KEPT) else "" for picture in self.pictures],
            },
            "classes": [printable(name) for name in numbers.class_names],
            "statuses": [printable(str(name)) for name in statuses],
            "row": rows.tolist(),
            "image": self._image_of.tolist(),
            "thumbnail": self._thumbnails,
            "class": numbers.class_index[rows].tolist(),
            "status": status.tolist(),
            "right": numbers.right[rows].tolist(),
            "target": columns["target"].tolist(),
            "start": columns["start_cell"].tolist(),
            **{name: compact_floats(columns[name]) for name in ("score", "deletion", "insertion")},
            "difference": compact_floats(numbers.difference[rows]),
            "largest": compact_floats(self._largest),
            "salient": compact_floats(self._salient),
            **{name: compact_floats(found) for name, found in optional.items() if np.isfinite(found).any()},
            "reasons": {name: found.tolist() for name, found in self._choice.reasons.items() if len(found)},
            "perFile": self.per_file,
            "cells": self.cells,
            "maskSize": self.mask_size,
            "sharp": has_few_cells(self.mask_size),
            "total": len(numbers),
        }


def _shares(box: Any, frame: Frame) -> list[float]:
    """A box as shares of the image's width and height."""
    sides = (max(1, frame.width), max(1, frame.height)) * 2
    return [round(float(corner) / side, 6) for corner, side in zip(box, sides, strict=True)]


def _places(chosen: NDArray[np.bool_]) -> list[int]:
    """The places of the true values."""
    return np.flatnonzero(chosen).tolist()


def _digest(*parts: object) -> str:
    return hashlib.blake2b("\0".join(map(str, parts)).encode(errors="replace"), digest_size=6).hexdigest()


def _salient_shares(masks: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of the cells that hold half of each mask's saliency: small for a focused mask.

    Args:
        masks: ``(R, s, s)`` saliency.

    Returns:
        ``(R,)``; NaN for a mask without saliency.
    """
    ordered = -np.sort(-masks.reshape(len(masks), -1).astype(np.float64), axis=1)
    sums = ordered.cumsum(1)
    half = (sums < sums[:, -1:] / 2).sum(1) + 1
    return np.where(sums[:, -1] > 0, half / ordered.shape[1], np.nan)


class _Scripts:
    """Writes what only the large view needs, as scripts of a fixed number of explanations."""

    def __init__(self, folder: ReportFolder, rows: int, cells: int, size: int) -> None:
        self._folder, self._rows, self._cells, self._size = folder, rows, cells, size
        self._waiting: list[dict[str, Any]] = []
        self._number = 0

    def add(self, block: _Block, pictures: list[Picture]) -> None:
        kinds = ("deletion", "insertion")
        curves = zip(*(block.curves[kind] for kind in kinds), strict=True)
        measured = zip(*(block.measured[kind] for kind in kinds), strict=True)
        orders = iter(block.orders or ())
        for subject, picture in zip(block.subjects, pictures, strict=True):
            frame = subject.frame
            image = {
                "path": printable(subject.paths[0]) if subject.paths else "",
                "note": printable(picture.note),
                "baseline": picture.baseline,
                "size": [frame.width, frame.height],
                "frame": _shares(frame.box, frame),
                "input": frame.input_size,
            }
            for drawing in subject.drawings:
                deletion, insertion = next(curves)
                known = bool(np.isfinite(deletion).all() and np.isfinite(insertion).all())
                own = {
                    "mask": self._text(drawing.saliency),
                    "regions": self._regions(next(orders, None)),
                    "deletion": compact_floats(deletion) if known else [],
                    "insertion": compact_floats(insertion) if known else [],
                    "measured": dict(zip(kinds, map(_places, next(measured)), strict=True)),
                    "box": _shares(drawing.box, frame) if np.isfinite(drawing.box).all() else None,
                    "whole": self._removed(drawing.box, frame, block.orders is not None),
                }
                self._waiting.append(image | own)
                if len(self._waiting) == self._rows:
                    self.close()

    def _regions(self, order: RegionOrder | None) -> dict[str, Any] | None:
        """The order of the regions; the cells are those that the page shows."""
        if order is None:
            return None
        nearest = (np.arange(self._cells) + 0.5) * len(order.rank) // self._cells
        rank = order.rank[np.ix_(nearest.astype(np.int64), nearest.astype(np.int64))]
        return {
            "rank": base64.b64encode(rank.astype("<u2").tobytes()).decode(),
            "places": order.places.tolist(),
            "sizes": order.sizes.tolist(),
            "half": order.half,
        }

    def _removed(self, box: tuple[float, float, float, float], frame: Frame, whole_mask: bool) -> int:
        """How many cells the whole curve removes: of the mask, or of the mask as the page shows it.

        For a detection: three times the box's area; see
        `igos_pl.evaluation.deletion_insertion.curve_cells`. That takes the instance mask if there is one. A
        result does not hold it, and fewer cells were removed then.
        """
        every = (self._size if whole_mask else self._cells) ** 2
        if not np.isfinite(box).all():
            return every
        x1, y1, x2, y2 = frame.box
        area = max(1e-9, (x2 - x1) * (y2 - y1))
        return int(np.clip(round(3 * (box[2] - box[0]) * (box[3] - box[1]) / area * every), 1, every))

    def close(self) -> None:
        if self._waiting:
            self._folder.write_data(f"masks-{self._number}", self._waiting)
            self._number += 1
            self._waiting = []

    def _text(self, mask: NDArray[np.float32]) -> str:
        if len(mask) != self._cells:
            size = (self._cells, self._cells)
            mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BOX))
        return base64.b64encode((mask * _SCALE).round().astype("<u2").tobytes()).decode()


def _drawn(blocks: Iterator[_Block], style: Style) -> Iterator[tuple[_Block, list[Picture]]]:
    """Draw blocks in their order. A few blocks are in memory at a time.

    Threads use all cores, because Pillow decodes, scales and encodes without Python's lock.
    """
    waiting: deque[tuple[_Block, list[Future[Picture]]]] = deque()

    def first() -> tuple[_Block, list[Picture]]:
        block, tasks = waiting.popleft()
        return block, [task.result() for task in tasks]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for block in blocks:
                waiting.append(
                    (block, [pool.submit(make_picture, subject, style) for subject in block.subjects])
                )
                if len(waiting) > _AHEAD:
                    yield first()
            while waiting:
                yield first()
        finally:
            pool.shutdown(cancel_futures=True)
