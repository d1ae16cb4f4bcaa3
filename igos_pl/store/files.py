"""Result files: they appear complete or not at all, and are opened only if they are whole."""

from __future__ import annotations

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

from igos_pl.errors import RunError
from igos_pl.store.schema import check_lengths, damaged, read_column
from igos_pl.store.seals import cannot_read, check_seal, read_head

_QUICK_BYTES = 1 << 28  # are read in a fraction of a second


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
            with suppress(OSError):  # a file system that became read-only keeps it
                temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> RunError:
    """What to say of a file that cannot be written."""
    return RunError(
        f"Cannot write {path}: {error.strerror or error}. All that was published before is safe: free some"
        " space or fix the permissions, and run the same command again to go on"
    )


@contextmanager
def open_result(path: Path) -> Iterator[h5py.File]:
    """Open a segment or a merged file for reading.

    The whole seal of a merged file of more than 256 MB is not checked here, so that it opens at once;
    `check_seal` does. HDF5 notices most damage in such a file, because all chunks and all of HDF5's own data
    have checksums there.

    Raises:
        IgosError: if it is missing, damaged, or of another schema version.
    """
    if not path.is_file() or path.stat().st_size <= _QUICK_BYTES or "images" in read_head(path):
        check_seal(path)
    try:
        file = h5py.File(path, "r", locking=False)  # immutable; some file systems have no locks
    except OSError as error:
        if path.is_file() and error.errno is None:  # HDF5's own complaint, not the system's
            raise damaged(path, f"damaged, or no HDF5 file ({error})") from error
        raise cannot_read(path, error) from error
    with file:
        check_lengths(file, path)
        yield file


def check_rows(path: Path) -> None:
    """Raise if the images of a file have other explanations than their records say.

    Raises:
        DamagedFileError: if that is so.
    """
    with open_result(path) as file:
        ids, targets = (read_column(file["images"], name) for name in ("sample_id", "targets"))
        rows = read_column(file, "sample_id") if "sample_id" in file else ids[:0]
    check_counts(path, ids, targets, rows)


def check_counts(path: Path, ids: NDArray[Any], targets: NDArray[Any], rows: NDArray[Any]) -> None:
    """Raise if images have other explanations than their records say.

    Args:
        path: the file that they are in.
        ids: of the images.
        targets: how many explanations each image has, as its record says.
        rows: the ids of the explanations' images.

    Raises:
        DamagedFileError: if that is so.
    """
    expected, found = np.repeat(ids, targets), rows
    if len(expected) == len(found) and (np.sort(expected) == np.sort(found)).all():
        return
    counts = Counter(expected.tolist())
    counts.subtract(found.tolist())
    wrong = [name.decode(errors="replace") for name, count in counts.items() if count]
    raise damaged(
        path,
        f"{len(wrong)} images have more or fewer explanations than their records say ({min(wrong)}, ...)",
    )
