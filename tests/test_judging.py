"""Metrics against known values: a linear network, whose score falls by a known amount with each cell."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

import igos_pl
from igos_pl.compare.agreement import rank_correlation
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import Frame, cell_means, cells_of_pixels, upsample, upsample_nearest
from igos_pl.data.records import ImageRecord
from igos_pl.data.targets import ProposedTargets, Targets, class_targets
from igos_pl.demo.run import CHECKPOINTS, SHAPES_INPUT, SHAPES_THRESHOLD
from igos_pl.demo.shapes import draw_shapes
from igos_pl.demo.shapes_detectors import CATEGORIES, shapes_mask_rcnn
from igos_pl.errors import IgosError
from igos_pl.judging.cells import in_equal_cells, saliency_cells, seen_part
from igos_pl.judging.evaluate import means_of
from igos_pl.judging.metrics import METRICS, Asked, asked_for
from igos_pl.judging.removal import from_baseline, removal_curve
from igos_pl.judging.rows import Rows, seeded
from igos_pl.models import ExplainableNetwork, RCNNDetector
from igos_pl.models.weights import load_weights
from igos_pl.solver.baselines import make_baselines
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem
from igos_pl.solver.regions import Regions

SIDE = 6
CELLS = SIDE * SIDE


class Sum(ExplainableNetwork):
    """Its score is a weighted sum of the pixels, so that each cell adds a known part."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(nn.Identity(), input_size=SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)
        self.weights = weights

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        return (images * self.weights).sum((1, 2, 3))

    def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> ProposedTargets:
        image = torch.arange(len(images))
        return ProposedTargets(
            class_targets(image, torch.zeros_like(image), self.score(images, image)), [""] * len(images)
        )


def parts() -> Tensor:
    """``(2, 6, 6)`` what each cell adds to the score of each of two images, all different and positive."""
    order = torch.randperm(CELLS, generator=torch.Generator().manual_seed(0))
    one = (order.float() + 1).reshape(SIDE, SIDE) / CELLS**2
    return torch.stack([one, one.flip(0)])


def rows_of(
    saliency: Tensor, baseline: str = "black", samples: int = 0, truth: Sequence[GroundTruth] | None = None
) -> Rows:
    """Two images whose cells add `parts` to their scores, and masks for them."""
    pixels = (parts() * 9).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()  # in [0, 1]
    network = Sum(torch.full((3, SIDE, SIDE), 1 / 27))
    names = ["a", "b"]
    frame = Frame.of(SIDE, SIDE, (SIDE, SIDE), "squash")
    records = [ImageRecord(name, name, frame) for name in names]
    batch = ImageBatch(pixels, records, truth or [GroundTruth()] * 2)
    baselines = make_baselines(baseline, pixels, names, 0)
    targets = network.propose(pixels, batch.truth).targets
    return Rows(
        network, Problem(pixels, baselines, targets, [1, 2]), 1 - saliency, batch, MicroBatches(7), samples
    )


def curve(values: Tensor, steps: int) -> Tensor:
    """What is left after the first cells of an order are removed, at the points of a curve."""
    left = torch.cat([values.sum()[None], values.sum() - values.cumsum(0)])
    counts = (torch.linspace(0, 1, steps + 1, dtype=torch.float64) * CELLS).round().long()
    return left[counts]


def area(values: Tensor) -> float:
    return float(torch.trapezoid(values, dx=1 / (len(values) - 1)))


def saliency_of(values: Tensor) -> Tensor:
    return values / values.amax((1, 2), keepdim=True)


def figures(name: str, rows: Rows) -> dict[str, list[float]]:
    (asked,) = asked_for(name)
    return {key: values.tolist() for key, values in asked.compute(rows).items()}


def test_deletion_and_insertion_of_a_linear_network() -> None:
    found = figures("deletion_insertion:black", rows_of(saliency_of(parts())))
    for row, values in enumerate(parts()):
        best = values.flatten().sort(descending=True).values
        deletion = area(curve(best, 50))
        insertion = area(values.sum() - curve(best, 50))
        assert found["deletion"][row] == pytest.approx(deletion, abs=1e-5)
        assert found["insertion"][row] == pytest.approx(insertion, abs=1e-5)
        assert found["difference"][row] == pytest.approx(insertion - deletion, abs=1e-5)


def test_morf_and_lerf_of_a_linear_network() -> None:
    found = figures("morf_lerf:black", rows_of(saliency_of(parts())))
    for row, values in enumerate(parts()):
        ascending = values.flatten().sort().values
        morf, lerf = curve(ascending.flip(0), 20), curve(ascending, 20)
        assert found["morf"][row] == pytest.approx(area(morf), abs=1e-5)
        assert found["lerf"][row] == pytest.approx(area(lerf), abs=1e-5)
        assert found["lerf_morf"][row] == pytest.approx(area(lerf) - area(morf), abs=1e-5)
        assert found["aopc"][row] == pytest.approx(float((values.sum() - morf).mean()), abs=1e-5)


def test_noise_as_baseline_needs_the_names_alone() -> None:
    saliency = saliency_of(parts())
    assert figures("morf_lerf:noise", rows_of(saliency, "noise")) == figures(
        "morf_lerf:noise", rows_of(saliency, "noise")
    )


def test_in_painting_of_one_colour_changes_nothing() -> None:
    pytest.importorskip("cv2")
    rows = rows_of(saliency_of(parts()))
    grey = torch.full((2, 3, SIDE, SIDE), 51 / 255)  # a value of eight bits
    problem = Problem(grey, grey, rows.problem.targets, rows.problem.keys)
    flat = Rows(
        rows.network, problem, rows.masks, ImageBatch(grey, rows.batch.records, rows.batch.truth),
        MicroBatches(7),
    )  # fmt: skip
    score = float(rows.network.score(grey, problem.targets)[0])
    rounding = score / 51  # OpenCV rounds up at times
    found = figures("deletion_insertion:inpaint", flat)
    np.testing.assert_allclose(found["deletion"], score, atol=rounding)
    np.testing.assert_allclose(found["insertion"], score, atol=rounding)
    assert figures("morf_lerf:inpaint", flat)["aopc"] == pytest.approx([0, 0], abs=rounding)


def test_in_painting_takes_colours_from_around() -> None:
    """One bright cell in a dark image: painting over it costs the whole score, over others nothing."""
    pytest.importorskip("cv2")
    rows = rows_of(saliency_of(parts()))
    pixels = torch.zeros(2, 3, SIDE, SIDE)
    pixels[:, :, 2, 3] = 1
    problem = Problem(pixels, pixels, rows.problem.targets, rows.problem.keys)
    batch = ImageBatch(pixels, rows.batch.records, rows.batch.truth)
    right, wrong = torch.ones(2, SIDE, SIDE), torch.ones(2, SIDE, SIDE)
    right[:, 2, 3], wrong[:, 2, 3] = 0, 1
    wrong[:, 5, 5] = 0
    areas = [
        figures("deletion_insertion:inpaint", Rows(rows.network, problem, masks, batch, MicroBatches(9)))
        for masks in (right, wrong)
    ]
    assert max(areas[0]["deletion"]) < min(areas[1]["deletion"])
    assert min(areas[0]["insertion"]) > max(areas[1]["insertion"])


def test_road_prefers_the_true_order_and_takes_the_reverse_for_its_opposite() -> None:
    pytest.importorskip("pytorch_grad_cam")
    right = figures("road", rows_of(saliency_of(parts())))["road"]
    wrong = figures("road", rows_of(saliency_of(parts().max() - parts())))["road"]
    assert min(right) > 0.01
    assert max(wrong) < -0.01
    assert figures("road", rows_of(saliency_of(parts())))["road"] == right  # its noise is seeded


@pytest.mark.parametrize(
    ("metric", "library"),
    [
        ("morf_lerf:black", "torch"),
        ("morf_lerf:inpaint", "cv2"),
        ("deletion_insertion:inpaint", "cv2"),
        ("road", "pytorch_grad_cam"),
    ],
)
def test_whole_regions_are_removed(metric: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(library)
    quarter = torch.arange(SIDE) * 2 // SIDE
    regions = Regions.of((2 * quarter[:, None] + quarter).expand(2, -1, -1))
    rows = rows_of(regions.index / 3)
    rows = replace(rows, problem=replace(rows.problem, regions=regions))
    shares: set[float] = set()
    score = rows.network.score

    def spy(images: Tensor, targets: Targets) -> Tensor:
        changed = (images != rows.problem.images[targets.image]).any(1, keepdim=True).float()
        shares.update(regions.select(targets.image).means(changed).flatten().tolist())
        return score(images, targets)

    monkeypatch.setattr(rows.network, "score", spy)
    figures(metric, rows)
    assert shares == {0, 1}


def test_infidelity_is_zero_for_what_the_score_is_made_of() -> None:
    pytest.importorskip("captum")
    right = figures("infidelity:black", rows_of(saliency_of(parts()), samples=20))["infidelity"]
    wrong = figures("infidelity:black", rows_of(saliency_of(parts().flip(2)), samples=20))["infidelity"]
    assert max(right) < 1e-9
    assert min(wrong) > 1e-6


def test_mufidelity_is_one_for_what_the_score_is_made_of() -> None:
    pytest.importorskip("quantus")
    right = figures("mufidelity:black", rows_of(saliency_of(parts()), samples=20))["mufidelity"]
    opposite = saliency_of(parts().max() - parts())
    wrong = figures("mufidelity:black", rows_of(opposite, samples=20))["mufidelity"]
    np.testing.assert_allclose(right, 1, atol=1e-4)
    np.testing.assert_allclose(wrong, -1, atol=1e-4)


def test_sparseness_and_complexity_of_one_cell_and_of_half() -> None:
    pytest.importorskip("quantus")
    some = torch.zeros(2, SIDE, SIDE)
    some[0, 1, 4] = 0.3
    some[1, :3] = 0.5
    rows = rows_of(some)
    np.testing.assert_allclose(figures("sparseness", rows)["sparseness"], [1 - 1 / CELLS, 0.5], atol=1e-4)
    half = np.log(CELLS / 2)
    np.testing.assert_allclose(figures("complexity", rows)["complexity"], [0, half], atol=1e-4)
    for level in (0.0, 0.5):
        constant = rows_of(torch.full((2, SIDE, SIDE), level), samples=2)
        for name in ("sparseness", "complexity", "mufidelity"):
            assert np.isnan(figures(name, constant)[name]).all()


def test_games_judge_by_the_objects_of_the_class() -> None:
    saliency = torch.zeros(2, SIDE, SIDE)
    saliency[:, 1, 1] = 1
    inside = GroundTruth(boxes=np.array([[0, 0, 3, 3], [4, 4, 6, 6]], np.float32), names=("0", "x"))
    outside = GroundTruth(boxes=np.array([[4, 4, 6, 6]], np.float32), names=("0",))
    rows = rows_of(saliency, truth=[inside, outside])
    assert figures("pointing_game", rows)["pointing_game_box"] == [1, 0]
    assert figures("energy_game", rows)["energy_game_box"] == [1, 0]
    assert np.isnan(figures("energy_game", rows)["energy_game_mask"]).all()
    assert np.isnan(figures("pointing_game", rows_of(saliency))["pointing_game_box"]).all()


def test_means_count_the_rows_of_an_image_together() -> None:
    values = np.array([1.0, 2, 3, np.nan])
    alone = means_of({"x": values}, np.array(["a", "b", "c", "d"]))["x"]
    assert (alone.number, alone.mean) == (3, 2)
    assert alone.error == pytest.approx(np.std(values[:3], ddof=1) / np.sqrt(3))
    same = means_of({"x": np.array([1.0, 1, 3, 3])}, np.array(["a", "a", "b", "b"]))["x"]
    assert same.error == pytest.approx(means_of({"x": np.array([1.0, 3])}, np.array(["a", "b"]))["x"].error)
    assert means_of({"x": np.array([np.nan])}, np.array(["a"]))["x"].number == 0


def test_seeds_are_given_back() -> None:
    random.seed(0)
    before = random.random(), torch.rand(1).item()
    random.seed(0)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    with seeded(7):
        drawn = random.random(), torch.rand(1).item()
    assert random.random() == before[0]
    assert torch.equal(torch.random.get_rng_state(), state)
    with seeded(7):
        assert (random.random(), torch.rand(1).item()) == drawn


def test_cells_of_any_map() -> None:
    maps = np.zeros((1, 4, 8))
    maps[0, :2, :4] = 3
    found = saliency_cells(maps, 2, (12, 24), "refuse").saliency
    assert found.tolist() == [[[1, 0], [0, 0]]]
    signed = np.array([[[-2.0, 1], [0, 0.5]]])
    assert saliency_cells(signed, 2, (12, 24), "zero").saliency.tolist() == [[[0, 1], [0, 0.5]]]
    assert saliency_cells(signed, 2, (12, 24), "absolute").saliency.tolist() == [[[1, 0.5], [0, 0.25]]]
    kept = saliency_cells(signed, 2, (12, 24), "keep").saliency
    torch.testing.assert_close(kept, torch.tensor([[[0, 1], [2 / 3, 2.5 / 3]]]))
    for negative in ("refuse", "keep"):
        assert "the same everywhere" in saliency_cells(np.full((1, 9, 9), 0.1), 4, (12, 24), negative).note
    assert (saliency_cells(np.zeros((1, 4, 4)), 2, (12, 24), "refuse").saliency == 0).all()
    for bad, size, words in (
        (signed, 2, r"set negative \(--model.negative\) to zero"),
        (np.full((1, 4, 4), np.nan), 2, "not finite"),
        (np.ones((1, 4, 3)), 4, "--model.mask_size 3"),
    ):
        with pytest.raises(IgosError, match=words):
            saliency_cells(bad, size, (12, 24), "refuse")


@pytest.mark.parametrize("count", [2, 7, 14, 28])
@pytest.mark.parametrize("input_size", [(56, 40), (28, 224)])
def test_pixels_of_cells(count: int, input_size: tuple[int, int]) -> None:
    """They are those that pictures show, and the mean of a cell's pixels is its value."""
    cells = torch.rand(1, count, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pixels = upsample_nearest(cells, input_size)
    height, width = input_size
    frame = Frame.of(width, height, input_size, "squash")
    np.testing.assert_array_equal(pixels[0], frame.cells_on_original(cells[0].numpy()))
    np.testing.assert_allclose(cell_means(pixels.numpy(), count, input_size), cells, rtol=1e-12)
    # A map with a value for each cell is taken as it is, and no cell of a finer one is without a pixel.
    np.testing.assert_array_equal(cell_means(cells.numpy(), count, input_size), cells)
    for length in range(count, 3 * count):
        assert (np.bincount(cells_of_pixels(length, input_size[1], count), minlength=count) > 0).all()


@pytest.mark.parametrize("count", [7, 14, 28])
def test_saliency_stays_in_its_place_and_order(count: int) -> None:
    size = (224, 224)
    tile = 224 // count
    square = np.zeros((1, *size))
    square[:, tile : 2 * tile, tile : 2 * tile] = 1
    cells = saliency_cells(square, count, size, "refuse").saliency[0].numpy()
    shown = Frame.of(*size, size, "squash").saliency_on_original(cells)
    centre = (shown.sum(1) * (np.arange(224) + 0.5)).sum() / shown.sum()
    assert centre == pytest.approx(1.5 * tile, rel=0.03)
    ours = torch.rand(count, count, generator=torch.Generator().manual_seed(0))
    pixels = upsample(ours[None, None], size)[0].double().numpy()
    back = saliency_cells(pixels, count, size, "refuse").saliency[0]
    assert rank_correlation(ours.double().numpy(), back.double().numpy()) > 0.91


def test_removed_pixels_are_those_of_the_cell() -> None:
    """The pixel (3, 3) of 24 x 24 belongs to the cell (1, 1) of 6 x 6, whose centre is at 4.6."""
    network = Sum(torch.zeros(3, 24, 24))
    network.weights[:, 3, 3] = 1 / 3
    images = torch.ones(1, 3, 24, 24)
    frame = Frame.of(24, 24, (24, 24), "squash")
    batch = ImageBatch(images, [ImageRecord("a", "a", frame)], [GroundTruth()])
    problem = Problem(images, 0 * images, network.propose(images, batch.truth).targets, [1])
    rows = Rows(network, problem, torch.ones(1, SIDE, SIDE), batch, MicroBatches(7))
    removed = torch.eye(CELLS).reshape(1, CELLS, SIDE, SIDE).bool()
    scores = removal_curve(rows, removed, from_baseline(rows))[0].reshape(SIDE, SIDE)
    assert scores[1, 1] == 0
    assert scores.sum() == CELLS - 1


def test_the_part_of_a_map_that_the_network_sees() -> None:
    whole = np.arange(100.0).reshape(1, 10, 10)
    crop = Frame(20, 20, (4.0, 4.0, 16.0, 16.0), (12, 12))
    assert (seen_part(whole, crop) == whole[:, 2:8, 2:8]).all()
    padded = Frame(10, 10, (0.0, -5.0, 10.0, 15.0), (20, 10))
    found = seen_part(whole, padded)
    assert found.shape == (1, 20, 10)
    assert (found[:, 5:15] == whole).all()
    assert (found[:, :5] == 0).all()


def test_masks_in_equal_cells() -> None:
    masks = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert in_equal_cells(masks, None, (24, 24)) is masks
    assert in_equal_cells(masks, 4, (24, 24)) is masks
    assert in_equal_cells(masks, 8, (24, 24)).shape == (2, 8, 8)
    level = torch.full((1, 5, 5), 0.3)
    torch.testing.assert_close(in_equal_cells(level, 3, (24, 24)), torch.full((1, 3, 3), 0.3))
    slope = torch.arange(7.0).expand(1, 7, 7)
    found = in_equal_cells(slope, 4, (61, 61))[0]  # only half of an outer cell is in the input
    torch.testing.assert_close(found, torch.tensor([0.5, 2, 4, 5.5]).expand(4, 4), atol=0.06, rtol=0)


def test_what_is_asked_for() -> None:
    names = [one.name for one in asked_for("road, aopc:black,deletion_insertion", cells=7)]
    assert names == ["road-cells7", "morf_lerf-black-cells7", "deletion_insertion-mean-cells7"]
    assert [one.name for one in asked_for("morf,lerf")] == ["morf_lerf-mean"]
    assert list(asked_for("aopc")[0].columns) == ["morf_mean", "lerf_mean", "lerf_morf_mean", "aopc_mean"]
    sampled, other, default = asked_for("infidelity,road,sensitivity", samples=3)
    assert (sampled.samples, other.samples, default.samples) == (3, 0, 3)
    assert (sampled.name, list(sampled.columns)) == ("infidelity-mean-samples3", ["infidelity_mean_samples3"])
    assert (other.name, default.name) == ("road", "sensitivity")
    for words, message in (
        ("raod", "did you mean road"),
        ("road:black", "it uses none"),
        ("morf_lerf:white", "blur, black, mean, noise, inpaint"),
        ("infidelity:inpaint", "infidelity has no baseline 'inpaint'"),
        (" ,", "No metric is named"),
    ):
        with pytest.raises(IgosError, match=message):
            asked_for(words)


def test_columns_of_all_metrics_differ_from_each_other_and_from_those_of_results() -> None:
    from igos_pl.store.schema import EXPLANATIONS, IMAGES

    names = [
        column
        for metric in METRICS.values()
        for baseline in metric.baselines or (None,)
        for column in Asked(metric, baseline).columns
    ]
    assert len(set(names)) == len(names)
    assert not set(names) & {*EXPLANATIONS, *IMAGES}


class Quadrant(nn.Module):
    """Two classes: how bright the upper left and the lower right quarter of the image are."""

    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[-1] // 2
        first = images[:, :, :half, :half].mean((1, 2, 3))
        return torch.stack([first, images[:, :, half:, half:].mean((1, 2, 3))], 1) * 8


def test_import_and_judge_in_memory() -> None:
    images = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 0.2
    images[:, :, :6, :6] += 0.7
    maps = torch.zeros(3, 12, 12)
    maps[:, :6, :6] = 2.0
    network = Quadrant()
    right = igos_pl.import_saliency(maps, network, images, 0, "oracle", mask_size=6)
    wrong = igos_pl.import_saliency(maps.flip(1, 2), network, images, 0, "fool", mask_size=6)
    assert right.attributes["method"] == "oracle"
    assert right.saliency.max() == 1
    assert right.saliency[0, :3, :3].min() == 1
    assert (right.label == 0).all()
    assert (right.insertion - right.deletion > wrong.insertion - wrong.deletion).all()
    for metric in ("deletion_insertion:black", "lerf_morf:mean"):
        good, bad = (igos_pl.evaluate(each, metric, network, images, 0) for each in (right, wrong))
        assert set(good) == set(asked_for(metric)[0].columns)
        name = list(good)[2]
        assert (good[name] > bad[name]).all()
    pooled = igos_pl.evaluate(right, "deletion_insertion:black", network, images, 0, cells=3)
    assert next(iter(pooled)) == "deletion_black_cells3"
    with pytest.raises(IgosError, match="input of 12 x 12 pixels: set cells to 12 or less"):
        igos_pl.evaluate(right, "morf", network, images, 0, cells=13)


def test_channels_are_summed_and_lists_may_differ_in_size() -> None:
    images, network = torch.rand(2, 3, 12, 12), Quadrant()
    channels = torch.rand(2, 3, 12, 12)
    by_channel = igos_pl.import_saliency(channels, network, images, mask_size=6, metrics=False)
    summed = igos_pl.import_saliency(channels.sum(1), network, images, mask_size=6, metrics=False)
    np.testing.assert_allclose(by_channel.masks, summed.masks, atol=1e-6)
    sizes = igos_pl.import_saliency([np.ones((5, 7)), np.ones((9, 9))], network, images, metrics=False)
    assert sizes.masks.shape == (2, 5, 5)
    fine = igos_pl.import_saliency(torch.rand(2, 28, 28), network, images, metrics=False)
    assert fine.masks.shape == (2, 12, 12)  # the input has 12 x 12 pixels
    assert np.isfinite(fine.masks).all()
    deep = igos_pl.import_saliency(torch.rand(2, 512, 4, 4), network, images, metrics=False)
    assert deep.masks.shape == (2, 4, 4)
    several = igos_pl.import_saliency(
        [torch.rand(2, 6, 6), torch.rand(2, 6, 6)], network, images, top_k=2, metrics=False
    )
    assert several.target.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("saliency", "message"),
    [
        (torch.rand(3, 6, 6), "3 saliency maps for 2 images"),
        (torch.rand(2), r"\(N, h, w\)"),
        ("maps/", "igos-pl import"),
        (torch.rand(2, 6, 6, 3), "saliency has 3 channels behind height and width"),
        (
            torch.tensor([1.0, -2])[:, None, None].expand(2, 6, 6),
            r"of 1 of the 2 images checked \(down to -2, in image 1\)",
        ),
        ([torch.rand(6, 6), torch.full((6, 6), torch.nan)], "^image 1: its saliency .*not finite"),
        (
            [torch.rand(2, 6, 6)] * 2,
            "^image 0: it has 2 saliency maps, but the network proposes 1 target: .*top_k",
        ),
    ],
)
def test_saliency_that_is_refused(saliency: Any, message: str) -> None:
    with pytest.raises(IgosError, match=message):
        igos_pl.import_saliency(saliency, Quadrant(), torch.rand(2, 3, 12, 12))


def test_arguments_that_there_are_not_are_named() -> None:
    images, network = torch.rand(2, 3, 12, 12), Quadrant()
    with pytest.raises(IgosError, match="import_saliency has no argument 'topk': did you mean top_k"):
        igos_pl.import_saliency(torch.rand(2, 6, 6), network, images, topk=2)
    result = igos_pl.import_saliency(torch.rand(2, 6, 6), network, images, metrics=False)
    with pytest.raises(IgosError, match="evaluate has no argument 'cell': did you mean cells"):
        igos_pl.evaluate(result, "morf", network, images, cell=3)
    with pytest.raises(IgosError, match="explanations is of the type ndarray, but must be what explain"):
        igos_pl.evaluate(result.saliency, "morf", network, images)  # type: ignore[arg-type]
    with pytest.raises(IgosError, match="metrics is of the type int, but must be names"):
        igos_pl.evaluate(result, 3, network, images)  # type: ignore[arg-type]
    with pytest.raises(IgosError, match="For a run, leave targets, top_k out"):
        igos_pl.evaluate("run", "morf", network, images, 0, top_k=2)
    with pytest.raises(IgosError, match="For a run, leave normalized, batch_size out"):
        igos_pl.evaluate("run", "morf", network, images, normalized=False, batch_size=8)


def test_sensitivity_explains_again() -> None:
    pytest.importorskip("captum")
    network, images = tiny.tiny_classifier(), tiny.pictures(2).float() / 255
    explainer = igos_pl.Explainer(network, mask_size=6, iterations=2)
    result = igos_pl.explain(network, images, mask_size=6, iterations=2)
    found = igos_pl.evaluate(result, "sensitivity", network, images, explainer=explainer, samples=2)
    assert found["sensitivity_samples2"].shape == (2,)
    assert (found["sensitivity_samples2"] > 0).all()
    again = igos_pl.evaluate(result, "sensitivity", network, images, explainer=explainer, samples=2)
    np.testing.assert_array_equal(found["sensitivity_samples2"], again["sensitivity_samples2"])
    assert network.targets == "predicted"
    assert explainer.metrics
    other = igos_pl.Explainer(network, mask_size=6, iterations=1)
    stranger = igos_pl.Explainer(tiny.tiny_classifier(tiny.TinyNet(seed=1)), mask_size=6, iterations=2)
    for wrong, difference in (
        (other, "iterations: there 2, now 1"),
        (stranger, "network.weights_sha256: there"),
    ):
        with pytest.raises(IgosError, match=rf"made with other settings \({difference}"):
            igos_pl.evaluate(result, "sensitivity", network, images, explainer=wrong)
    foreign = igos_pl.import_saliency(torch.rand(2, 24, 24), network, images, method="grad-cam")
    with pytest.raises(IgosError, match="masks of grad-cam were imported"):
        igos_pl.evaluate(foreign, "sensitivity", network, images, explainer=explainer)


def test_another_network_or_other_images_are_noticed() -> None:
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1)) * 0.2
    images[:, :, :6, :6] += 0.7
    result = igos_pl.import_saliency(torch.rand(2, 6, 6), Quadrant(), images, 0)
    with pytest.raises(IgosError, match="^image 0: the recorded score of 0 is .*, but the network gives"):
        igos_pl.evaluate(result, "morf", Quadrant(), images * 0.1, 0)
    with pytest.raises(IgosError, match="explanations are of other images"):
        igos_pl.evaluate(result, "morf", Quadrant(), images[:1], 0)


def test_detections_are_found_again() -> None:
    picture = draw_shapes(1, 0)[0].resize((SHAPES_INPUT, SHAPES_INPUT))
    module = shapes_mask_rcnn()
    load_weights(module, CHECKPOINTS / "shapes_maskrcnn.pth", "Mask R-CNN")
    detector = RCNNDetector(
        module, class_names=list(CATEGORIES), input_size=SHAPES_INPUT, score_threshold=SHAPES_THRESHOLD
    )
    detector.freeze()
    found = detector.detect(detector.normalize(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]))
    count = int((found[0].scores >= SHAPES_THRESHOLD).sum())
    maps = np.random.default_rng(0).random((count, 9, 9))
    result = igos_pl.import_saliency([maps], detector, picture, method="random", mask_size=3)
    assert len(result) == count
    figures = igos_pl.evaluate(result, "deletion_insertion:blur", detector, picture)
    np.testing.assert_allclose(figures["deletion_blur"], result.deletion, atol=1e-4)
    np.testing.assert_allclose(figures["insertion_blur"], result.insertion, atol=1e-4)
    with pytest.raises(IgosError, match=f"{count + 1} saliency maps, but the network proposes {count}"):
        igos_pl.import_saliency([np.ones((count + 1, 9, 9))], detector, picture)
    detector.score_threshold = 0.9999
    with pytest.raises(IgosError, match="does not find"):
        igos_pl.evaluate(result, "morf", detector, picture)
