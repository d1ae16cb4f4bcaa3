"""Shows the progress of a run: images, the time left, the rate, and the phase of the batch."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from igos_pl.data.wording import counted
from igos_pl.run.progress import BatchProgress, ReportsProgress
from igos_pl.run.run import Run

# Without a terminal: the first line comes early, and then the time between lines doubles up to a minute.
_SECONDS_TO_FIRST_LINE = 5.0
_SECONDS_BETWEEN_LINES = 60.0
_SECONDS_BETWEEN_UPDATES = 0.2
_SECONDS_TO_ESTIMATE = 2.0  # before this, no time left is shown: it would be a guess
_SLOW = 0.1  # images/s; slower rates are shown as s/image


class MaskProgressBar(ProgressBar):
    """A bar for the images and one for the phase of the batch.

    Without a terminal, it prints a line after 5 seconds, and then at growing intervals of up to a minute.

    The first rank shows it for all ranks together. An image counts when it is finished; `MaskWriter` writes
    finished images to the disk from time to time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bars: Progress | None = None
        self._batch: BatchProgress | None = None

    def enable(self) -> None:
        """Show progress; called by Lightning on the first rank."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; called by Lightning on the other ranks."""
        self._enabled = False

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the bars."""
        self._run = Run.of(trainer)
        self._ranks = trainer.world_size
        self._total = len(self._run.assigned)
        self._before = self._total - len(self._run.pending)
        self._began = self._said = time.monotonic()
        self._updated, self._pause = 0.0, _SECONDS_TO_FIRST_LINE
        if not self._enabled:
            return
        self._console = Console(stderr=True)
        self._print(_announcement(self._total, self._before, getattr(pl_module, "verb", "explain")))
        if isinstance(pl_module, ReportsProgress):
            pl_module.on_progress = self._on_progress
        if not self._console.is_terminal:
            return
        self._bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=max(8, min(40, self._console.width - 60))),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        self._images = self._bars.add_task("images", total=self._total, completed=self._before, note="")
        self._phase = self._bars.add_task("reading", total=None, note="")
        self._bars.start()

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note how many images are being explained, and show that it has begun."""
        self._explaining = len(batch.records)
        if self._bars is not None:
            # A new task, because reset() would keep the total of the last phase.
            self._bars.remove_task(self._phase)
            self._phase = self._bars.add_task("starting", total=None, note="this batch")

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
        self._batch = None
        self._update()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the bars after a last line."""
        if self._enabled:
            finished, note = self._state(ended=True)
            if self._bars is not None:
                self._bars.update(self._images, completed=finished, note=note)
            else:
                self._say(finished, note)
        self._stop(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the bars before the message is printed."""
        self._stop(pl_module)

    def _on_progress(self, batch: BatchProgress) -> None:
        self._batch = batch
        if time.monotonic() - self._updated >= _SECONDS_BETWEEN_UPDATES or batch.done == batch.total:
            self._update()

    def _update(self) -> None:
        """Move the bars; without a terminal, print a line if it is time for one."""
        self._updated = time.monotonic()
        if self._bars is not None:
            finished, note = self._state()
            self._bars.update(self._images, completed=finished, note=note)
            if (batch := self._batch) is not None:
                self._bars.update(
                    self._phase,
                    description=batch.phase,
                    completed=batch.done,
                    total=batch.total,
                    note="of this batch",
                )
        elif self._enabled and self._updated - self._said >= self._pause:
            self._pause = min(2 * self._pause, _SECONDS_BETWEEN_LINES)
            self._say(*self._state())

    def _state(self, ended: bool = False) -> tuple[int, str]:
        """The number of finished images, and a note: time left or taken, this run's rate, and failures."""
        progress, seconds = self._run.progress(), time.monotonic() - self._began
        finished = self._before + progress.images
        # This assumes that the other ranks are about as far with their batches as this one.
        share = self._batch.share if self._batch is not None else 0.0
        explained = progress.images + (share * self._explaining * self._ranks if share else 0)
        rate = explained / max(seconds, 1e-9)
        notes = []
        if ended:
            notes.append(f"in {timedelta(seconds=round(seconds))}")
        elif rate and seconds >= _SECONDS_TO_ESTIMATE:
            left = max(0.0, self._total - self._before - explained) / rate
            notes.append(f"{timedelta(seconds=round(left))} left")
        if progress.images:
            notes.append(f"{rate:.2f} images/s" if rate >= _SLOW else f"{1 / rate:.1f} s/image")
        if progress.failures:
            notes.append(f"{progress.failures:,} unreadable or failed")
        return finished, ", ".join(notes)

    def _say(self, finished: int, note: str) -> None:
        self._said = time.monotonic()
        batch = self._batch
        phase = f"{batch.phase} {batch.done}/{batch.total} of this batch" if batch is not None else ""
        parts = [f"{finished:,} of {counted(self._total, 'image')} finished", note, phase]
        self._print(", ".join(part for part in parts if part))

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _stop(self, explainer: LightningModule) -> None:
        if self._bars is not None:
            self._bars.update(self._phase, visible=False)
            self._bars.stop()
            self._bars = None
        if isinstance(explainer, ReportsProgress):
            explainer.on_progress = None


def _announcement(total: int, before: int, verb: str) -> str:
    """How many images a run has to explain, import or judge."""
    if not before:
        return f"{counted(total, 'image')} to {verb}"
    done = f"{before:,} {'was' if before == 1 else 'were'} {_PAST.get(verb, 'done')} before"
    return f"{total - before:,} of {counted(total, 'image')} to {verb}: {done}"


_PAST = {"explain": "explained", "import": "imported", "judge": "judged"}
