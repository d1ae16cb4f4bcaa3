"""How far a run is: images, their rate, the time left, and the optimisation going on."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

_SECONDS_BETWEEN_LINES = 60.0


class MaskProgressBar(ProgressBar):
    """A bar for the images and one for the iterations; in a job without terminal, a line a minute.

    Shown by the first rank.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bars: Progress | None = None

    def enable(self) -> None:
        """Show progress; called by Lightning on the first rank."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; called by Lightning on the other ranks."""
        self._enabled = False

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the bars."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._total, self._done = len(data.samples), len(data.samples) - len(data.pending)
        self._began, self._said, self._done_before = time.monotonic(), time.monotonic(), self._done
        self._failures = 0
        if not self._enabled:
            return
        self._console = Console(stderr=True)
        if self._done:
            self._console.print(f"{self._done} of {self._total} images were done before")
        if not self._console.is_terminal:
            return
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._images = self._bars.add_task("images", total=self._total, completed=self._done, note="")
        self._masks = self._bars.add_task("masks", total=None, note="")
        self._bars.start()
        pl_module.on_iteration = self._on_iteration  # type: ignore[assignment]

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch's images."""
        self._done += len(outputs.images)
        self._failures += sum(record.status != "ok" for record in outputs.images)
        if self._bars is not None:
            self._bars.update(self._images, completed=self._done, note=self._rate())
        elif self._enabled and time.monotonic() - self._said >= _SECONDS_BETWEEN_LINES:
            self._say()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the bars; in a job, a last line."""
        if self._enabled and self._bars is None:
            self._say()
        self._stop(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back before the message is printed."""
        self._stop(pl_module)

    def _on_iteration(self, done: int, total: int) -> None:
        if self._bars is not None:
            self._bars.update(self._masks, completed=done, total=total, note="iterations of this batch")

    def _rate(self) -> str:
        """Images a second of this run, the time left, and failures."""
        rate = (self._done - self._done_before) / max(time.monotonic() - self._began, 1e-9)
        left = timedelta(seconds=round((self._total - self._done) / max(rate, 1e-9)))
        failures = f", {self._failures} not ok" if self._failures else ""
        speed = f"{rate:.2f} images/s" if rate >= 0.1 else f"{1 / max(rate, 1e-9):.1f} s/image"
        return f"{speed}, {left} left{failures}"

    def _say(self) -> None:
        self._said = time.monotonic()
        self._console.print(f"{self._done} of {self._total} images, {self._rate()}", highlight=False)

    def _stop(self, explainer: LightningModule) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            explainer.on_iteration = None  # type: ignore[assignment]
