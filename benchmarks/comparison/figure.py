"""Quality against passes, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from comparison.methods import OURS, label_of, split_name
from comparison.tables import Found

Curve = list[tuple[float, float]]


def curves_of(found: Found) -> dict[str, Curve]:
    """Each family's points, cost and mean difference, from cheap to dear, on the cases that all have."""
    shared = set.intersection(*(set(figures) for figures in found.values() if figures))
    curves: dict[str, Curve] = {}
    for method, figures in found.items():
        chosen = [figures[case] for case in figures if case in shared]
        if chosen:
            point = fmean(f.cost for f in chosen), fmean(f.difference for f in chosen)
            curves.setdefault(split_name(method)[0], []).append(point)
    return {family: sorted(points) for family, points in curves.items()}


def draw(found: Found, path: Path, judge: str) -> None:
    """One line for each family, with its name at its end; ours are bold."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    curves = curves_of(found)
    cases = len(set.intersection(*(set(figures) for figures in found.values() if figures)))
    colours = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    colours = colours[::2] + colours[1::2]  # the strong ones first
    figure, axes = plt.subplots(figsize=(10, 6.5), layout="constrained")
    axes.set_xscale("log")
    for number, (family, points) in enumerate(curves.items()):
        ours = family in OURS
        axes.plot(
            *zip(*points, strict=True),
            color=colours[number % len(colours)],
            marker="o" if ours else "s",
            markersize=7 if ours else 6,
            linestyle="-" if ours else "--",
            linewidth=2.5 if ours else 1.3,
        )
    costs = [cost for points in curves.values() for cost, _ in points]
    axes.set_xlim(min(costs) * 0.7, max(costs) * 12)  # room for the names
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("forward passes for an explanation (a forward and backward pass counts as three)")
    axes.set_ylabel("mean insertion - deletion")
    axes.set_title(f"{cases} explanations that all methods share; judge: {judge}", loc="left", fontsize=10)
    axes.margins(y=0.06)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_ylim()
    ends = [points[-1] for points in curves.values()]
    places = spread(ends, 0.033 * (high - low))
    for line, family, end, place in zip(axes.get_lines(), curves, ends, places, strict=True):
        axes.annotate(
            label_of(family),
            xy=end,
            xytext=(end[0] * 1.25, place),
            color=line.get_color(),
            va="center",
            weight="bold" if family in OURS else "normal",
            arrowprops={"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.6, "shrinkB": 3},
        )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def spread(places: Sequence[tuple[float, float]], gap: float) -> list[float]:
    """Heights of labels, moved up where one would lie on another.

    Args:
        places: costs and heights of what is labelled.
        gap: between labels whose costs are less than a factor of 10 apart.
    """
    placed: dict[int, tuple[float, float]] = {}
    for index in sorted(range(len(places)), key=lambda index: places[index][1]):
        cost, height = places[index]
        near = sorted(other for x, other in placed.values() if 1 / 10 < x / cost < 10)
        for other in near:
            if abs(other - height) < gap:
                height = other + gap
        placed[index] = cost, height
    return [placed[index][1] for index in range(len(places))]
