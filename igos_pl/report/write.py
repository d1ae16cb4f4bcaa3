"""Writes a report: gathers its numbers, makes its pictures, and renders its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from igos_pl.report.choice import choose
from igos_pl.report.facts import facts_of
from igos_pl.report.findings import look
from igos_pl.report.folder import ReportFolder
from igos_pl.report.gallery import Gallery, Where
from igos_pl.report.numbers import Numbers
from igos_pl.report.page import render, summary_data
from igos_pl.store import MaskFile

COUNT = 2000  # explanations in the gallery by default


@dataclass(frozen=True)
class ReportSettings:
    """How a report is made.

    Attributes:
        images: where the images are now; None for the place that the run read them from.
        count: about how many explanations the gallery shows; None for all.
    """

    images: Path | None = None
    count: int | None = COUNT


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        index: the page.
        shown: the number of explanations in the gallery.
        total: the number of explanations of the run.
        pictures: the number of images by their pictures' state, see `igos_pl.report.pictures.Picture`.
        warnings: what a reader must know: the run is not finished, nothing was explained.
    """

    index: Path
    shown: int
    total: int
    pictures: dict[str, int]
    warnings: list[str]


def write_report(
    path: Path,
    output: Path,
    settings: ReportSettings | None = None,
    on_progress: Callable[[str, int, int], None] = lambda words, done, total: None,
) -> Report:
    """Write a report of a run: ``output/index.html`` and the files that it shows.

    Args:
        path: the run's folder, or a result file.
        output: the report's folder. A report that is there already is replaced; its pictures of images that
            are gone or have changed are kept.
        settings: how it is made.
        on_progress: called with what is being done, how much of it is done, and how much there is in all.

    Raises:
        IgosError: if there are no results, they are damaged, or the report cannot be written.
    """
    settings = settings or ReportSettings()
    with MaskFile(path) as masks:
        folder = ReportFolder(output)
        on_progress("reading numbers", 0, 0)
        numbers = Numbers(masks)
        facts = facts_of(path, masks, numbers)
        on_progress("looking for patterns", 0, 0)
        seen = look(masks)
        root = masks.attributes.get("data.root")
        gallery = Gallery(
            masks,
            numbers,
            choose(numbers, settings.count, seen.rows()),
            Where(Path(root) if isinstance(root, str) else None, settings.images),
        )
        on_progress("reading curves", 0, 0)
        summary = summary_data(masks, numbers)
        gallery.write(folder, lambda done, total: on_progress("drawing", done, total))
        folder.write_data("summary", summary)
        folder.write_data("gallery", gallery.data())
        folder.write_static()
        page = render(path, masks, facts, numbers, summary, seen, gallery)
        folder.finish(page, {picture.name: picture.digest for picture in gallery.pictures if picture.digest})
        states = dict(Counter(picture.state for picture in gallery.pictures))
        return Report(folder.index, len(gallery), len(masks), states, facts.warnings)
