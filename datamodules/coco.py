"""Images with annotated objects, in COCO's format."""

from __future__ import annotations

import json
import logging
import os
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from igos_pl.data.annotations import GroundTruth, Rle
from igos_pl.data.images import MAX_PIXELS, check_reachable, find_images
from igos_pl.data.wording import counted
from igos_pl.datamodules.base import ImageDataModule
from igos_pl.datamodules.samples import Sample
from igos_pl.errors import IgosError
from igos_pl.run.run import Run

# What each entry of an instances file must have.
_KEYS = {
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
}

# What is left out, in the words of the warning: objects, or only their masks.
_CROWD = "crowd regions"
_EMPTY = "boxes without width or height, or with a value that is not finite"
_OUTSIDE = "boxes outside of their images"
_NO_MASK = "masks (not the boxes) that are damaged, empty or not of their image's size"

Entry = dict[str, Any]


class COCODataModule(ImageDataModule):
    """COCO's images (Lin et al., ECCV 2014) or others in its format, with the objects in them.

    Crowd regions, objects whose box has no width or height, and objects outside of their image are left out.
    One warning counts them. Boxes that extend beyond the image are clipped.

    Args:
        root: the folder that the file names in ``annotations`` start from.
        annotations: an instances file (``instances_val2017.json``). Without one, all images in the folder and
            the folders below it are taken, and no objects are known.
        **data: see `SampleDataModule`.
    """

    def __init__(
        self,
        root: str,
        annotations: str | None = None,
        **data: Any,
    ) -> None:
        super().__init__(root, **data)
        self.annotations = Path(annotations) if annotations else None

    def find_samples(self) -> list[Sample]:
        """A sample for each image of the file, in its order; its id is the image's id there.

        Images without objects are included. A missing image file is noticed only when it is read, but a new
        run is refused if all are missing.
        """
        if self.annotations is None:
            return [Sample(name.as_posix(), str(self.root / name)) for name in find_images(self.root)]
        if not os.path.isdir(self.root):
            check_reachable(self.root)
            raise IgosError(
                f"There is no folder {self.root}: set root (--data.root) to the folder with the images"
            )
        left_out: Counter[str] = Counter()
        samples = _read_samples(self.annotations, self.root, left_out)
        if left_out:
            counts = ", ".join(f"{count} {what}" for what, count in left_out.items())
            logging.getLogger(__name__).warning("%s: left out %s", self.annotations, counts)
        return samples

    def _check(self) -> None:
        assert self.trainer is not None
        # The folder of a run with results was right. Usually, the first image exists, so this is quick.
        new = self.annotations and self.pending and not Run.of(self.trainer).explained_before
        if new and not any(os.path.exists(sample.path) for sample in self.pending):
            raise IgosError(
                f"{self.annotations} names {counted(len(self.pending), 'image')}, but none is in the folder"
                f" {self.root} (there is no {self.pending[0].path}, for example): set root (--data.root) to"
                " the folder that the file names start from"
            )
        super()._check()


def _read_samples(path: Path, root: Path, left_out: Counter[str]) -> list[Sample]:
    """The images of an instances file. What is left out is counted in ``left_out``."""
    content = _read_json(path)
    images = _by_id(content, "images", path)
    categories = _by_id(content, "categories", path)
    if not images:
        raise IgosError(f"{path} names no images: there is nothing to explain")
    for image in images.values():
        _check_image(image, path)
        _check_inside(image, root, path)
    for number, category in categories.items():
        if not isinstance(category["name"], str | int | float):
            raise IgosError(f"{path}, category {number!r}: name must be text, but is {category['name']!r}")
    objects: dict[Any, list[Entry]] = {number: [] for number in images}
    used: set[int] = set()
    for place, annotation in enumerate(content["annotations"]):
        where = f"{path}, annotations[{place}]"
        _check_annotation(annotation, where, images, categories)
        if annotation["id"] in used:
            raise IgosError(
                f"{where}: the id {annotation['id']} occurs twice; ids of annotations must be unique,"
                " because results name objects by them"
            )
        used.add(annotation["id"])
        if annotation.get("iscrowd"):
            left_out[_CROWD] += 1
        else:
            objects[annotation["image_id"]].append(annotation)
    names = {number: str(category["name"]) for number, category in categories.items()}
    # Boxes are assumed to refer to the upright image, as labelling tools show it and `read_image` returns it.
    # Boxes that were drawn on the stored pixels of an image with an EXIF rotation do not fit. Checking this
    # here would mean opening every image. `GroundTruth.fitting` later drops objects whose mask size differs.
    return [
        Sample(
            str(number),
            str(root / image["file_name"]),
            _truth(objects[number], names, int(image["height"]), int(image["width"]), left_out),
        )
        for number, image in images.items()
    ]


def _read_json(path: Path) -> Mapping[str, list[Entry]]:
    """The content of an instances file.

    Raises:
        IgosError: if the file is missing, is not valid JSON, or lacks one of the three lists.
    """
    if not os.path.isfile(path):
        check_reachable(path)
        raise IgosError(f"There is no annotations file {path}: correct annotations (--data.annotations)")
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise IgosError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}); is the"
            " file cut off?"
        ) from error
    except UnicodeDecodeError as error:
        raise IgosError(
            f"{path} is not a JSON file: set annotations (--data.annotations) to an instances file"
        ) from error
    except RecursionError as error:
        raise IgosError(
            f"{path} is nested too deeply to be an instances file: correct annotations (--data.annotations)"
        ) from error
    except ValueError as error:  # Python refuses to read thousands of digits
        raise IgosError(f"{path} has a number with too many digits ({error}): correct it") from error
    lists = content if isinstance(content, dict) else {}
    missing = [key for key in _KEYS if not isinstance(lists.get(key), list)]
    if missing:
        raise IgosError(
            f"{path} is no COCO instances file: it has no list {', '.join(map(repr, missing))}. Set"
            " annotations (--data.annotations) to one (as instances_val2017.json), or leave it out to explain"
            " all images in root"
        )
    return lists


def _by_id(content: Mapping[str, list[Entry]], kind: str, path: Path) -> dict[Any, Entry]:
    """Entries by their ids.

    Raises:
        IgosError: if an entry lacks a key, or two share an id.
    """
    entries: dict[Any, Entry] = {}
    for place, entry in enumerate(content[kind]):
        where = f"{path}, {kind}[{place}]"
        _check_keys(entry, kind, where)
        number = entry["id"]
        if not isinstance(number, int | str) or isinstance(number, bool):
            raise IgosError(f"{where}: an id is a whole number or a text, but this is {number!r}")
        if number in entries:
            raise IgosError(f"{where}: the id {number!r} occurs twice; ids of {kind} must be unique")
        entries[number] = entry
    return entries


def _check_keys(entry: Any, kind: str, where: str) -> None:
    missing = [key for key in _KEYS[kind] if not isinstance(entry, dict) or key not in entry]
    if missing:
        raise IgosError(f"{where} lacks {', '.join(map(repr, missing))}: complete or remove the entry")


def _check_image(image: Entry, path: Path) -> None:
    where = f"{path}, image {image['id']!r}"
    if not isinstance(image["file_name"], str) or not image["file_name"]:
        raise IgosError(f"{where}: file_name must be the path of a picture, but is {image['file_name']!r}")
    for side in ("width", "height"):
        pixels = image[side]
        if not _is_number(pixels) or not 1 <= pixels < 2**31:
            raise IgosError(f"{where}: {side} must be a number of pixels, but is {pixels!r}")


def _check_inside(image: Entry, root: Path, path: Path) -> None:
    """Raise if a file name leads out of the root: such a file could name any picture. Links are allowed."""
    top = os.path.join(os.path.abspath(root), "")
    if not os.path.abspath(os.path.join(top, image["file_name"])).startswith(top):
        raise IgosError(
            f"{path}, image {image['id']!r}: {image['file_name']} lies outside of {root}: set root"
            " (--data.root) to a folder that holds all images"
        )


def _is_number(value: Any) -> bool:
    """Whether a value is a number, not a bool, that fits into 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or -(2**63) <= value < 2**63


def _check_annotation(
    annotation: Any, where: str, images: Mapping[Any, Entry], categories: Mapping[Any, Entry]
) -> None:
    _check_keys(annotation, "annotations", where)
    for key, known in (("image_id", images), ("category_id", categories)):
        number = annotation[key]
        if not isinstance(number, int | str) or number not in known:
            kind = "images" if key == "image_id" else "categories"
            raise IgosError(f"{where}: {key} is {number!r}, not one of the {len(known)} ids in {kind}")
    if not isinstance(annotation["id"], int) or isinstance(annotation["id"], bool):
        raise IgosError(f"{where}: id must be a whole number, but is {annotation['id']!r}")
    box = annotation["bbox"]
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise IgosError(
            f"{where}: bbox must be four numbers (x, y, width, height), but is {reprlib.repr(box)}"
        )


def _truth(
    objects: Sequence[Entry], names: Mapping[Any, str], height: int, width: int, left_out: Counter[str]
) -> GroundTruth:
    """The usable objects of an image. The others are counted in ``left_out``."""
    if not objects:
        return GroundTruth.of_class()
    corners = np.array([item["bbox"] for item in objects], np.float64)
    sound = np.isfinite(corners).all(axis=1) & (corners[:, 2:] > 0).all(axis=1)
    corners[:, 2:] += corners[:, :2]
    boxes = corners.clip(0, [width, height, width, height]).astype(np.float32)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    used = sound & inside
    kept = [objects[place] for place in np.flatnonzero(used).tolist()]
    masks = [_mask(item, height, width) for item in kept]
    counts = {
        _EMPTY: int((~sound).sum()),
        _OUTSIDE: int((sound & ~inside).sum()),
        _NO_MASK: sum(
            mask is None and bool(item.get("segmentation")) for item, mask in zip(kept, masks, strict=True)
        ),
    }
    left_out.update({what: count for what, count in counts.items() if count})
    return GroundTruth(
        boxes=boxes[used],
        names=tuple(names[item["category_id"]] for item in kept),
        ids=tuple(item["id"] for item in kept),
        instance_masks=tuple(masks),
    )


def _mask(item: Entry, height: int, width: int) -> Rle | None:
    """An object's mask of ``height x width`` pixels; None if it has no usable one.

    Encoding a polygon takes about 40 microseconds, and the result needs a tenth of its memory.
    """
    segmentation = item.get("segmentation")
    if not segmentation or height * width > MAX_PIXELS:  # such an image is not read
        return None
    try:
        if isinstance(segmentation, list):
            mask = _from_polygons(segmentation, height, width)
        else:
            mask = _from_rle(segmentation, height, width)
        return mask if mask is not None and coco_mask.area(mask) else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None  # pycocotools raises these for damaged masks


def _from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Rle | None:
    # pycocotools walks along every edge, so far corners are slow, and it reads four numbers as a box.
    reach = 10 * max(height, width)
    areas = [polygon for polygon in polygons if len(polygon) >= 6]
    if not areas or not all(np.abs(polygon).max() <= reach for polygon in areas):
        return None
    rle: Rle = coco_mask.merge(coco_mask.frPyObjects(areas, height, width))
    return rle


def _from_rle(encoded: Rle, height: int, width: int) -> Rle | None:
    if list(encoded["size"]) != [height, width]:
        return None
    counts = encoded["counts"]
    if not isinstance(counts, list):
        counts = _run_lengths(counts.encode() if isinstance(counts, str) else counts)
    if min(counts) < 0 or sum(counts) != height * width:
        return None
    rle: Rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return rle


def _run_lengths(compressed: bytes) -> list[int]:
    """The lengths of a compressed RLE. pycocotools reads and writes beyond the memory of damaged ones.

    A number is a series of characters, its lowest five bits first: 48 is added, 32 says that another one
    follows, and 16 in the last one is the sign. From the fourth on, a number is the difference from the one
    two places before.

    Raises:
        ValueError: if a character is none of these, or the last number does not end.
    """
    lengths: list[int] = []
    number, shift = 0, 0
    for character in compressed:
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{character} is not a character of an RLE")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number, shift = 0, 0
    if shift:
        raise ValueError("the last number does not end")
    return lengths
