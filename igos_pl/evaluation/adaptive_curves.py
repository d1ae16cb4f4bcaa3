"""Deletion and insertion curves by few passes: points are measured only where a curve bends.

A curve of 51 points is nearly straight over most of its length. A few points are measured first. Then each
round measures the middle of the intervals that leave most of the area open, until the area's expected error
is small. The other points are put on the straight lines between the measured ones, so the area is the one of
the trapezoid rule over all 51 points. Rows do not affect each other: a round is only one stream of images for
all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from igos_pl.evaluation.deletion_insertion import Curves

# The points that are measured first, out of 0 to 50: squares, because most curves bend near their start.
_FIRST = (0, 4, 9, 16, 25, 36, 50)

# A curve is measured until its area's expected error (a standard deviation) is below this.
# `benchmarks/curves.py` shows the errors that remain and the passes that it takes.
_TOLERANCE = 0.0045

# A round takes the intervals with the largest expected errors, and leaves this share of the allowed variance.
_LEFT = 0.9

# The least squared change of the score for a unit of a curve's length: where two measured points happen to
# have the same score, the curve between them need not be flat.
_LEAST_CHANGE = 0.07**2

# Passes that both curves of a row take on average, for the display of the progress.
EXPECTED_PASSES = 28


class Scores(Protocol):
    """What gives the scores along some curves: `CurveImages`, or a table of known scores."""

    place: Tensor

    def score(
        self, row: Tensor, inserts: Tensor, count: Tensor, on_images: Callable[[int], None] | None = None
    ) -> Tensor:
        """See `CurveImages.score`."""
        ...


def measured(images: Scores, counts: Tensor, on_points: Callable[[int, int], None] | None = None) -> Curves:
    """Measure curves where they bend.

    Args:
        images: gives the scores of R rows.
        counts: ``(R, P)`` cells removed at each point.
        on_points: called after each piece with the number of points that are known and the number in all.
    """
    states = _states(images.place, counts)
    scores = torch.full(states.shape, torch.nan, device=states.device)
    known = torch.zeros_like(states, dtype=torch.bool)
    wanted = known.clone()
    wanted[..., list(_FIRST)] = True
    while wanted.any():
        row, inserts, point = (wanted & ~known).nonzero(as_tuple=True)
        state, first = _first_of_each(states[row, inserts, point])
        row, inserts, point = row[first], inserts[first], point[first]
        told = None if on_points is None else partial(_tell, on_points, int(known.sum()), known.numel())
        found = images.score(row, inserts.bool(), counts[row, point], told)
        # All points that show the same image get its score.
        place = torch.searchsorted(state, states).clamp_max(len(state) - 1)
        same = state[place] == states
        scores = torch.where(same, found[place], scores)
        known |= same
        wanted = refinements(scores.flatten(0, 1), known.flatten(0, 1)).reshape(known.shape)
    if on_points is not None:
        on_points(known.numel(), known.numel())
    curves = interpolated(scores.flatten(0, 1), known.flatten(0, 1)).reshape(known.shape)
    return Curves(curves[:, 0], curves[:, 1], known[:, 0], known[:, 1])


def _tell(on_points: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    on_points(before + done, total)


def _states(place: Tensor, counts: Tensor) -> Tensor:
    """A number for each image along the curves: equal numbers mean equal images.

    Deleting all cells gives what inserting none gives, and the other way round. Some counts differ without a
    difference in the image: those of small objects, and within a region.

    Args:
        place: ``(R, s, s)`` the place of each cell in the order of removal.
        counts: ``(R, P)``.

    Returns:
        ``(R, 2, P)``, deletion and insertion.
    """
    cells = place[0].numel()
    removed = torch.searchsorted(place.flatten(1).sort(1).values, counts)
    states = torch.stack((removed, cells + removed), 1) % (2 * cells)
    row = torch.arange(len(states), device=states.device).reshape(-1, 1, 1)
    return states + 2 * cells * row


def _first_of_each(values: Tensor) -> tuple[Tensor, Tensor]:
    """The different values, ascending, and the place where each comes first."""
    ordered, order = values.sort(stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new], order[new]


def refinements(scores: Tensor, known: Tensor) -> Tensor:
    """The points that have to be measured next.

    A curve between two measured points is taken for a random walk (a Brownian bridge): the squared error of
    the area below the straight line between them is, on average, ``v h^3 / 12``, where h is the length of the
    interval and v the squared change of the score for a unit of length, there and in the two neighbouring
    intervals (and a little more). The intervals with the largest errors are halved.

    Args:
        scores: ``(C, P)`` of C curves, where they are known.
        known: ``(C, P)`` bool; the first and the last are.

    Returns:
        ``(C, P)`` bool; nothing for a curve that needs no more, or whose scores are not finite.
    """
    steps = known.shape[1] - 1
    curve, point = known.nonzero(as_tuple=True)
    inner = curve[1:] == curve[:-1]  # both ends belong to the same curve
    owner, left = curve[:-1][inner], point[:-1][inner]
    width = point.diff()[inner]
    rough = scores[curve, point].double().diff()[inner].square() * steps / width
    adjacent = owner[1:] == owner[:-1]
    before, after = rough.clone(), rough.clone()
    before[1:] = torch.where(adjacent, rough[:-1], rough[1:])
    after[:-1] = torch.where(adjacent, rough[1:], rough[:-1])
    change = rough / 2 + (before + after) / 4 + _LEAST_CHANGE
    variance = change * (width / steps) ** 3 / 12
    variance = torch.where(width > 1, variance, 0.0).nan_to_num(0.0, 0.0, 0.0)
    error = torch.zeros(known.shape, dtype=variance.dtype, device=known.device)
    error[owner, left] = variance
    largest, order = error.sort(dim=1, descending=True, stable=True)
    whole = largest.sum(1, keepdim=True)
    remaining = whole - largest.cumsum(1) + largest  # before this interval is halved
    allowed = _TOLERANCE**2
    chosen = (whole > allowed) & (largest > 0) & (remaining > _LEFT * allowed)
    split = torch.zeros_like(known).scatter(1, order, chosen)
    wanted = torch.zeros_like(known)
    halved = split[owner, left]
    wanted[owner[halved], (left + width // 2)[halved]] = True
    return wanted


def interpolated(scores: Tensor, known: Tensor) -> Tensor:
    """Curves ``(C, P)`` with straight lines between the known points; the first and the last are known."""
    points = known.shape[1]
    place = torch.arange(points, device=known.device).expand_as(known)
    left = torch.where(known, place, 0).cummax(1).values
    right = torch.where(known, place, points).flip(1).cummin(1).values.flip(1)
    part = (place - left) / (right - left).clamp_min(1)
    between = torch.lerp(scores.gather(1, left), scores.gather(1, right), part.to(scores.dtype))
    return torch.where(known, scores, between)
