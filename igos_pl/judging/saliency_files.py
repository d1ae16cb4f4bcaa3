"""Saliency maps of other methods: in a folder, in an HDF5 or ``.npz`` file, or in memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from igos_pl.data.images import open_picture
from igos_pl.errors import IgosError, TargetError
from igos_pl.settings import Attributes, digest
from igos_pl.store.schema import HDF5_ERRORS, find_column

_HDF5 = (".h5", ".hdf5")
_FORMATS = "a folder of .npy, .npz and .png files, an .npz file, or an .h5 file"

# The modes of grey PNGs as Pillow reads them, and the value that stands for 1.
_GREY = {"L": 255, "1": 1, "I;16": 65535, "I": 65535}

Array = NDArray[Any]


@dataclass(frozen=True)
class Maps:
    """The saliency maps of one image.

    Attributes:
        values: ``(T, h, w)`` float64, one for each target, high is important.
        labels: the targets' labels or class names; None if the maps follow the order of the targets that the
            network proposes.
    """

    values: NDArray[np.float64]
    labels: Sequence[str] | None = None


class SaliencyMaps(ABC):
    """The maps of many images, each read when it is needed.

    Args:
        name: where they are, for messages and results.
        names: the names of all maps.
        groups: the names of entries that hold several of these maps.

    Raises:
        IgosError: if there are no maps.
    """

    def __init__(self, name: str, names: Collection[str], groups: Collection[str] = ()) -> None:
        if not names:
            raise IgosError(f"{name} has no saliency maps")
        self.name = name
        self.names = frozenset((*names, *groups))
        self._sorted = sorted(names)

    def entry_of(self, sample_id: str) -> str | None:
        """The name of an image's entry: the image's name, or its name without the ending; None if missing."""
        path = PurePosixPath(sample_id)
        shorter = sample_id[: -len(path.suffix)] if path.suffix else sample_id
        return next((name for name in (sample_id, shorter) if name in self.names), None)

    def check(self, sample_ids: Sequence[str]) -> tuple[list[str], list[str]]:
        """Compare the entries with the images of a data set.

        Args:
            sample_ids: the images.

        Returns:
            The images without an entry, and the entries without an image.

        Raises:
            IgosError: if no image has an entry, or two images share one.
        """
        used: dict[str, str] = {}
        missing = []
        for sample_id in sample_ids:
            entry = self.entry_of(sample_id)
            if entry is None:
                missing.append(sample_id)
            elif entry in used:
                raise IgosError(
                    f"{self.name}: {entry} could belong to {used[entry]} and to {sample_id}: name each map"
                    f" after the whole image name, as in {sample_id}.npy"
                )
            else:
                used[entry] = sample_id
        if sample_ids and not used:
            example = min(self.names)
            raise IgosError(
                f"No image has a saliency map in {self.name}: the images are named {sample_ids[0]}, ..., and"
                f" the maps {example}, .... Name each map after its image"
            )
        return missing, sorted(self.names - set(used))

    def of(self, sample_id: str) -> Maps | None:
        """The maps of an image; None if it has no entry.

        Raises:
            TargetError: if the entry cannot be read, or holds no maps.
        """
        entry = self.entry_of(sample_id)
        if entry is None:
            return None
        try:
            return _as_maps(self.read(entry))
        except TargetError as error:
            raise TargetError(f"the saliency map {entry} {error}") from error
        except Exception as error:  # damaged files: NumPy, Pillow and HDF5 raise nearly anything
            raise TargetError(f"the saliency map {entry} cannot be read: {error}") from error

    @abstractmethod
    def read(self, entry: str) -> Array | dict[str, Array]:
        """The array of an entry, or its arrays by label."""

    def facts(self) -> Attributes:
        """What identifies the maps: their names, and the content of the first and the last one."""
        return {
            "saliency": self.name,
            "saliency.maps": len(self._sorted),
            "saliency.names": digest("\n".join(self._sorted)),
            "saliency.items": digest(" ".join(map(self._content, (self._sorted[0], self._sorted[-1])))),
        }

    def _content(self, entry: str) -> str:
        """A digest of a map's values."""
        content = hashlib.blake2b(digest_size=8)
        try:
            found = self.read(entry)
        except Exception as error:
            if isinstance(error, OSError) and error.errno:  # of the file system, perhaps for a moment
                raise IgosError(f"Cannot read the saliency of {entry} in {self.name}: {error}") from error
            return "damaged"  # its image will be recorded as failed
        for label, values in (found if isinstance(found, dict) else {"": found}).items():
            content.update(f"{label} {values.dtype} {values.shape} ".encode())
            if _holds_numbers(values):
                content.update(values.tobytes())
        return content.hexdigest()


class FolderOfMaps(SaliencyMaps):
    """A file for each image: ``birds/owl.npy`` or ``birds/owl.jpg.npy`` belongs to ``birds/owl.jpg``.

    A ``.png`` is grey, with 8 or 16 bits. An ``.npz`` holds one map, or several whose names are labels.
    """

    def __init__(self, root: Path) -> None:
        self._paths: dict[str, Path] = {}
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in _READERS and path.is_file():
                name = path.relative_to(root).with_suffix("").as_posix()
                if name in self._paths:
                    raise IgosError(f"{self._paths[name]} and {path} are for the same image: remove one")
                self._paths[name] = path
        if not self._paths:
            raise IgosError(f"{root} has no saliency maps (.npy, .npz or .png files)")
        super().__init__(str(root.resolve()), list(self._paths))

    def read(self, entry: str) -> Array | dict[str, Array]:
        """See `SaliencyMaps.read`."""
        path = self._paths[entry]
        return _READERS[path.suffix.lower()](path)

    def facts(self) -> Attributes:
        """Also the sizes of the files, because reading all of them would take long."""
        sizes = (f"{name} {path.stat().st_size}" for name, path in sorted(self._paths.items()))
        return {**super().facts(), "saliency.names": digest("\n".join(sizes))}


class ArchiveOfMaps(SaliencyMaps):
    """An ``.npz`` file in which each array has the name of its image."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise IgosError(f"Cannot read {path}: {error}") from error
        super().__init__(str(path.resolve()), list(self._file.files))
        self._bytes = path.stat().st_size

    def facts(self) -> Attributes:
        """Also the size of the file."""
        return {**super().facts(), "saliency.bytes": self._bytes}

    def read(self, entry: str) -> Array:
        """See `SaliencyMaps.read`."""
        return np.asarray(self._file[entry])


class Hdf5Maps(SaliencyMaps):
    """An HDF5 file with a dataset for each image, or a group of datasets whose names are labels.

    Links to other places and external storage are refused.
    """

    def __init__(self, path: Path) -> None:
        # The datasets and links in each group; "." is the file itself.
        self._leaves: dict[str, list[str]] = {}

        def note(name: str, link: object) -> None:
            hard = isinstance(link, h5py.HardLink)
            if not hard or self._file.get(name, getclass=True) is h5py.Dataset:
                self._leaves.setdefault(str(PurePosixPath(name).parent), []).append(name)

        try:
            self._file = h5py.File(path, "r", locking=False)
            self._file.visititems_links(note)
        except HDF5_ERRORS as error:
            raise IgosError(f"Cannot read {path}: {error}") from error
        self._bytes = path.stat().st_size
        # Both a dataset and the group that it lies in can be an image's entry; `entry_of` asks by name.
        groups = self._leaves.keys() - {"."}
        super().__init__(str(path.resolve()), list(chain(*self._leaves.values())), groups)

    def check(self, sample_ids: Sequence[str]) -> tuple[list[str], list[str]]:
        """See `SaliencyMaps.check`; a dataset in a group that is used counts as used."""
        missing, unused = super().check(sample_ids)
        entries = {self.entry_of(sample_id) for sample_id in sample_ids}
        spare = {name for group, names in self._leaves.items() if group not in entries for name in names}
        return missing, sorted(spare.intersection(unused))

    def read(self, entry: str) -> Array | dict[str, Array]:
        """See `SaliencyMaps.read`."""
        names = self._leaves.get(entry)
        if names is None:
            return self._values(entry)
        return {PurePosixPath(name).name: self._values(name) for name in names}

    def _values(self, name: str) -> Array:
        return np.asarray(find_column(self._file, name)[...])

    def facts(self) -> Attributes:
        """Also the size of the file."""
        return {**super().facts(), "saliency.bytes": self._bytes}


class MapsInMemory(SaliencyMaps):
    """Maps by the images' names.

    Args:
        maps: for each image, an array as a file would hold it.
    """

    def __init__(self, maps: Mapping[str, Array]) -> None:
        super().__init__("memory", list(maps))
        self._maps = maps

    def entry_of(self, sample_id: str) -> str | None:
        """See `SaliencyMaps.entry_of`; only whole names count."""
        return sample_id if sample_id in self.names else None

    def read(self, entry: str) -> Array:
        """See `SaliencyMaps.read`."""
        return self._maps[entry]


def open_maps(path: str | Path) -> SaliencyMaps:
    """The maps in a folder or a file.

    Raises:
        IgosError: if there are none.
    """
    path = Path(path)
    if path.is_dir():
        return FolderOfMaps(path)
    if not path.exists():
        raise IgosError(f"There are no saliency maps: {path} does not exist")
    if path.suffix.lower() in _HDF5:
        return Hdf5Maps(path)
    if path.suffix.lower() == ".npz":
        return ArchiveOfMaps(path)
    raise IgosError(f"{path} is not a file of saliency maps that igos_pl can read: give {_FORMATS}")


def _as_maps(found: Array | dict[str, Array]) -> Maps:
    if isinstance(found, dict):
        labels = list(found) if len(found) > 1 or _is_label(next(iter(found), "")) else None
        stacks = [_stack(values) for values in found.values()]
        if not stacks:
            raise TargetError("is empty")
        if any(len(stack) != 1 for stack in stacks) and labels is not None:
            raise TargetError("has a label with several maps: give one map for each label")
        if len({stack.shape for stack in stacks}) > 1:
            raise TargetError("has maps of different sizes")
        return Maps(np.concatenate(stacks), labels)
    return Maps(_stack(found))


def _is_label(name: str) -> bool:
    """Whether the only array of an archive is named by a label. NumPy names arrays ``arr_0`` by itself."""
    return name.isdecimal()


def _holds_numbers(values: Array) -> bool:
    return values.dtype.kind in "fiub"


def _stack(values: Array) -> NDArray[np.float64]:
    """Values as ``(T, h, w)``."""
    if not _holds_numbers(values):
        raise TargetError(f"holds {values.dtype}, not numbers")
    numbers = np.asarray(values, np.float64)
    if numbers.ndim == 4:
        numbers = numbers.sum(1)
    elif numbers.ndim == 2:
        numbers = numbers[None]
    if numbers.ndim != 3 or 0 in numbers.shape:
        raise TargetError(
            f"has the shape {values.shape}, but must be (h, w), (targets, h, w), or (targets, channels, h, w)"
        )
    return numbers


def _read_png(path: Path) -> Array:
    with open_picture(path, formats=("PNG",)) as picture:  # Pillow starts Ghostscript for EPS
        if picture.mode not in _GREY:
            raise TargetError(
                f"is a picture of mode {picture.mode}, but must be grey with 8 or 16 bits: save the saliency"
                " itself, not its colours or an overlay"
            )
        return np.asarray(picture, np.float64) / _GREY[picture.mode]


def _read_npy(path: Path) -> Array:
    return np.asarray(np.load(path, allow_pickle=False))


def _read_npz(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        return {name: np.asarray(file[name]) for name in file.files}


_READERS: dict[str, Callable[[Path], Array | dict[str, Array]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".png": _read_png,
}
