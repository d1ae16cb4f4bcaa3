"""``igos-pl status``: prints how far a run is. It reads only the folder, so it works from any terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from igos_pl.cli.summary import WRITES, last_results, statuses_in_words
from igos_pl.data.wording import ago_in_words, counted, is_or_are
from igos_pl.store import RunFolder
from igos_pl.store.index import Index

# The rate is computed from the last 15 minutes with results, so that pauses between jobs do not count.
_RECENT = timedelta(minutes=15)


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
    if not done and not missing:
        print("This run has no images")
        return
    whole = counted(done + len(missing), "image")
    print(f"{done:,} of {whole} {is_or_are(done)} written" + (f" ({kinds})" if kinds else ""))
    if done:
        print(_pace(published.indexes, len(missing)))
    else:
        print(f"no results yet, started {ago_in_words(time.time() - run.expected_path.stat().st_mtime)}")
    if missing:
        print(WRITES)
    else:
        print(f"merged into {run.merged}" if run.is_merged() else f"not merged yet: igos-pl merge {path}")


def _pace(segments: Sequence[Index], missing: int) -> str:
    """The time of the last segment, the rate of the last minutes, and the time left at this rate."""
    last = max(segment.created for segment in segments)
    recent = [segment for segment in segments if last - segment.created <= _RECENT]
    began = min(segment.created for segment in recent)
    # The earliest segment does not count: its images were explained before `began`.
    images = sum(len(segment.ids) for segment in recent if segment.created > began)
    text = last_results(segments)
    if images and missing:
        rate = images / (last - began).total_seconds()
        text += f", {rate:.2f} images/s in the minutes before"
        text += f", about {timedelta(seconds=round(missing / rate))} left at this rate"
    return text
