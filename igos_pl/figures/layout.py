"""Places the parts of a figure: rows of tiles whose pictures all have one height. All lengths are inches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle

CAPTION = 0.42  # above the pictures of a tile
FOOTER = 0.66  # below all tiles
MARGIN = 0.08
_GAP, _WITHIN = 0.14, 0.05  # between tiles, and between the pictures of one
_HIGHEST, _LOWEST = 3.0, 0.4  # of pictures whose height is not given
_LOWEST_SLOT = 0.05
_NARROWEST = 1.35  # a tile has room for its caption
_WIDE = 1.8  # the pictures of one explanation are put below each other if they are wider than this

# The curves: their axes, at most so high, and the room for labels at their left and below.
_CURVES_WIDTH, _CURVES_HEIGHT = 1.25, 2.6
_CURVES_LEFT, _CURVES_BELOW = 0.5, 0.5
CURVES_LEAST = 1.6  # the least height of pictures beside curves


@dataclass(frozen=True)
class Place:
    """A rectangle: its upper left corner, from the figure's, and its size."""

    x: float
    y: float
    width: float
    height: float

    def moved(self, x: float, y: float) -> Place:
        """The same rectangle elsewhere."""
        return Place(self.x + x, self.y + y, self.width, self.height)


@dataclass(frozen=True)
class Tile:
    """The parts of one explanation.

    Attributes:
        places: of its pictures, and of the curves if there are any, relative to the tile.
        width: of the tile.
        height: of the tile, with its caption.
    """

    places: list[Place]
    width: float
    height: float


def tiled(aspect: float, pictures: int, curves: bool, height: float, width: float) -> Tile:
    """Place the pictures of one explanation side by side, or below each other if they are wide.

    Args:
        aspect: width / height of the image.
        pictures: how many are drawn of it.
        curves: whether the curves are drawn at the right.
        height: of a picture. A picture that is too wide for the page is drawn smaller.
        width: of the page.
    """
    drawn = min(_CURVES_HEIGHT, max(height, CURVES_LEAST))
    beside = _CURVES_LEFT + _CURVES_WIDTH * drawn + _WITHIN if curves else 0.0
    stacked = pictures > 1 and aspect > _WIDE
    across, down = (1, pictures) if stacked else (pictures, 1)
    room = (width - beside - (across - 1) * _WITHIN) / across
    shown = min(room, height * aspect)
    height = min(height, max(shown / aspect, _LOWEST_SLOT))
    step = shown + _WITHIN
    places = [
        Place(
            0.0 if stacked else number * step,
            CAPTION + (number * (height + _WITHIN) if stacked else 0.0),
            shown,
            height,
        )
        for number in range(pictures)
    ]
    taken = across * shown + (across - 1) * _WITHIN
    bottom = CAPTION + down * height + (down - 1) * _WITHIN
    if curves:
        places.append(Place(taken + _CURVES_LEFT, CAPTION, _CURVES_WIDTH * drawn, drawn))
        bottom = max(bottom, CAPTION + drawn + _CURVES_BELOW)
    return Tile(places, max(_NARROWEST, taken + beside), bottom)


def lined_up(
    aspects: Sequence[float], pictures: int, curves: bool, height: float, width: float, columns: int | None
) -> tuple[list[Tile], int | None]:
    """The tiles of the explanations, and the largest number of tiles in a row.

    With curves, each column is as wide as its widest tile, so that its curves line up.

    Args:
        aspects: width / height of the images.
        pictures: see `tiled`.
        curves: see `tiled`.
        height: see `tiled`.
        width: see `tiled`.
        columns: the most tiles in a row; as many as fit if None.
    """
    tiles = [tiled(aspect, pictures, curves, height, width) for aspect in aspects]
    if not curves:
        return tiles, columns
    fitting = int((width + _GAP) / (min(one.width for one in tiles) + _GAP))
    for across in range(min(columns or len(tiles), len(tiles), fitting), 1, -1):
        if _row_width(_column_widths(tiles, across)) <= width:
            return _aligned(tiles, across), across
    return _aligned(tiles, 1), 1


def _column_widths(tiles: Sequence[Tile], columns: int) -> list[float]:
    return [max(one.width for one in tiles[column::columns]) for column in range(columns)]


def _aligned(tiles: Sequence[Tile], columns: int) -> list[Tile]:
    """Tiles in rows of ``columns``, changed so that the curves in each column line up."""
    widths = _column_widths(tiles, columns)
    lefts = [max(one.places[-1].x for one in tiles[column::columns]) for column in range(columns)]
    return [
        Tile([*one.places[:-1], replace(one.places[-1], x=lefts[place])], widths[place], one.height)
        for one, place in zip(tiles, cycle(range(columns)), strict=False)
    ]


def _row_width(widths: Sequence[float]) -> float:
    return sum(widths) + (len(widths) - 1) * _GAP


def fitted(aspects: Sequence[float], pictures: int, curves: bool, width: float, columns: int) -> float:
    """The largest height of pictures with which the given number of tiles fits into each row."""
    height = _HIGHEST
    while height > _LOWEST:
        tiles, across = lined_up(aspects, pictures, curves, height, width, columns)
        widths = [one.width for one in tiles]
        rows = [widths[first : first + columns] for first in range(0, len(tiles), columns)]
        if across in (columns, len(tiles)) and all(_row_width(row) <= width for row in rows):
            break
        height -= 0.05
    return height


def flow(tiles: Sequence[Tile], width: float, columns: int | None) -> tuple[list[Place], float, float]:
    """Place tiles in rows, left to right.

    Args:
        tiles: the tiles.
        width: of the page.
        columns: the most tiles in a row; as many as fit if None.

    Returns:
        The place of each tile; the width that all tiles take; the height.
    """
    places: list[Place] = []
    x, y, row, number, widest = 0.0, 0.0, 0.0, 0, 0.0
    for one in tiles:
        if number and (x + one.width > width + 1e-6 or number == columns):
            x, y, row, number = 0.0, y + row + _GAP, 0.0, 0
        places.append(Place(x, y, one.width, one.height))
        widest = max(widest, x + one.width)
        x, row, number = x + one.width + _GAP, max(row, one.height), number + 1
    return places, widest, y + row
