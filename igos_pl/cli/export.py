"""``igos-pl export``: explanations in the formats of other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from igos_pl.checks import check_choice
from igos_pl.cli.choosing import chosen, refuse_existing
from igos_pl.export import FORMATS, Options, export, writes_folder
from igos_pl.store import MaskFile, unfinished


def print_export(options: argparse.Namespace) -> None:
    """Export, with a progress bar if standard error is a terminal, and say what was written.

    Raises:
        IgosError: if it cannot be exported.
    """
    check_choice("--to", options.to, FORMATS)
    output: Path = options.output
    refuse_existing(output, options.overwrite, folder=writes_folder(options.to, output))
    console = Console(stderr=True)
    columns = (TextColumn("exporting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    how = Options(options.fraction, options.annotations, options.images)
    with (
        MaskFile(options.run) as masks,
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        told = unfinished(options.run, "igos-pl export", masks.published)
        rows = chosen(options, masks)
        task = progress.add_task("exporting", total=len(rows))
        written = export(rows, options.to, output, how, lambda number: progress.advance(task, number))
    if told:
        print(told)
    print(f"{output}: {written}")
