"""Curves by few passes: what is measured, what is drawn between, and how far the areas are off."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from igos_pl.data.targets import Targets, class_targets
from igos_pl.evaluation.adaptive_curves import interpolated, refinements
from igos_pl.evaluation.curves import measured_curves
from igos_pl.evaluation.deletion_insertion import (
    Curves,
    area_under_curve,
    deletion_insertion_curves,
    removal_counts,
)
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem

SIDE = 10
FIRST = [0, 4, 9, 16, 25, 36, 50]


class Score:
    """A function of the share of the image that is white, another one for each label; counts its images."""

    def __init__(self, *functions: Callable[[Tensor], Tensor]) -> None:
        self.functions = functions
        self.images = 0

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        self.images += len(images)
        white = images.mean((1, 2, 3))
        scores = torch.stack([function(white) for function in self.functions])
        return scores[targets.label, torch.arange(len(white))]


def straight(white: Tensor) -> Tensor:
    return white


def steep(white: Tensor) -> Tensor:
    return ((white - 0.9) * 40).sigmoid()


def rough(white: Tensor) -> Tensor:
    return white + 0.1 * (20 * white).sin()


def undefined(white: Tensor) -> Tensor:
    return white * torch.nan


def problem_of(labels: list[int]) -> Problem:
    """A white image on a black baseline for each label."""
    white = torch.ones(len(labels), 3, SIDE, SIDE)
    targets = class_targets(torch.arange(len(labels)), torch.tensor(labels), torch.ones(len(labels)))
    return Problem(white, 0 * white, targets, labels)


def measure(score: Score, cells: list[int] | None = None, micro_batch: int = 7) -> Curves:
    labels = list(range(len(score.functions)))
    masks = torch.rand(len(labels), SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    counts = torch.tensor(cells or [SIDE**2] * len(labels))
    return measured_curves("adaptive", score, problem_of(labels), masks, counts, MicroBatches(micro_batch))


def measure_all(score: Score, cells: list[int]) -> Curves:
    labels = list(range(len(score.functions)))
    masks = torch.rand(len(labels), SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    counts = removal_counts(torch.tensor(cells))
    return deletion_insertion_curves(score, problem_of(labels), masks, counts, MicroBatches(50))


def test_a_straight_curve_takes_the_first_points_only() -> None:
    score = Score(lambda white: 0.02 * white)
    curves = measure(score)
    assert curves.deletion_measured[0].nonzero().flatten().tolist() == FIRST
    assert torch.equal(curves.deletion_measured, curves.insertion_measured)
    assert score.images == 12, "all deleted is none inserted, and the other way round"
    torch.testing.assert_close(curves.deletion[0], torch.linspace(0.02, 0, 51), atol=1e-6, rtol=0)
    torch.testing.assert_close(curves.insertion[0], torch.linspace(0, 0.02, 51), atol=1e-6, rtol=0)


@pytest.mark.parametrize("function", [straight, steep, rough])
def test_areas_are_those_of_all_points(function: Callable[[Tensor], Tensor]) -> None:
    cells = [SIDE**2]
    score = Score(function)
    found, expected = measure(score), measure_all(Score(function), cells)
    for name in ("deletion", "insertion"):
        curve, whole = getattr(found, name)[0], getattr(expected, name)[0]
        measured = getattr(found, f"{name}_measured")[0]
        torch.testing.assert_close(curve[measured], whole[measured])
        assert abs(area_under_curve(curve[None]) - area_under_curve(whole[None])) < 0.01
    assert score.images < 60


def test_points_lie_where_a_curve_bends() -> None:
    curves = measure(Score(steep))
    where = curves.deletion_measured[0].nonzero().flatten()
    assert (where < 13).sum() > len(where) / 2
    assert measure(Score(rough)).deletion_measured.sum() > measure(Score(straight)).deletion_measured.sum()


def test_rows_do_not_affect_each_other() -> None:
    together = measure(Score(straight, steep, rough), micro_batch=64)
    masks = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    problem = problem_of([0, 1, 2])
    for row in range(3):
        alone = measured_curves(
            "adaptive",
            Score(straight, steep, rough),
            Problem(problem.images, problem.baselines, problem.targets.select(slice(row, row + 1)), [row]),
            masks[row : row + 1],
            torch.tensor([SIDE**2]),
            MicroBatches(1),
        )
        for name in ("deletion_measured", "insertion_measured"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[row])
        torch.testing.assert_close(alone.deletion[0], together.deletion[row], atol=1e-5, rtol=0)


def test_no_image_of_a_small_object_is_scored_twice() -> None:
    """A curve that removes three cells has four images, whatever its 51 points."""
    score = Score(straight)
    curves = measure(score, [3])
    assert score.images <= 8
    expected = measure_all(Score(straight), [3])
    assert curves.deletion_measured.all()
    torch.testing.assert_close(curves.deletion, expected.deletion)
    torch.testing.assert_close(curves.insertion, expected.insertion)


def test_scores_that_are_not_finite_end_their_row_alone() -> None:
    curves = measure(Score(undefined, straight))
    assert curves.deletion.isnan().all(1).tolist() == [True, False]
    assert curves.deletion_measured[0].sum() == len(FIRST)


def test_progress_counts_points() -> None:
    told: list[tuple[int, int]] = []
    labels = [0]
    measured_curves(
        "adaptive",
        Score(steep),
        problem_of(labels),
        torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(3)),
        torch.tensor([SIDE**2]),
        MicroBatches(4),
        lambda done, total: told.append((done, total)),
    )
    assert [total for _, total in told] == [102] * len(told)
    dones = [done for done, _ in told]
    assert dones == sorted(dones)
    assert dones[-1] == 102


def test_refinements_by_hand() -> None:
    """Only the interval with the step and its neighbour are halved, unless the step has no middle."""
    places = sorted([*FIRST, 26])
    known = torch.zeros(3, 51, dtype=torch.bool)
    known[:, places] = True
    scores = torch.full((3, 51), torch.nan)
    scores[:, places] = 0.5
    scores[0, 0] = 0.1
    scores[2, 26:] = torch.where(known[2, 26:], 0.504, torch.nan)
    wanted = refinements(scores, known)
    assert wanted.nonzero().tolist() == [[0, 2], [0, 6]]


def test_straight_lines_between_known_points() -> None:
    known = torch.tensor([[True, False, False, True, True], [True, True, True, True, True]])
    scores = torch.tensor([[0.0, torch.nan, torch.nan, 0.9, 0.2], [0.0, 1.0, 2.0, 3.0, torch.nan]])
    found = interpolated(scores, known)
    torch.testing.assert_close(found[0], torch.tensor([0.0, 0.3, 0.6, 0.9, 0.2]))
    torch.testing.assert_close(found[1], scores[1], equal_nan=True)
