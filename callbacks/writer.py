"""Writes masks to HDF5 during a run."""

from __future__ import annotations

from functools import partial
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info

from igos_pl.callbacks.lifecycle import RunCallback
from igos_pl.checks import check_at_least, check_count
from igos_pl.run.coordination import on_first_rank
from igos_pl.run.provenance import provenance
from igos_pl.run.publisher import Publisher
from igos_pl.run.run import Run
from igos_pl.store import merge
from igos_pl.store.merge import tell_damaged


class MaskWriter(RunCallback):
    """Publishes finished images as segments in the trainer's ``default_root_dir``, and merges them.

    Published images are kept whatever happens to the run, and the next run goes on with the rest. Errors of
    writing are raised at the end of a batch, or of the run.

    Args:
        images_per_segment: publish as soon as this many images are finished.
        seconds_per_segment: publish after this much time, even with fewer images.

    Attributes:
        merges: whether the segments are merged when no image is missing.
    """

    merges = True

    def __init__(self, images_per_segment: int = 1024, seconds_per_segment: float = 60.0) -> None:
        super().__init__()
        check_count("images_per_segment", images_per_segment, 1)
        check_at_least("seconds_per_segment", seconds_per_segment, 0)
        self.images_per_segment = images_per_segment
        self.seconds_per_segment = seconds_per_segment
        self._publisher: Publisher | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the folder, and write the list of images that the run is to explain, on the first rank."""
        super().setup(trainer, pl_module, stage)
        run = Run.of(trainer)
        on_first_rank(trainer, partial(_prepare, run))
        attributes = {**run.configuration, **provenance(run.configuration, trainer.strategy.root_device)}
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
        """Keep the batch's result, and publish if there are enough images or enough time has passed."""
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._get_publisher().add(outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the rest."""
        self._get_publisher().finish()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for all ranks. The first rank merges if no image is missing, whichever run explained it.

        It logs where the results are, at level INFO by Lightning's logger.
        """
        self._get_publisher().close()
        super().teardown(trainer, pl_module, stage)
        if not trainer.is_global_zero:
            return
        run = Run.of(trainer)
        folder = run.folder
        folder.check_configuration(run.configuration)
        folder.release()
        run.published = published = folder.published()
        missing = folder.missing(published)
        if not missing and self.merges and not folder.is_merged():
            run.with_room_for(partial(merge, folder))
        counted = ", ".join(f"{number} {status}" for status, number in published.counts().items())
        where = str(folder.merged if self.merges and not missing else folder.segments_path)
        where += f"; {len(missing)} are missing" if missing else ""
        rank_zero_info(f"Images with results: {counted or 'none'}. They are in {where}")

    def rescue(self) -> None:
        """Publish finished images."""
        if self._publisher is not None:
            self._publisher.rescue()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Publish finished images, and stop the other ranks."""
        super().on_exception(trainer, pl_module, exception)
        run = Run.find(trainer)
        if run is not None:
            run.folder.release()

    def _get_publisher(self) -> Publisher:
        assert self._publisher is not None, "Lightning calls setup first"
        return self._publisher


def _prepare(run: Run) -> None:
    run.folder.prepare()
    tell_damaged(run.folder.set_aside(run.damaged))
    run.folder.claim(run.configuration)
    run.folder.expect(run.expected)
