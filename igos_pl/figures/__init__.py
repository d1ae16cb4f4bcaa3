"""Figures for papers and slides; ``igos-pl predict`` draws its overlays by the same code."""

from igos_pl.figures.drawing import STYLES, draw, save

__all__ = ["STYLES", "draw", "save"]
