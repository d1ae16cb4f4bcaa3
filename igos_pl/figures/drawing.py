"""Draws explanations: one, or a grid of many, in several styles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from igos_pl.checks import check_at_least, check_choice, check_share
from igos_pl.data.explanation import Explanation
from igos_pl.data.wording import masks_in_words, preset_in_words
from igos_pl.errors import IgosError
from igos_pl.figures.layout import FOOTER, MARGIN, Place, fitted, flow, lined_up
from igos_pl.figures.lettering import no_glyph_warnings, write
from igos_pl.figures.panels import PANELS, SMALLEST_RANGE, Look
from igos_pl.figures.subjects import Picture, Subject, baseline_of

# The panels of each style.
STYLES = {
    "curves": ("image", "overlay", "curves"),
    "pair": ("image", "overlay"),
    "overlay": ("overlay",),
    "heatmap": ("heatmap",),
    "contours": ("contours",),
    "masked": ("masked",),
}
_WITHOUT_IMAGE = ("heatmap",)
_WITHOUT_COLORS = ("masked",)

SCALES = ("shared", "each")

# A mask that reaches less than this share of a shared colour scale looks nearly empty.
FAINT = 0.2

# The width of the page and the height of pictures, in inches: of one explanation, and of several.
_WIDTHS, _HEIGHTS = (11.0, 7.2), (3.0, 1.3)
_HEIGHTS_OF = {"pair": 1.1, "curves": 1.6}  # of several

_MOST = 400  # explanations in one figure
_BAR = (1.5, 0.09)  # width and height of the colour bar
_LEAST_WIDTH = 3.2  # the colour bar and the text beside it

_BASELINES = {
    "blur": "blurred", "black": "black", "mean": "the image's mean colour", "noise": "noise",
}  # fmt: skip


def draw(
    explanations: Sequence[Explanation],
    style: str = "curves",
    images: Sequence[Picture | None] | None = None,
    *,
    fraction: float = 0.2,
    scale: str = "shared",
    columns: int | None = None,
    width: float | None = None,
    height: float | None = None,
    dpi: float = 100,
) -> Figure:
    """Draw explanations in one figure. All pictures have one height, whatever their aspect ratio.

    The colours go from 0 to the largest saliency, but at least to 0.1, so that a mask with hardly any content
    looks empty. The colour bar gives the values.

    Args:
        explanations: the explanations, at most 400.
        style: ``curves`` (the image, its saliency over it, and the deletion and insertion curves), ``pair``
            (without the curves), ``overlay``, ``heatmap``, ``contours``, or ``masked`` (the most important
            cells alone; the rest is replaced by the run's baseline).
        images: the upright originals, RGB or grey: pictures, or arrays ``(height, width)`` or ``(height,
            width, 3)`` from 0 to 255. By default, and for each None, the image's file is read again.
        fraction: of the cells that ``masked`` shows.
        scale: ``shared`` colours by the largest saliency of the whole figure, ``each`` by that of each
            explanation; the caption then gives it. If a mask reaches less than a fifth of the shared
            colours, its caption says so, see `faint`.
        columns: explanations in a row, as many as fit by default. If no height is given, the pictures are as
            high as this number of columns allows.
        width: of the figure in inches, at most. By default 11 for one explanation, and 7.2 for several.
        height: of a picture in inches. By default 3 for one explanation, and 1.1 to 1.6 for several.
        dpi: pixels in an inch.

    Raises:
        IgosError: if there is nothing to draw, an image cannot be read any more or has another size now, or a
            setting is wrong.
    """
    check_choice("style", style, STYLES)
    check_choice("scale", scale, SCALES)
    check_share("fraction", fraction)
    for name, value, least in (("columns", columns, 1), ("width", width, 1), ("height", height, 0.2)):
        if value is not None:
            check_at_least(name, value, least)
    check_at_least("dpi", dpi, 10)
    if not 0 < len(explanations) <= _MOST:
        raise IgosError(
            f"{len(explanations)} explanations cannot be drawn in one figure: choose 1 to {_MOST}"
        )
    several = len(explanations) > 1
    room = (width or _WIDTHS[several]) - 2 * MARGIN
    panels, curves = STYLES[style], "curves" in STYLES[style]
    shape = (len(panels) - curves, curves)
    if height is None:
        height = _HEIGHTS_OF.get(style, _HEIGHTS[1]) if several else _HEIGHTS[0]
        if columns is not None:
            aspects = [one.frame.width / one.frame.height for one in explanations]
            height = fitted(aspects, *shape, room, columns)

    pixels = math.ceil(max(room, height) * dpi)
    subjects = [
        Subject.of(one, picture, pixels, style not in _WITHOUT_IMAGE)
        for one, picture in zip(explanations, images or [None] * len(explanations), strict=True)
    ]
    tiles, columns = lined_up([one.aspect for one in subjects], *shape, height, room, columns)
    places, across, down = flow(tiles, room, columns)
    across = max(across, _LEAST_WIDTH)
    canvas = _Canvas((across + 2 * MARGIN, down + FOOTER + MARGIN), dpi)
    largest = [0.0 if style in _WITHOUT_COLORS else float(one.saliency.max()) for one in subjects]
    hardly_seen = faint(explanations, style, scale)
    for subject, tile, place, most, is_faint in zip(
        subjects, tiles, places, largest, hardly_seen, strict=True
    ):
        look = Look.of(most if scale == "each" else max(largest), fraction)
        corner = place.moved(MARGIN, MARGIN)
        _caption(
            canvas.figure, subject.explanation, corner, most if scale == "each" or is_faint else None,
            place.width if several else across, "faint: " if is_faint else "",
        )  # fmt: skip
        for panel, part in zip(panels, tile.places, strict=True):
            PANELS[panel](canvas.axes(part.moved(corner.x, corner.y)), subject, look)
    shared = Look.of(max(largest) if scale == "shared" else 1, fraction)
    _footer(canvas, explanations[0].attributes, shared, style, scale, down + MARGIN)
    return canvas.figure


def faint(explanations: Sequence[Explanation], style: str, scale: str) -> list[bool]:
    """Which masks look nearly empty only because other masks of the figure are strong.

    Their largest saliency is below a fifth of the figure's. The scale ``each`` shows them,
    unless their saliency is far below 0.1.

    Args:
        explanations: of one figure.
        style: see `draw`.
        scale: see `draw`.
    """
    largest = [float(one.saliency.max()) for one in explanations]
    top = float(np.nanmax([0.0, *largest]))
    if style in _WITHOUT_COLORS or scale != "shared" or top <= SMALLEST_RANGE:
        return [False] * len(largest)
    return [0 < most < FAINT * top for most in largest]


def save(
    figure: Figure, path: Path, kind: str | None = None, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a figure. The same figure gives the same bytes.

    Text in PDF and SVG stays text. PDF embeds the letters of the fonts; SVG names the fonts.

    Args:
        figure: the figure.
        path: the file.
        kind: pdf, svg or png; by default that of the file's name.
        metadata: texts for the file's metadata, by keyword.
    """
    kind = kind or path.suffix.removeprefix(".").lower()
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
    settings: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "igos_pl"}
    with rc_context(settings), no_glyph_warnings():
        figure.savefig(path, format=kind, dpi=figure.dpi, metadata={**dates, **(metadata or {})})


class _Canvas:
    """A figure on which places are given in inches from its upper left corner."""

    def __init__(self, size: tuple[float, float], dpi: float) -> None:
        self.size = size
        self.figure = Figure(figsize=size, dpi=dpi)
        FigureCanvasAgg(self.figure)

    def axes(self, place: Place) -> Axes:
        """Axes at a place."""
        width, height = self.size
        bottom = 1 - (place.y + place.height) / height
        added: Axes = self.figure.add_axes(
            (place.x / width, bottom, place.width / width, place.height / height)
        )
        return added


def _caption(
    figure: Figure, explanation: Explanation, tile: Place, largest: float | None, room: float, before: str
) -> None:
    """Write the class with its score, the image's name, and insertion - deletion or the largest saliency.

    Args:
        figure: the figure.
        explanation: the explanation.
        tile: where its pictures are.
        largest: the largest saliency, if it is to be written.
        room: width in inches.
        before: is written before the largest saliency.
    """
    write(figure, tile.x, tile.y + 0.08, str(explanation.label_name), room, 8.5, f" {explanation.score:.2f}")
    start = f", start {explanation.start_cell}" if explanation.start_cell >= 0 else ""
    write(figure, tile.x, tile.y + 0.22, str(explanation.sample_id), room, 6.5, start, color="dimgrey")
    difference = round(float(explanation.insertion - explanation.deletion), 2) + 0.0  # no -0.00
    about = "" if np.isnan(difference) else f"insertion - deletion {difference:.2f}"
    if largest is not None:
        about = f"{before}saliency up to {largest:.2f}"
    write(figure, tile.x, tile.y + 0.34, "", room, 6.5, about, color="dimgrey")


def _footer(
    canvas: _Canvas, settings: Mapping[str, Any], look: Look, style: str, scale: str, top: float
) -> None:
    """Draw the colour bar, and say how the masks were made."""
    x, width = MARGIN, canvas.size[0] - 2 * MARGIN
    if style in _WITHOUT_COLORS:
        kind = _BASELINES[baseline_of(settings)]
        about = f"the most important {look.fraction:.0%} of the cells; the rest is {kind}"
    else:
        bar = canvas.axes(Place(x + 0.07, top + 0.12, *_BAR))
        canvas.figure.colorbar(look.colors, cax=bar, orientation="horizontal")
        bar.tick_params(labelsize=6, length=2, pad=1)
        bar.locator_params(nbins=4)
        if style == "contours":
            bar.vlines(look.levels, 0, 1, colors="white", linewidth=0.5)
        x, width = x + _BAR[0] + 0.25, width - _BAR[0] - 0.25
        about = "saliency" if scale == "shared" else "share of the largest saliency"
    write(canvas.figure, x, top + 0.16, about, width, 6.5)
    write(canvas.figure, x, top + 0.3, preset_in_words(settings), width, 6.5, color="dimgrey")
    # Below the colour bar, so that narrow figures have room for it.
    room = canvas.size[0] - 2 * MARGIN
    write(canvas.figure, MARGIN, top + 0.5, masks_in_words(settings), room, 6.5, color="dimgrey")
