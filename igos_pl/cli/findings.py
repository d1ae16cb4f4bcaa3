"""``igos-pl findings``: prints what the network looks at over the whole set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from igos_pl.data.text import printable
from igos_pl.data.wording import counted
from igos_pl.findings import Findings, find
from igos_pl.store import MaskFile, unfinished

_SHOWN = 20  # wrong predictions, and classes with clusters


def print_findings(path: Path) -> None:
    """Print whether the run is unfinished, and findings, clusters, wrong predictions and notes.

    Args:
        path: a merged file, a segment, or a run's folder.

    Raises:
        IgosError: if scikit-learn is not installed, or the result cannot be read.
    """
    with MaskFile(path) as masks:
        told = unfinished(path, "igos-pl findings", masks.published)
        found = find(masks)
        shown = [row for pair in found.confusions[:_SHOWN] for row in (pair.predicted_row, pair.true_row)]
        names = masks[shown].column("label_name").tolist()
        first = [one.rows[0] for one in found.findings] + [one.rows[0] for one in found.clusters]
        example = dict(zip(first, masks[first].column("sample_id").tolist(), strict=True))
    if told:
        print(told)
    print(*map(printable, _lines(found, names, example)), sep="\n")


def _lines(found: Findings, names: list[str], example: dict[int, str]) -> Iterator[str]:
    """The text.

    Args:
        found: the findings.
        names: the predicted and the true class of each pair that is shown, one after the other.
        example: the image of the first row of each finding and cluster.
    """
    for finding in found.findings:
        yield finding.title
        yield f"  {finding.certainty}"
        yield f"  for example {example[finding.rows[0]]}"
    if not found.findings and found.nothing:
        yield found.nothing
    groups = [(name, list(some)) for name, some in groupby(found.clusters, lambda one: one.class_name)]
    for name, clusters in groups[:_SHOWN]:
        parts = ", ".join(f"{one.size:,} like {example[one.rows[0]]}" for one in clusters)
        yield f"{name}: {counted(len(clusters), 'cluster')} of masks: {parts}"
    if len(groups) > _SHOWN:
        yield f"and clusters in {counted(len(groups) - _SHOWN, 'more class')}"
    for number, pair in enumerate(found.confusions[:_SHOWN]):
        predicted, true = names[2 * number : 2 * number + 2]
        rows = f"rows {pair.predicted_row} and {pair.true_row}"
        yield f"{pair.sample_id}: {predicted} instead of {true} ({rows})"
    if len(found.confusions) > _SHOWN:
        yield f"and {len(found.confusions) - _SHOWN:,} more wrong predictions with both explanations"
    yield from found.notes
