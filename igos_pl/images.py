"""Pictures on disk: finding them, reading them, and where the network's input lies in them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from igos_pl.checks import check_choice
from igos_pl.errors import IgosError

RESIZE_MODES = ("squash", "crop")

# The usual ImageNet evaluation resizes the shorter side to 256 and crops 224 x 224.
_CROP_FRACTION = 0.875


def find_images(root: Path) -> list[Path]:
    """All pictures under a folder, recursively, as sorted relative paths. Hidden files are left out.

    What a picture is goes by the file's ending; unreadable ones are found when they are read.

    Raises:
        IgosError: if the folder is missing, is none, or has no picture in it.
    """
    if not root.exists():
        raise IgosError(f"There is no folder {root}: name the one with the images by --data.root")
    if not root.is_dir():
        raise IgosError(f"{root} is a file: name the folder that it lies in by --data.root")
    endings = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    files = [path for path in _files(root) if path.suffix.lower() in endings - {".pdf", ".mpg", ".mpeg"}]
    if not files:
        count = sum(1 for _ in _files(root))
        found = f"{count} other files" if count else "nothing"
        raise IgosError(
            f"No image in {root} or the folders below it, but {found} (PNG, JPEG, TIFF, ... count)"
        )
    return sorted((path.relative_to(root) for path in files), key=lambda path: path.as_posix())


def _files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if not hidden and path.is_file():
            yield path


def read_image(path: Path) -> Image.Image:
    """Read a picture as upright 8-bit RGB.

    Turns it as its EXIF tag says; puts transparent pictures on white; takes the upper eight bits of 16-bit
    greys. Of animations and stacks, the first frame.

    Raises:
        IgosError: saying why it cannot be read (no image, cut off, empty, too large, ...).
    """
    try:
        if path.stat().st_size == 0:
            raise IgosError("the file is empty (0 bytes)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large is fine
            with Image.open(path) as image:
                image.load()
                return _as_rgb(ImageOps.exif_transpose(image))
    except IgosError:
        raise
    except UnidentifiedImageError as error:
        raise IgosError("no image, or of a kind that Pillow does not know") from error
    except Image.DecompressionBombError as error:
        raise IgosError(f"too many pixels: {error}") from error
    except MemoryError as error:
        raise IgosError("too large for the memory") from error
    except OSError as error:  # with a number from the system, without one from Pillow's decoders
        reason = f"cannot be opened: {error.strerror}" if error.errno else f"damaged: {error}"
        raise IgosError(reason) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise IgosError(f"damaged: {error}") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise IgosError("floating-point pixels have no agreed range: convert it to 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        high = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip(high >> 8, 0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


class Frame(NamedTuple):
    """The part of the original image that the network sees: x1 y1 x2 y2 in original pixels."""

    x1: float
    y1: float
    x2: float
    y2: float


def frame_of(width: int, height: int, resize: str) -> Frame:
    """Where the network's square input lies in an image of ``width x height`` pixels.

    Args:
        width: of the upright original.
        height: likewise.
        resize: ``squash`` takes all of it, ``crop`` the central square of 7/8 of the shorter side.
    """
    check_choice("resize", resize, RESIZE_MODES)
    if resize == "squash":
        return Frame(0.0, 0.0, float(width), float(height))
    side = min(width, height) * _CROP_FRACTION
    left, top = (width - side) / 2, (height - side) / 2
    return Frame(left, top, left + side, top + side)


def to_input(image: Image.Image, size: int, resize: str) -> NDArray[np.uint8]:
    """Scale a picture's frame to the network's input, with antialiasing.

    Returns:
        ``(3, size, size)`` uint8.
    """
    frame = frame_of(image.width, image.height, resize)
    scaled = image.resize((size, size), Image.Resampling.BILINEAR, box=frame)
    return np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1))
