"""Tiny networks, pictures, batches and problems with which the tests are quick; import it as ``tiny``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import Dataset

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import Frame
from igos_pl.data.records import ImageRecord
from igos_pl.data.targets import Targets, class_targets
from igos_pl.datamodules.samples import ImageDataset
from igos_pl.models import Classifier
from igos_pl.solver.baselines import make_baselines
from igos_pl.solver.methods import METHODS
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Objective, ObjectiveSettings, Problem, Scorer
from igos_pl.solver.optimize import Solution, optimize
from igos_pl.solver.optimizers import NAG, LineSearch

CLASSES = 5
SIZE = 24


class TinyNet(nn.Module):
    """Two smooth convolutions and a linear layer; its weights depend on the seed alone."""

    def __init__(self, classes: int = CLASSES, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.first = nn.Conv2d(3, 6, 3, padding=1)
            self.second = nn.Conv2d(6, 8, 3, padding=1, stride=2)
            self.last = nn.Linear(8, classes)
        generator = torch.Generator().manual_seed(seed)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.4
        self.last.weight.data *= 8

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.second(self.first(images).tanh()).tanh()
        return self.last(hidden.mean((2, 3)))


class Learner(LightningModule):
    """The least that can be trained.

    Args:
        backbone: images to logits.
    """

    def __init__(self, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone or TinyNet()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.backbone(images)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class NanOnBright(TinyNet):
    """Breaks down on images that are bright in all."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3)) > 1.5
        return torch.where(bright[:, None], torch.nan, super().forward(images))


class Counting:
    """A network that remembers the images that it was shown, and may run out of memory."""

    def __init__(self, network: Any, limit: int | None = None) -> None:
        self.network = network
        self.limit = limit
        self.batches: list[Tensor] = []

    @property
    def images(self) -> Tensor:
        """All images so far."""
        return torch.cat(self.batches)

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        if self.limit is not None and len(images) > self.limit:
            raise torch.OutOfMemoryError("no room")
        self.batches.append(images.detach().clone())
        scores: Tensor = self.network.score(images, targets)
        return scores


def tiny_classifier(module: nn.Module | None = None, **options: Any) -> Classifier:
    """A frozen classifier of `SIZE` pixels."""
    network = Classifier(module or TinyNet(), **{"input_size": SIZE, **options})
    network.freeze()
    return network


def pictures(number: int, size: int = SIZE, seed: int = 0) -> Tensor:
    """Different smooth pictures ``(number, 3, size, size)`` uint8."""
    random = np.random.RandomState(seed)
    coarse = torch.from_numpy(random.rand(number, 3, 5, 5)).float()
    fine = nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    return (fine * 255).round().to(torch.uint8)


def batch_of(images: Tensor, names: Sequence[str] | None = None, label: int = -1) -> ImageBatch:
    """A batch as a data module makes it."""
    names = names or [f"image{i}" for i in range(len(images))]
    side = images.shape[-1]
    frame = Frame.of(side, side, (side, side), "squash")
    records = [ImageRecord(name, f"/nowhere/{name}.png", frame, label) for name in names]
    return ImageBatch(images, records, [GroundTruth(label) for _ in names])


def write_pictures(folder: Path, names: Sequence[str], width: int = 40, height: int = 30) -> Path:
    """Write different pictures of unequal sides as files; returns the folder."""
    for number, (name, pixels) in enumerate(
        zip(names, pictures(len(names), max(width, height)), strict=True)
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        array = pixels.permute(1, 2, 0).numpy()[:height, :width]
        Image.fromarray(np.roll(array, number, axis=1)).save(path)
    return folder


def real_photos() -> dict[str, Image.Image]:
    """Photos of several aspect ratios: wide, upright, square, very wide, and smaller than any input.

    Skips the test if the packages that have them are not installed.
    """
    files = {"china": ("sklearn", "datasets/images/china.jpg"), "coffee": ("skimage", "data/coffee.png")}
    found = {}
    for name, (package, path) in files.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            pytest.skip(f"{package}, which has the photos, is not installed")
        found[name] = Image.open(Path(spec.origin).parent / path).convert("RGB")
    china, coffee = found["china"], found["coffee"]
    return {
        "wide": china,
        "upright": china.transpose(Image.Transpose.ROTATE_90),
        "square": coffee.crop((100, 0, 500, 400)),
        "panorama": china.crop((0, 150, 640, 333)),
        "small": coffee.resize((61, 43)),
    }


def probabilities_of(network: Classifier, picture: Image.Image) -> Tensor:
    """A network's probabilities for a picture, by its own preprocessing."""
    pixels, _ = network.preprocessing(picture)
    with torch.no_grad():
        return network.probabilities(network.normalize(pixels[None]))[0]


def quiet_trainer(folder: Path, **options: Any) -> Trainer:
    """A trainer on the CPU that writes and says nothing by itself."""
    quiet = {
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    return Trainer(default_root_dir=folder, accelerator="cpu", **{**quiet, **options})


def make_trainers_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the trainers of pages train one epoch on the CPU and write nothing by themselves."""
    quick = partial(
        pytorch_lightning.Trainer,
        accelerator="cpu",
        max_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    monkeypatch.setattr(pytorch_lightning, "Trainer", quick)


class Items(Dataset[Any]):
    """A map-style data set of the pictures of `pictures`.

    Args:
        number: of items.
        kind: ``tensor`` (float in [0, 1]), ``uint8``, ``pil``, ``dict``, or ``boxes``.
        size: of the pictures.
        broken: items at which it raises.
    """

    def __init__(
        self, number: int, kind: str = "tensor", size: int = SIZE, broken: list[int] | None = None
    ) -> None:
        self.pixels = pictures(number, size)
        self.kind = kind
        self.broken = broken or []

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Any:
        if index in self.broken:
            raise KeyError(f"nothing at {index}")
        pixels, label = self.pixels[index], index % CLASSES
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        boxes = {"boxes": torch.tensor([[1.0, 2, 9, 12]]), "labels": torch.tensor([label])}
        items = {
            "tensor": (pixels.float() / 255, label),
            "uint8": (pixels, label),
            "pil": (picture, label),
            "dict": {"image": picture, "label": label, "image_id": index},
            "boxes": (pixels.float() / 255, boxes),
        }
        return items[self.kind]


class GoldenClassifier:
    """The golden files' network: two convolutions and a linear layer, softmax score."""

    def __init__(self, case: dict[str, Tensor]) -> None:
        self.case = case

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        case = self.case
        hidden = nn.functional.conv2d(images, case["c1w"], case["c1b"], padding=1).relu()
        hidden = nn.functional.avg_pool2d(hidden, 2)
        hidden = nn.functional.conv2d(hidden, case["c2w"], case["c2b"], padding=1).relu()
        logits = hidden.mean((2, 3)) @ case["fw"].T + case["fb"]
        return logits.softmax(1).gather(1, targets.label[:, None]).squeeze(1)


SETTINGS = ObjectiveSettings(l1=0.3, l2=2.0, path_steps=3, noise=0.1)
FACTORIES: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "NAG": lambda masks: NAG(masks, alpha=2.0),
    "LineSearch": lambda masks: LineSearch(masks, alpha=50.0),
    "Adam": lambda masks: torch.optim.Adam(masks, lr=0.1),
}


def problem_of(images: list[int], labels: list[int], dtype: torch.dtype = torch.float32) -> Problem:
    """Rows for some pictures; a row's key depends on its picture and label alone."""
    network = tiny_classifier()
    pixels = pictures(max(images) + 1)
    names = [str(i) for i in range(len(pixels))]
    baselines = network.normalize(make_baselines("blur", pixels, names, 0)).to(dtype)
    targets = class_targets(torch.tensor(images), torch.tensor(labels), torch.ones(len(images)))
    keys = [100 * image + label for image, label in zip(images, labels, strict=True)]
    return Problem(network.normalize(pixels).to(dtype), baselines, targets, keys)


def objective_of(problem: Problem, network: Scorer | None = None, **options: Any) -> Objective:
    """iGOS++ on the tiny network unless the options say otherwise."""
    return Objective(
        network or tiny_classifier(),
        problem,
        options.get("method", METHODS["igos++"]),
        options.get("settings", SETTINGS),
        MicroBatches(options.get("micro_batch", 10)),
    )


def random_masks(rows: int, masks: int, size: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    """Away from 0 and 1, where the area has a corner."""
    random = torch.rand(rows, masks, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return 0.1 + 0.8 * random


def solve(objective: Objective, optimizer: str, iterations: int = 4, average: bool = False) -> Solution:
    rows, masks = len(objective.problem.targets), objective.method.masks
    leaf = nn.Parameter(torch.ones(rows, masks, 6, 6))
    return optimize(objective, leaf, FACTORIES[optimizer]([leaf]), iterations, average)


@contextmanager
def broken_at_the_third_image(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends the program by an exception when the third image is read."""
    read = ImageDataset.__getitem__

    def breaks(self: ImageDataset, numbers: Sequence[int]) -> ImageBatch:
        if 2 in numbers:
            raise RuntimeError("the machine is on fire")
        return read(self, numbers)

    with monkeypatch.context() as patched:
        patched.setattr(ImageDataset, "__getitem__", breaks)
        yield
