"""What a network must offer so that its decisions can be explained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from igos_pl.checks import check_at_least
from igos_pl.targets import Proposals, Targets
from igos_pl.truth import GroundTruth

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Attributes = dict[str, str | int | float]


class ExplainableNetwork(nn.Module, ABC):
    """A frozen network with a fixed input size: proposes targets and scores them.

    A new family of networks is a subclass with `propose` and `score`.

    Args:
        input_size: side of the square input in pixels.
        mean: per channel, of images in [0, 1]; subtracted first.
        std: per channel; divides afterwards.
        class_names: in label order.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        input_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        class_names: Sequence[str],
    ) -> None:
        super().__init__()
        check_at_least("input_size", input_size, 2)
        self.input_size = input_size
        self.class_names = tuple(class_names)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)

    def freeze(self) -> None:
        """Evaluation mode, no gradients for weights, channels last: what every explanation wants."""
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def normalize(self, images: Tensor) -> Tensor:
        """8-bit images ``(B, 3, H, W)`` as this network wants them, float32."""
        return ((images.float() / 255 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    @property
    def unit(self) -> float:
        """How large one unit of an ImageNet-normalised image is in this network's input.

        The papers state noise for ImageNet-normalised images; a network that is fed [0, 1] gets it scaled.
        """
        return sum(IMAGENET_STD) / 3 / float(self.std.mean())

    def label_name(self, label: int) -> str:
        """The class's name, or its number where the name is unknown."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)

    @abstractmethod
    def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> Proposals:
        """Choose what is explained.

        Args:
            images: ``(B, 3, H, W)``, normalised, unmasked.
            truth: what is known of the B images, boxes in pixels of ``images``.
        """

    @abstractmethod
    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The score ``(B,)`` in [0, 1] of one target on each of the images ``(B, 3, H, W)``."""

    @abstractmethod
    def describe(self) -> Attributes:
        """Everything that decides what this network answers: names, sizes, the weights' SHA-256."""
