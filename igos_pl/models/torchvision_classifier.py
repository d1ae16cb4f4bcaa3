"""Torchvision's classifiers by name."""

from __future__ import annotations

from typing import Any, Literal

import torchvision

from igos_pl.checks import check_count, suggestion
from igos_pl.errors import IgosError
from igos_pl.models.classifier import Classifier
from igos_pl.models.torchvision_weights import weights_file

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
        num_classes: number of classes of the weight file; by default that of torchvision's weights.
        input_size: height and width of the input in pixels, or the side of a square one; by default the one
            that the weights were evaluated with.
        class_names: in label order, or ``imagenet``; by default those of torchvision's weights, and unknown
            for another number of classes.
        **classifier: see `Classifier`.
    """

    not_settings = frozenset({"weight_folder", "num_classes"})  # the hash of the weights covers it

    def __init__(
        self,
        name: str = "vgg19",
        weights: str = "IMAGENET1K_V1",
        weight_folder: str = "weight",
        num_classes: int | None = None,
        input_size: int | tuple[int, int] | None = None,
        class_names: list[str] | Literal["imagenet"] | None = None,
        **classifier: Any,
    ) -> None:
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise IgosError(
                f"torchvision has no classifier {name!r}: {suggestion(name, known)}"
                " All: torchvision.models.list_models(module=torchvision.models)"
            )
        enum = torchvision.models.get_model_weights(name)
        chosen = enum[weights] if weights in enum.__members__ else enum.DEFAULT
        known_names = list(chosen.meta["categories"])
        classes = len(known_names) if num_classes is None else num_classes
        check_count("num_classes", classes, 1)
        if classes == len(known_names):
            class_names = known_names if class_names is None else class_names
        elif weights in enum.__members__:
            raise IgosError(
                f"num_classes is {classes}, but torchvision's weights {weights} of {name} have"
                f" {len(known_names)} classes: set weights to the file of your own weights"
            )
        path = weights_file(name, weights, weight_folder)
        preset = chosen.transforms()
        super().__init__(
            torchvision.models.get_model(name, weights=None, num_classes=classes, **_REBUILD.get(name, {})),
            weights=path,
            input_size=input_size or preset.crop_size[0],
            mean=preset.mean,
            std=preset.std,
            class_names=class_names,
            name=name,
            **classifier,
        )
