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

from igos_pl.run.run import ReportsIterations, Run

_SECONDS_BETWEEN_LINES = 60.0
_SLOW = 0.1  # images/s; slower rates are shown as s/image


class MaskProgressBar(ProgressBar):
    """A bar for the images and one for the iterations; in a job without terminal, a line a minute.

    Shown by the first rank, for all ranks together.
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
        self._run = Run.of(trainer)
        self._total = len(self._run.assigned)
        self._before = self._total - len(self._run.pending)
        self._began = self._said = time.monotonic()
        if not self._enabled:
            return
        self._console = Console(stderr=True)
        before = f" ({self._before} were done before)" if self._before else ""
        self._console.print(f"{self._total} images to explain{before}", highlight=False)
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
        self._images = self._bars.add_task("images", total=self._total, completed=self._before, note="")
        self._masks = self._bars.add_task("masks", total=None, note="")
        self._bars.start()
        if isinstance(pl_module, ReportsIterations):
            pl_module.on_iteration = self._on_iteration

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report this rank's finished images, and show the progress of all ranks."""
        self._run.count(batch_idx, outputs)
        if self._bars is not None:
            done, note = self._state()
            self._bars.update(self._images, completed=done, note=note)
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

    def _state(self) -> tuple[int, str]:
        """Images that are done, and their rate in this run, the time left, and failures."""
        progress = self._run.progress()
        done = self._before + progress.images
        rate = progress.images / max(time.monotonic() - self._began, 1e-9)
        speed = f"{rate:.2f} images/s" if rate >= _SLOW or not rate else f"{1 / rate:.1f} s/image"
        left = timedelta(seconds=round((self._total - done) / rate)) if rate else "unknown time"
        failures = f", {progress.failures} unreadable or failed" if progress.failures else ""
        return done, f"{speed}, {left} left{failures}"

    def _say(self) -> None:
        self._said = time.monotonic()
        done, note = self._state()
        self._console.print(f"{done} of {self._total} images, {note}", highlight=False)

    def _stop(self, explainer: LightningModule) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            if isinstance(explainer, ReportsIterations):
                explainer.on_iteration = None
