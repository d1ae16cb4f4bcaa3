"""Makes a report's pictures: of each image a large one and its baseline, of each explanation a thumbnail."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from igos_pl.data.geometry import Frame, has_few_cells
from igos_pl.data.images import decode_image, file_content
from igos_pl.data.overlay import SMALLEST_RANGE, overlaid
from igos_pl.errors import IgosError
from igos_pl.report.colors import colored
from igos_pl.store.files import cannot_write

LARGE, THUMBNAIL = 448, 176  # the longer sides, in pixels
_BASELINE = 64  # the longer side of a baseline; it is blurred, so that few pixels show it
_QUALITY, _EFFORT = 78, 2  # of WebP
_BOX = (0, 255, 255)
_FARTHEST = 8  # a frame that is so many times larger than its image is not drawn

# How a picture came about.
OK, KEPT, MISSING, CHANGED, NO_FILE = "ok", "kept", "missing", "changed", "no file"


@dataclass(frozen=True)
class Drawing:
    """An explanation to draw.

    Attributes:
        name: of its thumbnail.
        saliency: ``(s, s)`` in [0, 1], high = important.
        largest: its largest saliency, see `igos_pl.data.geometry.Frame.largest_on_original`.
        box: x1 y1 x2 y2 in pixels of the original; NaN for classifiers.
    """

    name: str
    saliency: NDArray[np.float32]
    largest: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Subject:
    """An image with the explanations to draw on it.

    Attributes:
        name: of its large picture.
        paths: where the image may be, the likeliest place first.
        frame: where the network's input lies in it.
        drawings: its explanations.
        digest: of the file from which an earlier report made the large picture; empty if there is none.
    """

    name: str
    paths: tuple[str, ...]
    frame: Frame
    drawings: tuple[Drawing, ...]
    digest: str = ""


@dataclass(frozen=True)
class Style:
    """What all pictures of a report share.

    Attributes:
        folder: of the report.
        baseline: the kind of baseline.
        blurs: the size and the sigma of the blur's kernel, by the network's input size.
    """

    folder: Path
    baseline: str
    blurs: dict[tuple[int, int], tuple[int, float]]


@dataclass(frozen=True)
class Picture:
    """What became of a subject.

    Attributes:
        name: of its large picture.
        state: ``ok``; ``kept`` (the image is gone or has changed, the picture of an earlier report is
            shown); ``missing``, ``changed`` or ``no file`` (no picture).
        note: why it is not ok.
        digest: of the file that the large picture was made from.
        baseline: a WebP of the baseline, as base64; empty without a picture.
        seconds: the time of the file's last change, since 1970; 0 if there is no file.
    """

    name: str
    state: str
    note: str = ""
    digest: str = ""
    baseline: str = ""
    seconds: float = 0.0


def picture_path(folder: Path, name: str) -> Path:
    """Where the large picture of a name lies."""
    return folder / "pictures" / name[:2] / f"{name}.webp"


def thumbnail_path(folder: Path, name: str) -> Path:
    """Where the thumbnail of a name lies."""
    return folder / "thumbnails" / name[:2] / f"{name}.webp"


def make_picture(subject: Subject, style: Style) -> Picture:
    """Write the pictures of an image. The folders must exist.

    Raises:
        IgosError: if they cannot be written.
    """
    try:
        picture, large = _large(subject, style)
        for drawing in subject.drawings:
            thumbnail = _thumbnail(large, subject.frame, drawing)
            _save(thumbnail, thumbnail_path(style.folder, drawing.name))
    except OSError as error:  # reading catches its own
        raise cannot_write(style.folder, error) from error
    return picture


def _large(subject: Subject, style: Style) -> tuple[Picture, Image.Image | None]:
    """The large picture: of the file, or else of an earlier report."""
    path = picture_path(style.folder, subject.name)
    found = _read(subject, path.exists())
    if found.image is not None:
        large, state, digest = _scaled(found.image, LARGE), OK, found.digest
        _save(large, path)
    else:
        try:
            with Image.open(path, formats=("WEBP",)) as earlier:
                large, state, digest = earlier.convert("RGB"), KEPT, subject.digest
        except OSError:
            return Picture(subject.name, found.state, found.note, subject.digest), None
        found = replace(found, note=f"{found.note}; this picture is of an earlier report")
    baseline = _baseline(large, subject.frame, style)
    return Picture(subject.name, state, found.note, digest, baseline, found.seconds), large


@dataclass(frozen=True)
class _Found:
    """An image's file, or why it is not used."""

    image: Image.Image | None
    state: str
    note: str = ""
    digest: str = ""
    seconds: float = 0.0


def _read(subject: Subject, has_picture: bool) -> _Found:
    """Read an image from the first place where there is a file.

    Args:
        subject: the image.
        has_picture: whether an earlier report made a picture of it.
    """
    found = _Found(None, NO_FILE, "the image has no file")
    for place in filter(None, subject.paths):
        try:
            content = file_content(Path(place))
            seconds = Path(place).stat().st_mtime
        except (
            OSError,
            ValueError,
        ) as error:  # ValueError: an impossible path
            found = _Found(None, MISSING, f"the image {error}")
            continue
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        if has_picture and subject.digest and digest != subject.digest:
            return _Found(None, CHANGED, "the image's file has changed since an earlier report")
        try:
            image = decode_image(content)
        except IgosError as error:
            return _Found(None, CHANGED, f"the image's file has changed since the run: {error}")
        explained = (subject.frame.width, subject.frame.height)
        if image.size != explained:
            sizes = [f"{width} x {height}" for width, height in (image.size, explained)]
            words = f"it has {sizes[0]} pixels, the explained one had {sizes[1]}"
            return _Found(None, CHANGED, f"the image's file has changed since the run: {words}")
        return _Found(image, OK, "", digest, seconds)
    return found


def _scaled(image: Image.Image, longest: int) -> Image.Image:
    """The image with at most so many pixels along its longer side, and at least one along the other."""
    factor = min(1.0, longest / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3)


def _save(image: Image.Image, path: Path) -> None:
    image.save(path, "WEBP", quality=_QUALITY, method=_EFFORT)


def _place(frame: Frame, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The frame in pixels of a picture of the whole image."""
    across, down = size[0] / max(1, frame.width), size[1] / max(1, frame.height)
    x1, y1, x2, y2 = frame.box
    return x1 * across, y1 * down, x2 * across, y2 * down


def saliency_on_picture(
    saliency: NDArray[np.float32], frame: Frame, size: tuple[int, int]
) -> NDArray[np.float32]:
    """The saliency of every pixel of a picture of the whole image; 0 outside of the frame.

    It is bilinear, and the corners of the mask and of the frame agree, as in the optimisation. Few cells have
    sharp borders, see `igos_pl.data.geometry.has_few_cells`.

    Args:
        saliency: ``(s, s)``.
        frame: where the network's input lies in the original.
        size: width and height of the picture.

    Returns:
        ``(height, width)``.
    """
    whole = Image.new("F", size)
    left, top, right, bottom = _place(frame, size)
    across, down = right - left, bottom - top
    if 0 < across <= _FARTHEST * size[0] and 0 < down <= _FARTHEST * size[1]:
        s = len(saliency)
        if has_few_cells(s):
            return Frame(*size, (left, top, right, bottom), frame.input_size).cells_on_original(saliency)
        ends = (0.5, 0.5, s - 0.5, s - 0.5) if s > 1 else (0.0, 0.0, 1.0, 1.0)
        extent = (max(1, round(across)), max(1, round(down)))
        inside = Image.fromarray(saliency).resize(extent, Image.Resampling.BILINEAR, ends)
        whole.paste(inside, (round(left), round(top)))
    return np.asarray(whole)


def _thumbnail(large: Image.Image | None, frame: Frame, drawing: Drawing) -> Image.Image:
    """The explanation over its image; without an image, the saliency alone."""
    top = max(drawing.largest, SMALLEST_RANGE)
    if large is None:
        longest = max(1, frame.width, frame.height)
        shape = (max(1, frame.width), max(1, frame.height))
        size = tuple(max(1, round(side * THUMBNAIL / longest)) for side in shape)
        drawn = colored(saliency_on_picture(drawing.saliency, frame, (size[0], size[1])), top)
    else:
        picture = _scaled(large, THUMBNAIL)
        saliency = saliency_on_picture(drawing.saliency, frame, picture.size)
        pixels, colors = (np.asarray(part, np.float32) / 255 for part in (picture, colored(saliency, top)))
        share = (saliency / np.float32(top)).clip(0, 1)
        drawn = (overlaid(pixels, colors, share) * 255).round().astype(np.uint8)
    blended = Image.fromarray(drawn)
    if all(map(math.isfinite, drawing.box)):
        across, down = blended.width / max(1, frame.width), blended.height / max(1, frame.height)
        x1, y1, x2, y2 = drawing.box
        corners = (x1 * across, y1 * down, max(x1, x2) * across - 1, max(y1, y2) * down - 1)
        corners = (*corners[:2], max(corners[0], corners[2]), max(corners[1], corners[3]))
        ImageDraw.Draw(blended).rectangle(corners, outline=_BOX, width=2)
    return blended


def _baseline(large: Image.Image, frame: Frame, style: Style) -> str:
    """What takes the place of removed cells, at a size that shows it."""
    height, width = frame.input_size
    factor = min(1.0, _BASELINE / max(1, height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if style.baseline == "black":
        image = Image.new("RGB", (1, 1))
    elif style.baseline == "noise":
        noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
        image = Image.fromarray(noise)
    else:
        left, top, right, bottom = _place(frame, large.size)
        # Beyond the image, the input is padded: the baseline is drawn only on the image.
        seen = (max(0.0, left), max(0.0, top), min(right, large.width), min(bottom, large.height))
        if seen[2] - seen[0] < 1 or seen[3] - seen[1] < 1:
            seen = (0, 0, *large.size)
        image = large.resize(size, Image.Resampling.BILINEAR, seen)
        pixels = np.asarray(image, np.float64)
        if style.baseline == "mean":
            image = Image.fromarray(pixels.mean((0, 1), keepdims=True).round().astype(np.uint8))
        else:
            kernel, sigma = style.blurs[frame.input_size]
            rows, columns = (
                _blur(length, cells, kernel, sigma) for length, cells in ((height, size[1]), (width, size[0]))
            )
            blurred = np.einsum("ij,jkc,lk->ilc", rows, pixels, columns, optimize=True)
            image = Image.fromarray(blurred.round().clip(0, 255).astype(np.uint8))
    file = BytesIO()
    image.save(file, "WEBP", quality=80, method=_EFFORT)
    return base64.b64encode(file.getvalue()).decode()


@lru_cache(64)
def _blur(length: int, cells: int, kernel: int, sigma: float) -> NDArray[np.float64]:
    """One direction of the blur of `igos_pl.solver.baselines.gaussian_blur`, on an input that is scaled down.

    Args:
        length: of the network's input, in pixels.
        cells: to which it is scaled.
        kernel: in pixels of the input.
        sigma: in pixels of the input.

    Returns:
        ``(cells, cells)``: the weights of all cells in each blurred cell.
    """
    offsets = np.arange(kernel) - kernel // 2
    weights = np.exp(-0.5 * np.square(offsets / sigma))
    centers = ((np.arange(cells) + 0.5) * length / cells - 0.5).round().astype(np.int64)
    pixels = np.abs(centers[:, None] + offsets)  # mirrored at the borders
    pixels = np.where(pixels >= length, 2 * (length - 1) - pixels, pixels).clip(0, length - 1)
    matrix = np.zeros((cells, cells))
    rows = np.broadcast_to(np.arange(cells)[:, None], pixels.shape)
    shares = np.broadcast_to(weights / weights.sum(), pixels.shape)
    np.add.at(matrix, (rows, pixels * cells // length), shares)
    return matrix
