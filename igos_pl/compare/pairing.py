"""Which explanations of several results are of the same target."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igos_pl.store import MaskFile

# Two detections are of one object if their boxes overlap at least so much, as in `igos_pl.data.matching`.
_SAME_BOX = 0.5

Key = tuple[str, str]  # an image's id, and a class


@dataclass(frozen=True)
class Pairing:
    """The explanations that several results share.

    Attributes:
        rows: ``(n, runs)`` the number of each shared explanation in each result, in the order of the first.
        alone: for each result, the number of its targets that are not in all others.
        images_alone: for each result, the ids of its images that are not in all others.
    """

    rows: NDArray[np.int64]
    alone: list[int]
    images_alone: list[list[str]]


def pair(results: Sequence[MaskFile]) -> Pairing:
    """Find the same targets: the same image and class and, of detections, boxes with an IoU of at least 0.5.

    Of several starts of a target, the best one is taken.

    Args:
        results: at least two.
    """
    first, *others = (_Targets(result) for result in results)
    columns = [np.arange(len(first.rows)), *(first.partners(other) for other in others)]
    places = np.stack(columns, 1)
    shared = places[(places >= 0).all(1)]
    rows = [targets.rows[shared[:, number]] for number, targets in enumerate((first, *others))]
    images = [dict.fromkeys(result.images["sample_id"].tolist()) for result in results]
    common = set(images[0]).intersection(*images[1:])
    return Pairing(
        np.stack(rows, 1),
        [len(targets.rows) - len(shared) for targets in (first, *others)],
        [[name for name in names if name not in common] for names in images],
    )


class _Targets:
    """The targets of a result: one row for each, its class and its box."""

    def __init__(self, result: MaskFile) -> None:
        ids, number, best = (result.column(name).tolist() for name in ("sample_id", "target", "best"))
        chosen: dict[tuple[str, int], int] = {}
        for row, key in enumerate(zip(ids, number, strict=True)):
            if key not in chosen or best[row] > best[chosen[key]]:
                chosen[key] = row
        self.rows = np.array(sorted(chosen.values()), np.int64)
        rows = result[self.rows]
        self.boxes = rows.column("box").reshape(-1, 4).astype(np.float64)
        names, labels = (rows.column(name).tolist() for name in ("label_name", "label"))
        self.places: dict[Key, list[int]] = defaultdict(list)
        for place, (name, label) in enumerate(zip(names, labels, strict=True)):
            self.places[ids[self.rows[place]], name or str(label)].append(place)

    def partners(self, other: _Targets) -> NDArray[np.int64]:
        """For each target the place of the same one in another result; -1 if there is none."""
        found = np.full(len(self.rows), -1)
        for key, mine in self.places.items():
            theirs = other.places.get(key, [])
            overlap = _overlaps(self.boxes[mine], other.boxes[theirs])
            while overlap.size and overlap.max() >= _SAME_BOX:
                one, two = np.unravel_index(overlap.argmax(), overlap.shape)
                found[mine[int(one)]] = theirs[int(two)]
                overlap[one, :] = overlap[:, two] = -1
        return found


def _overlaps(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The IoU of boxes ``(m, 4)`` and ``(n, 4)``; 1 for two targets without a box, 0 if only one has none."""
    a, b = one[:, None], other[None]
    overlap = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    both = overlap.clip(0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (a, b)]
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = both / (areas[0] + areas[1] - both)
    bare = [np.isnan(boxes).any(-1) for boxes in (a, b)]
    return np.where(bare[0] & bare[1], 1.0, np.nan_to_num(iou, nan=0.0))
