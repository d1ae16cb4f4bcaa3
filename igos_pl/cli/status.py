"""``igos-pl status``: prints how far a run is. It reads only the folder, so it works from any terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from igos_pl.cli.summary import statuses_in_words
from igos_pl.data.wording import counted
from igos_pl.store import RunFolder
from igos_pl.store.index import Index

# The rate is computed from the last 15 minutes with results, so that pauses between jobs do not count.
_RECENT = timedelta(minutes=15)

# The clocks of a cluster's machines may differ by seconds.
_CLOCKS_DIFFER = timedelta(minutes=1)


def print_status(path: Path) -> None:
    """Print what is done, failures, the rate and the time left.

    Args:
        path: output folder of a run.

    Raises:
        IgosError: if it is not the output folder of a run.
    """
    run = RunFolder(path)
    published = run.published()
    missing = run.missing(published)
    done = len(published)
    kinds = statuses_in_words(published.counts())
    print(f"{done} of {counted(done + len(missing), 'image')} are written" + (f" ({kinds})" if kinds else ""))
    if not done:
        print("a run writes finished images about once a minute")
    else:
        print(_pace(published.indexes, len(missing)))
    if not missing:
        print(f"merged into {run.merged}" if run.is_merged() else f"not merged yet: igos-pl merge {path}")


def _pace(segments: Sequence[Index], missing: int) -> str:
    """The time of the last segment, the rate of the last minutes, and the time left at this rate."""
    last = max(segment.created for segment in segments)
    ago = datetime.now(timezone.utc) - last
    recent = [segment for segment in segments if last - segment.created <= _RECENT]
    began = min(segment.created for segment in recent)
    # The earliest segment does not count: its images were explained before `began`.
    images = sum(len(segment.ids) for segment in recent if segment.created > began)
    text = f"last results {timedelta(seconds=max(0, round(ago.total_seconds())))} ago"
    if ago < -_CLOCKS_DIFFER:
        text = f"last results at {last:%Y-%m-%d %H:%M} UTC, which is in the future for this machine's clock"
    if images and missing:
        rate = images / (last - began).total_seconds()
        text += f", {rate:.2f} images/s in the minutes before"
        text += f", about {timedelta(seconds=round(missing / rate))} left at this rate"
    return text
