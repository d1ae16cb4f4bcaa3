"""Explains one batch and says what the whole run would take; writes nothing."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from igos_pl.callbacks.writer import run_configuration
from igos_pl.store.segments import RunFolder, segment_bytes


class DryRun(Callback):
    """Takes the place of the writer; the trainer is to be limited to one batch.

    The estimate is an upper bound: a first batch is slower than others.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that the folder holds no other configuration's results, as the writer would."""
        RunFolder(trainer.default_root_dir).check_configuration(run_configuration(trainer, pl_module))

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print the estimate for all images that are not done."""
        if not trainer.is_global_zero:
            return
        seconds = time.monotonic() - self._began
        images, rows = len(outputs.images), sum(record.targets for record in outputs.images)
        data, ranks = trainer.datamodule, trainer.world_size  # type: ignore[attr-defined]
        left = len(data.pending)
        size = len(segment_bytes([outputs], run_configuration(trainer, pl_module)))
        whole = timedelta(seconds=round(seconds / images * left / ranks))
        print(f"{len(data.assigned)} images, {left} not done, {left / ranks:.0f} for each of {ranks} ranks")
        print(f"first batch: {images} images with {rows} explanations in {seconds:.1f} s")
        print(f"all of it: at most {whole} (h:mm:ss), about {2 * size / images * left / 1e6:,.0f} MB on disk")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave together with the other ranks."""
        trainer.datamodule.coordinator.finish()  # type: ignore[attr-defined]
