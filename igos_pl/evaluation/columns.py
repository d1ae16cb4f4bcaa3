"""Turns the tensors of a batch into the columns of the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igos_pl.data.batches import ImageBatch
from igos_pl.data.records import BatchResult, Columns, ImageRecord
from igos_pl.data.targets import Targets
from igos_pl.evaluation.deletion_insertion import CURVE_STEPS, Curves, area_under_curve
from igos_pl.evaluation.localization import localize, nothing_to_localize
from igos_pl.solver.optimize import Solution
from igos_pl.solver.order import array_ranks


class Passes(Protocol):
    """What the masks of R rows cost: the objective that was minimised, for example."""

    @property
    def evaluations(self) -> Tensor:
        """``(R,)`` forward and backward passes through the network."""
        ...

    @property
    def forwards(self) -> Tensor:
        """``(R,)`` passes without gradient."""
        ...


def explanation_columns(
    targets: Targets,
    batch: ImageBatch,
    solution: Solution,
    curves: Curves,
    passes: Passes,
    label_names: Sequence[str],
    iterations: Tensor,
    seconds: float,
    regions: Tensor | None = None,
) -> Columns:
    """The columns of R rows; see `igos_pl.store.schema.EXPLANATIONS`.

    Args:
        targets: R rows.
        batch: the images that they belong to.
        solution: the masks of the rows.
        curves: of the masks. If metrics are off, the curves have a single point, and the insertion curve
            holds only the baseline's score.
        passes: what the masks cost.
        label_names: of the R rows.
        iterations: ``(R,)`` of the optimiser, or steps of the search.
        seconds: the time that all rows took together.
        regions: ``(R, s, s)`` the label of each cell's region; None if the masks are of single cells.
    """
    rows = len(targets)
    records = [batch.records[image] for image in targets.image.tolist()]
    tensors = {
        "masks": solution.masks,
        "target": targets.number,
        "start_cell": targets.start_cell,
        "label": targets.label,
        "score": targets.score,
        "baseline_score": curves.insertion[:, 0],
        "iterations": iterations,
        "evaluations": passes.evaluations,
        "forwards": passes.forwards,
        "objective": solution.objective,
    }
    for name, curve, measured in (
        ("deletion", curves.deletion, curves.deletion_measured),
        ("insertion", curves.insertion, curves.insertion_measured),
    ):
        if curve.shape[1] == 1:
            curve = curve.new_full((rows, CURVE_STEPS + 1), torch.nan)
            measured = torch.zeros_like(curve, dtype=torch.bool)
        tensors[name] = area_under_curve(curve)
        tensors[f"{name}_curve"] = curve
        tensors[f"{name}_measured"] = measured.to(torch.int8)
    if regions is not None:
        tensors["regions"] = regions.to(torch.int32)
    columns = {name: array(tensor) for name, tensor in tensors.items()}
    return {
        **columns,
        "sample_id": text(record.sample_id for record in records),
        "label_name": text(label_names),
        "box": original_boxes(targets.box, records),
        "seconds": np.full(rows, seconds / rows),
        "status": text("nan" if failed else "ok" for failed in solution.failed.tolist()),
        **localization_columns(columns["masks"], targets, batch),
    }


def original_boxes(boxes: Tensor, records: Sequence[ImageRecord]) -> NDArray[np.float32]:
    """Boxes of the network's input ``(R, 4)`` in pixels of the R upright originals; NaN stays NaN."""
    rows = [record.seen().boxes_to_original(box) for box, record in zip(array(boxes), records, strict=True)]
    return np.array(rows, np.float32).reshape(-1, 4)


def localization_columns(masks: NDArray[Any], targets: Targets, batch: ImageBatch) -> Columns:
    """For each row, the object that was detected, and how well the saliency falls on it.

    Args:
        masks: ``(R, s, s)``, low is important.
        targets: R rows.
        batch: the images that they belong to.
    """
    objects: list[int] = []
    figures: list[dict[str, float]] = []
    for mask, image, place in zip(masks, targets.image.tolist(), targets.object.tolist(), strict=True):
        if place < 0:
            objects.append(-1)
            figures.append(nothing_to_localize())
            continue
        objects.append(batch.truth[image].ids[place])
        saliency = batch.records[image].seen().saliency_on_original(1 - np.asarray(mask, np.float32))
        figures.append(localize(saliency, batch.truth[image], place))
    columns = {name: np.array([figure[name] for figure in figures]) for name in nothing_to_localize()}
    return {"object": np.array(objects, np.int64), **columns}


def joined(parts: Sequence[Columns]) -> Columns:
    """The rows of several tables as one table; an empty dict if there are no tables."""
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


# The largest allowed difference between two scores of the same image. Half precision and the batch size cause
# smaller differences.
_REPEATABLE = 0.05


def unrepeatable_scores(columns: Columns) -> dict[str, str]:
    """Warnings for images whose score changes when they are scored again.

    This compares the proposed target's score with the first point of its deletion curve, which is the score
    of the same image in another batch.

    Args:
        columns: of some rows.

    Returns:
        Texts by sample id; nothing where metrics are off.
    """
    if not columns:
        return {}
    again = columns["deletion_curve"][:, 0]
    apart = np.flatnonzero(np.abs(columns["score"] - again) > _REPEATABLE)
    return {
        columns["sample_id"][row]: (
            f"the network scores the same image {columns['score'][row]:.2f} and then {again[row]:.2f}: is"
            " dropout on, does the score depend on the other images of a batch, or does the network change"
            " its input?"
        )
        for row in apart
    }


def joined_results(parts: Sequence[BatchResult]) -> BatchResult:
    """The results of several batches as one."""
    return BatchResult(
        [record for part in parts for record in part.images],
        joined([part.explanations for part in parts if part.explanations]),
    )


def with_diversity(columns: Columns) -> Columns:
    """Add the columns ``diversity`` and ``best``, which compare the diverse starts of a target.

    ``diversity`` is one minus the overlap of the most important fifth of the cells, averaged over all pairs
    of the target's masks: 0 for equal masks, 1 for disjoint ones, NaN for a single start. ``best`` marks the
    row with the largest insertion - deletion (the first one where these are unknown).
    """
    if not columns:
        return columns
    rows = len(columns["target"])
    diversity, best = np.full(rows, np.nan, np.float32), np.zeros(rows, np.int8)
    targets: dict[tuple[str, int], list[int]] = {}
    for row, target in enumerate(zip(columns["sample_id"], columns["target"], strict=True)):
        targets.setdefault(target, []).append(row)
    quality = np.nan_to_num(columns["insertion"] - columns["deletion"], nan=-np.inf)
    for group in targets.values():
        best[group[int(quality[group].argmax())]] = 1
        if len(group) > 1:
            diversity[group] = _diversity(columns["masks"][group])
    return {**columns, "diversity": diversity, "best": best}


def _diversity(masks: NDArray[Any]) -> float:
    """Of several masks ``(n, s, s)`` of one target."""
    place = array_ranks(masks).reshape(len(masks), -1)
    top = max(1, place.shape[1] // 5)
    chosen = (place < top).astype(np.float64)
    overlaps = chosen @ chosen.T / top
    return float(1 - overlaps[np.triu_indices(len(masks), 1)].mean())


def array(tensor: Tensor) -> NDArray[Any]:
    """A tensor's values as NumPy has them; bfloat16, which it does not know, as float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def text(values: Iterable[str]) -> NDArray[Any]:
    """A column of text."""
    return np.array(list(values), dtype=object)
