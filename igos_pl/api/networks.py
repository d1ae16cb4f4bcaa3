"""Choose the adapter that explains a network in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from igos_pl.api.images import Picture, check_channels_first
from igos_pl.checks import check_arguments
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.items import PICTURE_CHANNELS
from igos_pl.data.targets import ProposedTargets, Targets, class_targets
from igos_pl.errors import IgosError
from igos_pl.models import Classifier, DenseDetector, ExplainableNetwork, RCNNDetector
from igos_pl.models.base import size_of
from igos_pl.models.names import network_named
from igos_pl.settings import parameters_of
from igos_pl.solver.micro_batches import is_machine_error

# Turns a network's output for one image into the score that is explained.
Target = Callable[[Any], Tensor]

Normalization = float | Sequence[float] | NDArray[Any] | Tensor | None


def adapter_of(
    network: nn.Module | str,
    images: Tensor | list[Picture],
    mean: Normalization,
    std: Normalization,
    **settings: Any,
) -> ExplainableNetwork:
    """The adapter that explains a network.

    An adapter is returned as it is. Torchvision's detectors are wrapped as detectors, other modules as
    classifiers.

    Args:
        network: any module, or a name; see `igos_pl.models.names.network_named`.
        images: the images to explain.
        mean: the mean of each channel, or one for all; None if the images are the module's input as they are.
        std: the standard deviation, given as ``mean``.
        **settings: other arguments of the adapter's constructor.

    Raises:
        IgosError: if a setting is missing, or is given although the network has it already.
    """
    given = {"mean": _numbers("mean", mean), "std": _numbers("std", std), **settings}
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(network, str):
        return network_named(network, **given)
    if isinstance(network, ExplainableNetwork):
        if given:
            raise IgosError(f"{network.name} has its own {', '.join(given)}: leave them out here")
        return network
    _check_type(network)
    if isinstance(images, Tensor):
        check_channels_first(images, _picture_channels(network))
    if isinstance(network, FasterRCNN | RetinaNet | FCOS | SSD):
        for name in ("mean", "std"):
            if name in given:
                raise IgosError(f"{type(network).__name__} normalises by itself: leave {name} out")
        family = RCNNDetector if isinstance(network, FasterRCNN) else DenseDetector
        check_arguments(f"A {type(network).__name__}", given, parameters_of(family)[1:])
        return family(network, **_sized(given, images))
    if isinstance(images, list):
        missing = [name for name in ("mean", "std", "input_size") if name not in given]
        if missing:
            raise IgosError(
                f"{', '.join(missing)} must be given to explain pictures by a bare module: give the values"
                " that it was trained with. Or give tensors, which are its input as they are"
            )
        lengths = [len(given[name]) for name in ("mean", "std") if isinstance(given[name], Sequence)]
        return Classifier(network, **_per_channel(given, lengths[0] if lengths else 3))
    if images.dtype == torch.uint8 and "mean" not in given:
        raise IgosError(
            "images is of uint8: pass the mean and std that the network was trained with (mean=0, std=1 for a"
            " network that takes values in [0, 1]), or give float tensors that are its input as they are"
        )
    if ("mean" in given) != ("std" in given):
        raise IgosError(
            "mean and std belong together: give both, or neither if images are normalised already"
        )
    sized = _sized(given, images)
    if "mean" not in given:
        return _as_given(network, images.shape[1], **sized)
    return Classifier(network, **_per_channel(sized, images.shape[1]))


def _as_given(module: nn.Module, channels: int, **classifier: Any) -> Classifier:
    """A classifier that gets images already normalised."""
    made = Classifier(module, mean=(0.0,) * channels, std=(1.0,) * channels, **classifier)
    made.is_normalizing = False
    return made


def _numbers(name: str, values: Normalization) -> float | list[float] | None:
    """A mean or a std as plain numbers: one, or one for each channel."""
    if values is None:
        return None
    try:
        numbers = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise IgosError(f"{name} is {values!r}, but must be a number, or one for each channel") from error
    return numbers.flatten().tolist() if numbers.ndim else numbers.item()


def _check_type(network: object) -> None:
    if not isinstance(network, nn.Module):
        raise IgosError(
            f"network is of the type {type(network).__name__}, but must be a torch.nn.Module or one of"
            " igos_pl's networks"
        )
    for weight in network.parameters():
        if weight.dtype != torch.float32 and weight.is_floating_point():
            raise IgosError(
                f"The network's weights are {weight.dtype}, but must be torch.float32: call"
                " network.float() first"
            )


def _picture_channels(module: nn.Module) -> int | None:
    """The channels that a module's first convolution takes, if these may be a picture's; otherwise None.

    With more channels, it may not be the layer that takes the images.
    """
    first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
    return first.in_channels if first is not None and first.in_channels in PICTURE_CHANNELS else None


def _sized(given: dict[str, Any], images: Tensor | list[Picture]) -> dict[str, Any]:
    """The settings; if the images are tensors, with their size as ``input_size``."""
    if isinstance(images, list):
        return given
    size = (images.shape[-2], images.shape[-1])
    if size_of(given.get("input_size", size)) != size:
        raise IgosError(
            f"input_size is {given['input_size']}, but the images are {size[0]} x {size[1]}, and tensors are"
            " explained as they are: leave input_size out, or resize the images"
        )
    return {**given, "input_size": size}


def _per_channel(given: dict[str, Any], channels: int) -> dict[str, Any]:
    """The settings, with a mean and a std for each channel."""
    spread = {
        name: value if isinstance(value, Sequence) else (value,) * channels
        for name, value in given.items()
        if name in ("mean", "std")
    }
    return {**given, **spread}


def device_of(network: nn.Module) -> torch.device:
    """The device of a network's weights; the CPU if it has none."""
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))


class Scored(ExplainableNetwork):
    """A network whose output is scored by functions of the user, one for each image.

    Args:
        adapter: the network with its normalisation.
        functions: each turns the output for one image, without the batch axis, into the score. A tensor of
            the output whose first axis is not the batch is passed whole.
    """

    not_settings = frozenset({"adapter", "functions", *("class_names", "mean", "std", "input_size", "name")})

    def __init__(self, adapter: ExplainableNetwork, functions: Sequence[Target]) -> None:
        super().__init__(
            adapter.module,
            input_size=adapter.input_size,
            mean=adapter.mean,
            std=adapter.std,
            class_names=[_name_of(function) for function in functions],
            name=adapter.name,
        )
        self.pixel_mean, self.pixel_std = adapter.pixel_mean, adapter.pixel_std
        self.preprocessing = adapter.preprocessing
        self.is_normalizing = adapter.is_normalizing
        self.functions = tuple(functions)
        self._has_batch_axis: list[bool] | None = None
        self._adapter = [adapter]  # in a list, so that it is not registered as a submodule

    @property
    def unit(self) -> float:
        """The adapter's unit."""
        return self._adapter[0].unit

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """Score each row with the function that its target names."""
        if self._has_batch_axis is None:
            self._has_batch_axis = self._find_batch_axes(images[:1])
        parts, structure = self._parts(images)
        scores = []
        for place, label in enumerate(targets.label.tolist()):
            own = [
                # Some networks squeeze the batch axis of a single image.
                part[place] if batched and _length(part) == len(images) else part
                for part, batched in zip(parts, self._has_batch_axis, strict=True)
            ]
            scores.append(self._scored(self.functions[label], tree_unflatten(own, structure)))
        return torch.stack(scores)

    @torch.no_grad()
    def _find_batch_axes(self, image: Tensor) -> list[bool]:
        """Which parts of the module's output have an entry for each image.

        One pass cannot tell: a constant may happen to be as long as the batch.
        """
        (two, structure), (three, changed) = (self._parts(image.repeat(count, 1, 1, 1)) for count in (2, 3))
        if structure != changed:
            raise IgosError(
                f"{self.name} returned {_in_words(tree_unflatten(two, structure))} for two images, but"
                f" {_in_words(tree_unflatten(three, changed))} for three: wrap the network in a module that"
                " returns tensors whose first axis is the batch"
            )
        return [(_length(one), _length(other)) == (2, 3) for one, other in zip(two, three, strict=True)]

    def _parts(self, images: Tensor) -> tuple[list[Any], TreeSpec]:
        """The tensors and constants of the module's output, and their structure."""
        parts, structure = tree_flatten(self.module(images))
        for part in parts:
            if not (part is None or isinstance(part, Tensor | str | int | float)):
                raise IgosError(
                    f"{self.name} returned a {type(part).__name__}, but a function as target needs a tensor,"
                    " or tuples, lists and dicts of tensors: wrap the network in a module that returns these"
                )
        return parts, structure

    def _scored(self, function: Target, output: Any) -> Tensor:
        try:
            score = function(output)
        except Exception as error:
            if isinstance(error, IgosError) or is_machine_error(error):
                raise
            raise IgosError(
                f"The target {_name_of(function)} raised {type(error).__name__}: {error}. It was called with"
                f" the output of {self.name} for one image, which is {_in_words(output)}"
            ) from error
        if not isinstance(score, Tensor) or score.numel() != 1:
            found = f"shape {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
            plain = " (a number without a gradient): leave out float() or item()"
            raise IgosError(
                f"The target {_name_of(function)} must return a tensor of one number for the output of one"
                f" image, but returned {found}{plain if isinstance(score, float | int) else ''}"
            )
        return score.reshape(())

    @torch.no_grad()
    def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> ProposedTargets:
        """One target for each image: the label is the number of its function."""
        image = torch.arange(len(images), device=images.device)
        label = torch.tensor([known.label for known in truth], device=images.device)
        targets = class_targets(image, label, torch.zeros(len(images), device=images.device))
        score = self.score(images, targets)
        return ProposedTargets(class_targets(image, label, score.float()), [""] * len(images))


def _length(part: Any) -> int | None:
    """The length of a tensor's first axis; None if there is no axis."""
    return len(part) if isinstance(part, Tensor) and part.ndim else None


def _in_words(output: Any) -> str:
    """What an output consists of, as in ``a dict of logits: a tensor of shape (5,)``."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} of " + ", ".join(f"{key}: {_in_words(part)}" for key, part in output.items())
    if isinstance(output, list | tuple):
        return f"a {kind} of " + ", ".join(map(_in_words, output))
    return f"a {kind}"


def _name_of(function: Target) -> str:
    return getattr(function, "__name__", type(function).__name__)
