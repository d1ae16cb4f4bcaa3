"""Hugging Face's detection transformers: each detection is scored at the query that it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.ops import clip_boxes_to_image

from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.models.base import texts
from igos_pl.models.detector import Detections, Detector, label_scores, select_rows
from igos_pl.models.pretrained import shown_name
from igos_pl.models.pretrained_dense import pretrained_dense
from igos_pl.settings import Attributes

# Networks whose last logit stands for "no object"; the others give each class a probability of its own.
_SOFTMAX = ("detr", "table-transformer", "yolos")
_SIGMOID = ("conditional_detr", "dab-detr", "deformable_detr", "rt_detr", "rt_detr_v2", "d_fine")


class HuggingFaceDetector(Detector):
    """An object detector of the DETR family in Hugging Face's ``transformers``.

    For DETR, Table Transformer and YOLOS, the score is the softmax probability of the label, among the
    classes and "no object". For Conditional, DAB and Deformable DETR, RT-DETR, RT-DETRv2 and D-FINE, it is
    the sigmoid of the label's logit. Detections are those of the image processor's
    ``post_process_object_detection``.

    A detection is scored at the query that it came from. Most of these networks have learned queries, so the
    number of a query identifies it. RT-DETR, RT-DETRv2, D-FINE and two-stage Deformable DETR choose the
    places of the feature maps with the best encoder scores as queries, so the n-th query of a perturbed image
    may be another place. With these networks, a target keeps the place and the number that its query had
    in the unmasked image: `score` puts this place at this number, and leaves the choice and order of all
    other queries to the network. On the unmasked image nothing changes, so the score is the detection's.

    These networks cut the gradient at the queries that they choose and at the boxes that they refine, which
    makes training more stable. `score` does not cut it, so the gradient is that of the score.

    Args:
        name: a folder that ``save_pretrained`` has written, or a name on the hub.
        input_size: height and width of the input in pixels, or the side of a square one; by default the image
            processor's, or a square of its shortest edge. Pictures are squashed to it, without padding.
        class_names: in label order; the network's by default.
        **detector: see `Detector`.

    Raises:
        IgosError: if ``transformers`` is missing, there is no such network, or its family is not supported.
    """

    module: Any
    _own_mean: Tensor
    _own_std: Tensor

    def __init__(
        self,
        name: str,
        input_size: int | tuple[int, int] | None = None,
        class_names: list[str] | None = None,
        **detector: Any,
    ) -> None:
        loaded = pretrained_dense("AutoModelForObjectDetection", name, input_size, "HuggingFaceDetector")
        if loaded.preprocessing.reverses:
            raise IgosError(f"{name} takes blue, green, red, which is not supported for detectors")
        family = loaded.module.config.model_type
        if family not in (*_SOFTMAX, *_SIGMOID):
            raise IgosError(
                f"{name} is a {family}, which is not supported; supported are:"
                f" {', '.join((*_SOFTMAX, *_SIGMOID))}"
            )
        super().__init__(
            loaded.module,
            input_size=loaded.input_size,
            class_names=texts("class_names", class_names) or loaded.class_names,
            name=shown_name(name),
            **detector,
        )
        self.preprocessing = loaded.preprocessing
        self._processor = loaded.processor
        self._loaded_facts = loaded.facts()
        self._softmax = family in _SOFTMAX
        # `Detector` gives images in [0, 1], so this class normalises them.
        mean, std = (torch.tensor(values) for values in (loaded.preprocessing.mean, loaded.preprocessing.std))
        self.register_buffer("_own_mean", mean.reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("_own_std", std.reshape(1, -1, 1, 1), persistent=False)

    def facts(self) -> Attributes:
        """The facts of all networks, and a digest of the model's configuration."""
        return {**super().facts(), **self._loaded_facts}

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        """The detections of the library's own post-processing, each with the query that it came from."""
        outputs, places = self._forward(images, None)
        size = (images.shape[-2], images.shape[-1])
        found = self._processor.post_process_object_detection(
            outputs, threshold=self.score_threshold, target_sizes=[size] * len(images)
        )
        queries = outputs.logits.shape[1]
        # Post-processing does not return query numbers: run it again with the numbers in place of boxes.
        number = torch.arange(queries, device=images.device, dtype=outputs.pred_boxes.dtype)
        numbers = torch.zeros_like(outputs.pred_boxes)
        numbers[..., 0] = number
        outputs.pred_boxes = numbers
        rows = self._processor.post_process_object_detection(outputs, threshold=self.score_threshold)
        detections = []
        for index, (one, row) in enumerate(zip(found, rows, strict=True)):
            query = row["boxes"][:, 0].round().long()
            if places is not None:
                query = places[index, query] * queries + query
            boxes = clip_boxes_to_image(one["boxes"], size)
            detections.append(Detections(boxes, one["labels"], one["scores"], query))
        return detections

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The probability of each row's label at its own query."""
        outputs, _ = self._forward(images, targets.prediction_row)
        queries = targets.prediction_row
        if _choosing_layer(self.module) is not None:
            queries = queries % outputs.logits.shape[1]
        chosen = select_rows(outputs.logits, queries, self.name)
        chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
        probabilities = chosen.softmax(1) if self._softmax else chosen.sigmoid()
        return label_scores(probabilities, targets.label, self.name)

    def _forward(self, images: Tensor, rows: Tensor | None) -> tuple[Any, Tensor | None]:
        """The module's outputs, and the places of its queries ``(B, queries)``; None for learned queries.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            rows: ``(B,)`` place * queries + number, of the query to keep; None to keep none.
        """
        normalized = (images - self._own_mean) / self._own_std
        layer = _choosing_layer(self.module)
        with _Attached():
            if layer is None:
                return self.module(pixel_values=normalized), None
            order = _QueryOrder(_query_count(self.module), rows, _encoder_score(self.module))
            with _hooked(layer, order):
                outputs = self.module(pixel_values=normalized)
        return outputs, order.places


def _choosing_layer(module: Any) -> nn.Module | None:
    """The layer whose scores choose the queries; None for learned queries."""
    family = module.config.model_type
    if family == "deformable_detr":
        layer: nn.Module | None = module.model.decoder.class_embed[-1] if module.config.two_stage else None
        return layer
    layer = getattr(module.model, "enc_score_head", None) if hasattr(module, "model") else None
    return layer


def _query_count(module: Any) -> int:
    config = module.config
    return int(
        config.two_stage_num_proposals if config.model_type == "deformable_detr" else config.num_queries
    )


def _encoder_score(module: Any) -> Callable[[Tensor], Tensor]:
    """The function from scores ``(B, places, classes)`` to those that choose the places, ``(B, places)``."""
    if module.config.model_type == "deformable_detr":
        return lambda scores: scores[..., 0]
    return lambda scores: scores.amax(-1)


class _QueryOrder:
    """A hook that replaces the encoder's scores by their ranks, with one place kept at a given rank.

    Networks use these scores only to choose the best places, best first.

    Attributes:
        places: ``(B, queries)``, after a pass: the place of each query.
    """

    def __init__(self, queries: int, rows: Tensor | None, score: Callable[[Tensor], Tensor]) -> None:
        self.queries = queries
        self.rows = rows
        self.score = score
        self.places: Tensor | None = None

    @torch.no_grad()
    def __call__(self, layer: nn.Module, inputs: Any, scores: Tensor) -> Tensor:
        key = self.score(scores)
        if self.rows is not None:
            place, number = (self.rows // self.queries)[:, None], (self.rows % self.queries)[:, None]
            key = key.scatter(1, place, -torch.inf)
        rank = key.argsort(dim=1, descending=True, stable=True).argsort(1)
        if self.rows is not None:
            rank = (rank + (rank >= number).long()).scatter(1, place, number)
        self.places = rank.argsort(1)[:, : self.queries]
        # float32 holds every rank exactly.
        return (-rank).float().unsqueeze(-1).expand(*rank.shape, scores.shape[-1])


@contextmanager
def _hooked(layer: nn.Module, hook: _QueryOrder) -> Iterator[None]:
    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class _Attached(TorchFunctionMode):
    """A mode in which ``detach`` does nothing, so gradients are not cut."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.detach:
            return args[0]
        return func(*args, **(kwargs or {}))
