"""Deletion and insertion: how fast the score falls, or rises, along a mask's order of its cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from igos_pl.data.geometry import upsample
from igos_pl.data.targets import Targets
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem, Scorer
from igos_pl.solver.perturbation import blend

CURVE_STEPS = 50


@dataclass(frozen=True)
class Curves:
    """Scores along the order of a mask's cells, most important first (Petsiuk et al., BMVC 2018).

    Attributes:
        deletion: ``(R, steps + 1)``; the first is the score of the unmasked image.
        insertion: ``(R, steps + 1)``; the first is the score of the baseline.
    """

    deletion: Tensor
    insertion: Tensor


def ranks(masks: Tensor) -> Tensor:
    """The place of each cell in its mask's order, 0 for the most important (lowest).

    Ties go to the cell that comes first in reading order, everywhere.

    Args:
        masks: ``(R, s, s)``.

    Returns:
        ``(R, s, s)`` integers from 0 to ``s * s - 1``.
    """
    order = masks.flatten(1).argsort(dim=1, stable=True)
    return order.argsort(dim=1).reshape(masks.shape)


def removal_counts(cells: Tensor, steps: int = CURVE_STEPS) -> Tensor:
    """How many cells are removed at each point of a curve.

    Args:
        cells: ``(R,)`` the cells that the whole curve removes.
        steps: from the first point to the last.

    Returns:
        ``(R, steps + 1)``, from 0 to ``cells``.
    """
    fractions = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=cells.device)
    return (fractions * cells.unsqueeze(1)).round().long()


def curve_cells(targets: Targets, mask_size: int, input_size: tuple[int, int]) -> Tensor:
    """How many cells a curve removes in all (BMVC 2023, section 4): three times a detected object's area.

    The area is the instance mask's, or else the box's; a classifier's curve removes all cells.

    Args:
        targets: R rows.
        mask_size: s, cells along the side of a mask.
        input_size: height and width of the network's input in pixels.

    Returns:
        ``(R,)`` from 1 to ``s * s``.
    """
    extent = targets.box[:, 2:] - targets.box[:, :2]
    pixels = input_size[0] * input_size[1]
    share = extent.prod(1).nan_to_num(nan=float(pixels)) / pixels
    if targets.instance_mask is not None:
        inside = targets.instance_mask.flatten(1).float().mean(1)
        share = torch.where(inside > 0, inside, share)  # a mask may be empty
    return (3 * share * mask_size**2).round().long().clamp(1, mask_size**2)


def area_under_curve(curves: Tensor) -> Tensor:
    """``(R, P)`` to ``(R,)``, by the trapezoid rule over fractions from 0 to 1."""
    return torch.trapezoid(curves, dx=1 / (curves.shape[1] - 1), dim=1)


@torch.no_grad()
def deletion_insertion_curves(
    network: Scorer,
    problem: Problem,
    masks: Tensor,
    counts: Tensor,
    micro_batches: MicroBatches,
    on_images: Callable[[int, int], None] | None = None,
) -> Curves:
    """Remove each mask's cells in order; score what remains (deletion) and what was removed (insertion).

    A binary mask is made at the mask's resolution and upsampled. The image and its baseline are blended with
    it.

    Args:
        network: scores the perturbed images.
        problem: images, baselines and targets.
        masks: ``(R, s, s)``, low is important.
        counts: ``(R, P)`` cells removed at each point, see `removal_counts`.
        micro_batches: cuts the 2 R P images into pieces.
        on_images: called after each piece with the number of images scored and the number in all.
    """
    rows, points = counts.shape
    place = ranks(masks)
    size = (problem.images.shape[-2], problem.images.shape[-1])
    # In (N, C, H, W) memory order, even if the network uses channels last: blending is faster.
    images, baselines = problem.images.contiguous(), problem.baselines.contiguous()
    scores = masks.new_empty(2 * rows * points)

    def work(start: int, stop: int) -> None:
        item = torch.arange(start, stop, device=masks.device)
        inserts, row, point = item // (rows * points), item // points % rows, item % points
        kept = place[row] >= counts[row, point].reshape(-1, 1, 1)
        shown = upsample(kept.to(images.dtype).unsqueeze(1), size)
        shown = torch.where(inserts.bool().reshape(-1, 1, 1, 1), 1 - shown, shown)
        targets = problem.targets.select(row)
        whole, bare = (source.index_select(0, targets.image) for source in (images, baselines))
        blended = blend(whole, bare, shown).contiguous(memory_format=torch.channels_last)
        scores[start:stop] = network.score(blended, targets).to(scores.dtype)
        if on_images is not None:
            on_images(stop, len(scores))

    micro_batches.run(len(scores), work)
    deletion, insertion = scores.reshape(2, rows, points)
    return Curves(deletion, insertion)
