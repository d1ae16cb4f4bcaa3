"""Tiny networks, pictures and batches with which the tests are quick; import it as ``tiny``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_lightning import Trainer
from torch import Tensor, nn

from igos_pl.batches import ImageBatch
from igos_pl.models import Classifier
from igos_pl.store import ImageRecord
from igos_pl.targets import Targets
from igos_pl.truth import GroundTruth

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
    return Classifier(module or TinyNet(), **{"input_size": SIZE, **options})


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
    records = [ImageRecord(name, f"/nowhere/{name}.png", side, side, label) for name in names]
    return ImageBatch(images, records, [GroundTruth(label) for _ in names], "squash")


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


def quiet_trainer(folder: Path, **options: Any) -> Trainer:
    """A trainer on the CPU that writes and says nothing by itself."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    return Trainer(default_root_dir=folder, accelerator="cpu", devices=1, **{**quiet, **options})


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
