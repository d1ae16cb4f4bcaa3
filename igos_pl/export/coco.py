"""COCO's results format: for every explanation the region of its most salient cells, as a segmentation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as rle

from igos_pl.data.explanation import Explanation
from igos_pl.errors import IgosError
from igos_pl.solver.order import most_important
from igos_pl.store.files import publishing
from igos_pl.store.reader import Rows
from igos_pl.store.seals import cannot_read


def write_coco(
    rows: Rows, output: Path, advance: Callable[[int], None], fraction: float, annotations: Path | None
) -> str:
    """Write a JSON list with an entry for every explanation.

    Args:
        rows: the explanations.
        output: the JSON file.
        advance: called with the number of explanations that were written.
        fraction: of the cells that belong to the region.
        annotations: COCO's instances JSON, which has the ids of images and categories. Without it, an image's
            id is the number in its name. If any name has no number, or two names have the same number, all
            ids are the names. A category's id is the label.

    Returns:
        What was written, in words.

    Raises:
        IgosError: if an image or a category is not among the annotations.
    """
    ids = _Ids.of(rows, annotations)
    with publishing(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, explanation in enumerate(rows):
            file.write(",\n" if number else "\n")
            json.dump(_entry(explanation, ids, fraction), file, ensure_ascii=False)
            advance(1)
        file.write("\n]\n")
    return f"{len(rows)} results, image_id is {ids.about}"


def _entry(explanation: Explanation, ids: _Ids, fraction: float) -> dict[str, Any]:
    top = most_important(explanation.mask, fraction, explanation.values.get("regions"))
    region = explanation.frame.saliency_on_original(top.astype(np.float32)) >= 0.5
    encoded = rle.encode(np.asfortranarray(region, np.uint8))
    box = np.asarray(explanation.box, np.float64)
    corners = box if not np.isnan(box).any() else _extent(region)
    x1, y1, x2, y2 = (float(corner) for corner in corners)
    return {
        "image_id": ids.image(str(explanation.sample_id)),
        "category_id": ids.category(explanation),
        "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
        "score": _number(explanation.score),
        "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")},
        "sample_id": str(explanation.sample_id),
        "label_name": str(explanation.label_name),
        "deletion": _number(explanation.deletion),
        "insertion": _number(explanation.insertion),
    }


def _number(value: Any) -> float | None:
    """A number as JSON knows it: none that is not finite."""
    return round(float(value), 6) if np.isfinite(value) else None


def _extent(region: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[int, int, int, int]:
    """The corners of a region; zeros if it is empty."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class _Ids:
    """The ids of images and categories.

    Attributes:
        about: what an image's id is, in words.
        images: ids by file name; None if they are the numbers in the names, or the names.
        categories: ids by class name; None if they are the labels.
        numbers: whether ids are the numbers in the names.
    """

    about: str
    images: Mapping[str, Any] | None = None
    categories: Mapping[str, int] | None = None
    numbers: bool = False

    @classmethod
    def of(cls, rows: Rows, annotations: Path | None) -> _Ids:
        if annotations is None:
            stems = [PurePosixPath(name).stem for name in set(rows.column("sample_id").tolist())]
            numbers = all(stem.isascii() and stem.isdigit() for stem in stems)
            numbers = numbers and len({int(stem) for stem in stems}) == len(stems)  # of a/1.jpg and b/1.jpg
            return cls("the number in the image's name" if numbers else "the image's name", numbers=numbers)
        try:
            content = json.loads(annotations.read_bytes())
            images = {image["file_name"]: image["id"] for image in content["images"]}
            categories = {category["name"]: category["id"] for category in content["categories"]}
        except OSError as error:
            raise cannot_read(annotations, error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise IgosError(
                f"{annotations} is not an instances file of COCO: it must have images with file_name and id,"
                " and categories with name and id"
            ) from error
        return cls(f"that of {annotations.name}", images, categories)

    def image(self, name: str) -> Any:
        """The id of an image."""
        if self.images is None:
            return int(PurePosixPath(name).stem) if self.numbers else name
        if name not in self.images:
            raise IgosError(
                f"The image {name} is not among the annotations: give the annotations of these images"
            )
        return self.images[name]

    def category(self, explanation: Explanation) -> int:
        """The id of an explanation's class."""
        if self.categories is None:
            return int(explanation.label)
        if explanation.label_name not in self.categories:
            raise IgosError(
                f"The class {explanation.label_name!r} is not among the annotations' categories: give"
                " annotations with the network's classes"
            )
        return self.categories[explanation.label_name]
