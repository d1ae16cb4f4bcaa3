"""PNG: for every explanation a 16-bit grey heat map, and a coloured one."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from igos_pl.data.explanation import Explanation
from igos_pl.data.overlay import SMALLEST_RANGE
from igos_pl.export.folders import publishing_folder
from igos_pl.figures.names import stem_of
from igos_pl.figures.panels import COLORS
from igos_pl.store.reader import Rows

WHITE = 65535  # the grey value of the saliency 1


def write_png(rows: Rows, output: Path, advance: Callable[[int], None]) -> str:
    """Write the heat maps in the size of their images, and a table of the files.

    Args:
        rows: the explanations.
        output: a folder.
        advance: called with the number of explanations that were written.

    Returns:
        What was written, in words.
    """
    with (
        publishing_folder(output) as folder,
        (folder / "index.csv").open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        heads = ("sample_id", "label_name", "target", "start_cell", "score", "deletion", "insertion")
        table.writerow(("grey", "coloured", "largest_saliency", *heads))
        for stem, explanation in named(rows):
            saliency = explanation.saliency_on_original()
            names = f"{stem}.png", f"{stem}-coloured.png"
            write_grey(saliency, folder / names[0])
            largest = explanation.frame.largest_on_original(explanation.saliency)
            shares = saliency / max(largest, SMALLEST_RANGE)
            Image.fromarray(_PALETTE[np.uint8(shares.clip(0, 1) * 255)]).save(folder / names[1])
            table.writerow((*names, f"{largest:.6g}", *(explanation.values[name] for name in heads)))
            advance(1)
    return f"{2 * len(rows)} pictures and index.csv"


def write_grey(saliency: NDArray[np.float32], path: Path) -> None:
    """Write saliency ``(height, width)`` in [0, 1] as a 16-bit grey PNG."""
    about = PngImagePlugin.PngInfo()
    about.add_text("Description", f"saliency = grey value / {WHITE}")
    grey = np.round(saliency.clip(0, 1) * WHITE).astype(np.uint16)
    Image.fromarray(grey).save(path, "png", pnginfo=about)


def named(rows: Rows) -> Iterator[tuple[str, Explanation]]:
    """Explanations with names for their files: ``cat``, ``cat-2``, ... They differ in more than case."""
    used: set[str] = set()
    counts: Counter[str] = Counter()
    for explanation in rows:
        stem = stem_of(str(explanation.sample_id))
        counts[stem.lower()] += 1
        name = stem if counts[stem.lower()] == 1 else f"{stem}-{counts[stem.lower()]}"
        while name.lower() in used or name.lower().endswith("-coloured"):
            counts[stem.lower()] += 1
            name = f"{stem}-{counts[stem.lower()]}"
        used.add(name.lower())
        yield name, explanation


_PALETTE = np.asarray(COLORS(np.arange(256), bytes=True))[:, :3]
