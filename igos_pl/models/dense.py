"""RetinaNet, FCOS and SSD: each detection is scored at the prediction row that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import batched_nms, clip_boxes_to_image

from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.models.detector import Detections, label_scores, select_rows
from igos_pl.models.torchvision_detection import (
    TorchvisionModuleDetector,
    build_detector,
    feature_maps,
    prepare_images,
    scale_boxes,
)

# What the class scores are made of, by the names of torchvision's heads.
_CLASS, _CENTER, _BOX = "cls_logits", "bbox_ctrness", "bbox_regression"


class DenseDetector(TorchvisionModuleDetector):
    """Any module of torchvision's ``RetinaNet``, ``FCOS`` or ``SSD``, or one derived from them.

    The head predicts classes and a box in each of R rows: every anchor of every cell of every feature map,
    the finest map first. A detection's row stays fixed while the image is perturbed. Its score is the one
    that torchvision computes: the sigmoid of the class logit (RetinaNet), the geometric mean of the class and
    centerness probabilities (FCOS), or the softmax (SSD).

    Args:
        module: the network; it resizes its input further.
        **detector: see `Detector`. The module has its own ``score_thresh`` and ``detections_per_img``, which
            bound the detections as well.
    """

    def __init__(self, module: nn.Module, **detector: Any) -> None:
        if not isinstance(module, RetinaNet | FCOS | SSD):
            raise IgosError(
                f"{type(module).__name__} must be torchvision's RetinaNet, FCOS or SSD, or a class derived"
                " from them"
            )
        super().__init__(module, **detector)

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        """The detections of torchvision's own inference, each with the prediction row that it came from."""
        prepared, size = prepare_images(self.module.transform, images)
        features = list(feature_maps(self.module.backbone, prepared).values())
        outputs: dict[str, Tensor] = self.module.head(features)
        anchors = self.module.anchor_generator(ImageList(prepared, [size] * len(prepared)), features)
        levels = _levels(features, outputs[_BOX].shape[1])
        detections = []
        for index in range(len(images)):
            one = {key: value[index] for key, value in outputs.items()}
            found = self._suppress(self._candidates(one, anchors[index], levels, size))
            boxes = scale_boxes(found.boxes, size, images.shape[-2:])
            detections.append(Detections(boxes, found.labels, found.scores, found.prediction_rows))
        return detections

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The score of each row's label in its own prediction row."""
        prepared, _ = prepare_images(self.module.transform, images)
        features = list(feature_maps(self.module.backbone, prepared).values())
        outputs = self.module.head(features)
        chosen = {
            key: select_rows(outputs[key], targets.prediction_row, self.name)
            for key in (_CLASS, _CENTER)
            if key in outputs
        }
        return label_scores(self._class_scores(chosen), targets.label, self.name)

    def _class_scores(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """The scores ``(..., classes)`` of rows of the head's outputs, float32 at least."""
        logits = outputs[_CLASS]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if isinstance(self.module, SSD):
            return logits.softmax(-1)
        if isinstance(self.module, FCOS):
            # The root of the product of two sigmoids. In logarithms, its gradient stays finite near 0.
            center = outputs[_CENTER].to(logits.dtype)
            return ((logsigmoid(logits) + logsigmoid(center)) / 2).exp()
        return logits.sigmoid()

    def _candidates(
        self, outputs: Mapping[str, Tensor], anchors: Tensor, levels: Tensor, size: tuple[int, int]
    ) -> Detections:
        """The rows and labels with a score above the network's own threshold, for one image.

        As in torchvision, only the best of each feature map (SSD: of each class) are kept.

        Args:
            outputs: the head's outputs ``(R, ...)``.
            anchors: ``(R, 4)``.
            levels: ``(R,)`` the number of the feature map.
            size: height and width of the network's own input.
        """
        module = self.module
        scores = self._class_scores(outputs)
        above = scores > module.score_thresh
        if isinstance(module, SSD):
            above[:, 0] = False  # the background
        rows, labels = above.nonzero(as_tuple=True)
        values = scores[rows, labels]
        groups = labels if isinstance(module, SSD) else levels[rows]
        best = _best_of_groups(values, groups, module.topk_candidates)
        rows, labels, values = rows[best], labels[best], values[best]
        decode = module.box_coder.decode if isinstance(module, FCOS) else module.box_coder.decode_single
        boxes = clip_boxes_to_image(decode(outputs[_BOX][rows], anchors[rows]), size)
        return Detections(boxes, labels, values, rows)

    def _suppress(self, found: Detections) -> Detections:
        """Non-maximum suppression within each class, as in torchvision."""
        keep = batched_nms(found.boxes, found.scores, found.labels, self.module.nms_thresh)
        return found.select(keep[: self.module.detections_per_img])


class TorchvisionDenseDetector(DenseDetector):
    """One of torchvision's RetinaNets, FCOS or SSDs by its name: ``retinanet_resnet50_fpn``, ...

    Args:
        name: any of torchvision's ``retinanet_*``, ``fcos_*``, ``ssd300_*`` and ``ssdlite320_*``.
        weights: a ``.pth`` file, or the name of one of the model's weights enums (``COCO_V1``, ``DEFAULT``):
            its file is then looked for in ``weight_folder``, and downloaded there if missing.
        weight_folder: where the files of weights enums are kept.
        class_names: in label order, for weights of one's own; COCO's by default.
        batch_norm_eps: by default what torchvision uses: 0 for its original COCO_V1 file of the ResNet-50
            RetinaNet, otherwise the layers' own. Weights tuned from that file need 0, too.
        **detector: see `Detector`.
    """

    not_settings = frozenset({"weight_folder", "batch_norm_eps"})  # its effect is among the layers' settings

    def __init__(
        self,
        name: str = "retinanet_resnet50_fpn",
        weights: str = "COCO_V1",
        weight_folder: str = "weight",
        class_names: list[str] | None = None,
        batch_norm_eps: float | None = None,
        **detector: Any,
    ) -> None:
        families = ("retinanet_", "fcos_", "ssd")
        built = build_detector(name, weights, weight_folder, class_names, batch_norm_eps, families)
        super().__init__(built.module, class_names=built.class_names, name=name, **detector)
        self.file_sha256 = built.sha256


def _levels(features: list[Tensor], rows: int) -> Tensor:
    """The number of the feature map of each of R prediction rows, for maps with equally many anchors a cell.

    Wrong for SSD, whose maps have different numbers of anchors. SSD groups its rows by class and never uses
    this.
    """
    cells = torch.tensor([feature.shape[-2] * feature.shape[-1] for feature in features])
    ends = cells.cumsum(0) * (rows // int(cells.sum()))
    row = torch.arange(rows)
    return torch.searchsorted(ends, row, right=True).to(features[0].device)


def _best_of_groups(scores: Tensor, groups: Tensor, count: int) -> Tensor:
    """The positions of the ``count`` best of ``scores (n,)`` in each group, group by group."""
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    ordered = groups[order].contiguous()
    rank = torch.arange(len(ordered), device=ordered.device) - torch.searchsorted(ordered, ordered)
    return order[rank < count]
