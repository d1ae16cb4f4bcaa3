"""``igos-pl merge``: copy a run's segments into its ``masks.h5``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from igos_pl.store import RunFolder, merge


def print_merge(path: Path, partial: bool) -> None:
    """Merge, with a progress bar if standard error is a terminal.

    Args:
        path: output folder of a run.
        partial: merge even if images are missing.

    Raises:
        IgosError: if it cannot be merged.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("checking segments", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, description="merging rows", completed=done, total=total)

        merged = merge(RunFolder(path), partial, show)
    print(f"Merged into {merged}")
