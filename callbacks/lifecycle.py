"""Begins, stops and ends a run."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack, suppress
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from igos_pl.errors import IgosError
from igos_pl.run.coordination import QueueSampler
from igos_pl.run.run import Run, other_data
from igos_pl.run.signals import StopSignals

# Each rank prints at most about this many messages about files that cannot be read.
_SHOWN = 10


class RunCallback(Callback):
    """Controls a run. A trainer has exactly one of these; the explainer adds one if it is missing.

    If any rank gets SIGTERM or SIGUSR1, or fails, all ranks stop after their current batch. An interrupt
    (Ctrl-C) ends all ranks at once. The same command goes on with the rest later.
    """

    def __init__(self) -> None:
        self._listening = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse other data, and handle signals in place of Lightning.

        Lightning would continue to the end of the data, and communicate with all ranks in its signal handler.
        It would also restore the old handlers before the callbacks' teardown, in which ranks still wait for
        each other and results are merged.
        """
        run = Run.of(trainer)
        trainer._signal_connector.register_signal_handlers = _leave_signals_alone  # type: ignore[method-assign]
        run.coordinator.signals = self._listening.enter_context(StopSignals())

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse another loader than the data module's: a trainer keeps the data module of its last call."""
        if not isinstance(getattr(trainer.predict_dataloaders, "sampler", None), QueueSampler):
            raise other_data()
        Run.of(trainer).begun = True  # Lightning's last collective operation was before this

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End the loop if any rank was told to stop."""
        if Run.of(trainer).must_stop():
            raise StopIteration  # Lightning's loop takes this for the end of the data

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report the batch's images to all ranks, and print which images could not be read now."""
        run = Run.of(trainer)
        run.count(batch_idx, outputs)
        for record in outputs.unread if len(run.unread) <= _SHOWN else ():
            print(f"{record.path} {record.message}: it is tried again by the next run", file=sys.stderr)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for all ranks, and restore the signal handlers."""
        Run.of(trainer).finish()
        self._listening.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the other ranks, and restore the signal handlers."""
        if isinstance(exception, KeyboardInterrupt):
            signal.signal(
                signal.SIGINT, signal.SIG_DFL
            )  # Lightning ignores it here; a second Ctrl-C is to end all ranks
        self.rescue()
        run = Run.find(trainer)
        if run is not None:
            with suppress(IgosError):  # a rank has died
                run.fail(exception)
        self._listening.close()

    def rescue(self) -> None:
        """Save finished images, before the others are told that this rank has failed."""


def _leave_signals_alone() -> None:
    """Replaces Lightning's registration of signal handlers."""
