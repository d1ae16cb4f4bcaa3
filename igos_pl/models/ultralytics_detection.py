"""Ultralytics' YOLO detectors: each detection is scored at the prediction row that it came from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from igos_pl.checks import check_at_least, check_share
from igos_pl.data.geometry import Frame
from igos_pl.data.images import channels_first
from igos_pl.data.preprocessing import Preprocessing
from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.models.base import size_of, texts
from igos_pl.models.detector import Detections, Detector, label_scores, select_rows
from igos_pl.models.weights import file_sha256
from igos_pl.optional import imported
from igos_pl.settings import Attributes


class LetterboxResize(Preprocessing):
    """Ultralytics' own preprocessing: scales the whole picture in its aspect ratio and pads it with grey.

    Args:
        input_size: height and width of the network's input.
    """

    not_settings = frozenset({"input_size"})  # the network has it as a setting

    def __init__(self, input_size: tuple[int, int]) -> None:
        self.input_size = input_size

    def __call__(self, picture: Image.Image) -> tuple[Tensor, Frame]:
        """See `Preprocessing`. The frame includes the padding."""
        from ultralytics.data.augment import LetterBox

        height, width = self.input_size
        letterbox = LetterBox(self.input_size, auto=False)
        place = letterbox.get_params({"img": np.empty((picture.height, picture.width, 0))})
        across, down = place["new_unpad"]
        scale_x, scale_y = picture.width / across, picture.height / down
        left, top = -place["left"] * scale_x, -place["top"] * scale_y
        box = (left, top, left + width * scale_x, top + height * scale_y)
        padded = Image.fromarray(letterbox(image=np.asarray(picture)))
        return torch.from_numpy(channels_first(padded)), Frame(
            picture.width, picture.height, box, self.input_size
        )


class UltralyticsDetector(Detector):
    """A detection model of the package ``ultralytics``: YOLOv8, YOLO11, YOLO26, ...

    A row of the head is a cell of one of its feature maps. A detection's row stays fixed while the image is
    perturbed, and its score is the sigmoid of the label's class logit. Preprocessing and post-processing are
    those of ``YOLO.predict(..., rect=False)``.

    The package is not installed with igos_pl: its licence is the AGPL-3.0, or a commercial one. Its files are
    pickles of whole modules. They are read by the package's restricted loader, which only builds known
    classes of ``ultralytics`` and ``torch``, and refuses everything else.

    Args:
        weights: a ``.pt`` file of the package, or a module: ``YOLO(...)`` or its ``DetectionModel``.
        input_size: height and width of the input in pixels, or the side of a square one; multiples of the
            model's largest stride (32).
        nms: ``true`` suppresses overlapping detections, as ``YOLO.predict`` does by default; ``false`` takes
            the detections of the end-to-end head that YOLOv10 and YOLO26 have.
        nms_iou: if two detections of a class overlap (IoU) by more than this, only the better one is kept.
        score_threshold: detections with a lower score are left out.
        class_names: in label order; the model's by default.
        **detector: see `Detector`.

    Raises:
        IgosError: if the package is missing, or the model is not a detector.
    """

    not_settings = frozenset({"weights"})
    module: Any

    def __init__(
        self,
        weights: str | nn.Module = "yolov8n.pt",
        input_size: int | tuple[int, int] = 640,
        nms: bool = True,
        nms_iou: float = 0.7,
        score_threshold: float = 0.25,
        class_names: list[str] | None = None,
        **detector: Any,
    ) -> None:
        check_share("nms_iou", nms_iou)
        module, sha256 = _load(weights)
        head = _detection_head(module)
        stride = int(head.stride.max())
        for side in size_of(input_size):
            check_at_least("input_size", side, stride)
            if side % stride:
                raise IgosError(f"input_size is {input_size}, but must be a multiple of {stride}")
        _check_head(head, nms)
        names = texts("class_names", class_names) or [str(module.names[label]) for label in range(head.nc)]
        if isinstance(weights, str):
            detector.setdefault("name", Path(weights).stem)
        super().__init__(
            module, input_size=input_size, class_names=names, score_threshold=score_threshold, **detector
        )
        self.nms = nms
        self.nms_iou = nms_iou
        self.preprocessing = LetterboxResize(self.input_size)
        if sha256:
            self.file_sha256 = sha256

    def facts(self) -> Attributes:
        """The facts of all networks, and the most detections that the model gives for an image."""
        return {**super().facts(), "max_det": int(self._head.max_det)}

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        """The detections of ultralytics' own post-processing, each with the row that it came from."""
        from ultralytics.utils.nms import non_max_suppression

        predictions, logits = self._predict(images)
        found, places = non_max_suppression(
            predictions,
            self.score_threshold,
            self.nms_iou,
            max_det=self._head.max_det,
            nc=self._head.nc,
            end2end=not self.nms,
            return_idxs=True,
        )
        if not self.nms:
            # These are indices into the best rows: choose those by the model's own rule again.
            best = self._head.get_topk_index(logits.sigmoid(), self._head.max_det)[2]
            places = [rows[place] for rows, place in zip(best, places, strict=True)]
        return [
            Detections(
                boxes=one[:, :4],
                labels=one[:, 5].long(),
                scores=one[:, 4],
                prediction_rows=rows.reshape(-1).long(),
            )
            for one, rows in zip(found, places, strict=True)
        ]

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The class probability of each row's label in its own prediction row."""
        _, logits = self._predict(images)
        chosen = select_rows(logits, targets.prediction_row, self.name)
        return label_scores(
            chosen.to(torch.promote_types(chosen.dtype, torch.float32)).sigmoid(), targets.label, self.name
        )

    @property
    def _head(self) -> Any:
        return self.module.model[-1]

    def _predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The model's predictions, and the class logits ``(B, R, classes)`` of its rows.

        The predictions are ``(B, 4 + classes, R)`` (boxes as center, width, height) with non-maximum
        suppression, and ``(B, max_det, 6)`` without.
        """
        with _as_in_prediction(self._head, self.nms):
            predictions, raw = self.module(images)
        if "one2one" in raw:
            raw = raw["one2many" if self.nms else "one2one"]
        return predictions, raw["scores"].transpose(1, 2)


@contextmanager
def _as_in_prediction(head: Any, nms: bool) -> Iterator[None]:
    """Set the flags of ``YOLO.predict`` on a head in a context, and restore the head afterwards.

    The head keeps its anchors between passes. They are made again here, because autograd cannot use those of
    a prediction by ultralytics.
    """
    before = dict(vars(head))
    head.shape, head.export, head.xyxy, head.end2end = None, False, False, not nms
    try:
        yield
    finally:
        vars(head).clear()
        vars(head).update(before)


def _library() -> tuple[Any, Any]:
    """The package, and its module that reads weights.

    Importing it replaces ``torch.save``, and ``PIL.Image.open`` by a function that installs a package
    when a picture cannot be read. Both are restored.
    """
    functions = Image.open, torch.save
    try:
        return (
            imported("ultralytics", "ultralytics", "UltralyticsDetector"),
            imported("ultralytics.nn.tasks", "ultralytics", "UltralyticsDetector"),
        )
    finally:
        Image.open, torch.save = functions


def _load(weights: str | nn.Module) -> tuple[Any, str | None]:
    """A module in float32 and its file's SHA-256, or a given module as it is and None.

    Raises:
        IgosError: if the package is missing or too old, or the file is missing, damaged or refused.
    """
    library, tasks = _library()
    if isinstance(weights, nn.Module):
        return (weights.model if isinstance(weights, library.YOLO) else weights), None
    sha256 = file_sha256(Path(weights))
    # Older versions of the package, and of torch, would silently read the file with fewer restrictions.
    if not getattr(getattr(tasks, "_SafeLoad", None), "SUPPORTED", False):
        raise IgosError(
            f"{weights} holds more than tensors. Reading it without running code needs torch 2.6 and"
            f" ultralytics 8.4.190 or newer, but these are {torch.__version__} and {library.__version__}:"
            " upgrade them, or load the file yourself and give the module"
        )
    try:
        content, _ = tasks.torch_safe_load(str(Path(weights).resolve()), safe_only=True)
        module = content.get("ema") or content["model"]
    except Exception as error:  # damaged files make it raise nearly anything
        raise IgosError(
            f"{weights} cannot be read as a file of ultralytics, or holds code that is not part of"
            f" ultralytics: {error}"
        ) from error
    return module.float(), sha256


def _detection_head(module: Any) -> Any:
    """The last layer of a detection model.

    Raises:
        IgosError: if the model is of another task or another package.
    """
    from ultralytics.nn.modules import Detect, v10Detect

    layers = getattr(module, "model", None)
    head = layers[-1] if isinstance(layers, nn.Sequential) and len(layers) else None
    if type(head) not in (Detect, v10Detect):
        found = "" if head is None else f" with the head {type(head).__name__}"
        raise IgosError(
            "weights must be a detection model of ultralytics with the head Detect or v10Detect, but is a"
            f" {type(module).__name__}{found}"
        )
    return head


def _check_head(head: Any, nms: bool) -> None:
    if not nms and getattr(head, "one2one_cv2", None) is None:
        raise IgosError("nms is false, but the model has no end-to-end head: set nms to true")
    if nms and head.cv2 is None:
        raise IgosError(
            "nms is true, but the model was fused, which has removed the head for it: set nms to false"
        )
