"""The callback for anyone's training: what it logs, and that it changes nothing."""

from __future__ import annotations

import copy
import csv
import importlib
import logging
import os
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import LambdaCallback, StochasticWeightAveraging
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.strategies import FSDPStrategy
from tiny import CLASSES, SIZE, Learner, TinyNet, pictures, quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import igos_pl
from igos_pl import ExplainCallback, IgosError, MaskFile
from igos_pl.data.images import find_images
from igos_pl.models import Classifier
from igos_pl.training.samples import Samples

# Lightning's advice is for real trainings. A failed explanation is only a warning there; here, it fails the
# test with its reason, unless the test expects it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*many workers", "ignore:.*log_every_n_steps", "error:ExplainCallback"
)

ROOT = Path(igos_pl.__file__).resolve().parents[1]
QUICK: dict[str, Any] = {"iterations": 2, "mask_size": 4}
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
SCORES = ["explanations/deletion", "explanations/insertion", "explanations/insertion_minus_deletion"]


def normalized(count: int, seed: int) -> Tensor:
    """Pictures as a loader normalises them."""
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return (pictures(count, seed=seed) / 255 - mean) / std


def data(count: int, seed: int) -> TensorDataset:
    return TensorDataset(normalized(count, seed), torch.arange(count) % CLASSES)


class Trained(Learner):
    """Has everything that an explanation might disturb, and draws random numbers of all kinds."""

    def __init__(self) -> None:
        layers = (
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, CLASSES),
        )  # fmt: skip
        super().__init__(nn.Sequential(*layers))
        self.register_buffer("calls", torch.zeros(()))
        self.drawn: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1  # as observers of quantisation do
        self.log("mean_input", images.mean())
        self.draw()
        return super().forward(images)

    def draw(self) -> None:
        """Random numbers of each global generator."""
        drawn = (random.random(), np.random.rand(), float(torch.rand(())))  # noqa: NPY002
        if self.training:
            self.drawn.extend(drawn)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0] + 0.1 * torch.randn_like(batch[0])), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss


def fitted(
    folder: Path,
    callbacks: Iterable[Callback] = (),
    module: LightningModule | None = None,
    validation: Any = True,
    **options: Any,
) -> Trainer:
    """A trainer that has trained a module."""
    seed_everything(3, verbose=False)
    module = module or Trained()
    options = {"max_epochs": 2, **options}
    trainer = quiet_trainer(folder, callbacks=list(callbacks), **options)
    if validation is True:
        validation = DataLoader(data(10, 2), 4)
    train = DataLoader(data(20, 1), 4, shuffle=True)
    trainer.fit(module, train, validation)
    return trainer


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Everything that a training leaves behind."""
    module = trainer.lightning_module
    return {
        "weights": module.state_dict(),
        "gradients": {name: weight.grad for name, weight in module.named_parameters()},
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "modes": [part.training for part in module.modules()],
        "frozen": [weight.requires_grad for weight in module.parameters()],
        "strides": [weight.stride() for weight in module.parameters()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()],
        "drawn": getattr(module, "drawn", None),
        "random": (random.random(), np.random.rand(), torch.rand(3)),  # noqa: NPY002
        "metrics": trainer.callback_metrics,
        "logged": trainer.logged_metrics,
    }


def assert_equal(found: Any, expected: Any) -> None:
    """Bit for bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_equal(found[name], expected[name])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


def averaging() -> list[Callback]:
    pytest.importorskip("pytorch_lightning.callbacks.weight_averaging")  # since Lightning 2.6
    from pytorch_lightning.callbacks import EMAWeightAveraging

    return [EMAWeightAveraging(decay=0.9)]


class Compiled(Trained):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.compile(self.backbone, backend="eager")


class ChannelsLast(Trained):
    def __init__(self) -> None:
        super().__init__()
        self.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("module", "others", "options"),
    [
        (Trained, list, {}),
        (Trained, list, {"accumulate_grad_batches": 2, "val_check_interval": 0.5}),
        (Trained, list, {"precision": "bf16-mixed"}),
        (Trained, lambda: [StochasticWeightAveraging(0.01, swa_epoch_start=1)], {}),
        (Trained, averaging, {}),
        (Compiled, list, {}),
        (ChannelsLast, list, {"overfit_batches": 2}),
        (Trained, list, {"num_sanity_val_steps": 0, "gradient_clip_val": 0.5}),
    ],
    ids=["plain", "accumulation", "bf16-mixed", "swa", "ema", "compiled", "channels last", "no sanity check"],
)
@pytest.mark.filterwarnings("ignore:.*Skipping val loop", "ignore:.*overfit_batches", "ignore:Swapping")
def test_the_training_is_the_same_bit_for_bit(
    tmp_path: Path,
    module: type[LightningModule],
    others: Callable[[], list[Callback]],
    options: dict[str, Any],
) -> None:
    states = []
    for name in ("without", "with"):
        seed_everything(3, verbose=False)
        callbacks = others() + ([ExplainCallback(samples=2, **QUICK)] if name == "with" else [])
        trainer = fitted(tmp_path / name, callbacks, module(), max_epochs=3, **options)
        states.append(state_of(trainer))
    assert_equal(states[1], states[0])
    files = sorted(path.name for path in (tmp_path / "with" / "explanations").glob("*.h5"))
    assert files[:3] == ["epoch=000.h5", "epoch=001.h5", "epoch=002.h5"]  # SWA adds an epoch of its own


def test_nothing_is_compiled_for_an_explanation(tmp_path: Path) -> None:
    counts = []
    for callbacks in ([], [ExplainCallback(samples=3, **QUICK)]):
        compiled: list[Any] = []

        def backend(graph: Any, inputs: Any, compiled: list[Any] = compiled) -> Any:
            compiled.append(graph)
            return graph.forward

        torch._dynamo.reset()
        module = Trained()
        module.backbone = torch.compile(module.backbone, backend=backend)
        fitted(tmp_path, callbacks, module, max_epochs=1)
        counts.append(len(compiled))
    assert counts[0] == counts[1] > 0


class Watch(Callback):
    """Compares the module before and after the explanation."""

    def __init__(self, explain: ExplainCallback) -> None:
        self.explain = explain
        self.seen = 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def look() -> list[Any]:
            return [
                (id(one), one.data_ptr(), one.stride(), one._version, one.requires_grad)
                for weight in pl_module.parameters()
                for one in (weight, weight.grad)
            ]

        before, gradients = look(), [weight.grad.clone() for weight in pl_module.parameters()]
        self.explain.on_train_epoch_end(trainer, pl_module)
        assert look() == before
        assert all(
            torch.equal(weight.grad, value)
            for weight, value in zip(pl_module.parameters(), gradients, strict=True)
        )
        self.seen += 1


def test_weights_and_gradients_stay_where_they_are(tmp_path: Path) -> None:
    samples = (normalized(2, 5), [0, 1])
    explain = ExplainCallback(samples, **QUICK)
    watch = Watch(explain)
    module = Trained()
    trainer = quiet_trainer(tmp_path, callbacks=[watch], max_epochs=2, limit_val_batches=0)
    explain.on_fit_start(trainer, module)
    trainer.fit(module, DataLoader(data(8, 1), 4))
    assert watch.seen == 2
    assert len(list((tmp_path / "explanations").glob("*.h5"))) == 2


DDP = """
import sys, hashlib, io, torch
from pathlib import Path
import test_training_callback as tests
from igos_pl import ExplainCallback
from pytorch_lightning import Trainer

torch.set_num_threads(1)
digests = []
for name in ("without", "with"):
    folder = Path(sys.argv[1]) / name
    callbacks = [ExplainCallback(samples=3, **tests.QUICK)] if name == "with" else []
    trainer = tests.fitted(folder, callbacks, devices=2, strategy="ddp_fork", max_epochs=3)
    weights = torch.cat([weight.flatten() for weight in trainer.lightning_module.state_dict().values()])
    digests.append(hashlib.sha256(weights.numpy().tobytes()).hexdigest())
print("digests", *digests)
"""


def test_two_processes_train_as_they_do_without_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(DDP)
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True, text=True, env=env, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    without, explained = done.stdout.splitlines()[-1].split()[1:]
    assert without == explained
    with MaskFile(tmp_path / "with" / "explanations" / "epoch=001.h5") as masks:
        assert [row.sample_id for row in masks] == ["image 0", "image 1", "image 2"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_without_a_logger_everything_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(importlib.import_module("igos_pl.training.callback"), "rank_zero_info", told.append)
    fitted(tmp_path, [ExplainCallback(samples=3, mean=MEAN, std=STD, **QUICK)])
    folder = tmp_path / "explanations"
    assert told == [f"Explanations of 2 epochs are in {folder}"]
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    drawn = [f"epoch={epoch:03d}/{number}.png" for epoch in (0, 1) for number in range(3)]
    assert names == sorted(["epoch=000.h5", "epoch=001.h5", "metrics.csv", *drawn])
    with pytest.raises(IgosError, match="No image .*igos-pl wrote are left out: .*epoch=000, .*epoch=001"):
        find_images(tmp_path)
    rows = rows_of(folder / "metrics.csv")
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "4"), ("1", "9")]
    with MaskFile(folder / "epoch=001.h5") as masks:
        assert masks.attributes["epoch"] == 1
        assert str(masks.attributes["preset"]).startswith("fast, with ")
        deletion, insertion = (float(masks.column(name).mean()) for name in ("deletion", "insertion"))
    expected = dict(zip(SCORES, (deletion, insertion, insertion - deletion), strict=True))
    assert {name: float(rows[1][name]) for name in SCORES} == pytest.approx(expected)
    pixels = np.asarray(Image.open(folder / "epoch=001" / "0.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200


@pytest.mark.parametrize("is_kept", [False, True])
def test_weights_of_every_epoch_have_their_digest(tmp_path: Path, is_kept: bool) -> None:
    kept: list[Classifier] = []

    def adapter(module: Any) -> Classifier:
        if not kept:
            kept.append(Classifier(module.backbone, mean=MEAN, std=STD, input_size=SIZE))
            kept[0].file_sha256 = "0" * 64  # as if it came from a file
        return kept[0]

    fitted(tmp_path, [ExplainCallback(samples=1, network=adapter if is_kept else None, **QUICK)])
    digests = set()
    for epoch in (0, 1):
        with MaskFile(tmp_path / "explanations" / f"epoch=00{epoch}.h5") as masks:
            digests.add(masks.attributes["network.weights_sha256"])
    assert len(digests) == 2


def test_tensorboard_and_csv_at_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = [TensorBoardLogger(tmp_path, "board"), CSVLogger(tmp_path, "table")]
    fitted(tmp_path, [ExplainCallback(samples=2, **QUICK)], logger=loggers)
    assert isinstance(loggers[0], TensorBoardLogger)
    events = EventAccumulator(loggers[0].log_dir, {"images": 0, "scalars": 0})
    events.Reload()
    assert sorted(events.Tags()["images"]) == ["explanations/0", "explanations/1"]
    for name in ("explanations/0", "explanations/1"):
        images = events.Images(name)
        assert [image.step for image in images] == [4, 9]
        assert min(images[0].width, images[0].height) > 100
    scalars = {name: events.Scalars(name) for name in (*SCORES, "loss_epoch", "val_loss")}
    steps = {name: [point.step for point in points] for name, points in scalars.items()}
    assert steps == {name: [4, 9] for name in scalars}, "not at the steps of the epochs' own metrics"
    rows = [row for row in rows_of(tmp_path / "table" / "version_0" / "metrics.csv") if row[SCORES[0]]]
    for name in SCORES:
        assert [float(row[name]) for row in rows] == pytest.approx([p.value for p in scalars[name]])
    files = tmp_path / "board" / "version_0" / "explanations"
    assert sorted(path.name for path in files.iterdir()) == ["epoch=000.h5", "epoch=001.h5"]


def test_a_logger_without_pictures_gets_them_as_files(tmp_path: Path) -> None:
    fitted(tmp_path, [ExplainCallback(samples=1, **QUICK)], logger=CSVLogger(tmp_path, "table"), max_epochs=1)
    folder = tmp_path / "table" / "version_0" / "explanations"
    assert sorted(path.name for path in folder.rglob("*")) == ["0.png", "epoch=000", "epoch=000.h5"]


def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="p", save_dir=tmp_path, offline=True)
    fitted(tmp_path, [ExplainCallback(samples=2, class_names=list("abcde"), **QUICK)], logger=logger)
    run = logger.experiment
    summary = dict(run.summary)
    run.finish()
    assert {*SCORES, "explanations/0", "explanations/1"} <= set(summary)
    assert summary["trainer/global_step"] == 9
    assert re.fullmatch(r"[a-e](, labelled a)? \(0\.\d\d\)", summary["explanations/0"]["captions"][0])
    kept = list(Path(run.dir).glob("media/images/explanations/*.png"))
    assert len(kept) == 4  # two images at two epochs


def explained(folder: Path, epoch: int = 0) -> dict[str, Any]:
    """The columns of an epoch's masks."""
    with MaskFile(folder / "explanations" / f"epoch={epoch:03d}.h5") as masks:
        names = ("label", "masks", "score", "sample_id")
        return {name: masks.column(name) for name in names}


def test_samples_come_from_the_validation_in_its_order(tmp_path: Path) -> None:
    callback = ExplainCallback(samples=9, **QUICK)
    fitted(tmp_path, [callback], max_epochs=1)  # three batches, of which the sanity check has two
    assert callback._samples is not None
    assert torch.equal(callback._samples.images, normalized(10, 2)[:9])
    assert list(callback._samples.labels) == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert len(explained(tmp_path)["label"]) == 9


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Can be read only once at a time, as many streams."""

    def __init__(self) -> None:
        self.begun = 0

    def __iter__(self) -> Any:
        self.begun += 1
        for image in normalized(6, 2):
            yield {"pixel_values": image, "labels": torch.tensor(1)}


class Dicts(Trained):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step((batch["pixel_values"], batch["labels"]), batch_idx)


def test_streams_of_dicts_are_not_read_again(tmp_path: Path) -> None:
    begun = []
    for callbacks in ([], [ExplainCallback(samples=5, **QUICK)]):
        stream = Stream()
        fitted(tmp_path, callbacks, Dicts(), DataLoader(stream, 3))
        begun.append(stream.begun)
    assert begun[0] == begun[1]
    assert explained(tmp_path, 1)["sample_id"].tolist() == [f"image {number}" for number in range(5)]


def test_targets(tmp_path: Path) -> None:
    samples = (normalized(3, 7), torch.tensor([2, 0, 4]))
    expected: list[tuple[Any, list[int]]] = [("label", [2, 0, 4]), (1, [1, 1, 1]), ([3, 2, 1], [3, 2, 1])]
    for number, (targets, labels) in enumerate(expected):
        folder = tmp_path / str(number)
        fitted(folder, [ExplainCallback(samples, targets=targets, **QUICK)], max_epochs=1)
        assert explained(folder)["label"].tolist() == labels
    module = Trained()
    fitted(tmp_path / "predicted", [ExplainCallback(samples, **QUICK)], module, max_epochs=1)
    module.eval()
    probabilities = module.backbone(samples[0]).softmax(1).max(1)
    found = explained(tmp_path / "predicted")
    assert found["label"].tolist() == probabilities.indices.tolist()
    np.testing.assert_allclose(found["score"], probabilities.values.detach(), atol=1e-5)


def test_mean_and_std_change_no_input(tmp_path: Path) -> None:
    samples, masks = normalized(2, 7), []
    for name, values in {"with": {"mean": MEAN, "std": STD}, "without": {}}.items():
        fitted(tmp_path / name, [ExplainCallback(samples, **values, **QUICK)], max_epochs=1)
        masks.append(explained(tmp_path / name)["masks"])
    np.testing.assert_allclose(masks[0], masks[1], atol=1e-4)
    assert np.ptp(masks[0]) > 0.01


def test_networks_inside_of_the_module(tmp_path: Path) -> None:
    samples = normalized(2, 7)
    choices: dict[str, Any] = {
        "module": None,
        "part": lambda module: module.backbone,
        "adapter": lambda module: Classifier(module.backbone, mean=MEAN, std=STD, input_size=SIZE, top_k=2),
    }
    masks = {}
    for name, network in choices.items():
        fitted(tmp_path / name, [ExplainCallback(samples, network=network, **QUICK)], max_epochs=1)
        masks[name] = explained(tmp_path / name)["masks"]
    np.testing.assert_array_equal(masks["module"], masks["part"])
    np.testing.assert_allclose(masks["adapter"][::2], masks["module"], atol=1e-4)
    drawn = sorted(path.name for path in (tmp_path / "adapter" / "explanations" / "epoch=000").iterdir())
    assert drawn == ["0-1.png", "0.png", "1-1.png", "1.png"]


class CountedInput(Trained):
    """Counts the images that it gets in explanations and validations."""

    def __init__(self) -> None:
        super().__init__()
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += 0 if self.training else len(images)
        return super().forward(images)


@pytest.mark.parametrize("preset", ["fast", "search"])
def test_the_check_before_the_training_is_quick(tmp_path: Path, preset: str) -> None:
    counts: list[int] = []
    module = CountedInput()
    count = LambdaCallback(on_train_start=lambda *_: counts.append(module.images))
    samples = normalized(2, 7)
    fitted(tmp_path, [ExplainCallback(samples, preset=preset), count], module, validation=None, max_epochs=1)
    # Two samples: one iteration of two terms at two positions, the scores of the image and its baseline, and
    # the choice of the class.
    assert counts == [2 * (2 * 2 + 2 + 1)]
    with MaskFile(tmp_path / "explanations" / "epoch=000.h5") as masks:
        assert str(masks.attributes["preset"]).startswith(preset)


QUARTERS = torch.arange(4).reshape(2, 2).repeat_interleave(SIZE // 2, 0).repeat_interleave(SIZE // 2, 1)


@pytest.mark.parametrize("preset", ["draft", "search"])
def test_regions_of_all_samples(tmp_path: Path, preset: str) -> None:
    fitted(tmp_path, [ExplainCallback(normalized(2, 7), regions=QUARTERS, preset=preset)], max_epochs=1)
    with MaskFile(tmp_path / "explanations" / "epoch=000.h5") as masks:
        assert [len(np.unique(labels)) for labels in masks.column("regions")] == [4, 4]
        assert [len(np.unique(mask)) for mask in masks.column("masks")] == [4, 4]


@pytest.mark.parametrize("kind", [list, torch.stack])
def test_the_check_takes_the_label_maps_of_the_images_that_it_has(tmp_path: Path, kind: Any) -> None:
    maps = [QUARTERS, QUARTERS % 2, QUARTERS // 2]
    checked: list[int] = []
    callback = ExplainCallback(samples=3, regions=kind(maps), **QUICK)
    watch = LambdaCallback(on_train_start=lambda *_: checked.append(len(callback._samples or ())))
    loader = DataLoader(data(10, 2), 1)
    fitted(tmp_path, [watch, callback], validation=loader, max_epochs=1, num_sanity_val_steps=2)
    assert checked == [2]
    with MaskFile(tmp_path / "explanations" / "epoch=000.h5") as masks:
        assert [np.unique(labels).tolist() for labels in masks.column("regions")] == [
            [0, 1, 2, 3],
            [0, 1],
            [0, 1],
        ]


def test_every_n_epochs(tmp_path: Path) -> None:
    fitted(tmp_path, [ExplainCallback(normalized(1, 7), every_n_epochs=2, **QUICK)], max_epochs=5)
    assert [row["epoch"] for row in rows_of(tmp_path / "explanations" / "metrics.csv")] == ["1", "3"]


def test_without_metrics_there_are_pictures(tmp_path: Path) -> None:
    fitted(tmp_path, [ExplainCallback(normalized(1, 7), metrics=False, **QUICK)], max_epochs=1)
    (row,) = rows_of(tmp_path / "explanations" / "metrics.csv")
    assert row[SCORES[0]] == ""
    assert (tmp_path / "explanations" / "epoch=000" / "0.png").exists()


def test_a_trial_run_explains_and_writes_nothing(tmp_path: Path) -> None:
    callback = ExplainCallback(samples=2, every_n_epochs=5, **QUICK)
    fitted(tmp_path, [callback], fast_dev_run=True)
    assert callback._samples is not None
    assert not list(tmp_path.iterdir())
    with pytest.raises(IgosError, match="must return logits"):
        fitted(tmp_path, [ExplainCallback(samples=2, **QUICK)], Broken(), fast_dev_run=True)


class Broken(Trained):
    """Whose forward returns something else from the second epoch on, or from the beginning."""

    epoch = 0

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return logits if self.training or self.current_epoch < self.epoch else {"scores": logits}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.backbone(batch[0]), batch[1]))


class BrokenLater(Broken):
    epoch = 1


def test_a_failed_explanation_ends_no_training(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fitted(tmp_path, [ExplainCallback(samples=2, **QUICK)], BrokenLater(), max_epochs=4)
    assert trainer.current_epoch == 4
    told = [str(warning.message) for warning in caught if "ExplainCallback" in str(warning.message)]
    assert len(told) == 1
    assert "BrokenLater must return logits of shape (B, classes)" in told[0]
    assert "returned a dict" in told[0]
    assert len(rows_of(tmp_path / "explanations" / "metrics.csv")) == 1


class RaisesLater(Broken):
    def forward(self, images: Tensor) -> Any:
        if not self.training and self.current_epoch and len(images) < 4:
            raise RuntimeError("no such size")
        return Trained.forward(self, images)


def test_exceptions_of_the_network_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="ExplainCallback: RuntimeError: no such size"):
        trainer = fitted(tmp_path, [ExplainCallback(samples=2, **QUICK)], RaisesLater())
    assert trainer.current_epoch == 2
    state = torch.get_rng_state()
    with pytest.warns(UserWarning, match="no such size"):
        plain = fitted(tmp_path / "x", [ExplainCallback(samples=2, **QUICK)], RaisesLater())
    assert torch.equal(torch.get_rng_state(), state)
    assert plain.current_epoch == 2


def test_files_that_cannot_be_written_end_no_training(tmp_path: Path) -> None:
    (tmp_path / "explanations").write_text("a file in the place of the folder")
    with pytest.warns(UserWarning, match="ExplainCallback: .*explanations"):
        trainer = fitted(tmp_path, [ExplainCallback(samples=1, **QUICK)])
    assert trainer.current_epoch == 2


def test_too_few_images_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="samples is 20, but the validation has only 10 images"):
        fitted(tmp_path, [ExplainCallback(samples=20, **QUICK)], max_epochs=1)
    assert len(explained(tmp_path)["label"]) == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples is 0, but must be at least 1"),
        ({"every_n_epochs": 0}, "every_n_epochs is 0"),
        ({"targets": "labels"}, "targets is 'labels', but must be one of: predicted, label"),
        ({"targets": [1, 2], "samples": 3}, "There are 2 targets for 3 images: give one"),
        ({"samples": torch.zeros(2, 3, 8, 8), "targets": "label"}, "the samples have no labels"),
        ({"regions": [QUARTERS] * 2, "samples": 3}, "There are 2 label maps for 3 images: give one"),
        ({"samples": (torch.zeros(2, 3, 8, 8), [1])}, "2 images, but labels of the shape"),
        ({"samples": torch.zeros(2, 3, 8)}, "no tensor of images"),
        ({"samples": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "must be the network's floating-point"),
        ({"mean": [0.5]}, "mean and std belong together"),
        ({"preset": "quick"}, "preset is 'quick'"),
        ({"regions": "slc"}, "regions is 'slc', but must be slic, label maps, or a RegionSource"),
        ({"network": nn.Identity()}, "network is a Identity, but must be a function that finds the network"),
        ({"output": "tanh"}, "output is 'tanh', but must be one of: softmax, sigmoid"),
        ({"class_names": "cats"}, "class_names is 'cats' .* must be a list of names"),
        ({"samples": (torch.zeros(2, 3, 8, 8), None)}, "NoneType as labels: there must be one integer"),
        ({"iterations": 0}, "iterations is 0"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(IgosError, match=message):
        ExplainCallback(**settings)


def test_unknown_settings_are_refused_at_once() -> None:
    with pytest.raises(IgosError, match="no argument .iteration.: did you mean iterations"):
        ExplainCallback(iteration=3)


@pytest.mark.parametrize(
    ("callback", "options", "message"),
    [
        ({"samples": 3}, {"limit_val_batches": 0}, "this training has no validation: pass samples="),
        ({"samples": 3}, {"precision": "64-true"}, "trainer.precision is '64-true'"),
        ({"mask_size": 40}, {}, "mask_size is 40, which is more than the network's input"),
        ({"network": lambda module: module.drawn}, {}, "network is of the type list, but must"),
        ({"network": lambda m: Classifier(m, mean=[0], std=[1])}, {}, "has 3 channels, but Trained takes 1"),
        ({"network": Classifier, "mean": 0, "std": 1}, {}, "has its own mean, std: leave them out"),
        ({"regions": QUARTERS[:9]}, {}, "has 24 x 9 pixels, but the image has 24 x 24"),
        ({"targets": 7}, {}, "Label 7 is outside of the 5 classes"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_epoch(
    tmp_path: Path, callback: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    module = Trained()
    with pytest.raises(IgosError, match=message):
        fitted(tmp_path, [ExplainCallback(**callback)], module, **options)
    assert not module.drawn, "training began"


class Nameless(Trained):
    """A validation without labels, or with something else than images."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass


@pytest.mark.parametrize(
    ("tensors", "settings", "message"),
    [
        ([normalized(4, 1)], {"targets": "label"}, "the samples have no labels: pass samples"),
        ([torch.zeros(4, 3)], {}, r"only: torch.float32 \(2, 3\)"),
    ],
)
def test_validations_without_what_is_needed_are_refused(
    tmp_path: Path, tensors: list[Tensor], settings: dict[str, Any], message: str
) -> None:
    loader = DataLoader(TensorDataset(*tensors), 2)
    with pytest.raises(IgosError, match=message):
        fitted(tmp_path, [ExplainCallback(samples=2, **settings)], Nameless(), loader)


def test_split_weights_are_refused() -> None:
    trainer = SimpleNamespace(precision="32-true", strategy=FSDPStrategy(), enable_validation=True)
    with pytest.raises(IgosError, match="FSDPStrategy splits its weights: use DDP"):
        ExplainCallback().on_fit_start(trainer, Trained())  # type: ignore[arg-type]


def test_remote_folders_get_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module, callback = Trained(), ExplainCallback(samples=1, **QUICK)
    trainer = quiet_trainer(tmp_path, callbacks=[callback], max_epochs=1)
    trainer._default_root_dir = "s3://bucket/runs"
    with pytest.warns(UserWarning, match="s3://bucket/runs is not a folder of a file system"):
        trainer.fit(module, DataLoader(data(8, 1), 4), DataLoader(data(8, 2), 4))
    assert not list(tmp_path.iterdir())


def test_the_time_is_told_to_who_asks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "igos_pl"):
        fitted(tmp_path, [ExplainCallback(samples=1, **QUICK)], max_epochs=1)
    assert re.search(r"epoch 0: explanations took \d+\.\d s", caplog.text)


def test_a_callback_serves_several_trainings(tmp_path: Path) -> None:
    callback = ExplainCallback(samples=2, **QUICK)
    fitted(tmp_path / "a", [callback], max_epochs=1)
    fitted(tmp_path / "b", [callback], max_epochs=1, validation=DataLoader(data(6, 9), 2))
    assert callback._samples is not None
    assert torch.equal(callback._samples.images, normalized(6, 9)[:2])
    assert len(explained(tmp_path / "b")["label"]) == 2
    copy.deepcopy(callback)  # as tuners do


class Diverges(Broken):
    def forward(self, images: Tensor) -> Any:
        logits = Trained.forward(self, images)
        return logits if self.training or not self.current_epoch else logits * torch.nan


def test_a_diverged_network_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="ExplainCallback: the network's scores are not finite numbers"):
        trainer = fitted(tmp_path, [ExplainCallback(samples=2, **QUICK)], Diverges(), max_epochs=3)
    assert trainer.current_epoch == 3
    assert [row[SCORES[0]] == "" for row in rows_of(tmp_path / "explanations" / "metrics.csv")] == [
        False,
        True,
        True,
    ]


def test_sigmoid_and_functions_as_targets(tmp_path: Path) -> None:
    samples, module = normalized(2, 7), Trained()
    fitted(tmp_path / "a", [ExplainCallback(samples, output="sigmoid", **QUICK)], module, max_epochs=1)
    logits = module.eval().backbone(samples)
    np.testing.assert_allclose(
        explained(tmp_path / "a")["score"], logits.sigmoid().amax(1).detach(), atol=1e-5
    )

    def first(output: Tensor) -> Tensor:
        return output[0].sigmoid()

    fitted(tmp_path / "b", [ExplainCallback(samples, targets=first, **QUICK)], module, max_epochs=1)
    logits = module.eval().backbone(samples)
    np.testing.assert_allclose(explained(tmp_path / "b")["score"], logits[:, 0].sigmoid().detach(), atol=1e-5)


def test_labels_are_integers_of_each_image() -> None:
    images = torch.zeros(2, 3, 4, 4)
    assert Samples.of([images, torch.tensor([3, 1])]).labels == [3, 1]
    for other in (torch.tensor([0.5, 1.0]), torch.tensor([True, False]), torch.tensor([1, 2, 3])):
        assert Samples.of((images, other)).labels == [-1, -1]


def test_one_channel_and_any_shape(tmp_path: Path) -> None:
    class Grey(Trained):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.expand(-1, 3, -1, -1))

    images = normalized(2, 3)[:, :1, :16]
    settings: dict[str, Any] = {"mean": 0.5, "std": 0.2, "iterations": 1}
    fitted(tmp_path, [ExplainCallback(images, **settings)], Grey(), validation=None, max_epochs=1)
    assert explained(tmp_path)["masks"].shape == (2, 16, 16)


def test_it_also_works_for_the_other_name_of_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")

    class Other(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = TinyNet()

        def forward(self, images: Tensor) -> Tensor:
            self.log("inputs", images.mean())
            logits: Tensor = self.net(images)
            return logits

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    quiet = {"enable_checkpointing": False, "enable_model_summary": False, "enable_progress_bar": False}
    logger = lightning.loggers.TensorBoardLogger(tmp_path)
    trainer = lightning.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, logger=logger,
        callbacks=[ExplainCallback(samples=2, **QUICK)], **quiet,
    )  # fmt: skip
    trainer.fit(Other(), DataLoader(data(8, 1), 4), DataLoader(data(8, 2), 4))
    (path,) = tmp_path.rglob("epoch=000.h5")
    with MaskFile(path) as masks:
        assert len(masks) == 2


SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_the_page_s_snippets_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """They stand in for a training of one's own, so they get its names."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {
        "Trainer": lambda **options: quiet_trainer(tmp_path, **{"max_epochs": 1, **options}),
        "module": Trained(),
        "train_loader": DataLoader(data(8, 1), 4),
        "val_loader": DataLoader(data(8, 2), 4),
        "val_set": data(8, 2),
    }
    exec(SNIPPETS[number].replace("from pytorch_lightning import Trainer\n", ""), names)
    used = names.get("trainer")
    if used is None:
        names["Trainer"](callbacks=[names["callback"]]).fit(
            names["module"], names["train_loader"], names["val_loader"]
        )
    assert len(explained(tmp_path)["label"]) >= 1
