"""``igos-pl compare``: results of the same images, side by side."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from igos_pl.cli.choosing import check_images, refuse_existing
from igos_pl.compare import Comparison, compare
from igos_pl.compare.comparison import AGREEMENTS, METRICS
from igos_pl.compare.words import (
    agreement_rows,
    counts,
    metric_rows,
    remarks,
    settings_in_some,
    unknown_agreements,
)
from igos_pl.data.text import printable
from igos_pl.data.wording import counted, is_or_are
from igos_pl.errors import IgosError
from igos_pl.store import MaskFile
from igos_pl.store.files import publishing

_SETTINGS = 12  # settings that are listed in the terminal


def print_comparison(options: argparse.Namespace, console: Console | None = None) -> None:
    """Compare, print tables, and write the CSV file and the page that were asked for.

    Raises:
        IgosError: if a result cannot be read, the results share nothing, or a file cannot be written.
    """
    console = console or Console()
    for path in (options.csv, options.html):
        if path is not None:
            refuse_existing(path, options.overwrite)
    check_images(options.images)
    names = _names(options.runs, options.names)
    with ExitStack() as stack:
        results = [stack.enter_context(MaskFile(path)) for path in options.runs]
        found = compare(results, names)
        _print(found, console)
        if options.csv is not None:
            with (
                publishing(options.csv) as temporary,
                temporary.open("w", encoding="utf-8", newline="") as file,
            ):
                _write_rows(results, found, file)
            print(f"a row for each shared explanation is in {options.csv}")
        if options.html is not None:
            from igos_pl.compare.page import page  # drawing is slow to import

            text, lost = page(results, found, options.images)
            with publishing(options.html) as temporary:
                temporary.write_text(text, encoding="utf-8")
            if lost:
                print(f"{counted(len(lost), 'image')} cannot be shown: {printable(lost[0])}")
            print(f"the images side by side are in {options.html}")


def _names(runs: Sequence[Path], given: str | None) -> list[str]:
    """Names of the results: those that were given, or the folders' or files' names, or their paths."""
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        if len(names) != len(runs) or len(set(names)) < len(names) or "" in names:
            raise IgosError(f"--names needs {len(runs)} different names, separated by commas, not {given!r}")
        return names
    if len(runs) < 2:
        raise IgosError("A comparison needs two results or more")
    short = [path.resolve().parent.name if path.name == "masks.h5" else path.resolve().name for path in runs]
    if len(set(short)) == len(runs):
        return short
    if len({str(path) for path in runs}) < len(runs):
        raise IgosError("The same result is given twice")
    return [str(path) for path in runs]


def _print(found: Comparison, console: Console) -> None:
    def say(text: str = "") -> None:
        console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    for line in counts(found):
        say(line)
    for remark in remarks(found):
        say(f"note: {remark}")
    first, *others = found.names
    heads = ["means", *found.names]
    for name in others:
        heads += [f"{name} - {first}" if len(others) > 1 else "difference", "95% interval"]
    console.print()
    console.print(_table(heads, metric_rows(found)))
    console.print()
    console.print(_table(["agreement of the masks", *AGREEMENTS], agreement_rows(found)))
    say("(in brackets: the overlap of two random masks)")
    if unknown := unknown_agreements(found):
        left_out = f"{counted(unknown, 'explanation')} {is_or_are(unknown)} left out there"
        say(f"{left_out}: a mask has the same value everywhere")
    if found.settings or found.only_in:
        say()
        say("settings that differ")
        for key, values in list(found.settings.items())[:_SETTINGS]:
            say(f"  {key}: {' | '.join(values)}")
        if len(found.settings) > _SETTINGS:
            say(f"  and {len(found.settings) - _SETTINGS} more")
        for line in settings_in_some(found):
            say(f"  {line}")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(
            escape(printable(head)), justify="left" if number == 0 else "right", header_style="bold"
        )
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    return table


def _write_rows(results: Sequence[MaskFile], found: Comparison, file: TextIO) -> None:
    """A row for each shared explanation: its metrics in each result, and the agreement of each pair."""
    writer = csv.writer(file, lineterminator="\n")
    known = [metric for metric in METRICS]
    heads = ["sample_id", "label_name", *(f"{metric} {name}" for metric in known for name in found.names)]
    pairs = [f"{found.names[one]} {found.names[other]}" for one, other in found.agreements]
    heads += [f"{kind} {pair}" for pair in pairs for kind in AGREEMENTS]
    writer.writerow(heads)
    labels = results[0].read("label_name", found.pairing.rows[:, 0]).tolist()
    for place, (image, label) in enumerate(zip(found.images.tolist(), labels, strict=True)):
        values = [value for metric in known for value in found.metrics[metric][place]]
        values += [value for pair in found.agreements.values() for value in pair[place]]
        writer.writerow([image, label, *("" if np.isnan(value) else f"{value:.6g}" for value in values)])
