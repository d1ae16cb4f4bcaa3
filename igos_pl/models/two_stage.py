"""Faster and Mask R-CNN: each detection is scored at its own box, without proposals from the network."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from igos_pl.errors import IgosError
from igos_pl.models.base import Attributes
from igos_pl.models.detection import Detections, Detector, label_scores
from igos_pl.models.torchvision_detection import (
    build_detector,
    describe_module,
    feature_maps,
    load_detector_weights,
    prepare_images,
    scale_boxes,
)
from igos_pl.models.weights import module_sha256
from igos_pl.targets import Targets

# A pixel belongs to an object from this mask probability on.
_MASK_THRESHOLD = 0.5


def fixed_proposal_scores(
    module: Any,
    images: Tensor,
    boxes: Tensor,
    labels: Tensor,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """The probability of a label with one given box as the only proposal of each image.

    Region proposals, non-maximum suppression and masks are left out: the score is a smooth function of the
    image.

    Args:
        module: torchvision's ``FasterRCNN`` or a class derived from it.
        images: ``(B, 3, H, W)``, normalised and resized as the backbone wants them.
        boxes: ``(B, 4)`` x1 y1 x2 y2 in pixels of ``images``.
        labels: ``(B,)``.
        size: height and width of the images without padding.

    Returns:
        ``(B,)`` in [0, 1], float32 at least.
    """
    if not len(images):
        return images.new_zeros(0)
    heads = module.roi_heads
    features = feature_maps(module.backbone, images)
    height, width = size or images.shape[-2:]
    proposals = list(boxes.to(images.dtype).unsqueeze(1))
    pooled = heads.box_roi_pool(features, proposals, [(int(height), int(width))] * len(images))
    logits, _ = heads.box_predictor(heads.box_head(pooled))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return label_scores(logits.softmax(1), labels, type(module).__name__)


class RCNN(Detector):
    """Any module of torchvision's ``FasterRCNN`` or ``MaskRCNN``, or one derived from them.

    The module normalises and resizes its input by itself, for detections and for scores alike.

    Args:
        module: the network.
        weights: a state dict file for it; None if the module comes with its weights.
        class_names: in label order, from the background on.
        input_size: side of the square input in pixels; the module may enlarge it further.
        targets: see `Detector`.
        score_threshold: see `Detector`.
        categories: see `Detector`.
        max_per_image: see `Detector`; ``module.roi_heads.detections_per_img`` bounds it, too.
        name: what results call the network; its class's name by default.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: str | None = None,
        class_names: list[str] | None = None,
        input_size: int = 800,
        targets: Literal["detected", "ground_truth"] = "detected",
        score_threshold: float = 0.2,
        categories: list[str] | None = None,
        max_per_image: int = 100,
        name: str | None = None,
    ) -> None:
        name = name or type(module).__name__
        missing = [part for part in ("transform", "backbone", "roi_heads") if not hasattr(module, part)]
        if missing:
            raise IgosError(
                f"{name} has no {' and no '.join(missing)}: it must be torchvision's FasterRCNN or MaskRCNN,"
                " or a class derived from them"
            )
        super().__init__(
            input_size, class_names or (), name, targets, score_threshold, categories, max_per_image
        )
        self.module: Any = module
        if weights:
            self.sha256 = load_detector_weights(module, weights, name)
        else:
            self.sha256 = module_sha256(module)
        self.freeze()

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        """The unmodified network's detections, with masks where it has a mask head."""
        return [
            Detections(
                boxes=found["boxes"],
                labels=found["labels"],
                scores=found["scores"],
                proposals=torch.full_like(found["labels"], -1),
                regions=found["masks"].squeeze(1) > _MASK_THRESHOLD if "masks" in found else None,
            )
            for found in self.module(list(images))
        ]

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The probability of each row's label at its own box."""
        prepared, size = prepare_images(self.module.transform, images)
        boxes = scale_boxes(targets.box, images.shape[-2:], size)
        return fixed_proposal_scores(self.module, prepared, boxes, targets.label, size)

    def describe(self) -> Attributes:
        """What all detectors say, and what else the module was built with."""
        return {**super().describe(), **describe_module(self.module)}


class TwoStageDetector(RCNN):
    """One of torchvision's Faster or Mask R-CNNs by its name: ``maskrcnn_resnet50_fpn``, ...

    Args:
        name: any of torchvision's ``fasterrcnn_*`` and ``maskrcnn_*``.
        weights: a ``.pth`` file, or the name of one of the model's weights enums (``COCO_V1``, ``DEFAULT``):
            its file is then looked for in ``weight_folder``, and downloaded there if missing.
        weight_folder: where the files of weights enums are kept.
        input_size: side of the square input in pixels; the network may enlarge it further.
        class_names: in label order from the background on, for weights of one's own; COCO's by default.
        batch_norm_eps: by default what torchvision uses: 0 for its original COCO_V1 files of the ResNet-50
            FPN models, otherwise the layers' own. Weights tuned from those files need 0, too.
        targets: see `Detector`.
        score_threshold: see `Detector`.
        categories: see `Detector`.
        max_per_image: see `Detector`; torchvision gives at most 100.
    """

    def __init__(
        self,
        name: str = "maskrcnn_resnet50_fpn",
        weights: str = "weight/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
        weight_folder: str = "weight",
        input_size: int = 800,
        class_names: list[str] | None = None,
        batch_norm_eps: float | None = None,
        targets: Literal["detected", "ground_truth"] = "detected",
        score_threshold: float = 0.2,
        categories: list[str] | None = None,
        max_per_image: int = 100,
    ) -> None:
        families = ("fasterrcnn_", "maskrcnn_")
        built = build_detector(name, weights, weight_folder, class_names, batch_norm_eps, families)
        super().__init__(
            built.module,
            class_names=built.class_names,
            input_size=input_size,
            targets=targets,
            score_threshold=score_threshold,
            categories=categories,
            max_per_image=max_per_image,
            name=name,
        )
        self.sha256 = built.sha256
