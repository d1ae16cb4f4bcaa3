"""Draws explanations: one, or a grid of many, in several styles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from igos_pl.checks import check_at_least, check_choice, check_share
from igos_pl.data.explanation import Explanation
from igos_pl.data.overlay import EMPTY, SMALLEST_RANGE
from igos_pl.data.wording import score_in_words
from igos_pl.errors import IgosError
from igos_pl.figures.canvas import Canvas
from igos_pl.figures.footer import Footer
from igos_pl.figures.layout import LINE, MARGIN, Place, Tile, arranged, fitted, flow
from igos_pl.figures.lettering import SMALL, no_glyph_warnings, write
from igos_pl.figures.panels import PANELS, STYLES, WITHOUT_COLORS, WITHOUT_IMAGE, Look
from igos_pl.figures.subjects import Picture, Subject

SCALES = ("each", "shared")

# A mask that reaches less than this share of a shared colour scale looks nearly empty.
FAINT = 0.2

# The width of the page and the height of pictures, in inches: of one explanation, and of several.
_WIDTHS, _HEIGHTS = (11.0, 7.2), (3.0, 1.3)
_HEIGHTS_OF = {"pair": 1.1, "curves": 1.6}  # of several

_MOST = 400  # explanations in one figure
_USUAL_WIDTH = 3.4  # of a figure with a single small picture, so that there is room for its captions
_LEAST_WIDTHS, _LEAST_WIDTH = {"curves": 3.5}, 2.0  # of a page: pictures beside curves would be too small


def draw(
    explanations: Sequence[Explanation],
    style: str = "curves",
    images: Sequence[Picture | None] | None = None,
    *,
    fraction: float = 0.2,
    scale: str = "each",
    headings: Mapping[int, str] | None = None,
    columns: int | None = None,
    width: float | None = None,
    height: float | None = None,
    dpi: float = 100,
) -> Figure:
    """Draw explanations in one figure. All pictures have one height, whatever their aspect ratio.

    The colours go from 0 to the largest saliency of each mask, which stands in its caption, but at least to
    0.1, so that a mask with hardly any content looks empty. If its largest saliency is below 0.01, its
    caption says so. The colour bar gives the values.

    Args:
        explanations: the explanations, at most 400.
        style: ``curves`` (the image, its saliency over it, and the deletion and insertion curves), ``pair``
            (without the curves), ``overlay``, ``heatmap``, ``contours``, or ``masked`` (the most important
            cells or regions alone; the rest is replaced by the run's baseline). Masks of at most 20 x 20
            cells are drawn as cells with sharp borders. Overlays of a search number the cells or regions that
            it took first.
        images: the upright originals, RGB or grey: pictures, or arrays ``(height, width)`` or ``(height,
            width, 3)`` from 0 to 255. By default, and for each None, the image that was explained in memory,
            or the image's file is read again.
        fraction: of the cells that ``masked`` shows; regions as a whole, as the curves do.
        scale: ``each`` colours by the largest saliency of each explanation, ``shared`` by that of the whole
            figure. If a mask reaches less than a fifth of the shared colours, its caption says so, see
            `faint`. For a single explanation, both are the same.
        headings: texts above rows. The key is the number of the explanation, from 0, with which the row
            begins.
        columns: explanations in a row, which then line up; as many as fit by default. If no height is given,
            the pictures are as high as this number of columns allows.
        width: of the figure in inches, at most. By default 11 for one explanation, and 7.2 for several. At
            least 2, or 3.5 with curves.
        height: of a picture in inches. By default 3 for one explanation, and 1.1 to 1.6 for several.
        dpi: pixels in an inch.

    Raises:
        IgosError: if there is nothing to draw, an image cannot be read any more or has another size now, or a
            setting is wrong.
    """
    for one in explanations:
        if not isinstance(one, Explanation):
            raise IgosError(
                f"explanations has an entry of the type {type(one).__name__}, but must have explanations, as"
                " MaskFile(run)[:4] or explain gives them"
            )
    check_choice("style", style, STYLES)
    check_choice("scale", scale, SCALES)
    check_share("fraction", fraction)
    narrowest = _LEAST_WIDTHS.get(style, _LEAST_WIDTH)
    for name, value, least in (("columns", columns, 1), ("width", width, narrowest), ("height", height, 0.2)):
        if value is not None:
            check_at_least(name, value, least)
    check_at_least("dpi", dpi, 10)
    if not 0 < len(explanations) <= _MOST:
        raise IgosError(
            f"{len(explanations)} explanations cannot be drawn in one figure: choose 1 to {_MOST}"
        )
    headings = headings or {}
    if wrong := sorted(set(headings) - set(range(len(explanations)))):
        raise IgosError(
            f"headings has a text for explanation {wrong[0]}, but there are {len(explanations)}, counted"
            " from 0"
        )
    several = len(explanations) > 1
    scale = scale if several else "shared"  # the colour bar of a single explanation gives its values
    room = (width or _WIDTHS[several]) - 2 * MARGIN
    panels, curves = STYLES[style], "curves" in STYLES[style]
    shape = (len(panels) - curves, curves)
    if height is None:
        height = _HEIGHTS_OF.get(style, _HEIGHTS[1]) if several else _HEIGHTS[0]
        if columns is not None:
            aspects = [one.frame.width / one.frame.height for one in explanations]
            height = fitted(aspects, *shape, room, columns, headings)

    pixels = math.ceil(max(room, height) * dpi)
    subjects = [
        Subject.of(one, picture, pixels, style not in WITHOUT_IMAGE)
        for one, picture in zip(explanations, images or [None] * len(explanations), strict=True)
    ]
    tiles, rows = arranged([one.aspect for one in subjects], *shape, height, room, columns, headings)
    largest = _largest(explanations, style)
    colored = style not in WITHOUT_COLORS
    own = scale == "each" and colored
    abouts = [
        _saliency_in_words(most, is_faint, own) if colored else ""
        for most, is_faint in zip(largest, _faint(largest, scale), strict=True)
    ]
    if any(abouts):
        tiles = [tile.lowered(LINE) for tile in tiles]
    places, across, down = flow(tiles, rows, headings)
    across = max(across, min(room, _USUAL_WIDTH))
    shared = Look.of(max(largest) if scale == "shared" else 1, fraction)
    footer = Footer.of(
        explanations[0].attributes, shared, style, scale, _under(tiles, places, across, curves)
    )
    canvas = Canvas((across + 2 * MARGIN, max(down, footer.place.y + footer.place.height) + 2 * MARGIN), dpi)
    for number, heading in headings.items():
        write(canvas.figure, MARGIN, places[number].y - 0.06, heading, across, 9.5, weight="bold")
    for subject, tile, place, most, about in zip(subjects, tiles, places, largest, abouts, strict=True):
        look = Look.of(most if scale == "each" else max(largest), fraction)
        corner = place.moved(MARGIN, MARGIN)
        _caption(
            canvas.figure, subject.explanation, corner, place.width if several else across, about,
            None if style == "masked" else float(subject.explanation.score),
            subject.regions_in_words(fraction) if style == "masked" else "",
        )  # fmt: skip
        for panel, part in zip(panels, tile.places, strict=True):
            PANELS[panel](canvas.axes(part.moved(corner.x, corner.y)), subject, look)
    footer.draw(canvas)
    return canvas.figure


def faint(explanations: Sequence[Explanation], style: str, scale: str) -> list[bool]:
    """Which masks look nearly empty only because other masks of the figure are strong.

    Their largest saliency is below a fifth of the figure's. The scale ``each`` shows them,
    unless their saliency is far below 0.1. Empty masks are not among them.

    Args:
        explanations: of one figure.
        style: see `draw`.
        scale: see `draw`.
    """
    return _faint(_largest(explanations, style), scale)


def _largest(explanations: Sequence[Explanation], style: str) -> list[float]:
    """The largest saliency of each mask; 0 for styles without colours."""
    return [
        0.0 if style in WITHOUT_COLORS else one.frame.largest_on_original(one.saliency)
        for one in explanations
    ]


def _faint(largest: Sequence[float], scale: str) -> list[bool]:
    """The same as `faint`, from the largest saliency of each mask."""
    top = float(np.nanmax([0.0, *largest]))
    if scale != "shared" or top <= SMALLEST_RANGE:
        return [False] * len(largest)
    return [EMPTY <= most < FAINT * top for most in largest]


def _saliency_in_words(largest: float, is_faint: bool, own: bool) -> str:
    """What the caption says of a mask's largest saliency. It may be empty.

    Args:
        largest: the largest saliency.
        is_faint: see `faint`.
        own: whether each mask has its own colours.
    """
    if largest < EMPTY:
        return f"empty: saliency below {EMPTY}"
    if is_faint:
        return f"faint: saliency up to {largest:.2f}"
    return f"saliency up to {largest:.2f}" if own else ""


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


def _caption(
    figure: Figure,
    explanation: Explanation,
    tile: Place,
    room: float,
    about: str,
    score: float | None,
    shown: str,
) -> None:
    """Write the class with its score, the image's name, insertion - deletion, and more.

    Args:
        figure: the figure.
        explanation: the explanation.
        tile: where its pictures are.
        room: width in inches.
        about: the last line; it may be empty.
        score: of the whole image; None if only a part of it is shown.
        shown: how much of the image is shown, if not all.
    """
    after = "" if score is None else f" {score_in_words(score)}"
    write(figure, tile.x, tile.y + 0.08, str(explanation.label_name), room, 8.5, after)
    start = f", start {explanation.start_cell}" if explanation.start_cell >= 0 else ""
    start += f", {shown}" if shown else ""
    write(figure, tile.x, tile.y + 0.22, str(explanation.sample_id), room, SMALL, start, color="dimgrey")
    difference = round(float(explanation.insertion - explanation.deletion), 2) + 0.0  # no -0.00
    faithful = "" if np.isnan(difference) else f"insertion - deletion {difference:.2f}"
    for number, text in enumerate(filter(None, (faithful, about))):
        write(figure, tile.x, tile.y + 0.34 + number * LINE, "", room, SMALL, text, color="dimgrey")


def _under(tiles: Sequence[Tile], places: Sequence[Place], across: float, curves: bool) -> Place:
    """Where the footer goes: below all tiles, or below the pictures of a single one with higher curves."""
    if curves and len(tiles) == 1:
        pictures = tiles[0].places[:-1]
        right = max(one.x + one.width for one in pictures)
        if right >= _USUAL_WIDTH:
            return Place(0.0, places[0].y + max(one.y + one.height for one in pictures), right, 0.0)
    return Place(0.0, max(one.y + one.height for one in places), across, 0.0)
