"""Publishes a folder: it appears complete under its name, or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from igos_pl.errors import IgosError
from igos_pl.store.files import cannot_write

_MARK = ".igos-pl-export"  # a file that says that a folder is an export


@contextmanager
def publishing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``path`` once it is complete.

    An earlier export is replaced. A process that is killed leaves ``path`` as it was, and the temporary
    folder, whose name begins with a dot.

    Raises:
        IgosError: if ``path`` is a file or has other files than an export, or the folder cannot be written.
    """
    if path.is_dir() and not (path / _MARK).is_file() and any(path.iterdir()):
        raise IgosError(
            f"{path} contains other files than an export, so it is not replaced: choose another name, or"
            " remove the folder yourself"
        )
    if path.is_file():
        raise IgosError(f"{path} is a file, but this format is a folder: choose another name")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir()
        (temporary / _MARK).touch()
        yield temporary
        _replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(new: Path, path: Path) -> None:
    """Give a folder its name. What has this name is removed afterwards."""
    if not path.exists() and not path.is_symlink():
        new.rename(path)
        return
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex}.old")
    path.rename(old)
    new.rename(path)
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old)
    else:
        old.unlink()
