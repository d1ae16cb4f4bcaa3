"""``igos-pl info``: what is in a result, as tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from igos_pl.store import MaskFile, RunFolder


def print_info(path: Path, rows: int, console: Console | None = None) -> None:
    """Print attributes, counts and means, and the first explanations.

    Args:
        path: a merged file, a segment, or a run's folder (its merged file if there is one).
        rows: explanations to list.
        console: standard output by default.
    """
    console = console or Console()
    merged = RunFolder(path).merged
    with MaskFile(merged if path.is_dir() and merged.exists() else path) as masks:
        console.print(_attributes_table(masks))
        statuses = Counter(masks.images["status"].tolist())
        counted = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
        console.print(f"{len(masks.images['status'])} images ({counted}), {len(masks)} explanations")
        if len(masks):
            console.print(_means(masks))
            console.print(explanations_table(masks, rows))
        for record in _not_ok(masks, rows):
            console.print(printable(record), markup=False)


def explanations_table(masks: MaskFile, rows: int) -> Table:
    """Class, scores and times of the first explanations."""
    shown = f"the {len(masks)}" if rows >= len(masks) else f"{rows} of the {len(masks)}"
    table = Table(title=f"{shown} explanations: score, deletion, insertion, seconds")
    for name in ("image", "class"):
        table.add_column(name, overflow="fold")
    for name in ("score", "del.", "ins.", "ins.-del.", "sec.", "status"):
        table.add_column(name, justify="right")
    first = masks[:rows]
    columns = {
        name: first.column(name)
        for name in ("sample_id", "label_name", "score", "deletion", "insertion", "seconds", "status")
    }
    for image, label, score, deletion, insertion, seconds, status in zip(*columns.values(), strict=True):
        numbers = (score, deletion, insertion, insertion - deletion)
        table.add_row(escape(image), escape(label), *(f"{n:.3f}" for n in numbers), f"{seconds:.1f}", status)
    return table


def _attributes_table(masks: MaskFile) -> Table:
    table = Table(show_header=False, box=None)
    for key, value in sorted(masks.attributes.items()):
        table.add_row(key, escape(str(value)))
    return table


def _means(masks: MaskFile) -> str:
    deletion, insertion = masks.column("deletion"), masks.column("insertion")
    known = np.isfinite(insertion - deletion)
    if not known.any():
        return "deletion and insertion were not computed"
    low, high = deletion[known].mean(), insertion[known].mean()
    return f"means: deletion {low:.3f}, insertion {high:.3f}, difference {high - low:.3f}"


def _not_ok(masks: MaskFile, rows: int) -> list[str]:
    """The first images that are not ok, and why."""
    places = np.flatnonzero(masks.images["status"] != "ok")[:rows]
    columns = [masks.image_table.read(name, places).tolist() for name in ("status", "path", "message")]
    return [f"{status}: {path}: {message}" for status, path, message in zip(*columns, strict=True)]


def printable(text: str) -> str:
    """Text whose control characters are written out, so that a file's name cannot steer the terminal."""
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in text)


def escape(text: str) -> str:
    """Text as a table's cell shows it, whatever it holds."""
    return escape_markup(printable(text))
