"""How an explainer reports the progress of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

OPTIMISING, CURVES = "optimising", "curves"


@dataclass(frozen=True)
class BatchProgress:
    """The progress of the batch that is being explained.

    Attributes:
        phase: `OPTIMISING` (the masks) or `CURVES` (deletion and insertion).
        done: finished iterations, or scored perturbed images, of this phase.
        total: the number of all of them in this phase.
        share: the share of the batch's network passes that are done, from 0 to 1. A forward pass counts as
            one, a forward and backward pass as two.
    """

    phase: str
    done: int
    total: int
    share: float


@runtime_checkable
class ReportsProgress(Protocol):
    """An explainer that reports the progress of a batch.

    Attributes:
        on_progress: called after each iteration, and after each micro-batch of the curves; None to disable.
    """

    on_progress: Callable[[BatchProgress], None] | None
