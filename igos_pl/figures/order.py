"""Where a picture of a search writes numbers: on the cells and regions that it took first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from igos_pl.data.explanation import Explanation
from igos_pl.data.geometry import Frame
from igos_pl.data.wording import is_search

FIRST = 5  # numbers in a picture; more would hide it

# A cell has no number if the score had reached all of its rise before it. Its saliency then tells only its
# place in the order (see `igos_pl.solver.search.SearchSettings.place`), and is at most this much above that.
_LEAST = 0.005

_SIDE = 256  # pixels of the longer side of the picture in which the places are found


class Mark(NamedTuple):
    """The place of a number.

    Attributes:
        number: from 1.
        x: centre, as a share of the picture's width.
        y: centre, as a share of the picture's height.
        room: half of the side of the square around the centre that lies in the cell or region, as a share of
            the picture's longer side.
    """

    number: int
    x: float
    y: float
    room: float


def first_taken(explanation: Explanation, frame: Frame) -> list[Mark]:
    """The cells or regions that a search took first; nothing for other methods.

    Args:
        explanation: the explanation.
        frame: of the picture.
    """
    if not is_search(explanation.attributes):
        return []
    saliency = explanation.saliency
    labels = explanation.values.get("regions")
    cells = np.arange(saliency.size).reshape(saliency.shape) if labels is None else np.asarray(labels)
    found, first = np.unique(cells, return_index=True)
    values = saliency.flat[first]
    order = np.argsort(-values, kind="stable")[:FIRST]
    share = min(1, _SIDE / max(frame.width, frame.height))
    small = frame.scaled(max(1, round(frame.width * share)), max(1, round(frame.height * share)))
    drawn = small.cells_on_original(cells, outside=-1)
    marks = []
    weight = float(explanation.attributes.get("search.place", 0.1))  # older runs do not say it
    for number, place in enumerate(order.tolist(), start=1):
        inside = drawn == found[place]
        of_place = weight * (1 - (number - 1) / max(1, len(found) - 1))
        if values[place] > of_place + _LEAST and inside.any():
            x, y, room = _middle(inside)
            marks.append(Mark(number, x / small.width, y / small.height, room / max(drawn.shape)))
    return marks


def _middle(inside: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The centre of a large square in an area, as x and y in pixels, and half of its side."""
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    # Peel off the area's border until nothing is left: the last pixels are those farthest from it.
    rest = np.pad(inside[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    depth = 0
    while True:
        inner = rest.copy()
        for axis in (0, 1):
            inner &= np.roll(inner, 1, axis) & np.roll(inner, -1, axis)
        if not inner.any():
            break
        rest, depth = inner, depth + 1
    places = np.argwhere(rest)
    y, x = places[np.square(places - places.mean(0)).sum(1).argmin()]
    return left + x - 0.5, top + y - 0.5, depth + 0.5
