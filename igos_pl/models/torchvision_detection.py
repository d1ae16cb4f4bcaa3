"""What torchvision's detectors share: how they resize their input, and how they are built from a file."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from igos_pl.checks import suggestion
from igos_pl.errors import IgosError
from igos_pl.models.base import texts
from igos_pl.models.detector import Detector
from igos_pl.models.torchvision_weights import weights_file
from igos_pl.models.weights import layer_settings, load_weights
from igos_pl.settings import Attributes, nested, plain

# For the COCO_V1 weights of these, torchvision sets batch norm's eps to 0 (`overwrite_eps` in its builders).
_EPS_0 = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")


def prepare_images(transform: Any, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Normalise, resize and pad a batch, as torchvision's ``GeneralizedRCNNTransform`` does image by image.

    Args:
        transform: a detector's ``transform``.
        images: ``(B, 3, H, W)`` in [0, 1].

    Returns:
        The detector's own input ``(B, 3, H', W')``, and the height and width in it before padding.
    """
    height, width = images.shape[-2:]
    images = transform.normalize(images)
    if transform.fixed_size is not None:
        size = (int(transform.fixed_size[1]), int(transform.fixed_size[0]))
    else:
        shorter, longer = min(height, width), max(height, width)
        scale = min(transform.min_size[-1] / shorter, transform.max_size / longer)
        size = (math.floor(height * scale), math.floor(width * scale))
    if size != (height, width):
        images = F.interpolate(images, size, mode="bilinear", align_corners=False)
    bottom, right = (-length % transform.size_divisible for length in size)
    return F.pad(images, (0, right, 0, bottom)), size


def scale_boxes(boxes: Tensor, size: Sequence[int], new_size: Sequence[int]) -> Tensor:
    """Boxes ``(n, 4)`` x1 y1 x2 y2 of an image of (height, width) ``size``, in one of ``new_size``."""
    down, across = (new / old for new, old in zip(new_size, size, strict=True))
    # By plain numbers: copying a tensor of them to the device would synchronise with it.
    return torch.stack((boxes[:, 0::2] * across, boxes[:, 1::2] * down), 2).flatten(1)


def feature_maps(backbone: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The backbone's feature maps by name; backbones with a single one may return it bare."""
    features: Tensor | dict[str, Tensor] = backbone(images)
    return {"0": features} if isinstance(features, Tensor) else features


class TorchvisionModuleDetector(Detector, ABC):
    """A detector around one of torchvision's detection modules.

    Args:
        module: the network.
        input_size: height and width of the input in pixels, or the side of a square one; the module resizes
            it further.
        **detector: see `Detector`.
    """

    module: Any

    def __init__(self, module: nn.Module, input_size: int | tuple[int, int] = 800, **detector: Any) -> None:
        super().__init__(module, input_size=input_size, **detector)

    def _load_weights(self, path: str) -> str:
        return load_detector_weights(self.module, path, self.name)

    def facts(self) -> Attributes:
        """The facts of all networks, and every threshold and size that the module was built with.

        The names of submodules are part of the keys, as in ``module.roi_heads.nms_thresh``.
        """
        told = {**layer_settings(self.module), **_box_coders(self.module)}
        shown = {key: plain(value) for key, value in told.items() if _decides_detections(key)}
        return {**super().facts(), **nested("module", shown)}


# Parts of the names of torchvision's settings that decide detections.
_DECISIVE = ("thresh", "per_img", "top_n", "topk", "min_size", "max_size", "fixed_size", "box_coder")


def _decides_detections(key: str) -> bool:
    return any(part in key for part in _DECISIVE)


def _box_coders(module: nn.Module) -> dict[str, Any]:
    """The settings of the box coders, which are no modules themselves."""
    return {
        f"{prefix}.box_coder.{key}" if prefix else f"box_coder.{key}": value
        for prefix, layer in module.named_modules()
        if hasattr(layer, "box_coder")
        for key, value in vars(layer.box_coder).items()
        if isinstance(value, bool | int | float | list | tuple)
    }


class Built(NamedTuple):
    """A detector with its weights, and their file's SHA-256."""

    module: nn.Module
    sha256: str
    class_names: list[str]


def build_detector(
    name: str,
    weights: str,
    weight_folder: str,
    class_names: list[str] | None,
    batch_norm_eps: float | None,
    families: tuple[str, ...],
) -> Built:
    """One of torchvision's detectors by its name, with the weights of a file.

    The detector gives the same detections as torchvision's own builder. The batch norms are frozen, and their
    eps is 0 for the original COCO_V1 files for which torchvision sets it to 0. Such a file is recognised by
    its SHA-256.

    Args:
        name: as in ``torchvision.models.list_models(module=torchvision.models.detection)``.
        weights: a ``.pth`` file, or the name of one of the model's weights enums.
        weight_folder: where the files of weights enums are kept.
        class_names: in label order; None for those of torchvision's weights.
        batch_norm_eps: None to choose it as described.
        families: what the names may begin with.
    """
    known = [
        model
        for model in torchvision.models.list_models(module=torchvision.models.detection)
        if model.startswith(families)
    ]
    if name not in known:
        raise IgosError(f"torchvision has no detector {name!r} of this kind: {suggestion(name, known)}")
    enum = torchvision.models.get_model_weights(name)
    path = weights_file(name, weights, weight_folder)
    names = texts("class_names", class_names) or list(enum.DEFAULT.meta["categories"])
    module = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=len(names))
    sha256 = load_detector_weights(module, path, name)
    if batch_norm_eps is None and name in _EPS_0 and _is_original(enum.COCO_V1.url, sha256):
        batch_norm_eps = 0.0
    for layer in module.modules():
        if batch_norm_eps is not None and isinstance(layer, FrozenBatchNorm2d):
            layer.eps = batch_norm_eps
    return Built(module, sha256, names)


def load_detector_weights(module: nn.Module, path: str, name: str) -> str:
    """Freeze a detector's batch norms and load a weight file strictly.

    A frozen layer computes the same as one in evaluation, and keeps half as much for the gradient.

    Args:
        module: filled; its batch norms are replaced.
        path: see `load_weights`.
        name: what messages call the module.

    Returns:
        The file's SHA-256.
    """
    _freeze_batch_norms(module)
    return load_weights(module, path, name)


def _freeze_batch_norms(module: nn.Module) -> None:
    for name, layer in module.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(layer.num_features, layer.eps)
            frozen.load_state_dict(layer.state_dict())
            setattr(module, name, frozen)
        else:
            _freeze_batch_norms(layer)


def _is_original(url: str, sha256: str) -> bool:
    """Whether a file is the one of a URL, whose name ends in the first digits of its SHA-256."""
    return sha256.startswith(Path(url).stem.rsplit("-", 1)[-1])
