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
    """One line for each family, with its name at the right; ours are bold."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    curves = curves_of(found)
    cases = len(set.intersection(*(set(figures) for figures in found.values() if figures)))
    colours = [mpl.colormaps[name](shade) for name in ("tab10", "Dark2") for shade in range(8)]
    figure, axes = plt.subplots(figsize=(10, 6.5), layout="constrained")
    axes.set_xscale("log")
    for number, (family, points) in enumerate(curves.items()):
        ours = _is_ours(family)
        axes.plot(
            *zip(*points, strict=True),
            color=colours[number % len(colours)],
            marker="o" if ours else "s^vDP*X<>"[number % 9],
            markersize=7,
            linestyle="-" if ours else "--",
            linewidth=2.5 if ours else 1.3,
            zorder=3 if ours else 2,
        )
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("forward passes for an explanation (a forward and backward pass counts as three)")
    axes.set_ylabel("mean insertion - deletion")
    axes.set_title(f"{cases} explanations that all methods share; judge: {judge}", loc="left", fontsize=10)
    axes.margins(y=0.06)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_ylim()
    ends = [points[-1] for points in curves.values()]
    heights = spread([(height - low) / (high - low) for _, height in ends], 0.042)
    for line, family, end, height in zip(axes.get_lines(), curves, ends, heights, strict=True):
        axes.annotate(
            label_of(family),
            xy=end,
            xytext=(1.02, height),
            textcoords="axes fraction",
            color=line.get_color(),
            va="center",
            weight="bold" if _is_ours(family) else "normal",
            arrowprops={"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.6, "relpos": (0, 0.5)},
        )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _is_ours(family: str) -> bool:
    """Whether it is one of our methods; presets with published settings are others'."""
    return family in OURS and not family.startswith("published")


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights of labels that are at least a gap apart, near those given and in the same order.

    Labels that would overlap form a block around the mean of their heights.
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    blocks: list[list[int]] = []
    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and _top(blocks[-2], heights, gap) + gap > _bottom(blocks[-1], heights, gap):
            last = blocks.pop()
            blocks[-1].extend(last)
    placed = {
        index: _bottom(block, heights, gap) + gap * place
        for block in blocks
        for place, index in enumerate(block)
    }
    return [placed[index] for index in range(len(heights))]


def _bottom(block: Sequence[int], heights: Sequence[float], gap: float) -> float:
    return fmean(heights[index] for index in block) - gap * (len(block) - 1) / 2


def _top(block: Sequence[int], heights: Sequence[float], gap: float) -> float:
    return _bottom(block, heights, gap) + gap * (len(block) - 1)
