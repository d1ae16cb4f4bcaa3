"""Deletion and insertion against published curves and against curves worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import GoldenClassifier
from torch import Tensor

from igos_pl.data.targets import Targets, class_targets
from igos_pl.evaluation.deletion_insertion import (
    area_under_curve,
    deletion_insertion_curves,
    removal_counts,
)
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem
from igos_pl.solver.order import ranks

GOLDEN = Path(__file__).parent / "golden"


class WeighedPixels:
    """The share of the image's weight that is white: a score whose curves can be worked out by hand."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights / weights.sum()

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        return (images.mean(1) * self.weights).sum((1, 2))


def toy_problem(size: int, rows: int = 1) -> Problem:
    """White images on black baselines."""
    white = torch.ones(rows, 3, size, size)
    zeros = torch.zeros(rows, dtype=torch.int64)
    return Problem(
        white, 0 * white, class_targets(torch.arange(rows), zeros, torch.ones(rows)), list(range(rows))
    )


@pytest.mark.parametrize("micro_batch", [7, 1000])
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_published_curves(name: str, micro_batch: int) -> None:
    with np.load(GOLDEN / f"case_{name}.npz") as arrays:
        case = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}
    image, masks = case["image"], case["probe_mask"][:, 0]
    targets = class_targets(torch.zeros(1, dtype=torch.int64), case["label"].long(), torch.ones(1))
    problem = Problem(image, case["baseline"], targets, [0])
    cells = masks[0].numel()
    counts = (case["probe_curve_index"] * cells).round().long().clamp(max=cells)[None]
    curves = deletion_insertion_curves(
        GoldenClassifier(case), problem, masks, counts, MicroBatches(micro_batch)
    )
    torch.testing.assert_close(curves.deletion[0], case["probe_del_curve"].float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(curves.insertion[0], case["probe_ins_curve"].float(), atol=1e-5, rtol=1e-4)


def test_curves_by_hand() -> None:
    weights = torch.tensor([[4.0, 1.0], [3.0, 2.0]])
    masks = torch.stack((-weights, weights)) / 10 + 0.5  # the best order, and the worst
    counts = torch.arange(5).expand(2, 5)
    curves = deletion_insertion_curves(
        WeighedPixels(weights), toy_problem(2, 2), masks, counts, MicroBatches(3)
    )
    best, worst = [1.0, 0.6, 0.3, 0.1, 0.0], [1.0, 0.9, 0.7, 0.4, 0.0]
    torch.testing.assert_close(curves.deletion, torch.tensor([best, worst]))
    torch.testing.assert_close(curves.insertion, 1 - torch.tensor([best, worst]))
    areas = area_under_curve(curves.deletion)
    torch.testing.assert_close(
        areas, torch.tensor([(0.5 + 0.6 + 0.3 + 0.1) / 4, (0.5 + 0.9 + 0.7 + 0.4) / 4])
    )
    torch.testing.assert_close(area_under_curve(curves.insertion), 1 - areas)


def test_binary_masks_are_upsampled() -> None:
    """One corner of 2 x 2 cells on 3 x 3 pixels: bilinear, aligned corners."""
    masks = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
    removed = torch.tensor([[1.0, 0.5, 0.0], [0.5, 0.25, 0.0], [0.0, 0.0, 0.0]])
    curves = deletion_insertion_curves(
        WeighedPixels(torch.ones(3, 3)), toy_problem(3), masks, torch.tensor([[1]]), MicroBatches(10)
    )
    torch.testing.assert_close(curves.deletion, 1 - removed.mean().reshape(1, 1))
    torch.testing.assert_close(curves.insertion, removed.mean().reshape(1, 1))


def test_rows_may_remove_different_numbers() -> None:
    counts = removal_counts(torch.tensor([4, 2]), steps=4)
    assert counts.tolist() == [[0, 1, 2, 3, 4], [0, 0, 1, 2, 2]]
    masks = torch.arange(4.0).reshape(1, 2, 2).expand(2, 2, 2) / 4
    curves = deletion_insertion_curves(
        WeighedPixels(torch.ones(2, 2)), toy_problem(2, 2), masks, counts, MicroBatches(10)
    )
    torch.testing.assert_close(curves.deletion, 1 - counts / 4)


def test_whole_curves_remove_everything_in_even_steps() -> None:
    counts = removal_counts(torch.tensor([28 * 28, 10, 1]))
    assert counts.shape == (3, 51)
    assert counts[:, 0].eq(0).all()
    assert counts[:, -1].tolist() == [784, 10, 1]
    steps = counts.diff(dim=1)
    assert steps[0].min() >= 15
    assert steps[0].max() <= 16
    assert steps[1:].min() == 0


def test_ranks_and_ties() -> None:
    masks = torch.tensor([[[0.5, 0.1], [0.9, 0.1]], [[1.0, 1.0], [1.0, 1.0]]])
    assert ranks(masks).tolist() == [[[2, 0], [3, 1]], [[0, 1], [2, 3]]]


def test_ties_of_large_masks_keep_reading_order() -> None:
    masks = torch.ones(3, 40, 40)
    masks[:, 5, 7] = 0
    place = ranks(masks)
    assert place[:, 5, 7].eq(0).all()
    others = place.flatten(1)[:, [i for i in range(1600) if i != 207]]
    assert torch.equal(others, torch.arange(1, 1600).expand(3, -1))


def test_nan_in_one_row_leaves_the_other() -> None:
    class Nan(WeighedPixels):
        def score(self, images: Tensor, targets: Targets) -> Tensor:
            return torch.where(targets.label == 1, torch.nan, super().score(images, targets))

    problem = toy_problem(2, 2)
    problem.targets.label[1] = 1
    masks = torch.arange(4.0).reshape(1, 2, 2).expand(2, 2, 2) / 4
    curves = deletion_insertion_curves(
        Nan(torch.ones(2, 2)), problem, masks, torch.arange(5).expand(2, 5), MicroBatches(10)
    )
    assert curves.deletion.isnan().all(1).tolist() == [False, True]
    torch.testing.assert_close(area_under_curve(curves.deletion)[0], torch.tensor(0.5))
