"""What a DataModule hands to the explainer: the readable images of a batch, and why others are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from igos_pl.store.schema import ImageRecord
from igos_pl.truth import GroundTruth


@dataclass(frozen=True)
class ImageBatch:
    """Images of equal size, and the records of all images that were asked for.

    Attributes:
        images: ``(N, 3, S, S)`` uint8, RGB.
        records: of these N images.
        truth: what is known of these N images, in original pixels.
        resize: how they were scaled to S, see `igos_pl.images.frame_of`.
        failures: of images that could not be read; they are written as they are.
    """

    images: Tensor
    records: Sequence[ImageRecord]
    truth: Sequence[GroundTruth]
    resize: str
    failures: Sequence[ImageRecord] = ()

    def to(self, device: torch.device, non_blocking: bool = False) -> ImageBatch:
        """The batch on another device; Lightning calls this."""
        return replace(self, images=self.images.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> ImageBatch:
        """The batch in pinned memory; the loader calls this."""
        return replace(self, images=self.images.pin_memory())
