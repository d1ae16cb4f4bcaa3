"""The targets that a user gives for images in memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igos_pl.api.images import check_one_for_each
from igos_pl.api.networks import Scored
from igos_pl.checks import wrong_type
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.labels import ClassLabels
from igos_pl.data.wording import counted
from igos_pl.errors import IgosError
from igos_pl.models import Classifier, Detector, ExplainableNetwork


def with_targets(
    network: ExplainableNetwork, targets: Any, count: int
) -> tuple[ExplainableNetwork, list[GroundTruth]]:
    """A network that proposes the given targets, and the annotations from which it takes them.

    Args:
        network: is not changed.
        targets: None for the targets that the network proposes by itself. Otherwise one for all images, or a
            list with one for each: labels, class names, functions of the output; for detectors, boxes or
            dicts of ``boxes`` and ``labels``.
        count: number of images.

    Raises:
        IgosError: if the targets do not fit the network or the number of images.
    """
    if targets is None:
        return network, [GroundTruth()] * count
    if isinstance(network, Detector):
        return _asked(network), [_objects(network, one) for one in _for_each(targets, count)]
    each = _for_each(targets, count)
    if all(callable(one) for one in each):
        functions = list({id(one): one for one in each}.values())
        numbers = {id(one): number for number, one in enumerate(functions)}
        return Scored(network, functions), [GroundTruth(numbers[id(one)]) for one in each]
    if not isinstance(network, Classifier):
        raise IgosError(
            f"{type(network).__name__} chooses its targets by itself: leave targets out, or give functions of"
            " its output"
        )
    classes = ClassLabels(network.class_names)
    return _asked(network), [GroundTruth(_label(classes, one, place)) for place, one in enumerate(each)]


def _asked(network: Classifier | Detector) -> ExplainableNetwork:
    """A copy that explains what is annotated; it shares its layers with the network."""
    asked = copy.copy(network)
    asked.targets = "ground_truth"
    return asked


def _for_each(targets: Any, count: int) -> list[Any]:
    """A target for each image."""
    if isinstance(targets, Tensor | np.ndarray) and targets.ndim < 2:
        targets = targets.tolist()
    if isinstance(targets, list | tuple):
        check_one_for_each("target", len(targets), count)
        return list(targets)
    return [targets] * count


def _label(classes: ClassLabels, target: Any, place: int) -> int:
    """The label that is the target of the image at a place."""
    if isinstance(target, str):
        return classes.of(target)
    if isinstance(target, Tensor | np.ndarray):
        if target.ndim:
            raise IgosError(
                f"targets has the shape {tuple(target.shape)}, but must have one label for each image: (N,)"
            )
        target = target.item()
    if isinstance(target, bool) or not isinstance(target, int | np.integer):
        raise wrong_type(
            f"The target of image {place}",
            target,
            "a label (a whole number) or a class name; or give functions of the output, for all images",
        )
    if target < 0:
        raise IgosError(f"The target of image {place} is {target}, but labels begin at 0")
    return int(target)


def _objects(network: Detector, target: Any) -> GroundTruth:
    """Objects of one image."""
    labels = target.get("labels") if isinstance(target, dict) else None
    boxes = target.get("boxes") if isinstance(target, dict) else target
    try:
        corners = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise IgosError(
            f"A target of {network.name} must be boxes (n, 4), or a dict of boxes (n, 4) and labels (n,), but"
            f" is {target!r}: leave targets out to explain all that it detects"
        ) from error
    right = corners.isfinite().all(1) & (corners[:, 2:] > corners[:, :2]).all(1)
    if not right.all():
        raise IgosError(
            f"The box {corners[~right][0].tolist()} of a target must be x1 y1 x2 y2, with x1 below x2 and y1"
            " below y2, in pixels of the original picture"
        )
    names: Sequence[str] = [""] * len(corners)
    if labels is not None:
        names = [one if isinstance(one, str) else network.label_name(int(one)) for one in labels]
    if len(names) != len(corners):
        raise IgosError(f"A target has {counted(len(corners), 'box')}, but {counted(len(names), 'label')}")
    return GroundTruth(boxes=corners.numpy(), names=tuple(names), ids=tuple(range(len(corners))))
