"""Image classifiers: anyone's own module that returns logits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from igos_pl.checks import check_at_least, check_choice, check_shape
from igos_pl.data import imagenet
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.targets import ProposedTargets, Targets, class_targets
from igos_pl.errors import IgosError
from igos_pl.models.base import ExplainableNetwork


class Classifier(ExplainableNetwork):
    """Any module that maps images ``(B, C, H, W)`` to logits ``(B, classes)``.

    Args:
        module: the network.
        class_names: in label order; ``imagenet`` for the 1000 ImageNet classes; none known by default.
        output: whether scores are the softmax or the sigmoid of the logits.
        targets: ``predicted`` (the ``top_k`` best classes), ``ground_truth``, or a list of labels that are
            explained for every image.
        top_k: how many predicted classes are explained for each image.
        **network: see `ExplainableNetwork`.
    """

    def __init__(
        self,
        module: nn.Module,
        class_names: list[str] | Literal["imagenet"] | None = None,
        output: Literal["softmax", "sigmoid"] = "softmax",
        targets: Literal["predicted", "ground_truth"] | list[int] = "predicted",
        top_k: int = 1,
        **network: Any,
    ) -> None:
        names = imagenet.class_names() if class_names == "imagenet" else class_names
        super().__init__(module, class_names=names, **network)
        check_choice("output", output, ("softmax", "sigmoid"))
        check_at_least("top_k", top_k, 1)
        if isinstance(targets, str):
            check_choice("targets", targets, ("predicted", "ground_truth"))
        elif not targets:
            raise IgosError("targets is an empty list: name at least one label")
        self.output = output
        self.targets = targets
        self.top_k = top_k

    def label_of(self, name: str) -> int:
        """The label of a class name, in any case.

        Raises:
            IgosError: if there is no such class; names the ones that are close.
        """
        known = [one.lower() for one in self.class_names]
        if name.lower() in known:
            return known.index(name.lower())
        if not known:
            raise IgosError(f"{name!r} is no label, and {self.name} has no class_names")
        close = difflib.get_close_matches(name.lower(), known) or known[:5]
        raise IgosError(f"{self.name} has no class {name!r}; close ones: {', '.join(close)}")

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
    def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> ProposedTargets:
        """The predicted classes, the ground truth, or the given labels, for each image."""
        check_shape("images", images, ("B", self.channels, "H", "W"))
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
        return ProposedTargets(class_targets(image, chosen.flatten(), scores.flatten()), [""] * len(images))

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
