"""Any folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.images import find_images
from igos_pl.datamodules.base import ImageDataModule, Sample
from igos_pl.errors import IgosError


class ImageFolderDataModule(ImageDataModule):
    """All pictures in a folder and the folders below it.

    Args:
        root: the folder.
        labels: a text file of ground-truth labels, a line ``path/below/root.jpg label`` for each picture.
        **data: see `ImageDataModule`.
    """

    def __init__(
        self,
        root: str,
        labels: str | None = None,
        **data: Any,
    ) -> None:
        super().__init__(root, **data)
        self.labels = Path(labels) if labels else None

    def find_samples(self) -> list[Sample]:
        """A sample for each picture; its id is its path below the root."""
        names = [path.as_posix() for path in find_images(self.root)]
        labels = _read_labels(self.labels, names) if self.labels else dict.fromkeys(names, -1)
        return [Sample(name, self.root / name, GroundTruth(labels[name])) for name in names]


# Results hold labels of so many decimal digits.
_DIGITS = 9


def _read_labels(path: Path, names: list[str]) -> dict[str, int]:
    """Labels by name.

    Raises:
        IgosError: if the file is missing, a line is malformed, or a picture has no label, or two.
    """
    if not path.is_file():
        raise IgosError(f"There is no labels file {path}")
    labels: dict[str, int] = {}
    for number, line in enumerate(path.read_text("utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.rpartition(" ")
        name = name.strip()
        if not name or not label.isdecimal() or len(label) > _DIGITS:
            raise IgosError(f"{path}, line {number}: expected 'path label', found {line!r}")
        if labels.setdefault(name, int(label)) != int(label):
            raise IgosError(
                f"{path}, line {number}: {name} has the label {labels[name]} in another line, here {label}"
            )
    missing = [name for name in names if name not in labels]
    if missing:
        raise IgosError(
            f"{path} has labels for {len(labels)} images, but {len(missing)} of the {len(names)} images have"
            f" none ({missing[0]}, ...)"
        )
    return labels
