"""The folder in which a run was started. Relative paths in its ``config.yaml`` begin there."""

from __future__ import annotations

import glob
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from igos_pl.cli.console import say
from igos_pl.errors import IgosError

_MARK = "# Relative paths begin in this folder, where the run was started: "

# The settings that hold paths, at any depth. Of other settings, a text with a slash may be a path.
_PATHS = ("root", "urls", "labels", "ground_truth", "annotations", "weights", "weight_folder", "saliency")


def with_start_folder(settings: str) -> str:
    """The text of a ``config.yaml`` that begins with a comment that names the current folder."""
    return f"{_MARK}{json.dumps(str(Path.cwd()))}\n{settings}"


def paths_from_start(config: Path) -> list[str]:
    """Arguments that correct the relative paths of a ``config.yaml`` for another current folder.

    A path is corrected if it does not exist in the current folder but exists in the folder where the run was
    started. Afterwards, Python modules of that folder can be imported, too.

    Args:
        config: the settings of a run, or any other file of settings, whose paths stay as they are.

    Returns:
        Arguments such as ``--data.init_args.root=/home/me/photos``, to be put behind the file's.

    Raises:
        IgosError: if the first line was edited and no longer names a folder in double quotes.
    """
    text = config.read_text(encoding="utf-8")
    if not text.startswith(_MARK):
        return []
    try:
        start = Path(json.loads(text.partition("\n")[0].removeprefix(_MARK)))
    except (ValueError, TypeError) as error:
        raise IgosError(
            f"{config}: line 1 must name a folder in double quotes: correct it, or delete the line"
        ) from error
    if start == Path.cwd():
        return []
    sys.path.append(str(start))
    settings = yaml.safe_load(text)
    found = [
        (key, value)
        for part in ("model", "data")
        for key, value in _corrected(settings.get(part), part, start)
    ]
    if found:
        names = ", ".join(key.replace(".init_args", "") for key, _ in found)
        say(f"taken from {start}, where the run was started: {names} (relative paths of {config})")
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in found]


def _corrected(value: Any, key: str, start: Path) -> Iterator[tuple[str, str | list[Any]]]:
    """The settings below a key whose paths begin in the folder ``start``, with these paths."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _corrected(inner, f"{key}.{name}", start)
    elif isinstance(value, list):
        paths = [_path(each, key, start) for each in value]
        if paths != value:
            yield key, paths
    elif (path := _path(value, key, start)) != value:
        yield key, path


def _path(value: Any, key: str, start: Path) -> Any:
    """A value as a path that begins in the folder ``start`` if it is one that is only there."""
    may_be = isinstance(value, str) and value and ("/" in value or key.rpartition(".")[2] in _PATHS)
    return str(start / value) if may_be and not _is_in(Path.cwd(), value) and _is_in(start, value) else value


def _is_in(folder: Path, path: str) -> bool:
    """Whether a path or a pattern leads to a file or folder, seen from a folder."""
    pattern = re.sub(r"\{[^{}]*\}", "*", path)
    return os.path.exists(folder / path) or any(glob.iglob(pattern, root_dir=folder, recursive=True))
