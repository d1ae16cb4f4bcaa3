"""``igos-pl predict``: explain a data set, and say how it ended."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from igos_pl.cli.messages import quieten_lightning, shortages_explained
from igos_pl.cli.parser import parsed
from igos_pl.cli.presets import with_preset
from igos_pl.data.records import FAILED
from igos_pl.run.run import Ending, Run
from igos_pl.run.signals import STOPPED

_SHOWN = 20


def predict(words: list[str]) -> int:
    """Explain a data set as the command line says.

    Args:
        words: those after ``predict``.

    Returns:
        The exit code: 0; 1 if images are missing from the result at the end; 75 if a signal stopped the run.
    """
    quieten_lightning()
    sys.path.insert(0, str(Path.cwd()))  # where people's own networks lie
    cli = parsed(with_preset(words))
    with shortages_explained():
        cli.trainer.predict(cli.model, cli.datamodule, return_predictions=False)
    if not cli.trainer.is_global_zero:
        return 0  # only the first rank reports: the launcher kills it if another rank exits with an error
    run = Run.of(cli.trainer)
    if cli.dry_run and not run.pending:
        print(f"All {len(run.assigned)} images are done: there is nothing left to do")
    if run.ending is Ending.STOPPED:
        if not cli.dry_run:
            left = len(run.folder.missing())
            print(f"Stopped by a signal with {left} images left: run the same command again to go on")
        return STOPPED
    return 0 if cli.dry_run else _report(run)


def _remarks(run: Run, statuses: Collection[str]) -> str:
    """How the images of the folder differ from those that this run was to explain, and from the data set."""
    others = len(set(statuses) - set(run.assigned))
    gone = len(set(statuses) - set(run.expected))
    left = sum(name not in statuses for name in run.expected)
    remarks = [f"; this run was to explain {len(run.assigned)} of them"] if others else []
    remarks += [f"; {gone} are no longer in the data set"] if gone else []
    remarks += [f"; {left} are still missing"] if left else []
    return "".join(remarks)


def _report(run: Run) -> int:
    """Compare what was written with what was asked for."""
    statuses = run.folder.statuses()
    missing = run.missing(statuses)
    if missing:
        shown = [f"{name}: {run.unread[name]}" if name in run.unread else name for name in missing[:_SHOWN]]
        print(f"{len(missing)} of {len(run.assigned)} images are missing from {run.folder.path}:")
        print("", *shown, sep="\n  ")
        print("Run the same command again to go on with them")
        return 1
    where = run.folder.merged if run.folder.is_merged(statuses) else run.folder.segments_path
    print(f"{len(statuses)} images are in {where}{_remarks(run, statuses)}")
    failed = Counter(statuses[name] for name in run.assigned if statuses[name] in FAILED)
    if failed:
        counted = ", ".join(f"{count} {status}" for status, count in sorted(failed.items()))
        print(f"{counted}: igos-pl info {run.folder.path} says why; --data.retry_unreadable true tries again")
    return 0
