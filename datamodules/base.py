"""Streaming: no image is decoded before its turn, none that is done is decoded again."""

from __future__ import annotations

import signal
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from igos_pl.batches import ImageBatch
from igos_pl.checks import check_at_least, check_choice
from igos_pl.coordination import QueueBatchSampler, alone, balanced, connect
from igos_pl.errors import IgosError
from igos_pl.images import RESIZE_MODES, read_image, to_input
from igos_pl.models.base import ExplainableNetwork
from igos_pl.store.schema import Attributes, ImageRecord
from igos_pl.store.segments import RunFolder
from igos_pl.truth import GroundTruth


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


Item = tuple[Tensor | None, ImageRecord, GroundTruth]


class ImageDataset(Dataset[Item]):
    """Reads and scales samples; an unreadable one becomes a record that says why."""

    def __init__(self, samples: Sequence[Sample], input_size: int, resize: str) -> None:
        self.samples = samples
        self.input_size = input_size
        self.resize = resize

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        sample = self.samples[index]
        try:
            image = read_image(sample.path)
        except IgosError as error:
            record = ImageRecord(
                sample.id,
                str(sample.path),
                ground_truth=sample.truth.label,
                status="unreadable",
                message=str(error),
            )
            return None, record, sample.truth
        record = ImageRecord(
            sample.id, str(sample.path), image.width, image.height, ground_truth=sample.truth.label
        )
        pixels = torch.from_numpy(to_input(image, self.input_size, self.resize))
        return pixels, record, sample.truth

    def collate(self, items: Sequence[Item]) -> ImageBatch:
        """Readable images as one tensor, the others as failures."""
        size = self.input_size
        readable = [(image, record, truth) for image, record, truth in items if image is not None]
        images = [image for image, _, _ in readable]
        return ImageBatch(
            torch.stack(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8),
            [record for _, record, _ in readable],
            [truth for _, _, truth in readable],
            self.resize,
            failures=[record for image, record, _ in items if image is None],
        )


class ImageDataModule(LightningDataModule):
    """What all data sets share; a new one says which samples it has.

    Args:
        root: the folder with the images.
        resize: ``squash`` scales the whole image to the square input (as published), ``crop`` its central
            square (the usual ImageNet evaluation).
        batch_size: images that are optimised together.
        num_workers: processes that read images.
        limit: explain the first so many samples only.
        shard: ``i/n`` explains every n-th sample from the i-th on (from 0): for job arrays, whose tasks share
            nothing but the output folder.
    """

    def __init__(
        self,
        root: str,
        resize: str = "squash",
        batch_size: int = 8,
        num_workers: int = 2,
        limit: int | None = None,
        shard: str | None = None,
    ) -> None:
        super().__init__()
        check_choice("resize", resize, RESIZE_MODES)
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
        self.samples: list[Sample] = []
        self.assigned: list[Sample] = []
        self.pending: list[Sample] = []
        self.coordinator = alone()

    @abstractmethod
    def find_samples(self) -> list[Sample]:
        """All samples, in an order that does not change; without reading images.

        Raises:
            IgosError: if there is none, or the labels do not fit.
        """

    def describe(self) -> Attributes:
        """What decides how images are read: attributes of the results."""
        return {"data": type(self).__name__, "root": str(self.root.resolve()), "resize": self.resize}

    def setup(self, stage: str) -> None:
        """Find the samples, and which of them the output folder lacks; all ranks together."""
        assert self.trainer is not None, "setup is called by a trainer"
        _check_processes(self.trainer)
        self.samples = self.find_samples()[: self.limit]
        _check_ids(self.samples)
        part, parts = self.shard
        assigned = self.samples[part::parts]
        sizes = [len(sample.truth.boxes) for sample in assigned]
        self.assigned = [assigned[number] for number in balanced(sizes, self.batch_size)]
        self.coordinator = connect(self.trainer)
        # The first rank's view counts: others publish into the same folder meanwhile.
        done = RunFolder(self.trainer.default_root_dir).done() if self.trainer.is_global_zero else set()
        pending = [number for number, sample in enumerate(self.assigned) if sample.id not in done]
        pending = self.trainer.strategy.broadcast(pending)
        self.pending = [self.assigned[number] for number in pending]

    def predict_dataloader(self) -> DataLoader[Item]:
        """Batches of the pending samples, scaled to the input of the trainer's network."""
        assert self.trainer is not None, "loaders are made by a trainer"
        network = self.trainer.lightning_module.network
        assert isinstance(network, ExplainableNetwork)
        dataset = ImageDataset(self.pending, network.input_size, self.resize)
        workers = min(self.num_workers, len(self.pending))
        return DataLoader(
            dataset,
            batch_sampler=QueueBatchSampler(self.coordinator, len(dataset), self.batch_size),
            num_workers=workers,
            prefetch_factor=1 if workers else None,  # no rank takes more ahead than it must
            collate_fn=dataset.collate,
            worker_init_fn=_ignore_signals,
            pin_memory=torch.cuda.is_available(),
        )


def _ignore_signals(worker: int) -> None:
    """Signals that a cluster sends to all of a job's processes are for the ranks, which end their workers."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _shard(text: str | None) -> tuple[int, int]:
    """``2/8`` as (2, 8); (0, 1) for None."""
    if text is None:
        return 0, 1
    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise IgosError(f"shard is {text!r}, but must be as in 0/8 to 7/8: number/of how many")
    return int(part), int(parts)


def _check_processes(trainer: Trainer) -> None:
    """Raise if fewer processes run than were asked for: a part of the data would be left out silently."""
    wanted = trainer.num_devices * trainer.num_nodes
    if wanted != trainer.world_size:
        raise IgosError(
            f"{trainer.num_nodes} nodes with {trainer.num_devices} devices need {wanted} processes, but"
            f" {trainer.world_size} started. In a SLURM job start the command by srun, with"
            " --ntasks-per-node equal to --trainer.devices"
        )
    if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
        raise IgosError(
            "Make the Trainer with use_distributed_sampler=False: batches are handed out to the ranks here"
        )


def _check_ids(samples: Sequence[Sample]) -> None:
    """Raise if an id is there twice, or results could not hold it."""
    paths: dict[str, Path] = {}
    for sample in samples:
        _check_text(sample)
        if sample.id in paths:
            raise IgosError(
                f"Two images have the id {sample.id!r}: {paths[sample.id]} and {sample.path}. Results are"
                " told apart by it: rename one"
            )
        paths[sample.id] = sample.path


def _check_text(sample: Sample) -> None:
    if any(mark in sample.id for mark in "\n\r\0"):
        problem = "a line break or a zero byte in its name"
    else:
        try:
            f"{sample.id}{sample.path}".encode()
            return
        except UnicodeEncodeError:
            problem = "a name that is not UTF-8"
    raise IgosError(f"The image {str(sample.path)!r} (id {sample.id!r}) has {problem}: rename it")
