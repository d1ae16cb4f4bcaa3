"""Metrics of the saliency map itself, and of its place: no perturbed image is scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igos_pl.data.annotations import GroundTruth
from igos_pl.evaluation.localization import (
    Region,
    box_region,
    energy_pointing_game,
    mask_region,
    pointing_game,
)
from igos_pl.judging.rows import Rows
from igos_pl.optional import imported


def sparseness(rows: Rows) -> dict[str, Tensor]:
    """Quantus' sparseness (Chalasani et al., ICML 2020): the Gini index of the cells."""
    return {"sparseness": _by_quantus("Sparseness", rows)}


def complexity(rows: Rows) -> dict[str, Tensor]:
    """Quantus' complexity (Bhatt et al., IJCAI 2020): the entropy of the cells' shares in the saliency."""
    return {"complexity": _by_quantus("Complexity", rows)}


def _by_quantus(name: str, rows: Rows) -> Tensor:
    """A metric of Quantus that needs no network; NaN where all cells are equal, which Quantus refuses."""
    quantus = imported("quantus", "evaluate", name.lower())
    metric = getattr(quantus, name)(disable_warnings=True)
    found = []
    for saliency in rows.saliency.double().cpu().numpy():
        if saliency.min() == saliency.max():
            found.append(float("nan"))
            continue
        cells = saliency[None, None]
        found += metric(
            model=None, x_batch=cells, y_batch=np.zeros(1, np.int64), a_batch=cells.copy(), channel_first=True
        )
    return rows.masks.new_tensor(found)


def pointing(rows: Rows) -> dict[str, Tensor]:
    """Whether the peak of the saliency lies in the annotated object (Zhang et al., ECCV 2016)."""
    return _localized(rows, "pointing_game", pointing_game)


def energy(rows: Rows) -> dict[str, Tensor]:
    """The share of the saliency in the annotated object (Wang et al., CVPR workshops 2020)."""
    return _localized(rows, "energy_game", energy_pointing_game)


def _localized(rows: Rows, name: str, game: Callable[[Any, Region], float]) -> dict[str, Tensor]:
    """A game's results in the boxes and in the instance masks; NaN without an annotated object."""
    figures = {f"{name}_box": np.full(len(rows), np.nan), f"{name}_mask": np.full(len(rows), np.nan)}
    targets, saliency = rows.problem.targets, rows.saliency.float().cpu().numpy()
    for row, (image, label, place) in enumerate(
        zip(targets.image.tolist(), targets.label.tolist(), targets.object.tolist(), strict=True)
    ):
        truth = rows.batch.truth[image]
        objects = [place] if place >= 0 else _objects_of(truth, rows.network.label_name(label))
        if not objects:
            continue
        original = rows.batch.records[image].seen().saliency_on_original(saliency[row])
        boxes = [box_region(truth.boxes[each], *original.shape) for each in objects]
        figures[f"{name}_box"][row] = game(original, np.logical_or.reduce(boxes))
        rles = [truth.instance_masks[each] for each in objects] if truth.instance_masks else []
        masks = [mask_region(rle) for rle in rles if rle is not None]
        if masks and len(masks) == len(objects):
            figures[f"{name}_mask"][row] = game(original, np.logical_or.reduce(masks))
    return {key: torch.from_numpy(values).to(rows.masks) for key, values in figures.items()}


def _objects_of(truth: GroundTruth, label_name: str) -> list[int]:
    """The annotated objects of the class that a classifier's target names."""
    return [place for place, name in enumerate(truth.names) if name == label_name]
