"""The base class of the data modules: it decodes an image when it is needed, and skips finished ones."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from PIL import Image
from pytorch_lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from igos_pl.checks import check_choice, check_count
from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import RESIZE_MODES
from igos_pl.data.inputs import NetworkInput
from igos_pl.data.labels import ClassLabels
from igos_pl.data.preprocessing import Resize
from igos_pl.datamodules.readers import FatalImages, Readers, be_killed_first, end_workers
from igos_pl.datamodules.samples import ImageDataset, Sample, check_samples
from igos_pl.errors import IgosError, TargetError
from igos_pl.models.base import ExplainableNetwork
from igos_pl.run.coordination import QueueSampler, balanced, batch_ends, on_all_ranks, on_first_rank
from igos_pl.run.run import Run
from igos_pl.settings import Configurable
from igos_pl.solver.micro_batches import is_dead_loader

ExceptHook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


class SampleDataModule(Configurable, LightningDataModule, ABC):
    """Base class of all data modules. A subclass implements `find_samples`.

    Args:
        resize: ``network`` uses the network's `preprocessing`: that of its library if there is one, otherwise
            ``squash``. ``squash`` scales the whole image to the input (as published), ``crop`` scales its
            centre (the usual ImageNet evaluation).
        batch_size: images that are optimised together.
        num_workers: processes that read images.
        limit: explain only so many samples, the first ones.
        retry_unreadable: explain again what earlier runs recorded as unreadable or failed.
        shard: ``i/n`` explains every n-th sample from the i-th on, counted from 0. This is for job
            arrays, whose tasks share only the output folder.

    Attributes:
        normalized: whether tensors are already normalised; see `NetworkInput`.
        only: the ids of the samples that are used; None for all.
    """

    not_settings = frozenset({"batch_size", "num_workers", "limit", "shard", "retry_unreadable"})
    normalized = False

    def __init__(
        self,
        resize: Literal["network", "squash", "crop"] = "network",
        batch_size: int = 8,
        num_workers: int = 2,
        limit: int | None = None,
        shard: str | None = None,
        retry_unreadable: bool = False,
    ) -> None:
        super().__init__()
        check_choice("resize", resize, ("network", *RESIZE_MODES))
        check_count("batch_size", batch_size, 1)
        check_count("num_workers", num_workers, 0)
        if limit is not None:
            check_count("limit", limit, 1)
        self.resize = resize
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.limit = limit
        self.shard = _shard(shard)
        self.retry_unreadable = retry_unreadable
        self.only: Container[str] | None = None
        self.pending: list[Sample] = []
        self._readers = Readers(0)

    @abstractmethod
    def find_samples(self) -> list[Sample]:
        """All samples, in an order that does not change. No image is read.

        Raises:
            IgosError: if there are no samples, or the labels do not fit.
        """

    def setup(self, stage: str) -> None:
        """Find the samples, and open the run, which knows which are still missing. All ranks call it.

        What the network does not take is refused here, before the callbacks write anything.
        """
        assert self.trainer is not None, "setup is called by a trainer"
        _check_processes(self.trainer)
        samples = on_all_ranks(self.trainer, self._find_samples)
        if self.only is not None:
            samples = [sample for sample in samples if sample.id in self.only]
        part, parts = self.shard
        shard = samples[: self.limit][part::parts]
        order = balanced([_size(sample) for sample in shard], self.batch_size)
        assigned = {shard[number].id: shard[number] for number in order}
        names = [sample.id for sample in samples]
        run = Run.open(self.trainer, self, names, names[: self.limit], list(assigned), self.retry_unreadable)
        self.pending = [assigned[name] for name in run.pending]
        on_first_rank(self.trainer, self._check)

    def _find_samples(self) -> list[Sample]:
        """All samples, checked. Only the first rank warns."""
        assert self.trainer is not None
        with _first_rank_warns(self.trainer):
            samples = self.find_samples()
        check_samples(samples)
        return samples

    def class_labels(self) -> ClassLabels:
        """The labels of the trainer's network by their names."""
        explainer = None if self.trainer is None else self.trainer.lightning_module
        return ClassLabels(getattr(getattr(explainer, "network", None), "class_names", ()))

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Batches of the pending samples, scaled to the input of the trainer's network."""
        assert self.trainer is not None, "loaders are made by a trainer"
        workers = min(self.num_workers, len(self.pending))
        if not self.pending:  # nothing is left to do, which Lightning takes for a mistake
            warnings.filterwarnings("ignore", message=".*across ranks is zero")
        self._readers = Readers(workers)
        run = Run.of(self.trainer)
        fatal = set() if self.retry_unreadable else FatalImages(run.folder.path).names()
        dataset = ImageDataset(self.pending, self._network_input(), self._readers, fatal)
        sizes = [_size(sample) for sample in self.pending]
        ends = batch_ends(sizes, self.batch_size, run.coordinator.world_size, workers)
        return DataLoader(
            dataset,
            sampler=QueueSampler(run.coordinator, ends),
            batch_size=None,  # the sampler gives whole batches
            num_workers=workers,
            prefetch_factor=1 if workers else None,  # the smallest number of batches reserved ahead
            worker_init_fn=_set_up_worker,
            pin_memory=torch.cuda.is_available(),
        )

    def _check(self) -> None:
        """Raise if the network does not take the images, or if what is known of them does not suit it.

        A message about one sample names it.
        """
        self.check_input(self._network_input())
        assert self.trainer is not None
        network = self._network()
        # Lightning moves it only after setup, and some networks run on their own device only.
        network.to(self.trainer.strategy.root_device)
        samples = [sample for sample in self.pending if sample.knows_truth]
        try:
            network.check([sample.truth for sample in samples])
        except TargetError as error:
            if error.image is None:
                raise
            raise TargetError(f"{samples[error.image].id}: {error}") from error

    def _network(self) -> ExplainableNetwork:
        """The trainer's network."""
        assert self.trainer is not None, "a trainer calls setup and makes loaders"
        network = self.trainer.lightning_module.network
        assert isinstance(network, ExplainableNetwork)
        return network

    def _network_input(self) -> NetworkInput:
        """How images become the input of the trainer's network."""
        network = self._network()
        preprocessing = network.preprocessing
        if self.resize != "network":
            preprocessing = Resize(network.input_size, self.resize, network.channels)
        return NetworkInput(
            preprocessing,
            network.input_size,
            network.mean,
            network.std,
            self.normalized,
            network.is_normalizing,
        )

    def check_input(self, to_input: NetworkInput) -> None:
        """Raise now for what is wrong with all images, instead of recording it for each of them.

        Raises:
            IgosError: if the network does not take the images.
        """
        to_input(Image.new("RGB", (64, 64)))

    def on_exception(self, exception: BaseException) -> None:
        """End the processes that read images. If one died, name its image and note it in the folder."""
        if self.trainer is None:
            return
        end_workers(self.trainer)
        if not is_dead_loader(exception):
            return
        notes = FatalImages(Run.of(self.trainer).folder.path)
        for number in self._readers.read_by_dead(exception):
            notes.note(self.pending[number].id)
            logging.getLogger(__name__).warning(
                "%s: the process that was reading it died. If that happens again, the next run records the"
                " image as unreadable and goes on without it",
                self.pending[number].path,
            )


class ImageDataModule(SampleDataModule):
    """Base class of data modules whose images are files below one folder.

    Args:
        root: the folder.
        **data: see `SampleDataModule`.
    """

    def __init__(self, root: str, **data: Any) -> None:
        super().__init__(**data)
        self.root = absolute(root)


def absolute(root: str | Path) -> Path:
    """The absolute path, which stays right if the working folder changes, without ``..``.

    Links stay, except in front of a ``..``, so that images keep the names that the user sees.

    Raises:
        IgosError: if it is empty.
    """
    if not root:
        raise IgosError("root is empty: set root (--data.root) to the folder with the images")
    parts = Path(root).absolute().parts
    last = max((place for place, part in enumerate(parts, 1) if part == ".."), default=0)
    return Path(*parts[:last]).resolve().joinpath(*parts[last:]) if last else Path(*parts)


@contextmanager
def _first_rank_warns(trainer: Trainer) -> Iterator[None]:
    """Silence warnings of the other ranks: all ranks look at the same data."""
    logger = logging.getLogger("igos_pl")
    level = logger.level
    if not trainer.is_global_zero:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _size(sample: Sample) -> int:
    """The expected time for an image: a unit for the image itself, and one for each annotated object."""
    return 1 + len(sample.truth.boxes)


def _set_up_worker(worker: int) -> None:
    """Ignore signals that a cluster or a terminal sends to all processes: the ranks handle them."""
    be_killed_first()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _without_broken_pipes(sys.excepthook)


def _without_broken_pipes(hook: ExceptHook) -> ExceptHook:
    """A hook that is silent if a rank ended while a worker handed a batch over to it.

    A thread of multiprocessing calls it then.
    """

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, BrokenPipeError):
            hook(kind, error, trace)

    return told


def _shard(text: str | None) -> tuple[int, int]:
    """``2/8`` as (2, 8); (0, 1) for None."""
    if text is None:
        return 0, 1
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        n = int(parts) if parts.isdecimal() and int(parts) > 1 else 8
        raise IgosError(
            f"shard is {text!r}, but must be i/n with i from 0 to n - 1: 0/{n} to {n - 1}/{n}, for example"
        )
    return int(part), int(parts)


def _check_processes(trainer: Trainer) -> None:
    """Raise if other processes run than were asked for: a part of the data could be left out silently."""
    wanted = trainer.num_devices * trainer.num_nodes
    if wanted != trainer.world_size:
        raise IgosError(
            f"{trainer.num_nodes} nodes with {trainer.num_devices} devices need {wanted} processes, but"
            f" {trainer.world_size} started. In a SLURM job, start the command with srun, and set srun's"
            " --ntasks-per-node to the trainer's devices (--trainer.devices)"
        )
