"""Loads detectors and segmentation networks of transformers with a fixed input size, no crop, no padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from igos_pl.data.library_preprocessing import ImageProcessorTransform
from igos_pl.errors import IgosError
from igos_pl.models.base import size_of
from igos_pl.models.pretrained import config_digest, pretrained_model, pretrained_part, transformers_for
from igos_pl.settings import Attributes


class PretrainedDense(NamedTuple):
    """A network of transformers with its preprocessing.

    Attributes:
        module: the network.
        processor: its image processor, which squashes pictures to ``input_size``.
        preprocessing: the same image processor as a `Preprocessing`.
        input_size: height and width in pixels.
        class_names: in label order.
    """

    module: Any
    processor: Any
    preprocessing: ImageProcessorTransform
    input_size: tuple[int, int]
    class_names: list[str]

    def facts(self) -> Attributes:
        """A digest of the network's configuration."""
        return {"config": config_digest(self.module.config)}


def pretrained_dense(
    auto_class: str, name: str, input_size: int | Sequence[int] | None, needed_by: str
) -> PretrainedDense:
    """Load a network by its folder or its name on the hub.

    Args:
        auto_class: the name of a class of transformers, such as ``AutoModelForObjectDetection``.
        name: a folder that ``save_pretrained`` has written, or a name on the hub.
        input_size: by default the image processor's, or a square of its shortest edge if it keeps the
            aspect ratio.
        needed_by: who needs transformers, in messages.

    Raises:
        IgosError: if the package is missing, or the network cannot be loaded.
    """
    transformers = transformers_for(needed_by)
    module = pretrained_model(getattr(transformers, auto_class), name)
    processor = pretrained_part(transformers.AutoImageProcessor, name)
    height, width = size_of(input_size or _own_size(processor))
    processor.size = type(processor.size)(height=height, width=width)
    processor.do_resize, processor.do_pad, processor.do_center_crop = True, False, False
    names = module.config.id2label
    return PretrainedDense(
        module,
        processor,
        ImageProcessorTransform(processor),
        (height, width),
        [str(names.get(label, label)) for label in range(max(names) + 1)],
    )


def _own_size(processor: Any) -> tuple[int, int]:
    size = dict(processor.size)
    edge = size.get("shortest_edge")
    height, width = size.get("height") or edge, size.get("width") or edge
    if not height or not width:
        raise IgosError(f"The image processor's size {size} names no height and width: set input_size")
    return int(height), int(width)
