"""``igos-pl predict``: explain a data set, and say how it ended."""

from __future__ import annotations

import sys
from pathlib import Path

from igos_pl.cli.messages import quieten_lightning, shortages_explained
from igos_pl.cli.parser import parsed
from igos_pl.cli.presets import with_preset
from igos_pl.run.run import Ending, Run

# The exit code of a run that was told to stop and is to be started again (EX_TEMPFAIL of sysexits.h).
STOPPED = 75

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
        return 0  # the first rank speaks for all: Lightning's launcher would kill it if this one failed
    run = Run.of(cli.trainer)
    if cli.dry_run and not run.pending:
        print(f"All {len(run.assigned)} images are done: there is nothing left to do")
    if run.ending is Ending.STOPPED:
        if not cli.dry_run:
            left = len(run.folder.missing())
            print(f"Stopped by a signal with {left} images left: run the same command again to go on")
        return STOPPED
    return 0 if cli.dry_run else _report(run)


def _report(run: Run) -> int:
    """Compare what was written with what was asked for."""
    missing = run.missing()
    if missing:
        shown = "\n  ".join(missing[:_SHOWN])
        print(f"{len(missing)} of {len(run.assigned)} images are missing from {run.folder.path}:\n  {shown}")
        return 1
    where = run.folder.merged if run.folder.is_merged() else run.folder.segments_path
    print(f"{len(run.assigned)} images are in {where}")
    return 0
