"""``igos-pl status``: how far a run is, read from its folder alone, from any terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from igos_pl.store import RunFolder
from igos_pl.store.files import image_statuses, open_result, owners

# The rate is computed from the last 15 minutes with results, so that pauses between jobs do not count.
_RECENT = timedelta(minutes=15)

# Clocks of a cluster's machines differ by seconds.
_CLOCKS_DIFFER = timedelta(minutes=1)


@dataclass(frozen=True)
class Published:
    """A segment: when it was published, and how many images it has."""

    at: datetime
    images: int


def print_status(path: Path) -> None:
    """Print what is done, the rate, the time left and failures.

    Args:
        path: output folder of a run.

    Raises:
        IgosError: if it is not the output folder of a run.
    """
    run = RunFolder(path)
    segments, published = _published(run)
    missing = run.missing(published)
    statuses = Counter(published.values())
    done = len(published)
    counted = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
    print(f"{done} of {done + len(missing)} images are done" + (f" ({counted})" if counted else ""))
    if segments:
        print(_pace(segments, len(missing)))
    if not missing:
        merged = run.is_merged(published)
        print(f"merged into {run.merged}" if merged else f"not merged yet: igos-pl merge {path}")


def _published(run: RunFolder) -> tuple[list[Published], dict[str, str]]:
    """All segments, and the statuses of their images by id."""
    segments: list[Published] = []
    found: list[dict[str, str]] = []
    for path in run.segments():
        with open_result(path) as file:
            at = datetime.fromisoformat(str(file.attrs["created"]))
        found.append(image_statuses(path))
        segments.append(Published(at, len(found[-1])))
    return segments, {name: found[number][name] for name, number in owners(found).items()}


def _pace(segments: list[Published], missing: int) -> str:
    """When the last segment came, the rate of the last minutes, and what it means for the rest."""
    last = max(segment.at for segment in segments)
    ago = datetime.now(timezone.utc) - last
    recent = [segment for segment in segments if last - segment.at <= _RECENT]
    began = min(segment.at for segment in recent)
    # The earliest segment does not count: its images were explained before `began`.
    images = sum(segment.images for segment in recent if segment.at > began)
    text = f"last results {timedelta(seconds=max(0, round(ago.total_seconds())))} ago"
    if ago < -_CLOCKS_DIFFER:
        text = f"last results at {last:%Y-%m-%d %H:%M} UTC, which is in the future for this machine's clock"
    if images:
        rate = images / (last - began).total_seconds()
        text += f", {rate:.2f} images/s in the last minutes"
        if missing:
            text += f", about {timedelta(seconds=round(missing / rate))} left at this rate"
    return text
