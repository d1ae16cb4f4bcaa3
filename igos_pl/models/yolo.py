"""YOLO: each detection is scored at the prediction row that it came from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.ops import batched_nms, box_convert, clip_boxes_to_image

from igos_pl.checks import check_share
from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.models.base import size_of
from igos_pl.models.detector import Detections, Detector, label_scores, select_rows
from igos_pl.models.yolov3_spp import MAX_STRIDE, YOLOv3SPP

_NOT_COCO = ("__background__", "N/A")


def coco_names() -> list[str]:
    """COCO's 80 class names in the order of YOLO's labels: torchvision's list of 91 without its gaps."""
    categories = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return [str(name) for name in categories if name not in _NOT_COCO]


class YOLODetector(Detector):
    """Any module that maps RGB images ``(B, 3, H, W)`` in [0, 1] to rows ``(B, R, 5 + classes)``.

    A row is center x, center y, width, height in input pixels, objectness and class probabilities in [0, 1].
    Every class of a row whose objectness times probability is above the threshold is a candidate of its own.

    Args:
        module: the network.
        input_size: height and width of the input in pixels, or the side of a square one.
        nms_iou: threshold of non-maximum suppression: if two candidates of a class overlap (IoU) by more than
            this, only the better one is kept.
        **detector: see `Detector`.
    """

    def __init__(
        self,
        module: nn.Module,
        input_size: int | tuple[int, int] = 512,
        nms_iou: float = 0.5,
        **detector: Any,
    ) -> None:
        check_share("nms_iou", nms_iou)
        super().__init__(module, input_size=input_size, **detector)
        self.nms_iou = nms_iou

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        """What is left of the candidates after non-maximum suppression within each class, best first."""
        height, width = images.shape[-2:]
        return [self._detections(rows, (height, width)) for rows in self._predict(images)]

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """Objectness times probability of each row's label in its own prediction row."""
        chosen = select_rows(self._predict(images), targets.prediction_row, self.name)
        return chosen[:, 4] * label_scores(chosen[:, 5:], targets.label, self.name)

    def _predict(self, images: Tensor) -> Tensor:
        """All prediction rows ``(B, R, 5 + classes)``."""
        rows = self.module(images)
        if not isinstance(rows, Tensor) or rows.ndim != 3 or rows.shape[2] < 6:
            found = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise IgosError(
                f"{self.name} must return rows of shape (B, R, 5 + classes), but returned {found}"
            )
        return rows

    def _detections(self, predictions: Tensor, size: tuple[int, int]) -> Detections:
        """The detections of one image of (height, width) ``size`` from its rows ``(R, 5 + classes)``."""
        scores = predictions[:, 4:5] * predictions[:, 5:]
        finite = predictions[:, :4].isfinite().all(1, keepdim=True)
        rows, labels = ((scores > self.score_threshold) & finite).nonzero(as_tuple=True)
        values = scores[rows, labels]
        boxes = box_convert(predictions[rows, :4], "cxcywh", "xyxy")
        keep = batched_nms(boxes, values, labels, self.nms_iou)
        return Detections(clip_boxes_to_image(boxes, size), labels, values, rows).select(keep)


class YOLOv3SPPDetector(YOLODetector):
    """YOLOv3-SPP on COCO with the published weights.

    The network expects RGB in [0, 1]. By default images are resized to a square without keeping their aspect
    ratio, so there is no letterbox padding. Boxes are in pixels of the square input.

    Args:
        weights: the published file, whose entry ``model`` is the state dict.
        input_size: height and width of the input in pixels, or the side of a square one; multiples of 32.
        **detector: see `YOLODetector`.
    """

    def __init__(
        self,
        weights: str = "weight/yolov3-spp-ultralytics-512.pt",
        input_size: int | tuple[int, int] = 512,
        **detector: Any,
    ) -> None:
        if any(side < MAX_STRIDE or side % MAX_STRIDE for side in size_of(input_size)):
            raise IgosError(
                f"input_size is {input_size}, but must be a multiple of {MAX_STRIDE} for YOLOv3-SPP"
            )
        super().__init__(
            YOLOv3SPP(),
            weights=weights,
            input_size=input_size,
            class_names=coco_names(),
            name="yolov3_spp",
            **detector,
        )
