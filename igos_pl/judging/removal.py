"""Metrics that remove cells in a mask's order: deletion and insertion, MoRF and LeRF, ROAD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igos_pl.data.geometry import upsample, upsample_nearest
from igos_pl.errors import IgosError
from igos_pl.evaluation.deletion_insertion import (
    area_under_curve,
    curve_cells,
    deletion_insertion_curves,
    removal_counts,
)
from igos_pl.judging.rows import Rows, seeded
from igos_pl.optional import imported
from igos_pl.solver.order import ranks

INPAINT = "inpaint"

# Steps of curves that are costlier than those of deletion and insertion.
_STEPS = 20
_INPAINT_STEPS = 10
_INPAINT_RADIUS = 3  # pixels

# How much of the image ROAD removes, in percent.
_PERCENTILES = (20, 40, 60, 80)

# Puts something into the removed pixels ``(B, 1, H, W)`` of images ``(B, C, H, W)`` of the rows ``(B,)``.
Fill = Callable[[Tensor, Tensor, Tensor], Tensor]


def deletion_insertion(rows: Rows) -> dict[str, Tensor]:
    """Areas under the deletion and insertion curves, by the code that judges our own masks."""
    counts = removal_counts(curve_cells(rows.problem.targets, rows.masks.shape[-1], rows.input_size))
    curves = deletion_insertion_curves(rows.network, rows.problem, rows.masks, counts, rows.micro_batches)
    return _areas(curves.deletion, curves.insertion)


def inpainted_deletion_insertion(rows: Rows) -> dict[str, Tensor]:
    """The same with removed cells painted in from the pixels around them, in fewer steps."""
    cells = curve_cells(rows.problem.targets, rows.masks.shape[-1], rows.input_size)
    counts = removal_counts(cells, _INPAINT_STEPS).unsqueeze(-1).unsqueeze(-1)
    place, fill = ranks(rows.masks, rows.problem.regions).unsqueeze(1), inpainting(rows)
    deletion = removal_curve(rows, place < counts, fill)
    insertion = removal_curve(rows, place >= counts, fill)
    return _areas(deletion, insertion)


def _areas(deletion: Tensor, insertion: Tensor) -> dict[str, Tensor]:
    areas = area_under_curve(deletion), area_under_curve(insertion)
    return {"deletion": areas[0], "insertion": areas[1], "difference": areas[1] - areas[0]}


def morf_lerf(rows: Rows) -> dict[str, Tensor]:
    """Most and least relevant cells first, whole cells with hard borders (Samek et al., TNNLS 2017)."""
    return _morf_lerf(rows, from_baseline(rows), _STEPS)


def inpainted_morf_lerf(rows: Rows) -> dict[str, Tensor]:
    """The same with removed cells painted in from the pixels around them, in fewer steps."""
    return _morf_lerf(rows, inpainting(rows), _INPAINT_STEPS)


def _morf_lerf(rows: Rows, fill: Fill, steps: int) -> dict[str, Tensor]:
    place = ranks(rows.masks, rows.problem.regions).unsqueeze(1)
    cells = rows.masks[0].numel()
    whole = torch.full((len(rows),), cells, device=place.device)
    counts = removal_counts(whole, steps).unsqueeze(-1).unsqueeze(-1)
    morf = removal_curve(rows, place < counts, fill)
    lerf = removal_curve(rows, cells - 1 - place < counts, fill)
    areas = area_under_curve(morf), area_under_curve(lerf)
    return {
        "morf": areas[0],
        "lerf": areas[1],
        "lerf_morf": areas[1] - areas[0],
        "aopc": (morf[:, :1] - morf).mean(1),
    }


def removal_curve(rows: Rows, removed: Tensor, fill: Fill) -> Tensor:
    """Scores where cells are removed with hard borders.

    Args:
        rows: R rows.
        removed: ``(R, P, s, s)`` bool, the cells that are removed at each point.
        fill: what is put in their place.

    Returns:
        ``(R, P)``.
    """
    points = removed.shape[1]
    cells = removed.flatten(0, 1)
    scores = rows.masks.new_empty(len(cells))

    def work(start: int, stop: int) -> None:
        row = torch.arange(start, stop, device=cells.device) // points
        pixels = upsample_nearest(cells[start:stop], rows.input_size).unsqueeze(1)
        images = rows.problem.images[rows.problem.targets.image[row]].contiguous()
        filled = fill(images, pixels, row).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            scored = rows.network.score(filled, rows.problem.targets.select(row))
        scores[start:stop] = scored.to(scores.dtype)

    rows.micro_batches.run(len(cells), work)
    return scores.reshape(-1, points)


def from_baseline(rows: Rows) -> Fill:
    """Fill with the images' baselines."""

    def fill(images: Tensor, removed: Tensor, row: Tensor) -> Tensor:
        baselines = rows.problem.baselines[rows.problem.targets.image[row]]
        return torch.where(removed, baselines, images)

    return fill


def inpainting(rows: Rows) -> Fill:
    """Paint in from the pixels around, by Telea's method in OpenCV; with the mean colour if none are left.

    Raises:
        IgosError: if the images do not have one or three channels, or OpenCV is missing.
    """
    cv2 = imported("cv2", "evaluate", "in-painting")
    pixels = rows.batch.images
    if pixels.shape[1] not in (1, 3):
        raise IgosError(f"In-painting needs images of 1 or 3 channels, but these have {pixels.shape[1]}")
    shares = pixels if pixels.is_floating_point() else pixels.float() / 255
    bytes_of = (shares.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()

    def fill(images: Tensor, removed: Tensor, row: Tensor) -> Tensor:
        image = rows.problem.targets.image[row].tolist()
        holes = removed[:, 0].byte().cpu().numpy()
        painted = [_painted(cv2, bytes_of[number], hole) for number, hole in zip(image, holes, strict=True)]
        found = torch.from_numpy(np.stack(painted)).permute(0, 3, 1, 2).to(images.device)
        return torch.where(removed, rows.network.normalize(found), images)

    return fill


def _painted(cv2: Any, image: Any, hole: Any) -> Any:
    """An image ``(h, w, c)`` uint8 without its hole ``(h, w)``."""
    if hole.all():
        return np.broadcast_to(image.mean((0, 1)).round().astype(np.uint8), image.shape)
    if not hole.any():
        return image
    return cv2.inpaint(np.ascontiguousarray(image), hole, _INPAINT_RADIUS, cv2.INPAINT_TELEA).reshape(
        image.shape
    )


def road(rows: Rows) -> dict[str, Tensor]:
    """ROAD of the library grad-cam (Rong et al., ICML 2022): half of LeRF - MoRF.

    The library gets the order of the cells instead of their saliency, so that it removes as much as it says
    where many cells have the same value.
    """
    library = imported("pytorch_grad_cam.metrics.road", "evaluate", "ROAD")
    place = ranks(rows.masks, rows.problem.regions).to(rows.masks.dtype)
    order = upsample(1 - place.unsqueeze(1) / place[0].numel(), rows.input_size).squeeze(1)
    everything = torch.arange(len(rows), device=order.device)
    scores = []
    for row in range(len(rows)):  # one at a time, so that each draws its own noise
        image = rows.problem.images[rows.problem.targets.image[row]].unsqueeze(0)
        with seeded(rows.problem.keys[row]):
            (found,) = library.ROADCombined(list(_PERCENTILES))(
                image,
                order[row : row + 1].cpu().numpy(),
                [lambda score: score],
                lambda images, row=row: rows.score(images, everything[row : row + 1]),
            )
        scores.append(float(found))
    return {"road": rows.masks.new_tensor(scores)}
