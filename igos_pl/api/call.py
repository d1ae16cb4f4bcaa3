"""The function `explain`: it takes a network and images, and returns explanations."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from igos_pl.api.images import Inputs, as_inputs, gathered
from igos_pl.api.networks import Normalization, adapter_of, device_of
from igos_pl.api.regions import as_regions
from igos_pl.api.result import Explanations
from igos_pl.api.targets import with_targets
from igos_pl.checks import check_arguments, check_count, check_flag
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.batches import ImageBatch
from igos_pl.data.wording import counted
from igos_pl.errors import IgosError, without_options
from igos_pl.explainer import Explainer
from igos_pl.models import ExplainableNetwork
from igos_pl.predicting import BatchPredictor
from igos_pl.run.provenance import provenance
from igos_pl.settings import parameters_of
from igos_pl.solver.micro_batches import is_machine_error
from igos_pl.solver.presets import preset_settings


@without_options()
def explain(
    network: nn.Module | str,
    images: Any,
    targets: Any = None,
    preset: str = "fast",
    *,
    mean: Normalization = None,
    std: Normalization = None,
    normalized: bool = False,
    input_size: int | tuple[int, int] | None = None,
    class_names: list[str] | Literal["imagenet"] | None = None,
    output: Literal["softmax", "sigmoid"] | None = None,
    top_k: int | None = None,
    batch_size: int = 8,
    **settings: Any,
) -> Explanations:
    """Explain a network's decisions on some images by optimised masks.

    The network runs on the device of its weights, and is left exactly as it was. Without ``targets``, the
    predicted class of each image is explained; for a detector, each detection.

    Args:
        network: any module that returns logits ``(N, classes)``; one of torchvision's detectors; one of
            igos_pl's networks; or the name of a pretrained one: ``timm:NAME``, ``torchvision:NAME``,
            ``hf:FOLDER``, or a class of igos_pl. For a module that returns something else, give functions as
            ``targets``.
        images: a tensor ``(N, C, H, W)`` or ``(C, H, W)``, which is the network's input as it is; an array
            likewise, or with its channels last; a PIL image; a path, or a pattern of paths such as
            ``photos/*.jpg``; or a list of these. Pictures (PIL images, files, and uint8 arrays with their
            channels last) are scaled to the network's input.
        targets: one for all images, or a list with one for each image: a label; a class name; a function that
            turns the network's output for one image (without the batch axis) into one number, the score,
            which should lie in [0, 1]; for detectors, boxes ``(n, 4)`` x1 y1 x2 y2 in pixels of the original,
            or a dict of ``boxes`` and ``labels``: the detections that match them are explained.
        preset: ``fast``, ``published``, ...; see `igos_pl.solver.presets.preset_names`.
        mean: the mean that the network was trained with, for values in [0, 1]: one number for each channel,
            or one for all. Without it, a bare module gets tensors as they are.
        std: the standard deviation, given as ``mean``.
        normalized: whether tensors are normalised already by the network's mean and std.
        input_size: height and width, or the side of a square, to which pictures are scaled for a bare module.
        class_names: a bare module's class names in label order; ``imagenet`` for the 1000 ImageNet classes.
        output: whether scores are the softmax (default) or the sigmoid of a bare module's logits.
        top_k: how many predicted classes of a bare module are explained for each image; 1 by default.
        batch_size: number of images that are optimised together.
        **settings: arguments of `Explainer`; they override those of the preset. By default, ``mask_size`` is
            not larger than the images. ``regions`` may also be ``slic``, or label maps of the images' sizes:
            ``(N, h, w)``, ``(h, w)``, or a list of ``(h, w)``.

    Returns:
        The explanations in the order of the images.

    Raises:
        IgosError: if the arguments do not fit together. The message says what to do.
    """
    if "device" in settings:
        raise IgosError(
            "explain has no argument 'device', because it uses the device of the network's weights: move the"
            f" network, as in network.to({str(settings['device'])!r})"
        )
    check_arguments("explain", settings, [*inspect.signature(explain).parameters, *parameters_of(Explainer)])
    bare = {"input_size": input_size, "class_names": class_names, "output": output, "top_k": top_k}
    asked = question(network, images, targets, mean, std, normalized, batch_size, **bare)
    defaults = preset_settings(preset)
    regions = as_regions(settings.pop("regions", None), asked.inputs.records)
    size = defaults.pop("mask_size", None)
    # Regions need finer cells than a preset for few cells has.
    if size is not None and regions is None:
        defaults["mask_size"] = min(size, *asked.inputs.images.shape[-2:])
    return answer(Explainer(asked.network, **{**defaults, **settings}, regions=regions), asked)


@dataclass(frozen=True)
class Question:
    """What is asked about images in memory.

    Attributes:
        network: proposes the targets that were asked for.
        inputs: the images.
        batches: the same images with their annotations, on the network's device.
    """

    network: ExplainableNetwork
    inputs: Inputs
    batches: Sequence[ImageBatch]


def question(
    network: nn.Module | str,
    images: Any,
    targets: Any,
    mean: Normalization,
    std: Normalization,
    normalized: bool,
    batch_size: int,
    **bare: Any,
) -> Question:
    """Images, a network and targets as `explain` takes them, brought together.

    Raises:
        IgosError: if they do not fit together. The message says what to do.
    """
    check_count("batch_size", batch_size, 1)
    check_flag("normalized", normalized)
    if targets is not None and bare.get("top_k") is not None:
        raise IgosError(
            "top_k is the number of predicted classes, but targets are given: leave one of them out"
        )
    found = gathered(images)
    if isinstance(found, Tensor) and found.is_meta:
        raise IgosError("images is on the meta device, without values: give a tensor with values")
    adapter = adapter_of(network, found, mean, std, **bare)
    inputs, device = as_inputs(found, adapter, normalized), device_of(adapter)
    asked, truth = with_targets(adapter, targets, len(inputs.records))
    return Question(asked, inputs, _batches(inputs, truth, batch_size, device))


def answer(module: BatchPredictor, asked: Question) -> Explanations:
    """The explanations that a module makes of images in memory."""
    with _input_explained(asked):
        results = [module.explain_batch(batch) for batch in asked.batches]
    records = [record for result in results for record in result.images]
    for record in records:
        if record.message:
            # The caller of `explain`, which has a frame more for its decorator.
            warnings.warn(f"{record.sample_id}: {record.message}", stacklevel=4)
    described = module.describe()
    return Explanations(
        records,
        [result.explanations for result in results if result.explanations],
        {**described, **provenance(described, asked.batches[0].images.device)},
        asked.inputs.originals,
    )


# Parts of torch's messages about the input of a convolution or a linear layer.
_CHANNELS = re.compile(r"to have (\d+) channels, but got (\d+) channels")
_TYPES = re.compile(
    r"(?:Input type \(float\) and \w+ type \(|but got Float and )(?:c10::)?(\w+)", re.IGNORECASE
)


@contextmanager
def _input_explained(asked: Question) -> Iterator[None]:
    """Turn torch's errors about the network's input into readable messages.

    Raises:
        IgosError: if the network takes another number of channels or of images, or its weights have another
            type.
    """
    network, channels = asked.network.name, asked.inputs.images.shape[1]
    try:
        yield
    except RuntimeError as error:
        found = _CHANNELS.search(str(error))
        if found and int(found[2]) == channels:
            raise IgosError(
                f"images has {counted(channels, 'channel')}, but {network} takes {found[1]}"
            ) from error
        if found := _TYPES.search(str(error)):
            raise IgosError(
                f"The weights of {network} are {found[1].lower()}, but images are float32: call"
                " network.float() first"
            ) from error
        if not is_machine_error(error) and (advice := _batch_advice(asked)):
            raise IgosError(f"{network} raised {type(error).__name__}: {error}. {advice}") from error
        raise


def _batch_advice(asked: Question) -> str:
    """What to do if the network takes only batches of some sizes; empty if that is not the reason."""
    images = asked.batches[0].images
    tried = sorted({1, 2, 3, len(images)})
    works = [count for count in tried if _takes(asked.network, images[:1].repeat(count, 1, 1, 1))]
    if not works or works == tried:
        return ""
    remedy = (
        "set batch_size=1 and micro_batch_size=1"
        if works == [1]
        else "let its forward take any number, because igos_pl gives it batches of different sizes"
    )
    others = " or ".join(str(count) for count in tried if count not in works)
    return f"It takes batches of {' or '.join(map(str, works))}, but not of {others}: {remedy}"


def _takes(network: ExplainableNetwork, images: Tensor) -> bool:
    try:
        with torch.no_grad(), network.frozen():
            network.module(network.normalize(images))
    except Exception:  # the caller reports the first error
        return False
    return True


def _batches(
    inputs: Inputs, truth: Sequence[GroundTruth], size: int, device: torch.device
) -> list[ImageBatch]:
    records = [
        replace(record, ground_truth=known.label) for record, known in zip(inputs.records, truth, strict=True)
    ]
    return [
        ImageBatch(inputs.images[part].to(device), records[part], truth[part])
        for part in (slice(start, start + size) for start in range(0, len(records), size))
    ]
