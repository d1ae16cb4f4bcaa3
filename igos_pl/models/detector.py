"""What all detectors share: choosing the detections to explain, and matching them with annotated objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from igos_pl.checks import check_choice, check_count, check_shape, check_share, suggestion
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.matching import match_objects
from igos_pl.data.targets import ProposedTargets, Targets, numbered
from igos_pl.data.wording import counted
from igos_pl.errors import IgosError
from igos_pl.models.base import ExplainableNetwork, outside_label


@dataclass(frozen=True)
class Detections:
    """What a detector finds in one image: n detections.

    Attributes:
        boxes: ``(n, 4)`` x1 y1 x2 y2 in pixels of the image.
        labels: ``(n,)`` integer.
        scores: ``(n,)`` in [0, 1].
        prediction_rows: ``(n,)`` integer: the row of the head that each came from; -1 without rows.
        instance_masks: ``(n, H, W)`` bool; None for detectors without masks.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    prediction_rows: Tensor
    instance_masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, rows: Tensor | slice) -> Detections:
        """Some of the detections, in the order given."""
        masks = None if self.instance_masks is None else self.instance_masks[rows]
        return Detections(
            self.boxes[rows], self.labels[rows], self.scores[rows], self.prediction_rows[rows], masks
        )


class Detector(ExplainableNetwork, ABC):
    """A network that finds objects; each detection is a target of its own.

    A subclass implements `detect` and `score`. They get images in [0, 1]; a network that needs other values
    normalises them itself.

    Args:
        module: the network.
        class_names: in label order, with background and gaps where the network has them.
        targets: ``detected`` explains what the network finds; ``ground_truth`` only those detections that
            match an annotated object, by class name and an overlap (IoU) of at least 0.5.
        score_threshold: detections with a lower score are left out. The network's own threshold applies as
            well.
        categories: names of the classes that are explained; None for all.
        max_per_image: at most so many detections of an image are explained, those with the best scores.
        **network: ``weights``, ``input_size`` and ``name``, see `ExplainableNetwork`.
    """

    def __init__(
        self,
        module: nn.Module,
        class_names: list[str] | None = None,
        targets: Literal["detected", "ground_truth"] = "detected",
        score_threshold: float = 0.2,
        categories: list[str] | None = None,
        max_per_image: int = 100,
        **network: Any,
    ) -> None:
        super().__init__(module, class_names=class_names, mean=(0.0,) * 3, std=(1.0,) * 3, **network)
        check_choice("targets", targets, ("detected", "ground_truth"))
        check_share("score_threshold", score_threshold)
        check_count("max_per_image", max_per_image, 1)
        self.targets = targets
        self.score_threshold = score_threshold
        self.categories = None if categories is None else tuple(categories)
        self.max_per_image = max_per_image
        check_categories(self.categories, self.class_names, self.name)

    @abstractmethod
    def detect(self, images: Tensor) -> list[Detections]:
        """All that the unmodified network finds in each of the images ``(B, 3, H, W)``, in [0, 1]."""

    def _detect_one(self, image: Tensor) -> Detections:
        # In full precision: boxes in bfloat16 are off by pixels, and non-maximum suppression fails on them.
        with torch.autocast(image.device.type, enabled=False):
            return self.detect(image.unsqueeze(0))[0]

    @torch.no_grad()
    def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> ProposedTargets:
        """The detections to explain, best first. An image without detections has no rows.

        The rows' scores are those that the network gave its detections.
        """
        check_shape("images", images, ("B", 3, "H", "W"))
        # One image at a time, so that the instance masks of only one image lie in memory before the choice.
        chosen = [
            self._choose(self._usable(self._detect_one(image)), known)
            for image, known in zip(images, truth, strict=True)
        ]
        return ProposedTargets(_as_targets(chosen), [choice.note for choice in chosen])

    def check(self, truth: Sequence[GroundTruth]) -> None:
        """Raise if annotated objects are to be explained, but the network knows none of their classes."""
        if self.targets != "ground_truth" or not truth:
            return
        names = sorted({name for known in truth for name in known.names})
        if not names:
            raise IgosError(
                "targets is 'ground_truth', but the data have no annotated objects: name an annotations file"
                " (--data COCODataModule --data.annotations FILE), or explain what is detected"
                " (--model.network.targets detected)"
            )
        if not set(names) & set(self.class_names):
            raise IgosError(
                f"{self.name} knows no class of the annotated objects: {names[0]!r}, for example;"
                f" {suggestion(names[0], self.class_names)}"
            )

    def _wanted(self, name: str) -> bool:
        return self.categories is None or name in self.categories

    def _usable(self, found: Detections) -> Detections:
        """The detections above the threshold, of the wanted classes, best first.

        Scores that are NaN are below every threshold; boxes without an area cannot be explained.
        """
        boxes = found.boxes
        keep = (found.scores >= self.score_threshold) & boxes.isfinite().all(1)
        keep &= (boxes[:, 2:] > boxes[:, :2]).all(1)
        wanted = [self._wanted(self.label_name(label)) for label in found.labels.tolist()]
        keep &= torch.tensor(wanted, dtype=torch.bool, device=keep.device)
        rows = keep.nonzero().squeeze(1)
        return found.select(rows[found.scores[rows].argsort(descending=True, stable=True)])

    def _choose(self, found: Detections, known: GroundTruth) -> _Choice:
        """Select the usable detections to explain, and match each with an annotated object."""
        wanted = [place for place, name in enumerate(known.names) if self._wanted(name)]
        partners = match_objects(
            torch.as_tensor(known.boxes[wanted], device=found.boxes.device).reshape(-1, 4),
            [known.names[place] for place in wanted],
            found.boxes,
            [self.label_name(label) for label in found.labels.tolist()],
        )
        objects = [wanted[partner] if partner >= 0 else -1 for partner in partners]
        rows, parts = list(range(len(found))), []
        if self.targets == "ground_truth":
            rows = [row for row in rows if objects[row] >= 0]
            parts = self._not_found(known, wanted, objects)
        parts.append(surplus_note(len(rows), self.max_per_image, "detections"))
        rows = rows[: self.max_per_image]
        chosen = found.select(torch.tensor(rows, dtype=torch.long, device=found.boxes.device))
        return _Choice(chosen, [objects[row] for row in rows], "; ".join(filter(None, parts)))

    def _not_found(self, known: GroundTruth, wanted: Sequence[int], objects: Sequence[int]) -> list[str]:
        """Notes for the user about the annotated objects that have no detection."""
        if not wanted:
            return ["no annotated object" if self.categories is None else "no object of the categories"]
        alone = sorted(set(wanted) - set(objects))
        own = ("", *self.class_names)
        foreign = [place for place in alone if known.names[place] not in own]
        missed = [place for place in alone if known.names[place] in own]
        whole = counted(len(wanted), "object")
        return [
            f"{len(some)} of {whole} {what}: {', '.join(_named(known, one) for one in some)}"
            for some, what in ((missed, "not detected"), (foreign, f"of a class unknown to {self.name}"))
            if some
        ]


@dataclass(frozen=True)
class _Choice:
    """What is explained of one image.

    Attributes:
        detections: n, best first.
        objects: for each detection, the index of its annotated object; -1 for none.
        note: see `ProposedTargets`.
    """

    detections: Detections
    objects: Sequence[int]
    note: str


def check_categories(categories: Sequence[str] | None, class_names: Sequence[str], name: str) -> None:
    """Check the names of the classes that are explained.

    Args:
        categories: None for all.
        class_names: the network's class names.
        name: the network's name in messages.

    Raises:
        IgosError: if the list is empty, or names a class that the network does not have.
    """
    if categories is not None and not categories:
        raise IgosError("categories is an empty list: name at least one class, or leave it out for all")
    for category in categories or ():
        if category not in class_names:
            raise IgosError(
                f"categories names {category!r}, but {name} has no such class:"
                f" {suggestion(category, class_names)}"
            )


def surplus_note(number: int, most: int, what: str) -> str:
    """The note about an image with more targets than are explained; empty if there are not more.

    Args:
        number: how many there are.
        most: how many are explained at most.
        what: they are, such as ``detections``.
    """
    if number <= most:
        return ""
    limit = f"max_per_image (--model.network.max_per_image) is {most}"
    return f"{number - most} of {number} {what} left out: {limit}"


def label_scores(probabilities: Tensor, labels: Tensor, name: str) -> Tensor:
    """Each row's probability of its own label.

    Args:
        probabilities: ``(B, classes)``.
        labels: ``(B,)``.
        name: the network's name in messages.

    Raises:
        IgosError: if the head has no such label.
    """
    classes = probabilities.shape[1]
    try:
        return probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
    except RuntimeError:
        # Checking the labels beforehand would synchronise with the GPU in every pass.
        outside = labels[(labels < 0) | (labels >= classes)]
        if not len(outside):
            raise
    raise IgosError(outside_label(int(outside[0]), classes, name))


def select_rows(predictions: Tensor, rows: Tensor, name: str) -> Tensor:
    """Select prediction row ``rows[b]`` of each image: ``(B, R, V)`` and ``(B,)`` to ``(B, V)``.

    Raises:
        IgosError: if a row does not exist, for example because the input has another size.
    """
    count, values = predictions.shape[1:]
    try:
        return predictions.gather(1, rows.reshape(-1, 1, 1).expand(-1, 1, values)).squeeze(1)
    except RuntimeError:
        outside = rows[(rows < 0) | (rows >= count)]
        if not len(outside):
            raise
    raise IgosError(f"Prediction row {int(outside[0])} is outside of the {counted(count, 'row')} of {name}")


def _named(known: GroundTruth, index: int) -> str:
    number = f" (id {known.ids[index]})" if len(known.ids) else ""
    return f"{known.names[index] or 'object'}{number}"


def _as_targets(chosen: Sequence[_Choice]) -> Targets:
    """The rows of all images together."""
    found = [choice.detections for choice in chosen]
    device = found[0].boxes.device
    counts = torch.tensor([len(detections) for detections in found], device=device)
    image = torch.arange(len(found), device=device).repeat_interleave(counts)
    objects = [place for choice in chosen for place in choice.objects]
    masks = [detections.instance_masks for detections in found if detections.instance_masks is not None]
    return Targets(
        image=image,
        number=numbered(image),
        label=torch.cat([detections.labels for detections in found]).long(),
        score=torch.cat([detections.scores for detections in found]).float(),
        box=torch.cat([detections.boxes for detections in found]).float(),
        prediction_row=torch.cat([detections.prediction_rows for detections in found]).long(),
        object=torch.tensor(objects, dtype=torch.long, device=device),
        start_cell=torch.full_like(image, -1),
        instance_mask=torch.cat(masks) if masks else None,
    )
