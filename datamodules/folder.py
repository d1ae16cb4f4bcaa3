"""Pictures in folders, with labels from the folders' names or from a file."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from igos_pl.checks import wrong_type
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.images import check_reachable, find_images, is_picture, without_results
from igos_pl.data.labels import ClassLabels
from igos_pl.datamodules.base import SampleDataModule, absolute
from igos_pl.datamodules.label_files import read_labels
from igos_pl.datamodules.samples import Sample
from igos_pl.errors import IgosError

_FOLDERS = "folders"


class ImageFolderDataModule(SampleDataModule):
    """Pictures in folders, or single pictures.

    Args:
        root: a folder, with the folders below it; a single picture; a pattern such as ``photos/*.jpg``
            (``**`` stands for any folders); or a list of these. An image's id is its path below the folder,
            or below the deepest folder that all of them lie in.
        labels: ``folders`` takes the name of the first folder below the root as the class, as torchvision's
            ``ImageFolder`` does. Otherwise a file that gives the label of each picture's id: a text file of
            lines ``path label``, or a table (``.csv``, ``.tsv``) of these two columns, or with columns named
            ``path`` and ``label``. A label is a number or a class name. By default, no labels are known.
        **data: see `SampleDataModule`.
    """

    def __init__(
        self,
        root: str | list[str] | Path | list[Path],
        labels: str | Path | None = None,
        **data: Any,
    ) -> None:
        super().__init__(**data)
        given = [root] if isinstance(root, str | Path) else root
        if not isinstance(given, list | tuple):
            raise wrong_type("root", root, "a path, or a list of paths")
        if not given:
            raise IgosError("root is an empty list: set root (--data.root) to the folder with the images")
        self._roots = [absolute(each) for each in given]
        # A setting of the run: where the pictures lie.
        self.root = self._roots[0] if len(given) == 1 else [str(each.resolve()) for each in self._roots]
        self.labels = Path(labels) if labels and labels != _FOLDERS else labels

    def find_samples(self) -> list[Sample]:
        """A sample for each picture, in the order of their ids."""
        base, paths = _find_pictures(self._roots)
        names = sorted(path.relative_to(base).as_posix() for path in paths)
        known: dict[str, int] = {}
        if isinstance(self.labels, Path):
            known = read_labels(self.labels, names, self.class_labels())
        elif self.labels:
            known = _folder_labels(base, names, self.class_labels())
        return [Sample(name, str(base / name), GroundTruth.of_class(known.get(name, -1))) for name in names]


def _find_pictures(roots: Sequence[Path]) -> tuple[Path, set[Path]]:
    """The deepest folder that all pictures lie in, and their absolute paths."""
    bases: list[Path] = []
    found: set[Path] = set()
    for root in roots:
        if os.path.isfile(root) or (os.path.lexists(root) and is_picture(root)):
            bases.append(root.parent)
            found.add(root)
        elif is_pattern(root):
            bases.append(_fixed_part(root))
            found |= matching_pictures(root)
        else:
            bases.append(root)
            found.update(root / path for path in find_images(root))
    return Path(os.path.commonpath(bases)), found


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern such as ``photos/*.jpg``, and no file or folder has this name."""
    return glob.has_magic(str(path)) and not os.path.exists(path)


def matching_pictures(pattern: Path) -> set[Path]:
    """The pictures that match a pattern, and those in the folders that match it.

    Args:
        pattern: an absolute path with wildcards.

    Raises:
        IgosError: if there are none.
    """
    matches = without_results(
        [Path(match) for match in glob.glob(str(pattern), recursive=True)], _fixed_part(pattern)
    )
    found = {path for path in matches if is_picture(path)}
    for folder in matches if "**" not in pattern.parts else ():
        if os.path.isdir(folder):
            found.update(folder / path for path in find_images(folder, may_be_empty=True))
    if not found:
        check_reachable(pattern)
        raise IgosError(
            f"No image matches {pattern}: correct the pattern (pictures that igos-pl wrote are left out)"
        )
    return found


def _fixed_part(pattern: Path) -> Path:
    """The folder in front of a pattern's first wildcard."""
    fixed = Path(pattern.anchor)
    for part in pattern.parts[1:-1]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


def _folder_labels(base: Path, names: Sequence[str], classes: ClassLabels) -> dict[str, int]:
    """Labels by the first folder of each name.

    Raises:
        IgosError: if a picture lies in no folder, or a folder is no class of the network.
    """
    folder_of = {name: name.partition("/")[0] for name in names if "/" in name}
    for name in names:
        if name not in folder_of:
            raise IgosError(
                f"labels is 'folders', but {base / name} lies in no folder below {base}: move it into the"
                " folder of its class, or give the labels in a file"
            )
    folders = sorted(set(folder_of.values()))
    if classes.names:
        labels = {folder: _class_of(folder, base, classes) for folder in folders}
    else:
        labels = {folder: place for place, folder in enumerate(folders)}
        shown = ", ".join(f"{place} is {folder}" for folder, place in list(labels.items())[:4])
        logging.getLogger(__name__).warning(
            "%s: the network's class names are unknown, so the sorted folders are numbered from 0: %s%s",
            base,
            shown,
            ", ..." if len(folders) > 4 else "",
        )
    return {name: labels[folder] for name, folder in folder_of.items()}


def _class_of(folder: str, base: Path, classes: ClassLabels) -> int:
    try:
        return classes.of(folder)
    except IgosError as error:
        raise IgosError(
            f"labels is 'folders', but the folder {folder} in {base}: {error}. Rename the folder, or give the"
            " labels in a file"
        ) from error
