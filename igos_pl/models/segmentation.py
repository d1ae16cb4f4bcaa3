"""Semantic segmentation: each class that the network finds in an image is a target with a region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.ops import masks_to_boxes

from igos_pl.checks import check_count, check_shape, check_share
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.targets import ProposedTargets, Targets, numbered
from igos_pl.errors import IgosError
from igos_pl.models.base import ExplainableNetwork, texts
from igos_pl.models.detector import check_categories, surplus_note
from igos_pl.models.pretrained import ChannelsReversed, shown_name
from igos_pl.models.pretrained_dense import pretrained_dense
from igos_pl.models.torchvision_weights import weights_file
from igos_pl.models.weights import load_weights
from igos_pl.settings import Attributes

# Names of the background class in data sets.
_BACKGROUND = ("__background__", "background")


class Segmenter(ExplainableNetwork):
    """Any module that gives each pixel a class.

    A target is a class in the predicted map. Its region is the set of pixels where the class has the largest
    logit in the unmasked image, and stays fixed. Its score is the mean of the class's softmax probability
    over the region. The region is the target's instance mask, so its area sets how much the deletion and
    insertion curves remove, and its bounding box is the target's box.

    Args:
        module: maps images ``(B, C, H, W)`` to logits ``(B, classes, h, w)``, or to a dict or an object that
            has them as ``out`` (torchvision) or ``logits`` (transformers). Smaller maps are scaled bilinearly
            to the input: the logits to find regions, the probabilities to score them.
        class_names: in label order.
        categories: names of the classes that are explained; None for all but the background.
        min_area: classes with a smaller share of the image are left out.
        max_per_image: at most so many classes of an image are explained, those with the largest regions.
        **network: see `ExplainableNetwork`.
    """

    scores_regions = True

    def __init__(
        self,
        module: nn.Module,
        class_names: list[str] | None = None,
        categories: list[str] | None = None,
        min_area: float = 0.01,
        max_per_image: int = 5,
        **network: Any,
    ) -> None:
        super().__init__(module, class_names=class_names, **network)
        check_share("min_area", min_area)
        check_count("max_per_image", max_per_image, 1)
        self.categories = None if categories is None else tuple(categories)
        check_categories(self.categories, self.class_names, self.name)
        self.min_area = min_area
        self.max_per_image = max_per_image

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The mean probability of each row's label over its region."""
        assert targets.instance_mask is not None, "targets of a segmentation network have regions"
        return _region_scores(self._logits(images), targets.label, targets.instance_mask)

    @torch.no_grad()
    def propose(self, images: Tensor, truth: Sequence[GroundTruth]) -> ProposedTargets:
        """The classes of the predicted map, largest region first."""
        check_shape("images", images, ("B", self.channels, "H", "W"))
        found, notes = [], []
        for number, image in enumerate(images):
            # One image at a time: the logits of all classes at full size are large.
            logits = self._logits(image.unsqueeze(0))
            predicted = _scaled(logits, image.shape[-2:]).argmax(1)
            labels, note = self._choose(predicted, logits.shape[1])
            regions = predicted == labels.reshape(-1, 1, 1)
            scores = _region_scores(logits, labels, regions)
            found.append(_targets(number, labels, scores, regions))
            notes.append(note)
        return ProposedTargets(_joined(found), notes)

    def predict(self, images: Tensor) -> Tensor:
        """The label of each pixel ``(B, H, W)``."""
        return _scaled(self._logits(images), images.shape[-2:]).argmax(1)

    def _choose(self, predicted: Tensor, classes: int) -> tuple[Tensor, str]:
        """The labels to explain in a map ``(1, H, W)``, largest region first, and a note for the user."""
        areas = predicted.flatten().bincount(minlength=classes) / predicted.numel()
        wanted = [self._wanted(self.label_name(label)) for label in range(classes)]
        keep = (areas >= self.min_area) & (areas > 0) & torch.tensor(wanted, device=areas.device)
        labels = keep.nonzero().squeeze(1)
        labels = labels[areas[labels].argsort(descending=True, stable=True)]
        return labels[: self.max_per_image], surplus_note(len(labels), self.max_per_image, "classes")

    def _wanted(self, name: str) -> bool:
        return name not in _BACKGROUND if self.categories is None else name in self.categories

    def _logits(self, images: Tensor) -> Tensor:
        """The module's logits ``(B, classes, h, w)``, float32 or more precise."""
        output = self.module(images)
        for key in ("out", "logits"):
            if isinstance(output, Mapping) and key in output:
                output = output[key]
            elif hasattr(output, key):
                output = getattr(output, key)
        if not isinstance(output, Tensor) or output.ndim != 4:
            found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise IgosError(
                f"{self.name} must return logits of shape (B, classes, h, w), but returned {found}"
            )
        return output.to(torch.promote_types(output.dtype, torch.float32))


def _scaled(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps ``(B, n, h, w)`` at the size of the input."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def _region_scores(logits: Tensor, labels: Tensor, regions: Tensor) -> Tensor:
    """The mean probability of a label over a region.

    Args:
        logits: ``(B, classes, h, w)``, or ``(1, classes, h, w)`` for all rows.
        labels: ``(B,)``.
        regions: ``(B, H, W)`` bool.

    Returns:
        ``(B,)`` in [0, 1].
    """
    logits = logits.expand(len(labels), -1, -1, -1)
    own = logits.gather(1, labels.reshape(-1, 1, 1, 1).expand(-1, 1, *logits.shape[-2:]))
    # Only this class is scaled: all classes at full size need many times the memory.
    probability = (own - logits.logsumexp(1, keepdim=True)).exp()
    inside = _scaled(probability, regions.shape[-2:]).squeeze(1) * regions
    return inside.flatten(1).sum(1) / regions.flatten(1).sum(1)


def _targets(image: int, labels: Tensor, scores: Tensor, regions: Tensor) -> Targets:
    """The rows of one image."""
    rows = torch.full_like(labels, image)
    none = torch.full_like(labels, -1)
    # Torchvision's boxes end at the upper left corner of the last pixel, so add that pixel.
    boxes = masks_to_boxes(regions) + torch.tensor([0, 0, 1, 1], device=labels.device)
    return Targets(
        image=rows,
        number=numbered(rows),
        label=labels,
        score=scores.float(),
        box=boxes.float(),
        prediction_row=none,
        object=none,
        start_cell=none,
        instance_mask=regions,
    )


def _joined(parts: Sequence[Targets]) -> Targets:
    """The rows of several images as one table."""
    return Targets(
        *(torch.cat(columns) for columns in zip(*(vars(part).values() for part in parts), strict=True))
    )


class TorchvisionSegmenter(Segmenter):
    """One of torchvision's segmentation networks by its name: ``deeplabv3_resnet50``, ``fcn_resnet50``, ...

    Pictures are squashed to the input. Torchvision's own preprocessing scales the shorter side to 520 pixels
    instead.

    Args:
        name: any of torchvision's ``deeplabv3_*``, ``fcn_*`` and ``lraspp_*``.
        weights: a ``.pth`` file, or the name of one of the model's weights enums (``DEFAULT``): its file is
            then read from ``weight_folder``, and downloaded there if it is missing.
        weight_folder: where the files of weights enums are kept.
        class_names: in label order, for your own weights; by default those of torchvision's weights.
        input_size: height and width of the input in pixels, or the side of a square one.
        auxiliary: whether the file has the auxiliary classifier of training, as torchvision's own files of
            ``deeplabv3_*`` and ``fcn_*`` have. It is dropped after loading.
        **segmenter: see `Segmenter`.
    """

    not_settings = frozenset({"weight_folder", "auxiliary"})

    def __init__(
        self,
        name: str = "deeplabv3_resnet50",
        weights: str = "COCO_WITH_VOC_LABELS_V1",
        weight_folder: str = "weight",
        class_names: list[str] | None = None,
        input_size: int | tuple[int, int] = 520,
        auxiliary: bool = True,
        **segmenter: Any,
    ) -> None:
        known = torchvision.models.list_models(module=torchvision.models.segmentation)
        if name not in known:
            raise IgosError(f"torchvision has no segmentation network {name!r}, but: {', '.join(known)}")
        enum = torchvision.models.get_model_weights(name)
        path = weights_file(name, weights, weight_folder)
        names = texts("class_names", class_names) or list(enum.DEFAULT.meta["categories"])
        options = {} if name.startswith("lraspp_") else {"aux_loss": auxiliary}
        module = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=len(names), **options
        )
        sha256 = load_weights(module, path, name)
        if options:
            module.aux_classifier = None  # it would be computed in every pass without use
        super().__init__(module, class_names=names, name=name, input_size=input_size, **segmenter)
        self.file_sha256 = sha256


class HuggingFaceSegmenter(Segmenter):
    """A semantic segmentation network of Hugging Face's ``transformers``: SegFormer, UPerNet, DPT, BEiT, ...

    Args:
        name: a folder that ``save_pretrained`` has written, or a name on the hub.
        input_size: height and width of the input in pixels, or the side of a square one; by default the image
            processor's. Pictures are squashed to it.
        class_names: in label order; the network's by default.
        **segmenter: see `Segmenter`.

    Raises:
        IgosError: if ``transformers`` is missing, or there is no such network.
    """

    def __init__(
        self,
        name: str,
        input_size: int | tuple[int, int] | None = None,
        class_names: list[str] | None = None,
        **segmenter: Any,
    ) -> None:
        loaded = pretrained_dense(
            "AutoModelForSemanticSegmentation", name, input_size, "HuggingFaceSegmenter"
        )
        super().__init__(
            ChannelsReversed(loaded.module) if loaded.preprocessing.reverses else loaded.module,
            input_size=loaded.input_size,
            class_names=texts("class_names", class_names) or loaded.class_names,
            name=shown_name(name),
            mean=loaded.preprocessing.mean,
            std=loaded.preprocessing.std,
            **segmenter,
        )
        self.preprocessing = loaded.preprocessing
        self._loaded_facts = loaded.facts()

    def facts(self) -> Attributes:
        """The facts of all networks, and a digest of the model's configuration."""
        return {**super().facts(), **self._loaded_facts}
