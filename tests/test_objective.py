"""The evaluator: its gradient, the published pieces, and that packing changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import (
    FACTORIES,
    SETTINGS,
    SIZE,
    Counting,
    objective_of,
    problem_of,
    random_masks,
    solve,
    tiny_classifier,
)
from torch import Tensor, nn

from igos_pl.data.geometry import upsample
from igos_pl.data.targets import Targets, class_targets
from igos_pl.errors import IgosError
from igos_pl.evaluation.deletion_insertion import deletion_insertion_curves
from igos_pl.solver.integration_paths import PATHS
from igos_pl.solver.methods import METHODS
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Objective, ObjectiveSettings, Problem, Scorer
from igos_pl.solver.optimize import optimize
from igos_pl.solver.optimizers import NAG, LineSearch
from igos_pl.solver.regularizers import bilateral_total_variation, edge_weights, total_variation

GOLDEN = Path(__file__).parent / "golden"


class AsFunction(torch.autograd.Function):
    """The evaluator as autograd knows functions."""

    @staticmethod
    def forward(ctx: Any, masks: Tensor, objective: Objective) -> Tensor:
        values, gradient = objective.value_and_gradient(masks)
        ctx.save_for_backward(gradient)
        return values

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return upstream.reshape(-1, 1, 1, 1) * gradient, None


@pytest.mark.parametrize("name", METHODS)
def test_gradcheck(name: str) -> None:
    method = replace(METHODS[name], score_gradient_scale=1.0)
    problem = problem_of([0, 0, 1], [1, 3, 0], torch.float64)
    objective = objective_of(problem, tiny_classifier().double(), method=method)
    masks = random_masks(3, method.masks, 3, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: AsFunction.apply(m, objective), masks)


@pytest.mark.parametrize("name", METHODS)
def test_central_differences_of_the_value_without_gradient(name: str) -> None:
    method = replace(METHODS[name], score_gradient_scale=1.0)
    problem = problem_of([0, 1], [1, 3], torch.float64)
    objective = objective_of(problem, tiny_classifier().double(), method=method)
    masks = random_masks(2, method.masks, 5, torch.float64)
    values, gradient = objective.value_and_gradient(masks)
    rows = torch.arange(2)
    torch.testing.assert_close(objective.value(masks, rows), values)
    for seed in range(3):
        way = torch.randn(masks.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        step = 1e-4 * way
        slope = (objective.value(masks + step, rows) - objective.value(masks - step, rows)) / 2e-4
        expected = (gradient * way).flatten(1).sum(1)
        assert expected.abs().min() > 1e-3
        torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-7)


def test_score_scale_is_of_the_scores_gradient_alone() -> None:
    problem, masks = problem_of([0], [2]), random_masks(1, 2)
    whole = replace(METHODS["igos++"], score_gradient_scale=1.0)

    def gradient(method: Any, settings: ObjectiveSettings) -> tuple[Tensor, Tensor]:
        return objective_of(problem, method=method, settings=settings).value_and_gradient(masks)

    bare = ObjectiveSettings(l1=0, l2=0, path_steps=3, noise=0.0)
    full_value, full = gradient(whole, bare)
    half_value, half = gradient(METHODS["igos++"], bare)
    torch.testing.assert_close(half, full / 2)
    torch.testing.assert_close(half_value, full_value)
    penalised = replace(bare, l1=1.0, l2=5.0)
    penalty = gradient(whole, penalised)[1] - full
    assert penalty.abs().max() > 1e-3
    torch.testing.assert_close(gradient(METHODS["igos++"], penalised)[1], full / 2 + penalty)


@pytest.fixture(params=["a", "b", "c"])
def case(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"case_{request.param}.npz") as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


class GoldenClassifier(nn.Module):
    """The golden files' network."""

    def __init__(self, case: dict[str, Tensor]) -> None:
        super().__init__()
        self.case = case

    def forward(self, images: Tensor) -> Tensor:
        case = self.case
        hidden = nn.functional.conv2d(images, case["c1w"], case["c1b"], padding=1).relu()
        hidden = nn.functional.avg_pool2d(hidden, 2)
        hidden = nn.functional.conv2d(hidden, case["c2w"], case["c2b"], padding=1).relu()
        return hidden.mean((2, 3)) @ case["fw"].T + case["fb"]


class Recording:
    """Keeps the scores in the order in which they were asked for."""

    def __init__(self, network: Scorer) -> None:
        self.network = network
        self.scores: list[Tensor] = []

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        scores = self.network.score(images, targets)
        self.scores.append(scores.detach())
        return scores


def test_probes_of_the_published_pieces(case: dict[str, Tensor]) -> None:
    mask, image = case["probe_mask"], case["image"]
    size = (image.shape[-2], image.shape[-1])
    torch.testing.assert_close(upsample(mask, size), case["probe_up"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(total_variation(mask), case["probe_tv"])
    torch.testing.assert_close(bilateral_total_variation(mask, edge_weights(image)), case["probe_btv"])


@pytest.mark.parametrize("micro_batch", [3, 100])
def test_probes_of_the_path_scores(case: dict[str, Tensor], micro_batch: int) -> None:
    network = Recording(tiny_classifier(GoldenClassifier(case), input_size=case["image"].shape[-1]))
    targets = class_targets(torch.zeros(1, dtype=torch.int64), case["label"].long(), torch.ones(1))
    steps = int(case["hyper"][5])
    objective = Objective(
        network,
        Problem(case["image"], case["baseline"], targets, [0]),
        METHODS["igos+"],
        ObjectiveSettings(l1=0, l2=0, path_steps=steps, noise=0),
        MicroBatches(micro_batch),
    )
    values, _ = objective.value_and_gradient(case["probe_mask"])
    deletion, insertion = torch.cat(network.scores).reshape(2, steps)
    torch.testing.assert_close(deletion, case["probe_del_score"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(insertion, case["probe_ins_score"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(values, (deletion.mean() - insertion.mean())[None])


@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_do_not_matter(name: str) -> None:
    problem = problem_of([0, 1, 1], [1, 3, 0])
    masks = random_masks(3, METHODS[name].masks)
    found = [
        objective_of(problem, method=METHODS[name], micro_batch=size).value_and_gradient(masks)
        for size in (1, 5, 1000)
    ]
    for values, gradient in found[1:]:
        torch.testing.assert_close(values, found[0][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(gradient, found[0][1], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("optimizer", FACTORIES)
def test_average_weighs_each_iteration_by_its_number(optimizer: str) -> None:
    def solved(iterations: int, average: bool) -> Tensor:
        return solve(objective_of(problem_of([0, 1], [1, 3])), optimizer, iterations, average).masks

    after = torch.stack([solved(iterations, average=False) for iterations in (1, 2, 3, 4)])
    expected = (after * torch.tensor([1.0, 2, 3, 4]).reshape(-1, 1, 1, 1)).sum(0) / 10
    torch.testing.assert_close(solved(4, average=True), expected)
    assert (expected - after[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("optimizer", FACTORIES)
def test_rows_together_equal_rows_alone(optimizer: str) -> None:
    together = solve(objective_of(problem_of([0, 1, 1, 2], [1, 3, 0, 2])), optimizer)
    for row, (image, label) in enumerate([(0, 1), (1, 3), (1, 0), (2, 2)]):
        alone = solve(objective_of(problem_of([image], [label])), optimizer)
        torch.testing.assert_close(together.masks[row], alone.masks[0], atol=1e-4, rtol=0)
    assert not together.masks.eq(1).flatten(1).all(1).any()


def test_line_search_evaluates_only_rows_that_search() -> None:
    network = Counting(tiny_classifier())
    objective = objective_of(problem_of([0, 1, 2, 3], [1, 3, 0, 2]), network)
    masks = nn.Parameter(torch.full((4, 2, 6, 6), 0.8))
    optimizer = LineSearch([masks], alpha=500.0)
    trials: list[Tensor] = []

    def count(done: int, total: int) -> None:
        trials.append((torch.log(optimizer.accepted / 500.0) / math.log(0.2)).round().long() + 1)

    optimize(objective, masks, optimizer, 3, on_iteration=count)
    path = 4 * SETTINGS.path_steps  # terms x positions
    tried = torch.stack(trials)
    assert any(len(row.unique()) > 1 for row in tried), "all rows stopped together: nothing is shown"
    assert torch.equal(objective.forwards, tried.sum(0) * path)
    assert torch.equal(objective.evaluations, torch.full((4,), 3 * path))
    assert len(network.images) == int(objective.forwards.sum() + objective.evaluations.sum())


class NanAfter:
    """Answers NaN for one label from its n-th image on."""

    def __init__(self, label: int, after: int) -> None:
        self.network, self.label, self.left = tiny_classifier(), label, after

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        mine = targets.label == self.label
        scores = self.network.score(images, targets)
        if self.left <= 0:
            scores = scores * torch.where(mine, torch.nan, 1.0)
        self.left -= int(mine.sum())
        return scores


@pytest.mark.parametrize("optimizer", FACTORIES)
@pytest.mark.parametrize("after", [0, 12])
def test_nan_of_one_row_leaves_the_others_alone(optimizer: str, after: int) -> None:
    labels = [1, 4, 0]
    healthy = solve(objective_of(problem_of([0, 1, 2], labels)), optimizer)
    broken = solve(objective_of(problem_of([0, 1, 2], labels), NanAfter(4, after)), optimizer)
    assert not healthy.failed.any()
    assert broken.failed.tolist() == [False, True, False]
    assert broken.objective.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(broken.masks[[0, 2]], healthy.masks[[0, 2]], atol=1e-4, rtol=0)
    assert broken.masks.isfinite().all()
    if after == 0:
        assert broken.masks[1].eq(1).all(), "its mask is not the one that it began with"


def test_failed_row_keeps_its_last_good_mask() -> None:
    path = 4 * SETTINGS.path_steps
    once = solve(objective_of(problem_of([1], [4])), "NAG", iterations=1)
    broken = solve(objective_of(problem_of([1], [4]), NanAfter(4, path)), "NAG", iterations=4)
    assert broken.failed.all()
    assert not once.masks.eq(1).all()
    torch.testing.assert_close(broken.masks, once.masks)


def test_row_that_failed_once_stays_as_it_was() -> None:
    class NanOnce(NanAfter):
        def score(self, images: Tensor, targets: Targets) -> Tensor:
            if self.left <= -4 * SETTINGS.path_steps:
                return self.network.score(images, targets)
            return super().score(images, targets)

    broken = solve(objective_of(problem_of([1], [4]), NanOnce(4, 0)), "NAG", iterations=4)
    assert broken.failed.all()
    assert broken.masks.eq(1).all()


def seen(problem: Problem, iteration: int = 0, micro_batch: int = 1000) -> Tensor:
    """The images of each row, ``(R, T * K, ...)``, that the network is shown for plain masks."""
    network = Counting(tiny_classifier())
    objective = objective_of(problem, network, micro_batch=micro_batch)
    objective.value_and_gradient(torch.full((len(problem.targets), 2, 4, 4), 0.5), iteration)
    return network.images.reshape(len(problem.targets), -1, 3, SIZE, SIZE)


def test_noise_depends_on_key_and_iteration_only() -> None:
    both, swapped = problem_of([0, 1], [1, 3]), problem_of([0, 1], [1, 3])
    swapped = replace(swapped, targets=swapped.targets.select(torch.tensor([1, 0])), keys=both.keys[::-1])
    state = torch.get_rng_state()
    first = seen(both)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, seen(both, micro_batch=5))
    assert torch.equal(first, seen(swapped).flip(0))
    assert torch.equal(first[:1], seen(problem_of([0], [1])))
    for other in (seen(both, iteration=1), seen(replace(both, keys=[7, 8]))):
        assert (first - other).abs().flatten(2).amax(2).gt(0.05).all()
    noise = seen(both) - seen(replace(both, keys=[7, 8]))
    assert noise.std().item() == pytest.approx(SETTINGS.noise * math.sqrt(2), rel=0.05)


def test_trials_of_a_line_search_see_the_same_noise() -> None:
    objective = objective_of(problem_of([0, 1], [1, 3]), settings=replace(SETTINGS, noise=1.0))
    masks = random_masks(2, 2)
    values, _ = objective.value_and_gradient(masks)
    torch.testing.assert_close(objective.value(masks, torch.tensor([0, 1])), values)
    torch.testing.assert_close(objective.value(masks[1:], torch.tensor([1])), values[1:])
    objective.value_and_gradient(masks, iteration=1)
    assert (objective.value(masks, torch.tensor([0, 1])) - values).abs().max() > 1e-3


@pytest.mark.parametrize(("limit", "settled"), [(16, 16), (7, 6), (1, 1)])
def test_out_of_memory_halves_the_micro_batch(limit: int, settled: int) -> None:
    problem, masks = problem_of([0, 1], [1, 3]), random_masks(2, 2)
    expected = objective_of(problem).value_and_gradient(masks)
    objective = objective_of(problem, Counting(tiny_classifier(), limit), micro_batch=16)
    values, gradient = objective.value_and_gradient(masks)
    torch.testing.assert_close(values, expected[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient, expected[1], atol=1e-6, rtol=1e-4)
    assert objective.micro_batches.size == settled


def test_out_of_memory_with_one_image_is_an_error() -> None:
    objective = objective_of(problem_of([0], [1]), Counting(tiny_classifier(), limit=0))
    with pytest.raises(IgosError, match="Out of memory with a single perturbed image.*no room"):
        objective.value_and_gradient(random_masks(1, 2))


@pytest.mark.parametrize(
    ("error", "shrinks"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_which_errors_are_for_want_of_memory(error: Exception, shrinks: bool) -> None:
    done: list[tuple[int, int]] = []

    def work(start: int, stop: int) -> None:
        if stop - start > 2:
            raise error
        done.append((start, stop))

    pieces = MicroBatches(4)
    if shrinks:
        pieces.run(5, work)
        assert done == [(0, 2), (2, 4), (4, 5)]
    else:
        with pytest.raises(RuntimeError, match="mat1"):
            pieces.run(5, work)


@pytest.mark.parametrize(("items", "pieces"), [(20, [10, 10]), (21, [7, 7, 7]), (25, [9, 8, 8]), (3, [3])])
def test_pieces_are_equal(items: int, pieces: list[int]) -> None:
    done: list[tuple[int, int]] = []
    MicroBatches(10).run(items, lambda start, stop: done.append((start, stop)))
    assert [stop - start for start, stop in done] == pieces
    assert [start for start, _ in done] == [sum(pieces[:i]) for i in range(len(pieces))]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", METHODS)
def test_no_value_is_asked_for_on_the_way(name: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device nothing has a value: whatever would make a GPU's queue run dry is an error."""
    monkeypatch.setattr("igos_pl.solver.objective.generator_of", lambda *_: None)
    real, meta = problem_of([0, 0, 1], [1, 3, 0]), torch.device("meta")
    columns = real.targets.image, real.targets.label, real.targets.score
    targets = class_targets(*(column.to(meta) for column in columns))
    problem = Problem(real.images.to(meta), real.baselines.to(meta), targets, real.keys)
    network = tiny_classifier().to(meta)
    masks = random_masks(3, METHODS[name].masks).to(meta)
    settings = replace(SETTINGS, path=path)
    objective = objective_of(problem, network, method=METHODS[name], settings=settings)
    values, gradient = objective.value_and_gradient(masks)
    assert values.shape == (3,)
    assert gradient.shape == masks.shape
    counts = torch.arange(5, device=meta).expand(3, -1)
    curves = deletion_insertion_curves(network, problem, masks[:, 0], counts, MicroBatches(4))
    assert curves.deletion.shape == (3, 5)


def test_out_of_memory_without_a_word_has_a_message() -> None:
    def work(start: int, stop: int) -> None:
        raise MemoryError

    with pytest.raises(IgosError, match="Out of memory with a single"):
        MicroBatches(2).run(2, work)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l1": -1.0}, "l1 is -1"),
        ({"l2": math.nan}, "l2 is nan"),
        ({"path_steps": 0}, "path_steps is 0"),
        ({"noise": -0.1}, "noise is -0.1"),
    ],
)
def test_bad_weights_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IgosError, match=message):
        replace(SETTINGS, **options)


@pytest.mark.parametrize("iterations", [0, -1])
def test_at_least_one_iteration(iterations: int) -> None:
    with pytest.raises(IgosError, match=f"iterations is {iterations}, but must be at least 1"):
        solve(objective_of(problem_of([0], [1])), "NAG", iterations)


@pytest.mark.parametrize("kind", [NAG, LineSearch])
@pytest.mark.parametrize("options", [{"step_size": 0.0}, {"alpha": 0.0}, {"alpha": -3.0}])
def test_steps_above_zero(kind: Any, options: dict[str, float]) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(IgosError, match=f"{name} is {value}, but must be above 0"):
        kind([nn.Parameter(torch.ones(1, 1, 4, 4))], **options)
