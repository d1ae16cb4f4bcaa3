"""Publishes a folder: it appears complete under its name, or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from igos_pl.store.files import cannot_write


@contextmanager
def publishing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``path`` once it is complete.

    A process that is killed leaves ``path`` as it was, and the temporary folder, whose name
    begins with a dot.

    Raises:
        IgosError: if the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir()
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
