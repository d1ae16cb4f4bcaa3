"""Keeps track of which image each data-loading process reads, to name an image that kills its process."""

from __future__ import annotations

import os
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from igos_pl.data.run_files import DEATHS
from igos_pl.errors import IgosError
from igos_pl.store.files import publishing

# An image is not read again after so many processes died while they read it.
_DEATHS = 2

FATAL = (
    f"the process that read it died {_DEATHS} times: it needs too much memory, or the decoder is at fault."
    " Scale it down, or request more memory; then set retry_unreadable (--data.retry_unreadable) to true"
)

_PIDS = re.compile(r"\(pid(?:\(s\))? ([\d, ]+)\)")


class Readers:
    """What each data-loading process is reading, in memory that it shares with its rank.

    Args:
        workers: the number of these processes.
    """

    def __init__(self, workers: int) -> None:
        # A row for each process: its pid, and the number of the image that it reads; -1 for none.
        rows: Any = torch.full((workers, 2), -1, dtype=torch.int64)
        self._rows: Tensor = rows.share_memory_() if workers else rows

    @contextmanager
    def reading(self, number: int) -> Iterator[None]:
        """Note in a data-loading process that it reads an image, until the context ends."""
        worker = get_worker_info()
        if worker is None:  # the rank itself reads
            yield
            return
        row = self._rows[worker.id]
        row[0], row[1] = os.getpid(), number
        yield
        row[1] = -1

    def read_by_dead(self, error: BaseException) -> list[int]:
        """The numbers of the images that were being read by the processes that a loader's error names."""
        named = _PIDS.search(str(error))
        pids = set(map(int, named[1].split(","))) if named else set()
        return [number for pid, number in self._rows.tolist() if pid in pids and number >= 0]


class FatalImages:
    """Notes in a run's folder: a small file for each death of a process that was reading an image.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / DEATHS

    def note(self, name: str) -> None:
        """Note that a process died while it was reading an image. Without a folder, nothing is noted."""
        with suppress(OSError, IgosError):  # the run ends with another error already
            self.path.mkdir(exist_ok=True)
            with publishing(self.path / f"{uuid.uuid4().hex}.txt") as temporary:
                temporary.write_text(name, encoding="utf-8")

    def names(self) -> set[str]:
        """The images that are not to be read again."""
        deaths: Counter[str] = Counter()
        with suppress(OSError):  # there are no notes
            for path in self.path.glob("[!.]*.txt"):
                deaths[path.read_text(encoding="utf-8", errors="replace")] += 1
        return {name for name, count in deaths.items() if count >= _DEATHS}


def be_killed_first() -> None:
    """Ask Linux to end this process, and not the rank, when memory runs out."""
    with suppress(OSError):
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(max(500, int(score.read_text()))))


def end_workers(trainer: Trainer) -> None:
    """End the processes that read a trainer's images.

    The traceback of an exception that passed through their iterator keeps it, and them, alive. At its exit,
    Python sends SIGTERM to them, which they ignore, and waits for them without end.
    """
    loader = trainer.predict_loop._combined_loader
    for iterator in getattr(getattr(loader, "_iterator", None), "iterators", ()):
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()
            for worker in iterator._workers:
                worker.kill()  # one that is still reading
