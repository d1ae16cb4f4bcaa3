"""Sanity checks: random weights and their way back, the measures, and the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SIZE, TinyNet, batch_of, pictures, tiny_classifier, write_pictures
from torch import Tensor, nn

from igos_pl import Explainer
from igos_pl.cli.main import main
from igos_pl.data.batches import ImageBatch
from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.models import Classifier, ExplainableNetwork
from igos_pl.sanity import Checked, SanityChecks, randomisation
from igos_pl.sanity.randomisation import Layer, cascade, layers_of, randomise, restored
from igos_pl.sanity.report import summaries, table
from igos_pl.sanity.similarity import canny_edges, entropy, sobel_edges, spearman, ssim
from igos_pl.solver.starts import Start

pytest.importorskip("skimage", reason="scikit-image comes with the extra 'sanity'")


class Normed(nn.Module):
    """Layers with buffers, with weights outside of layers, and with weights that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.scale = nn.Parameter(torch.randn(4) + 3)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean.normal_()  # type: ignore[union-attr]
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.weight = self.one.weight

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.norm(self.conv(images)).tanh().mean((2, 3)) * self.scale
        return self.other(self.one(pooled).tanh())


def state_of(module: nn.Module) -> dict[str, tuple[int, int, Tensor]]:
    """Every tensor: the object, its memory and its bits."""
    return {
        name: (id(tensor), tensor.data_ptr(), tensor.detach().clone())
        for name, tensor in module.state_dict(keep_vars=True).items()
    }


def assert_same_state(module: nn.Module, before: dict[str, tuple[int, int, Tensor]]) -> None:
    after = state_of(module)
    assert list(after) == list(before)
    for name, (identity, memory, bits) in before.items():
        assert after[name][:2] == (identity, memory), name
        assert torch.equal(after[name][2], bits), name


def test_random_weights_and_back() -> None:
    network = Normed()
    layers = layers_of(network)
    assert [layer.name for layer in layers] == ["Normed", "conv", "norm", "one", "other"]
    before = state_of(network)
    images = torch.rand(2, 3, 8, 8)
    generator = torch.get_rng_state()
    with torch.inference_mode(), restored(network):
        randomise(layers, 0)
        for name, tensor in network.state_dict().items():
            if not name.startswith("norm"):  # which are those of a new layer
                assert not torch.equal(tensor, before[name][2]), name
        assert network.norm.running_mean.abs().max() == 0  # type: ignore[union-attr]
        first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        with torch.inference_mode(False):
            network.conv.bias = nn.Parameter(torch.zeros(4))
        randomise(layers, 0)
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, first[name]) == (name != "scale"), name  # drawn around the last values
        randomise(layers, 1)
        assert not torch.equal(network.conv.weight, first["conv.weight"])
    assert_same_state(network, before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert network(images).requires_grad


def test_weights_come_back_after_an_exception() -> None:
    network = Normed()
    before = state_of(network)
    layers = [*layers_of(network), Layer("broken", None)]  # type: ignore[arg-type]
    with pytest.raises(AttributeError), restored(network):
        randomise(layers, 0)
    assert_same_state(network, before)


def test_layers_of_the_same_shape_get_different_weights() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    randomise(layers_of(network), 0)
    assert not torch.equal(network[0].weight, network[1].weight)


def test_network_without_weights_is_refused() -> None:
    with pytest.raises(IgosError, match="Flatten has no weights"):
        layers_of(nn.Flatten())


def test_cascade() -> None:
    assert cascade(10, 4) == [1, 4, 7, 10]
    assert cascade(3, 8) == [1, 2, 3]
    assert cascade(5, 1) == [5]
    assert cascade(1, 4) == [1]


def test_measures_of_known_maps() -> None:
    ramp = np.arange(49.0).reshape(7, 7)
    assert spearman(ramp, ramp**3) == pytest.approx(1)
    assert spearman(ramp, -ramp) == pytest.approx(-1)
    assert np.isnan(spearman(ramp, np.ones((7, 7))))
    assert np.isnan(spearman(ramp, np.where(ramp == 0, np.nan, ramp)))
    assert ssim(ramp, 5 * ramp) == pytest.approx(1)
    assert ssim(ramp, ramp[::-1]) < 0.5
    assert np.isnan(ssim(ramp[:2, :2], ramp[:2, :2]))
    assert entropy(np.full((7, 7), 0.4)) == 0
    assert entropy(np.array([[0.0, 1.0], [0.0, 1.0]])) == pytest.approx(np.log(2))
    assert entropy(ramp) == pytest.approx(np.log(49))
    assert np.isnan(entropy(np.full((2, 2), np.nan)))


def test_edges_are_where_the_image_has_one() -> None:
    image = torch.zeros(3, 16, 16)
    image[:, :, 8:] = 255
    for detect in (sobel_edges, canny_edges):
        edges = detect(image, 4)
        assert edges.shape == (4, 4)
        assert edges[:, 0].max() == 0
        assert edges[:, 1:3].sum(1).min() > 0
        assert detect(torch.full((3, 16, 16), 7), 4).max() == 0


def test_measures_are_those_of_quantus() -> None:
    quantus = pytest.importorskip("quantus", reason="quantus comes with the extra 'test'")
    random = np.random.RandomState(0)
    maps = random.rand(4, 8, 8)
    maps[:, :4] = maps.max()  # ties
    ours = [spearman(maps[0], other) for other in maps[1:]]
    theirs = [
        quantus.similarity_func.correlation_spearman(maps[0].ravel(), other.ravel()) for other in maps[1:]
    ]
    assert ours == pytest.approx(theirs)
    from quantus.functions.complexity_func import discrete_entropy

    assert entropy(maps[0]) == pytest.approx(discrete_entropy(maps[0], maps[0]))


def checks_of(network: Classifier, steps: int = 3, **settings: Any) -> SanityChecks:
    return SanityChecks(Explainer(network, **{"mask_size": 8, "iterations": 3, **settings}), steps)


def run(checks: SanityChecks, batch: ImageBatch) -> list[Checked]:
    checks.predict_step(batch)
    return checks.checked


def test_every_comparison_of_every_image() -> None:
    module = Normed()
    network = tiny_classifier(module)
    before = state_of(module)
    checks = checks_of(network)
    progress: list[float] = []
    checks.on_progress = lambda told: progress.append(told.share)
    rows = run(checks, batch_of(pictures(3)))
    assert_same_state(module, before)
    assert network.targets == "predicted"
    found = [(row.check, row.state, row.layers) for row in rows if row.sample_id == "image1"]
    assert found == [
        ("controls", "another seed", 0),
        ("controls", "another image's mask", 0),
        ("controls", "Sobel edges", 0),
        ("controls", "Canny edges", 0),
        ("another class", "the second class", 0),
        ("another class", "a random class", 0),
        ("cascade", "the last 1 of 5", 1),
        ("independent", "5 of 5: other", 1),
        ("cascade", "the last 3 of 5", 3),
        ("cascade", "the last 5 of 5", 5),
        ("independent", "3 to 4 of 5: norm to one", 2),
        ("independent", "1 to 2 of 5: Normed to conv", 2),
    ]
    assert len(rows) == 3 * len(found)
    assert progress == pytest.approx([number / 8 for number in range(1, 9)])


def test_the_same_class_is_explained_and_then_others() -> None:
    asked: list[int] = []

    class Noting(Classifier):
        def score(self, images: Tensor, targets: Targets) -> Tensor:
            asked.extend(targets.label.tolist())
            return super().score(images, targets)

    network = Noting(TinyNet(), input_size=SIZE)
    batch = batch_of(pictures(1))
    scores = network.probabilities(network.normalize(batch.images))[0]
    best, second = scores.argsort(descending=True)[:2].tolist()
    rows = run(checks_of(network), batch)
    assert {row.label for row in rows} == {best}
    order = [label for place, label in enumerate(asked) if not place or asked[place - 1] != label]
    assert order[:2] == [best, second]
    assert order[-1] == best
    score = {row.state: row.score for row in rows}
    assert score["the second class"] == pytest.approx(float(scores[second]), abs=1e-6)
    assert score["another seed"] == pytest.approx(float(scores[best]), abs=1e-6)


def test_checks_do_not_depend_on_the_batch() -> None:
    together = run(checks_of(tiny_classifier()), batch_of(pictures(2)))
    checks = checks_of(tiny_classifier())
    for part in batch_of(pictures(2)).parts():
        checks.predict_step(part)
    chosen = [row for row in together if row.state != "another image's mask"]
    chosen.sort(key=lambda row: row.sample_id)
    for one, other in zip(chosen, checks.checked, strict=True):
        assert (one.check, one.state, one.sample_id) == (other.check, other.state, other.sample_id)
        assert one.spearman == pytest.approx(other.spearman, abs=0.02)


def test_cascade_is_that_of_quantus(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Quantus' seeds, the correlations are those of its MPRT with our masks as attributions."""
    quantus = pytest.importorskip("quantus", reason="quantus comes with the extra 'test'")
    module, batch = TinyNet(), batch_of(pictures(3))
    network = tiny_classifier(module)
    images = network.normalize(batch.images)
    labels = network.propose(images, batch.truth).targets.label.numpy()

    size = {"mask_size": SIZE}  # Quantus wants a value for each pixel

    def explain_func(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> Any:
        found = checks_of(tiny_classifier(model), **size)._explained(batch, np.asarray(targets).tolist())
        return found.saliency[:, None]

    monkeypatch.setattr(randomisation, "key_of", lambda *_: 43)  # Quantus' seed of every layer
    ours = run(checks_of(network, **size), batch)
    metric = quantus.MPRT(abs=False, normalise=False, disable_warnings=True)
    theirs = metric(module, images.numpy(), labels, explain_func=explain_func, device="cpu")
    assert list(theirs) == ["original", "last", "second", "first"]
    for layers, name in enumerate(("last", "second", "first"), 1):
        mine = [row.spearman for row in ours if row.check == "cascade" and row.layers == layers]
        assert mine == pytest.approx(theirs[name], abs=1e-6)


def test_means_and_table() -> None:
    def row(state: str, sample: str, spearman: float, layers: int = 0) -> Checked:
        check = "cascade" if layers else "controls"
        return Checked(check, state, layers, sample, 3, spearman, 0.25, np.nan, 0.5, 0.125)

    rows = [row("the last 1 of 2", "a", 0.5, 1), row("the last 1 of 2", "b", np.nan, 1)]
    rows += [row("another seed", "a", 0.25), row("another seed", "b", 0.75)]
    found = summaries(rows)
    assert [each.state for each in found] == ["another seed", "the last 1 of 2"]
    assert found[0].mean["spearman"] == 0.5
    assert found[0].error["spearman"] == pytest.approx(0.25)
    assert found[1].mean["spearman"] == 0.5
    assert found[1].known == {"spearman": 1, "ssim": 2, "entropy_rise": 0, "contrast": 2, "score": 2}
    lines = table(found)
    assert [line.split()[-5:] for line in lines if "seed" in line or "last" in line] == [
        ["0.50", "0.25", "0.50", "0.1250", "-"]
    ] * 2
    assert max(map(len, lines)) <= 80


def test_detectors_are_refused() -> None:
    class Boxes(ExplainableNetwork):
        def propose(self, images: Tensor, truth: Any) -> Any:
            raise NotImplementedError

        def score(self, images: Tensor, targets: Targets) -> Tensor:
            raise NotImplementedError

    with pytest.raises(IgosError, match="needs a classifier, and Boxes is none"):
        SanityChecks(Explainer(Boxes(TinyNet(), input_size=SIZE), mask_size=8))


@pytest.mark.parametrize(
    ("steps", "start", "message"),
    [
        (2.5, Start(), "steps is 2.5 .*must be a whole number"),
        (0, Start(), "steps is 0, but must be at least 1"),
        (2, Start(k=2, init_val=0.2), "the start has several cells: leave start.k out"),
    ],
)
def test_settings_that_are_refused(steps: Any, start: Start, message: str) -> None:
    explainer = Explainer(tiny_classifier(), mask_size=8, start=start)
    with pytest.raises(IgosError, match=message):
        SanityChecks(explainer, steps)


def test_network_that_does_not_use_its_layers_is_refused() -> None:
    class Elsewhere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self._weight = torch.randn(3, 3)

        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) @ self._weight

    checks = checks_of(tiny_classifier(Elsewhere()))
    run(checks, batch_of(pictures(1)))
    with pytest.raises(IgosError, match="do not change its scores"):
        checks.on_predict_end()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sane.py").write_text(
        f"import sys\nsys.path.insert(0, r'{Path(__file__).parent}')\n"
        "from tiny import TinyNet\nclass Net(TinyNet): pass\n"
    )
    photos = write_pictures(tmp_path / "photos", [f"{number}.png" for number in range(7)])
    (photos / "3.png").write_bytes(b"not a picture")
    words = [
        *("--data.root", "photos", "--data.num_workers", "0", "--output", "out", "--images", "3"),
        *("--model.network", "Classifier", "--model.network.module", "sane.Net"),
        *("--model.network.input_size", str(SIZE), "--model.mask_size", "8", "--model.iterations", "2"),
        *("--trainer.accelerator", "cpu"),
    ]
    return lambda *more: main(["sanity", *words, *more])


def test_command(command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--preset", "igospp", "--images", "4", "--steps", "2") == 0
    out = capsys.readouterr().out
    assert "preset igospp, with iterations=2" in out
    assert "left out 3.png: unreadable" in out
    with (tmp_path / "out" / "sanity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["sample_id"] for row in rows} == {"0.png", "1.png", "5.png"}
    means = json.loads((tmp_path / "out" / "sanity.json").read_text())
    assert means["settings"]["sanity.steps"] == 2
    assert means["settings"]["mask_size"] == 8
    first = means["means"][0]
    assert first["state"] == "another seed"
    mine = [float(row["spearman"]) for row in rows if row["state"] == "another seed"]
    assert first["spearman"]["mean"] == pytest.approx(np.mean(mine))
    assert (tmp_path / "out" / "sanity.png").stat().st_size > 10_000
    assert not list((tmp_path / "out").glob("segments"))


def test_command_refuses_what_it_cannot_do(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--images", "0") == 2
    assert "images is 0" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sanity.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "configuration.json").write_text("{}")
    for output, owner in (("out", "sanity checks"), ("run", "a run")):
        assert command("--output", output) == 2
        told = f"{output} has the results of {owner} already: set --output to another folder\n"
        assert told in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sanity", "--help"]) == 0
    assert "--images N" in capsys.readouterr().out
