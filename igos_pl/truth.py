"""What is known of an image beforehand: its class, or its objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# COCO's run-length encoding of a mask, as pycocotools takes it: {"size": [height, width], "counts": ...}.
Rle = dict[str, Any]


def _no_boxes() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class GroundTruth:
    """The annotations of one image.

    Classes of objects go by their names, because the numbers differ between data sets and networks (COCO's
    ids run from 1 to 90 with gaps, YOLO's labels from 0 to 79).

    Attributes:
        label: of a classified image; -1 if unknown.
        boxes: ``(n, 4)`` x1 y1 x2 y2 in pixels of the upright original.
        names: n class names.
        ids: n annotation ids.
        masks: n run-length encoded masks of the original, or None for an object without one.
    """

    label: int = -1
    boxes: NDArray[np.float32] = field(default_factory=_no_boxes)
    names: Sequence[str] = ()
    ids: Sequence[int] = ()
    masks: Sequence[Rle | None] = ()
