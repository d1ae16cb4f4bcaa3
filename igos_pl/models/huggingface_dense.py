"""What networks of Hugging Face's ``transformers`` share: how they are loaded, and how they see pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from igos_pl.data.geometry import Frame
from igos_pl.data.preprocessing import Preprocessing
from igos_pl.errors import IgosError
from igos_pl.settings import Attributes


class HuggingFaceResize(Preprocessing):
    """Scales the whole picture to the network's input, whatever its aspect ratio, by the image processor.

    Args:
        processor: of the network; its rescaling, normalisation and padding are left out here.
        input_size: height and width of the network's input.
    """

    not_settings = frozenset({"processor", "input_size"})  # see facts, and the network says the size

    def __init__(self, processor: Any, input_size: tuple[int, int]) -> None:
        self.processor = processor
        self.input_size = input_size

    def facts(self) -> Attributes:
        """The processor's class and interpolation."""
        return {"processor": type(self.processor).__name__, "resample": int(self.processor.resample)}

    def __call__(self, picture: Image.Image) -> tuple[Tensor, Frame]:
        """See `Preprocessing`."""
        height, width = self.input_size
        made = self.processor(
            images=picture,
            size={"height": height, "width": width},
            do_resize=True,
            do_center_crop=False,
            do_pad=False,
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
        )
        pixels: Tensor = made["pixel_values"][0]
        frame = Frame.of(picture.width, picture.height, self.input_size, "squash")
        # Bytes, unless the processor calculates in floating point.
        return (pixels if pixels.dtype == torch.uint8 else pixels.float() / 255), frame


def load_pretrained(name: str, kind: str) -> tuple[Any, Any]:
    """A network in full precision, and its image processor.

    No code that comes with a network is run.

    Args:
        name: a folder that ``save_pretrained`` has written, or a name on the hub.
        kind: the class of ``transformers`` that loads it, such as ``AutoModelForObjectDetection``.

    Raises:
        IgosError: if the package is missing, or there is no such network.
    """
    try:
        import transformers
    except ImportError as error:
        raise IgosError(
            f"Networks of Hugging Face need the package {error.name}: pip install 'igos_pl[huggingface]'"
        ) from error
    try:
        module = getattr(transformers, kind).from_pretrained(name, trust_remote_code=False)
        processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise IgosError(
            f"{name} cannot be loaded by transformers' {kind}: name a folder that save_pretrained has"
            " written, with its preprocessor_config.json, or a network on the hub"
            f" ({str(error).splitlines()[0]})"
        ) from error
    for layer in module.modules():
        if hasattr(layer, "name_or_path"):  # a setting, which must be the same wherever the folder lies
            layer.name_or_path = short_name(name)
    return module.float(), processor


def input_size_of(processor: Any) -> tuple[int, int]:
    """The height and width that an image processor makes; a square where it keeps the aspect ratio."""
    size = dict(processor.size)
    height = size.get("height") or size.get("shortest_edge") or size.get("max_height")
    width = size.get("width") or size.get("shortest_edge") or size.get("max_width")
    if not height or not width:
        raise IgosError(f"The image processor's size {size} names no height and width: set input_size")
    return int(height), int(width)


def normalization_of(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and std with which an image processor normalises, in units in which 1 stands for 255."""
    scale = 255 * (float(processor.rescale_factor) if processor.do_rescale else 1.0)
    normalizes = bool(processor.do_normalize)
    mean = tuple(map(float, processor.image_mean)) if normalizes else (0.0,) * 3
    std = tuple(map(float, processor.image_std)) if normalizes else (1.0,) * 3
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


def class_names_of(config: Any) -> list[str]:
    """The class names in label order; labels without a name are shown as numbers."""
    names = {int(label): str(text) for label, text in config.id2label.items()}
    return [names.get(label, str(label)) for label in range(max(names) + 1)]


def short_name(name: str) -> str:
    """What results call a network: its name on the hub, or the last part of its folder."""
    return Path(name).resolve().name if Path(name).is_dir() else name
