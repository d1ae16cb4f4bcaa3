"""What a network must offer so that its decisions can be explained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from igos_pl.checks import check_at_least
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.targets import ProposedTargets, Targets
from igos_pl.errors import IgosError
from igos_pl.models.weights import layers_digest, load_weights, module_sha256
from igos_pl.settings import Attributes, Configurable

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ExplainableNetwork(Configurable, nn.Module, ABC):
    """A module with a fixed input size that proposes targets and scores them.

    A new family of networks is a subclass with `propose` and `score`. All parameters of its constructor are
    settings of the run, see `igos_pl.settings.Configurable`.

    Args:
        module: the network. It is switched to evaluation and frozen when an `Explainer` takes it.
        weights: a state dict file for it; None if the module comes with its weights.
        input_size: side of the square input in pixels.
        mean: of each channel; it is subtracted from images in [0, 1].
        std: of each channel; the difference is divided by it.
        class_names: in label order; labels without a name are shown as numbers.
        name: what results call the network; the class name of the module by default.
    """

    not_settings = frozenset({"module", "weights"})  # told by their digests
    # Whether the scores of proposed targets are those of `score`, so that the explainer can compare them.
    proposes_its_scores: ClassVar[bool] = True
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        module: nn.Module,
        weights: str | None = None,
        input_size: int = 224,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        class_names: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        check_at_least("input_size", input_size, 2)
        self.name = name or type(module).__name__
        self.input_size = input_size
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.class_names = tuple(class_names or ())
        for text in (self.name, *self.class_names):
            if "\0" in text:
                raise IgosError(f"class_names and name: {text!r} has a zero byte, which results cannot hold")
        self.module = module
        self.register_buffer("pixel_mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)
        if weights:
            self.weights_sha256 = self._load_weights(weights)

    @cached_property
    def weights_sha256(self) -> str:
        """The SHA-256 of the weight file, or of the module's tensors if it came without a file."""
        return module_sha256(self.module)

    def _load_weights(self, path: str) -> str:
        """Load a weight file into the module; returns the file's SHA-256."""
        return load_weights(self.module, path, self.name)

    def facts(self) -> Attributes:
        """The digests of the weights and of the layers' own settings."""
        return {"weights_sha256": self.weights_sha256, "layers": layers_digest(self.module)}

    def freeze(self) -> None:
        """Evaluation mode, no gradients for weights, channels last: called by the explainer."""
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def normalize(self, images: Tensor) -> Tensor:
        """8-bit images ``(B, 3, H, W)`` as this network wants them, float32."""
        scaled = (images.float() / 255 - self.pixel_mean) / self.pixel_std
        return scaled.contiguous(memory_format=torch.channels_last)

    @property
    def unit(self) -> float:
        """The factor from units of ImageNet-normalised images to units of this network's input.

        The papers give the noise for ImageNet-normalised images. Multiply it by this factor for this network.
        """
        return sum(IMAGENET_STD) / 3 / float(self.pixel_std.mean())

    def label_name(self, label: int) -> str:
        """The class's name, or its number where the name is unknown."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)

    @abstractmethod
    def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> ProposedTargets:
        """Choose what is explained.

        Args:
            images: ``(B, 3, H, W)``, normalised, unmasked.
            truth: the annotations of the B images, boxes in pixels of ``images``.
        """

    @abstractmethod
    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The score ``(B,)`` in [0, 1] of one target on each of the images ``(B, 3, H, W)``."""
