"""Pictures to look at: the image, its saliency over it, and its curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from igos_pl.data.explanation import Explanation
from igos_pl.data.images import read_image

# Perceptually uniform, and dark where nothing matters.
_COLORS = colormaps["inferno"]
_OPACITY = 0.6
_LONGEST_SIDE = 800


def write_overlay(explanation: Explanation, path: Path) -> None:
    """Draw an explanation next to its image and save it.

    Args:
        explanation: of an image that is still where it was read.
        path: of the PNG.

    Raises:
        IgosError: if the image cannot be read any more.
    """
    figure = figure_of(explanation, read_image(Path(explanation.image["path"])))
    figure.savefig(path, dpi=80, format="png")


def figure_of(explanation: Explanation, image: Image.Image | NDArray[np.uint8]) -> Figure:
    """The image, its saliency over it, and the deletion and insertion curves.

    The saliency is stretched to its own range, so that the colours show the order of the cells.

    Args:
        explanation: what is drawn.
        image: the upright original, RGB: a picture or an array ``(height, width, 3)`` from 0 to 255.
    """
    saliency = explanation.saliency_on_original()
    step = max(1, max(saliency.shape) // _LONGEST_SIDE)
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
    return figure


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
