"""How an explainer says how far it is with a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

OPTIMISING, CURVES = "optimising", "curves"


@dataclass(frozen=True)
class BatchProgress:
    """How far the batch is that is being explained.

    Attributes:
        phase: `OPTIMISING` (the masks) or `CURVES` (deletion and insertion).
        done: iterations, or perturbed images that are scored, of this phase.
        total: all of them in this phase.
        share: the share of the batch's computation that is done, from 0 to 1: the passes through the network,
            where a forward and backward pass counts as two.
    """

    phase: str
    done: int
    total: int
    share: float


@runtime_checkable
class ReportsProgress(Protocol):
    """An explainer that says how far it is with a batch.

    Attributes:
        on_progress: called after each iteration, and after each micro-batch of the curves; None to disable.
    """

    on_progress: Callable[[BatchProgress], None] | None
