"""Small detectors of the generated shapes: torchvision's classes on a small backbone.

Architecture only; `examples/train_shapes_detectors.py` trains the weights packaged under
`igos_pl/demo/checkpoints`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d, MultiScaleRoIAlign

# Names in label order; label 0 is background.
CATEGORIES: tuple[str, ...] = ("__background__", "disc", "square", "triangle", "star", "ring")

FEATURES = 64  # channels of every pyramid level
LEVELS = ["0", "1", "2"]  # pyramid levels, strides 8, 16 and 32
MIN_SIZE, MAX_SIZE = 192, 288  # of torchvision's transform; pictures about keep their size

Norm = Callable[[int], nn.Module]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut: (N, inputs, H, W) to (N, outputs, H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            norm(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            norm(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            narrow = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(narrow, norm(outputs))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features (N, outputs, H/s, W/s)."""
        out: Tensor = self.act(self.body(x) + self.shortcut(x))
        return out


class ShapesBackbone(nn.Module):
    """A residual network with a feature pyramid at strides 8, 16 and 32, 64 channels each."""

    out_channels = FEATURES

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False),
            norm(24),
            nn.ReLU(),
            ResidualBlock(24, 32, 2, norm),
        )
        self.stages = nn.ModuleList(
            [
                ResidualBlock(32, 64, 2, norm),
                ResidualBlock(64, 96, 2, norm),
                ResidualBlock(96, 96, 2, norm),
            ]
        )
        self.fpn = FeaturePyramidNetwork([64, 96, 96], FEATURES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the pyramid of pictures (N, 3, H, W), finest level first."""
        x = self.stem(x)
        features: OrderedDict[str, Tensor] = OrderedDict()
        for name, stage in zip(LEVELS, self.stages, strict=True):
            x = stage(x)
            features[name] = x
        pyramid: dict[str, Tensor] = self.fpn(features)
        return pyramid


def shapes_mask_rcnn(norm: Norm = FrozenBatchNorm2d) -> MaskRCNN:
    """Return an untrained Mask R-CNN for the shapes.

    `norm` makes the backbone's normalisation layers. The default has fixed statistics, so a
    loaded model computes the same in train and eval mode; training passes `nn.BatchNorm2d`,
    whose state dict fits.
    """
    mask_pool = MultiScaleRoIAlign(LEVELS, 14, 2, canonical_scale=80, canonical_level=4)
    return MaskRCNN(
        **_common(norm),
        mask_roi_pool=mask_pool,
        mask_head=MaskRCNNHeads(FEATURES, (64, 64), 1),
        mask_predictor=MaskRCNNPredictor(64, 64, len(CATEGORIES)),
    )


def shapes_faster_rcnn(norm: Norm = FrozenBatchNorm2d) -> FasterRCNN:
    """Return an untrained Faster R-CNN for the shapes: the Mask R-CNN without its mask head."""
    return FasterRCNN(**_common(norm))


def shapes_retinanet(norm: Norm = FrozenBatchNorm2d) -> RetinaNet:
    """Return an untrained RetinaNet for the shapes, a detector of one stage; `norm` as above.

    The head's group normalisation needs no statistics and lets it train in few epochs.
    """
    head_norm = partial(nn.GroupNorm, FEATURES // 8)
    return RetinaNet(
        ShapesBackbone(norm),
        len(CATEGORIES),
        min_size=MIN_SIZE,
        max_size=MAX_SIZE,
        anchor_generator=_anchors(),
        head=RetinaNetHead(FEATURES, 2, len(CATEGORIES), norm_layer=head_norm),
        topk_candidates=200,
        detections_per_img=30,
    )


def _anchors() -> AnchorGenerator:
    """Return two square anchors a place, a factor of about sqrt(2) apart, 28 to 150 pixels."""
    return AnchorGenerator(((28, 40), (56, 80), (112, 150)), ((1.0,),) * 3)


def _common(norm: Norm) -> dict[str, object]:
    """Return the constructor arguments that both R-CNNs share."""
    return {
        "backbone": ShapesBackbone(norm),
        "min_size": MIN_SIZE,
        "max_size": MAX_SIZE,
        "rpn_anchor_generator": _anchors(),
        "rpn_head": RPNHead(FEATURES, 2),
        "rpn_pre_nms_top_n_train": 300,
        "rpn_pre_nms_top_n_test": 300,
        "rpn_post_nms_top_n_train": 200,
        "rpn_post_nms_top_n_test": 150,
        "rpn_batch_size_per_image": 128,
        # Boxes of up to 80 pixels read the stride 8, up to 160 the stride 16.
        "box_roi_pool": MultiScaleRoIAlign(LEVELS, 7, 2, canonical_scale=80, canonical_level=4),
        "box_head": TwoMLPHead(FEATURES * 7 * 7, 128),
        "box_predictor": FastRCNNPredictor(128, len(CATEGORIES)),
        "box_batch_size_per_image": 32,
        "box_detections_per_img": 30,
    }
