"""Turns the tensors of a batch into the columns of the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igos_pl.images import frame_of
from igos_pl.metrics import CURVE_STEPS, Curves, area_under_curve
from igos_pl.objective import Objective
from igos_pl.solver import Solution
from igos_pl.store.schema import Columns, ImageRecord
from igos_pl.targets import Targets


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
        "cell": torch.full((rows,), -1),
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


def array(tensor: Tensor) -> NDArray[Any]:
    """A tensor's values as NumPy has them; bfloat16, which it does not know, as float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def text(values: Iterable[str]) -> NDArray[Any]:
    """A column of text."""
    return np.array(list(values), dtype=object)
