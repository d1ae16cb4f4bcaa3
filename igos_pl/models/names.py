"""Networks by a name: ``timm:resnet50``, ``torchvision:fcos_resnet50_fpn``, ``hf:FOLDER``, or a class."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import torchvision

from igos_pl import models
from igos_pl.checks import check_arguments, suggestion
from igos_pl.errors import IgosError
from igos_pl.models.base import ExplainableNetwork
from igos_pl.models.dense import TorchvisionDenseDetector
from igos_pl.models.huggingface_classifier import HuggingFaceClassifier
from igos_pl.models.huggingface_detection import HuggingFaceDetector
from igos_pl.models.pretrained import pretrained_part, transformers_for
from igos_pl.models.rcnn import TorchvisionRCNNDetector
from igos_pl.models.segmentation import HuggingFaceSegmenter, TorchvisionSegmenter
from igos_pl.models.timm_classifier import TimmClassifier
from igos_pl.models.torchvision_classifier import TorchvisionClassifier
from igos_pl.models.zero_shot import OpenCLIPClassifier, ZeroShotClassifier
from igos_pl.settings import parameters_of

Family = type[ExplainableNetwork]

# Torchvision's names begin like this; all other names are classifiers.
TORCHVISION: dict[str, Family] = {
    "fasterrcnn_": TorchvisionRCNNDetector,
    "maskrcnn_": TorchvisionRCNNDetector,
    "retinanet_": TorchvisionDenseDetector,
    "fcos_": TorchvisionDenseDetector,
    "ssd": TorchvisionDenseDetector,
    "deeplabv3_": TorchvisionSegmenter,
    "fcn_": TorchvisionSegmenter,
    "lraspp_": TorchvisionSegmenter,
}

# Endings of the architectures in the configurations of transformers' models.
HUGGING_FACE: dict[str, Family] = {
    "ForImageClassification": HuggingFaceClassifier,
    "ForImageClassificationWithTeacher": HuggingFaceClassifier,
    "ForObjectDetection": HuggingFaceDetector,
    "ForSemanticSegmentation": HuggingFaceSegmenter,
    "CLIPModel": ZeroShotClassifier,
    "SiglipModel": ZeroShotClassifier,
    "Siglip2Model": ZeroShotClassifier,
}


def _of_torchvision(name: str) -> Family:
    known = torchvision.models.list_models()
    if name not in known:
        raise IgosError(f"torchvision has no network {name!r}: {suggestion(name, known)}")
    fitting = (family for beginning, family in TORCHVISION.items() if name.startswith(beginning))
    return next(fitting, TorchvisionClassifier)


def _of_hugging_face(name: str) -> Family:
    config = pretrained_part(transformers_for(f"hf:{name}").AutoConfig, name)
    architectures = config.architectures or []
    for architecture in architectures:
        for ending, family in HUGGING_FACE.items():
            if architecture.endswith(ending):
                return family
    raise IgosError(
        f"{name} is a {', '.join(architectures) or 'model of unknown architecture'}, which igos_pl does"
        f" not support. It supports: {', '.join(f'...{ending}' for ending in HUGGING_FACE)}"
    )


# For each prefix before the colon: the function from the rest of the name to the class.
SOURCES: dict[str, Callable[[str], Family]] = {
    "timm": lambda _: TimmClassifier,
    "torchvision": _of_torchvision,
    "hf": _of_hugging_face,
    "open_clip": lambda _: OpenCLIPClassifier,
}


def network_named(name: str, /, **settings: Any) -> ExplainableNetwork:
    """A network by its name.

    Args:
        name: ``timm:NAME``, ``torchvision:NAME``, ``hf:FOLDER_OR_HUB_NAME`` or ``open_clip:NAME``; or one of
            igos_pl's classes, as ``EfficientNetLite0Classifier``.
        **settings: further arguments of the class.

    Raises:
            IgosError: if there is no such network or argument. The message names similar ones.
    """
    source, colon, rest = name.partition(":")
    if colon and source in SOURCES:
        return _made(SOURCES[source](rest), name=rest, **settings)
    families = network_classes()
    if name in families:
        return _made(families[name], **settings)
    if name in torchvision.models.list_models():
        hint = f"did you mean torchvision:{name}?"
    else:
        hint = suggestion(source, [f"{known}:" for known in SOURCES]) if colon else suggestion(name, families)
    sources = ", ".join(f"{known}:NAME" for known in SOURCES)
    raise IgosError(
        f"There is no network {name!r}: {hint} (names are classes of igos_pl.models, or {sources})"
    )


def _made(family: Family, **settings: Any) -> ExplainableNetwork:
    """A network of a family.

    Raises:
        IgosError: if the family has no such argument, or chooses it by itself.
    """
    check_arguments(family.__name__, settings, parameters_of(family))
    try:
        return family(**settings)
    except TypeError as error:
        own = re.search(r"multiple values for keyword argument '(\w+)'", str(error))
        if own is None:
            raise
        parts = "mean and std" if own[1] in ("mean", "std") else own[1]
        raise IgosError(f"{family.__name__} has its own {parts}: leave {own[1]} out") from error


def network_classes() -> dict[str, Family]:
    """igos_pl's networks by their class names."""
    offered = ((name, getattr(models, name)) for name in models.__all__)
    return {
        name: cls
        for name, cls in offered
        if isinstance(cls, type) and issubclass(cls, ExplainableNetwork) and not inspect.isabstract(cls)
    }
