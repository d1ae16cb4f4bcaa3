"""What a command says while it works: on standard error, by the first process of a run alone."""

from __future__ import annotations

import os
import sys

# Where launchers write a process's number.
_RANKS = ("LOCAL_RANK", "RANK", "SLURM_PROCID")


def say(text: str) -> None:
    """Print a line at once, unless another process of the same run prints it."""
    if all(os.environ.get(name, "0") == "0" for name in _RANKS):
        print(text, file=sys.stderr, flush=True)
