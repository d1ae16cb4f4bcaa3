"""What all detectors share: which detections are explained, and how they are matched to annotations."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import box_iou

from igos_pl.checks import check_at_least, check_choice, check_shape
from igos_pl.errors import IgosError
from igos_pl.localization import MATCH_IOU
from igos_pl.models.base import Attributes, ExplainableNetwork
from igos_pl.randomness import key_of
from igos_pl.targets import Proposals, Targets, numbered
from igos_pl.truth import GroundTruth


@dataclass(frozen=True)
class Detections:
    """What a detector finds in one image: n detections.

    Attributes:
        boxes: ``(n, 4)`` x1 y1 x2 y2 in pixels of the image.
        labels: ``(n,)`` integer.
        scores: ``(n,)`` in [0, 1].
        proposals: ``(n,)`` integer: the prediction row that each came from; -1 without rows.
        regions: ``(n, H, W)`` bool, the objects' masks; None for detectors without masks.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    proposals: Tensor
    regions: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, rows: Tensor | slice) -> Detections:
        """Some of the detections, in the order given."""
        regions = None if self.regions is None else self.regions[rows]
        return Detections(
            self.boxes[rows], self.labels[rows], self.scores[rows], self.proposals[rows], regions
        )


class Detector(ExplainableNetwork, ABC):
    """A network that finds objects; each detection is a target of its own.

    A subclass offers `detect` and `score`. Images are fed in [0, 1]: a network that wants them otherwise
    normalises them itself.

    Args:
        input_size: side of the square input in pixels.
        class_names: in label order, with background and gaps where the network has them.
        name: what results call the network.
        targets: ``detected`` explains what the network finds; ``ground_truth`` only those detections that
            match an annotated object, by class name and an overlap (IoU) of at least 0.5.
        score_threshold: detections with a lower score are left out. A network's own threshold holds besides.
        categories: names of the classes that are explained; None for all.
        max_per_image: the detections with the best scores, at most so many for an image.
    """

    def __init__(
        self,
        input_size: int,
        class_names: Sequence[str],
        name: str,
        targets: Literal["detected", "ground_truth"] = "detected",
        score_threshold: float = 0.2,
        categories: list[str] | None = None,
        max_per_image: int = 100,
    ) -> None:
        super().__init__(input_size, (0.0,) * 3, (1.0,) * 3, class_names)
        check_choice("targets", targets, ("detected", "ground_truth"))
        if not 0 <= score_threshold <= 1:
            raise IgosError(f"score_threshold is {score_threshold}, but must be between 0 and 1")
        check_at_least("max_per_image", max_per_image, 1)
        self.name = name
        self.sha256 = ""
        self.targets = targets
        self.score_threshold = score_threshold
        self.categories = None if categories is None else tuple(categories)
        self.max_per_image = max_per_image
        self._check_categories()

    @abstractmethod
    def detect(self, images: Tensor) -> list[Detections]:
        """All that the unmodified network finds in each of the images ``(B, 3, H, W)``, in [0, 1]."""

    def _detect_one(self, image: Tensor) -> Detections:
        # In full precision: boxes in bfloat16 are off by pixels, and non-maximum suppression fails on them.
        with torch.autocast(image.device.type, enabled=False):
            return self.detect(image.unsqueeze(0))[0]

    @torch.no_grad()
    def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> Proposals:
        """The detections to explain, best first. Images without any have no rows.

        The rows' scores are those that the network gave its detections.
        """
        check_shape("images", images, ("B", 3, "H", "W"))
        chosen: list[Detections] = []
        notes: list[str] = []
        for image, known in zip(images, truth, strict=True):
            # One at a time, so that the masks of no more than one image's detections lie in memory.
            detections, note = self._choose(self._usable(self._detect_one(image)), known)
            chosen.append(detections)
            notes.append(note)
        return Proposals(_as_targets(chosen), notes)

    def describe(self) -> Attributes:
        """The network's name, input, weights, and how its detections are selected."""
        return {
            "network": self.name,
            "weights_sha256": self.sha256,
            "class_names": f"{key_of(*self.class_names):x}",
            "input_size": self.input_size,
            "targets": self.targets,
            "score_threshold": self.score_threshold,
            "categories": "all" if self.categories is None else ",".join(self.categories),
            "max_per_image": self.max_per_image,
        }

    def _check_categories(self) -> None:
        if self.categories == ():
            raise IgosError("categories is an empty list: name at least one class, or leave it out for all")
        for category in self.categories or ():
            if category not in self.class_names:
                close = difflib.get_close_matches(category, self.class_names) or list(self.class_names[:10])
                raise IgosError(
                    f"categories names {category!r}, which is no class of {self.name};"
                    f" classes that it has: {', '.join(close) or 'none has a name (class_names)'}"
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

    def _choose(self, found: Detections, known: GroundTruth) -> tuple[Detections, str]:
        """What is explained of the usable detections, and what a person should know of it."""
        parts: list[str] = []
        if self.targets == "ground_truth":
            rows, parts = self._annotated(found, known)
            found = found.select(torch.tensor(rows, dtype=torch.long, device=found.boxes.device))
        surplus = len(found) - self.max_per_image
        if surplus > 0:
            parts.append(f"{surplus} of {len(found)} detections left out (max_per_image)")
        return found.select(slice(self.max_per_image)), "; ".join(parts)

    def _annotated(self, found: Detections, known: GroundTruth) -> tuple[list[int], list[str]]:
        """The detections that match an annotated object, best first, and the objects without one."""
        objects = [i for i, name in enumerate(known.names) if self._wanted(name)]
        if not objects:
            return [], ["no annotated object" if self.categories is None else "no object of the categories"]
        partners = match_objects(
            torch.as_tensor(known.boxes[objects], device=found.boxes.device).reshape(-1, 4),
            [known.names[i] for i in objects],
            found.boxes,
            [self.label_name(label) for label in found.labels.tolist()],
        )
        alone = [i for i, partner in zip(objects, partners, strict=True) if partner < 0]
        foreign = [i for i in alone if known.names[i] not in self.class_names]
        missed = [i for i in alone if known.names[i] in self.class_names]
        parts = [
            f"{len(some)} of {len(objects)} objects {what}: {', '.join(_named(known, i) for i in some)}"
            for some, what in ((missed, "not detected"), (foreign, f"of a class unknown to {self.name}"))
            if some
        ]
        return sorted(partner for partner in partners if partner >= 0), parts


def match_objects(
    objects: Tensor, object_names: Sequence[str], boxes: Tensor, names: Sequence[str]
) -> list[int]:
    """Pair annotated objects with detections of the same class, the largest overlaps first.

    Args:
        objects: ``(m, 4)`` x1 y1 x2 y2 in pixels.
        object_names: m class names.
        boxes: ``(n, 4)`` of the detections, in the same frame.
        names: n class names.

    Returns:
        For each object the number of its detection, or -1 if none with an IoU of at least 0.5 is left. No
        detection appears twice.
    """
    partners = [-1] * len(objects)
    if not len(objects) or not len(boxes):
        return partners
    same = torch.tensor([[a == b for b in names] for a in object_names])
    overlap = box_iou(objects.double(), boxes.double()).cpu().nan_to_num(0) * same
    while True:
        row, column = divmod(int(overlap.argmax()), len(boxes))
        if overlap[row, column] < MATCH_IOU:
            return partners
        partners[row] = column
        overlap[row] = overlap[:, column] = -1


def label_scores(probabilities: Tensor, labels: Tensor, name: str) -> Tensor:
    """Each row's probability of its own label.

    Args:
        probabilities: ``(B, classes)``.
        labels: ``(B,)``.
        name: what messages call the network.

    Raises:
        IgosError: if a label is outside of the head.
    """
    classes = probabilities.shape[1]
    try:
        return probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
    except RuntimeError:
        # Asked only now: to look at the labels first would make a GPU wait in every pass.
        outside = labels[(labels < 0) | (labels >= classes)]
        if not len(outside):
            raise
    raise IgosError(
        f"Label {int(outside[0])} is outside of the {classes} classes of {name} (0 to {classes - 1})"
    )


def prediction_rows(predictions: Tensor, rows: Tensor, name: str) -> Tensor:
    """One prediction row ``(B, V)`` of each of ``predictions (B, R, V)``, for ``rows (B,)``.

    Raises:
        IgosError: if there are fewer rows, as for an input of another size.
    """
    count, values = predictions.shape[1:]
    try:
        return predictions.gather(1, rows.reshape(-1, 1, 1).expand(-1, 1, values)).squeeze(1)
    except RuntimeError:
        outside = rows[(rows < 0) | (rows >= count)]
        if not len(outside):
            raise
    raise IgosError(f"Prediction row {int(outside[0])} is outside of the {count} rows of {name}")


def _named(known: GroundTruth, index: int) -> str:
    number = f" (id {known.ids[index]})" if len(known.ids) else ""
    return f"{known.names[index]}{number}"


def _as_targets(chosen: Sequence[Detections]) -> Targets:
    """The rows of all images together."""
    device = chosen[0].boxes.device
    counts = torch.tensor([len(detections) for detections in chosen], device=device)
    image = torch.arange(len(chosen), device=device).repeat_interleave(counts)
    regions = [detections.regions for detections in chosen if detections.regions is not None]
    return Targets(
        image=image,
        number=numbered(image),
        label=torch.cat([detections.labels for detections in chosen]).long(),
        score=torch.cat([detections.scores for detections in chosen]).float(),
        box=torch.cat([detections.boxes for detections in chosen]).float(),
        proposal=torch.cat([detections.proposals for detections in chosen]).long(),
        cell=torch.full_like(image, -1),
        region=torch.cat(regions) if regions else None,
    )
