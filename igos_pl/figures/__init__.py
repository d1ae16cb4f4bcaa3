"""Figures for papers and slides; ``igos-pl predict`` draws its overlays by the same code."""

from igos_pl.figures.drawing import draw, save
from igos_pl.figures.panels import STYLES

__all__ = ["STYLES", "draw", "save"]
