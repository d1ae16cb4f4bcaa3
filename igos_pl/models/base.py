"""What a network must offer so that its decisions can be explained."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from igos_pl.checks import check_at_least, check_whole, wrong_type
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.preprocessing import Preprocessing, Resize
from igos_pl.data.targets import ProposedTargets, Targets
from igos_pl.errors import IgosError
from igos_pl.models.weights import check_tensors, layers_digest, load_weights, module_sha256
from igos_pl.settings import Attributes, Configurable, nested

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# The largest side of an input. A larger one is a mistake and would fill the memory.
_LARGEST_SIDE = 16_384


class ExplainableNetwork(Configurable, nn.Module, ABC):
    """A module with a fixed input size that proposes targets and scores them.

    A new family of networks is a subclass with `propose` and `score`. All parameters of its constructor are
    settings of the run, see `igos_pl.settings.Configurable`.

    Args:
        module: the network. An `Explainer` puts it into evaluation mode and freezes it while it works, and
            then restores it.
        weights: a state dict file for it; None if the module comes with its weights.
        input_size: height and width of the input in pixels, or the side of a square one.
        mean: the mean of each channel, for images in [0, 1]. Its length is the number of channels.
        std: the standard deviation of each channel, likewise.
        class_names: in label order; labels without a name are shown as numbers.
        name: the network's name in results; by default the module's class name.

    Attributes:
        preprocessing: how picture files become the input; data modules use it unless told otherwise.
    """

    not_settings = frozenset({"module", "weights"})  # their digests are in `facts`
    # Whether the scores of proposed targets are those of `score`, so that the explainer can compare them.
    proposes_its_scores: ClassVar[bool] = True
    # Whether `score` needs the instance masks of the targets, because it is a mean over them.
    scores_regions: bool = False
    # Whether images are expected in [0, 1], and this class normalises them.
    is_normalizing: bool = True
    _file_sha256: str | None = None
    _read_sha256: str = ""  # of the module's tensors when they were read from the file
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        module: nn.Module,
        weights: str | None = None,
        input_size: int | tuple[int, int] = 224,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        class_names: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        _check_module(module)
        self.name = name or type(module).__name__
        self.input_size = size_of(input_size)
        self.mean, self.std = _numbers("mean", mean), _numbers("std", std)
        _check_normalization(self.mean, self.std)
        self.preprocessing: Preprocessing = Resize(self.input_size, channels=self.channels)
        self.class_names = tuple(texts("class_names", class_names))
        for text in (self.name, *self.class_names):
            if "\0" in text:
                raise IgosError(f"class_names and name: {text!r} has a zero byte, which results cannot hold")
        self.module = module
        self.register_buffer("pixel_mean", torch.tensor(self.mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(self.std).reshape(1, -1, 1, 1), persistent=False)
        if not isinstance(weights, str | Path | None):
            raise IgosError(
                f"weights is a {type(weights).__name__}, but must be the path of a file: load a state dict by"
                " module.load_state_dict(weights)"
            )
        sha256 = self._load_weights(str(weights)) if weights else None
        check_tensors(module, self.name)
        self.file_sha256 = sha256

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 of the weight file, or of the module's tensors as they are now.

        The tensors count if there is no file, or if they have changed since they were read from it.
        """
        now = module_sha256(self.module)
        return self.file_sha256 if self.file_sha256 and now == self._read_sha256 else now

    @property
    def file_sha256(self) -> str | None:
        """The SHA-256 of the file that the module's weights were read from; None if there is none."""
        return self._file_sha256

    @file_sha256.setter
    def file_sha256(self, sha256: str | None) -> None:
        self._file_sha256 = sha256
        self._read_sha256 = module_sha256(self.module) if sha256 else ""

    def _load_weights(self, path: str) -> str:
        """Load a weight file into the module; returns the file's SHA-256."""
        return load_weights(self.module, path, self.name)

    def facts(self) -> Attributes:
        """The digests of the weights and of the layers' own settings, and how pictures become the input."""
        return {
            "weights_sha256": self.weights_sha256,
            "layers": layers_digest(self.module),
            "preprocessing": type(self.preprocessing).__name__,
            **nested("preprocessing", self.preprocessing.describe()),
        }

    @property
    def channels(self) -> int:
        """The number of channels of the input."""
        return len(self.mean)

    def freeze(self) -> None:
        """Evaluation mode, no gradients for weights, channels last."""
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the network in a context. Afterwards, every layer and tensor is as it was before."""
        layers = [
            (layer, layer.training, dict(layer._parameters), dict(layer._buffers)) for layer in self.modules()
        ]
        before = [(weight, weight.data, weight.requires_grad, weight.grad) for weight in self.parameters()]
        # Some layers change their buffers even in evaluation mode: observers of quantisation.
        values = [(buffer, buffer.detach().clone()) for buffer in self.buffers()]
        try:
            for weight in self.parameters():
                weight.grad = None  # otherwise `to` would move the accumulated gradient
            self.freeze()
            yield
        finally:
            for layer, training, parameters, buffers in layers:
                layer.training = training
                layer._parameters.update(parameters)
                layer._buffers.update(buffers)
            for weight, data, needs_gradient, gradient in before:
                weight.data = data  # the same memory, which optimisers and other modules may share
                weight.requires_grad_(needs_gradient)
                weight.grad = gradient
            for buffer, value in values:
                if not torch.equal(buffer, value):
                    buffer.data.copy_(value)

    def normalize(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` normalised for this network, float32.

        Args:
            images: uint8, or float in which 1 stands for 255.
        """
        shares = images.float() if images.is_floating_point() else images.float() / 255
        # The adapter of a module on a GPU may have been made on the CPU.
        mean, std = self.pixel_mean.to(shares.device), self.pixel_std.to(shares.device)
        scaled = (shares - mean) / std
        return scaled.contiguous(memory_format=torch.channels_last)

    @property
    def unit(self) -> float:
        """The factor from units of ImageNet-normalised images to units of this network's input.

        The papers give the noise for ImageNet-normalised images. Multiply it by this factor for this network.
        """
        if not self.is_normalizing:  # images come normalised
            return 1.0
        return sum(IMAGENET_STD) / 3 / float(self.pixel_std.mean())

    def label_name(self, label: int) -> str:
        """The class's name, or its number where the name is unknown."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)

    def check(self, truth: Sequence[GroundTruth]) -> None:
        """Raise before the first image if the annotations of the data do not suit the network.

        Args:
            truth: the annotations of all images that are to be explained.

        Raises:
            IgosError: if something does not fit; the message says what.
        """

    @abstractmethod
    def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> ProposedTargets:
        """Choose what is explained.

        Args:
            images: ``(B, C, H, W)``, normalised, unmasked.
            truth: the annotations of the B images, boxes in pixels of ``images``.
        """

    @abstractmethod
    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The score ``(B,)`` in [0, 1] of one target on each of the images ``(B, C, H, W)``."""


def outside_label(label: int, classes: int, name: str) -> str:
    """The message for a label that a network does not have.

    Args:
        label: the label.
        classes: the number of the network's classes.
        name: the network's name.
    """
    if classes == 1:
        return f"Label {label} is outside of the classes of {name}: it has one output, whose label is 0"
    return f"Label {label} is outside of the {classes:,} classes of {name} (0 to {classes - 1})"


def size_of(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width, from both or from the side of a square.

    Raises:
        IgosError: if it is neither, or too small.
    """
    pair = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(pair) != 2:
        raise IgosError(f"input_size is {size}, but must be one number, or height and width")
    for length in pair:
        check_whole("input_size", length)
    check_at_least("input_size", min(pair), 2)
    if max(pair) > _LARGEST_SIDE:
        raise IgosError(f"input_size is {size}, but must be at most {_LARGEST_SIDE} pixels along a side")
    return int(pair[0]), int(pair[1])


def _check_module(module: object) -> None:
    if isinstance(module, type):
        raise IgosError(
            f"module is the class {module.__name__}, but must be an object: {module.__name__}(...)"
        )
    if not isinstance(module, nn.Module):
        raise wrong_type("module", module, "a torch.nn.Module")
    if isinstance(module, torch.jit.ScriptModule):
        raise IgosError(
            f"The network is a {type(module).__name__} of TorchScript, whose layers cannot be frozen: give"
            " the module that it was made from"
        )


def texts(
    argument: str, values: Sequence[str] | None, wanted: str = "a list of names in the order of the labels"
) -> list[str]:
    """The texts of a sequence, such as a list or a NumPy array; empty for None.

    Args:
        argument: the name of the argument in messages.
        values: its value.
        wanted: what it must be, in words.

    Raises:
        IgosError: if it is something else.
    """
    if values is None:
        return []
    if isinstance(values, str | Mapping | Set) or not isinstance(values, Iterable):
        raise wrong_type(argument, values, wanted)
    try:
        found = list(values)
    except TypeError as error:  # an array without axes
        raise wrong_type(argument, values, wanted) from error
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise wrong_type(f"{argument}[{place}]", text, "text")
    return list(map(str, found))  # NumPy has a type of its own for text


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(map(float, values))
    except (TypeError, ValueError) as error:
        raise wrong_type(name, values, "a list with one number for each channel") from error


def _check_normalization(mean: Sequence[float], std: Sequence[float]) -> None:
    if not mean or len(mean) != len(std):
        raise IgosError(
            f"mean has {len(mean)} values and std {len(std)}, but each must have one for each channel"
        )
    if not all(0 < each < math.inf for each in std):
        raise IgosError(f"std is {list(std)}, but must be above 0 for every channel, and finite")
    if not all(map(math.isfinite, mean)):
        raise IgosError(f"mean is {list(mean)}, but must be a finite number for every channel")
    if max(mean) > 1:
        raise IgosError(
            f"mean is {list(mean)}, but must be the mean of values in [0, 1]: divide mean and std by 255"
        )
