"""Wrong predictions with the explanations of the predicted and of the true class."""

from __future__ import annotations

import numpy as np

from igos_pl.findings.results import Confusion
from igos_pl.store import MaskFile

_EXPLAIN_BOTH = "With targets='both' (--model.network.targets both), a run explains the true class as well"


def confusions_of(masks: MaskFile) -> tuple[list[Confusion], list[str]]:
    """The pairs of a result, and notes on wrong predictions without a pair.

    The predicted class of an image is its first target, if the run explained predicted classes.

    Returns:
        The pairs, the most confident wrong prediction first, and the notes.
    """
    if masks.attributes.get("network.targets") not in ("predicted", "both") or not len(masks):
        return [], []
    numbers = np.arange(len(masks))
    ids = masks.table.read_bytes("sample_id", numbers)
    truth = masks.image_table.read("ground_truth", masks.image_rows(ids))
    label, target, best = (masks.column(name) for name in ("label", "target", "best"))
    best = best == 1
    if (truth < 0).all():
        return [], ["The images have no labels, so nothing is said about wrong predictions."]
    predicted = np.flatnonzero(best & (target == 0) & (truth >= 0) & (label != truth))
    true = np.flatnonzero(best & (label == truth))
    place = {name: row for name, row in zip(ids[true].tolist(), true.tolist(), strict=True)}
    pairs = [
        (row, place[name])
        for name, row in zip(ids[predicted].tolist(), predicted.tolist(), strict=True)
        if name in place
    ]
    score = masks.column("score")
    pairs.sort(key=lambda pair: -score[pair[0]])
    missing = len(predicted) - len(pairs)
    notes = []
    if missing:
        notes.append(
            f"Wrong predictions without an explanation of the true class: {missing:,} of {len(predicted):,}."
            f" {_EXPLAIN_BOTH}."
        )
    return [Confusion(ids[one].decode(), one, other) for one, other in pairs], notes
