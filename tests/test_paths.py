"""What a path covers of an image: the published positions, and the order of a mask's cells."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import SETTINGS, SIZE, Counting, objective_of, problem_of, random_masks, solve, tiny_classifier
from torch import Tensor, nn
from torch.optim import Adam

from igos_pl.data.geometry import upsample
from igos_pl.errors import IgosError
from igos_pl.solver.integration_paths import LinearCoverage, scaled, threshold
from igos_pl.solver.methods import METHODS
from igos_pl.solver.objective import Objective
from igos_pl.solver.optimize import optimize

WHOLE = torch.ones(2)


def test_scaled_path_is_the_published_one() -> None:
    coverage = scaled(torch.rand(2, 3, 9), WHOLE, iteration=5, steps=4)
    assert coverage.slope.shape == (2, 3, 4)
    assert coverage.slope[1, 2].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert not coverage.shift.any()


def test_cover_and_its_derivative() -> None:
    maps = torch.tensor([[[0.0, 0.5, 1.0 + 1e-6]], [[0.2, 0.5, 0.8]]]).double().requires_grad_()
    coverage = LinearCoverage(torch.tensor([1.0, 5.0]).double(), torch.tensor([0.0, -2.0]).double())
    coverage, slope = coverage.cover(maps)
    torch.testing.assert_close(
        coverage, torch.tensor([[[0.0, 0.5, 1.0]], [[0.0, 0.5, 1.0]]], dtype=torch.float64)
    )
    # Cells at the very end of a path keep their gradient, rounding or not; those beyond it have none.
    assert slope.tolist() == [[[1, 1, 1]], [[0, 5, 0]]]


def positions(extent: Tensor, iteration: int, steps: int, terms: int = 2) -> Tensor:
    """Where the threshold path is, ``(n, T, K)``: read off cells that are their own quantiles."""
    cells = torch.linspace(0, 1, 1001).expand(len(extent), terms, -1)
    coverage = threshold(cells, extent, iteration, steps)
    return (0.5 - coverage.shift) / coverage.slope


def test_threshold_has_a_position_in_each_interval() -> None:
    for iteration in range(7):
        found = positions(WHOLE, iteration, 4)
        assert torch.equal((found * 4 + 1e-4).floor().long(), torch.arange(4).expand(2, 2, 4))


def test_threshold_positions_fill_the_path_over_the_iterations() -> None:
    found = torch.cat([positions(WHOLE, iteration, 2) for iteration in range(40)], 2)
    for row in found.flatten(0, 1):
        gaps = row.sort().values.diff()
        assert gaps.max() < 3 / len(row)
    assert (found[:, 0] - found[:, 1]).abs().min() > 0.01, "terms share their positions"


def test_threshold_stays_within_the_extent_of_the_curves() -> None:
    whole = positions(WHOLE, 3, 4)
    part = positions(torch.tensor([1.0, 0.25]), 3, 4)
    torch.testing.assert_close(part, whole * torch.tensor([1.0, 0.25]).reshape(2, 1, 1))


def test_threshold_uncovers_the_lowest_cells() -> None:
    cells = torch.rand(2, 1, 49, generator=torch.Generator().manual_seed(0))
    cells = cells.round()  # full contrast: the ramp is as narrow as the mask is wide
    share = float((cells[0, 0] == 0).float().mean())
    coverage = threshold(cells, WHOLE, iteration=0, steps=100)
    for step, (slope, shift) in enumerate(zip(coverage.slope[0, 0], coverage.shift[0, 0], strict=True)):
        covered = (slope * cells[0, 0] + shift).clamp(0, 1)
        low, high = covered[cells[0, 0] == 0].unique(), covered[cells[0, 0] == 1].unique()
        assert len(low) == len(high) == 1
        assert low < high
        if (step + 1) / 100 * 48 < share * 49 - 1:  # the quantile is 0: half of the low cells' image is shown
            assert (float(low), float(high)) == pytest.approx((0.5, 1.0))


def test_threshold_of_a_flat_mask_covers_half_and_has_a_gradient() -> None:
    coverage = threshold(torch.ones(1, 2, 16), WHOLE[:1], iteration=0, steps=3)
    covered, slope = coverage.flat(torch.arange(6)).cover(torch.ones(6, 4, 4))
    assert torch.equal(covered, torch.full((6, 4, 4), 0.5))
    assert (slope > 0).all()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("path", ["scaled", "threshold"])
def test_gradient_is_that_of_the_blend(name: str, path: str) -> None:
    """Against a plain loop under autograd, with quantiles and widths held."""
    method = replace(METHODS[name], score_gradient_scale=1.0)
    problem = problem_of([0, 1], [1, 3], torch.float64)
    settings = replace(SETTINGS, path=path, l1=0.0, l2=0.0, noise=0.0)
    network = tiny_classifier().double()
    objective = objective_of(problem, network, method=method, settings=settings)
    masks = random_masks(2, method.masks, 5, torch.float64)
    values, gradient = objective.value_and_gradient(masks, iteration=3)

    leaf = masks.clone().requires_grad_()
    make = {"scaled": scaled, "threshold": threshold}[path]
    expected = torch.zeros(2, dtype=torch.float64)
    for row in range(2):
        image, baseline = problem.images[row : row + 1], problem.baselines[row : row + 1]
        products = [leaf[row, list(term.masks)].prod(0) for term in method.terms]
        cells = torch.stack([product.detach().flatten() for product in products]).unsqueeze(0)
        coverage = make(cells, torch.ones(1, dtype=torch.float64), 3, SETTINGS.path_steps)
        maps = [
            upsample(leaf[row : row + 1], (SIZE, SIZE))[:, list(term.masks)].prod(1) for term in method.terms
        ]
        for number, term in enumerate(method.terms):
            for step in range(SETTINGS.path_steps):
                shown = (
                    maps[number] * coverage.slope[0, number, step] + coverage.shift[0, number, step]
                ).clamp(0, 1)
                shown = shown if term.kind == "deletion" else 1 - shown
                sign = 1 if term.kind == "deletion" else -1
                blended = shown * image + (1 - shown) * baseline
                score = network.score(blended, problem.targets.select(torch.tensor([row])))
                expected[row] = expected[row] + sign * score.sum() / SETTINGS.path_steps
    torch.testing.assert_close(values, expected.detach())
    (slope,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(gradient, slope)
    assert gradient.abs().max() > 1e-4


def test_trials_of_a_line_search_are_at_the_same_positions() -> None:
    settings = replace(SETTINGS, path="threshold", noise=0.0)
    objective = objective_of(problem_of([0, 1], [1, 3]), settings=settings)
    masks = random_masks(2, 2)
    values, _ = objective.value_and_gradient(masks)
    torch.testing.assert_close(objective.value(masks[1:], torch.tensor([1])), values[1:])
    moved, _ = objective.value_and_gradient(masks, iteration=1)
    assert (moved - values).abs().min() > 1e-5


@pytest.mark.parametrize("path", ["scaled", "threshold"])
def test_trials_of_a_line_search_fall_as_the_gradient_says(path: str) -> None:
    """Quantiles and widths are held from the gradient to its trials."""
    method = replace(METHODS["igos+"], score_gradient_scale=1.0)
    problem = problem_of([0, 1], [1, 3], torch.float64)
    settings = replace(SETTINGS, path=path)
    objective = objective_of(problem, tiny_classifier().double(), method=method, settings=settings)
    masks, rows = random_masks(2, 1, 5, torch.float64), torch.arange(2)
    _, gradient = objective.value_and_gradient(masks)
    for way in (gradient, torch.ones_like(gradient)):
        step = 1e-6 * way
        slope = (objective.value(masks + step, rows) - objective.value(masks - step, rows)) / 2e-6
        torch.testing.assert_close(slope, (gradient * way).flatten(1).sum(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["Adam", "NAG"])
def test_threshold_rows_together_equal_rows_alone(optimizer: str) -> None:
    settings = replace(SETTINGS, path="threshold")
    together = solve(objective_of(problem_of([0, 1, 1], [1, 3, 0]), settings=settings), optimizer)
    for row, (image, label) in enumerate([(0, 1), (1, 3), (1, 0)]):
        alone = solve(objective_of(problem_of([image], [label]), settings=settings), optimizer)
        torch.testing.assert_close(together.masks[row], alone.masks[0], atol=1e-4, rtol=0)
    assert not together.masks.eq(1).flatten(1).all(1).any()


def test_iterations_cost_the_same_on_both_paths() -> None:
    seen = []
    for path in ("scaled", "threshold"):
        network = Counting(tiny_classifier())
        objective = objective_of(problem_of([0], [1]), network, settings=replace(SETTINGS, path=path))
        solve(objective, "Adam")
        seen.append(len(network.images))
    assert seen == [4 * 4 * SETTINGS.path_steps] * 2


def test_unknown_paths_are_refused() -> None:
    with pytest.raises(IgosError, match="path is 'bent', but must be one of: scaled, threshold"):
        replace(SETTINGS, path="bent")


@pytest.mark.parametrize(("path", "factor"), [("scaled", 1.0), ("threshold", 4.0)])
def test_area_counts_by_the_extent_of_the_threshold_path(path: str, factor: float) -> None:
    problem = replace(problem_of([0, 1], [1, 3]), extent=torch.tensor([1.0, 0.25]))
    masks = random_masks(2, 2)
    with_area, without = (
        objective_of(problem, settings=replace(SETTINGS, path=path, l1=l1)).value_and_gradient(masks)[0]
        for l1 in (1.0, 0.0)
    )
    removed = 1 - masks.prod(1).flatten(1).mean(1)
    torch.testing.assert_close(with_area - without, removed * torch.tensor([1.0, factor]))


def test_rounding_errors_do_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of 1e-7 in the gradient, as between two devices, vanish if masks are rounded."""
    whole = Objective.value_and_gradient
    noise = torch.Generator().manual_seed(1)

    def disturbed(self: Objective, masks: Tensor, iteration: int = 0) -> tuple[Tensor, Tensor]:
        values, gradient = whole(self, masks, iteration)
        return values, gradient * (1 + 1e-7 * torch.randn(gradient.shape, generator=noise))

    def masks_of(levels: int) -> Tensor:
        objective = objective_of(
            problem_of([0, 1], [1, 3]), tiny_classifier(), settings=replace(SETTINGS, path="threshold")
        )
        masks = nn.Parameter(torch.ones(2, 2, 6, 6))
        return optimize(objective, masks, Adam([masks], lr=0.1), 12, average=True, levels=levels).masks

    exact, rounded = masks_of(0), masks_of(32)
    monkeypatch.setattr(Objective, "value_and_gradient", disturbed)
    assert not torch.equal(masks_of(0), exact)
    assert torch.equal(masks_of(32), rounded)
    assert (rounded - exact).abs().max() > 0


def test_small_steps_are_not_undone() -> None:
    objective = objective_of(problem_of([0, 1], [1, 3]), tiny_classifier(), settings=SETTINGS)
    masks = nn.Parameter(torch.ones(2, 2, 6, 6))
    found = optimize(objective, masks, Adam([masks], lr=0.001), 3, levels=32).masks
    assert found.min() == pytest.approx((1 - 0.003) ** 2, abs=1e-4)
