"""Summarises a result in a few lines: counts, means and problems. ``predict`` and ``info`` print them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igos_pl.data.text import printable
from igos_pl.data.wording import ago_in_words, counted
from igos_pl.store import MaskFile
from igos_pl.store.index import Index

# The means that are shown: the column, its name in words, and an explanation.
_QUALITY = (
    ("score", "score", ""),
    ("deletion", "deletion", "low is good"),
    ("insertion", "insertion", "high is good"),
)
_DIFFERENCE = ("insertion - deletion", "high is good")
_LOCALISATION = (
    ("energy_box", "saliency in its box", "energy pointing game"),
    ("energy_mask", "saliency in its mask", ""),
    ("pointing_box", "peak in its box", "pointing game"),
    ("pointing_mask", "peak in its mask", ""),
)

_WORDS = 22  # the width of the longest name

# Said beside the time of the last results, so that users can tell whether a run is going on.
WRITES = "a run that is going on writes results about once a minute, or after each batch if that takes longer"

# The clocks of a cluster's machines may differ by seconds.
_CLOCKS_DIFFER = 60.0


def last_results(segments: Sequence[Index]) -> str:
    """When a run wrote its last results: ``last results 3 minutes ago``.

    Args:
        segments: the indexes of its segments, at least one.
    """
    last = max(segment.created for segment in segments)
    seconds = (datetime.now(timezone.utc) - last).total_seconds()
    if seconds < -_CLOCKS_DIFFER:
        return f"last results at {last:%Y-%m-%d %H:%M} UTC, which is in the future for this machine's clock"
    return f"last results {ago_in_words(seconds)}"


def statuses_in_words(statuses: Iterable[str]) -> str:
    """The number of images of each status, the most frequent first: ``7 ok, 1 unreadable``.

    Args:
        statuses: those of all images, or a counter of them.
    """
    counts = Counter(statuses)
    ordered = sorted(counts.items(), key=lambda found: (-found[1], found[0]))
    return ", ".join(f"{number:,} {status}" for status, number in ordered)


def means(masks: MaskFile) -> list[str]:
    """Lines with the means of all explanations, and with those of localisation if objects are annotated."""
    if not len(masks):
        return []
    columns = {name: masks.column(name).astype(np.float64) for name, *_ in (*_QUALITY, *_LOCALISATION)}
    rows = [(words, columns[name], about) for name, words, about in _QUALITY]
    words, about = _DIFFERENCE
    difference = columns["insertion"] - columns["deletion"]
    rows.append((words, difference, about))
    if (masks.column("start_cell") >= 0).any():
        best = masks.column("best") == 1
        rows.append(("the same, best starts", np.where(best, difference, np.nan), about))
        rows.append(("diversity of starts", masks.column("diversity"), "0 equal, 1 disjoint"))
    lines = [f"means of {counted(len(masks), 'explanation')}", *map(_mean, *zip(*rows, strict=True))]
    if not np.isfinite(difference).any():
        lines.append("  deletion and insertion were not computed")
    found = [(words, columns[name], about) for name, words, about in _LOCALISATION]
    if number := int(np.isfinite(columns["energy_box"]).sum()):
        lines.append(f"means of {counted(number, 'explanation')} of an annotated object")
        lines += map(_mean, *zip(*found, strict=True))
    if masks.evaluation:
        lines.append("means of igos-pl evaluate")
        lines += (_mean(name, values.astype(np.float64), "") for name, values in masks.evaluation.items())
    return [line for line in lines if line]


def _mean(words: str, values: NDArray[Any], about: str) -> str:
    """A line, or nothing if no value is known."""
    known = values[np.isfinite(values)]
    if not len(known):
        return ""
    return f"  {words:<{_WORDS}} {known.mean():>6.3f}" + (f"  ({about})" if about else "")


def remarks(masks: MaskFile, most: int, failures_only: bool = False) -> list[str]:
    """Lines with the problems of images that are not ok, and the remarks on others; one line for each image.

    Args:
        masks: the result.
        most: the largest number of lines; one more says how many are left out.
        failures_only: leave out images that are ok.
    """
    statuses = masks.images["status"]
    told = np.flatnonzero(statuses != "ok")
    if not failures_only:
        everything = np.arange(len(statuses))
        told = np.flatnonzero(
            (statuses != "ok") | (masks.image_table.read_bytes("message", everything) != b"")
        )
    failures = ~np.isin(statuses[told].astype(str), ("ok", "no detection"))
    shown = np.concatenate([told[failures], told[~failures]])[:most]
    columns = [
        masks.image_table.read(name, shown).tolist() for name in ("sample_id", "path", "status", "message")
    ]
    lines = [printable(_remark(*row)) for row in zip(*columns, strict=True)]
    return lines + ([f"and {len(told) - most:,} more"] if len(told) > most else [])


def _remark(name: str, path: str, status: str, message: str) -> str:
    """``cat.jpg: unreadable: no image``, with the path if there is one that does not end with the id."""
    name = name if not path or path.endswith(name) else f"{name} ({path})"
    return ": ".join(part for part in (name, "" if status == "ok" else status, message) if part)
