"""The samples that are explained, each read only when it is needed, and their batches."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.batches import ImageBatch
from igos_pl.data.images import read_image
from igos_pl.data.inputs import NetworkInput
from igos_pl.data.records import ImageRecord
from igos_pl.data.wording import counted
from igos_pl.datamodules.readers import FATAL, Readers
from igos_pl.errors import IgosError, UnreadError
from igos_pl.settings import storable
from igos_pl.solver.micro_batches import is_out_of_memory


@dataclass(frozen=True, slots=True)
class Sample:
    """An image that is to be explained: a picture file. Subclasses read it from elsewhere.

    Attributes:
        id: its name, unique in the data set and the same on every machine.
        path: where it lies; a string for large data sets, because a `Path` takes three times its memory.
        truth: what is known of it before it is read.
        knows_truth: whether that is all that is known; False for a class whose samples tell it when they are
            read.
    """

    knows_truth: ClassVar[bool] = True

    id: str
    path: Path | str
    truth: GroundTruth = field(default_factory=GroundTruth.of_class)

    def load(self) -> tuple[Image.Image | Tensor, GroundTruth]:
        """Read the image and what is known of it. Loader processes call this.

        Returns:
            Upright 8-bit RGB, or a tensor (see `igos_pl.data.inputs.NetworkInput`); and the annotations.

        Raises:
            UnreadError: if it cannot be read now. It may be readable later.
            IgosError: saying what is wrong with its content.
        """
        return read_image(Path(self.path)), self.truth


# The status of a record that is not written: its image could not be read now.
UNREAD = "unread"

Item = tuple[Tensor | None, ImageRecord, GroundTruth]


class ImageDataset(Dataset[ImageBatch]):
    """Reads and scales samples, a batch at a time. An unreadable image becomes a record that says why.

    Args:
        samples: the samples of the queue.
        to_input: how images become the network's input.
        readers: note which image is being read.
        fatal: ids of images that are not read, because they kill the process that reads them.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        to_input: NetworkInput,
        readers: Readers | None = None,
        fatal: Container[str] = (),
    ) -> None:
        self.samples = samples
        self.to_input = to_input
        self.readers = readers or Readers(0)
        self.fatal = fatal

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, numbers: Sequence[int]) -> ImageBatch:
        """The batch of samples with these numbers: a tensor of the readable images, records of the others."""
        items = [self._read(number) for number in numbers]
        lost = [record for image, record, _ in items if image is None]
        readable = [(image, record, truth) for image, record, truth in items if image is not None]
        return ImageBatch(
            _stacked([image for image, _, _ in readable]),
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
            image, known = sample.load()
            pixels, frame = self.to_input(image)
            truth = known.fitting(frame.width, frame.height)
        except Exception as error:
            failure = failure_of(error)
            status = UNREAD if isinstance(failure, UnreadError) else "unreadable"
            return None, replace(record, status=status, message=storable(str(failure))), sample.truth
        left_out = len(known.names) - len(truth.names)
        notes = (
            [f"{counted(left_out, 'object')} left out, because of masks of another size than the image"]
            if left_out
            else []
        )
        notes += [image.info["note"]] if isinstance(image, Image.Image) and "note" in image.info else []
        record = replace(record, frame=frame, ground_truth=truth.label, message="; ".join(notes))
        return pixels, record, truth


def _stacked(images: Sequence[Tensor]) -> Tensor:
    """Images as one tensor: uint8 if all are."""
    if not images:
        return torch.empty(0, 1, 1, 1)
    if len({image.dtype for image in images}) > 1:
        images = [image if image.is_floating_point() else image.float() / 255 for image in images]
    return torch.stack(list(images))


def failure_of(error: Exception, what: str = "reading it") -> IgosError:
    """Any exception as the failure of the one image at which it was raised.

    Args:
        error: of a data set, a library, or this package.
        what: raised it.
    """
    if isinstance(error, IgosError):
        return error
    message = f"{what} raised {type(error).__name__}: {error}"
    return (UnreadError if _may_pass(error) else IgosError)(message)


def _may_pass(error: Exception) -> bool:
    """Whether an exception says that something could not be reached, not that it is damaged."""
    if is_out_of_memory(error):
        return True
    # Pillow raises OSErrors without a number of the system for damaged pictures.
    damaged = type(error) is OSError and error.errno is None
    return isinstance(error, OSError) and not damaged and not isinstance(error, UnidentifiedImageError)


def check_samples(samples: Sequence[Sample]) -> None:
    """Raise if two samples have the same id, or a name or number of a sample cannot be stored in results.

    Raises:
        IgosError: the message names the sample.
    """
    paths: dict[str, Path | str] = {}
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
    raise IgosError(f"The image {str(sample.path)!r} (id {sample.id!r}) has {problem}: correct it")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_INT64 = 1 << 63
