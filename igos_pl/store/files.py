"""Result files: they appear complete or not at all, and a seal covers every byte of them.

The seal is a digest of the file. It stands in the 512 bytes before HDF5's own content, where HDF5 leaves
room. HDF5 itself has checksums for some of the data only and may crash on a damaged file. So the seal is
checked before HDF5 opens a file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from igos_pl.data.records import FAILED
from igos_pl.errors import IgosError, RunError
from igos_pl.store.schema import DamagedFileError, check_lengths, check_version, read_column

MERGED, SEGMENTS = "masks.h5", "segments"

SEAL_BYTES = 512  # the smallest room that HDF5 leaves
_SEAL = "igos-pl result, blake2b "
_QUICK_BYTES = 1 << 28  # are read in a fraction of a second
_HDF5 = b"\x89HDF"

# Files whose seal was valid, by path, size, modification time and inode. Their seals are not checked again.
_checked: set[tuple[str, int, int, int]] = set()


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` once it is complete and on the disk.

    Raises:
        IgosError: if the file cannot be written; ``path`` then stays unchanged.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # a file system that became read-only keeps it
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> RunError:
    """What to say of a file that cannot be written."""
    return RunError(
        f"Cannot write {path}: {error.strerror or error}. All that was published before is safe: free some"
        " space or fix the permissions, and run the same command again to go on"
    )


def sealed(content: bytes) -> bytes:
    """An HDF5 file in memory, with its seal in front."""
    return _seal(hashlib.blake2b(content, digest_size=32).hexdigest()) + content


def seal(path: Path) -> None:
    """Write the seal of a file that was made with a user block of 512 bytes."""
    content = _digest(path)
    with path.open("r+b") as file:
        file.write(_seal(content))


def check_seal(path: Path) -> None:
    """Raise if any byte of a file is not as it was written.

    Raises:
        DamagedFileError: if that is so.
        IgosError: if the file is missing or cannot be read.
    """
    try:
        state = path.stat()
        key = (str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ino)
        if key in _checked:
            return
        if not stat.S_ISREG(state.st_mode):
            raise DamagedFileError(f"{path} is not a file")
        with path.open("rb") as file:
            head = file.read(SEAL_BYTES)
        if head[:4] == _HDF5:  # not sealed: another program's file, or an earlier version's
            return
        if head != _seal(_digest(path)):
            raise DamagedFileError(f"Cannot read {path}: it is damaged, or was not written by igos-pl")
    except OSError as error:
        raise _cannot_read(path, error) from error
    _checked.add(key)


def _seal(digest: str) -> bytes:
    return f"{_SEAL}{digest}\n".encode().ljust(SEAL_BYTES, b"\0")


def _digest(path: Path) -> str:
    """Of everything that comes after the seal."""
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        file.seek(SEAL_BYTES)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def open_result(path: Path) -> Iterator[h5py.File]:
    """Open a segment or a merged file for reading.

    The seals of files of more than 256 MB are not checked here, so that they open at once; `check_seal` does.

    Raises:
        IgosError: if it is missing, damaged, or of another schema version.
    """
    try:
        if path.is_file() and path.stat().st_size <= _QUICK_BYTES:
            check_seal(path)
        with _opened(path) as file:
            check_version(file, path)
            check_lengths(file, path)
            yield file
    except DamagedFileError as error:
        if path.name != MERGED or not (path.parent / SEGMENTS).is_dir():
            raise
        raise DamagedFileError(
            f"{error}. It is a copy of {path.parent / SEGMENTS}: igos-pl merge {path.parent} creates it again"
        ) from error


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)  # immutable; some file systems have no locks
    except OSError as error:
        if path.is_file() and error.errno is None:  # HDF5's own complaint, not the system's
            raise DamagedFileError(f"Cannot read {path}: damaged, or no HDF5 file ({error})") from error
        raise _cannot_read(path, error) from error


def _cannot_read(path: Path, error: OSError) -> IgosError:
    if not path.is_file():
        return IgosError(f"Cannot read {path}: no such file")
    limit = error.errno in (errno.EMFILE, errno.ENFILE)
    advice = ". Close some, or raise the limit by ulimit -n" if limit else ""
    return IgosError(f"Cannot read {path}: {error.strerror or error}{advice}")


def check_rows(path: Path) -> None:
    """Raise if the images of a file have other explanations than their records say.

    Raises:
        DamagedFileError: if that is so.
    """
    with open_result(path) as file:
        ids, targets = (read_column(file["images"], name).tolist() for name in ("sample_id", "targets"))
        rows = read_column(file, "sample_id").tolist() if "sample_id" in file else []
    expected = {name: count for name, count in zip(ids, targets, strict=True) if count}
    found = Counter(rows)
    wrong = [name for name in {*expected, *found} if expected.get(name, 0) != found[name]]
    if wrong:
        raise DamagedFileError(
            f"{path}: {len(wrong)} images have more or fewer explanations than their records say"
            f" ({min(wrong)}, ...)"
        )


def image_statuses(path: Path) -> dict[str, str]:
    """The statuses in a file's table of images, by the images' ids.

    Raises:
        DamagedFileError: if an image is in it twice.
    """
    with open_result(path) as file:
        ids, statuses = (read_column(file["images"], name).tolist() for name in ("sample_id", "status"))
    found = dict(zip(ids, statuses, strict=True))
    if len(found) < len(ids):
        raise DamagedFileError(f"{path} has {len(ids) - len(found)} images more than once")
    return found


def owners(files: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """The number of the file that each image is taken from: the first file that contains the image.

    If the image is unreadable or failed in that file, the first later file with another status is used.

    Several files contain the same image if two runs worked on it. The rows of the image are equal or nearly
    equal in all of them, and are taken from one file only.

    Args:
        files: the statuses of each file's images by their ids.
    """
    owner: dict[str, int] = {}
    failed: set[str] = set()
    for number, statuses in enumerate(files):
        for name, status in statuses.items():
            if name not in owner or (name in failed and status not in FAILED):
                owner[name] = number
                (failed.add if status in FAILED else failed.discard)(name)
    return owner


def owned_rows(owner: Mapping[str, int], number: int, ids: Iterable[str]) -> NDArray[np.int64]:
    """The rows of a table that are taken from a file.

    Args:
        owner: see `owners`.
        number: of the file.
        ids: the table's column of sample ids.
    """
    return np.array([row for row, name in enumerate(ids) if owner.get(name) == number], dtype=np.int64)
