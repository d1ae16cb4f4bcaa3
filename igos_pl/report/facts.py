"""What was run, in words: the method, the data, what is missing, what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igos_pl.data.text import printable, shortened
from igos_pl.data.wording import cells_in_words
from igos_pl.errors import IgosError
from igos_pl.report.numbers import Numbers
from igos_pl.store import MaskFile, RunFolder, unfinished
from igos_pl.store.index import Published

_FAILURES = 200  # images that are listed with their reasons
_LONGEST = 400  # letters of a setting or a reason


@dataclass(frozen=True)
class Failure:
    """An image that is not ok."""

    image: str
    status: str
    reason: str


@dataclass(frozen=True)
class Facts:
    """What was run.

    Attributes:
        main: the most important facts, by their names.
        total: the number of explanations.
        settings: all settings of the run.
        statuses: the number of images by status, the most frequent first.
        reasons: how many images failed for the same reason, the most frequent first.
        failures: the first images that are not ok.
        more_failures: how many are not listed.
        warnings: what a reader must know: the run is not finished, nothing was computed.
    """

    main: dict[str, str]
    total: int
    settings: dict[str, str]
    statuses: dict[str, int]
    reasons: list[tuple[str, int]]
    failures: list[Failure]
    more_failures: int
    warnings: list[str]


def facts_of(path: Path, masks: MaskFile, numbers: Numbers) -> Facts:
    """Gather what was run.

    Args:
        path: the run's folder or file.
        masks: the result.
        numbers: of its explanations.
    """
    attributes = masks.attributes
    statuses = masks.images["status"].astype(str)
    failed = np.flatnonzero(~np.isin(statuses, ("ok",)))
    messages = masks.image_table.read("message", failed).tolist() if len(failed) else []
    names = masks.image_table.read("sample_id", failed[:_FAILURES]).tolist() if len(failed) else []
    told = [
        Failure(_said(name), status, _said(message))
        for name, status, message in zip(names, statuses[failed], messages, strict=False)
    ]
    published, unreadable = _published(path, masks)
    reasons = Counter(
        f"{status}: {_said(message)}" if message else str(status)
        for status, message in zip(statuses[failed], messages, strict=True)
    )
    return Facts(
        _main(path, attributes, numbers, len(statuses), published),
        len(numbers),
        {key: _said(attributes[key]) for key in sorted(attributes)},
        dict(Counter(statuses.tolist()).most_common()),
        reasons.most_common(10),
        told,
        len(failed) - len(told),
        _warnings(path, numbers, published, unreadable),
    )


def _published(path: Path, masks: MaskFile) -> tuple[Published | None, str]:
    """What the heads of the segments say; None for a single file. If a head cannot be read, why."""
    if masks.published is not None or not path.is_dir():
        return masks.published, ""
    try:
        return RunFolder(path).published(), ""
    except IgosError as error:  # the merged file holds all results
        return None, str(error)


def _main(
    path: Path, attributes: Mapping[str, Any], numbers: Numbers, images: int, published: Published | None
) -> dict[str, str]:
    def value(key: str) -> str:
        return _said(attributes.get(key, ""))

    seconds = numbers.columns["seconds"].astype(np.float64)
    total, count = float(np.nansum(seconds)), len(numbers)
    network = value("network.name")
    found = {
        "method": " with ".join(part for part in (value("method"), value("optimizer")) if part),
        "preset": value("preset"),
        "masks": _said(cells_in_words(attributes)),
        "network": value("network") + (f" ({network})" if network not in ("", "none") else ""),
        "explained classes": value("network.targets"),
        "data": value("data"),
        "images from": value("data.root"),
        "images": f"{images:,}",
        "explanations": f"{count:,}",
        "computing time": f"{_duration(total)} ({_duration(total / count)} each)" if count else "",
        "device": value("device"),
        "versions": ", ".join(
            f"{name} {value(name)}" for name in ("igos_pl", "torch", "torchvision") if value(name)
        ),
        "results": _said(path.absolute()),
        "results written": (
            "unknown, because a segment cannot be read"
            if published is None and path.is_dir()
            else _written(published) or value("created")
        ),
    }
    return {key: text for key, text in found.items() if text}


def _warnings(path: Path, numbers: Numbers, published: Published | None, unreadable: str) -> list[str]:
    warnings = []
    if told := unfinished(path, "igos-pl report", published):
        warnings.append(told)
    elif unreadable:
        warnings.append(f"{unreadable}. The results shown here come from masks.h5.")
    elif path.is_dir() and not RunFolder(path).is_merged():
        warnings.append(
            "The run's results are not merged yet. This report was made from its segments. igos-pl merge"
            " makes masks.h5."
        )
    if not len(numbers):
        warnings.append("No image has an explanation. The table of failures says why.")
    elif not np.isfinite(numbers.difference).any():
        warnings.append(
            "Deletion and insertion were not computed in this run (--model.metrics false), so nothing can be"
            " said about how faithful the masks are."
        )
    return warnings


def _written(published: Published | None) -> str:
    """When the last segment was written; empty without segments. Then the file's `created` is used."""
    times = [segment.created for segment in published.indexes] if published else []
    return max(times).isoformat(timespec="seconds") if times else ""


def _said(value: Any) -> str:
    return shortened(printable(str(value)), _LONGEST)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
