"""The benchmark of quality against evaluations: its peers, its photos, its results and its table."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import SIZE, batch_of, pictures, tiny_classifier
from torch import Tensor, nn

from igos_pl.data import imagenet
from igos_pl.data.annotations import GroundTruth
from igos_pl.errors import IgosError
from igos_pl.models import Classifier
from igos_pl.solver.baselines import make_baselines
from igos_pl.solver.objective import Problem

ROOT = Path(__file__).parents[1]
CORNER = SIZE // 3


@pytest.fixture(autouse=True)
def found_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are scripts that import each other by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def peers() -> ModuleType:
    return importlib.import_module("peers")


@pytest.fixture
def photos() -> ModuleType:
    return importlib.import_module("photos")


@pytest.fixture
def evaluations() -> ModuleType:
    return importlib.import_module("evaluations")


class CornerNet(nn.Module):
    """Its first class is how bright the top left corner is; it sees nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 2, 3, padding=1)
        self.last.weight.data.fill_(0.1)
        self.last.bias.data.zero_()  # type: ignore[union-attr]
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        bright = self.last(images).relu()[:, :, :CORNER, :CORNER].mean((1, 2, 3))
        return torch.stack((bright, torch.zeros_like(bright)), 1)


def corner_problem(network: Classifier, rows: int = 2) -> Problem:
    """White corners on dark pictures."""
    inputs = pictures(rows) // 8
    inputs[:, :, :CORNER, :CORNER] = 255
    images = network.normalize(inputs)
    names = [str(row) for row in range(rows)]
    baselines = network.normalize(make_baselines("black", inputs, names, seed=0))
    return Problem(images, baselines, network.propose(images, [GroundTruth()] * rows).targets, range(rows))


def explain(peers: ModuleType, name: str, network: Classifier, problem: Problem) -> Any:
    if name == "rise":
        return peers.rise(network, problem, 300)
    pytest.importorskip("captum", reason="captum comes with the extra 'bench'")
    if name == "ig":
        return peers.integrated_gradients(network, problem, 25)
    return peers.grad_cam(network, problem, "last")


@pytest.mark.parametrize("name", ["ig", "grad-cam", "rise"])
def test_peers_find_the_corner_and_count_their_passes(peers: ModuleType, name: str) -> None:
    module = CornerNet()
    network = tiny_classifier(module)
    problem = corner_problem(network)
    module.seen = 0
    explanation = explain(peers, name, network, problem)
    assert module.seen == 2 * (explanation.evaluations + explanation.forwards)
    assert explanation.evaluations == {"ig": 25, "grad-cam": 1, "rise": 0}[name]
    masks = explanation.masks
    assert masks.shape == (2, 28, 28)
    assert masks.amin((1, 2)).tolist() == [0, 0]
    assert masks.amax((1, 2)).tolist() == [1, 1]
    assert not masks.requires_grad
    corner = 28 // 3
    inside = masks[:, :corner, :corner].mean((1, 2))
    assert (inside < masks[:, corner + 2 :, corner + 2 :].mean((1, 2)) - 0.2).all()


@pytest.mark.parametrize("name", ["ig", "grad-cam", "rise"])
def test_peers_explain_one_at_a_time_as_many(peers: ModuleType, name: str) -> None:
    network = tiny_classifier(CornerNet())
    both = corner_problem(network)
    before = both.images.clone()
    masks = explain(peers, name, network, both).masks
    for row in range(2):
        pieces = both.images[row : row + 1], both.baselines[row : row + 1]
        alone = Problem(*pieces, network.propose(pieces[0], [GroundTruth()]).targets, [row])
        torch.testing.assert_close(explain(peers, name, network, alone).masks[0], masks[row])
    assert torch.equal(both.images, before)
    assert not both.images.requires_grad


def test_masks_of_saliency_that_is_the_same_everywhere(peers: ModuleType) -> None:
    assert (peers.masks_of(torch.full((1, 3, 3), 7.0)) == 1).all()


def figures(evaluations: ModuleType, insertion: float, deletion: float = 0.0) -> Any:
    return evaluations.Figures(deletion, insertion, evaluations=30, forwards=6, seconds=1.0)


def test_paired_difference(evaluations: ModuleType) -> None:
    reference = {name: figures(evaluations, 0.5) for name in "abcx"}
    other = {name: figures(evaluations, 0.5 + gain) for name, gain in zip("abcy", (1, 2, 6, 99), strict=True)}
    mean, error = evaluations.paired_difference(other, reference)
    assert mean == pytest.approx(3)  # of 1, 2 and 6, whose standard deviation is sqrt(7)
    assert error == pytest.approx(math.sqrt(7 / 3))
    assert all(map(math.isnan, evaluations.paired_difference({}, reference)))


def test_table_is_of_shared_photos(evaluations: ModuleType) -> None:
    found = {
        "igospp": {"a": figures(evaluations, 0.9, 0.1), "b": figures(evaluations, 0.5, 0.1)},
        "ig@30": {"a": figures(evaluations, 0.7, 0.2), "z": figures(evaluations, 1.0)},
        "rise@10": {},
    }
    lines = evaluations.table(found).splitlines()
    assert lines[1].split() == [
        "igospp",
        "2",
        "30",
        "6",
        "0.1000",
        "0.7000",
        "0.6000",
        "+0.0000",
        "±",
        "0.0000",
    ]
    assert lines[2].split() == ["ig@30", "1", "30", "6", "0.2000", "0.7000", "0.5000", "-0.3000", "±", "nan"]
    assert len(lines) == 3
    assert evaluations.curves_of(found) == {
        "igospp": [(32, pytest.approx(0.8))],
        "ig": [(32, pytest.approx(0.5))],
    }


def test_figure(evaluations: ModuleType, tmp_path: Path) -> None:
    found = {name: {"a": figures(evaluations, 0.5)} for name in ("igospp@2", "igospp@4", "ig@30")}
    evaluations.draw(found, tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").width > 500
    places = [(10.0, 0.0), (10.0, 1.0), (20.0, 0.05), (500.0, 0.05)]
    assert evaluations.spread(places, 0.1) == [(10, 0), (10, 1), (20, 0.1), (500, 0.05)]


@pytest.mark.parametrize(
    "name", ["nothing", "ig", "ig@0", "ig@1x2", "grad-cam@3", "igospp@", "igospp@1x2x3x4"]
)
def test_names_of_methods(evaluations: ModuleType, name: str) -> None:
    if name == "igospp@":
        assert evaluations.split_name(name) == ("igospp", ())
        return
    with pytest.raises(IgosError, match="method"):
        evaluations.split_name(name)


def test_amounts_and_published_settings(evaluations: ModuleType) -> None:
    network = tiny_classifier(input_size=224)

    def settings(method: str) -> tuple[int, ...]:
        made = evaluations.explainer_of(network, method)
        return made.iterations, made.path_steps, made.mask_size, made.l1

    assert settings("igospp@7x3") == (7, 3, 28, 1)
    assert settings("igospp@7x3x9") == (7, 3, 9, 1)
    assert settings("published@5") == (5, 20, 224, 10)
    assert settings("fast") == (20, 2, 28, 10)


def samples_of(evaluations: ModuleType, number: int, size: int = SIZE) -> list[Any]:
    return [
        evaluations.Sample(f"photo{i}", batch_of(image.unsqueeze(0), [f"photo{i}"]), str(i))
        for i, image in enumerate(pictures(number, size))
    ]


def test_a_run_goes_on_where_it_stopped(
    evaluations: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny_classifier()
    samples = samples_of(evaluations, 3)
    explained = []

    def counted(network: Classifier, method: str, sample: Any) -> Any:
        explained.append(sample.id)
        return actual(network, method, sample)

    actual = evaluations.explain
    monkeypatch.setattr(evaluations, "explain", counted)

    def go(number: int, judges: list[str], description: str = "settings") -> Any:
        results = evaluations.Results(tmp_path, "rise@5", description)
        evaluations.run(network, "rise@5", samples[:number], judges, results)
        return evaluations.Results(tmp_path, "rise@5", description)

    first = go(2, ["standard"]).figures(samples[0], "standard")
    assert (first.evaluations, first.forwards) == (0, 5)
    lines = tmp_path / "rise@5.jsonl"
    lines.write_text(lines.read_text()[:-9])  # killed while it wrote
    again = go(3, ["standard"])
    assert explained == ["photo0", "photo1", "photo2"]  # the second's mask was there
    assert again.figures(samples[0], "standard") == first
    assert all(again.figures(sample, "standard") for sample in samples)
    assert len(lines.read_text().splitlines()) == 3
    go(3, ["mean", "smoothed"])
    assert len(explained) == 3
    go(1, ["standard"], description="other settings")
    assert explained[3:] == ["photo0"]


def test_ours_and_its_description(evaluations: ModuleType) -> None:
    network = tiny_classifier(input_size=32)
    (sample,) = samples_of(evaluations, 1, 32)
    explanation = evaluations.explain(network, "igospp@2x3", sample)
    assert explanation.masks.shape[0] == 1
    assert explanation.evaluations == 4 * 2 * 3
    assert evaluations.describe(network, "igospp@2x3") != evaluations.describe(network, "igospp@2x4")


def test_judges(evaluations: ModuleType) -> None:
    network = tiny_classifier()
    (sample,) = samples_of(evaluations, 1)
    masks = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0))
    areas = {name: evaluations.judge(network, sample, masks, by) for name, by in evaluations.JUDGES.items()}
    assert all(0 <= value <= 1 for pair in areas.values() for value in pair)
    assert areas["standard"] != areas["mean"]
    assert evaluations.smoothed_pixels(masks, SIZE).shape == (1, SIZE, SIZE)
    assert evaluations.pooled_cells(torch.rand(2, 56, 56), 224).shape == (2, 28, 28)


def test_photos_are_made_of_stamps(photos: ModuleType) -> None:
    classes = photos.stamp_classes()
    assert set(classes.values()) <= set(imagenet.class_names())
    stamp = Image.new("RGBA", (100, 80))
    stamp.paste((255, 0, 0, 255), (10, 10, 70, 50))
    ground = Image.new("RGB", (photos.SIDE, photos.SIDE), "white")
    for seed in range(5):
        photo = photos.paste(stamp, ground, photos.random.Random(seed))
        share = np.all(np.asarray(photo) == (255, 0, 0), axis=2).mean()
        assert 0.27 < share < 0.61


def test_halves_of_photos(photos: ModuleType) -> None:
    def half(name: str, shows: str | None) -> str:
        candidate = photos.Candidate("id", Image.new("RGB", (1, 1)), shows, "source")
        return str(photos.half_of(candidate, name))

    assert half("anything", None) == "tuning"
    halves = [half(name, name) for name in imagenet.class_names()]
    assert 230 < halves.count("tuning") < 330


def test_table_of_photos(photos: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(IgosError, match="make the photos by"):
        photos.read_table(tmp_path, "test")
    chosen = [
        (photos.Photo(name, "hen", 8, 0.75, half, "source"), photos.Candidate(name, image, "hen", "source"))
        for name, half in (("a", "test"), ("b", "tuning"))
        for image in [Image.new("RGB", (4, 4))]
    ]
    photos.write(tmp_path, chosen)
    assert photos.read_table(tmp_path, "tuning") == [chosen[1][0]]
    assert len(photos.read_table(tmp_path, "all")) == 2
    assert (tmp_path / "a.png").is_file()


def test_stamps_that_are_missing(photos: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(IgosError, match="apt-get install tuxpaint-stamps-default"):
        next(photos.stamp_candidates(tmp_path / "none"))
