"""Pictures to look at: the image, its saliency over it, and its curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from igos_pl.data.explanation import Explanation
from igos_pl.data.geometry import Frame
from igos_pl.data.images import read_image

# Perceptually uniform, and dark where nothing matters.
_COLORS = colormaps["inferno"]
_OPACITY = 0.6
_LONGEST_SIDE = 800


def write_overlay(explanation: Explanation, path: Path, image: Image.Image | None = None) -> None:
    """Draw an explanation next to its image and save it.

    The saliency is stretched to its own range, so that the colours show the order of the cells.

    Args:
        explanation: what is drawn.
        path: of the PNG.
        image: the original. By default, it is read again from where it was read.

    Raises:
        IgosError: if the image cannot be read any more.
    """
    image = image or read_image(Path(explanation.image["path"]))
    saliency = explanation.saliency_on_original()
    step = max(1, max(image.size) // _LONGEST_SIDE)
    pixels, heat = np.asarray(image)[::step, ::step] / 255, saliency[::step, ::step]
    low, high = float(heat.min()), float(heat.max())
    heat = (heat - low) / max(high - low, 1e-6)
    overlay = (1 - _OPACITY) * pixels + _OPACITY * _COLORS(heat)[..., :3]

    figure = Figure(figsize=(13, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    for axes, picture, title in ((left, pixels, "image"), (middle, overlay, "saliency")):
        axes.imshow(picture)
        axes.set_title(title)
        axes.set_axis_off()
        if not np.isnan(explanation.box).any():
            x1, y1, x2, y2 = np.asarray(explanation.box) / step
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="cyan", linewidth=2))
    _draw_curves(right, explanation)
    cell = f", start in cell {explanation.start_cell}" if explanation.start_cell >= 0 else ""
    figure.suptitle(
        f"{explanation.sample_id}: {explanation.label_name} ({explanation.score:.2f})"
        f"   {explanation.attributes.get('method', '')}, {explanation.attributes.get('optimizer', '')}{cell}",
        parse_math=False,  # names may hold dollars
    )
    figure.savefig(path, dpi=80, format="png")


def input_on_original(pixels: NDArray[Any], frame: Frame) -> Image.Image:
    """What the network saw of an image, at its place in the original; white around it.

    It stands for an original that is not kept in a file.

    Args:
        pixels: ``(C, H, W)``: uint8, or float in which 1 stands for 255. The mean is shown if C is not 3.
        frame: where they lie in the original.
    """
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255).clip(0, 255).round().astype(np.uint8)
    if len(pixels) != 3:
        pixels = np.repeat(pixels.mean(0, keepdims=True), 3, 0).astype(np.uint8)
    left, top, right, bottom = map(round, frame.box)
    size = (max(1, right - left), max(1, bottom - top))
    whole = Image.new("RGB", (frame.width, frame.height), "white")
    whole.paste(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).resize(size), (left, top))
    return whole


def _draw_curves(axes, explanation: Explanation) -> None:  # type: ignore[no-untyped-def]
    """Deletion and insertion, or nothing where they were not computed."""
    if np.isnan(explanation.deletion):
        axes.set_axis_off()
        return
    for name, color in (("deletion", _COLORS(0.35)), ("insertion", _COLORS(0.75))):
        curve = getattr(explanation, f"{name}_curve")
        fractions = np.linspace(0, 1, len(curve))
        axes.plot(fractions, curve, color=color, label=f"{name} {getattr(explanation, name):.3f}")
    axes.set(xlabel="fraction of the curve's cells", ylabel="score", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="best")
