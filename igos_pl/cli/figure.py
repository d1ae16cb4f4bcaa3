"""``igos-pl figure``: explanations as a figure for a paper or slides."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from igos_pl.checks import check_choice
from igos_pl.cli.choosing import chosen_groups, refuse_existing
from igos_pl.cli.options import FIRST
from igos_pl.data.wording import counted, is_or_are
from igos_pl.store import MaskFile, unfinished
from igos_pl.store.files import publishing
from igos_pl.store.selection import Numbers

KINDS = ("pdf", "svg", "png")

_HEADINGS = {
    "best": "best: largest insertion - deletion",
    "worst": "worst: smallest insertion - deletion",
    "random": "random",
}


def print_figure(options: argparse.Namespace) -> None:
    """Draw the figure, write it and say so.

    Raises:
        IgosError: if it cannot be drawn or written.
    """
    output: Path = options.output
    kind = output.suffix.removeprefix(".").lower()
    check_choice("the ending of --output", kind, KINDS)
    refuse_existing(output, options.overwrite)
    with MaskFile(options.run) as masks:
        told = unfinished(options.run, "igos-pl figure", masks.published)
        groups = chosen_groups(options, masks)
        rows = masks[np.concatenate(list(groups.values()))]
        if "all" in groups and not (options.rows or options.where):
            rows = rows[:FIRST]
        from igos_pl.figures import draw, save  # torch and matplotlib are slow to import
        from igos_pl.figures.drawing import FAINT, faint
        from igos_pl.figures.subjects import moved

        found = [moved(explanation, options.images) for explanation in rows]
        figure = draw(
            found, options.style, fraction=options.fraction, scale=options.scale, columns=options.columns,
            headings=_headings(groups), width=options.width, height=options.height, dpi=options.dpi,
        )  # fmt: skip
        whole = len(masks)
    with publishing(output) as temporary:
        save(figure, temporary, kind)
    if told:
        print(told)
    if hardly_seen := sum(faint(found, options.style, options.scale)):
        print(
            f"{counted(hardly_seen, 'mask')} can hardly be seen beside the others: the largest saliency is"
            f" below {FAINT:.0%} of the figure's, and the caption says so. --scale each gives each mask its"
            " own colours"
        )
    width, height = figure.get_size_inches()
    print(
        f"{len(rows):,} of {counted(whole, 'explanation')} {is_or_are(len(rows))} in {output}"
        f" ({width:.1f} x {height:.1f} inches, {options.dpi:g} dpi)"
    )


def _headings(groups: Mapping[str, Numbers]) -> dict[int, str]:
    """The heading of each group by the place of its first explanation; none without best and worst ones."""
    if not any(len(groups.get(name, ())) for name in ("best", "worst")):
        return {}
    starts = np.cumsum([0, *map(len, groups.values())])
    return {
        int(start): _HEADINGS[name]
        for start, (name, members) in zip(starts, groups.items(), strict=False)
        if len(members)
    }
