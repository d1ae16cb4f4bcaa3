"""Turns the tensors of a batch into the columns of the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igos_pl.images import frame_of
from igos_pl.localization import localize
from igos_pl.metrics import CURVE_STEPS, Curves, area_under_curve
from igos_pl.objective import Objective
from igos_pl.solver import Solution
from igos_pl.store.reader import explanations_of
from igos_pl.store.schema import BatchResult, Columns, ImageRecord
from igos_pl.targets import Targets
from igos_pl.truth import GroundTruth

# Stands for the saliency of an image without objects, where it is not looked at.
_NOWHERE = np.zeros((1, 1), np.float32)


def explanation_columns(
    targets: Targets, solution: Solution, curves: Curves, objective: Objective
) -> Columns:
    """The columns that follow from tensors alone; names, boxes and times are added by the caller.

    Curves of a single point mean that metrics are off: only the baseline's score is known then.
    """
    rows = len(targets)
    columns = {
        "masks": solution.masks,
        "target": targets.number,
        "cell": targets.cell,
        "label": targets.label,
        "score": targets.score,
        "baseline_score": curves.insertion[:, 0],
        "evaluations": objective.evaluations,
        "forwards": objective.forwards,
        "objective": solution.objective,
    }
    for name, curve in (("deletion", curves.deletion), ("insertion", curves.insertion)):
        if curve.shape[1] == 1:
            curve = curve.new_full((rows, CURVE_STEPS + 1), torch.nan)
        columns[name] = area_under_curve(curve)
        columns[f"{name}_curve"] = curve
    arrays = {name: array(column) for name, column in columns.items()}
    arrays["status"] = text("nan" if failed else "ok" for failed in solution.failed.tolist())
    return arrays


def original_boxes(
    boxes: Tensor, records: Sequence[ImageRecord], input_size: int, resize: str
) -> NDArray[np.float32]:
    """Boxes of the network's input ``(R, 4)`` in pixels of the R upright originals; NaN stays NaN."""
    corners, extents = _frames(records, resize)
    return np.asarray(array(boxes) / input_size * extents + corners, np.float32)


def input_boxes(
    boxes: NDArray[np.float32], record: ImageRecord, input_size: int, resize: str
) -> NDArray[np.float32]:
    """The reverse of `original_boxes` for boxes ``(n, 4)`` of one image."""
    corners, extents = _frames([record], resize)
    return np.asarray((boxes - corners) / extents * input_size, np.float32)


def _frames(records: Sequence[ImageRecord], resize: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Corners and extents ``(R, 4)`` of the images' frames, each as x y x y."""
    frames = np.array([frame_of(r.width, r.height, resize) for r in records], np.float64).reshape(-1, 4)
    return np.tile(frames[:, :2], 2), np.tile(frames[:, 2:] - frames[:, :2], 2)


def joined(parts: Sequence[Columns]) -> Columns:
    """The rows of several tables; no columns without any."""
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def with_diversity(columns: Columns) -> Columns:
    """Add, for each row, how its target's starts differ and whether it is the best of them.

    ``diversity`` is 1 - the mean overlap of the most important fifth of the cells over all pairs of a
    target's masks: 0 for equal masks, 1 for disjoint ones, NaN for a single start. ``best`` marks the row
    with the largest insertion - deletion (the first one where these are unknown).
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
    flat = masks.reshape(len(masks), -1)
    top = max(1, flat.shape[1] // 5)
    chosen = np.zeros(flat.shape, np.float64)
    np.put_along_axis(chosen, flat.argsort(1, kind="stable")[:, :top], 1, axis=1)
    overlaps = chosen @ chosen.T / top
    return float(1 - overlaps[np.triu_indices(len(flat), 1)].mean())


def with_localization(
    result: BatchResult, truth: Mapping[str, GroundTruth], input_size: int, resize: str
) -> BatchResult:
    """Add, for each row, how well its saliency falls on the ground-truth object that it explains.

    Args:
        result: of a batch, without these columns.
        truth: by sample id, in pixels of the upright originals.
        input_size: side of the network's input.
        resize: how images were scaled to it.
    """
    if not result.explanations:
        return result
    attributes = {"input_size": input_size, "resize": resize}
    figures = []
    for explanation in explanations_of(result, attributes):
        known = truth[explanation.sample_id]
        saliency = explanation.saliency_on_original() if len(known.boxes) else _NOWHERE
        figures.append(localize(saliency, known, explanation.label_name, explanation.box))
    columns = {name: np.array([figure[name] for figure in figures]) for name in figures[0]}
    return replace(result, explanations={**result.explanations, **columns})


def array(tensor: Tensor) -> NDArray[Any]:
    """A tensor's values as NumPy has them; bfloat16, which it does not know, as float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def text(values: Iterable[str]) -> NDArray[Any]:
    """A column of text."""
    return np.array(list(values), dtype=object)
