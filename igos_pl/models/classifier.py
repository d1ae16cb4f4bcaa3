"""Image classifiers: any module that returns logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from igos_pl.checks import check_choice, check_count, check_shape, check_whole, wrong_type
from igos_pl.data import imagenet
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.labels import ClassLabels
from igos_pl.data.targets import ProposedTargets, Targets, class_targets
from igos_pl.data.wording import counted, has_or_have
from igos_pl.errors import IgosError, TargetError
from igos_pl.models.base import ExplainableNetwork, outside_label

_CHOICES = ("predicted", "ground_truth", "both")
_PREDICTED = ("predicted", "both")  # the choices that take the top_k best classes
_LABELLED = ("ground_truth", "both")  # the choices that need the labels of the data

# How far from 1 the sum of an image's probabilities may be, which may have been computed in half precision.
_SUM_ERROR = 0.01


class Classifier(ExplainableNetwork):
    """Any module that maps images ``(B, C, H, W)`` to logits ``(B, classes)``.

    The module may return the logits themselves, an object or a dict that has them as ``logits``, or a tuple
    or list that begins with them.

    Args:
        module: the network.
        class_names: in label order; ``imagenet`` for the 1000 ImageNet classes; unknown by default.
        output: whether scores are the softmax or the sigmoid of the logits. A network with one output needs
            the sigmoid.
        targets: ``predicted`` (the ``top_k`` best classes), ``ground_truth``, ``both`` (the predicted
            classes, and the annotated class if it is none of them), or a list of labels and class names that
            are explained for every image.
        top_k: how many predicted classes are explained for each image; at most the number of classes.
        **network: see `ExplainableNetwork`.
    """

    def __init__(
        self,
        module: nn.Module,
        class_names: list[str] | Literal["imagenet"] | None = None,
        output: Literal["softmax", "sigmoid"] = "softmax",
        # str comes first, so that the command line takes "3" in quotes for the name of a class.
        targets: Literal["predicted", "ground_truth", "both"] | list[str | int] = "predicted",
        top_k: int = 1,
        **network: Any,
    ) -> None:
        of_imagenet = isinstance(class_names, str) and class_names == "imagenet"
        names = imagenet.class_names() if of_imagenet else class_names
        super().__init__(module, class_names=names, **network)
        check_choice("output", output, ("softmax", "sigmoid"))
        check_count("top_k", top_k, 1)
        if isinstance(targets, str):
            check_choice("targets", targets, _CHOICES)
        elif not isinstance(targets, list | tuple):
            raise wrong_type(
                "targets", targets, f"one of {', '.join(_CHOICES)}, or a list of labels and class names"
            )
        elif not targets:
            raise IgosError("targets is an empty list: name at least one label")
        self.output = output
        self.targets = targets if isinstance(targets, str) else self._labels(targets)
        self.top_k = top_k

    def _labels(self, targets: Sequence[int | str]) -> list[int]:
        """Labels, from labels and class names. So a run is the same however its targets are given."""
        classes = ClassLabels(self.class_names)
        try:
            labels = [classes.of(target) if isinstance(target, str) else target for target in targets]
        except IgosError as error:
            raise IgosError(f"targets: {error}") from error
        for place, label in enumerate(labels):
            check_whole(f"targets[{place}]", label)
            if label in labels[:place]:
                raise IgosError(
                    f"targets names the class {targets[place]} twice (label {label}): name it once"
                )
        return labels

    def probabilities(self, images: Tensor) -> Tensor:
        """The scores of all classes ``(B, classes)``, in float32 or more precise."""
        return self._probabilities_of(self._logits(images))

    def _logits(self, images: Tensor) -> Tensor:
        """The module's logits ``(B, classes)``, in float32 or more precise."""
        output = self.module(images)
        logits: Tensor = _logits_of(output)
        self._check_logits(logits, output, images)
        if self.output == "softmax" and logits.shape[1] == 1:
            raise IgosError(
                f"{self.name} has one output, and the softmax of one output is always 1. Set output="
                '"sigmoid" (--model.network.output sigmoid): the score is then the sigmoid of the output, and'
                " the only label is 0. If the network applies the sigmoid itself, explain a function of its"
                " output: igos_pl.explain with targets=lambda output: output[0]"
            )
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _probabilities_of(self, logits: Tensor) -> Tensor:
        return logits.softmax(1) if self.output == "softmax" else logits.sigmoid()

    def _check_not_probabilities(self, logits: Tensor) -> None:
        """Raise if the module has taken the softmax already: taken twice, it makes all scores alike."""
        sums = logits.sum(1)
        if self.output == "softmax" and bool((logits >= 0).all() and (sums - 1).abs().max() < _SUM_ERROR):
            raise IgosError(
                f"{self.name} returns probabilities (the outputs for each image sum to 1), but must return"
                " logits: leave its last softmax out, or let it return the logarithm of the probabilities"
            )

    def _check_logits(self, logits: object, output: object, images: Tensor) -> None:
        """Raise unless the module returned logits. The check does not wait for the device."""
        remedy = (
            "wrap it in a module that returns its logits, or use an adapter for its task (igos_pl.Segmenter)"
        )
        if not isinstance(logits, Tensor):
            found = f"a {type(output).__name__}"
            if isinstance(output, Mapping):
                found += f" of {', '.join(map(str, output))}"
        elif logits.ndim != 2 or len(logits) != len(images) or not logits.shape[1]:
            found = f"the shape {tuple(logits.shape)} for {len(images)} images"
            if logits.shape == (len(images),):
                remedy = (
                    'if this is its one output, return (B, 1), and set output="sigmoid"'
                    " (--model.network.output sigmoid)"
                )
        elif (
            not logits.is_floating_point() or logits.layout != torch.strided or logits.device != images.device
        ):
            found = f"a tensor of {logits.dtype}, {logits.layout}, on {logits.device}"
        else:
            return
        raise IgosError(
            f"{self.name} must return logits of shape (B, classes), dense and floating-point (bare, as"
            f" 'logits' of an object or dict, or first in a tuple), but returned {found}: {remedy}"
        )

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The probability of each row's label."""
        return self.probabilities(images).gather(1, targets.label.unsqueeze(1)).squeeze(1)

    @torch.no_grad()
    def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> ProposedTargets:
        """For each image, the predicted classes, the annotated class, or the given labels."""
        check_shape("images", images, ("B", self.channels, "H", "W"))
        logits = self._logits(images)
        self._check_not_probabilities(logits)
        probabilities = self._probabilities_of(logits)
        classes = probabilities.shape[1]
        self._check_classes(classes)
        image, label = self._choose(probabilities, [known.label for known in truth])
        self._check_labels(classes, label.tolist(), image.tolist() if self.targets in _LABELLED else None)
        return ProposedTargets(class_targets(image, label, probabilities[image, label]), [""] * len(images))

    def check(self, truth: Sequence[GroundTruth]) -> None:
        """Raise if needed labels are missing, or if labels, class names or top_k do not fit the logits.

        If the number of classes matters, a forward pass of a blank image finds it. Labels that are only kept
        beside the predictions must fit, too. Those of a network with one output may count its two classes.
        """
        labelled = self.targets in _LABELLED
        if labelled:
            self._check_labelled([known.label for known in truth])
        labels = {image: known.label for image, known in enumerate(truth) if known.label >= 0}
        chosen = [] if isinstance(self.targets, str) else self.targets
        if labels or chosen or self.class_names or self.top_k > 1:
            classes = self._count_classes()
            if classes is not None:
                self._check_classes(classes)
                self._check_labels(classes, chosen)
                if labelled or classes > 1:
                    self._check_labels(classes, list(labels.values()), list(labels))

    def _count_classes(self) -> int | None:
        """The number of logits; None if the network fails on a blank image; the first batch reports it."""
        blank = self.pixel_mean.new_zeros(1, self.channels, *self.input_size)
        try:
            with torch.no_grad(), self.frozen():
                return int(self.probabilities(blank).shape[1])
        except IgosError:
            raise
        except Exception:
            return None

    def _check_classes(self, classes: int) -> None:
        """Raise unless the class names and top_k fit a number of classes."""
        if self.class_names and len(self.class_names) != classes:
            raise IgosError(
                f"class_names has {counted(len(self.class_names), 'name')}, but {self.name} has"
                f" {counted(classes, 'class')}: name each class, in the order of the labels"
            )
        if self.targets in _PREDICTED and self.top_k > classes:
            raise IgosError(
                f"top_k is {self.top_k}, but must be at most {classes}, the number of classes of {self.name}"
            )

    def _check_labels(self, classes: int, labels: Sequence[int], images: Sequence[int] | None = None) -> None:
        """Raise unless labels fit a number of classes.

        Args:
            classes: the number.
            labels: the labels.
            images: the place in the batch of the image of each label; None for labels of no certain image.
        """
        for place, label in enumerate(labels):
            if not 0 <= label < classes:
                raise TargetError(
                    outside_label(label, classes, self.name), None if images is None else images[place]
                )

    def _choose(self, probabilities: Tensor, labels: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The labels to explain, ``(R,)``, and the images that they belong to, ascending."""
        images = len(probabilities)
        if self.targets not in _CHOICES:
            chosen = torch.tensor(self.targets, device=probabilities.device).expand(images, -1)
        elif self.targets == "ground_truth":
            chosen = self._annotated(probabilities, labels)
        else:
            chosen = probabilities.topk(self.top_k).indices
        wanted = torch.ones_like(chosen, dtype=torch.bool)
        if self.targets == "both":
            annotated = self._annotated(probabilities, labels)
            wanted = torch.cat([wanted, (chosen != annotated).all(1, keepdim=True)], 1)
            chosen = torch.cat([chosen, annotated], 1)
        return wanted.nonzero()[:, 0], chosen[wanted]

    def _annotated(self, probabilities: Tensor, labels: Sequence[int]) -> Tensor:
        """The annotated label of each image, ``(B, 1)``."""
        self._check_labelled(labels)
        return torch.tensor(labels, device=probabilities.device).unsqueeze(1)

    def _check_labelled(self, labels: Sequence[int]) -> None:
        unknown = sum(label < 0 for label in labels)
        if unknown:
            raise TargetError(
                f"targets is {self.targets!r}, but {unknown:,} of {counted(len(labels), 'image')}"
                f" {has_or_have(unknown)} no label: name a labels file (--data.labels), or explain the"
                " predicted classes (--model.network.targets predicted)"
            )


def _logits_of(output: Any) -> Any:
    """The part of a module's output that should be the logits."""
    if isinstance(output, Mapping):
        return output.get("logits")
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, tuple | list) and output:
        return output[0]
    return output
