"""What is explained: one row for each class or detection of each image of a batch."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """The rows of a batch, as columns of equal length R.

    Attributes:
        image: ``(R,)`` integer: which image of the batch the row belongs to, ascending.
        number: ``(R,)`` integer: the target's number within its image, from 0.
        label: ``(R,)`` integer: the class that is explained.
        score: ``(R,)``: the network's score of the target on the unmasked image, in [0, 1].
        box: ``(R, 4)``: x1 y1 x2 y2 in pixels of the network's input; NaN for classifiers.
    """

    image: Tensor
    number: Tensor
    label: Tensor
    score: Tensor
    box: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def select(self, rows: Tensor | slice) -> Targets:
        """Some of the rows, in the order given."""
        return Targets(*(getattr(self, field.name)[rows] for field in fields(self)))


def class_targets(images: Tensor, labels: Tensor, scores: Tensor) -> Targets:
    """Targets without boxes, from columns ``(R,)`` that are sorted by image."""
    number = torch.zeros_like(images)
    for row in range(1, len(images)):
        if images[row] == images[row - 1]:
            number[row] = number[row - 1] + 1
    box = torch.full((len(images), 4), torch.nan, device=images.device)
    return Targets(images, number, labels, scores, box)
