"""Images in memory: tensors are the network's input as they are; pictures are scaled first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from igos_pl.data.geometry import Frame
from igos_pl.data.images import displayed, read_image
from igos_pl.data.inputs import NetworkInput
from igos_pl.data.items import image_of
from igos_pl.data.records import ImageRecord
from igos_pl.data.wording import counted, is_or_are
from igos_pl.datamodules.folder import is_pattern, matching_pictures
from igos_pl.errors import IgosError
from igos_pl.models import ExplainableNetwork
from igos_pl.settings import storable


@dataclass(frozen=True)
class Picture:
    """A picture that is not scaled yet.

    Attributes:
        image: upright RGB.
        path: the file that it was read from; empty for a picture from memory.
    """

    image: Image.Image
    path: str = ""


@dataclass(frozen=True)
class Inputs:
    """Images as a network takes them, before they are normalised.

    Attributes:
        images: ``(N, C, H, W)``: uint8, or float32 in which 1 stands for 255.
        records: the records of the N images; their ids are the paths, or ``image 0``, ...
        originals: the N upright pictures ``(h, w, 3)`` uint8, to draw on.
    """

    images: Tensor
    records: Sequence[ImageRecord]
    originals: Sequence[NDArray[np.uint8]]


def gathered(images: Any) -> Tensor | list[Picture]:
    """Turn the images that a user gives into one tensor ``(N, C, H, W)``, or a list of pictures.

    Args:
        images: a tensor ``(N, C, H, W)`` or ``(C, H, W)``; an array likewise, or with the channels last; a
            PIL image; a path, or a pattern of paths such as ``photos/*.jpg``; the bytes of a picture file; or
            a list of these, all tensors or all pictures.

    Raises:
        IgosError: if they are something else or empty, a path cannot be read, or no path matches a pattern.
    """
    if isinstance(images, Tensor):
        return _batch(images)
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    if isinstance(images, Image.Image | np.ndarray | bytes):
        image = image_of(images)
        return _batch(image) if isinstance(image, Tensor) else [Picture(image)]
    if isinstance(images, str | Path):
        if "://" in str(images):
            raise IgosError(f"{images} is a URL: download the picture, and give its path")
        path = Path(images).absolute()
        return [_read(each) for each in (sorted(matching_pictures(path)) if is_pattern(path) else [path])]
    if not isinstance(images, list | tuple):
        raise IgosError(
            f"images is of the type {type(images).__name__}, but must be a tensor, an array, a picture, a"
            " path, or a list of these. For a data set or a DataLoader, use"
            " Trainer().predict(Explainer(network), DatasetDataModule(dataset))"
        )
    if not images:
        raise IgosError("images is empty: give at least one")
    if _is_labelled(images):
        raise IgosError(
            "images is a pair of images and labels, as a data set or a DataLoader gives them: pass the images"
            " as images, and the labels as targets if you want to explain them"
        )
    return _joined([gathered(image) for image in images])


def _is_labelled(images: Sequence[Any]) -> bool:
    """Whether this is an item of a data set, or a batch of a DataLoader: images first, and their labels."""
    if len(images) != 2 or not isinstance(images[0], Tensor | np.ndarray | Image.Image):
        return False
    labels = images[1]
    return isinstance(labels, int | float) or (isinstance(labels, Tensor | np.ndarray) and labels.ndim < 2)


def _joined(parts: Sequence[Tensor | list[Picture]]) -> Tensor | list[Picture]:
    pictures = [picture for part in parts if isinstance(part, list) for picture in part]
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if pictures and tensors:
        raise IgosError(
            "images mixes tensors, which are taken as they are, and pictures, which are scaled: give only one"
            " kind"
        )
    if pictures:
        return pictures
    shapes = sorted({tuple(tensor.shape[1:]) for tensor in tensors})
    if len(shapes) > 1:
        raise IgosError(
            f"images has tensors of different shapes ({shapes[0]}, {shapes[1]}): resize them to one size,"
            " or give pictures, which are scaled"
        )
    return torch.cat(tensors)


def _batch(images: Tensor) -> Tensor:
    if images.ndim == 4 and not len(images):
        raise IgosError(f"images is empty, of shape {tuple(images.shape)}: give at least one")
    batch = images.unsqueeze(0) if images.ndim == 3 else images
    if batch.ndim != 4 or not batch.numel():
        raise IgosError(
            f"images must have the shape (N, C, H, W) or (C, H, W), but has {tuple(images.shape)}"
        )
    if min(batch.shape[2:]) < 2:
        raise IgosError(
            f"images has the shape {tuple(images.shape)}, so the images are {batch.shape[2]} x"
            f" {batch.shape[3]} pixels, but must have at least 2 along each side. If the channels come last,"
            f" {_MOVE}"
        )
    if batch.dtype != torch.uint8 and not batch.is_floating_point():
        raise IgosError(f"images is of {images.dtype}, but must be of uint8 or a floating-point type")
    return batch.detach() if batch.dtype == torch.uint8 else batch.detach().float()


_MOVE = "move axis -1 to -3 (torch.movedim, np.moveaxis)"


def channels_last(name: str, shape: Sequence[int]) -> IgosError:
    """The error for a tensor ``(N, H, W, C)``; the message says how to move its channels."""
    return IgosError(
        f"{name} has {counted(shape[3], 'channel')} behind height and width ({shape[1]} x {shape[2]}), but"
        f" they must come first: {_MOVE}"
    )


def check_channels_first(images: Tensor, channels: int | None) -> None:
    """Raise if the last axis has the length of the network's channels, and the channels' axis has not.

    Args:
        images: ``(N, C, H, W)``, or else ``(N, H, W, C)``.
        channels: how many the network takes; None if that is unknown.

    Raises:
        IgosError: saying how to move the channels.
    """
    if channels == images.shape[3] != images.shape[1]:
        raise channels_last("images", images.shape)


def _read(path: Path) -> Picture:
    if path.is_dir():
        raise IgosError(
            f"{path} is a folder: give a pattern such as {path / '*.jpg'}. Large folders are for igos-pl"
            " predict, which reads one batch at a time"
        )
    try:
        return Picture(read_image(path), str(path))
    except IgosError as error:
        raise IgosError(f"{path}: {error}") from error


def check_one_for_each(what: str, given: int, images: int, one_for_all: bool = True) -> None:
    """Raise unless something is given for each image.

    Args:
        what: the name of one.
        given: how many there are.
        images: the number of images.
        one_for_all: whether one for all images is allowed, too.

    Raises:
        IgosError: naming both numbers.
    """
    if given != images:
        raise IgosError(
            f"There {is_or_are(given)} {counted(given, what)} for {counted(images, 'image')}: give one for"
            f" each{', or one for all' if one_for_all else ''}"
        )


def as_inputs(images: Tensor | list[Picture], network: ExplainableNetwork, normalized: bool) -> Inputs:
    """Turn images into a network's input, before it is normalised.

    Args:
        images: see `gathered`.
        network: its preprocessing scales pictures.
        normalized: whether tensors are already normalised by the network's mean and std.

    Raises:
        IgosError: if the channels do not fit, or values lie outside of [0, 1] and are not normalised, or are
            not finite, or have 8 bits although they are normalised.
    """
    size = network.input_size
    if isinstance(images, Tensor):
        size = (images.shape[-2], images.shape[-1])
        check_channels_first(images, network.channels)
        if images.shape[1] != network.channels:
            raise IgosError(
                f"images has {counted(images.shape[1], 'channel')}, but {network.name} takes"
                f" {network.channels} (as many as its mean has values)"
            )
    to_input = NetworkInput(
        network.preprocessing, size, network.mean, network.std, normalized, network.is_normalizing
    )
    given: list[Any] = (
        list(images.cpu()) if isinstance(images, Tensor) else [picture.image for picture in images]
    )
    # As results hold them: the name of a file may be no text.
    paths = [storable(picture.path) if isinstance(picture, Picture) else "" for picture in images]
    names = [path or f"image {number}" for number, path in enumerate(paths)]
    scaled = [_scaled(to_input, image, name) for image, name in zip(given, names, strict=True)]
    pixels, frames = torch.stack([pixels for pixels, _ in scaled]), [frame for _, frame in scaled]
    originals = [
        displayed(pixels.numpy()) if isinstance(image, Tensor) else np.asarray(image)
        for image, (pixels, _) in zip(given, scaled, strict=True)
    ]
    if len(set(names)) < len(names):  # the same path was given twice
        names = [f"{number} {name}" for number, name in enumerate(names)]
    records = [ImageRecord(name, path, frame) for name, path, frame in zip(names, paths, frames, strict=True)]
    return Inputs(pixels, records, originals)


def _scaled(to_input: NetworkInput, image: Image.Image | Tensor, name: str) -> tuple[Tensor, Frame]:
    try:
        return to_input(image)
    except IgosError as error:
        raise IgosError(f"{name}: {error}") from error
