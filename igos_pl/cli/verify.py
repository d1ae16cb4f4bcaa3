"""``igos-pl verify``: checks that every byte of a result is as it was written."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from igos_pl.data.wording import counted
from igos_pl.errors import IgosError
from igos_pl.store import RunFolder
from igos_pl.store.evaluations import EVALUATION, evaluation_files
from igos_pl.store.files import check_rows
from igos_pl.store.schema import DamagedFileError
from igos_pl.store.seals import check_seal


def print_verification(path: Path) -> int:
    """Check the files of a run, or one file, and print what is damaged.

    Args:
        path: output folder of a run, or a result file.

    Returns:
        The exit code: 0, or 1 if a file is damaged.

    Raises:
        IgosError: if there are no results.
    """
    files = [*RunFolder(path).files(), *evaluation_files(path)] if path.is_dir() else [path]
    if not files:
        raise IgosError(f"No results in {path}: neither masks.h5 nor segments/*.h5")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        damaged = [message for message in pool.map(_damage, files) if message]
    print(*damaged, sep="\n", end="\n" if damaged else "")
    size = sum(file.stat().st_size for file in files)
    print(f"{counted(len(files), 'file')}, {size / 1e6:,.1f} MB: {len(damaged)} damaged")
    if damaged and path.is_dir():
        print(
            "Repeat the command that started the run: it moves them to damaged/ and explains the images of"
            " damaged segments again"
        )
    return 1 if damaged else 0


def _damage(file: Path) -> str:
    """The problem of a file; empty if there is none."""
    try:
        check_seal(file)
        if file.name != EVALUATION:
            check_rows(file)
    except DamagedFileError as error:
        return str(error)
    return ""
