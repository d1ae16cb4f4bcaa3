"""Prints what a command is doing: on standard error, and only in the first process of a run."""

from __future__ import annotations

import os
import sys

# The variables in which launchers give a process its rank.
_RANKS = ("LOCAL_RANK", "RANK", "SLURM_PROCID")


def say(text: str) -> None:
    """Print a line at once, unless another process of the same run prints it."""
    if all(os.environ.get(name, "0") == "0" for name in _RANKS):
        print(text, file=sys.stderr, flush=True)
