"""One run: its folder, its processes, its configuration, and how it ended."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

from pytorch_lightning import Trainer

from igos_pl.data.records import FAILED, BatchResult
from igos_pl.data.wording import counted
from igos_pl.errors import DiskFullError, IgosError
from igos_pl.run.coordination import Coordinator, Progress, connect, on_first_rank
from igos_pl.settings import Attributes, Configurable, nested
from igos_pl.solver.presets import preset_difference
from igos_pl.store.folder import RunFolder
from igos_pl.store.index import Published

Result = TypeVar("Result")


class Ending(Enum):
    """How a run ended."""

    RUNNING = "running"
    FINISHED = "finished"  # every rank came to the end of the queue
    STOPPED = "stopped"  # a signal stopped at least one rank early
    FAILED = "failed"  # an exception ended this rank


class Run:
    """One call of ``Trainer.predict``. The data module opens the run, and other objects get it by `Run.of`.

    Args:
        folder: where results are written.
        coordinator: the coordinator of the run's processes.
        configuration: all settings of the explainer and of the data that affect the results.
        expected: the ids of the data set's images that this run or an earlier one in the folder was asked
            for. Without a limit, all images of the data set.
        assigned: the ids of this run's images, in the order of its queue: all of the expected, or some.
        pending: the assigned images that were not explained when the run began.

    Attributes:
        ending: how it ended for this rank.
        begun: whether all ranks have opened the run. From then on, no rank waits for another one before the
            end.
        damaged: the folder's damaged files when the run opened. Their images are pending.
        explained_before: whether the network has explained an image of the folder before this run.
        unread: why images of this rank could not be read now, by image id.
        published: what the folder holds after the end; None if nobody has read it yet.
        pictures: the pictures of explanations that this process has written.
        disk_full: whether something could not be written for lack of room. No pictures are drawn then.
    """

    def __init__(
        self,
        folder: RunFolder,
        coordinator: Coordinator,
        configuration: Attributes,
        expected: Sequence[str] = (),
        assigned: Sequence[str] = (),
        pending: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.coordinator = coordinator
        self.configuration = configuration
        self.expected = expected
        self.assigned = assigned
        self.pending = pending
        self.ending = Ending.RUNNING
        self.begun = False
        self.damaged: list[Path] = []
        self.explained_before = False
        self.unread: dict[str, str] = {}
        self.published: Published | None = None
        self.pictures: list[Path] = []
        self.disk_full = False
        self._counted = -1

    @classmethod
    def open(
        cls,
        trainer: Trainer,
        data: Configurable,
        names: Sequence[str],
        asked: Sequence[str],
        assigned: Sequence[str],
        retry_failed: bool = False,
    ) -> Run:
        """Open the run of a trainer. All ranks call this together. Nothing in the folder changes.

        Args:
            trainer: its ``predict`` has begun.
            data: describes how images are read.
            names: the ids of all images of the data set.
            asked: the ids of the images that are asked for, of all shards together.
            assigned: see `Run`.
            retry_failed: explain again the images that are published without an explanation because they
                were unreadable or failed.

        Raises:
            IgosError: if the trainer's module is not an explainer, or the folder belongs to a run of another
                configuration.
        """
        explainer = trainer.lightning_module
        if not isinstance(explainer, Configurable):
            raise IgosError(
                f"The data modules of igos_pl are for igos_pl.Explainer, but the trainer has a"
                f" {type(explainer).__name__}"
            )
        configuration = {
            **explainer.describe(),
            "data": type(data).__name__,
            **nested("data", data.describe()),
        }
        folder, coordinator = RunFolder(trainer.default_root_dir), connect(trainer)

        def view() -> tuple[list[int], list[int], bool, list[Path]]:
            damaged = folder.damaged()
            folder.check_configuration(configuration, damaged, names, preset_difference)
            statuses = folder.statuses(damaged)
            done = {name for name, status in statuses.items() if not (retry_failed and status in FAILED)}
            places = [place for place, name in enumerate(assigned) if name not in done]
            # A run with a limit does not shrink what an earlier run asked for.
            earlier = set(folder.expected()).difference(asked)
            more = [place for place, name in enumerate(names) if name in earlier] if earlier else []
            return places, more, any(status not in FAILED for status in statuses.values()), damaged

        # Only the first rank looks, because other runs may publish into the folder at the same time.
        places, more, explained, damaged = on_first_rank(trainer, view)
        pending = [assigned[place] for place in places]
        wanted = {*asked, *(names[place] for place in more)}
        expected = [name for name in names if name in wanted]
        run = cls(folder, coordinator, configuration, expected, assigned, pending)
        run.explained_before, run.damaged = explained, damaged
        _RUNS[trainer] = run
        return run

    @classmethod
    def find(cls, trainer: Trainer) -> Run | None:
        """The current or last run of a trainer; None if its data module opened none."""
        return _RUNS.get(trainer)

    @classmethod
    def of(cls, trainer: Trainer) -> Run:
        """The current or last run of a trainer.

        Raises:
            IgosError: if there is none, because the trainer was given other data.
        """
        run = cls.find(trainer)
        if run is None:
            raise other_data()
        return run

    def count(self, batch: int, result: BatchResult) -> None:
        """Report a finished batch of this rank to all ranks. The same batch counts once.

        Args:
            batch: the batch's number on this rank, from 0, ascending.
            result: the batch's result.
        """
        if batch > self._counted:
            self._counted = batch
            self.unread.update({record.sample_id: record.message for record in result.unread})
            failures = sum(record.status in FAILED for record in result.images) + len(result.unread)
            self.coordinator.report(len(result.images), failures)

    def with_room_for(self, write: Callable[[], Result]) -> Result:
        """Write results. If the disk is full, this process's pictures are removed to make room for them.

        Args:
            write: writes the results; called again after pictures were removed.

        Raises:
            IgosError: if the results cannot be written.
        """
        try:
            return write()
        except DiskFullError:
            self.disk_full = True
            removed, self.pictures = self.pictures, []
            if not removed:
                raise
            for path in removed:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            result = write()
            warnings.warn(
                f"The disk is full: {counted(len(removed), 'picture')} in {removed[0].parent} made room for"
                " results. With more space, the same command draws them again if their images are files",
                stacklevel=1,
            )
            return result

    def progress(self) -> Progress:
        """What all ranks have finished so far."""
        return self.coordinator.progress()

    def must_stop(self) -> bool:
        """Whether this rank must stop now because a rank received a signal. If so, the stop is recorded."""
        if not self.coordinator.stop_requested():
            return False
        self.coordinator.stop_early()
        self.ending = Ending.STOPPED
        return True

    def finish(self) -> None:
        """End the run; returns when all ranks have published everything that they finished.

        Raises:
            IgosError: if a rank has died; on the first rank, also if a rank has failed.
            KeyboardInterrupt: on the first rank, if any rank was interrupted.
        """
        self.coordinator.finish()
        self.ending = Ending.STOPPED if self.coordinator.stopped_early else Ending.FINISHED

    def fail(self, error: BaseException) -> None:
        """End this rank's part after an exception. The other ranks stop after their current batch.

        If the run has begun, this returns when all ranks have published what they finished.

        Args:
            error: the exception.

        Raises:
            IgosError: if a rank has died.
        """
        self.ending = Ending.FAILED
        self.coordinator.give_up(error, self.begun)

    def missing(self, done: Container[str] | None = None) -> list[str]:
        """The assigned images that are not in the folder.

        Args:
            done: the images that are in it, if the caller has read them already.
        """
        done = self.folder.done() if done is None else done
        return [name for name in self.assigned if name not in done]


def other_data() -> IgosError:
    """The error for a trainer whose data are not a data module of igos_pl."""
    return IgosError(
        "Trainer.predict has no data module of igos_pl, so the run cannot be resumed or shared between"
        " processes. Instead of a DataLoader or a data set, pass"
        " igos_pl.DatasetDataModule(loader.dataset, batch_size=8), or ImageFolderDataModule(folder) for"
        " pictures in a folder"
    )


# The runs by their trainers. An entry is removed together with its trainer.
_RUNS: WeakKeyDictionary[Trainer, Run] = WeakKeyDictionary()
