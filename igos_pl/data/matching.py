"""Which annotated object a detection has found: decided once, when targets are proposed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

# A detection has found an object if their boxes overlap at least so much (COCO's AP50).
MATCH_IOU = 0.5


def match_objects(
    objects: Tensor, object_names: Sequence[str], boxes: Tensor, names: Sequence[str]
) -> list[int]:
    """Pair annotated objects with detections of the same class, the largest overlaps first.

    An object without a class name fits detections of any class.

    Args:
        objects: ``(m, 4)`` x1 y1 x2 y2 in pixels.
        object_names: m class names.
        boxes: ``(n, 4)`` of the detections, in the same frame.
        names: n class names.

    Returns:
        For each detection the number of its object, or -1 if no object with an IoU of at least 0.5 is left.
        No object appears twice.
    """
    partners = [-1] * len(boxes)
    if not len(objects) or not len(boxes):
        return partners
    same = torch.tensor([[a in (b, "") for b in names] for a in object_names])
    overlap = box_iou(objects.double(), boxes.double()).cpu().nan_to_num(0) * same
    while True:
        row, column = divmod(int(overlap.argmax()), len(boxes))
        if overlap[row, column] < MATCH_IOU:
            return partners
        partners[column] = row
        overlap[row] = overlap[:, column] = -1
