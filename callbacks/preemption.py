"""Stops a run in time when the cluster wants its machines back."""

from __future__ import annotations

import signal
from contextlib import suppress
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from igos_pl.coordination import Coordinator
from igos_pl.errors import IgosError

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class PreemptionHandler(Callback):
    """On SIGTERM or SIGUSR1 of any rank, all ranks stop after the batch that they are in.

    What is finished is published then. The same command goes on with the rest later.

    Attributes:
        stopped: whether any rank stopped early.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._previous: dict[signal.Signals, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen to the signals, instead of Lightning.

        Lightning would go on to the end of the data, talk to all ranks from within its handler, and give the
        signals back before callbacks are torn down: while ranks wait for each other, and results are merged.
        """
        trainer._signal_connector.register_signal_handlers = _leave_signals_alone  # type: ignore[method-assign]
        self._coordinator: Coordinator = trainer.datamodule.coordinator  # type: ignore[attr-defined]
        self._previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End the loop if any rank was told to stop."""
        if self._coordinator.stop_requested():
            self._coordinator.stop_early()
            self.stopped = True
            raise StopIteration  # Lightning's loop takes this for the end of the data

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back; as the last of the callbacks, when the others have waited for all ranks."""
        self.stopped = self.stopped or self._coordinator.stopped_early
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the other ranks not to wait for this one, and give the signals back."""
        if self._previous:
            with suppress(IgosError):  # the first rank may be gone
                self._coordinator.give_up()
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Only a flag: a handler may interrupt anything, even a write.
        self._coordinator.signalled = True

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def _leave_signals_alone() -> None:
    """Takes the place of what Lightning does with signals."""
