"""What a DataModule hands to the explainer: the readable images of a batch, and why others are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.records import ImageRecord


@dataclass(frozen=True)
class ImageBatch:
    """Images of equal size, and the records of all images that were asked for.

    Attributes:
        images: ``(N, C, H, W)``: uint8, or float32 in which 1 stands for 255.
        records: of these N images, each with the frame by which it was scaled to H x W.
        truth: the annotations of these N images, in pixels of the originals.
        failures: records of images whose content cannot be read; they are written as they are.
        unread: records of images that could not be read now; they are not written, so that they are tried
            again.
    """

    images: Tensor
    records: Sequence[ImageRecord]
    truth: Sequence[GroundTruth]
    failures: Sequence[ImageRecord] = ()
    unread: Sequence[ImageRecord] = ()

    def truth_in_input(self) -> list[GroundTruth]:
        """The annotations with boxes in pixels of the network's input."""
        return [
            replace(known, boxes=record.seen().boxes_to_input(known.boxes))
            for known, record in zip(self.truth, self.records, strict=True)
        ]

    def parts(self) -> list[ImageBatch]:
        """Its readable images one by one."""
        return [
            ImageBatch(self.images[place : place + 1], [record], [truth])
            for place, (record, truth) in enumerate(zip(self.records, self.truth, strict=True))
        ]

    def to(self, device: torch.device, non_blocking: bool = False) -> ImageBatch:
        """The batch on another device; Lightning calls this."""
        return replace(self, images=self.images.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> ImageBatch:
        """The batch in pinned memory; the loader calls this."""
        return replace(self, images=self.images.pin_memory())
