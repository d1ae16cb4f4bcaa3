"""Publishes result files, which appear complete or not at all, and opens them after checking them."""

from __future__ import annotations

import errno
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from igos_pl.data.text import first_few
from igos_pl.data.wording import counted
from igos_pl.errors import DiskFullError, IgosError, RunError
from igos_pl.store.schema import check_lengths, damaged, read_column
from igos_pl.store.seals import cannot_read, check_seal, read_head

_QUICK_BYTES = 1 << 28  # so many bytes are read in a fraction of a second

# The errors of a disk without room, or of a user whose share of it is used up.
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` once it is complete and on the disk.

    Raises:
        IgosError: if the file cannot be written; ``path`` then stays unchanged.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    published = False
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        published = True
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if not published:
            with suppress(OSError):  # on a file system that became read-only, it stays
                temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> RunError:
    """The error for a file that cannot be written."""
    said = f"Cannot write {path}: {error.strerror or error}"
    if error.errno in _FULL:
        return DiskFullError(f"{said}. Free some space, and run the same command again")
    return RunError(f"{said}. Fix the permissions or write to another folder, and run the command again")


@contextmanager
def open_result(path: Path) -> Iterator[h5py.File]:
    """Open a segment or a merged file for reading.

    A merged file of more than 256 MB opens at once, because its seal is not checked here; `check_seal` does
    that. HDF5 notices most damage in such a file, because all its chunks and all of HDF5's own data have
    checksums.

    Raises:
        IgosError: if the file is missing, damaged, or of another schema version.
    """
    if not path.is_file() or path.stat().st_size <= _QUICK_BYTES or "images" in read_head(path):
        check_seal(path)
    try:
        file = h5py.File(path, "r", locking=False)  # immutable; some file systems have no locks
    except OSError as error:
        if "locking flag" in str(error):
            raise IgosError(
                f"{path} is open in this process by another library, such as xarray: close it there first"
            ) from error
        if path.is_file() and error.errno is None:  # an error of HDF5, not of the system
            raise damaged(path, f"it is damaged, or not an HDF5 file ({error})") from error
        raise cannot_read(path, error) from error
    with file:
        check_lengths(file, path)
        yield file


def check_rows(path: Path) -> None:
    """Raise if images of a file have more or fewer explanations than their records say.

    Raises:
        DamagedFileError: if the numbers differ.
    """
    with open_result(path) as file:
        ids, targets = (read_column(file["images"], name) for name in ("sample_id", "targets"))
        rows = read_column(file, "sample_id") if "sample_id" in file else ids[:0]
    check_counts(path, ids, targets, rows)


def check_counts(path: Path, ids: NDArray[Any], targets: NDArray[Any], rows: NDArray[Any]) -> None:
    """Raise if images have more or fewer explanations than their records say.

    Args:
        path: the file that they are in.
        ids: the images' ids.
        targets: the number of explanations of each image, by its record.
        rows: the image id of each explanation.

    Raises:
        DamagedFileError: if the numbers differ.
    """
    expected, found = np.repeat(ids, targets), rows
    if len(expected) == len(found) and (np.sort(expected) == np.sort(found)).all():
        return
    counts = Counter(expected.tolist())
    counts.subtract(found.tolist())
    wrong = [name.decode(errors="replace") for name, count in counts.items() if count]
    raise damaged(
        path,
        f"more or fewer explanations than their records say: {counted(len(wrong), 'image')}"
        f" ({first_few(sorted(wrong))})",
    )
