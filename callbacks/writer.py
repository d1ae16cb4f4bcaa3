"""Writes masks to HDF5 while a run goes on."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
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

    What is published survives whatever happens to the run; running again goes on with the rest. A thread
    builds and writes one segment at a time, while the next images are explained; its errors are raised at the
    end of a batch, or of the run.

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
        self._images = 0
        self._attributes: Attributes = {}
        self._published_at = 0.0
        self._publishing: Future[Path] | None = None

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
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publish")
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
        self._images += len(prediction.images)
        if self._publishing is not None and self._publishing.done():
            self._wait()
        waited = time.monotonic() - self._published_at
        if self._images >= self.images_per_segment or waited >= self.seconds_per_segment:
            self._publish(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the rest."""
        self._publish(trainer)
        self._wait()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for all ranks; the first one merges once nothing is missing, be it by this run or others."""
        self._thread.shutdown()
        trainer.datamodule.coordinator.finish()  # type: ignore[attr-defined]
        if not trainer.is_global_zero:
            return
        done = self.run.done()
        if not self.run.missing(done) and not self.run.is_merged(done):
            merge(self.run)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what is finished, whatever went wrong elsewhere."""
        with _warned_of():
            self._wait()
        with _warned_of():
            self._publish(trainer)
            self._wait()

    def _publish(self, trainer: Trainer) -> None:
        """Hand what is finished to the thread, once that has published what it was given before."""
        self._wait()
        # Emptied first: if this very write fails, on_exception must not try the same again.
        finished, self._finished, self._images = self._finished, [], 0
        if any(result.images for result in finished):
            trainer.datamodule.coordinator.check_connected()  # type: ignore[attr-defined]
            self._publishing = self._thread.submit(
                self.run.publish, finished, self._attributes, trainer.global_rank
            )
        self._published_at = time.monotonic()

    def _wait(self) -> None:
        """Wait for the thread; raises what kept it from publishing, once."""
        publishing, self._publishing = self._publishing, None
        if publishing is not None:
            publishing.result()


@contextmanager
def _warned_of() -> Iterator[None]:
    """An error that must not take the place of the one that ended the run."""
    try:
        yield
    except Exception as error:
        warnings.warn(f"Finished images were not published: {error}", stacklevel=1)


def run_configuration(trainer: Trainer, explainer: LightningModule) -> dict[str, str | int | float]:
    """All that decides the results: what the explainer and its data say of themselves."""
    described: dict[str, str | int | float] = {}
    for part in (explainer, trainer.datamodule):  # type: ignore[attr-defined]
        described.update(part.describe())  # type: ignore[operator]
    return described


def _device_name(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
