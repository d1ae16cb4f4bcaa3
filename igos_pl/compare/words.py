"""A comparison in words and cells of tables, which the terminal and the page share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from igos_pl.compare.agreement import TOP
from igos_pl.compare.comparison import AGREEMENTS, METRICS, Comparison
from igos_pl.data.text import first_few, printable, shortened
from igos_pl.data.wording import counted, is_or_are

_NAMES = {
    "difference": "insertion - deletion", "energy_box": "saliency in its box",
    "energy_mask": "saliency in its mask", "pointing_box": "peak in its box",
    "pointing_mask": "peak in its mask",
}  # fmt: skip
_SHOWN = 3  # names of images that are not shared
_FEW_IMAGES = 10  # bootstrap intervals of fewer are clearly too narrow
_LONGEST = 40  # letters of a setting that only some results have

# How names and values from files are written in a sentence.
Quote = Callable[[str], str]


def counts(found: Comparison, quote: Quote = printable) -> list[str]:
    """Lines that say what is shared and what is not."""
    lines = [f"{counted(len(found.images), 'shared explanation')} of {counted(_images(found), 'image')}"]
    for name, alone, ids in zip(found.names, found.pairing.alone, found.pairing.images_alone, strict=True):
        if not alone and not ids:
            continue
        shown = first_few([quote(name) for name in ids[: _SHOWN + 1]], _SHOWN)
        missing = f"{counted(len(ids), 'image')} {is_or_are(len(ids))} not in all results: {shown}"
        lines.append(f"only in {quote(name)}: {counted(alone, 'explanation')}{f'; {missing}' if ids else ''}")
    for name, (number, images) in found.incomplete.items():
        shown = first_few([f"{quote(image)} ({status})" for image, status in images.items()], _SHOWN)
        lines.append(
            f"{counted(number, 'image')} of {quote(name)} {is_or_are(number)} not fully explained: {shown}"
        )
    return lines


def remarks(found: Comparison, quote: Quote = printable) -> list[str]:
    """Lines about runs that are unfinished, about few images, and about settings that change the metrics."""
    unfinished = (f"{quote(name)}: {quote(text)}" for name, text in found.unfinished.items())
    few = []
    if _images(found) < _FEW_IMAGES:
        few.append(f"The intervals come from {counted(_images(found), 'image')} only, so they are too narrow")
    return [*unfinished, *few, *map(quote, found.remarks)]


def _images(found: Comparison) -> int:
    """The number of images that all results share."""
    return len(set(found.images.tolist()))


def metric_rows(found: Comparison) -> list[list[str]]:
    """A row for each metric that is known: its name, the means, and differences with their intervals."""
    rows = []
    for metric, about in METRICS.items():
        runs = range(len(found.names))
        means = [found.mean(metric, run) for run in runs]
        if np.isnan(means[0]):
            continue
        cells = [
            f"{_NAMES.get(metric, metric)} ({about})"
            if metric in ("deletion", "insertion")
            else _NAMES.get(metric, metric)
        ]
        cells += [f"{mean:.3f}" for mean in means]
        for run in runs[1:]:
            difference = found.difference(metric, run)
            known = not np.isnan(difference.low)
            cells += [
                _signed(difference.mean),
                f"{_signed(difference.low)} to {_signed(difference.high)}" if known else "-",
            ]
        rows.append(cells)
    return rows


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no -0.000


def agreement_rows(found: Comparison, quote: Quote = printable) -> list[list[str]]:
    """A row for each pair of results: the mean of each kind of agreement."""
    chance = ["", *(f" ({share / (2 - share):.2f})" for share in TOP)]
    rows = []
    for (one, other), values in found.agreements.items():
        known = values[~np.isnan(values).any(1)]
        cells = (
            [f"{mean:.3f}{by_chance}" for mean, by_chance in zip(known.mean(0), chance, strict=True)]
            if len(known)
            else ["-"] * len(AGREEMENTS)
        )
        rows.append([f"{quote(found.names[one])}, {quote(found.names[other])}", *cells])
    return rows


def settings_in_some(found: Comparison, quote: Quote = printable) -> list[str]:
    """A line for each group of results that have settings which the others do not have."""
    return [
        f"only in {', '.join(quote(found.names[place]) for place in places)}: "
        + ", ".join(f"{quote(key)}={quote(shortened(value, _LONGEST))}" for key, value in values.items())
        for places, values in sorted(found.only_in.items())
    ]


def unknown_agreements(found: Comparison) -> int:
    """How many shared explanations have a mask that is the same everywhere, so that it has no order."""
    return max(int(np.isnan(values).any(1).sum()) for values in found.agreements.values())
