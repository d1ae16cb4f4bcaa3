"""What is explained: one row for each class or detection of each image of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

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
        prediction_row: ``(R,)`` integer: the row of the detector's head that is scored; -1 for networks
            that are not scored at a row.
        object: ``(R,)`` integer: the place of the detected object among the image's annotations; -1 for none.
        start_cell: ``(R,)`` integer: the cell of a diverse start; -1 for the plain start.
        instance_mask: ``(R, H, W)`` bool, the pixels of each object in the network's input, or of each class
            that a segmentation network has found; None for networks without masks.
    """

    image: Tensor
    number: Tensor
    label: Tensor
    score: Tensor
    box: Tensor
    prediction_row: Tensor
    object: Tensor
    start_cell: Tensor
    instance_mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    def select(self, rows: Tensor | slice) -> Targets:
        """Some of the rows, in the order given."""
        columns = (getattr(self, field.name) for field in fields(self))
        chosen: list[Any] = [None if column is None else column[rows] for column in columns]
        return Targets(*chosen)


@dataclass(frozen=True)
class ProposedTargets:
    """What a network proposes to explain in a batch of images.

    Attributes:
        targets: R rows, any number for an image.
        notes: for each image, what a person should know of the choice (objects that were not detected, ...);
            empty if there is nothing to say.
    """

    targets: Targets
    notes: Sequence[str]


def numbered(image: Tensor) -> Tensor:
    """Numbers ``(R,)`` from 0 within each image, for an ascending column of images ``(R,)``."""
    rows = torch.arange(len(image), device=image.device)
    first = torch.searchsorted(image.contiguous(), image.contiguous())
    return rows - first


def class_targets(image: Tensor, label: Tensor, score: Tensor) -> Targets:
    """Targets without boxes, from columns ``(R,)`` that ascend by image."""
    none = torch.full_like(image, -1)
    box = torch.full((len(image), 4), torch.nan, device=image.device)
    return Targets(
        image, numbered(image), label, score, box, prediction_row=none, object=none, start_cell=none
    )
