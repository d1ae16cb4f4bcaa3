"""``igos-pl status``: how far a run is, read from its folder alone, from any terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from igos_pl.store import RunFolder
from igos_pl.store.schema import read_column
from igos_pl.store.segments import open_result

# The rate is taken from what was published in this last while, so that pauses between jobs do not count.
_RECENT = timedelta(minutes=15)


@dataclass(frozen=True)
class Published:
    """A segment: when it was published, and the statuses of its images."""

    at: datetime
    statuses: Counter[str]


def print_status(path: Path) -> None:
    """Print what is done, the rate, the time left and failures.

    Args:
        path: output folder of a run.

    Raises:
        IgosError: if it is none.
    """
    run = RunFolder(path)
    segments, published = _published(run)
    missing = run.missing(published)
    statuses = sum((segment.statuses for segment in segments), Counter[str]())
    done = statuses.total()
    counted = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
    print(f"{done} of {done + len(missing)} images are done" + (f" ({counted})" if counted else ""))
    if segments:
        print(_pace(segments, len(missing)))
    if not missing:
        merged = run.is_merged(published)
        print(f"merged into {run.merged}" if merged else f"not merged yet: igos-pl merge {path}")


def _published(run: RunFolder) -> tuple[list[Published], set[str]]:
    """All segments, and the ids of their images; one that is in several segments counts in the first."""
    segments: list[Published] = []
    done: set[str] = set()
    for path in run.segments():
        with open_result(path) as file:
            at = datetime.fromisoformat(str(file.attrs["created"]))
            ids, statuses = (read_column(file["images"], name).tolist() for name in ("sample_id", "status"))
        new = Counter(status for name, status in zip(ids, statuses, strict=True) if name not in done)
        segments.append(Published(at, new))
        done.update(ids)
    return segments, done


def _pace(segments: list[Published], missing: int) -> str:
    """When the last segment came, the rate of late, and what it means for the rest."""
    last = max(segment.at for segment in segments)
    ago = datetime.now(timezone.utc) - last
    recent = [segment for segment in segments if last - segment.at <= _RECENT]
    began = min(segment.at for segment in recent)
    # What the earliest of them holds was worked on before it was published.
    images = sum(segment.statuses.total() for segment in recent if segment.at > began)
    text = f"last results {timedelta(seconds=round(ago.total_seconds()))} ago"
    if images:
        rate = images / (last - began).total_seconds()
        text += f", {rate:.2f} images/s of late"
        if missing:
            text += f", about {timedelta(seconds=round(missing / rate))} left at this rate"
    return text
