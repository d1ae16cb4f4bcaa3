"""``igos-pl info``: prints what is in a result, as a summary and a table, or as CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from igos_pl.cli.choosing import refuse_existing
from igos_pl.cli.summary import WRITES, last_results, means, remarks, statuses_in_words
from igos_pl.data.text import printable, shortened
from igos_pl.data.wording import counted, is_or_are, method_in_words
from igos_pl.store import MaskFile, unfinished
from igos_pl.store.files import publishing

_BLOCK = 1024  # rows of the CSV that are read at once
_GAP = 2  # between the columns of a table
_NAME_WIDTHS = {"image": 14, "class": 10}  # the smallest widths


def print_info(path: Path, rows: int, settings: bool = False, console: Console | None = None) -> None:
    """Print whether and since when the run is unfinished, counts and means, first explanations, and problems.

    Args:
        path: a merged file, a segment, or a run's folder (its merged file if there is one).
        rows: the number of explanations to list.
        settings: print all settings, too.
        console: where to print; standard output by default.
    """
    console = console or Console()

    def say(text: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    with MaskFile(path) as masks:
        if told := unfinished(path, "igos-pl info", masks.published):
            say(told)
            if masks.published is not None:
                say(f"{last_results(masks.published.indexes)}; {WRITES}")
        images = masks.images["status"].tolist()
        say(f"{counted(len(images), 'image')}: {statuses_in_words(images)}")
        say(f"{counted(len(masks), 'explanation')}: {method_in_words(masks.attributes)}")
        root = masks.attributes.get("data.root")
        say(f"network {_network(masks)}" + (f", data {root}" if root else ""))
        if len(masks):
            say()
            for line in means(masks):
                say(line)
            print_explanations(masks, rows, console)
        if about := remarks(masks, rows):
            say("\nabout the images")
            for line in about:
                say(f"  {line}")
        if settings:
            say("\nsettings")
            width = max(map(len, masks.attributes))
            for key, value in sorted(masks.attributes.items()):
                say(f"  {key:<{width}}  {printable(str(value))}")


def write_csv(path: Path, target: Path | None, overwrite: bool = False) -> None:
    """Write all explanations of a result as CSV: a row for each, with all columns but masks and curves.

    If the run is unfinished, this is printed, too. It goes to standard error when the CSV goes to standard
    output.

    Args:
        path: a merged file, a segment, or a run's folder.
        target: the file; standard output if it is None.
        overwrite: whether it may replace a file.

    Raises:
        IgosError: if the result cannot be read, or the file exists or cannot be written.
    """
    if target is not None:
        refuse_existing(target, overwrite)
    with MaskFile(path) as masks:
        told = unfinished(path, "igos-pl info", masks.published)
        if target is None:
            _write_rows(masks, sys.stdout)
            if told:
                print(told, file=sys.stderr)
            return
        with publishing(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            _write_rows(masks, file)
    if told:
        print(told)
    print(f"{counted(len(masks), 'explanation')} {is_or_are(len(masks))} in {target}")


def _write_rows(masks: MaskFile, file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    for start in range(0, max(1, len(masks)), _BLOCK):
        table = masks[start : start + _BLOCK].flat()
        if start == 0:
            writer.writerow(table)
        writer.writerows(zip(*map(_cells, table.values()), strict=True))


def _cells(column: NDArray[Any]) -> list[str]:
    """A column as text. Unknown numbers (NaN) become empty cells."""
    texts = [str(value) for value in column]
    return texts if column.dtype.kind != "f" else ["" if text == "nan" else text for text in texts]


def _network(masks: MaskFile) -> str:
    kind, name = (masks.attributes.get(key) for key in ("network", "network.name"))
    return f"{kind} ({name})" if name and name != "none" else str(kind)


def _decimal(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


@dataclass(frozen=True)
class _Numbers:
    """A column of numbers.

    Attributes:
        title: the column's title.
        columns: the columns of the result that it is made of.
        text: turns a row's values of these columns into text.
        unless: the column is left out if all rows have this text.
    """

    title: str
    columns: tuple[str, ...]
    text: Callable[..., str] = _decimal
    unless: str | None = None


# The columns, in the order of the table.
_NUMBERS = (
    _Numbers("cell", ("start_cell", "best"), lambda cell, best: f"{cell}{'*' if best else ' '}", "-1*"),
    _Numbers("score", ("score",)),
    _Numbers("del", ("deletion",), unless="-"),
    _Numbers("ins", ("insertion",), unless="-"),
    _Numbers(
        "ins-del", ("insertion", "deletion"), lambda insertion, deletion: _decimal(insertion - deletion), "-"
    ),
    _Numbers("in box", ("energy_box",), unless="-"),
    _Numbers("in mask", ("energy_mask",), unless="-"),
    _Numbers("s", ("seconds",), "{:.1f}".format),
    _Numbers("status", ("status",), str, "ok"),
)
# The columns by importance: if there is little room, the last ones are left out.
_PRIORITY = ("ins-del", "status", "score", "cell", "del", "ins", "in box", "s", "in mask")


def print_explanations(masks: MaskFile, rows: int, console: Console) -> None:
    """Print a table of the first explanations: images, classes and numbers.

    There are as many columns of numbers as fit; numbers are never cut. Long names lose their middle.

    Args:
        masks: the result.
        rows: the number of explanations to list.
        console: where to print.
    """
    first = masks[:rows]
    names = {
        "image": [printable(name) for name in first.column("sample_id").tolist()],
        "class": [printable(name) for name in first.column("label_name").tolist()],
    }
    numbers = {}
    for kind in _NUMBERS:
        texts = [kind.text(*row) for row in zip(*map(first.column, kind.columns), strict=True)]
        if set(texts) != {kind.unless}:
            numbers[kind.title] = texts
    whole = len(masks)
    title = f"{min(rows, whole):,} of {counted(whole, 'explanation')}"
    if "cell" in numbers:
        title += " (* = the best start of its target)"
    console.print(f"\n{title}", highlight=False, soft_wrap=True)
    room = _room(names, numbers, console.width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for title, size in room.items():
        table.add_column(
            title,
            justify="left" if title in names else "right",
            no_wrap=True,
            width=size,
            header_style="bold",
        )
    shown = {title: (names | numbers)[title] for title in room}
    for row in zip(*shown.values(), strict=True):
        table.add_row(*(escape(_fitting(text, size)) for text, size in zip(row, room.values(), strict=True)))
    console.print(table)


def _room(names: dict[str, list[str]], numbers: dict[str, list[str]], width: int) -> dict[str, int]:
    """The widths of the columns that fit, in the order of the table."""
    wanted = {title: _longest(title, texts) for title, texts in (names | numbers).items()}
    least = {title: min(wanted[title], _NAME_WIDTHS[title]) for title in names}
    left = width - sum(least.values()) - _GAP * (len(names) - 1)
    chosen = set(names)
    for title in _PRIORITY:
        if title in numbers and left >= wanted[title] + _GAP:
            chosen.add(title)
            left -= wanted[title] + _GAP
    for title in names:  # names get the room that is left
        more = min(left, wanted[title] - least[title])
        least[title] += more
        left -= more
    return {title: least.get(title, wanted[title]) for title in wanted if title in chosen}


def _longest(title: str, texts: Sequence[str]) -> int:
    return max(map(cell_len, (title, *texts)))


def _fitting(text: str, size: int) -> str:
    """Text of at most ``size`` cells of the terminal. Some characters take two."""
    short = shortened(text, size)
    while cell_len(short) > size:
        short = shortened(short, len(short) - 1)
    return short
