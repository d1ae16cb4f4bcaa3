"""Publishes a folder: it appears complete under its name, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from igos_pl.data.run_files import EXPORT_MARK
from igos_pl.errors import IgosError
from igos_pl.store.files import cannot_write


@contextmanager
def publishing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``path`` once it is complete.

    An earlier export that is there at the start is replaced, and so is an empty folder. Nothing else is. A
    process that is killed leaves ``path`` as it was, and the temporary folder, whose name begins with a dot.

    Raises:
        IgosError: if ``path`` is a file, has files that no export wrote, or cannot be written.
    """
    path = Path(os.path.realpath(path))  # the folder needs a name: "." has none
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        earlier = path.exists()
        if earlier:
            _check_replaceable(path, path)
        temporary.mkdir()
        yield temporary
        names = [file.relative_to(temporary).as_posix() for file in _files_in(temporary)]
        (temporary / EXPORT_MARK).write_text(json.dumps(names), encoding="utf-8")
        if earlier:
            _replace(temporary, path)
        elif path.exists():
            raise IgosError(
                f"{path} was created while the export was written, so it is not replaced: choose another name"
            )
        else:
            temporary.rename(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(new: Path, path: Path) -> None:
    """Give a folder the name of an earlier export, which is removed afterwards."""
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex}.old")
    path.rename(old)
    try:
        _check_replaceable(old, path)  # files may have been added in the meantime
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    try:
        shutil.rmtree(old)
    except OSError as error:
        raise IgosError(
            f"The export is complete in {path}, but the earlier one cannot be removed: {error.strerror}."
            f" Remove {old}"
        ) from error


def _check_replaceable(found: Path, path: Path) -> None:
    """Raise if a folder may not be replaced, because it contains something that no export wrote.

    Args:
        found: the folder, under the name that it has now.
        path: its name for the message.
    """
    if not found.is_dir():
        raise IgosError(f"{path} is a file, but this format is a folder: choose another name")
    names = {EXPORT_MARK, *_listed(found, path)}
    for file in _files_in(found):
        name = file.relative_to(found).as_posix()
        if name not in names:
            raise IgosError(
                f"{path} contains {name}, which was not written by igos-pl export, so the folder is not"
                " replaced: choose another name, or move this file away"
            )


def _listed(found: Path, path: Path) -> list[str]:
    """The files that an export wrote into a folder; none if it is no export. The arguments are as above."""
    try:
        names = json.loads((found / EXPORT_MARK).read_bytes())
    except FileNotFoundError:
        return []
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise IgosError(
            f"{path} is an export whose list of files cannot be read, so it is not replaced: remove it"
            " yourself, or choose another name"
        )
    return names


def _files_in(folder: Path) -> Iterator[Path]:
    """All that is not a folder, in the order of the names. A link is a file, wherever it leads."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _files_in(path)
        else:
            yield path
