"""Writes masks to HDF5 while a run goes on."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer

from igos_pl.callbacks.lifecycle import RunCallback
from igos_pl.checks import check_at_least
from igos_pl.run.provenance import provenance
from igos_pl.run.publisher import Publisher
from igos_pl.run.run import Run
from igos_pl.store import merge


class MaskWriter(RunCallback):
    """Publishes finished images as segments in the trainer's ``default_root_dir``, and merges them.

    What is published survives whatever happens to the run; running again goes on with the rest. Errors of
    writing are raised at the end of a batch, or of the run.

    Args:
        images_per_segment: publish as soon as this many images are finished.
        seconds_per_segment: publish after this much time, even with fewer images.
    """

    def __init__(self, images_per_segment: int = 1024, seconds_per_segment: float = 60.0) -> None:
        super().__init__()
        check_at_least("images_per_segment", images_per_segment, 1)
        check_at_least("seconds_per_segment", seconds_per_segment, 0)
        self.images_per_segment = images_per_segment
        self.seconds_per_segment = seconds_per_segment
        self._publisher: Publisher | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the folder, and list the images that it is to hold."""
        super().setup(trainer, pl_module, stage)
        run = Run.of(trainer)
        run.folder.prepare()
        run.folder.claim(run.configuration)
        if trainer.is_global_zero:
            run.folder.expect(run.expected)
        attributes = {**run.configuration, **provenance(trainer.strategy.root_device)}
        self._publisher = Publisher(run, attributes, self.images_per_segment, self.seconds_per_segment)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's result, and publish when it is time."""
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._get_publisher().add(outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the rest."""
        self._get_publisher().finish()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for all ranks. The first rank merges if no image is missing, whichever run explained it."""
        self._get_publisher().close()
        super().teardown(trainer, pl_module, stage)
        if not trainer.is_global_zero:
            return
        folder = Run.of(trainer).folder
        folder.check_configuration(Run.of(trainer).configuration)
        folder.release()
        statuses = folder.statuses()
        if not folder.missing(statuses) and not folder.is_merged(statuses):
            merge(folder)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Publish what is finished, whatever went wrong elsewhere; then leave the other ranks."""
        run = Run.find(trainer)
        if self._publisher is not None:
            self._publisher.rescue()
        if run is not None:
            run.folder.release()
        super().on_exception(trainer, pl_module, exception)

    def _get_publisher(self) -> Publisher:
        assert self._publisher is not None, "Lightning calls setup first"
        return self._publisher
