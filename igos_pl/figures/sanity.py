"""Draws sanity checks: how alike the network's own masks and those of networks with random layers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# The measures that are drawn, and the labels of their axes.
_PANELS = {
    "spearman": "rank correlation of the cells (Spearman)",
    "ssim": "structural similarity (SSIM)",
    "contrast": "contrast: largest - smallest saliency",
}
_COLORS = ("#3b528b", "#c0392b")
_LINES = (("#2a9d8f", "-"), ("#e9a23b", "--"), ("#e9a23b", ":"), ("#777777", "-."))


class Series(NamedTuple):
    """A curve.

    Attributes:
        name: its name.
        places: the number of layers of each point, counted from the output.
        mean: the measures' means at each point.
        error: their standard errors.
    """

    name: str
    places: Sequence[int]
    mean: Sequence[Mapping[str, float]]
    error: Sequence[Mapping[str, float]]


class Line(NamedTuple):
    """A horizontal line: a map that does not depend on the number of random layers.

    Attributes:
        name: its name.
        mean: the measures' means.
    """

    name: str
    mean: Mapping[str, float]


def similarity_figure(title: str, series: Sequence[Series], lines: Sequence[Line]) -> Figure:
    """The measures against the number of random layers.

    Args:
        title: the figure's title.
        series: at most two curves.
        lines: at most four horizontal lines.
    """
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = figure.subplots(1, len(_PANELS))
    for axes, (measure, label) in zip(panels, _PANELS.items(), strict=True):
        for color, curve in zip(_COLORS, series, strict=False):
            mean = np.array([point[measure] for point in curve.mean])
            error = np.nan_to_num([point[measure] for point in curve.error])
            axes.plot(curve.places, mean, marker="o", markersize=4, color=color, label=curve.name)
            axes.fill_between(curve.places, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
        for (color, style), line in zip(_LINES, lines, strict=False):
            if np.isfinite(line.mean[measure]) and not (measure == "contrast" and "edges" in line.name):
                axes.axhline(line.mean[measure], color=color, linestyle=style, label=line.name)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_xlabel("layers, counted from the output", fontsize=9)
        axes.set_ylabel(label, fontsize=9)
        axes.set_ylim(top=1.02)
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure
