"""What comes out of the sanity checks: means over the images, a table, CSV, JSON and a figure."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from igos_pl.figures.sanity import Line, Series, similarity_figure
from igos_pl.sanity.checks import (
    CASCADE,
    CONTROLS,
    INDEPENDENT,
    LOGITS,
    RANDOM,
    SECOND,
    SEED,
    SOBEL,
    Checked,
)
from igos_pl.settings import Attributes
from igos_pl.store.files import publishing

MEASURES = ("spearman", "ssim", "entropy_rise", "contrast", "score")

_TITLES = {
    CONTROLS: "controls",
    LOGITS: "mask of another class (random logit)",
    CASCADE: "layers with random weights, more and more of them from the output on (MPRT)",
    INDEPENDENT: "layers with random weights, all others as trained",
}


@dataclass(frozen=True)
class Summary:
    """The means of a comparison over the images.

    Attributes:
        check: see `Checked`.
        state: see `Checked`.
        layers: see `Checked`.
        images: the number of images.
        mean: of each measure, over the images for which it is known; NaN for none.
        error: the standard error of each mean; NaN for fewer than two images.
        known: the number of images for which each measure is known.
    """

    check: str
    state: str
    layers: int
    images: int
    mean: Mapping[str, float]
    error: Mapping[str, float]
    known: Mapping[str, int]


def summaries(checked: Sequence[Checked]) -> list[Summary]:
    """The means of all comparisons, in the order of a report."""
    groups: dict[tuple[str, str, int], list[Checked]] = {}
    for check in _TITLES:
        for row in checked:
            if row.check == check:
                groups.setdefault((check, row.state, row.layers), []).append(row)
    return [_summary(*key, rows) for key, rows in groups.items()]


def _summary(check: str, state: str, layers: int, rows: Sequence[Checked]) -> Summary:
    values = {name: np.array([getattr(row, name) for row in rows]) for name in MEASURES}
    known = {name: column[np.isfinite(column)] for name, column in values.items()}
    return Summary(
        check,
        state,
        layers,
        len(rows),
        {name: float(column.mean()) if len(column) else np.nan for name, column in known.items()},
        {
            name: float(column.std(ddof=1) / len(column) ** 0.5) if len(column) > 1 else np.nan
            for name, column in known.items()
        },
        {name: len(column) for name, column in known.items()},
    )


def table(found: Sequence[Summary], width: int = 80) -> list[str]:
    """The lines of a table: a section for each check, with the means.

    Args:
        found: the means.
        width: of the terminal; long names of layers lose their end.
    """
    numbers = 42
    room = max(24, width - numbers - 2)
    lines = [f"{'':{room + 2}}{'Spearman':>9}{'SSIM':>7}{'contrast':>9}{'score':>8}{'entropy':>9}"]
    for check, title in _TITLES.items():
        rows = [row for row in found if row.check == check]
        if not rows:
            continue
        lines.append(title)
        for row in rows:
            name = row.state if len(row.state) <= room else f"{row.state[: room - 1]}…"
            mean = row.mean
            lines.append(
                f"  {name:<{room}}{_decimal(mean['spearman']):>9}{_decimal(mean['ssim']):>7}"
                f"{_decimal(mean['contrast']):>9}{_decimal(mean['score'], 4):>8}"
                f"{_percent(mean['entropy_rise']):>9}"
            )
    return lines


def _decimal(value: float, places: int = 2) -> str:
    return "-" if np.isnan(value) else f"{value:.{places}f}"


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:+.0%}"


def write(folder: Path, checked: Sequence[Checked], attributes: Attributes, title: str) -> list[Path]:
    """Write ``sanity.csv`` (every comparison), ``sanity.json`` (settings and means) and ``sanity.png``.

    Returns:
        The files.

    Raises:
        IgosError: if a file cannot be written.
    """
    found = summaries(checked)
    paths = [folder / f"sanity.{ending}" for ending in ("csv", "png", "json")]
    with publishing(paths[0]) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(field.name for field in fields(Checked))
        rows.writerows([_cell(value) for value in astuple(row)] for row in checked)
    with publishing(paths[1]) as temporary:
        figure = similarity_figure(title, *_drawn(found))
        figure.savefig(temporary, dpi=120, format="png")
    with publishing(paths[2]) as temporary:
        content = {"settings": attributes, "means": [_plain(row) for row in found]}
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    return paths


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and np.isnan(value) else value


def _plain(row: Summary) -> dict[str, Any]:
    """A summary as JSON, in which unknown numbers are null."""
    numbers = {
        name: {
            "mean": _null(row.mean[name]), "standard_error": _null(row.error[name]), "images": row.known[name]
        }
        for name in MEASURES
    }  # fmt: skip
    return {"check": row.check, "state": row.state, "layers": row.layers, "images": row.images, **numbers}


def _null(value: float) -> float | None:
    return None if np.isnan(value) else value


def _drawn(found: Sequence[Summary]) -> tuple[list[Series], list[Line]]:
    """The curves and the horizontal lines of the figure."""
    cascaded = [row for row in found if row.check == CASCADE]
    alone = [row for row in found if row.check == INDEPENDENT]
    places = [row.layers for row in cascaded]
    series = [
        Series(name, places, [row.mean for row in rows], [row.error for row in rows])
        for name, rows in (("these layers and all after them", cascaded), ("these layers alone", alone))
    ]
    means = {row.state: row.mean for row in found}
    return series, [Line(name, means[name]) for name in (SEED, SECOND, RANDOM, SOBEL) if name in means]
