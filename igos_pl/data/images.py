"""Pictures on disk: finding them, reading them, and scaling them to the network's input."""

from __future__ import annotations

import logging
import os
import re
import stat
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from igos_pl.data.geometry import Frame
from igos_pl.data.run_files import holds_written_pictures
from igos_pl.data.text import first_few, printable
from igos_pl.data.wording import counted, is_or_are
from igos_pl.errors import IgosError, UnreadError


def find_images(root: Path, may_be_empty: bool = False) -> list[Path]:
    """All pictures under a folder, recursively, as sorted relative paths.

    Hidden files are left out. The pictures of runs, trainings, reports and exports below the folder are left
    out with a warning.

    Images are recognised by their file extensions. An unreadable image is noticed only when it is read, and
    so is a broken link with the name of a picture. Other broken links are left out with a warning, because
    they may have led to folders of images.

    Args:
        root: the folder.
        may_be_empty: whether a folder without pictures is right.

    Raises:
        IgosError: if the folder does not exist, may not be entered, is a file, or has no picture in it.
    """
    if not os.path.exists(root):
        check_reachable(root)
        raise IgosError(f"There is no folder {root}: set root (--data.root) to the folder with the images")
    if not root.is_dir():
        raise IgosError(f"{root} is a file: set root (--data.root) to the folder that contains it")
    results: list[Path] = []
    broken: list[Path] = []
    files = list(_files(root, results, broken))
    images = [path for path in files if has_picture_ending(path)]
    if broken:
        logging.getLogger(__name__).warning("Left out broken links: %s", _names(broken))
    if not images and not may_be_empty:
        found = counted(len(files), "other file") if files else "no files"
        skipped = f". Pictures that igos-pl wrote are left out: {_names(results)}" if results else ""
        raise IgosError(
            f"No image in {root} or the folders below it: there {is_or_are(len(files))} {found}"
            f" (supported: PNG, JPEG, TIFF, ...){skipped}"
        )
    if results:
        _warn_of(results)
    unknown = _UNKNOWN - picture_endings()
    left_out = Counter(path.suffix.lower() for path in files if path.suffix.lower() in unknown)
    if left_out:
        counts = ", ".join(f"{count} {ending}" for ending, count in sorted(left_out.items()))
        logging.getLogger(__name__).warning(
            "%s: left out files of kinds that cannot be read here: %s", root, counts
        )
    return sorted((path.relative_to(root) for path in images), key=lambda path: path.as_posix())


def without_results(paths: Sequence[Path], root: Path) -> list[Path]:
    """The files and folders that do not lie in results, as for `find_images`; warns of the others.

    Args:
        paths: below the root.
        root: the folder that was searched.
    """
    found: dict[Path, Path | None] = {root: None}

    def results_around(folder: Path) -> Path | None:
        """The folder of results that a folder is, or lies in."""
        if folder not in found:
            around = results_around(folder.parent)
            found[folder] = around or (folder if holds_written_pictures(folder) else None)
        return found[folder]

    kept = [path for path in paths if not results_around(path if os.path.isdir(path) else path.parent)]
    if results := sorted({folder for folder in found.values() if folder}):
        _warn_of(results)
    return kept


def _warn_of(results: Sequence[Path]) -> None:
    logging.getLogger(__name__).warning("Left out pictures that igos-pl wrote: %s", _names(results))


# Endings of pictures that are not read here.
_UNKNOWN = {
    ".heic", ".heif", ".svg", ".avif", ".jxl", ".raw", ".cr2", ".nef", ".arw", ".dng", ".dcm", ".nii",
    ".eps", ".ps", ".pdf", ".wmf", ".emf",
}  # fmt: skip

# Pillow starts another program (Ghostscript) for EPS. It cannot decode the others.
_NOT_READ = frozenset({"EPS", "PDF", "MPEG", "WMF", "BUFR", "GRIB", "HDF5"})


@cache
def _formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, in the order in which they are tried."""
    Image.preinit()  # the usual ones first
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_READ)


@cache
def picture_endings() -> frozenset[str]:
    """The endings of file names that pictures have, such as ``.jpg``."""
    readable = _formats()
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in readable)


def has_picture_ending(path: Path) -> bool:
    """Whether a file's name ends as those of pictures do."""
    return path.suffix.lower() in picture_endings()


def is_picture(path: Path) -> bool:
    """Whether a path that a folder lists has the name of a picture, and is a file or cannot be looked at.

    Broken links and the files of a closed folder cannot be looked at; reading them says why.
    """
    # os.path, because the methods of Path raise some errors of the system, such as a closed folder.
    return has_picture_ending(path) and (os.path.isfile(path) or not os.path.exists(path))


def _is_broken_link(path: Path) -> bool:
    return os.path.islink(path) and not os.path.exists(path)


def _files(root: Path, results: list[Path], broken: list[Path]) -> Iterator[Path]:
    """All files below a folder but hidden ones, and the pictures of results.

    Links to folders are followed; each folder is visited once. A broken link counts as a file if it has the
    name of a picture.

    Args:
        root: the folder.
        results: gets the folders of results, which are not entered.
        broken: gets the other broken links.

    Raises:
        IgosError: if a folder cannot be listed.
    """
    seen = set()
    for name, folders, files in os.walk(root, onerror=_raise_unlisted, followlinks=True):
        try:
            state = os.stat(os.path.join(name, os.curdir))  # raises if the folder may only be listed
        except OSError as error:
            _raise_unlisted(error)
        key = (state.st_dev, state.st_ino)
        if key in seen:
            folders.clear()  # a link leads back to it
            continue
        seen.add(key)
        entered: list[Path] = []
        for folder in sorted(folder for folder in folders if not folder.startswith(".")):
            written = holds_written_pictures(Path(name) / folder)
            (results if written else entered).append(Path(name) / folder)
        folders[:] = [folder.name for folder in entered]
        for file in files:
            path = Path(name) / file
            if file.startswith("."):
                continue
            if os.path.isfile(path):
                yield path
            elif _is_broken_link(path):  # looked at only here, because each look takes time
                if has_picture_ending(path):
                    yield path
                else:
                    broken.append(path)


def _names(paths: Sequence[Path]) -> str:
    """Some paths in words: the first ones, and how many there are if not all are named."""
    shown = first_few([printable(str(path)) for path in paths], most=3)
    return f"{shown} ({len(paths)} in all)" if len(paths) > 3 else shown


def check_reachable(path: Path) -> None:
    """Raise if the way to a path leads through a folder that may not be entered.

    Nothing below it can be found then, and the methods of `Path` raise an error without advice.

    Raises:
        IgosError: naming the folder.
        OSError: if the system has another reason, such as a name that is too long.
    """
    try:
        os.stat(path)
    except PermissionError as error:
        closed = next((each for each in reversed(path.parents) if not os.access(each, os.X_OK)), path.parent)
        raise IgosError(
            f"{path} cannot be looked for, because the folder {closed} may not be entered"
            f" ({error.strerror}): allow it (chmod +x), or move the data elsewhere"
        ) from error
    except (FileNotFoundError, NotADirectoryError):
        return  # the caller says what is missing


def _raise_unlisted(error: OSError) -> NoReturn:
    raise IgosError(
        f"Cannot list the folder {Path(error.filename)}: {error.strerror}. Its images would be left out: fix"
        " this, or move the folder elsewhere"
    ) from error


# Kept here, because other libraries replace Image.open by functions that install packages.
open_picture = Image.open

# What is read at most. Reading takes the size of the file and, as tests/test_images.py measures, at most 13
# bytes a pixel for PNG, JPEG and TIFF (2.1 GB), 25 for WebP and JPEG 2000 (4 GB), whose decoders keep copies.
MAX_PIXELS = 160_000_000
MAX_SIDE = 1_000_000
MAX_BYTES = 1 << 30

# How far float values may lie outside of [0, 1]: bicubic scaling overshoots at edges.
OVERSHOOT = 0.25

# If scaling the width first would make more pixels than this, the height is scaled first.
_WIDENED_PIXELS = 1 << 27

# Images are converted in parts of about so many pixels.
_PART_PIXELS = 1 << 20


def read_image(path: Path) -> Image.Image:
    """Read a picture as upright 8-bit RGB.

    Applies the EXIF orientation, puts transparent images on white, keeps the upper eight bits of 16-bit grey
    values, and takes the first frame of animations and stacks. ``info["note"]`` holds a remark for the user,
    if there is one. The memory is bounded, see `MAX_PIXELS`.

    Raises:
        UnreadError: if the file cannot be read now. It may be readable later.
        IgosError: saying what is wrong with the file's content (no image, cut off, empty, too large, ...).
    """
    return decode_image(file_content(path))


def file_content(path: Path) -> bytes:
    """The bytes of a picture file.

    Raises:
        UnreadError: if the file cannot be read now.
        IgosError: if it has too many bytes.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise UnreadError("cannot be read: it is not a file, but a folder, a pipe or a device")
        check_bytes(state.st_size)
        content = path.read_bytes()
    except (OSError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) else "too little memory"
        if _is_broken_link(path):
            reason = f"it is a broken link to {os.readlink(path)}"
        raise UnreadError(f"cannot be read: {reason or error}") from error
    return content


def check_bytes(size: int) -> None:
    """Raise if a picture file has too many bytes.

    Raises:
        IgosError: saying how many are read.
    """
    if size > MAX_BYTES:
        raise IgosError(
            f"the file has {size:,} bytes, but at most {MAX_BYTES:,} are read: compress it, or scale the"
            " image down"
        )


def decode_image(content: bytes) -> Image.Image:
    """Decode the content of a picture file; see `read_image`.

    Raises:
        UnreadError: if there is too little memory.
        IgosError: saying what is wrong with the content.
    """
    if not content:
        raise IgosError("the file is empty (0 bytes)")
    check_bytes(len(content))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large is fine
            with open_picture(BytesIO(content), formats=_formats()) as image:
                _check_header(image)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _as_rgb(image)
    except IgosError:
        raise
    except MemoryError as error:
        raise UnreadError("cannot be decoded: too little memory") from error
    except (UnidentifiedImageError, ImportError) as error:  # a plugin for its format may be missing
        raise IgosError("no image, or in a format that cannot be read here") from error
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        raise too_large(f"{int(count[0]):,} pixels" if count else str(error)) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise IgosError(f"damaged: {error}") from error


def _check_header(image: Image.Image) -> None:
    """Raise if an image cannot be used or would need too much memory, before it is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise too_large(f"{width:,} x {height:,} pixels")
    if image.mode == "F":
        raise IgosError("floating-point pixels have no standard range: convert the image to 8 or 16 bits")


def too_large(size: str) -> IgosError:
    """The error for an image that has too many pixels."""
    return IgosError(
        f"the image has {size}, but at most {MAX_PIXELS:,} are read, and {MAX_SIDE:,} along a side: scale it"
        " down, or cut it into parts"
    )


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as `read_image` returns it.

    Raises:
        IgosError: if its pixels have no standard range.
    """
    _check_header(image)
    image.load()
    return _as_rgb(ImageOps.exif_transpose(image))


def _as_rgb(image: Image.Image) -> Image.Image:
    """A decoded image as RGB. It is converted in parts, so that only one copy of it is made."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    whole = Image.new("RGB", image.size)
    brightest = 0
    rows = max(1, _PART_PIXELS // image.width)
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        if image.mode.startswith("I"):
            deep = np.asarray(part)
            brightest = max(brightest, int(deep.max()))
            part = Image.fromarray(np.clip(deep >> 8, 0, 255).astype(np.uint8))
        elif "A" in image.getbands() or "transparency" in image.info:
            part = part.convert("RGBA")
            part = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part)
        whole.paste(part.convert("RGB"), (0, top))
    if 0 < brightest < 256 and image.mode.startswith("I"):
        whole.info["note"] = "16-bit grey values that are all below 256: the image is black"
    return whole


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
    left, top, right, bottom = frame.box
    if width * (bottom - top) > _WIDENED_PIXELS:
        # Pillow resizes along the width first: a narrow, very high image would become a very large one.
        image = image.resize((image.width, height), Image.Resampling.BILINEAR, (0, top, image.width, bottom))
        top, bottom = 0, height
    scaled = image.resize((width, height), Image.Resampling.BILINEAR, (left, top, right, bottom))
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
    pixels = np.atleast_3d(np.array(image.convert(_MODES[channels])))  # a writable copy
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def displayed(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """A network's input as a picture to look at, ``(H, W, 3)``.

    Args:
        pixels: ``(C, H, W)``: uint8, or float in which 1 stands for 255. The mean is shown if C is not 3. If
            float values lie far outside of [0, 1], as normalised ones do, all are stretched into it.
    """
    shares = pixels / 255 if pixels.dtype == np.uint8 else pixels
    if len(shares) != 3:
        shares = np.repeat(shares.mean(0, keepdims=True), 3, 0)
    low, high = float(shares.min()), float(shares.max())
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        shares = (shares - low) / max(high - low, 1e-12)
    return np.ascontiguousarray((shares.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0))
