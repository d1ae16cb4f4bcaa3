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
from igos_pl.solver.order import ranks
from igos_pl.solver.perturbation import perturbed

CURVE_STEPS = 50


@dataclass(frozen=True)
class Curves:
    """Scores along the order of a mask's cells, most important first (Petsiuk et al., BMVC 2018).

    Attributes:
        deletion: ``(R, P)``; the first is the score of the unmasked image.
        insertion: ``(R, P)``; the first is the score of the baseline.
        deletion_measured: ``(R, P)`` bool: True where the network was asked, False where the score is on the
            straight line between the points that were measured.
        insertion_measured: ``(R, P)`` likewise.
    """

    deletion: Tensor
    insertion: Tensor
    deletion_measured: Tensor
    insertion_measured: Tensor


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


class CurveImages:
    """Makes and scores the images along the curves of some masks.

    A binary mask is made at the mask's resolution and upsampled. The image and its baseline are blended with
    it. If the problem has regions, they are removed as a whole.

    Args:
        network: scores the perturbed images.
        problem: images, baselines, targets and regions of R rows.
        masks: ``(R, s, s)``, low is important.
        micro_batches: cuts the images into pieces.
    """

    def __init__(self, network: Scorer, problem: Problem, masks: Tensor, micro_batches: MicroBatches) -> None:
        self.place = ranks(masks, problem.regions)
        self._network, self._problem, self._micro_batches = network, problem, micro_batches
        # In (N, C, H, W) memory order, even if the network uses channels last: blending is faster.
        self._images, self._baselines = problem.images.contiguous(), problem.baselines.contiguous()

    @torch.no_grad()
    def score(
        self, row: Tensor, inserts: Tensor, count: Tensor, on_images: Callable[[int], None] | None = None
    ) -> Tensor:
        """Score n images, of any rows.

        Args:
            row: ``(n,)`` the row of each image.
            inserts: ``(n,)`` bool: whether the most important cells are shown on the baseline (insertion), or
                removed from the image (deletion).
            count: ``(n,)`` the number of these cells.
            on_images: called after each micro-batch with the number of images scored so far.

        Returns:
            ``(n,)``.
        """
        size = (self._images.shape[-2], self._images.shape[-1])
        scores = torch.empty(len(row), device=row.device)

        def work(start: int, stop: int) -> None:
            part = slice(start, stop)
            kept = self.place[row[part]] >= count[part].reshape(-1, 1, 1)
            shown = upsample(kept.to(self._images.dtype).unsqueeze(1), size)
            shown = torch.where(inserts[part].reshape(-1, 1, 1, 1), 1 - shown, shown)
            targets = self._problem.targets.select(row[part])
            blended = perturbed(self._images, self._baselines, targets.image, shown)
            scores[part] = self._network.score(blended, targets).to(scores.dtype)
            if on_images is not None:
                on_images(stop)

        self._micro_batches.run(len(scores), work)
        return scores


def deletion_insertion_curves(
    network: Scorer,
    problem: Problem,
    masks: Tensor,
    counts: Tensor,
    micro_batches: MicroBatches,
    on_images: Callable[[int, int], None] | None = None,
) -> Curves:
    """Remove each mask's cells in order; score what remains (deletion) and what was removed (insertion).

    All points are measured. `igos_pl.evaluation.adaptive_curves` measures fewer.

    Args:
        network: scores the perturbed images.
        problem: images, baselines and targets.
        masks: ``(R, s, s)``, low is important.
        counts: ``(R, P)`` cells removed at each point, see `removal_counts`.
        micro_batches: cuts the 2 R P images into pieces.
        on_images: called after each piece with the number of images scored and the number in all.
    """
    rows, points = counts.shape
    item = torch.arange(2 * rows * points, device=masks.device)
    row, inserts = item // points % rows, item >= rows * points
    scores = CurveImages(network, problem, masks, micro_batches).score(
        row,
        inserts,
        counts.flatten().repeat(2),
        None if on_images is None else lambda done: on_images(done, len(item)),
    )
    deletion, insertion = scores.reshape(2, rows, points)
    measured = torch.ones_like(deletion, dtype=torch.bool)
    return Curves(deletion, insertion, measured, measured)
