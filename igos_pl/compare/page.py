"""The page of a comparison: one HTML file with the images side by side."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from igos_pl.compare.comparison import AGREEMENTS, Comparison
from igos_pl.compare.words import agreement_rows, counts, metric_rows, remarks, settings_in_some
from igos_pl.data.explanation import Explanation
from igos_pl.data.text import isolated, printable
from igos_pl.errors import IgosError
from igos_pl.figures.panels import Look, overlay_pixels
from igos_pl.figures.subjects import Subject, moved
from igos_pl.store import MaskFile
from igos_pl.store.selection import random_order

_SIDE = 400  # pixels of the longer side of a picture
_EACH = 8  # explanations in a section


def page(results: Sequence[MaskFile], found: Comparison, images: Path | None = None) -> tuple[str, list[str]]:
    """The page as HTML. It needs no other file and no network.

    Args:
        results: the results that were compared.
        found: what was found.
        images: where the images are now; None if they are where they were.

    Returns:
        The text, and the reasons why images could not be shown.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    lost: dict[str, str] = {}
    sections = [
        {"title": title, "rows": [_row(results, found, int(place), images, lost) for place in places]}
        for title, places in _sections(found).items()
        if len(places)
    ]
    text = environment.get_template("page.html").render(
        names=[printable(name) for name in found.names],
        title="the same images, explained in several ways",
        tab=" and ".join(map(isolated, found.names)),
        counts=". ".join(counts(found, isolated)),
        remarks=remarks(found, isolated),
        metrics=metric_rows(found),
        agreement_kinds=AGREEMENTS,
        agreements=agreement_rows(found, isolated),
        sections=sections,
        settings={
            printable(key): [printable(value) for value in values] for key, values in found.settings.items()
        },
        settings_in_some=settings_in_some(found, isolated),
    )
    return text, list(lost.values())


def _sections(found: Comparison) -> dict[str, NDArray[np.int64]]:
    """The explanations that are shown, each once."""
    spread = np.ptp(found.metrics["difference"], axis=1)
    agreement = np.nanmean(
        np.stack([np.nan_to_num(values[:, 0], nan=1.0) for values in found.agreements.values()]), 0
    )
    apart = np.argsort(-np.nan_to_num(spread, nan=-1.0), kind="stable")
    wanted = {
        "The largest differences of insertion - deletion": apart[~np.isnan(spread[apart])],
        "The least agreement of the masks": np.argsort(agreement, kind="stable"),
        "Random explanations": random_order(found.images.tolist(), 0),
    }
    shown: set[int] = set()
    sections = {}
    for title, places in wanted.items():
        new = [place for place in places.tolist() if place not in shown][:_EACH]
        shown.update(new)
        sections[title] = np.array(new, np.int64)
    return sections


def _row(
    results: Sequence[MaskFile], found: Comparison, place: int, images: Path | None, lost: dict[str, str]
) -> dict[str, Any]:
    """The image of one explanation, and the overlay of each result."""
    rows = [moved(result[int(found.pairing.rows[place, run])], images) for run, result in enumerate(results)]
    pictures = []
    for run, (name, explanation) in enumerate(zip(found.names, rows, strict=True)):
        subject = _subject(explanation, lost)
        most = explanation.frame.largest_on_original(explanation.saliency)
        if run == 0:
            pixels = None if subject is None else subject.pixels
            pictures.append(_picture("image", [], pixels, "the image", lost.get(explanation.sample_id)))
        pixels = None if subject is None else overlay_pixels(subject, Look.of(most))
        lines = [
            f"{words} {explanation.values[metric]:.3f}"
            for metric, words in (("insertion", "insertion"), ("deletion", "deletion"))
            if not np.isnan(explanation.values[metric])
        ]
        lines.append(f"saliency up to {most:.2f}")
        alt = f"saliency of {isolated(name)}"
        pictures.append(_picture(name, lines, pixels, alt, lost.get(explanation.sample_id)))
    correlations = [
        f"rank correlation {values[place, 0]:.2f}"
        for values in found.agreements.values()
        if len(results) == 2
    ]
    return {
        "label": printable(str(rows[0].label_name)),
        "image": printable(str(rows[0].sample_id)),
        "about": "".join(f", {text}" for text in correlations),
        "pictures": pictures,
    }


def _subject(explanation: Explanation, lost: dict[str, str]) -> Subject | None:
    """What is drawn; None if the image cannot be read, which is noted."""
    try:
        return Subject.of(explanation, None, _SIDE, True)
    except IgosError as error:
        lost[explanation.sample_id] = str(error)
        return None


def _picture(
    name: str, lines: list[str], pixels: NDArray[np.float64] | None, alt: str, why: str | None
) -> dict[str, Any]:
    if pixels is None:
        return {"name": printable(name), "lines": lines, "data": "", "alt": printable(why) if why else alt}
    file = BytesIO()
    Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8)).save(file, "webp", quality=80)
    data = base64.b64encode(file.getvalue()).decode()
    return {"name": printable(name), "lines": lines, "data": data, "alt": alt}
