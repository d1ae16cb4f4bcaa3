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


class ImageNetDataModule(ImageDataModule):
    """ImageNet (ILSVRC 2012) validation images with their labels.

    Args:
        root: the folder with the images. It has a folder for each class, named by its WordNet id
            (``n01440764/*.JPEG``), or it is flat, and ``ground_truth`` names the labels.
        ground_truth: the official ``ILSVRC2012_validation_ground_truth.txt``: a number from 1 to 1000 on each
            line, for the images in the order of their file names, in whichever folders they lie. Its
            numbering is not the order of the WordNet ids that networks use; it is translated here.
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
    if len(lines) != len(paths):
        raise IgosError(
            f"{file} has {counted(len(lines), 'label')}, but there {is_or_are(len(paths))}"
            f" {counted(len(paths), 'image')}: the file is for the whole"
            " validation set; set limit (--data.limit) to explain a part of it"
        )
    # Equal names have equal ids, which `check_samples` refuses.
    numbers = dict(zip(sorted(path.name for path in paths), map(int, lines), strict=True))
    return [known[numbers[path.name]] for path in paths]
