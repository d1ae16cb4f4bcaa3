"""Pictures on disk: finding them, reading them, and scaling them to the network's input."""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from igos_pl.data.geometry import Frame
from igos_pl.errors import IgosError, UnreadError


def find_images(root: Path) -> list[Path]:
    """All pictures under a folder, recursively, as sorted relative paths. Hidden files are left out.

    Images are recognised by their file extensions. Unreadable images are only detected when they are read.

    Raises:
        IgosError: if the folder does not exist, is a file, or has no picture in it.
    """
    if not root.exists():
        raise IgosError(f"There is no folder {root}: set --data.root to the folder with the images")
    if not root.is_dir():
        raise IgosError(f"{root} is a file: set --data.root to the folder that contains it")
    endings = picture_endings()
    files = list(_files(root))
    images = [path for path in files if path.suffix.lower() in endings]
    if not images:
        found = f"{len(files)} other files" if files else "nothing"
        raise IgosError(
            f"No image in {root} or the folders below it, but {found} (supported: PNG, JPEG, TIFF, ...)"
        )
    left_out = Counter(path.suffix.lower() for path in files if path.suffix.lower() in _UNKNOWN - endings)
    if left_out:
        counts = ", ".join(f"{count} {ending}" for ending, count in sorted(left_out.items()))
        logging.getLogger(__name__).warning(
            "%s: left out files of kinds that cannot be read here: %s", root, counts
        )
    return sorted((path.relative_to(root) for path in images), key=lambda path: path.as_posix())


@cache
def picture_endings() -> frozenset[str]:
    """The endings of file names that pictures have, such as ``.jpg``."""
    known = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    return frozenset(known - {".pdf", ".mpg", ".mpeg"})


# Endings of pictures that Pillow cannot read, or only with a plugin.
_UNKNOWN = {".heic", ".heif", ".svg", ".avif", ".jxl", ".raw", ".cr2", ".nef", ".arw", ".dng", ".dcm", ".nii"}


def _files(root: Path) -> Iterator[Path]:
    """All files below a folder, but hidden ones; through links to folders, each folder once.

    Raises:
        IgosError: if a folder cannot be listed.
    """
    seen = set()
    for name, folders, files in os.walk(root, onerror=_raise_unlisted, followlinks=True):
        state = os.stat(name)
        key = (state.st_dev, state.st_ino)
        if key in seen:
            folders.clear()  # a link leads back to it
            continue
        seen.add(key)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for file in files:
            path = Path(name) / file
            if not file.startswith(".") and path.is_file():
                yield path


def _raise_unlisted(error: OSError) -> None:
    raise IgosError(
        f"Cannot list the folder {error.filename}: {error.strerror}. Otherwise its images would be left out"
        " silently: fix this, or move the folder elsewhere"
    ) from error


def read_image(path: Path) -> Image.Image:
    """Read a picture as upright 8-bit RGB.

    Applies the EXIF orientation, puts transparent images on white, keeps the upper eight bits of 16-bit grey
    values, and takes the first frame of animations and stacks. ``info["note"]`` holds a remark for the user,
    if there is one.

    Raises:
        UnreadError: if the file cannot be read now. It may be readable later.
        IgosError: saying what is wrong with the file's content (no image, cut off, empty, too large, ...).
    """
    try:
        content = path.read_bytes()
    except (OSError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) else "too little memory"
        raise UnreadError(f"cannot be read: {reason or error}") from error
    return decode_image(content)


def decode_image(content: bytes) -> Image.Image:
    """Decode the content of a picture file; see `read_image`.

    Raises:
        UnreadError: if memory is too small.
        IgosError: saying what is wrong with the content.
    """
    if not content:
        raise IgosError("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large is fine
            with Image.open(BytesIO(content)) as image:
                return upright_rgb(image)
    except IgosError:
        raise
    except MemoryError as error:
        raise UnreadError("cannot be decoded: too little memory") from error
    except UnidentifiedImageError as error:
        raise IgosError("no image, or in a format that Pillow does not support") from error
    except Image.DecompressionBombError as error:
        raise IgosError(f"too many pixels: {error}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise IgosError(f"damaged: {error}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as `read_image` returns it.

    Raises:
        IgosError: if its pixels have no standard range.
    """
    image.load()
    return _as_rgb(ImageOps.exif_transpose(image))


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise IgosError("floating-point pixels have no standard range: convert the image to 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        high = np.asarray(image).astype(np.int64)
        dark = 0 < high.max() < 256
        image = Image.fromarray(np.clip(high >> 8, 0, 255).astype(np.uint8))
        if dark:
            image.info["note"] = "16-bit grey values that are all below 256: the image is black"
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")  # keeps the info


def to_input(image: Image.Image, frame: Frame, channels: int = 3) -> NDArray[np.uint8]:
    """Scale a picture's frame to the network's input, with antialiasing.

    Args:
        image: 8-bit RGB.
        frame: of the picture.
        channels: 3, or 1 for grey values.

    Returns:
        ``(C, H, W)`` uint8.

    Raises:
        IgosError: if the network takes another number of channels.
    """
    height, width = frame.input_size
    scaled = image.resize((width, height), Image.Resampling.BILINEAR, box=frame.box)
    return channels_first(scaled, channels)


# Pillow's modes by the number of channels that a network takes.
_MODES = {1: "L", 3: "RGB"}


def channels_first(image: Image.Image, channels: int = 3) -> NDArray[np.uint8]:
    """The pixels of a picture, ``(C, H, W)`` uint8.

    Args:
        image: 8-bit RGB.
        channels: 3, or 1 for grey values.

    Raises:
        IgosError: if the network takes another number of channels.
    """
    if channels not in _MODES:
        raise IgosError(
            f"The network takes {channels} channels, but picture files have 1 or 3: give the images as"
            " tensors"
        )
    pixels = np.atleast_3d(np.array(image.convert(_MODES[channels])))  # a copy, which may be written to
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
