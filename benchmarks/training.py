"""Measures what `ExplainCallback` costs: the time of its explanations, and that of an epoch without them.

A ResNet-18 of torchvision is trained on random images. Times are CPU seconds of the process, so that
other work on the machine hardly matters; with one thread they are the seconds on an idle core. The first
explanation is left out, because it includes the warm-up.

    OMP_NUM_THREADS=1 python benchmarks/training.py --size 64
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from igos_pl import ExplainCallback


class Training(LightningModule):
    """A ResNet-18 with ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torchvision.models.resnet18(num_classes=10)

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The cross-entropy loss."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the same loss."""
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Timed(ExplainCallback):
    """Measures the time of each explanation."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seconds: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the time that explanations add to the epoch."""
        began = time.process_time()
        super().on_train_epoch_end(trainer, pl_module)
        self.seconds.append(time.process_time() - began)


def images(count: int, size: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, size, size, generator=generator)
    return TensorDataset(pixels, torch.randint(10, (count,), generator=generator))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--samples", type=int, default=8, help="images that are explained")
    parser.add_argument("--images", type=int, default=512, help="images of an epoch")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    callback = Timed(samples=options.samples)
    training, validation = (
        DataLoader(images(count, options.size, count), 32) for count in (options.images, 64)
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            default_root_dir=folder, max_epochs=options.epochs, callbacks=[callback], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        began = time.process_time()
        trainer.fit(Training(), training, validation)
        whole = time.process_time() - began
    own = (whole - sum(callback.seconds)) / options.epochs
    print(
        f"{options.samples} images of {options.size} x {options.size}:"
        f" {statistics.median(callback.seconds[1:]):.1f} s for explaining them;"
        f" an epoch of {options.images} images: {own:.1f} s"
    )


if __name__ == "__main__":
    main()
