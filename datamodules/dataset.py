"""The data module for any map-style data set."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.inputs import NetworkInput
from igos_pl.data.items import ItemReader
from igos_pl.data.wording import counted
from igos_pl.datamodules.base import SampleDataModule
from igos_pl.datamodules.samples import Sample, failure_of
from igos_pl.errors import IgosError, UnreadError
from igos_pl.settings import Attributes, digest


@dataclass(frozen=True, slots=True)
class DatasetSample(Sample):
    """An item of a data set.

    Attributes:
        dataset: the data set that has the item.
        index: the item's index.
        reader: splits the item into the image and what is known of it.
    """

    knows_truth: ClassVar[bool] = False

    dataset: Any = field(kw_only=True)
    index: int = field(kw_only=True)
    reader: ItemReader = field(kw_only=True)

    def load(self) -> tuple[Image.Image | Tensor, GroundTruth]:
        """See `Sample.load`. If the data set raises an exception, only this item fails."""
        item = self.item()
        try:
            return self.reader.read(item)
        except Exception as error:  # a picture that is decoded only now, say
            raise failure_of(error) from error

    def item(self) -> Any:
        """The item as the data set gives it.

        Raises:
            UnreadError: if the data set could not reach it now.
            IgosError: if the data set raised another exception.
        """
        try:
            return self.dataset[self.index]
        except Exception as error:
            raise failure_of(error, "the data set") from error


class DatasetDataModule(SampleDataModule):
    """Any map-style data set: one with ``dataset[index]`` and ``len(dataset)``.

    Pictures (PIL images, uint8 arrays, bytes) are preprocessed as the network needs it. Tensors and float
    arrays must be the network's input already: of its size, float from 0 to 1 or uint8 from 0 to 255. Only
    uint8 tensors of another size are preprocessed like pictures. `igos_pl.data.items` lists the forms of
    items and images.

    An item at which the data set raises an exception is recorded as unreadable, with the reason. If the
    exception says that a file or a server could not be reached, the next run tries the item again.

    Args:
        dataset: the data set.
        ids: a name for each item, which identifies its results: a list, or a function of the index. By
            default, the index.
        normalized: whether float tensors are already normalised by the network's mean and std.
        image_key: the image's key, if items are dicts with several images.
        label_key: the label's key, if items are dicts that have it under another key than ``label``,
            ``labels``, ``target`` or ``cls``.
        **data: see `SampleDataModule`.

    The class of the data set, its length, its ids, and its first and last item identify it: a run in the
    folder of another data set is refused.
    """

    not_settings = frozenset({"dataset", "ids"})  # `facts` describes them

    def __init__(
        self,
        # The command line reads the arguments of a Dataset, but not of a Dataset[Any].
        dataset: Dataset,  # type: ignore[type-arg]
        ids: list[str] | Callable[[int], Any] | None = None,
        normalized: bool = False,
        image_key: str | None = None,
        label_key: str | None = None,
        **data: Any,
    ) -> None:
        super().__init__(**data)
        self.dataset = dataset
        self.ids = ids
        self.normalized = normalized
        self.image_key = image_key
        self.label_key = label_key
        self._samples: list[Sample] = []

    def find_samples(self) -> list[Sample]:
        """A sample for each item, in the data set's order."""
        reader = ItemReader(self.class_labels(), self.image_key, self.label_key)
        name = type(self.dataset).__name__
        self._samples = [
            DatasetSample(id, f"{name}[{index}]", dataset=self.dataset, index=index, reader=reader)
            for index, id in enumerate(self._ids())
        ]
        return self._samples

    def length(self) -> int:
        """The number of items.

        Raises:
            IgosError: if the data set is not map-style, or empty.
        """
        name = type(self.dataset).__name__
        if isinstance(self.dataset, DataLoader):
            raise IgosError(f"dataset is a {name}: pass its data set, loader.dataset, and batch_size")
        readable = hasattr(self.dataset, "__getitem__") and hasattr(self.dataset, "__len__")
        if isinstance(self.dataset, IterableDataset) or not readable:
            raise IgosError(
                f"{name} has no dataset[index] and len(dataset), so its images cannot be shared between"
                " processes, and a run cannot be resumed: use WebDatasetDataModule for tar files,"
                " LitDataDataModule for folders of LitData, or put the items into a list"
            )
        length = len(self.dataset)  # type: ignore[arg-type]
        if not length:
            raise IgosError(f"{name} has no items: there is nothing to explain")
        return length

    def _ids(self) -> list[str]:
        length = self.length()
        if self.ids is None:
            return [str(index) for index in range(length)]
        if callable(self.ids):
            return [str(self.ids(index)) for index in range(length)]
        if len(self.ids) != length:
            names, items = counted(len(self.ids), "name"), counted(length, "item")
            raise IgosError(f"ids has {names}, but the data set has {items}")
        return [str(name) for name in self.ids]

    def facts(self) -> Attributes:
        """What identifies this data set.

        Raises:
            UnreadError: if its first or last item cannot be read now.
            IgosError: if an item has another image each time it is read.
        """
        samples = self._samples or self.find_samples()
        names = [sample.id for sample in samples]
        return {
            **super().facts(),
            "dataset": f"{type(self.dataset).__module__}.{type(self.dataset).__qualname__}",
            "length": len(names),
            "ids": digest("\n".join(names)),
            "items": digest("".join(_content(sample) for sample in (samples[0], samples[-1]))),
        }

    def check_input(self, to_input: NetworkInput) -> None:
        """Raise if the network does not take images of the first item's form.

        It reads the data set's first item even if that item is not pending, so that a resumed run is checked
        like the first one.
        """
        sample = self._samples[0]
        assert isinstance(sample, DatasetSample)
        try:
            item = sample.item()
        except IgosError:
            return  # this item's own failure
        try:
            to_input(sample.reader.example(item))
            unused = sample.reader.unused(item)
        except IgosError as error:
            raise IgosError(f"{sample.path}: {error}") from error
        if unused:
            logging.getLogger(__name__).warning(
                "%s comes with a %s, which is neither a label nor boxes with labels: it is not used",
                sample.path,
                unused,
            )


def _content(sample: Sample) -> str:
    """A digest of an item's image."""
    try:
        first, second = (_bytes(sample.load()[0]) for _ in range(2))
    except UnreadError as error:
        raise UnreadError(f"{sample.path}: {error}. Run the same command again") from error
    except IgosError as error:
        return digest(str(error).partition(":")[0])
    if first != second:
        raise IgosError(
            f"{sample.path} is another image each time it is read, so the results would not show"
            " what was explained: remove the random transforms from the data set"
        )
    return first


def _bytes(image: Image.Image | Tensor) -> str:
    pixels = np.asarray(image)
    found = hashlib.blake2b(str((pixels.shape, str(pixels.dtype))).encode(), digest_size=8)
    found.update(np.ascontiguousarray(pixels).tobytes())
    return found.hexdigest()
