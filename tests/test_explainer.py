"""The LightningModule: batches, order, switches, optimisers, heads and targets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from tiny import (
    CLASSES,
    SIZE,
    NanOnBright,
    TinyNet,
    batch_of,
    pictures,
    quiet_trainer,
    tiny_classifier,
    write_pictures,
)  # fmt: skip
from torch import Tensor, nn

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.batches import ImageBatch
from igos_pl.data.explanation import explanations_of
from igos_pl.data.geometry import Frame
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.data.targets import class_targets
from igos_pl.datamodules import ImageFolderDataModule
from igos_pl.errors import IgosError, TargetError
from igos_pl.evaluation.adaptive_curves import EXPECTED_PASSES
from igos_pl.evaluation.deletion_insertion import CURVE_STEPS
from igos_pl.explainer import Explainer
from igos_pl.models import Classifier
from igos_pl.models.base import ExplainableNetwork, ProposedTargets
from igos_pl.run.progress import BatchProgress, ReportsProgress
from igos_pl.solver.baselines import BASELINES, make_baselines
from igos_pl.solver.methods import METHODS
from igos_pl.solver.objective import Objective, Problem, Scorer
from igos_pl.solver.optimizers import NAG, LineSearch
from igos_pl.solver.presets import preset_names
from igos_pl.solver.starts import Start

OPTIMIZERS: dict[str, Any] = {
    "NAG": NAG,
    "LineSearch": LineSearch,
    "Adam": lambda params: torch.optim.Adam(params, lr=0.1),
}
EASY: dict[str, Any] = {"baseline": "black", "l1": 0.1, "l2": 1.0, "noise": 0.0}
SAME = ("masks", "score", "baseline_score", "deletion", "insertion", "deletion_curve", "objective")


def explainer_of(network: ExplainableNetwork | None = None, **options: Any) -> Explainer:
    quick = {"mask_size": 8, "iterations": 3, "path_steps": 2, "noise": 0.1}
    return Explainer.from_preset(network or tiny_classifier(), "igospp", **{**quick, **options})


def one_by_one(explainer: Explainer, images: Tensor, names: Sequence[str]) -> list[BatchResult]:
    return [
        explainer.predict_step(batch_of(image[None], [name]))
        for image, name in zip(images, names, strict=True)
    ]


def assert_same(found: BatchResult, row: int, expected: BatchResult, other: int) -> None:
    for name in SAME:
        np.testing.assert_allclose(
            found.explanations[name][row], expected.explanations[name][other], atol=1e-4, rtol=0, err_msg=name
        )
    for name in ("label", "sample_id", "target", "status", "evaluations", "forwards"):
        assert found.explanations[name][row] == expected.explanations[name][other], name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", ["igos", "igos+", "igos++"])
def test_one_at_a_time_equals_a_batch_of_eight(method: str, optimizer: str) -> None:
    explainer = explainer_of(method=method, optimizer=OPTIMIZERS[optimizer], **{**EASY, "noise": 0.1})
    images, names = pictures(8), [f"photo {i}" for i in range(8)]
    together = explainer.predict_step(batch_of(images, names))
    for row, alone in enumerate(one_by_one(explainer, images, names)):
        assert_same(together, row, alone, 0)
    masks = together.explanations["masks"]
    assert masks.shape == (8, 8, 8)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert np.ptp(masks, axis=0).max() > 0.1, "the photos give one mask"


def test_order_and_neighbours_do_not_matter() -> None:
    explainer = explainer_of()
    images, names = pictures(5), ["a", "b", "c", "d", "e"]
    first = explainer.predict_step(batch_of(images, names))
    order = [3, 0, 4]
    second = explainer.predict_step(batch_of(images[order], [names[i] for i in order]))
    for row, place in enumerate(order):
        assert_same(second, row, first, place)
    again = explainer.predict_step(batch_of(images, names))
    np.testing.assert_array_equal(again.explanations["masks"], first.explanations["masks"])


def test_names_and_seed_decide_the_noise() -> None:
    images = pictures(1)
    masks = [
        explainer_of(seed=seed, noise=0.5).predict_step(batch_of(images, [name])).explanations["masks"]
        for seed, name in ((1, "a"), (1, "b"), (2, "a"), (1, "a"))
    ]
    np.testing.assert_array_equal(masks[0], masks[3])
    assert np.abs(masks[0] - masks[1]).max() > 1e-3
    assert np.abs(masks[0] - masks[2]).max() > 1e-3


def test_inputs_are_not_mutated_and_no_global_generator_is_used() -> None:
    images, explainer = pictures(3), explainer_of(noise=0.3, baseline="noise")
    batch = batch_of(images.clone())
    records, state = list(batch.records), torch.get_rng_state()
    weights = {name: value.clone() for name, value in explainer.state_dict().items()}
    explainer.predict_step(batch)
    assert torch.equal(batch.images, images)
    assert batch.records == records
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in explainer.state_dict().items())


def test_no_mask_stays_behind() -> None:
    explainer = explainer_of()
    keys = list(explainer.state_dict())
    parameters = [name for name, _ in explainer.named_parameters()]
    explainer.predict_step(batch_of(pictures(2)))
    explainer.predict_step(batch_of(pictures(3)))
    assert list(explainer.state_dict()) == keys
    assert [name for name, _ in explainer.named_parameters()] == parameters
    assert all(name.startswith("network.") for name in keys + parameters)
    held = [name for name, value in vars(explainer).items() if isinstance(value, (Tensor, nn.Parameter))]
    assert held == []


def test_network_is_frozen_and_stays_in_evaluation_mode() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(CLASSES))
    module(torch.zeros(2, 3, SIZE, SIZE))
    explainer = explainer_of(tiny_classifier(module))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    explainer.predict_step(batch_of(pictures(2)))
    assert not module.training
    assert not any(weight.requires_grad for weight in module.parameters())
    assert all(weight.grad is None for weight in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Direct(Callback):
    """Explains each batch again, outside of the trainer's own step."""

    def __init__(self) -> None:
        self.results: list[BatchResult] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        with torch.inference_mode(False):
            batch = replace(batch, images=batch.images.clone())
            self.results.append(explainer_of().predict_step(batch))


def predicted(
    photos: Path, folder: Path, inference_mode: bool
) -> tuple[list[BatchResult], list[BatchResult]]:
    """What a trainer returns, and what the step itself does."""
    direct = Direct()
    trainer = quiet_trainer(folder, inference_mode=inference_mode, callbacks=[direct])
    data = ImageFolderDataModule(str(photos), batch_size=3, num_workers=0)
    results = trainer.predict(explainer_of(), data)
    assert results is not None
    return list(results), direct.results


@pytest.mark.filterwarnings("ignore:.*many workers.*")
def test_trainers_inference_mode_does_not_matter(tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", [f"{name}.png" for name in "abcde"], SIZE, SIZE)
    with_it, direct = predicted(photos, tmp_path / "with", True)
    without, _ = predicted(photos, tmp_path / "without", False)
    assert [len(result.images) for result in direct] == [3, 2]
    for results in (with_it, without):
        for found, expected in zip(results, direct, strict=True):
            np.testing.assert_array_equal(found.explanations["masks"], expected.explanations["masks"])
    assert not np.all(direct[0].explanations["masks"] == 1)


def test_predict_step_inside_inference_mode() -> None:
    batch = batch_of(pictures(2))
    explainer = explainer_of()
    expected = explainer.predict_step(batch)
    with torch.inference_mode():
        inside = ImageBatch(batch.images.clone(), batch.records, batch.truth)
        found = explainer.predict_step(inside)
    np.testing.assert_array_equal(found.explanations["masks"], expected.explanations["masks"])


def test_path_and_average_reach_the_solver() -> None:
    found = {
        (path, average): explainer_of(path=path, average=average, optimizer=OPTIMIZERS["Adam"])
        .predict_step(batch_of(pictures(2)))
        .explanations["masks"]
        for path in ("scaled", "threshold")
        for average in (False, True)
    }
    for one, other in itertools.combinations(found, 2):
        assert np.abs(found[one] - found[other]).max() > 0.01, (one, other)


def test_path_takes_as_much_of_a_mask_as_the_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Boxed(Classifier):
        def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> ProposedTargets:
            found = super().propose(images, truth)
            boxes = torch.tensor([[0.0, 0, SIZE / 2, SIZE / 4], [0, 0, SIZE, SIZE]])
            return replace(found, targets=replace(found.targets, box=boxes))

    problems: list[Problem] = []

    class Noting(Objective):
        def __init__(self, network: Scorer, problem: Problem, *rest: Any) -> None:
            problems.append(problem)
            super().__init__(network, problem, *rest)

    monkeypatch.setattr("igos_pl.explainer.Objective", Noting)
    network = Boxed(TinyNet(), input_size=SIZE)
    explainer_of(network, path="threshold").predict_step(batch_of(pictures(2)))
    (problem,) = problems
    assert problem.extent is not None
    assert problem.extent.tolist() == [0.375, 1.0]  # three times an eighth, and no more than all


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimisers_lower_the_objective(optimizer: str) -> None:
    batch = batch_of(pictures(4))
    first, last = (
        explainer_of(optimizer=OPTIMIZERS[optimizer], iterations=iterations, **EASY).predict_step(batch)
        for iterations in (1, 6)
    )
    assert (last.explanations["objective"] < first.explanations["objective"] - 0.3).all()
    assert (last.explanations["iterations"] == 6).all()
    assert (last.explanations["evaluations"] == 6 * 4 * 2).all()
    assert ((last.explanations["forwards"] > 0) == (optimizer == "LineSearch")).all()
    described = explainer_of(optimizer=OPTIMIZERS[optimizer]).describe()
    assert described["optimizer"] == optimizer


@pytest.mark.parametrize("optimizer", [NAG, LineSearch])
def test_default_steps_work_at_any_mask_size(optimizer: Any) -> None:
    batch = batch_of(pictures(4))
    for size in (6, SIZE):
        explainer = explainer_of(optimizer=optimizer, mask_size=size, iterations=8, **EASY)
        rows = explainer.predict_step(batch).explanations
        assert (rows["insertion"] - rows["deletion"]).mean() > 0.3
        between = (rows["masks"] > 0.01) & (rows["masks"] < 0.99)
        assert (between.mean((1, 2)) > 0.2).all(), "the mask is saturated"


class MeanColor(nn.Module):
    """Logits that follow the mean brightness: every pixel counts alike."""

    def forward(self, images: Tensor) -> Tensor:
        brightness = images.mean((1, 2, 3))
        return torch.stack((brightness, -brightness), 1)


@pytest.mark.parametrize("method", ["igos", "igos+"])
def test_a_step_means_the_same_at_two_mask_sizes(method: str) -> None:
    """On a uniform image every inner cell is alike: one step of NAG moves them by the step size."""
    batch = batch_of(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    network = tiny_classifier(MeanColor(), input_size=32)
    for size in (8, 16):
        explainer = explainer_of(
            network, method=method, mask_size=size, iterations=1, noise=0.0, baseline="black", l2=0.0
        )
        mask = explainer.predict_step(batch).explanations["masks"][0]
        inner = 1 - mask[2:-2, 2:-2]
        assert inner.mean() == pytest.approx(0.2, rel=0.1), size


def test_raw_alpha_is_a_factor_of_the_gradient() -> None:
    batch, changes = batch_of(pictures(1)), []
    for alpha in (0.5, 1.0):
        explainer = explainer_of(
            optimizer=lambda params, alpha=alpha: NAG(params, alpha=alpha),
            method="igos",
            iterations=1,
            noise=0.0,
        )
        changes.append(1 - explainer.predict_step(batch).explanations["masks"][0])
        assert explainer.describe()["optimizer.alpha"] == alpha
    assert changes[0].max() > 1e-5
    np.testing.assert_allclose(changes[1], 2 * changes[0], atol=1e-6)


def test_predicted_targets_top_k() -> None:
    images = pictures(3)
    network = tiny_classifier(top_k=2, class_names=["ant", "bee", "cat", "dog", "eel"])
    rows = explainer_of(network).predict_step(batch_of(images))
    probabilities = network.probabilities(network.normalize(images))
    best = probabilities.topk(2)
    columns = rows.explanations
    assert columns["sample_id"].tolist() == [f"image{i // 2}" for i in range(6)]
    assert columns["target"].tolist() == [0, 1] * 3
    assert columns["label"].tolist() == best.indices.flatten().tolist()
    assert columns["label_name"].tolist() == [network.class_names[i] for i in columns["label"]]
    np.testing.assert_allclose(columns["score"], best.values.flatten(), atol=1e-6)
    np.testing.assert_allclose(columns["deletion_curve"][:, 0], columns["score"], atol=1e-5)
    np.testing.assert_allclose(columns["insertion_curve"][:, -1], columns["score"], atol=1e-5)
    np.testing.assert_allclose(columns["insertion_curve"][:, 0], columns["baseline_score"], atol=1e-6)
    assert [record.targets for record in rows.images] == [2, 2, 2]
    assert np.abs(columns["masks"][0] - columns["masks"][1]).max() > 1e-2
    everything = tiny_classifier(top_k=CLASSES)
    assert len(explainer_of(everything).predict_step(batch_of(images[:1])).explanations["label"]) == CLASSES


@pytest.mark.parametrize("targets", ["predicted", "both"])
def test_more_predicted_classes_than_there_are(targets: Any) -> None:
    network = tiny_classifier(targets=targets, top_k=CLASSES + 1)
    message = f"top_k is 6, but must be at most {CLASSES}, the number of classes of TinyNet"
    with pytest.raises(IgosError, match=message):
        explainer_of(network).predict_step(batch_of(pictures(1), label=0))
    with pytest.raises(IgosError, match=message):
        network.check([GroundTruth(0)])


def test_given_labels_and_ground_truth() -> None:
    images = pictures(2)
    given = explainer_of(tiny_classifier(targets=[4, 1])).predict_step(batch_of(images))
    assert given.explanations["label"].tolist() == [4, 1, 4, 1]
    assert given.explanations["label_name"].tolist() == ["4", "1", "4", "1"]
    truth = explainer_of(tiny_classifier(targets="ground_truth"))
    known = truth.predict_step(batch_of(images, label=1))
    assert known.explanations["label"].tolist() == [1, 1]
    with pytest.raises(IgosError, match="'ground_truth', but 2 of 2 images have no label:.*--data.labels"):
        explainer_of(tiny_classifier(targets="ground_truth")).predict_step(batch_of(images))
    with pytest.raises(IgosError, match=r"^Label 5 is outside of the 5 classes of TinyNet \(0 to 4\)"):
        explainer_of(tiny_classifier(targets=[0, 5])).predict_step(batch_of(images))


@pytest.mark.parametrize("targets", ["predicted", "ground_truth", [1]])
def test_labels_must_be_classes_whatever_is_explained(targets: Any) -> None:
    """They are kept beside the predictions, and compared with them."""
    network = tiny_classifier(targets=targets)
    network.check([GroundTruth(label=4)])
    with pytest.raises(TargetError, match="Label 5 is outside of the 5 classes") as raised:
        network.check([GroundTruth(label=0), GroundTruth(label=5)])
    assert raised.value.image == 1


def test_the_network_is_on_its_device_before_the_run_begins(tmp_path: Path) -> None:
    class OnItsDevice(Classifier):
        """Runs only after it was moved to a device, as networks do that need a GPU."""

        device: Any = None

        def to(self, *arguments: Any, **options: Any) -> Any:
            self.device = arguments[0] if arguments else self.device
            return super().to(*arguments, **options)

        def probabilities(self, images: Tensor) -> Tensor:
            if self.device is None:
                raise RuntimeError("not on its device")
            return super().probabilities(images)

    data = ImageFolderDataModule(str(write_pictures(tmp_path / "photos", ["a.png"])), num_workers=0)
    explainer = explainer_of(OnItsDevice(TinyNet(), input_size=SIZE, targets=[7]))
    with pytest.raises(IgosError, match="Label 7 is outside of the 5 classes"):
        quiet_trainer(tmp_path / "run").predict(explainer, data)
    assert not (tmp_path / "run").exists()


def test_classes_by_name() -> None:
    names = ["ant", "honey_bee", "tabby, tabby cat", "dog", "eel"]
    network = tiny_classifier(targets=["Tabby cat", 0, "honey bee"], class_names=names)
    given = explainer_of(network).predict_step(batch_of(pictures(1)))
    assert given.explanations["label"].tolist() == [2, 0, 1]
    assert network.describe() == tiny_classifier(targets=[2, 0, 1], class_names=names).describe()
    with pytest.raises(IgosError, match=r"targets: 'antt' is not a class of the network \(did you mean ant"):
        tiny_classifier(targets=["antt"], class_names=names)
    with pytest.raises(IgosError, match="targets: 'ant' is not a class of the network, whose .* unknown"):
        tiny_classifier(targets=["ant"])


def test_predicted_and_annotated_class() -> None:
    images = pictures(3)
    network = tiny_classifier(targets="both", top_k=2)
    best = network.probabilities(network.normalize(images)).topk(2).indices.tolist()
    other = next(label for label in range(CLASSES) if label not in best[0])
    truth = [other, best[1][0], best[2][1]]  # none, the first and the second of the predicted classes
    batch = batch_of(images)
    batch = replace(batch, truth=[GroundTruth(label) for label in truth])
    columns = explainer_of(network).predict_step(batch).explanations
    assert columns["label"].tolist() == [*best[0], other, *best[1], *best[2]]
    assert columns["target"].tolist() == [0, 1, 2, 0, 1, 0, 1]
    with pytest.raises(IgosError, match="targets is 'both', but 3 of 3 images have no label"):
        explainer_of(network).predict_step(batch_of(images))


def test_same_target_whatever_else_is_asked() -> None:
    images = pictures(1)
    alone = explainer_of(tiny_classifier(targets=[1]), noise=0.0).predict_step(batch_of(images))
    among = explainer_of(tiny_classifier(targets=[4, 1]), noise=0.0).predict_step(batch_of(images))
    np.testing.assert_allclose(
        among.explanations["masks"][1], alone.explanations["masks"][0], atol=1e-4, rtol=0
    )


def test_sigmoid_head() -> None:
    images = pictures(2)
    network = tiny_classifier(output="sigmoid", targets=[0, 3])
    rows = explainer_of(network, iterations=5).predict_step(batch_of(images))
    expected = TinyNet()(network.normalize(images)).sigmoid()[:, [0, 3]].flatten()
    np.testing.assert_allclose(rows.explanations["score"], expected.detach(), atol=1e-5)
    assert rows.explanations["status"].tolist() == ["ok"] * 4


def test_nan_network_row_gets_a_status_and_the_others_live() -> None:
    images = pictures(3)
    images[1] = 250
    rows = explainer_of(tiny_classifier(NanOnBright())).predict_step(batch_of(images))
    healthy = explainer_of().predict_step(batch_of(images))
    assert rows.explanations["status"].tolist() == ["ok", "nan", "ok"]
    assert np.isfinite(rows.explanations["masks"]).all()
    for row in (0, 2):
        assert_same(rows, row, healthy, row)
    assert [record.status for record in rows.images] == ["ok", "nan", "ok"]
    assert rows.images[1].message == "the network's scores are not finite numbers"


@pytest.mark.parametrize("baseline", BASELINES)
def test_baselines(baseline: str) -> None:
    explainer = explainer_of(baseline=baseline, noise=0.0)
    images, names = pictures(2), ["a", "b"]
    rows = explainer.predict_step(batch_of(images, names))
    made = make_baselines(baseline, images, names, explainer.seed)
    assert made.dtype == torch.uint8
    assert made.shape == images.shape
    if baseline == "black":
        assert made.eq(0).all()
    elif baseline == "mean":
        means = images.float().mean((2, 3), keepdim=True)
        assert (made - means).abs().max() <= 0.5
    elif baseline == "noise":
        assert made.float().std() > 60
        assert not torch.equal(made[0], made[1])
        assert torch.equal(made[1:], make_baselines("noise", images[1:], ["b"], explainer.seed))
    else:
        assert made.float().std((2, 3)).max() < images.float().std((2, 3)).min()
    network = explainer.network
    labels = torch.from_numpy(rows.explanations["label"])
    scores = network.probabilities(network.normalize(made)).gather(1, labels[:, None]).squeeze(1)
    np.testing.assert_allclose(rows.explanations["baseline_score"], scores, atol=1e-5)


def test_metrics_can_be_switched_off() -> None:
    batch = batch_of(pictures(2))
    with_them = explainer_of().predict_step(batch).explanations
    without = explainer_of(metrics=False).predict_step(batch).explanations
    np.testing.assert_array_equal(without["masks"], with_them["masks"])
    assert without["deletion_curve"].shape == with_them["deletion_curve"].shape == (2, CURVE_STEPS + 1)
    for name in ("deletion", "insertion", "deletion_curve", "insertion_curve"):
        assert np.isnan(without[name]).all()
        assert np.isfinite(with_them[name]).all()
    for name in ("deletion_measured", "insertion_measured"):
        assert without[name].shape == with_them[name].shape == (2, CURVE_STEPS + 1)
        assert not without[name].any()
        assert with_them[name].any()
    np.testing.assert_allclose(without["baseline_score"], with_them["baseline_score"], atol=1e-6)


def test_curves_of_all_points() -> None:
    batch = batch_of(pictures(2))
    few = explainer_of().predict_step(batch).explanations
    whole = explainer_of(curves="full").predict_step(batch).explanations
    np.testing.assert_array_equal(few["masks"], whole["masks"])
    for name in ("deletion", "insertion"):
        measured = few[f"{name}_measured"] == 1
        assert 7 <= measured.sum(1).min() <= measured.sum(1).max() < 51
        assert whole[f"{name}_measured"].all()
        curves = few[f"{name}_curve"], whole[f"{name}_curve"]
        np.testing.assert_allclose(*(curve[measured] for curve in curves), atol=1e-5, rtol=0)
        np.testing.assert_allclose(few[name], whole[name], atol=0.01, rtol=0)
    with pytest.raises(IgosError, match="curves is 'none'"):
        explainer_of(curves="none")


def test_batch_without_a_readable_image() -> None:
    failure = ImageRecord("x", "/nowhere/x.png", status="unreadable", message="damaged")
    empty = ImageBatch(torch.empty(0, 3, SIZE, SIZE, dtype=torch.uint8), [], [], [failure])
    result = explainer_of().predict_step(empty)
    assert list(result.images) == [failure]
    assert not result.explanations


@pytest.mark.parametrize("kind", ["adaptive", "full", None])
def test_progress_is_told(kind: str | None) -> None:
    explainer = explainer_of(metrics=kind is not None, curves=kind or "adaptive", micro_batch_size=50)
    assert isinstance(explainer, ReportsProgress)
    told: list[BatchProgress] = []
    explainer.on_progress = told.append
    explainer.predict_step(batch_of(pictures(1)))
    optimising, curves = 3, {"adaptive": EXPECTED_PASSES, "full": 102, None: 2}[kind]
    assert [(each.phase, each.done, each.total) for each in told[:3]] == [
        ("optimising", done, 3) for done in (1, 2, 3)
    ]
    total = 2 if kind is None else 102
    assert {(each.phase, each.total) for each in told[3:]} == {("curves", total)}
    dones = [each.done for each in told[3:]]
    if kind == "adaptive":  # the first points of both curves, without those that show the same image
        assert dones[0] == 12
        assert dones == sorted(dones)
        assert dones[-1] == 102
    else:
        assert dones == ([2] if kind is None else [34, 68, 102])
    shares = [each.share for each in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    passes = 2 * explainer.path_steps * optimising * len(METHODS["igos++"].terms)
    assert shares[2] == pytest.approx(passes / (passes + curves))


def test_progress_of_many_rows_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("igos_pl.explainer._PIXELS_AT_ONCE", 2 * SIZE**2)
    explainer = explainer_of()
    told: list[BatchProgress] = []
    explainer.on_progress = told.append
    explainer.predict_step(batch_of(pictures(3)))
    shares = [each.share for each in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert any(each.share == pytest.approx(2 / 3) and each.done == each.total for each in told)


def test_default_masks_fit_small_inputs() -> None:
    with pytest.warns(match=f"mask_size is {SIZE} instead of 28, because of .* {SIZE} x {SIZE} pixels"):
        explainer = Explainer(tiny_classifier())
    assert explainer.mask_size == explainer.describe()["mask_size"] == SIZE
    assert Explainer(tiny_classifier(input_size=(40, 32))).mask_size == 28


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gradcam"}, "method is 'gradcam', but must be one of: igos, igos"),
        (
            {"mask_size": SIZE + 1},
            f"is {SIZE + 1}, which .* {SIZE} x {SIZE} pixels: set mask_size to {SIZE} or less",
        ),
        ({"mask_size": 1}, "mask_size is 1, but must be at least 2"),
        ({"iterations": 0}, "iterations is 0, but must be at least 1"),
        ({"iterations": -1}, "iterations is -1, but must be at least 1"),
        ({"path_steps": 0}, "path_steps is 0"),
        ({"path": "bent"}, "path is 'bent', but must be one of: scaled, threshold"),
        ({"optimizer": lambda p: NAG(p, step_size=0.1, alpha=3.0)}, "step_size is 0.1 and alpha is 3.0"),
        ({"baseline": "pink"}, "baseline is 'pink'.*blur, black, mean, noise"),
        ({"micro_batch_size": 0}, "micro_batch_size is 0"),
        ({"optimizer": lambda params: NAG(params, step_size=-1)}, "step_size is -1"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IgosError, match=message):
        explainer_of(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k is 0"),
        ({"targets": []}, "targets is an empty list"),
        ({"targets": "best"}, "targets is 'best'.*predicted, ground_truth"),
        ({"output": "tanh"}, "output is 'tanh'"),
        ({"input_size": 1}, "input_size is 1"),
    ],
)
def test_bad_classifiers_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IgosError, match=message):
        tiny_classifier(**options)


def test_module_that_returns_no_logits() -> None:
    with pytest.raises(IgosError, match=r"Identity must return logits.*\(1, 3, 24, 24\)"):
        explainer_of(tiny_classifier(nn.Identity())).predict_step(batch_of(pictures(1)))


def test_defaults_are_the_preset_fast() -> None:
    network = tiny_classifier(input_size=32)
    assert Explainer(network).describe() == Explainer.from_preset(network, "fast").describe()
    assert Explainer(network).describe() == Explainer.from_preset(network).describe()
    with pytest.raises(IgosError, match="Explainer has no argument 'iteratons': did you mean iterations"):
        Explainer.from_preset(network, iteratons=3)


@pytest.mark.parametrize("preset", preset_names())
def test_presets_from_python(preset: str) -> None:
    network = tiny_classifier(input_size=224)
    explainer = Explainer.from_preset(network, preset, seed=7, mask_size=9)
    assert (explainer.seed, explainer.mask_size) == (7, 9)
    shorter = {} if preset == "search" else {"iterations": 2, "path_steps": 1}
    rows = Explainer.from_preset(tiny_classifier(), preset, mask_size=6, **shorter).predict_step(
        batch_of(pictures(2))
    )
    assert rows.explanations["masks"].shape == (2, 6, 6)
    assert (rows.explanations["masks"] < 1).any()
    with pytest.raises(
        IgosError, match="preset is 'quick', but must be one of: draft, fast, igospp, published"
    ):
        Explainer.from_preset(network, "quick")


class Watched(TinyNet):
    """Notes how it is while it is asked, and has a buffer of four axes, whose memory format may change."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.ones(2, 3, 4, 5))
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((self.training, self.first.weight.requires_grad))
        return super().forward(images)


def test_the_network_is_frozen_while_it_is_explained_and_then_as_it_was() -> None:
    module = Watched()
    module.second.eval()
    module.last.weight.requires_grad_(False)
    hook = module.first.register_forward_hook(lambda *_: None)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    memory = {name: (tensor.data_ptr(), tensor.stride()) for name, tensor in tensors.items()}
    explainer_of(Classifier(module, input_size=SIZE)).predict_step(batch_of(pictures(1)))
    assert set(module.seen) == {(False, False)}
    assert (module.training, module.first.training, module.second.training) == (True, True, False)
    now = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert all(now[name] is tensor for name, tensor in tensors.items())
    assert {name: (tensor.data_ptr(), tensor.stride()) for name, tensor in now.items()} == memory
    wanted = {name: name != "last.weight" for name, _ in module.named_parameters()}
    assert {name: weight.requires_grad for name, weight in module.named_parameters()} == wanted
    assert list(module.first._forward_hooks) == [hook.id]


def test_the_network_is_as_it_was_after_an_exception() -> None:
    class Broken(TinyNet):
        def forward(self, images: Tensor) -> Tensor:
            raise ZeroDivisionError("broken")

    network = Classifier(Broken(), input_size=SIZE)
    explainer_of(network).predict_step(batch_of(pictures(1)))  # is recorded as failed
    assert network.module.training
    assert all(weight.requires_grad for weight in network.parameters())


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_channels_and_inputs_that_are_not_square(channels: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = Classifier(
        module, input_size=(20, 36), mean=[0.5] * channels, std=[0.25] * channels, class_names=list("abcd")
    )
    images = torch.rand(2, channels, 20, 36, generator=torch.Generator().manual_seed(0))
    frame = Frame.of(36, 20, (20, 36), "squash")
    records = [ImageRecord(name, name, frame) for name in "xy"]
    batch = ImageBatch(images, records, [GroundTruth()] * 2)
    for baseline in BASELINES:
        result = explainer_of(network, baseline=baseline).predict_step(batch)
        assert [record.status for record in result.images] == ["ok", "ok"]
        assert result.explanations["masks"].shape == (2, 8, 8)
        assert (result.explanations["masks"] < 1).any()
        explanation = explanations_of(result, {})[1]
        assert explanation.saliency_on_original().shape == (20, 36)


def test_images_of_shares_are_explained_like_those_of_bytes() -> None:
    pixels = pictures(2)
    network = tiny_classifier()
    for baseline in ("black", "noise"):
        explainer = explainer_of(network, baseline=baseline)
        bytes_, shares = (explainer.predict_step(batch_of(images)) for images in (pixels, pixels / 255))
        np.testing.assert_allclose(
            bytes_.explanations["masks"], shares.explanations["masks"], atol=1e-4, rtol=0
        )


def test_a_path_of_start_cells_on_an_input_that_is_not_square() -> None:
    targets = class_targets(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), torch.ones(1))
    start = Start(2, None, 0.5)
    masks = start.masks(start.expand(targets), 1, 10, (20, 40))
    assert masks.shape == (4, 1, 10, 10)
    lowered = masks[:, 0] < 0.75
    for cell, (rows, columns) in enumerate([(0, 0), (0, 5), (5, 0), (5, 5)]):
        assert lowered[cell, rows : rows + 5, columns : columns + 5].all()
        assert int(lowered[cell].sum()) == 25


def test_masks_are_the_trainable_parameter_of_a_batch() -> None:
    given: list[list[Tensor]] = []

    def noting(parameters: Any) -> torch.optim.Optimizer:
        masks = list(parameters)
        given.append(masks)
        return torch.optim.Adam(masks, lr=0.1)

    explainer = explainer_of(optimizer=noting)
    given.clear()
    explainer.predict_step(batch_of(pictures(3)))
    ((masks,),) = given
    assert isinstance(masks, nn.Parameter)
    assert masks.requires_grad
    assert masks.shape == (3, 2, 8, 8)


def test_an_image_whose_label_is_missing_or_wrong_ends_no_run() -> None:
    explainer = explainer_of(tiny_classifier(targets="ground_truth"))
    batch = batch_of(pictures(3))
    truth = [GroundTruth(1), GroundTruth(-1), GroundTruth(CLASSES)]
    result = explainer.predict_step(replace(batch, truth=truth))
    assert [record.status for record in result.images] == ["ok", "failed", "failed"]
    assert "1 of 1 image has no label" in result.images[1].message
    assert f"Label {CLASSES} is outside" in result.images[2].message
    assert result.explanations["label"].tolist() == [1]
    alone = explainer.predict_step(batch_of(pictures(1)))  # something was explained before
    assert [record.status for record in alone.images] == ["failed"]


def test_first_images_without_labels_are_failures_of_their_own() -> None:
    explainer = explainer_of(tiny_classifier(targets="ground_truth"))
    for label, status in ((-1, "failed"), (-1, "failed"), (1, "ok"), (-1, "failed"), (-1, "failed")):
        result = explainer.predict_step(batch_of(pictures(1), label=label))
        assert [record.status for record in result.images] == [status]
    nothing = explainer_of(tiny_classifier(targets="ground_truth"))
    for _ in range(3):
        nothing.predict_step(batch_of(pictures(1)))
    with pytest.raises(IgosError, match="1 of 1 image has no label"):
        nothing.predict_step(batch_of(pictures(1)))
