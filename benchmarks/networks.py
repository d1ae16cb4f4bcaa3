"""Networks and a callback for the benchmarks of runs; named by their class paths."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn

PLACES_VARIABLE = "RECORDER_FOLDER"


def slowness() -> int:
    """How often this rank does its work: ``SLOW_FACTOR`` times on the rank ``SLOW_RANK``.

    No attribute of a network holds it: those are settings of the run, and must be the same on all ranks.
    """
    slow = os.environ.get("LOCAL_RANK", "0") == os.environ.get("SLOW_RANK")
    return int(os.environ.get("SLOW_FACTOR", "5")) if slow else 1


class SmallNet(nn.Module):
    """Two convolutions and a linear layer; its weights are always the same."""

    def __init__(self, channels: int = 8, classes: int = 5) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, channels, 3, padding=1),
                nn.Tanh(),
                nn.Conv2d(channels, channels, 3, padding=1, stride=2),
                nn.Tanh(),
            )
            self.last = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of images ``(B, 3, H, W)``."""
        logits: Tensor = self.last(self.layers(images).mean((2, 3)) * 8)
        return logits


class RepeatingNet(SmallNet):
    """Works as often as `slowness` says, to no use."""

    def __init__(self, channels: int = 48, repeats: int = 4) -> None:
        super().__init__(channels)
        self.repeats = repeats

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of images ``(B, 3, H, W)``."""
        with torch.no_grad():
            for _ in range(self.repeats * slowness() - 1):
                super().forward(images)
        return super().forward(images)


class SleepingNet(SmallNet):
    """Takes a given time for each image, without computing.

    Args:
        seconds: for each image of a batch.
    """

    def __init__(self, seconds: float = 0.001) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of images ``(B, 3, H, W)``, after a while."""
        time.sleep(self.seconds * slowness() * len(images))
        return super().forward(images)


class Recorder(Callback):
    """Writes down when each batch began and ended; pins each rank to its core if ``PINNED`` is set."""

    def setup(self, trainer: Trainer, *arguments: Any, **more: Any) -> None:
        """Open the file."""
        torch.set_num_threads(1)
        if "PINNED" in os.environ:
            cores = sorted(os.sched_getaffinity(0))
            core = cores[trainer.local_rank % len(cores)]
            for thread in Path("/proc/self/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})
        path = Path(os.environ[PLACES_VARIABLE]) / f"rank{trainer.global_rank}.txt"
        self._file = path.open("w", buffering=1)

    def on_predict_batch_start(self, *arguments: Any, **more: Any) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_predict_batch_end(self, *arguments: Any, **more: Any) -> None:
        """Write the batch's line."""
        self._file.write(f"{self._began} {time.monotonic()}\n")
