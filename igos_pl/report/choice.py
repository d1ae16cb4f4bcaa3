"""Chooses the explanations that the gallery of a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igos_pl.report.numbers import Numbers

_EXTREME = 10  # a tenth of the gallery shows the best explanations, and another the worst
_SEED = 0


@dataclass(frozen=True)
class Choice:
    """The explanations that are shown, and why.

    Attributes:
        rows: their numbers, in the order of their images, targets and starts.
        reasons: by ``best``, ``worst``, ``not ok`` and ``finding``, the places in ``rows`` that were chosen
            for it.
    """

    rows: NDArray[np.int64]
    reasons: dict[str, NDArray[np.int64]]


def choose(numbers: Numbers, count: int | None, findings: Sequence[int] = ()) -> Choice:
    """Choose explanations: those that are not ok, of findings, the best, the worst, and some of each class.

    All starts of a target are chosen together.

    Args:
        numbers: of all explanations.
        count: about how many; None for all.
        findings: rows that findings name.
    """
    rows = len(numbers)
    targets = _targets(numbers)
    # A target's best start stands for the target.
    ordered = np.lexsort((-numbers.columns["best"].astype(np.int64), targets))
    units = ordered[np.unique(targets[ordered], return_index=True)[1]]
    if count is None:
        wanted = len(units)
    else:
        wanted = min(len(units), max(1, round(count * len(units) / max(1, rows))))
    extreme = min(max(1, wanted // _EXTREME), max(1, len(units) // 4)) if len(units) else 0
    difference = numbers.difference[units]
    computed = np.isfinite(difference)
    order = units[computed][np.argsort(difference[computed], kind="stable")]
    reasons = {
        "not ok": np.flatnonzero(numbers.status != "ok")[: max(1, wanted // 5)],
        "finding": np.array([row for row in findings if row < rows], np.int64)[: max(1, wanted // 5)],
        "best": order[::-1][:extreme],
        "worst": order[:extreme],
    }
    shown = np.zeros(int(targets.max(initial=-1)) + 1, bool)
    if count is None or wanted == len(units):
        shown[:] = True
    else:
        for found in reasons.values():
            shown[targets[found]] = True
        # One more of each class at a time, until there are enough.
        mixed = np.random.default_rng(_SEED).permutation(units[~shown[targets[units]]])
        turns = _turns(numbers.class_index[mixed])
        left = max(0, wanted - int(shown.sum()))
        shown[targets[mixed[np.argsort(turns, kind="stable")][:left]]] = True
    chosen = np.flatnonzero(shown[targets])
    columns = numbers.columns
    order = np.lexsort((columns["start_cell"][chosen], columns["target"][chosen], numbers.image[chosen]))
    chosen = chosen[order]
    return Choice(chosen, {name: np.flatnonzero(np.isin(chosen, found)) for name, found in reasons.items()})


def _targets(numbers: Numbers) -> NDArray[np.int64]:
    """A number for each explanation that its other starts share."""
    if not len(numbers):
        return np.empty(0, np.int64)
    target = numbers.columns["target"].astype(np.int64)
    key = numbers.image.astype(np.int64) * (int(target.max()) + 1) + target
    return np.asarray(np.unique(key, return_inverse=True)[1], np.int64)


def _turns(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the same group come before each place."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    before = np.repeat(starts, np.diff(starts, append=len(groups)))
    turns = np.empty(len(groups), np.int64)
    turns[order] = np.arange(len(groups)) - before
    return turns
