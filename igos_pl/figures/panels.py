"""The parts of a figure: an image, its saliency in several forms, and the curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from igos_pl.data.overlay import SMALLEST_RANGE, overlaid
from igos_pl.figures.lettering import SMALL
from igos_pl.figures.order import first_taken
from igos_pl.figures.subjects import Subject

# The panels of each style.
STYLES = {
    "curves": ("image", "overlay", "curves"),
    "pair": ("image", "overlay"),
    "overlay": ("overlay",),
    "heatmap": ("heatmap",),
    "contours": ("contours",),
    "masked": ("masked",),
}
WITHOUT_IMAGE = ("heatmap",)
WITHOUT_COLORS = ("masked",)

# Perceptually uniform, and dark where nothing matters.
COLORS = colormaps["inferno"]

_LEAST_ROOM = 2.0  # points around the centre of a number; it may cover the border a little
_LEVELS = (0.25, 0.5, 0.75)  # of contours, as shares of the range of colours


@dataclass(frozen=True)
class Look:
    """What the panels of a figure share.

    Attributes:
        colors: from saliency to colours.
        largest: the saliency of the brightest colour.
        fraction: of the cells that a masked image shows.
    """

    colors: ScalarMappable
    largest: float
    fraction: float

    @classmethod
    def of(cls, largest: float, fraction: float = 0) -> Look:
        """Colours from 0 to the largest saliency that is drawn."""
        brightest = max(largest, SMALLEST_RANGE)
        return cls(ScalarMappable(Normalize(0, brightest), COLORS), brightest, fraction)

    def rgb(self, saliency: NDArray[np.float32]) -> NDArray[np.float64]:
        """The colours of some saliency, with a last dimension of 3."""
        return np.asarray(self.colors.to_rgba(saliency)[..., :3], np.float64)

    def share(self, saliency: NDArray[np.float32]) -> NDArray[np.float64]:
        """Saliency as a share of the range of colours, in [0, 1]."""
        return np.asarray(saliency / self.largest, np.float64).clip(0, 1)

    @property
    def levels(self) -> list[float]:
        """The saliencies at which contours are drawn."""
        return [level * self.largest for level in _LEVELS]


def _image(axes: Axes, subject: Subject, look: Look) -> None:
    _show(axes, subject, subject.pixels)


def overlay_pixels(subject: Subject, look: Look) -> NDArray[np.float64]:
    """The saliency in colour over the image in grey, ``(height, width, 3)`` in [0, 1]."""
    saliency = subject.saliency
    return np.asarray(overlaid(subject.pixels, look.rgb(saliency), look.share(saliency)), np.float64)


def _overlay(axes: Axes, subject: Subject, look: Look) -> None:
    _show(axes, subject, overlay_pixels(subject, look))
    # The order of a search is written where it belongs, on its first cells, if they have room for a number.
    frame = subject.frame
    longer = max(axes.bbox.size) / axes.figure.dpi * 72  # points
    for mark in first_taken(subject.explanation, frame):
        if mark.room * longer >= _LEAST_ROOM:
            axes.text(
                mark.x * frame.width - 0.5, mark.y * frame.height - 0.5, str(mark.number), color="white",
                fontsize=SMALL, ha="center", va="center_baseline",
                path_effects=[withStroke(linewidth=1.5, foreground="black")],
            )  # fmt: skip


def _heatmap(axes: Axes, subject: Subject, look: Look) -> None:
    _show(axes, subject, look.rgb(subject.saliency))


def _contours(axes: Axes, subject: Subject, look: Look) -> None:
    _show(axes, subject, subject.pixels)
    levels = [level for level in look.levels if level < subject.saliency.max()]
    if levels and min(subject.saliency.shape) > 1:
        colors = look.rgb(np.array(levels, np.float32)).tolist()
        # Below each line a wider one of the other brightness, so that it can be seen on any image.
        below = ["white" if sum(color) < 1.5 else "black" for color in colors]
        axes.contour(subject.saliency, levels, colors=below, linewidths=1.8)
        axes.contour(subject.saliency, levels, colors=colors, linewidths=1.0)


def _masked(axes: Axes, subject: Subject, look: Look) -> None:
    _show(axes, subject, subject.revealed(look.fraction))


def _show(axes: Axes, subject: Subject, pixels: NDArray[np.float64]) -> None:
    """Draw an image, and the frame of the object that was detected in it."""
    axes.imshow(pixels.clip(0, 1))
    axes.set_axis_off()
    if subject.box is None:
        return
    x1, y1, x2, y2 = subject.box - 0.5  # the centre of the first pixel is at 0
    for color, width in (("black", 2.0), ("cyan", 1.0)):
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=width))


def _curves(axes: Axes, subject: Subject, look: Look) -> None:
    """The deletion and insertion curves, or nothing if they were not computed."""
    explanation = subject.explanation
    if np.isnan(explanation.deletion):
        axes.set_axis_off()
        return
    for name, good, color, above in (
        ("insertion", "high", COLORS(0.75), 12),
        ("deletion", "low", COLORS(0.35), 3),
    ):
        curve = getattr(explanation, f"{name}_curve")
        share = np.linspace(0, 1, len(curve))
        axes.plot(share, curve, color=color)
        # Only some points are measured; straight lines join them.
        measured = np.flatnonzero(explanation.values.get(f"{name}_measured", 0))
        axes.plot(share[measured], curve[measured], ".", color=color, markersize=3)
        about = f"{name}: area {getattr(explanation, name):.2f} ({good} is good)"
        axes.annotate(
            about, (0, 1), (0, above), "axes fraction", "offset points", color=color, fontsize=SMALL
        )
    whole = "the whole image" if subject.box is None else "3 x the object's area"
    about = f"part deleted or inserted,\nmost important first (1 = {whole})"
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set_xlabel(about, fontsize=SMALL)
    axes.set_ylabel("score", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)


PANELS: dict[str, Callable[[Axes, Subject, Look], None]] = {
    "image": _image,
    "overlay": _overlay,
    "heatmap": _heatmap,
    "contours": _contours,
    "masked": _masked,
    "curves": _curves,
}
