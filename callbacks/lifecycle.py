"""What begins a run, stops it and ends it."""

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
    """The life of a run: a trainer has exactly one of these, and the explainer brings one if it is missing.

    On SIGTERM or SIGUSR1 of any rank, or if a rank fails, all ranks stop after the batch that they are in. An
    interrupt (Ctrl-C) ends all ranks at once. The same command goes on with the rest later.
    """

    def __init__(self) -> None:
        self._listening = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse other data; listen to the signals instead of Lightning.

        Lightning would continue to the end of the data and communicate with all ranks inside its signal
        handler. It would also restore the old handlers before the callbacks' teardown, in which ranks still
        wait for each other and results are merged.
        """
        run = Run.of(trainer)
        trainer._signal_connector.register_signal_handlers = _leave_signals_alone  # type: ignore[method-assign]
        run.coordinator.signals = self._listening.enter_context(StopSignals())

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a loader that is not the data module's: a trainer keeps its last data module."""
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
        """Report the batch's images to all ranks, and print which images could not be read for now."""
        run = Run.of(trainer)
        run.count(batch_idx, outputs)
        for record in outputs.unread if len(run.unread) <= _SHOWN else ():
            print(f"{record.path} {record.message}: it is tried again by the next run", file=sys.stderr)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for all ranks, and give the signals back."""
        Run.of(trainer).finish()
        self._listening.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the other ranks, and give the signals back."""
        if isinstance(exception, KeyboardInterrupt):
            signal.signal(
                signal.SIGINT, signal.SIG_DFL
            )  # Lightning ignores it; a second one ends all at once
        self.rescue()
        run = Run.find(trainer)
        if run is not None:
            with suppress(IgosError):  # a rank has died
                run.fail(exception)
        self._listening.close()

    def rescue(self) -> None:
        """Keep what is finished, before the others are told that this rank has failed."""


def _leave_signals_alone() -> None:
    """Takes the place of what Lightning does with signals."""
