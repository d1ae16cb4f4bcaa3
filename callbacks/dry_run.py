"""Estimates the whole run from one batch. Nothing is written."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from pytorch_lightning import LightningModule, Trainer

from igos_pl.callbacks.lifecycle import RunCallback
from igos_pl.data.records import FAILED
from igos_pl.data.text import printable
from igos_pl.data.wording import counted
from igos_pl.errors import RunError
from igos_pl.run.run import Run
from igos_pl.store.segments import segment_bytes

_SHOWN = 5  # the number of images whose problems are listed


class DryRun(RunCallback):
    """Replaces `MaskWriter` in a trainer that is limited to one batch.

    The estimate of the time is an upper bound, because a first batch is slower than others.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print which files are damaged."""
        super().setup(trainer, pl_module, stage)
        for path in Run.of(trainer).damaged if trainer.is_global_zero else ():
            print(f"{path} is damaged: the run sets it aside and explains its images again")

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start the clock."""
        super().on_predict_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
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
        """Print the estimate for all images that are not done.

        Raises:
            RunError: if no image could be explained. The reasons of images that are tried again are printed
                before.
        """
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        if not trainer.is_global_zero:
            return
        seconds = time.monotonic() - self._began
        if all(record.status in FAILED for record in outputs.images):
            reasons = [
                printable(f"  {record.sample_id}: {record.status}: {record.message}")
                for record in outputs.images[:_SHOWN]
            ]
            said = "No image of the first batch could be explained, so there is no estimate"
            raise RunError("\n".join([said, *reasons]))
        images, rows = len(outputs.images), sum(record.targets for record in outputs.images)
        run, ranks = Run.of(trainer), trainer.world_size
        left = len(run.pending)
        size = len(segment_bytes([outputs], run.configuration))
        whole = timedelta(seconds=round(seconds / images * left / ranks))
        share = f", {left / ranks:.0f} for each of {ranks} ranks" if ranks > 1 else ""
        print(f"{counted(len(run.assigned), 'image')}, {left} not done{share}")
        first = f"{counted(images, 'image')} with {counted(rows, 'explanation')}"
        print(f"first batch: {first} in {seconds:.1f} s")
        print(f"whole run: at most {whole} (h:mm:ss), about {2 * size / images * left / 1e6:,.0f} MB on disk")
