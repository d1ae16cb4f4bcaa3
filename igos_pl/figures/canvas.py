"""A figure on which places are given in inches."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from igos_pl.figures.layout import Place


class Canvas:
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
