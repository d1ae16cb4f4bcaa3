"""Torchvision's classifiers by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torchvision

from igos_pl.checks import suggestion
from igos_pl.errors import IgosError
from igos_pl.models.classifier import Classifier
from igos_pl.models.weights import WEIGHT_SUFFIXES, fetch_weights

# With pretrained weights, torchvision makes these two rescale their input. They are built without weights
# here, so this is set explicitly.
_PRETRAINED = {"transform_input": True, "init_weights": False}
_REBUILD = {"googlenet": _PRETRAINED, "inception_v3": _PRETRAINED}


class TorchvisionClassifier(Classifier):
    """One of torchvision's classifiers by its name: ``vgg19``, ``resnet50``, ``vit_b_16``, ...

    Args:
        name: as in ``torchvision.models.list_models()``.
        weights: a weight file, or the name of one of the model's weights enums (``IMAGENET1K_V1``,
            ``DEFAULT``): its file is then read from ``weight_folder``, and downloaded there if it is missing.
        weight_folder: where the files of weights enums are kept.
        input_size: height and width of the input in pixels, or the side of a square one; by default the one
            that the weights were evaluated with.
        **classifier: see `Classifier`.
    """

    not_settings = frozenset({"weight_folder"})

    def __init__(
        self,
        name: str = "vgg19",
        weights: str = "IMAGENET1K_V1",
        weight_folder: str = "weight",
        input_size: int | tuple[int, int] | None = None,
        **classifier: Any,
    ) -> None:
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise IgosError(
                f"torchvision has no classifier {name!r}: {suggestion(name, known)}"
                " All: torchvision.models.list_models(module=torchvision.models)"
            )
        enum = torchvision.models.get_model_weights(name)
        is_file = weights not in enum.__members__
        chosen = enum.DEFAULT if is_file else enum[weights]
        preset = chosen.transforms()
        if is_file and Path(weights).suffix not in WEIGHT_SUFFIXES:
            raise IgosError(
                f"weights is {weights!r}, which is neither a weight file (.pth, .ckpt, .safetensors) nor one"
                f" of {name}'s weights: {', '.join(enum.__members__)}"
            )
        path = weights if is_file else fetch_weights(chosen.url, Path(weight_folder))
        super().__init__(
            torchvision.models.get_model(name, weights=None, **_REBUILD.get(name, {})),
            weights=path,
            input_size=input_size or preset.crop_size[0],
            mean=preset.mean,
            std=preset.std,
            class_names=list(chosen.meta["categories"]),
            name=name,
            **classifier,
        )
