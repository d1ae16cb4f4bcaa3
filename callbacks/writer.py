"""Writes masks to HDF5 while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter

import igos_pl
from igos_pl.checks import check_at_least
from igos_pl.store import BatchResult, RunFolder, merge
from igos_pl.store.schema import Attributes


class MaskWriter(BasePredictionWriter):
    """Publishes finished images as segments in the trainer's ``default_root_dir``, and merges them.

    What is published survives whatever happens to the run; running again goes on with the rest.

    Args:
        images_per_segment: publish as soon as so many images are finished,
        seconds_per_segment: or so much time has passed.
    """

    def __init__(self, images_per_segment: int = 1024, seconds_per_segment: float = 60.0) -> None:
        super().__init__(write_interval="batch")
        check_at_least("images_per_segment", images_per_segment, 1)
        check_at_least("seconds_per_segment", seconds_per_segment, 0)
        self.images_per_segment = images_per_segment
        self.seconds_per_segment = seconds_per_segment
        self._finished: list[BatchResult] = []
        self._attributes: Attributes = {}
        self._published_at = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that the folder can be written and holds no other configuration's results."""
        self.run = RunFolder(trainer.default_root_dir)
        self.run.prepare()
        configuration = run_configuration(trainer, pl_module)
        self.run.check_configuration(configuration)
        self._attributes = {
            **configuration,
            "igos_pl": igos_pl.__version__,
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
            "device": _device_name(trainer),
        }
        if trainer.is_global_zero:
            self.run.expect([sample.id for sample in trainer.datamodule.samples])  # type: ignore[attr-defined]
        self._finished = []
        self._published_at = time.monotonic()

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep the batch's result, and publish when it is time."""
        self._finished.append(prediction)
        images = sum(len(result.images) for result in self._finished)
        waited = time.monotonic() - self._published_at
        if images >= self.images_per_segment or waited >= self.seconds_per_segment:
            self._publish(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the rest."""
        self._publish(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for all ranks; the first one merges once nothing is missing, be it by this run or others."""
        trainer.datamodule.coordinator.finish()  # type: ignore[attr-defined]
        if trainer.is_global_zero and not self.run.missing() and not self.run.is_merged():
            merge(self.run)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what is finished, whatever went wrong elsewhere."""
        self._publish(trainer)

    def _publish(self, trainer: Trainer) -> None:
        # Emptied first: if this very write fails, on_exception must not try the same again.
        finished, self._finished = self._finished, []
        if any(result.images for result in finished):
            trainer.datamodule.coordinator.check_connected()  # type: ignore[attr-defined]
            self.run.publish(finished, self._attributes, trainer.global_rank)
        self._published_at = time.monotonic()


def run_configuration(trainer: Trainer, explainer: LightningModule) -> dict[str, str | int | float]:
    """All that decides the results: what the explainer and its data say of themselves."""
    described: dict[str, str | int | float] = {}
    for part in (explainer, trainer.datamodule):  # type: ignore[attr-defined]
        described.update(part.describe())  # type: ignore[operator]
    return described


def _device_name(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
