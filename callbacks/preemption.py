"""Stops a run in time when the cluster wants its machines back."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from igos_pl.coordination import Coordinator
from igos_pl.errors import IgosError
from igos_pl.signals import StopSignals


class PreemptionHandler(Callback):
    """On SIGTERM or SIGUSR1 of any rank, all ranks stop after the batch that they are in.

    What is finished is published then. The same command goes on with the rest later.

    Args:
        signals: where the signals are noted already; by default, from `setup` to `teardown`.

    Attributes:
        stopped: whether any rank stopped early.
    """

    def __init__(self, signals: StopSignals | None = None) -> None:
        self.stopped = False
        self._signals = signals
        self._listening = ExitStack()
        self._coordinator: Coordinator | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen to the signals, instead of Lightning.

        Lightning would go on to the end of the data, talk to all ranks from within its handler, and give the
        signals back before callbacks are torn down: while ranks wait for each other, and results are merged.
        """
        trainer._signal_connector.register_signal_handlers = _leave_signals_alone  # type: ignore[method-assign]
        self._coordinator = trainer.datamodule.coordinator  # type: ignore[attr-defined]
        self._coordinator.signals = self._signals or self._listening.enter_context(StopSignals())

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End the loop if any rank was told to stop."""
        assert self._coordinator is not None, "set up before"
        if self._coordinator.stop_requested():
            self._coordinator.stop_early()
            self.stopped = True
            raise StopIteration  # Lightning's loop takes this for the end of the data

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back; as the last of the callbacks, when the others have waited for all ranks."""
        assert self._coordinator is not None, "set up before"
        self.stopped = self.stopped or self._coordinator.stopped_early
        self._listening.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the other ranks not to wait for this one, and give the signals back."""
        if self._coordinator is not None:
            with suppress(IgosError):  # the first rank may be gone
                self._coordinator.give_up()
        self._listening.close()


def _leave_signals_alone() -> None:
    """Takes the place of what Lightning does with signals."""
