"""Chooses explanations and checks paths, by options that several commands have; see `igos_pl.cli.options`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from igos_pl.cli.summary import remarks
from igos_pl.data.wording import counted
from igos_pl.errors import IgosError
from igos_pl.store import MaskFile
from igos_pl.store.reader import Rows
from igos_pl.store.selection import Numbers, groups, parsed_numbers

_SHOWN = 5  # remarks on images without explanations


def chosen(options: argparse.Namespace, masks: MaskFile) -> Rows:
    """The explanations that the options choose.

    Raises:
        IgosError: if there are none.
    """
    return masks[np.concatenate(list(chosen_groups(options, masks).values()))]


def chosen_groups(options: argparse.Namespace, masks: MaskFile) -> dict[str, Numbers]:
    """The numbers of the explanations that the options choose, see `igos_pl.store.selection.groups`.

    Raises:
        IgosError: if there are none.
    """
    if not len(masks):
        images = masks.images["status"]
        told = "".join(f"\n  {line}" for line in remarks(masks, _SHOWN))
        raise IgosError(f"There is no explanation of any of the {counted(len(images), 'image')}:{told}")
    numbers = None if options.rows is None else parsed_numbers(options.rows)
    found = groups(masks, numbers, options.where, options.best, options.worst, options.random, options.seed)
    if not any(map(len, found.values())):
        these = "explanation" if numbers is None else f"explanation of --rows {options.rows}"
        raise IgosError(f"No {these} fulfils {' and '.join(options.where)}")
    return found


def check_images(folder: Path | None) -> None:
    """Raise if ``--images`` is not a folder.

    Raises:
        IgosError: saying what to do.
    """
    if folder is not None and not folder.is_dir():
        raise IgosError(f"There is no folder {folder}: set --images to the folder with the run's images")


def check_output_folder(output: str) -> None:
    """Raise if ``--output`` is empty, is a file or lies below one, or cannot be written.

    Raises:
        IgosError: saying what to do.
    """
    if not output:
        raise IgosError("output is empty: set --output to the folder for the results")
    path = Path(output).absolute()
    existing = next(each for each in (path, *path.parents) if os.path.exists(each))
    if not os.path.isdir(existing):
        raise IgosError(f"{existing} is a file: set --output to a folder for the results")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise IgosError(
            f"Cannot write to the folder {existing}: set --output to another folder, or fix the permissions"
        )


def refuse_existing(path: Path, overwrite: bool, folder: bool = False) -> None:
    """Raise if a file or folder exists that may not be overwritten, or cannot be written.

    Args:
        path: what will be written.
        overwrite: whether it may replace what is there.
        folder: whether it may be a folder.

    Raises:
        IgosError: saying what to do.
    """
    if path.is_dir() and not folder:
        raise IgosError(f"{path} is a folder: give the name of a file")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise IgosError(f"{path} is a device or a pipe, which cannot be replaced: give the name of a file")
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise IgosError(f"{path} exists already: choose another name, or add --overwrite")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise IgosError(f"Cannot write {path}: there is no folder {parent}")
