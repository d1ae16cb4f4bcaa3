"""Chooses how the curves of some masks are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from igos_pl.evaluation.adaptive_curves import measured
from igos_pl.evaluation.deletion_insertion import (
    CurveImages,
    Curves,
    deletion_insertion_curves,
    removal_counts,
)
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem, Scorer

CURVE_KINDS = ("adaptive", "full")


def measured_curves(
    kind: Literal["adaptive", "full"] | None,
    network: Scorer,
    problem: Problem,
    masks: Tensor,
    cells: Tensor,
    micro_batches: MicroBatches,
    on_points: Callable[[int, int], None] | None = None,
) -> Curves:
    """Deletion and insertion curves of the given kind.

    Args:
        kind: ``adaptive`` measures a curve where it bends, ``full`` at all points. None measures only the
            first point: the scores of the image and of its baseline.
        network: scores the perturbed images.
        problem: images, baselines and targets of R rows.
        masks: ``(R, s, s)``, low is important.
        cells: ``(R,)`` the cells that the whole curve removes.
        micro_batches: cuts the images into pieces.
        on_points: called after each piece with the number of points that are known and the number in all.
    """
    if kind == "adaptive":
        return measured(CurveImages(network, problem, masks, micro_batches), removal_counts(cells), on_points)
    counts = cells.new_zeros(len(cells), 1) if kind is None else removal_counts(cells)
    return deletion_insertion_curves(network, problem, masks, counts, micro_batches, on_points)
