"""Communication between the processes of a run: who takes which images, progress, and when to stop.

The only other communication are broadcasts when the run opens. Masks are never synchronised, and ranks wait
for each other only at the end.
"""

from __future__ import annotations

import _thread
import math
import secrets
import socket
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import Any, TypeVar

from torch.distributed import HashStore, PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.utils.data import DistributedSampler

from igos_pl.errors import IgosError, RunError
from igos_pl.run.signals import StopSignals

_POLL_SECONDS = 0.2
_BEAT_SECONDS = 5.0
_POLLS_PER_BEAT = 25
_PATIENCE = 12  # so many checks without a new heartbeat, and a rank counts as dead
_PARTING_SECONDS = 30.0  # a failed rank waits at most so long for the first rank's process to end

Result = TypeVar("Result")


@dataclass(frozen=True)
class Progress:
    """How far all ranks are together."""

    images: int
    failures: int


class Coordinator:
    """Counters that all ranks share, in a store that the first rank keeps.

    Args:
        store: one of torch.distributed's key-value stores.
        rank: the rank of this process.
        world_size: the number of processes.

    Attributes:
        signals: the signals that this process received. The signal handler must not use the store.
        stopped_early: whether any rank stopped with work left; known when all have finished.

    Every method raises an `IgosError` when the first rank, and with it the store, is gone.
    """

    def __init__(self, store: Any, rank: int = 0, world_size: int = 1) -> None:
        self._store = store
        self.rank = rank
        self.world_size = world_size
        self.signals = StopSignals()
        self.stopped_early = False
        self._ended = threading.Event()
        if world_size > 1:
            threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def take(self) -> int:
        """Take the next batch of the queue; returns its number."""
        return self._add("taken", 1) - 1

    def report(self, images: int, failures: int) -> None:
        """Add finished images and failures to the counters."""
        self._add("images", images)
        self._add("failures", failures)

    def progress(self) -> Progress:
        """What all ranks have reported so far."""
        return Progress(self._add("images", 0), self._add("failures", 0))

    def stop_requested(self) -> bool:
        """Whether all ranks are to stop after their current batch."""
        if self.signals.heard:
            self._set("stop")
        return self._has(["stop"])

    def stop_early(self) -> None:
        """Tell all ranks that this rank stops with work left."""
        self._set("stopped early")

    def check_connected(self) -> None:
        """Raise if the first rank is gone. This rank must not publish then.

        The run may have been started again in the meantime, so that new ranks have this rank's work.
        """
        self._has(["stop"])

    def finish(self) -> None:
        """Tell all ranks that this rank has published its work; returns when all have.

        The first rank leaves last, since it keeps the store.

        Raises:
            IgosError: if a rank has died; on the first rank, also if a rank has failed.
            KeyboardInterrupt: on the first rank, if any rank was interrupted.
        """
        try:
            self._set(f"published {self.rank}")
            self._wait_for("published")
            self.stopped_early = self._has(["stopped early"])
            self._leave()
        finally:
            self._ended.set()
        if self.rank == 0:
            self._tell_failure()

    def give_up(self, error: BaseException, wait: bool) -> None:
        """Tell all ranks that this one failed (they stop after their batch) or was interrupted (at once).

        Args:
            error: the exception.
            wait: return only when all ranks have published what they finished. Set it only after all ranks
                have begun: before that, they may wait for this one in a collective operation.

        Raises:
            IgosError: if a rank has died.
        """
        wait = wait and not self._ended.is_set()
        try:
            if isinstance(error, KeyboardInterrupt):
                self._set("interrupted")
            else:
                told = str(error) if isinstance(error, IgosError) else f"{type(error).__name__}: {error}"
                self._set("failure", f"Rank {self.rank} of {self.world_size} failed: {told}")
            self._set("stop")
            self._set(f"published {self.rank}")
            if wait:
                self._wait_for("published")
                self._leave()
                self._let_first_rank_end()
            else:
                self._set(f"left {self.rank}")
        finally:
            self._ended.set()

    def _leave(self) -> None:
        self._set(f"left {self.rank}")
        if self.rank == 0:
            self._wait_for("left")

    def _let_first_rank_end(self) -> None:
        """Wait for the end of the first rank's process.

        Lightning's launcher kills all ranks of a node when it sees that one of them ended with an error, even
        while the first rank prints its message.
        """
        if self.rank == 0:
            return
        with suppress(IgosError):
            for _ in range(round(_PARTING_SECONDS / _POLL_SECONDS)):
                self._has(["stop"])
                time.sleep(_POLL_SECONDS)

    def _tell_failure(self) -> None:
        if self._has(["interrupted"]):
            raise KeyboardInterrupt
        if self._has(["failure"]):
            raise RunError(
                f"{self._ask('get', 'failure').decode()}\nAll finished images of the other ranks are"
                " published: run the same command again to go on"
            )

    def _wait_for(self, what: str) -> None:
        keys = [f"{what} {rank}" for rank in range(self.world_size)]
        beats, silent = [-1] * self.world_size, [0] * self.world_size
        polls = 0
        # Polling, because a rank that waits must still notice signals and pass them on.
        while not self._has(keys):
            if polls % _POLLS_PER_BEAT == 0:
                self._listen(keys, beats, silent)
            polls += 1
            self.stop_requested()
            time.sleep(_POLL_SECONDS)

    def _listen(self, keys: list[str], beats: list[int], silent: list[int]) -> None:
        """Raise if a rank whose key is missing has been silent for long.

        It counts checks instead of seconds, because all ranks may have been suspended together.
        """
        for rank, key in enumerate(keys):
            beat = self._add(f"beat {rank}", 0)
            silent[rank] = silent[rank] + 1 if beat == beats[rank] else 0
            beats[rank] = beat
            if silent[rank] > _PATIENCE and not self._has([key]):
                raise RunError(
                    f"Rank {rank} of {self.world_size} died. All that was published is safe: run the same"
                    " command again to go on"
                )

    def _beat(self) -> None:
        """Send heartbeats, and interrupt this rank if another one was interrupted. Runs in a thread."""
        interrupted = False
        while True:
            try:
                self._add(f"beat {self.rank}", 1)
                if not interrupted and self._has(["interrupted"]):
                    interrupted = True
                    _thread.interrupt_main()  # as Ctrl-C in a terminal does to all ranks
            except IgosError:
                return  # the main thread notices it by itself
            if self._ended.wait(_BEAT_SECONDS):
                return

    def _add(self, key: str, amount: int) -> int:
        return int(self._ask("add", key, amount))

    def _set(self, key: str, value: str = "1") -> None:
        self._ask("set", key, value)

    def _has(self, keys: list[str]) -> bool:
        return bool(self._ask("check", keys))

    def _ask(self, question: str, *words: Any) -> Any:
        try:
            return getattr(self._store, question)(*words)
        except RuntimeError as error:
            raise RunError(
                f"Rank {self.rank} lost the connection to the first rank"
                f" ({(str(error) or type(error).__name__).splitlines()[0]}). All that was published is safe:"
                " run the same command again to go on"
            ) from error


def alone() -> Coordinator:
    """The coordinator of a run of one process."""
    return Coordinator(HashStore())


def connect(trainer: Any) -> Coordinator:
    """The coordinator of a trainer's processes. All ranks must call this together.

    The store listens only on the address at which the ranks reach the first rank. All keys start with a
    secret of the run.
    """
    if trainer.world_size == 1:
        return alone()
    address = trainer.strategy.cluster_environment.main_address
    server = socket.create_server((_bound_to(address, trainer), 0)) if trainer.global_rank == 0 else None
    found = (server.getsockname()[1], secrets.token_hex(16)) if server else None
    port, secret = trainer.strategy.broadcast(found)
    store = TCPStore(
        address,
        port,
        is_master=server is not None,
        wait_for_workers=False,
        timeout=timedelta(minutes=5),
        # The store closes this socket.
        master_listen_fd=server.detach() if server else None,
    )
    return Coordinator(PrefixStore(secret, store), trainer.global_rank, trainer.world_size)


def on_first_rank(trainer: Any, work: Callable[[], Result]) -> Result:
    """The result of work that the first rank does for all ranks. All ranks must call this together.

    Raises:
        IgosError: on the first rank, if its work raises it.
        SystemExit: on the other ranks then: they end quietly, because the first rank reports the error.
    """
    found: tuple[Result | None, bool] = None, False
    failure = None
    if trainer.is_global_zero:
        try:
            found = work(), True
        except IgosError as error:
            failure = error
    result, worked = trainer.strategy.broadcast(found)
    if failure is not None:
        raise failure
    if not worked:
        raise SystemExit(0)
    return result  # type: ignore[no-any-return]


def on_all_ranks(trainer: Any, work: Callable[[], Result]) -> Result:
    """The result of work that each rank does for itself. All ranks must call this together.

    Raises:
        IgosError: on the first rank if its work fails; on another rank if its own work fails and that of the
            first rank does not.
        SystemExit: on the other ranks if the first rank's work fails: they end quietly, as in
            `on_first_rank`.
    """
    result, failure = None, None
    try:
        result = work()
    except IgosError as error:
        failure = error
    if trainer.strategy.broadcast(failure is not None) and not trainer.is_global_zero:
        raise SystemExit(0)
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]


def _bound_to(address: str, trainer: Any) -> str:
    """The address at which the store listens; empty (all addresses) if other nodes need another one.

    Debian's ``/etc/hosts`` gives a machine's own name the address 127.0.1.1.
    """
    own = socket.gethostbyname(address)
    return "" if own.startswith("127.") and trainer.num_nodes > 1 else address


class QueueSampler(DistributedSampler[list[int]]):
    """Batches of a queue that all ranks share: a rank that is free takes the next one.

    So no rank waits for a slow device or for images with many objects. Each loader worker reserves one batch
    ahead. The class is a ``DistributedSampler`` because Lightning replaces any other sampler by its own.

    Args:
        coordinator: the coordinator of the ranks.
        ends: where the batches end, see `batch_ends`; the same on all ranks.
    """

    def __init__(self, coordinator: Coordinator, ends: Sequence[int]) -> None:
        # Nothing of the base class is used: it would split the data into equal parts for the ranks.
        self.coordinator = coordinator
        self.ends = ends

    def __iter__(self) -> Iterator[list[int]]:
        while (batch := self.coordinator.take()) < len(self.ends):
            yield list(range(self.ends[batch - 1] if batch else 0, self.ends[batch]))

    def __len__(self) -> int:
        """The number of batches of all ranks, because one rank may get all of them."""
        return len(self.ends)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: Lightning calls this, but the queue has no epochs."""


def batch_ends(sizes: Sequence[int], batch_size: int, ranks: int, ahead: int) -> list[int]:
    """Where the batches of a queue end. All ranks compute the same ends, so they only have to count batches.

    Batches become smaller towards the end of the queue, so that no rank has much work left when the others
    find the queue empty. The queue is split into rounds of one batch for each rank. No batch may take longer
    than an equal share of the work that is left when its round begins. If all images take equally long, this
    affects only the last round, because all ranks hold the same amount of work. Otherwise, a rank may hold
    several batches that take longer than those of the others. The share is then divided by the number of
    batches that a rank holds, plus one for the work that the round itself takes from the rest.

    If there are few images, each rank still finds as many batches as it reserves when it starts. Batches of a
    single image are avoided: they are the slowest for their size, and networks round differently in them.

    Args:
        sizes: the expected time for each image, in the order of the queue; at least 1.
        batch_size: the largest number of images in a batch.
        ranks: the number of ranks that share the queue.
        ahead: the number of batches that a rank reserves while it works on one.
    """
    parts = ranks
    if len(set(sizes)) <= 1:
        sizes = [1] * len(sizes)
        if ranks > 1:
            batch_size = min(batch_size, max(2, math.ceil(len(sizes) / (ranks * (ahead + 1)))))
    elif ranks > 1:
        parts *= ahead + 2
    before = [0, *accumulate(sizes)]
    ends: list[int] = []
    start = 0
    while start < len(sizes):
        share = math.ceil((before[-1] - before[start]) / parts)
        for _ in range(ranks):
            within = bisect_right(before, before[start] + share) - 1
            start = min(max(within, start + 2), start + batch_size, len(sizes))
            ends.append(start)
            if start == len(sizes):
                break
    return ends


def balanced(sizes: Sequence[int], batch_size: int) -> list[int]:
    """An order of the images in which no rank gets a batch with many objects at the end.

    The first batches take about equally long, and later ones take less and less. If all sizes are equal, the
    order does not change.

    Args:
        sizes: the expected time for each image.
        batch_size: the largest number of images in a batch.
    """
    if len(set(sizes)) <= 1:
        return list(range(len(sizes)))
    left = sorted(range(len(sizes)), key=lambda image: -sizes[image])
    order: list[int] = []
    while left:
        batches = max(1, math.ceil(len(left) / batch_size) // 2)
        part, left = left[: batches * batch_size], left[batches * batch_size :]
        for batch in range(batches):
            order += part[batch::batches]
    return order
