"""Places the parts of a figure: rows of tiles whose pictures all have one height. All lengths are inches."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

CAPTION = 0.42  # above the pictures of a tile: three lines
LINE = 0.12  # one more
HEADING = 0.3  # above a row
MARGIN = 0.08
_GAP, _WITHIN = 0.14, 0.05  # between tiles, and between the pictures of one
_AS_EVEN = 1.02  # rows with so much more of the squared widths are as even
_STEP = 0.05  # in which heights and widths are tried
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

    def lowered(self, by: float) -> Tile:
        """The same tile with more room above its pictures."""
        return Tile([place.moved(0, by) for place in self.places], self.width, self.height + by)


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


def arranged(
    aspects: Sequence[float],
    pictures: int,
    curves: bool,
    height: float,
    width: float,
    columns: int | None,
    begins: Container[int] = (),
) -> tuple[list[Tile], list[range]]:
    """The tiles of the explanations, and the numbers of the tiles in each row.

    If the number of columns is given, and with curves, each column is as wide as its widest tile, so that its
    pictures and curves line up. Otherwise there are as few rows as possible, of about the same width.

    Args:
        aspects: width / height of the images.
        pictures: see `tiled`.
        curves: see `tiled`.
        height: see `tiled`.
        width: see `tiled`.
        columns: the most tiles in a row; as many as fit if None.
        begins: numbers of tiles with which a new row begins.
    """
    tiles = [tiled(aspect, pictures, curves, height, width) for aspect in aspects]
    if not curves and columns is None:
        return tiles, _balanced([one.width for one in tiles], width, begins)
    fitting = int((width + _GAP) / (min(one.width for one in tiles) + _GAP))
    most = max(1, min(columns or len(tiles), len(tiles), fitting))
    every = [_in_columns(len(tiles), across, begins) for across in range(1, most + 1)]
    found = every[:1] + [rows for rows in every[1:] if _row_width(_column_widths(tiles, rows)) <= width]
    rows = min(found, key=len) if columns is None else found[-1]
    return _aligned(tiles, rows), rows


def _in_columns(count: int, columns: int, begins: Container[int]) -> list[range]:
    """Rows of so many tiles."""
    return _filled([1.0] * count, columns + (columns - 1) * _GAP, begins)


def _balanced(widths: Sequence[float], room: float, begins: Container[int]) -> list[range]:
    """As few rows as fit into the room, with widths as equal as possible, the fuller rows first.

    Rows that are filled one after the other are as good if the sum of their squared widths is hardly larger.
    """
    count = len(widths)
    # For the tiles from each number on: their rows, the sum of squared widths, the second row's first tile.
    best = [(0, 0.0, count)] * (count + 1)
    for first in reversed(range(count)):
        choices = []
        taken = -_GAP
        for last in range(first, count):
            taken += _GAP + widths[last]
            if last > first and (last in begins or taken > room + 1e-6):
                break
            rows, cost, _ = best[last + 1]
            choices.append((rows + 1, cost + taken**2, last + 1))
        best[first] = min(choices, key=lambda one: (one[0], round(one[1], 6), -one[2]))
    found, first = [], 0
    while first < count:
        found.append(range(first, best[first][2]))
        first = best[first][2]
    filled = _filled(widths, room, begins)
    cost = sum(_row_width([widths[one] for one in row]) ** 2 for row in filled)
    return filled if cost <= _AS_EVEN * best[0][1] else found


def _filled(widths: Sequence[float], room: float, begins: Container[int]) -> list[range]:
    """Rows of as many tiles as fit, at least one."""
    rows: list[range] = []
    first, taken = 0, 0.0
    for number, width in enumerate(widths):
        if number > first and (number in begins or taken + width > room + 1e-6):
            rows.append(range(first, number))
            first, taken = number, 0.0
        taken += width + _GAP
    return [*rows, range(first, len(widths))]


def _column_widths(tiles: Sequence[Tile], rows: Sequence[range]) -> list[float]:
    return [max(tiles[one].width for one in column) for column in _columns(rows)]


def _columns(rows: Sequence[range]) -> list[list[int]]:
    """The numbers of the tiles in each column."""
    return [[row[place] for row in rows if place < len(row)] for place in range(max(map(len, rows)))]


def _aligned(tiles: Sequence[Tile], rows: Sequence[range]) -> list[Tile]:
    """Tiles in rows, changed so that each column has one width, and its last parts line up."""
    aligned = list(tiles)
    for width, column in zip(_column_widths(tiles, rows), _columns(rows), strict=True):
        left = max(tiles[number].places[-1].x for number in column)
        for number in column:
            *others, last = tiles[number].places
            if last.x:  # below the others, it stays where it is
                last = replace(last, x=left)
            aligned[number] = Tile([*others, last], width, tiles[number].height)
    return aligned


def _row_width(widths: Sequence[float]) -> float:
    return sum(widths) + (len(widths) - 1) * _GAP


def fitted(
    aspects: Sequence[float],
    pictures: int,
    curves: bool,
    width: float,
    columns: int,
    begins: Container[int] = (),
) -> float:
    """The largest height of pictures with which the given number of tiles fits into each row."""
    height = _HIGHEST
    wanted = _in_columns(len(aspects), columns, begins)
    while height > _LOWEST:
        tiles, rows = arranged(aspects, pictures, curves, height, width, columns, begins)
        if rows == wanted and _row_width(_column_widths(tiles, rows)) <= width:
            break
        height -= _STEP
    return height


def flow(
    tiles: Sequence[Tile], rows: Sequence[range], headed: Container[int] = ()
) -> tuple[list[Place], float, float]:
    """Place tiles in rows, left to right.

    Args:
        tiles: the tiles.
        rows: the numbers of the tiles in each row.
        headed: the numbers of tiles whose row has room for a heading above it.

    Returns:
        The place of each tile; the width that all tiles take; the height.
    """
    places: list[Place] = []
    y, widest = 0.0, 0.0
    for row in rows:
        y += HEADING if row[0] in headed else 0.0
        x = 0.0
        for number in row:
            places.append(Place(x, y, tiles[number].width, tiles[number].height))
            x += tiles[number].width + _GAP
        widest = max(widest, x - _GAP)
        y += max(tiles[number].height for number in row) + _GAP
    return places, widest, y - _GAP
