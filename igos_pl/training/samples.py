"""The fixed images that are explained while a network is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igos_pl.errors import IgosError


@dataclass(frozen=True)
class Samples:
    """Images as a network takes them, in main memory.

    Attributes:
        images: ``(N, C, H, W)`` float32.
        labels: the labels of the N images, -1 where unknown.
    """

    images: Tensor
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(cls, batch: Any) -> Samples:
        """The images and labels of a batch.

        Args:
            batch: a tensor, or a tuple, list or dict of tensors. The first tensor with four dimensions has
                the images. The first tensor of integers with one number for each image has the labels.

        Raises:
            IgosError: if there are no images, or they are not of a floating-point type.
        """
        if isinstance(batch, Mapping):
            batch = list(batch.values())
        parts = list(batch) if isinstance(batch, list | tuple) else [batch]
        tensors = [part for part in parts if isinstance(part, Tensor)]
        images = next((tensor for tensor in tensors if tensor.ndim == 4 and len(tensor)), None)
        if images is None:
            kinds = ", ".join(_kind(part) for part in parts)
            raise IgosError(
                f"There is no tensor of images (N, C, H, W) in the samples, only: {kinds}. Pass"
                " samples=(images, labels) to ExplainCallback"
            )
        if not images.is_floating_point():
            raise IgosError(
                f"The samples' images are of {images.dtype}, but must be the network's floating-point input:"
                " pass samples=(images, labels) to ExplainCallback"
            )
        labels = next((tensor for tensor in tensors if _are_labels(tensor, len(images))), None)
        with torch.inference_mode(False):  # autograd cannot use inference tensors: copy them
            pixels = images.detach().to("cpu", torch.float32, copy=True)
        return cls(pixels, [-1] * len(images) if labels is None else labels.tolist())

    def first(self, count: int) -> Samples:
        """The first ``count`` samples."""
        return Samples(self.images[:count], self.labels[:count])

    def and_more(self, other: Samples) -> Samples:
        """These samples followed by others.

        Raises:
            IgosError: if the images differ in size.
        """
        if self.images.shape[1:] != other.images.shape[1:]:
            raise IgosError(
                f"The validation has images of {tuple(self.images.shape[1:])} and"
                f" {tuple(other.images.shape[1:])}, but the samples must be of one size: pass"
                " samples=(images, labels) to ExplainCallback"
            )
        return Samples(torch.cat((self.images, other.images)), [*self.labels, *other.labels])


def _are_labels(tensor: Tensor, count: int) -> bool:
    integers = not tensor.is_floating_point() and tensor.dtype != torch.bool
    return integers and tensor.shape == (count,)


def _kind(part: Any) -> str:
    return f"{part.dtype} {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
