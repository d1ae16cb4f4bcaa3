"""What people have annotated in an image: its class, or its objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# COCO's run-length encoding of a mask, as pycocotools takes it: {"size": [height, width], "counts": ...}.
Rle = dict[str, Any]


def _no_boxes() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The annotations of one image.

    Classes of objects go by their names, because the numbers differ between data sets and networks (COCO's
    ids run from 1 to 90 with gaps, YOLO's labels from 0 to 79).

    Attributes:
        label: of a classified image; -1 if unknown.
        boxes: ``(n, 4)`` x1 y1 x2 y2 in pixels of the upright original.
        names: n class names.
        ids: n annotation ids.
        instance_masks: n run-length encoded masks of the original, or None for an object without one.
    """

    label: int = -1
    boxes: NDArray[np.float32] = field(default_factory=_no_boxes)
    names: Sequence[str] = ()
    ids: Sequence[int] = ()
    instance_masks: Sequence[Rle | None] = ()

    @staticmethod
    @cache
    def of_class(label: int = -1) -> GroundTruth:
        """The annotations of an image of a class, without objects.

        All images of the class share them, because a data set may have millions of images.

        Args:
            label: of the class; -1 if unknown.
        """
        return GroundTruth(label)

    def fitting(self, width: int, height: int) -> GroundTruth:
        """The annotations without objects whose instance mask differs in size from the image.

        They were annotated on the stored pixels of an image that an EXIF tag turns, so their boxes do not fit
        the upright image either.

        Args:
            width: of the upright original, in pixels.
            height: of the upright original, in pixels.
        """
        fits = [mask is None or tuple(mask["size"]) == (height, width) for mask in self.instance_masks]
        if all(fits):
            return self
        kept = [place for place, good in enumerate(fits) if good]
        return replace(
            self,
            boxes=self.boxes[kept],
            names=tuple(self.names[place] for place in kept),
            ids=tuple(self.ids[place] for place in kept),
            instance_masks=tuple(self.instance_masks[place] for place in kept),
        )
