"""The page of a report: its charts' data, its tables, and the HTML."""

from __future__ import annotations

import base64
import datetime
import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from igos_pl import __version__
from igos_pl.data.overlay import OPACITY, RISE, SMALLEST_RANGE
from igos_pl.data.text import printable
from igos_pl.data.wording import has_regions, is_search
from igos_pl.report.colors import colored, palette_text
from igos_pl.report.curves import AXIS, mean_curves
from igos_pl.report.facts import Facts
from igos_pl.report.findings import EXAMPLES, Seen
from igos_pl.report.folder import compact_floats
from igos_pl.report.gallery import Gallery
from igos_pl.report.numbers import LOCALISATION, UNINFORMATIVE, Means, Numbers, means_by_class, means_of
from igos_pl.report.pictures import CHANGED, KEPT, MISSING, NO_FILE, OK
from igos_pl.store import MaskFile

_BINS = 40  # of a distribution
_UNKNOWN = "\N{EN DASH}"


def summary_data(masks: MaskFile, numbers: Numbers) -> dict[str, Any]:
    """The data of the charts, for JSON."""
    every = {"all": np.ones(len(numbers), bool)} if len(numbers) else {}
    groups = every | numbers.groups_of_rightness()
    return {
        "axis": compact_floats(AXIS),
        "curves": {
            name: {
                kind: {
                    "mean": compact_floats(curve.mean),
                    "half": compact_floats(curve.half_width),
                    "low": compact_floats(low),
                    "high": compact_floats(high),
                    "rows": curve.rows,
                }
                for kind, curve in kinds.items()
                for low, high in [curve.band()]
            }
            for name, kinds in mean_curves(masks, numbers.image, groups).items()
        },
        "histograms": {
            "difference": _histogram(numbers.difference, -1),
            "deletion": _histogram(numbers.columns["deletion"], 0),
            "insertion": _histogram(numbers.columns["insertion"], 0),
        },
        "uninformative": UNINFORMATIVE,
        "palette": palette_text(),
        "opacity": OPACITY,
        "rise": RISE,
        "smallestRange": SMALLEST_RANGE,
        "baseline": printable(str(masks.attributes.get("baseline", "blur"))),
        "parts": "regions" if has_regions(masks.attributes) else "cells",
        "detections": bool(np.isfinite(numbers.columns["box"]).any()),
    }


def _histogram(values: NDArray[Any], low: float) -> dict[str, Any]:
    """The counts of values from ``low`` to 1. Values outside are in the first and the last bin."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)].clip(low, 1)
    counts, edges = np.histogram(known, _BINS, (low, 1))
    return {"counts": counts.tolist(), "edges": compact_floats(edges)}


def render(
    path: Path,
    masks: MaskFile,
    facts: Facts,
    numbers: Numbers,
    summary: Mapping[str, Any],
    seen: Seen,
    gallery: Gallery,
) -> str:
    """The HTML. All text from outside is escaped.

    Raises:
        IgosError: if Jinja2 is not installed.
    """
    from igos_pl.optional import imported

    jinja2 = imported("jinja2", "report", "igos-pl report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("igos_pl.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"fixed": fixed, "percent": percent, "counted": "{:,}".format}
    every = means_of(numbers, {"all": np.ones(len(numbers), bool)} if len(numbers) else {})
    classes = sorted(means_by_class(numbers), key=lambda means: (-means.rows, means.name.casefold()))
    localised = [name for name in LOCALISATION if np.isfinite(numbers.columns[name].astype(float)).any()]
    place = {row: at for at, row in enumerate(gallery.rows.tolist())}
    return str(
        environment.get_template("index.html.j2").render(
            title=_title(path),
            version=__version__,
            facts=facts,
            every=every[0] if every else None,
            best=_best(numbers),
            classes=[printed(means) for means in classes],
            class_place={printable(name): at for at, name in enumerate(numbers.class_names)},
            sizes=means_of(numbers, numbers.groups_of_size()),
            rightness=means_of(numbers, numbers.groups_of_rightness()),
            localised={name: LOCALISATION[name] for name in localised},
            localised_rows=int(np.isfinite(numbers.columns["energy_box"].astype(float)).sum()),
            uninformative=UNINFORMATIVE,
            searched=is_search(masks.attributes),
            computed=bool(np.isfinite(numbers.difference).any()),
            summary=summary,
            seen=seen,
            findings=[
                {
                    "subject": printable(finding.subject),
                    "statement": printable(finding.statement),
                    "meaning": printable(finding.meaning),
                    "certainty": printable(finding.certainty),
                    "kind": printable(finding.kind),
                    "value": finding.value,
                    "places": _places(finding.rows, place),
                }
                for finding in seen.findings
            ],
            clusters=_clusters(seen, place),
            confusions=[
                (printable(pair.sample_id), places)
                for pair in seen.confusions
                if len(places := _places([pair.predicted_row, pair.true_row], place)) == 2
            ],
            gallery=gallery,
            pictures=_states(gallery, masks.attributes.get("created")),
        )
    )


def printed(means: Means) -> Means:
    """The means with a name that shows its control characters."""
    return Means(**{**vars(means), "name": printable(means.name)})


def _title(path: Path) -> str:
    whole = path.absolute()
    name = whole.name if whole.is_dir() or whole.name != "masks.h5" else whole.parent.name
    return printable(name)


def _best(numbers: Numbers) -> Means | None:
    """The means of the best start of each target; None if each target has one start."""
    if not len(numbers) or not (numbers.columns["start_cell"] >= 0).any():
        return None
    return means_of(numbers, {"best starts": numbers.columns["best"] == 1})[0]


def _places(rows: list[int], place: Mapping[int, int]) -> list[int]:
    """The places in the gallery of the first rows that are in it."""
    return [place[row] for row in rows if row in place][:EXAMPLES]


def _clusters(seen: Seen, place: Mapping[int, int]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The clusters by class."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cluster in seen.clusters:
        found.setdefault(printable(cluster.class_name), []).append(
            {
                "size": cluster.size,
                "places": _places(cluster.rows, place),
                "mean": _mean_mask(np.asarray(cluster.mean_mask, np.float32)),
            }
        )
    return list(found.items())


def _mean_mask(mask: NDArray[np.float32]) -> str:
    """A mean mask as a PNG, as base64. Its brightest cell has the brightest colour."""
    file = BytesIO()
    Image.fromarray(colored(mask, max(float(mask.max(initial=0)), 1e-12))).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _states(gallery: Gallery, created: Any) -> dict[str, int]:
    """The number of images by their pictures' state, and of those whose file is newer than the results."""
    states = [picture.state for picture in gallery.pictures]
    try:
        time = datetime.datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        time = math.inf
    newer = sum(picture.seconds > time + 1 for picture in gallery.pictures if picture.state == OK)
    return {state: states.count(state) for state in (OK, KEPT, MISSING, CHANGED, NO_FILE)} | {"newer": newer}


def fixed(value: float, digits: int = 3) -> str:
    """A number with a fixed number of digits; a dash if it is unknown."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else _UNKNOWN


def percent(value: float) -> str:
    """A share as a percentage; a dash if it is unknown."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else _UNKNOWN
