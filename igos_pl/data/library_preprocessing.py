"""Preprocessing by the transforms of other libraries. Only the geometry is computed here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from igos_pl.data.geometry import Frame
from igos_pl.data.preprocessing import Preprocessing
from igos_pl.errors import IgosError
from igos_pl.settings import Attributes, plain

# What the steps of torchvision, timm and open_clip do to a picture's geometry, by their classes' names.
_RESIZES = frozenset({"Resize", "ResizeKeepRatio"})
_CENTRE_CROPS = frozenset({"CenterCrop", "CenterCropOrPad"})
_TRIMS = frozenset({"TrimBorder"})

# The settings of transformers' image processors that describe a run. The others are names of files, or become
# the network's mean and std.
_GEOMETRY = ("do_", "size", "crop", "resample", "pad")
_VALUES = frozenset({"do_rescale", "do_normalize", "do_convert_rgb", "do_reduce_labels"})

# The number of frames kept in memory, one for each size of pictures.
_FRAMES = 4096


class PictureTransform(Preprocessing):
    """Steps on PIL pictures: resizes and centre crops, as torchvision, timm and open_clip have them.

    Args:
        steps: each maps a PIL picture to a PIL picture.
        about: describes the steps; it is a setting of the run.
        mode: Pillow's mode of the pictures that the first step takes: ``RGB``, or ``L`` for grey values.
    """

    not_settings = frozenset({"steps"})  # `about` describes them

    def __init__(
        self, steps: Sequence[Callable[[Image.Image], Image.Image]], about: str, mode: str = "RGB"
    ) -> None:
        self.steps = tuple(steps)
        self.about = about
        self.mode = mode

    def __call__(self, picture: Image.Image) -> tuple[Tensor, Frame]:
        """See `Preprocessing`.

        Raises:
            IgosError: if a step changes the picture's size in an unknown way.
        """
        part = _Part(picture.height, picture.width)
        current = picture.convert(self.mode)
        for step in self.steps:
            before = current.size[::-1]
            current = step(current)
            _follow(part, step, before, current.size[::-1])
        pixels = np.atleast_3d(np.array(current)).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels)), part.frame(current.size[::-1])


class ImageProcessorTransform(Preprocessing):
    """One of transformers' image processors, with whatever it does to pixels and geometry.

    The processor normalises each channel, and a few reverse the channels' order. This is undone, so that the
    network can do it to perturbed images itself: ``mean`` and ``std`` are what it needs to get the
    processor's values back.

    Args:
        processor: an image processor of torchvision's backend.

    Attributes:
        mean: of red, green and blue.
        std: of red, green and blue.
        reverses: whether the processor gives blue, green, red.

    Raises:
        IgosError: if it has another backend, or does more to values than normalise each channel.
    """

    not_settings = frozenset({"processor"})  # `facts` describes it

    def __init__(self, processor: Any) -> None:
        kind = type(processor).__name__
        if getattr(processor, "backend", None) != "torchvision":
            raise IgosError(f"{kind} cannot be used here: only image processors of torchvision's backend can")
        self.processor = processor
        self._frames: dict[tuple[int, int], Frame] = {}
        colours = ((0, 0, 0), (255, 255, 255), (102, 102, 102), (255, 0, 0))
        black, white, grey, red = (self._values_of(colour) for colour in colours)
        extent = white - black
        shares = ((red - black) / extent).round(decimals=3).tolist()
        self.reverses = shares == [0, 0, 1]
        grey_fits = torch.allclose(grey, black + 0.4 * extent, rtol=0, atol=1e-3 * float(extent.abs().max()))
        if not (extent > 0).all() or not grey_fits or shares not in ([1, 0, 0], [0, 0, 1]):
            raise IgosError(f"{kind} changes pixel values in a way that is no normalisation of channels")
        mean, std = (-black / extent).tolist(), (1 / extent).tolist()
        order = slice(None, None, -1) if self.reverses else slice(None)
        self.mean, self.std = tuple(map(_short, mean[order])), tuple(map(_short, std[order]))

    def facts(self) -> Attributes:
        """The processor's class and settings."""
        settings = {
            key: value
            for key, value in self.processor.to_dict().items()
            if value is not None and key.startswith(_GEOMETRY) and key not in _VALUES
        }
        steps = plain(json.dumps(settings, default=str, sort_keys=True))
        return {"processor": type(self.processor).__name__, "steps": steps}

    def __call__(self, picture: Image.Image) -> tuple[Tensor, Frame]:
        """See `Preprocessing`.

        Raises:
            IgosError: if the processor changes the picture's size in an unknown way.
        """
        pixels = self._values(picture)
        pixels = pixels.flip(0) if self.reverses else pixels
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.std))
        return pixels * std + mean, self._frame(picture.size)

    def _frame(self, size: tuple[int, int]) -> Frame:
        """The frame of pictures of one width and height. Tracing takes milliseconds, so it is done once."""
        if size not in self._frames:
            if len(self._frames) >= _FRAMES:
                self._frames.clear()
            self._frames[size] = traced_frame(self._values, *size)
        return self._frames[size]

    def _values(self, picture: Image.Image | Tensor) -> Tensor:
        """The processor's output ``(C, H, W)`` for a picture, or for a tensor ``(3, H, W)``."""
        layout = {"input_data_format": "channels_first"} if isinstance(picture, Tensor) else {}
        values = self.processor(images=picture, return_tensors="pt", **layout)["pixel_values"][0]
        if not isinstance(values, Tensor) or values.ndim != 3:
            raise IgosError(
                f"{type(self.processor).__name__} makes no images of shape (C, H, W), which are needed here"
            )
        return values

    def _values_of(self, colour: tuple[int, int, int]) -> Tensor:
        """The processor's values of a colour, one for each channel; float64."""
        made = self._values(Image.new("RGB", (64, 64), colour)).double()
        return made[:, made.shape[1] // 2, made.shape[2] // 2]


def input_size_of(preprocessing: Preprocessing, name: str) -> tuple[int, int]:
    """Height and width of the inputs that a preprocessing makes.

    Raises:
        IgosError: if they depend on the picture.
    """
    sizes = {preprocessing(Image.new("RGB", size))[1].input_size for size in ((96, 64), (64, 96), (80, 80))}
    if len(sizes) > 1:
        raise IgosError(
            f"The preprocessing of {name} makes inputs of different sizes for different pictures, but all"
            " must have the same size: set a fixed size or a centre crop there"
        )
    return sizes.pop()


class _Part:
    """The part of an original that the current picture shows, while steps are applied to it.

    Everything is in the order height, width.
    """

    def __init__(self, height: int, width: int) -> None:
        self.original = (height, width)
        self.corner = [0.0, 0.0]  # in pixels of the original
        self.scale = [1.0, 1.0]  # pixels of the original in each pixel of the current picture

    def resize(self, before: Sequence[int], after: Sequence[int]) -> None:
        self.scale = [s * old / new for s, old, new in zip(self.scale, before, after, strict=True)]

    def crop(self, axis: int, start: int) -> None:
        """Cut off the first ``start`` pixels along an axis; if negative, pad so many in front."""
        self.corner[axis] += start * self.scale[axis]

    def frame(self, input_size: tuple[int, int]) -> Frame:
        (top, left), (down, across) = self.corner, self.scale
        box = (left, top, left + input_size[1] * across, top + input_size[0] * down)
        return Frame(self.original[1], self.original[0], box, input_size)


def _follow(part: _Part, step: Any, before: tuple[int, int], after: tuple[int, int]) -> None:
    """Note what a step of `PictureTransform` did to the geometry."""
    kind = type(step).__name__
    if kind in _RESIZES:
        part.resize(before, after)
    elif kind in _CENTRE_CROPS:
        for axis, (old, new) in enumerate(zip(before, after, strict=True)):
            # Torchvision's rounding, which timm and open_clip share.
            part.crop(axis, round((old - new) / 2) if old >= new else -((new - old) // 2))
    elif kind in _TRIMS:
        for axis in (0, 1):
            part.crop(axis, step.border_size)
    elif before != after:
        raise IgosError(f"The transform's step {kind} changes the size of pictures in an unknown way")


def traced_frame(transform: Callable[[Tensor], Tensor], width: int, height: int) -> Frame:
    """The part of a picture that a transform of tensors shows.

    The transform is run on a tensor without memory (of the device ``meta``), and its resizes, crops and
    paddings are read from the operations that torch is asked for.

    Args:
        transform: maps ``(3, H, W)`` uint8 to ``(C, H', W')``.
        width: of the upright original.
        height: of the upright original.

    Raises:
        IgosError: if the transform changes the size in an unknown way.
    """
    trace = _Trace(height, width)
    with trace:
        made = transform(torch.empty(3, height, width, dtype=torch.uint8, device="meta"))
    size = (made.shape[-2], made.shape[-1])
    if size != trace.size:
        raise IgosError(f"The network's preprocessing turns {trace.size} into {size} in an unknown way")
    return trace.part.frame(size)


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows resizes, crops and paddings of the last two axes."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = (height, width)
        self.part = _Part(height, width)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            return 0  # a value that decides nothing about geometry, as in "is any std 0?"
        made = func(*args, **(kwargs or {}))
        image = args[0] if args else None
        if isinstance(image, Tensor) and image.ndim >= 3 and tuple(image.shape[-2:]) == self.size:
            self._follow(name, image, made, args)
        return made

    def _follow(self, name: str, image: Tensor, made: Any, args: tuple[Any, ...]) -> None:
        if name.lstrip("_").startswith("upsample"):
            self.part.resize(self.size, made.shape[-2:])
        elif name == "slice" and args[1] % image.ndim >= image.ndim - 2:
            self.part.crop(args[1] % image.ndim - image.ndim + 2, args[2] or 0)
        elif name == "constant_pad_nd":
            left, _, top, _ = (*args[1], 0, 0)[:4]
            self.part.crop(1, -left)
            self.part.crop(0, -top)
        elif name == "flip" and any(axis % image.ndim >= image.ndim - 2 for axis in args[1]):
            raise IgosError("The network's preprocessing flips pictures, which is not supported")
        else:
            return
        self.size = (made.shape[-2], made.shape[-1])


def _short(value: float) -> float:
    """Six digits, so that rounding on another machine gives the same number."""
    return float(f"{value:.6g}") + 0.0  # no negative zero
