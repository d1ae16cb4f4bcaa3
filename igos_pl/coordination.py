"""What the processes of a run tell each other: who takes which images, how far all are, when to stop.

There is no other communication: masks are never synchronised, and nobody waits for others but at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from torch.distributed import HashStore, TCPStore  # type: ignore[attr-defined]
from torch.utils.data import Sampler

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Progress:
    """How far all ranks are together."""

    images: int
    failures: int


class Coordinator:
    """Counters that all ranks share, in a store that the first rank keeps.

    Args:
        store: one of torch.distributed's key-value stores.
        rank: of this process.
        world_size: how many processes there are.

    Attributes:
        signalled: set by a signal's handler, which must not talk to the store itself.
    """

    def __init__(self, store: Any, rank: int = 0, world_size: int = 1) -> None:
        self._store = store
        self.rank = rank
        self.world_size = world_size
        self.signalled = False

    def take(self, count: int) -> int:
        """Take the next ``count`` places of the queue; returns the first of them."""
        return int(self._store.add("taken", count)) - count

    def report(self, images: int, failures: int) -> None:
        """Add to what is done."""
        self._store.add("images", images)
        self._store.add("failures", failures)

    def progress(self) -> Progress:
        """What all ranks have reported so far."""
        return Progress(int(self._store.add("images", 0)), int(self._store.add("failures", 0)))

    def stop_requested(self) -> bool:
        """Whether all ranks are to stop after the batch that they are in."""
        if self.signalled:
            self._store.set("stop", "1")
        return bool(self._store.check(["stop"]))

    def finish(self) -> None:
        """Say that this rank has published all that it did; returns when all ranks have.

        The first rank leaves last, since it keeps the store.
        """
        self._store.set(f"published {self.rank}", "1")
        self._wait_until([f"published {rank}" for rank in range(self.world_size)])
        self._store.set(f"left {self.rank}", "1")
        if self.rank == 0:
            self._wait_until([f"left {rank}" for rank in range(self.world_size)])

    def _wait_until(self, keys: list[str]) -> None:
        # Polled: a rank that waits must still hear signals and pass them on.
        while keys and not self._store.check(keys):
            self.stop_requested()
            time.sleep(_POLL_SECONDS)


def alone() -> Coordinator:
    """For a run of one process."""
    return Coordinator(HashStore())


def connect(trainer: Any) -> Coordinator:
    """The coordinator of a trainer's processes; all of them must call this together."""
    if trainer.world_size == 1:
        return alone()
    address = trainer.strategy.cluster_environment.main_address
    open_store = partial(TCPStore, address, wait_for_workers=False, timeout=timedelta(minutes=5))
    store = open_store(port=0, is_master=True) if trainer.global_rank == 0 else None
    port = trainer.strategy.broadcast(store.port if store else None)
    store = store or open_store(port=port, is_master=False)
    return Coordinator(store, trainer.global_rank, trainer.world_size)


class QueueBatchSampler(Sampler[list[int]]):
    """Batches of a queue that all ranks share: whoever is free takes the next one.

    So a slow device, or images with many objects, hold nobody up. Each worker of a loader reserves a batch
    ahead.

    Args:
        coordinator: of all ranks.
        total: the length of the queue, the same on all ranks.
        batch_size: the last batch may be smaller.
    """

    def __init__(self, coordinator: Coordinator, total: int, batch_size: int) -> None:
        self.coordinator = coordinator
        self.total = total
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        while (start := self.coordinator.take(self.batch_size)) < self.total:
            yield list(range(start, min(start + self.batch_size, self.total)))

    def __len__(self) -> int:
        """The batches of all ranks: one rank may get all of them."""
        return math.ceil(self.total / self.batch_size)
