"""Draws explanations: the image, its saliency over it, and the curves."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from igos_pl.data.explanation import Explanation
from igos_pl.data.geometry import Frame
from igos_pl.data.images import displayed, read_image
from igos_pl.data.text import printable, shortened
from igos_pl.errors import IgosError

# Perceptually uniform, and dark where nothing matters.
_COLORS = colormaps["inferno"]
_OPACITY = 0.6
_LONGEST_SIDE = 800

# The colours span at least this range of saliency, so that a mask without content looks empty.
_SMALLEST_RANGE = 0.1

# The layout, in inches. Image and saliency have the same size; they lie side by side unless they are wide.
_HEIGHT, _WIDTH, _WIDE = 3.4, 5.6, 1.8
_NARROWEST = 0.9
_CURVES = (3.6, 2.6)  # width, and the least height
_TOP, _LEFT, _GAP, _BELOW, _BAR = 0.85, 0.15, 0.3, 0.7, 0.12
_AXIS = 0.7  # the labels of the curves' and of the colour bar's axes
_LETTERS = 10  # letters of the title in an inch


def write_overlay(
    explanation: Explanation,
    path: Path,
    metadata: Mapping[str, str] | None = None,
    image: Image.Image | None = None,
) -> None:
    """Draw an explanation next to its image and save it.

    Args:
        explanation: the explanation to draw.
        path: the PNG file to write.
        metadata: texts for the PNG's metadata, by keyword.
        image: the upright original; by default, its file is read again.

    Raises:
        IgosError: if the image's file cannot be read any more, or has another size now.
    """
    figure = figure_of(explanation, image or read_image(Path(explanation.image["path"])))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the name is in the file's name, too
        figure.savefig(path, dpi=90, format="png", metadata=dict(metadata or {}))


def input_on_original(pixels: NDArray[Any], frame: Frame) -> Image.Image:
    """The network's input at its place in the original, with white around it.

    It replaces an original that is not in a file.

    Args:
        pixels: see `igos_pl.data.images.displayed`.
        frame: where the input lies in the original.
    """
    left, top, right, bottom = map(round, frame.box)
    size = (max(1, right - left), max(1, bottom - top))
    whole = Image.new("RGB", (frame.width, frame.height), "white")
    whole.paste(Image.fromarray(displayed(pixels)).resize(size), (left, top))
    return whole


def figure_of(explanation: Explanation, image: Image.Image | NDArray[np.uint8]) -> Figure:
    """The image, its saliency over it with a colour bar, and the deletion and insertion curves.

    The colours span the saliency's own range, so that they show the order of the cells. The colour bar gives
    the values. The colours span at least a range of 0.1, so that a mask with hardly any content looks empty.

    Args:
        explanation: the explanation to draw.
        image: the upright original, RGB or grey: a picture or an array ``(height, width)`` or ``(height,
            width, 3)`` from 0 to 255.

    Raises:
        IgosError: if the image does not have the size of the one that was explained.
    """
    saliency = explanation.saliency_on_original()
    pixels = np.asarray(image)
    if pixels.shape[:2] != saliency.shape:
        raise IgosError(
            f"The image of {explanation.sample_id} has {pixels.shape[1]} x {pixels.shape[0]} pixels, but"
            f" the explained one had {saliency.shape[1]} x {saliency.shape[0]}"
        )
    step = max(1, max(saliency.shape) // _LONGEST_SIDE)
    pixels, heat = pixels[::step, ::step] / 255, saliency[::step, ::step]
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    low, high = float(heat.min()), float(heat.max())
    colors = ScalarMappable(Normalize(low, max(high, low + _SMALLEST_RANGE)), _COLORS)
    overlay = (1 - _OPACITY) * pixels + _OPACITY * colors.to_rgba(heat)[..., :3]

    figure, (left, middle, bar, right) = _layout(saliency.shape[1] / saliency.shape[0])
    for axes, picture, title in ((left, pixels, "image"), (middle, overlay, "saliency")):
        axes.imshow(picture)
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
        if not np.isnan(explanation.box).any():
            x1, y1, x2, y2 = np.asarray(explanation.box) / step
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="cyan", linewidth=2))
    figure.colorbar(colors, cax=bar)
    _draw_curves(right, explanation)
    _write_title(figure, explanation)
    return figure


def _layout(aspect: float) -> tuple[Figure, tuple[Axes, Axes, Axes, Axes]]:
    """A figure with axes for image, saliency, colour bar and curves.

    Args:
        aspect: width / height of the image.
    """
    wide = aspect > _WIDE  # then the saliency is below the image
    if wide:
        width, height = _WIDTH, max(0.2, _WIDTH / aspect)
        pictures = 2 * height + _GAP
    else:
        width, height = max(_NARROWEST, _HEIGHT * aspect), _HEIGHT
        pictures = height
    body = max(pictures, _CURVES[1])
    across = width if wide else 2 * width + _GAP
    bar_at = _LEFT + across + 0.1
    curves_at = bar_at + _BAR + 2 * _AXIS
    total = (curves_at + _CURVES[0] + _GAP, _TOP + body + _BELOW)
    figure = Figure(figsize=total)
    FigureCanvasAgg(figure)

    def axes(x: float, y: float, w: float, h: float) -> Axes:
        """Axes whose upper left corner is (x, y) from the figure's, in inches."""
        added: Axes = figure.add_axes((x / total[0], 1 - (y + h) / total[1], w / total[0], h / total[1]))
        return added

    left = axes(_LEFT, _TOP, width, height)
    x, y = (_LEFT, _TOP + height + _GAP) if wide else (_LEFT + width + _GAP, _TOP)
    middle = axes(x, y, width, height)
    bar = axes(bar_at, y, _BAR, height)
    return figure, (left, middle, bar, axes(curves_at, _TOP, _CURVES[0], body))


def _write_title(figure: Figure, explanation: Explanation) -> None:
    """Write the image's name, the label, the score, the method and the preset."""
    width, height = figure.get_size_inches()
    settings: Mapping[str, Any] = explanation.attributes
    method = [str(settings[name]) for name in ("method", "optimizer") if name in settings]
    preset = [f"preset {settings['preset']}"] if settings.get("preset") else []
    cell = [f"start in cell {explanation.start_cell}"] if explanation.start_cell >= 0 else []
    room = int(_LETTERS * width / 2) - 8
    name, label = (
        shortened(printable(str(text)), room) for text in (explanation.sample_id, explanation.label_name)
    )
    for text, down, size, color in (
        (f"{name}: {label}, score {explanation.score:.2f}", 0.25, 12, "black"),
        (", ".join([*method, *preset, *cell]), 0.5, 9, "dimgrey"),
    ):
        figure.text(
            _LEFT / width,
            1 - down / height,
            text,
            fontsize=size,
            color=color,
            verticalalignment="center",
            parse_math=False,  # names may contain dollar signs
        )


def _draw_curves(axes: Axes, explanation: Explanation) -> None:
    """Draw the deletion and insertion curves, or nothing if they were not computed."""
    if np.isnan(explanation.deletion):
        axes.set_axis_off()
        return
    for name, good, color in (("deletion", "low", _COLORS(0.35)), ("insertion", "high", _COLORS(0.75))):
        curve = getattr(explanation, f"{name}_curve")
        area = getattr(explanation, name)
        label = f"{name}: area {area:.2f} ({good} is good)"
        axes.plot(np.linspace(0, 1, len(curve)), curve, color=color, label=label)
    detected = not np.isnan(explanation.box).any()
    whole = "1 = three times the object's area" if detected else "1 = the whole image"
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set_xlabel(f"deleted or inserted part, most important first\n({whole})", fontsize=9)
    axes.set_ylabel("score", fontsize=9)
    axes.legend(loc="best", fontsize=8)
