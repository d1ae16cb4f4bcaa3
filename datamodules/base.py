"""Streams the images: each one is decoded only when it is needed, and finished images are skipped."""

from __future__ import annotations

import logging
import signal
import warnings
from abc import abstractmethod
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from igos_pl.checks import check_at_least, check_choice
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import RESIZE_MODES
from igos_pl.data.images import read_image
from igos_pl.data.preprocessing import Preprocessing, Resize
from igos_pl.data.records import ImageRecord
from igos_pl.datamodules.readers import FATAL, FatalImages, Readers, be_killed_first
from igos_pl.errors import IgosError, UnreadError
from igos_pl.models.base import ExplainableNetwork
from igos_pl.run.coordination import QueueSampler, balanced, batch_ends
from igos_pl.run.run import Run
from igos_pl.settings import Configurable
from igos_pl.solver.micro_batches import is_dead_loader


@dataclass(frozen=True)
class Sample:
    """An image that is to be explained.

    Attributes:
        id: its name, unique in the data set and the same on every machine.
        path: where it lies.
        truth: what is known of it.
    """

    id: str
    path: Path
    truth: GroundTruth = field(default_factory=GroundTruth)


# The status of a record that is not written: its image could not be read now.
UNREAD = "unread"

Item = tuple[Tensor | None, ImageRecord, GroundTruth]


class ImageDataset(Dataset[ImageBatch]):
    """Reads and scales samples, a batch at a time. An unreadable image becomes a record that says why.

    Args:
        samples: the queue.
        preprocessing: how pictures become the network's input.
        readers: are told which image is being read.
        fatal: ids of images that are not read, because they kill the process that reads them.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        readers: Readers | None = None,
        fatal: Container[str] = (),
    ) -> None:
        self.samples = samples
        self.preprocessing = preprocessing
        self.readers = readers or Readers(0)
        self.fatal = fatal

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, numbers: Sequence[int]) -> ImageBatch:
        """The samples of some numbers: readable images as one tensor, the others as failures."""
        items = [self._read(number) for number in numbers]
        lost = [record for image, record, _ in items if image is None]
        readable = [(image, record, truth) for image, record, truth in items if image is not None]
        images = [image for image, _, _ in readable]
        return ImageBatch(
            torch.stack(images) if images else torch.empty(0, 1, 1, 1),
            [record for _, record, _ in readable],
            [truth for _, _, truth in readable],
            failures=[record for record in lost if record.status != UNREAD],
            unread=[record for record in lost if record.status == UNREAD],
        )

    def _read(self, number: int) -> Item:
        with self.readers.reading(number):
            return self._item(self.samples[number])

    def _item(self, sample: Sample) -> Item:
        record = ImageRecord(sample.id, str(sample.path), ground_truth=sample.truth.label)
        try:
            if sample.id in self.fatal:
                raise IgosError(FATAL)
            image = read_image(sample.path)
        except IgosError as error:
            status = UNREAD if isinstance(error, UnreadError) else "unreadable"
            return None, replace(record, status=status, message=str(error)), sample.truth
        truth = sample.truth.fitting(image.width, image.height)
        left_out = len(sample.truth.names) - len(truth.names)
        notes = (
            [f"{left_out} object(s) left out: their masks have another size than the image"]
            if left_out
            else []
        )
        notes += [image.info["note"]] if "note" in image.info else []
        pixels, frame = self.preprocessing(image)
        return pixels, replace(record, frame=frame, message="; ".join(notes)), truth


class ImageDataModule(Configurable, LightningDataModule):
    """Base class of all data modules. A subclass implements `find_samples`.

    Args:
        root: the folder with the images.
        resize: ``network`` does what the network's `preprocessing` says, which is to squash unless the
            network comes from a library with a preprocessing of its own; ``squash`` scales the whole image to
            the input (as published), ``crop`` its centre (the usual ImageNet evaluation).
        batch_size: images that are optimised together.
        num_workers: processes that read images.
        limit: explain only this many samples, from the first on.
        retry_unreadable: explain again what earlier runs recorded as unreadable or failed.
        shard: ``i/n`` explains every n-th sample from the i-th on (from 0): for job arrays, whose tasks share
            nothing but the output folder.
    """

    not_settings = frozenset({"batch_size", "num_workers", "limit", "shard", "retry_unreadable"})

    def __init__(
        self,
        root: str,
        resize: Literal["network", "squash", "crop"] = "network",
        batch_size: int = 8,
        num_workers: int = 2,
        limit: int | None = None,
        shard: str | None = None,
        retry_unreadable: bool = False,
    ) -> None:
        super().__init__()
        if not root:
            raise IgosError("root is empty: set --data.root to the folder with the images")
        check_choice("resize", resize, ("network", *RESIZE_MODES))
        check_at_least("batch_size", batch_size, 1)
        check_at_least("num_workers", num_workers, 0)
        if limit is not None:
            check_at_least("limit", limit, 1)
        self.root = Path(root)
        self.resize = resize
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.limit = limit
        self.shard = _shard(shard)
        self.retry_unreadable = retry_unreadable
        self.pending: list[Sample] = []
        self._readers = Readers(0)

    @abstractmethod
    def find_samples(self) -> list[Sample]:
        """All samples, in an order that does not change; without reading images.

        Raises:
            IgosError: if there is none, or the labels do not fit.
        """

    def setup(self, stage: str) -> None:
        """Find the samples, and open the run, which knows the missing ones. All ranks call this together."""
        assert self.trainer is not None, "setup is called by a trainer"
        _check_processes(self.trainer)
        samples = self.find_samples()[: self.limit]
        _check_ids(samples)
        part, parts = self.shard
        shard = samples[part::parts]
        order = balanced([_size(sample) for sample in shard], self.batch_size)
        assigned = {shard[number].id: shard[number] for number in order}
        names = [sample.id for sample in samples]
        run = Run.open(self.trainer, self, names, list(assigned), self.retry_unreadable)
        self.pending = [assigned[name] for name in run.pending]

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Batches of the pending samples, scaled to the input of the trainer's network."""
        assert self.trainer is not None, "loaders are made by a trainer"
        network = self.trainer.lightning_module.network
        assert isinstance(network, ExplainableNetwork)
        preprocessing = network.preprocessing
        if self.resize != "network":
            preprocessing = Resize(network.input_size, self.resize, network.channels)
        preprocessing(Image.new("RGB", (64, 64)))  # what is wrong with it is told now, not by each worker
        network.check([sample.truth for sample in self.pending])
        workers = min(self.num_workers, len(self.pending))
        if not self.pending:  # nothing is left to do, which Lightning takes for a mistake
            warnings.filterwarnings("ignore", message=".*across ranks is zero")
        self._readers = Readers(workers)
        run = Run.of(self.trainer)
        fatal = set() if self.retry_unreadable else FatalImages(run.folder.path).names()
        dataset = ImageDataset(self.pending, preprocessing, self._readers, fatal)
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

    def on_exception(self, exception: BaseException) -> None:
        """Name the images that were being read by a process that died, and note them in the run's folder."""
        if not is_dead_loader(exception) or self.trainer is None:
            return
        notes = FatalImages(Run.of(self.trainer).folder.path)
        for number in self._readers.read_by_dead(exception):
            notes.note(self.pending[number].id)
            logging.getLogger(__name__).warning(
                "%s: the process that was reading it died. If that happens again, the image is recorded as"
                " unreadable, and the run after that goes on without it",
                self.pending[number].path,
            )


def _size(sample: Sample) -> int:
    """How long an image is expected to take, in units of an object; one without objects takes time, too."""
    return 1 + len(sample.truth.boxes)


def _set_up_worker(worker: int) -> None:
    """Ignore signals that a cluster or a terminal sends to all processes: the ranks handle them."""
    be_killed_first()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _shard(text: str | None) -> tuple[int, int]:
    """``2/8`` as (2, 8); (0, 1) for None."""
    if text is None:
        return 0, 1
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise IgosError(f"shard is {text!r}, but must be i/n with i from 0 to n - 1: 0/8 to 7/8, for example")
    return int(part), int(parts)


def _check_processes(trainer: Trainer) -> None:
    """Raise if fewer processes run than were asked for: a part of the data would be left out silently."""
    wanted = trainer.num_devices * trainer.num_nodes
    if wanted != trainer.world_size:
        raise IgosError(
            f"{trainer.num_nodes} nodes with {trainer.num_devices} devices need {wanted} processes, but"
            f" {trainer.world_size} started. In a SLURM job, start the command with srun and"
            " --ntasks-per-node equal to --trainer.devices"
        )


def _check_ids(samples: Sequence[Sample]) -> None:
    """Raise if two samples have one id, or results could not hold it."""
    paths: dict[str, Path] = {}
    for sample in samples:
        _check_text(sample)
        if sample.id in paths:
            raise IgosError(
                f"Two images have the id {sample.id!r}: {paths[sample.id]} and {sample.path}. Ids must be"
                " unique, because they identify the results: rename one of the two"
            )
        paths[sample.id] = sample.path


def _check_text(sample: Sample) -> None:
    if any(mark in sample.id for mark in "\n\r\0") or "\0" in str(sample.path):
        problem = "a line break or a zero byte in its name"
    elif not _is_utf8(f"{sample.id}{sample.path}"):
        problem = "a name that is not UTF-8"
    elif any("\0" in name or not _is_utf8(name) for name in sample.truth.names):
        problem = "an object whose class name has a zero byte or is not UTF-8"
    elif any(not -_INT64 <= number < _INT64 for number in sample.truth.ids):
        problem = "an object whose id has more than 64 bits"
    else:
        return
    raise IgosError(f"The image {str(sample.path)!r} (id {sample.id!r}) has {problem}: change that")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_INT64 = 1 << 63
