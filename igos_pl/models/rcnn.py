"""Faster and Mask R-CNN: each detection is scored at its own box, without the region proposal network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.models.detector import Detections, label_scores
from igos_pl.models.torchvision_detection import (
    TorchvisionModuleDetector,
    build_detector,
    feature_maps,
    prepare_images,
    scale_boxes,
)

# A pixel belongs to an object if its mask probability is above this.
_MASK_THRESHOLD = 0.5


def fixed_proposal_scores(
    module: Any,
    images: Tensor,
    boxes: Tensor,
    labels: Tensor,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """The probability of a label for each image, with one given box as its only proposal.

    This skips the region proposal network, non-maximum suppression and the mask head, so the score is a
    smooth function of the image.

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


class RCNNDetector(TorchvisionModuleDetector):
    """Any module of torchvision's ``FasterRCNN`` or ``MaskRCNN``, or one derived from them.

    The module normalises and resizes its input by itself, for detections and for scores alike.

    Args:
        module: the network.
        **detector: see `Detector`. ``module.roi_heads`` has its own ``score_thresh`` and
            ``detections_per_img``, which bound the detections as well.
    """

    # `propose` gives the module's own scores, which belong to the boxes before their last refinement.
    proposes_its_scores = False

    def __init__(self, module: nn.Module, **detector: Any) -> None:
        missing = [part for part in ("transform", "backbone", "roi_heads") if not hasattr(module, part)]
        if missing:
            raise IgosError(
                f"{type(module).__name__} has no {' and no '.join(missing)}: it must be torchvision's"
                " FasterRCNN or MaskRCNN, or a class derived from them"
            )
        super().__init__(module, **detector)

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        """The unmodified network's detections, with masks where it has a mask head."""
        return [
            Detections(
                boxes=found["boxes"],
                labels=found["labels"],
                scores=found["scores"],
                prediction_rows=torch.full_like(found["labels"], -1),
                instance_masks=found["masks"].squeeze(1) > _MASK_THRESHOLD if "masks" in found else None,
            )
            for found in self.module(list(images))
        ]

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The probability of each row's label at its own box."""
        prepared, size = prepare_images(self.module.transform, images)
        boxes = scale_boxes(targets.box, images.shape[-2:], size)
        return fixed_proposal_scores(self.module, prepared, boxes, targets.label, size)


class TorchvisionRCNNDetector(RCNNDetector):
    """One of torchvision's Faster or Mask R-CNNs by its name: ``maskrcnn_resnet50_fpn``, ...

    Args:
        name: any of torchvision's ``fasterrcnn_*`` and ``maskrcnn_*``.
        weights: a ``.pth`` file, or the name of one of the model's weights enums (``COCO_V1``, ``DEFAULT``):
            its file is then looked for in ``weight_folder``, and downloaded there if missing.
        weight_folder: where the files of weights enums are kept.
        class_names: in label order from the background on, for weights of one's own; COCO's by default.
        batch_norm_eps: by default what torchvision uses: 0 for its original COCO_V1 files of the ResNet-50
            FPN models, otherwise the layers' own. Weights tuned from those files need 0, too.
        **detector: see `Detector`. Torchvision gives at most 100 detections an image.
    """

    not_settings = frozenset({"weight_folder", "batch_norm_eps"})  # its effect is among the layers' settings

    def __init__(
        self,
        name: str = "maskrcnn_resnet50_fpn",
        weights: str = "weight/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
        weight_folder: str = "weight",
        class_names: list[str] | None = None,
        batch_norm_eps: float | None = None,
        **detector: Any,
    ) -> None:
        families = ("fasterrcnn_", "maskrcnn_")
        built = build_detector(name, weights, weight_folder, class_names, batch_norm_eps, families)
        super().__init__(built.module, class_names=built.class_names, name=name, **detector)
        self.file_sha256 = built.sha256
