"""``igos-pl report``: write a page that shows a whole run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from igos_pl.checks import check_count
from igos_pl.cli.choosing import check_images
from igos_pl.data.run_files import REPORT
from igos_pl.data.wording import counted
from igos_pl.report import ReportSettings, write_report

# What became of the images, in words, with an advice.
_STATES = {
    "missing": "could not be read, and have no picture (--images FOLDER says where the images are now)",
    "no file": "have no picture: they were explained in memory, and a result holds no images",
    "changed": "have changed since the run, and have no picture",
    "kept": "are gone or have changed: the pictures of an earlier report are shown",
}


def print_report(path: Path, output: Path | None, images: Path | None, count: int | None) -> None:
    """Write a report, with a progress bar if standard error is a terminal, and print where it is.

    Args:
        path: a run's folder, or a result file.
        output: the report's folder; ``report`` in the run's folder by default.
        images: where the images are now; by default where the run read them from.
        count: about how many explanations the gallery shows; None for all.

    Raises:
        IgosError: if the report cannot be made.
    """
    if count is not None:
        check_count("count", count, 1)
    check_images(images)
    output = output or (path if path.is_dir() else path.absolute().parent) / REPORT
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("reading", total=None)

        def show(words: str, done: int, total: int) -> None:
            progress.update(task, description=words, completed=done, total=total or None)

        report = write_report(path, output, ReportSettings(images, count), show)
    for warning in report.warnings:
        print(warning)
    shown = counted(report.shown, "explanation")
    if report.shown < report.total:
        print(f"The gallery shows {shown} of {report.total:,} (--all shows all; the numbers are of all)")
    else:
        print(f"The gallery shows {shown}")
    for state, words in _STATES.items():
        if number := report.pictures.get(state):
            print(f"{counted(number, 'image')} {words}")
    print(f"Open {report.index}")
