"""ImageNet's validation set, in either of its two usual layouts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.imagenet import index_of_ilsvrc2012_id, index_of_wordnet_id
from igos_pl.data.images import check_reachable, find_images
from igos_pl.data.wording import counted, is_or_are
from igos_pl.datamodules.base import ImageDataModule
from igos_pl.datamodules.samples import Sample
from igos_pl.errors import IgosError

# The number of images in the validation set.
_IMAGES = 50_000


class ImageNetDataModule(ImageDataModule):
    """ImageNet (ILSVRC 2012) validation images with their labels.

    Args:
        root: the folder with the images. It has a folder for each class, named by its WordNet id
            (``n01440764/*.JPEG``), or it is flat, and ``ground_truth`` names the labels.
        ground_truth: the official ``ILSVRC2012_validation_ground_truth.txt``: a number from 1 to 1000 on each
            line, for the images in the order of their file names, in whichever folders they lie. If ``root``
            has only a part of the images, the number in an image's original name
            (``ILSVRC2012_val_00000293.JPEG``) is the line of its label. The file's numbering is not the order
            of the WordNet ids that networks use; it is translated here.
        **data: see `SampleDataModule`.
    """

    def __init__(
        self,
        root: str,
        ground_truth: str | None = None,
        **data: Any,
    ) -> None:
        super().__init__(root, **data)
        self.ground_truth = Path(ground_truth) if ground_truth else None

    def find_samples(self) -> list[Sample]:
        """A sample for each image; its id is its file name without the ending."""
        paths = find_images(self.root)
        labels = _official(self.ground_truth, paths) if self.ground_truth else _by_folder(self.root, paths)
        return [
            Sample(path.stem, str(self.root / path), GroundTruth.of_class(label))
            for path, label in zip(paths, labels, strict=True)
        ]


def _by_folder(root: Path, paths: list[Path]) -> list[int]:
    known = index_of_wordnet_id()
    for path in paths:
        if path.parent.name not in known:
            raise IgosError(
                f"{root / path} does not lie in a folder whose name is an ImageNet WordNet id"
                " (n01440764, ...). For a flat folder, set ground_truth (--data.ground_truth) to the"
                " official labels file; for other images, use ImageFolderDataModule"
            )
    return [known[path.parent.name] for path in paths]


def _official(file: Path, paths: list[Path]) -> list[int]:
    if not os.path.isfile(file):
        check_reachable(file)
        raise IgosError(f"There is no ground-truth file {file}: correct ground_truth (--data.ground_truth)")
    lines = file.read_text("utf-8-sig", errors="replace").split()
    known = index_of_ilsvrc2012_id()
    for number, line in enumerate(lines, 1):
        if not line.isdecimal() or int(line) not in known:
            raise IgosError(f"{file}, entry {number}: expected a number from 1 to 1000, found {line!r}")
    labels = [known[int(line)] for line in lines]
    original = {f"ILSVRC2012_val_{number:08d}": label for number, label in enumerate(labels, 1)}
    others = [path for path in paths if path.stem not in original]
    if len(labels) == _IMAGES and not others:
        return [original[path.stem] for path in paths]
    if len(labels) != len(paths):
        advice = (
            "The labels of a part of the validation set are found by the original names of its images"
            f" (ILSVRC2012_val_00000001.JPEG), but {others[0]} has another name. Either rename the images, or"
            " sort them into folders named by WordNet ids and leave ground_truth (--data.ground_truth) out,"
            " or use ImageFolderDataModule with a labels file"
            if len(labels) == _IMAGES
            else f"Give the official file of {_IMAGES:,} labels, or a file with a label for each image"
        )
        raise IgosError(
            f"{file} has {counted(len(labels), 'label')}, but there {is_or_are(len(paths))}"
            f" {counted(len(paths), 'image')}. {advice}"
        )
    # Two images of one name would share a label here; `check_samples` refuses them later.
    by_name = dict(zip(sorted(path.name for path in paths), labels, strict=True))
    return [by_name[path.name] for path in paths]
