"""The greedy search: it equals the plain one where nothing is saved, and asks no more than it says."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import (
    SIZE,
    Counting,
    NanOnBright,
    batch_of,
    pictures,
    problem_of,
    tiny_classifier,
    write_pictures,
)  # fmt: skip
from torch import Tensor, nn
from torch.optim import Adam

from igos_pl import explain
from igos_pl.cli.main import main
from igos_pl.data.geometry import upsample
from igos_pl.data.regions import GivenLabelMaps
from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.run.progress import BatchProgress
from igos_pl.settings import Attributes
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem, Scorer
from igos_pl.solver.optimizers import NAG
from igos_pl.solver.order import ranks
from igos_pl.solver.perturbation import blend
from igos_pl.solver.presets import preset_of
from igos_pl.solver.regions import Regions
from igos_pl.solver.search import Searched, SearchSettings, SubsetImages, search
from igos_pl.solver.starts import Start
from igos_pl.store import MaskFile, RunFolder

CELLS = 4
# Asks about every region at every step.
PLAIN = SearchSettings(candidates=((1.0, 1000),), gradients=(), absent=-1.0, present=2.0)
QUICK = SearchSettings(candidates=((1.0, 3),), gradients=((0.5, 1), (0.75, 2)))


def images_of(problem: Problem, network: Scorer | None = None, micro_batch: int = 7) -> SubsetImages:
    return SubsetImages(network or tiny_classifier(), problem, CELLS, MicroBatches(micro_batch))


def labelled(*maps: list[int]) -> Regions:
    return Regions.of(torch.tensor(maps).reshape(len(maps), CELLS, CELLS))


HALVES = [0] * 8 + [1] * 8
STRIPES = [5, 2, 9, 2] * 2 + [7, 7, 9, 1] * 2


def plain_greedy(problem: Problem, row: int, regions: Regions, network: Scorer) -> list[int]:
    """The order of a row's regions, by one image after the other."""
    targets = problem.targets.select(slice(row, row + 1))
    place = int(targets.image[0])
    image, baseline = problem.images[place][None], problem.baselines[place][None]
    index = regions.index[row]

    def worth(members: set[int]) -> float:
        cells = torch.tensor([[float(int(region) in members) for region in line] for line in index])
        alone = upsample(cells[None, None], (SIZE, SIZE))
        with torch.no_grad():
            kept, rest = (
                network.score(blend(image, baseline, shown), targets) for shown in (alone, 1 - alone)
            )
        return float(kept) - float(rest)

    left, order = sorted(set(index.flatten().tolist())), list[int]()
    while left:
        best = max(left, key=lambda region: worth({*order, region}))
        order.append(best)
        left.remove(best)
    return order


def orders(found: Searched, regions: Regions) -> list[list[int]]:
    """Each row's regions in the order of their values."""
    result = []
    for mask, index in zip(found.solution.masks, regions.index, strict=True):
        values = {int(region): float(mask[index == region].unique()) for region in index.unique()}
        result.append(sorted(values, key=values.__getitem__))
    return result


@pytest.mark.parametrize("regions", [None, labelled(STRIPES, HALVES, STRIPES)], ids=["cells", "regions"])
def test_the_search_that_asks_about_all_is_the_plain_one(regions: Regions | None) -> None:
    problem = replace(problem_of([0, 1, 1], [2, 0, 3]), regions=regions)
    images, network = images_of(problem), tiny_classifier()
    found = search(images, PLAIN)
    for row, order in enumerate(orders(found, images.regions)):
        assert order == plain_greedy(problem, row, images.regions, network)
        count = len(order)
        assert int(images.forwards[row]) == count * (count + 1)  # all but the last one, and both empty sets
        assert int(found.steps[row]) == count - 1
    assert not images.evaluations.any()
    assert not found.solution.failed.any()
    assert found.solution.masks.flatten(1).amin(1).tolist() == [0, 0, 0]
    assert found.solution.masks.max() <= 1


def test_passes_are_counted_and_few() -> None:
    problem = problem_of([0, 1], [2, 0])
    network = Counting(tiny_classifier())
    images = images_of(problem, network)
    found = search(images, replace(QUICK, absent=-1.0, present=2.0))
    # 15 steps of two sides; gradients at the steps 0 to 7, 8 and 10; the last three steps offer 3, 3 and 2.
    assert images.evaluations.tolist() == [2 * 10] * 2
    assert images.forwards.tolist() == [2 + 2 * (14 * 3 + 2)] * 2
    assert len(network.images) == int(images.evaluations.sum() + images.forwards.sum())
    assert found.steps.tolist() == [15, 15]


def test_a_side_at_its_end_is_only_checked() -> None:
    problem = problem_of([0, 1], [2, 0])
    checks = 4  # at the steps 3, 6, 9 and 12
    for settings in (replace(QUICK, absent=2.0, present=2.0), replace(QUICK, absent=-1.0, present=-1.0)):
        images = images_of(problem)
        search(images, settings)
        assert images.evaluations.tolist() == [10, 10]
        assert images.forwards.tolist() == [2 + checks + 14 * 3 + 2] * 2
    images = images_of(problem)
    found = search(images, replace(QUICK, absent=2.0, present=-1.0))
    assert not images.evaluations.any()
    assert images.forwards.tolist() == [2 + 2 * checks] * 2
    assert ranks(found.solution.masks).flatten(1).tolist() == [list(range(16))] * 2  # ties, by their numbers


class Linear:
    """A score that is the mean of the weighted pixels."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        return (images * self.weights).mean((1, 2, 3)) + 0.5


def linear_problem() -> tuple[Problem, Linear]:
    """White pictures of the size of the mask on black: what a cell is worth does not depend on others."""
    problem = problem_of([0, 1], [0, 0])
    white = torch.ones(2, 3, CELLS, CELLS)
    weights = torch.rand(CELLS, CELLS, generator=torch.Generator().manual_seed(3)) - 0.5
    return replace(problem, images=white, baselines=torch.zeros_like(white)), Linear(weights)


def test_gradients_alone_order_a_linear_score() -> None:
    problem, network = linear_problem()
    images = images_of(problem, network)
    settings = SearchSettings(candidates=((1.0, 1),), gradients=((0.01, 1),), absent=-9.0, present=9.0)
    found = search(images, settings)
    expected = ranks(-network.weights[None])[0]
    torch.testing.assert_close(ranks(found.solution.masks), expected.expand(2, CELLS, CELLS))
    assert images.evaluations.tolist() == [2, 2]
    regions = labelled(STRIPES, HALVES)
    images = images_of(replace(problem, regions=regions), network)
    found = search(images, settings)
    sums = regions.summed(network.weights.expand(2, 1, -1, -1))[:, 0, :, 0]
    assert orders(found, regions)[1] == sums[1, :2].argsort(descending=True).tolist()
    assert orders(found, regions)[0] == sums[0].argsort(descending=True).tolist()


class Saturated(Linear):
    """A score whose gradient is zero at the baseline and at the whole image."""

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        shown = (images * self.weights).mean((1, 2, 3))
        return shown.square() * (3 - 2 * shown)


def test_gradients_look_ahead_of_an_end_without_slope() -> None:
    problem, network = linear_problem()
    weights = network.weights - network.weights.min() + 0.1
    saturated = Saturated(weights / weights.mean())
    settings = SearchSettings(candidates=((1.0, 1),), gradients=((0.01, 1),), absent=-9.0, present=9.0)
    found = ranks(search(images_of(problem, saturated), settings).solution.masks)[0]
    torch.testing.assert_close(found, ranks(-weights[None])[0])
    blind = ranks(search(images_of(problem, saturated), replace(settings, ahead=0.0)).solution.masks)[0]
    assert blind.flatten().tolist() == list(range(16))  # by their numbers


def test_gradients_are_those_of_the_partly_shown_image() -> None:
    """The set is shown or removed as a whole, the other cells by the share, on both sides."""
    problem, network = linear_problem()
    weights = network.weights - network.weights.min()
    images = images_of(problem, Saturated(weights / weights.mean()))
    chosen = torch.arange(16) % 3 == 0
    sides = torch.tensor([True, False])
    found = images.gradients(torch.tensor([1, 1]), sides, chosen.expand(2, 16), ahead=0.2)
    for inserts, gradients in zip(sides, found, strict=True):
        whole, part = (1.0, 0.2) if inserts else (0.0, 0.8)
        cells = torch.where(chosen, whole, part).requires_grad_()
        shown = (cells * weights.flatten() / weights.mean()).mean()
        (expected,) = torch.autograd.grad(shown.square() * (3 - 2 * shown), cells)
        torch.testing.assert_close(gradients, expected)
    assert images.evaluations.tolist() == [0, 2]


def test_gains_are_measured_once_and_remembered() -> None:
    problem, network = linear_problem()
    images = images_of(problem, network)
    # After the first step, there is one candidate: the best of those that were tried at it.
    settings = SearchSettings(candidates=((0.05, 16), (1.0, 1)), gradients=(), absent=-9.0, present=9.0)
    found = ranks(search(images, settings).solution.masks)
    torch.testing.assert_close(found[0], ranks(-network.weights[None])[0])


def test_a_regions_value_is_what_was_reached_before_it() -> None:
    problem, network = linear_problem()
    found = search(images_of(problem, network), PLAIN).solution.masks[0].flatten()
    weights = network.weights.flatten().sort(descending=True).values
    gains = weights.clamp_min(0)  # the score that was reached is not lost again
    reached = (gains.cumsum(0) - gains) / gains.sum()
    torch.testing.assert_close(found.sort().values, 0.9 * reached + 0.1 * torch.arange(16) / 15)
    assert ((weights < 0) == (found.sort().values > 0.9)).all()


def test_values_of_many_cells_differ_after_both_ends() -> None:
    cells = 20
    problem = problem_of([0], [0])
    white = torch.ones(1, 3, cells, cells)
    weights = torch.zeros(cells, cells)
    weights[3, 7] = cells * cells  # one cell is all that counts
    problem = replace(problem, images=white, baselines=torch.zeros_like(white))
    images = SubsetImages(Linear(weights), problem, cells, MicroBatches(50))
    masks = search(images, SearchSettings(candidates=((1.0, 1),), check=1000)).solution.masks
    assert masks[0, 3, 7] == 0
    values = masks.flatten().sort().values
    assert values.dtype == torch.float32
    assert values[1] > 0.9
    assert values[-1] == 1
    assert (values.diff() > 0).all()


def test_a_score_that_never_changes_leaves_the_places() -> None:
    problem, network = linear_problem()
    masks = search(images_of(problem, Linear(0 * network.weights)), QUICK).solution.masks
    torch.testing.assert_close(masks.flatten(1), (torch.arange(16) / 15).expand(2, 16))


def test_a_side_that_leaves_its_end_is_asked_again() -> None:
    problem, network = linear_problem()
    top = 0.5 + float(network.weights.clamp_min(0).mean())  # of the cells that add to the score
    settings = SearchSettings(candidates=((1.0, 1),), absent=-9.0, present=top - 1e-4, check=1)
    images = images_of(problem, network)
    search(images, settings)
    # The first check replaces a question; the second one finds that the score has left its end.
    assert images.forwards.tolist() == [2 + 2 * 15 + 1] * 2
    never = images_of(problem, network)
    search(never, replace(settings, check=1000))
    below = int((network.weights < 0).sum())
    assert never.forwards.tolist() == [2 + 2 * 15 - below + 1] * 2


def test_a_row_does_not_depend_on_others() -> None:
    problem = replace(problem_of([0, 1, 1], [2, 0, 3]), regions=labelled(STRIPES, HALVES, list(range(16))))
    together = images_of(problem)
    found = search(together, QUICK)
    for row in range(3):
        alone = replace(
            problem,
            targets=problem.targets.select(torch.tensor([row])),
            keys=problem.keys[row : row + 1],
            regions=labelled([STRIPES, HALVES, list(range(16))][row]),
        )
        images = images_of(alone, micro_batch=3)
        single = search(images, QUICK)
        torch.testing.assert_close(found.solution.masks[row], single.solution.masks[0])
        torch.testing.assert_close(found.solution.objective[row], single.solution.objective[0])
        for name in ("evaluations", "forwards"):
            assert getattr(together, name)[row] == getattr(images, name)[0], name
        assert found.steps[row] == single.steps[0]


def test_nothing_is_asked_beyond_the_curves_end() -> None:
    problem = replace(problem_of([0, 0], [2, 2]), extent=torch.tensor([0.25, 1.0]))
    images = images_of(problem)
    found = search(images, PLAIN)
    assert found.steps.tolist() == [4, 15]
    assert images.forwards.tolist() == [2 + 2 * (16 + 15 + 14 + 13), 16 * 17]
    short, whole = ranks(found.solution.masks).flatten(1)
    assert short.argsort()[:4].tolist() == whole.argsort()[:4].tolist()
    assert sorted(short.tolist()) == list(range(16))


@pytest.mark.parametrize("cells", range(1, 17))
def test_the_end_of_the_curves_is_a_whole_number_of_cells(cells: int) -> None:
    """As shares, some numbers of cells are rounded up."""
    problem = replace(problem_of([0], [2]), extent=torch.tensor([cells]) / 16)
    assert int(search(images_of(problem), PLAIN).steps[0]) == min(cells, 15)


def test_a_single_region_and_no_rows() -> None:
    alone = search(images_of(replace(problem_of([0], [2]), regions=labelled([0] * 16))))
    assert not alone.solution.failed.any()
    assert alone.solution.objective.isnan().all()  # there was no step
    nothing = problem_of([0], [2])
    empty = replace(nothing, targets=nothing.targets.select(slice(0, 0)), keys=[])
    assert search(images_of(empty)).solution.masks.shape == (0, CELLS, CELLS)


class Faint(nn.Module):
    """The probability of a class that the network hardly believes in."""

    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_classifier()

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        scores: Tensor = self.network.score(images, targets)
        return scores / 50


def test_faint_scores_are_asked_for_as_well() -> None:
    """Every deletion score is below the end of an image with a high score."""
    images = images_of(problem_of([0], [2]), Faint())
    search(images, replace(QUICK, present=2.0))
    assert int(images.forwards[0]) > 2 * 3 * 8  # both scores of three candidates, for most steps


def test_a_row_with_a_broken_score_fails_alone() -> None:
    problem = problem_of([0, 1], [2, 0])
    bright = replace(problem, images=problem.images * torch.tensor([1.0, 50.0]).reshape(2, 1, 1, 1))
    network = tiny_classifier(NanOnBright())
    found = search(images_of(bright, network), QUICK)
    assert found.solution.failed.tolist() == [False, True]
    assert found.solution.objective.isnan().tolist() == [False, True]
    assert found.solution.masks.isfinite().all()
    torch.testing.assert_close(found.solution.masks[0], search(images_of(problem), QUICK).solution.masks[0])


def test_memory_that_runs_out_makes_smaller_pieces() -> None:
    problem = problem_of([0, 1], [2, 0])
    expected = search(images_of(problem), QUICK)
    images = images_of(problem, Counting(tiny_classifier(), limit=2), micro_batch=50)
    torch.testing.assert_close(search(images, QUICK).solution.masks, expected.solution.masks)


def explainer_of(**settings: Any) -> Explainer:
    return Explainer.from_preset(tiny_classifier(), "search", **{"mask_size": CELLS, **settings})


def test_the_explainer_searches() -> None:
    explainer = explainer_of()
    told: list[BatchProgress] = []
    explainer.on_progress = told.append
    columns = explainer.predict_step(batch_of(pictures(2))).explanations
    for row in range(2):
        assert len(np.unique(columns["masks"][row])) == CELLS**2
    assert columns["iterations"].tolist() == [15, 15]
    assert (columns["evaluations"] > 0).all()
    assert (columns["forwards"] > columns["evaluations"]).all()
    assert columns["status"].tolist() == ["ok", "ok"]
    assert [(each.phase, each.done, each.total) for each in told[:16]] == [
        ("optimising", step, 16) for step in range(1, 17)
    ]
    shares = [each.share for each in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_explainer_searches_over_regions() -> None:
    labels = np.arange(SIZE * SIZE).reshape(SIZE, SIZE) // (SIZE * SIZE // 3)
    explainer = explainer_of(regions=GivenLabelMaps({"image0": labels}), mask_size=12)
    columns = explainer.predict_step(batch_of(pictures(1))).explanations
    assert len(np.unique(columns["masks"])) == 3
    assert columns["iterations"].tolist() == [2]


def test_what_a_search_does_not_use_is_not_in_its_description() -> None:
    described = explainer_of(mask_size=7).describe()
    unused = ("optimizer", "iterations", "path", "path_steps", "average", "levels", "l1", "l2", "noise")
    assert not {key.partition(".")[0] for key in described} & set(unused)
    assert described["method"] == "search"
    assert preset_of(described) == "search"
    assert preset_of(explainer_of(mask_size=9).describe()) == "search, with mask_size=9"
    assert described != explainer_of(mask_size=7, baseline="black").describe()


def test_a_folder_of_another_search_names_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def described(**settings: Any) -> Attributes:
        monkeypatch.setattr("igos_pl.explainer.SearchSettings", lambda: SearchSettings(**settings))
        return explainer_of().describe()

    run = RunFolder(tmp_path)
    before = {"weight": 0.7, "gradients": ((0.25, 1), (0.75, 3))}
    run.claim(described(**before))
    run.check_configuration(described(**before))
    with pytest.raises(IgosError, match="holds results of another configuration") as refused:
        run.check_configuration(described(weight=0.5, gradients=((0.5, 2),)))
    assert (
        "(search.gradients: there '[[0.25, 1], [0.75, 3]]', now '[[0.5, 2]]'; search.weight: there 0.7, now"
        " 0.5). Choose another output folder (--output)"
    ) in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"l1": 5}, "l1"),
        ({"noise": 0.2, "optimizer": NAG, "path": "scaled"}, "optimizer, path, noise"),
        ({"optimizer": partial(Adam, lr=0.2)}, "optimizer"),
    ],
)
def test_what_a_search_does_not_use_is_told(settings: dict[str, Any], names: str) -> None:
    with pytest.warns(UserWarning, match=f"The method search does not use {names}: what is set there has no"):
        warned = explainer_of(**settings)
    assert warned.describe() == explainer_of().describe()


def test_no_word_of_defaults_that_a_search_does_not_use() -> None:
    """The settings file of a run has all of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer_of(l1=10, iterations=20, path="threshold", optimizer=partial(Adam, lr=0.1))


def test_too_many_cells_are_refused_but_not_regions() -> None:
    with pytest.raises(IgosError, match="mask_size is 21, but the method search puts at most 20 x 20"):
        Explainer(tiny_classifier(), method="search", mask_size=21)
    Explainer(tiny_classifier(), method="search", mask_size=21, regions=GivenLabelMaps({}))


def test_images_in_memory_take_finer_cells_for_regions() -> None:
    bands = torch.arange(10).repeat_interleave(3)[:SIZE].unsqueeze(1).expand(SIZE, SIZE)
    found = explain(tiny_classifier(), pictures(1), preset="search", regions=bands)
    assert found.masks.shape[-1] > 7
    assert len(np.unique(found.regions[0])) == len(bands.unique())


def test_an_imported_search_has_no_preset() -> None:
    assert preset_of({"method": "search", "mask_size": 224}) == ""


@pytest.mark.parametrize("start", [Start(2, init_val=0.2), Start(2), Start(cells=[0])])
def test_diverse_starts_are_refused(start: Start) -> None:
    with pytest.raises(IgosError, match=r"method search has no diverse starts: leave start\.k, .* out"):
        explainer_of(start=start)


def test_cells_that_would_start_alike_are_refused_where_starts_are_diverse() -> None:
    with pytest.raises(IgosError, match="start.init_val is 0: all cells would start alike"):
        explainer_of(method="igos+", start=Start(2))


def test_a_score_without_gradient_is_refused() -> None:
    class Rounded(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.detach().mean((2, 3))

    explainer = Explainer.from_preset(tiny_classifier(Rounded()), "search")
    with pytest.raises(IgosError, match="no gradient with respect to the image"):
        explainer.explain_batch(batch_of(pictures(1)))


def test_commands_name_the_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, run = write_pictures(tmp_path / "photos", ["a.png"]), str(tmp_path / "run")
    words = ["predict", "--data.root", str(photos), "--output", run, "--preset", "search"]
    words += ["--model.network", "Classifier", "--model.network.module", "tiny.TinyNet"]
    words += ["--model.network.input_size", str(SIZE), "--data.num_workers", "0", "--overlays.count", "0"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(["info", run]) == 0
    assert "preset search, masks of 7 x 7\n" in capsys.readouterr().out
    with MaskFile(run) as masks:
        assert masks.column("iterations").tolist() == [48]
        assert "optimizer" not in masks.attributes
