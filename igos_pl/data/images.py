"""Pictures on disk: finding them, reading them, and scaling them to the network's input."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from igos_pl.data.geometry import Frame
from igos_pl.errors import IgosError


def find_images(root: Path) -> list[Path]:
    """All pictures under a folder, recursively, as sorted relative paths. Hidden files are left out.

    The file's ending says what is a picture. Pictures that cannot be read are found when they are read.

    Raises:
        IgosError: if the folder does not exist, is a file, or has no picture in it.
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


def to_input(image: Image.Image, frame: Frame) -> NDArray[np.uint8]:
    """Scale a picture's frame to the network's input, with antialiasing.

    Returns:
        ``(3, H, W)`` uint8.
    """
    height, width = frame.input_size
    scaled = image.resize((width, height), Image.Resampling.BILINEAR, box=frame.box)
    return np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1))
