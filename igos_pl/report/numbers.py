"""The numbers of all explanations of a run, and their means over groups."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from igos_pl.report.curves import NORMAL_95
from igos_pl.store import MaskFile

# An insertion - deletion below this says that the mask orders the cells hardly better than chance, for which
# it is about 0.
UNINFORMATIVE = 0.05

# The limits of COCO's small, medium and large objects, in pixels of the original.
_SMALL, _LARGE = 32**2, 96**2

_NUMBERS = (
    "target", "start_cell", "label", "score", "baseline_score", "box", "deletion", "insertion", "object",
    "pointing_box", "pointing_mask", "energy_box", "energy_mask", "best", "seconds", "diversity",
)  # fmt: skip
LOCALISATION = {
    "energy_box": "saliency in the box",
    "energy_mask": "saliency in the instance mask",
    "pointing_box": "peak in the box",
    "pointing_mask": "peak in the instance mask",
}


class Numbers:
    """The columns of all explanations but masks and curves.

    Args:
        masks: the result.

    Attributes:
        columns: by name; see `igos_pl.store.schema.EXPLANATIONS`.
        status: ``(R,)`` text.
        image: ``(R,)`` the row of each explanation's image in the table of images.
        class_names: of all explained classes. If two classes have the same name, the label is added.
        class_index: ``(R,)`` the place of each explanation's class in ``class_names``.
    """

    def __init__(self, masks: MaskFile) -> None:
        every = np.arange(len(masks))
        self.masks = masks
        self.columns = {name: masks.column(name) if len(masks) else np.empty(0) for name in _NUMBERS}
        self.columns["box"] = self.columns["box"].reshape(len(every), 4)
        self.status = masks.column("status").astype(str) if len(masks) else np.empty(0, str)
        ids = masks.table.read_bytes("sample_id", every) if len(masks) else np.empty(0, "S1")
        self.image = masks.image_rows(ids) if len(masks) else np.empty(0, np.int64)
        labels, first, self.class_index = np.unique(
            self.columns["label"].astype(np.int64), return_index=True, return_inverse=True
        )
        self.labels = labels
        names = masks.read("label_name", first).tolist() if len(masks) else []
        often = Counter(names)
        self.class_names = [
            f"{name} ({label})" if often[name] > 1 else str(name)
            for name, label in zip(names, labels.tolist(), strict=True)
        ]

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def difference(self) -> NDArray[np.float64]:
        """``(R,)`` insertion - deletion; NaN if not computed."""
        return self.columns["insertion"].astype(np.float64) - self.columns["deletion"]

    @cached_property
    def ground_truth(self) -> NDArray[np.int64]:
        """``(R,)`` the annotated label of the image; -1 if unknown."""
        return np.asarray(self.masks.images["ground_truth"][self.image], np.int64)

    @cached_property
    def right(self) -> NDArray[np.int8]:
        """``(R,)`` 1 if the explained class is the annotated one, 0 if not, -1 if unknown.

        For detections: 1 if the detection matches an annotated object.
        """
        if (objects := self.columns["object"] >= 0).any():
            return objects.astype(np.int8)
        known = self.ground_truth >= 0
        return np.where(known, self.columns["label"] == self.ground_truth, -1).astype(np.int8)

    @cached_property
    def box_area(self) -> NDArray[np.float64]:
        """``(R,)`` in pixels of the original; NaN without a box."""
        box = self.columns["box"].astype(np.float64)
        return np.asarray((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]))

    @cached_property
    def size(self) -> NDArray[np.float64]:
        """``(R,)`` the box's share of its image, from 0 to 1; NaN without a box."""
        images = self.masks.images
        pixels = images["width"][self.image].astype(np.float64) * images["height"][self.image]
        return np.asarray(self.box_area / np.maximum(pixels, 1))

    def groups_of_size(self) -> dict[str, NDArray[np.bool_]]:
        """The detections by COCO's sizes; empty for a classifier."""
        area = self.box_area
        if not np.isfinite(area).any():
            return {}
        return {
            "small (below 32 x 32 pixels)": area < _SMALL,
            "medium": (area >= _SMALL) & (area < _LARGE),
            "large (96 x 96 pixels or more)": area >= _LARGE,
        }

    def groups_of_rightness(self) -> dict[str, NDArray[np.bool_]]:
        """The explanations by whether the explained class is the annotated one; empty if unknown for all."""
        if not (self.right >= 0).any():
            return {}
        detections = (self.columns["object"] >= 0).any()
        words = (
            ("matches an annotated object", "matches none")
            if detections
            else ("explained class is the annotated one", "explained class is another one")
        )
        groups = {words[0]: self.right == 1, words[1]: self.right == 0, "not annotated": self.right == -1}
        return {name: members for name, members in groups.items() if members.any()}


@dataclass(frozen=True)
class Means:
    """The means of a group of explanations. A value is NaN if no explanation has it.

    Attributes:
        name: of the group.
        rows: the number of explanations.
        right: the share with the annotated class, among those whose class is known.
        score: of the network.
        deletion: the mean of the areas under the curves.
        insertion: the mean of the areas under the curves.
        difference: insertion - deletion.
        half_width: half of the 95 % confidence interval of ``difference``.
        uninformative: the share whose insertion - deletion is below `UNINFORMATIVE`.
        localisation: the means of the columns in `LOCALISATION`.
    """

    name: str
    rows: int
    right: float
    score: float
    deletion: float
    insertion: float
    difference: float
    half_width: float
    uninformative: float
    localisation: dict[str, float]


def means_of(numbers: Numbers, groups: dict[str, NDArray[np.bool_]]) -> list[Means]:
    """The means of groups that may overlap."""
    found = []
    for name, members in groups.items():
        found += _means(numbers, np.flatnonzero(members), np.zeros(int(members.sum()), np.int64), [name])
    return found


def means_by_class(numbers: Numbers) -> list[Means]:
    """The means of each class, in the order of ``numbers.class_names``."""
    return _means(numbers, np.arange(len(numbers)), numbers.class_index, numbers.class_names)


def _means(
    numbers: Numbers, rows: NDArray[np.int64], group: NDArray[np.int64], names: list[str]
) -> list[Means]:
    """The means of groups of rows.

    Args:
        numbers: of all explanations.
        rows: the explanations that are in a group.
        group: of each of these rows.
        names: of the groups.
    """
    total = len(names)
    counts = np.bincount(group, minlength=total)

    def mean(values: NDArray[np.float64]) -> list[float]:
        known = np.isfinite(values)
        sums = np.bincount(group[known], values[known], total)
        number = np.bincount(group[known], minlength=total)
        return [float(s / n) if n else float("nan") for s, n in zip(sums, number, strict=True)]

    difference = numbers.difference[rows]
    right = numbers.right[rows].astype(np.float64)
    right[right < 0] = np.nan
    uninformative = np.where(np.isfinite(difference), difference < UNINFORMATIVE, np.nan)
    middle = mean(difference)
    localisation = {name: mean(numbers.columns[name][rows].astype(np.float64)) for name in LOCALISATION}
    score, deletion, insertion = (
        mean(numbers.columns[name][rows].astype(np.float64)) for name in ("score", "deletion", "insertion")
    )
    shares, poor = mean(right), mean(uninformative)
    widths = _half_widths(difference, np.array(middle), group, numbers.image[rows])
    return [
        Means(
            name,
            count,
            shares[at],
            score[at],
            deletion[at],
            insertion[at],
            middle[at],
            widths[at],
            poor[at],
            {column: values[at] for column, values in localisation.items()},
        )
        for at, (name, count) in enumerate(zip(names, counts.tolist(), strict=True))
        if count
    ]


def _half_widths(
    values: NDArray[np.float64],
    means: NDArray[np.float64],
    group: NDArray[np.int64],
    image: NDArray[np.int64],
) -> list[float]:
    """Half of each group's 95 % confidence interval. Values of one image count as one observation.

    Args:
        values: ``(R,)``; NaN is left out.
        means: of the groups.
        group: ``(R,)`` of each value.
        image: ``(R,)`` of each value.
    """
    known = np.isfinite(values)
    if not known.any():
        return [float("nan")] * len(means)
    values, group, image = values[known], group[known], image[known]
    pairs, pair = np.unique(group * (image.max() + 1) + image, return_inverse=True)
    owner = pairs // (image.max() + 1)
    residuals = np.bincount(pair, values - means[group])
    spread = np.bincount(owner, np.square(residuals), len(means))
    images = np.bincount(owner, minlength=len(means))
    rows = np.bincount(group, minlength=len(means))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = spread * images / (images - 1) / np.square(rows)
        widths = np.where(images > 1, NORMAL_95 * np.sqrt(variance), np.nan)
    return [float(width) for width in widths]
