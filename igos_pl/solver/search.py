"""A greedy search for the order of few cells or of regions: gradients propose, forward passes decide.

A set S of regions is worth p(S shown alone) - p(image without S). Each step adds the region that makes this
largest, so that insertion - deletion of the order becomes large. The plain search (Chen et al., ICLR 2024)
asks the network about every remaining region at every step. Here, an estimate of all gains chooses a few
candidates, and the network is asked about these only. The estimate is the weighted sum of two parts, each
scaled to at most 1 before:

- the gradients of both scores with respect to the regions' coverage, at this step and at earlier ones. They
  are computed at S with a small share of every remaining region added. At S itself, the gradient says little
  about a whole region;
- the gains that were measured at earlier steps.

Most scores soon reach their end: the prediction is lost without the first regions, or is complete with them
alone. Then this score is not measured any more, unless a check now and then finds that it has left its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igos_pl.data.geometry import upsample
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem, Scorer, score_and_gradient
from igos_pl.solver.optimize import Solution
from igos_pl.solver.perturbation import perturbed
from igos_pl.solver.regions import Regions

# Passes of an explanation on a grid of 7 x 7, for the display of the progress.
SEARCH_PASSES = 450


@dataclass(frozen=True)
class SearchSettings:
    """What decides which passes the search spends.

    A schedule is a sequence of (share, number): the number holds while less than this share of a row's
    regions is in order. After the last share it is 0.

    Attributes:
        candidates: schedule of how many regions are tried at a step, at least 1.
        gradients: schedule of the steps between two gradients; 0 for no gradient.
        ahead: the share of each remaining region that is added to S before the gradients are computed, in
            [0, 1).
        weight: of the gradients in the estimate; the measured gains have the weight 1.
        decay: the weight of the earlier gradients at each new one.
        absent: an image without S whose score is not above this is at its end. If the whole image's score is
            below 0.5, this is lower in proportion.
        present: a set S alone whose score is not below this is at its end.
        check: a score at its end is measured again at each step that is a multiple of this, because later
            regions may change it.
        place: the share of a region's value that its place in the order decides; the score that was reached
            before it decides the rest.
    """

    candidates: Sequence[tuple[float, int]] = ((0.25, 8), (1.0, 9))
    gradients: Sequence[tuple[float, int]] = ((0.5, 2),)
    ahead: float = 0.15
    weight: float = 1.5
    decay: float = 0.5
    absent: float = 0.05
    present: float = 0.95
    check: int = 3
    place: float = 0.1


class SubsetImages:
    """Scores images in which a set of regions is shown alone, or is removed.

    Args:
        network: scores the images.
        problem: images, baselines, targets and regions of R rows.
        size: s, cells along the side of a mask. Without regions, each cell is one.
        micro_batches: cuts the images into pieces.

    Attributes:
        regions: of the R rows.
        evaluations: ``(R,)`` forward and backward passes through the network so far.
        forwards: ``(R,)`` passes without gradient.
    """

    def __init__(self, network: Scorer, problem: Problem, size: int, micro_batches: MicroBatches) -> None:
        rows, device = len(problem.targets), problem.images.device
        self.problem = problem
        self.regions = problem.regions or Regions(
            torch.arange(size * size, device=device).reshape(size, size).expand(rows, size, size), size * size
        )
        self.evaluations = torch.zeros(rows, dtype=torch.int64)
        self.forwards = torch.zeros(rows, dtype=torch.int64)
        self._network, self._micro_batches = network, micro_batches
        # In (N, C, H, W) memory order, even if the network uses channels last: blending is faster.
        self._images, self._baselines = problem.images.contiguous(), problem.baselines.contiguous()
        self._difference = self._images - self._baselines

    def scores(self, row: Tensor, inserts: Tensor, sets: Tensor) -> Tensor:
        """Score n images, of any rows.

        Args:
            row: ``(n,)`` the row of each image.
            inserts: ``(n,)`` bool: whether the set is shown on the baseline, or removed from the image.
            sets: ``(n, U)`` bool, the regions in the set.

        Returns:
            ``(n,)``.
        """
        self.forwards += torch.bincount(row, minlength=len(self.forwards)).cpu()
        return self._stream(row, sets == inserts.unsqueeze(1), gradient=False)[0]

    def gradients(self, row: Tensor, inserts: Tensor, sets: Tensor, ahead: float) -> Tensor:
        """The gradients of n images' scores with respect to how much of each region is shown.

        Args:
            row: see `scores`.
            inserts: see `scores`.
            sets: see `scores`.
            ahead: the share of every other region that is shown or removed with the set.

        Returns:
            ``(n, U)``.
        """
        self.evaluations += torch.bincount(row, minlength=len(self.evaluations)).cpu()
        share = torch.where(sets, 1.0, ahead)
        return self._stream(row, torch.where(inserts.unsqueeze(1), share, 1 - share), gradient=True)[1]

    def _stream(self, row: Tensor, visible: Tensor, gradient: bool) -> tuple[Tensor, Tensor]:
        """Scores ``(n,)``, and gradients ``(n, U)``, which are zeros without ``gradient``.

        Args:
            row: ``(n,)``.
            visible: ``(n, U)`` the share of each region that is shown, in [0, 1].
            gradient: whether to compute the gradients.
        """
        scores = torch.zeros(len(row), device=row.device)
        gradients = torch.zeros(visible.shape, device=row.device)
        size = (self._images.shape[-2], self._images.shape[-1])

        def work(start: int, stop: int) -> None:
            part = slice(start, stop)
            targets = self.problem.targets.select(row[part])
            regions = self.regions.select(row[part])
            shares = visible[part, None, :, None].to(self._images.dtype)
            cells = regions.spread(shares).requires_grad_(gradient)
            shown = upsample(cells, size)
            blended = perturbed(self._images, self._baselines, targets.image, shown.detach())
            if not gradient:
                scores[part] = self._network.score(blended, targets).to(scores.dtype)
                return
            found, slopes = score_and_gradient(self._network, blended, targets)
            change = self._difference.index_select(0, targets.image)
            slopes = (slopes.contiguous() * change).sum(1, keepdim=True)
            if shown is not cells:
                (slopes,) = torch.autograd.grad(shown, cells, slopes)
            scores[part] = found.to(scores.dtype)
            gradients[part] = regions.summed(slopes).reshape(len(found), -1).to(gradients.dtype)

        with torch.set_grad_enabled(gradient):
            self._micro_batches.run(len(row), work)
        return scores, gradients


@dataclass(frozen=True)
class Searched:
    """The result of a search.

    Attributes:
        solution: the masks. A region's value is how much of the rise of p(S alone) - p(image without S) was
            reached before the region, from 0 (nothing, for the first region) to 1 (all of it). The region's
            place in the order decides a tenth of the value, so that no two regions are equal. The objective
            is the mean of p(image without S) - p(S alone) over the steps; NaN if there was no step, as for a
            single region. If a score became NaN or infinite, the row has failed: its regions are in the order
            of the estimates from then on.
        steps: ``(R,)`` integer: how many regions the network was asked to put into order.
    """

    solution: Solution
    steps: Tensor


@torch.no_grad()
def search(
    images: SubsetImages,
    settings: SearchSettings = SearchSettings(),
    on_step: Callable[[int, int], None] | None = None,
) -> Searched:
    """Put the regions of R rows into order, the most important first.

    Where the curves of a row end before all cells are removed (`Problem.extent`), the network is asked only
    up to there; the estimates put the rest into order. Equal candidates are taken by their estimate, then by
    their number. Rows do not affect each other.

    Args:
        images: gives the scores of R rows.
        settings: see there.
        on_step: called after each step with the number of steps done and the number in all.
    """
    orders, steps = _Orders(images, settings), images.regions.count if len(images.forwards) else 0
    for step in range(steps):
        orders.extend(step)
        if on_step is not None:
            on_step(step + 1, steps)
    return orders.result()


class _Orders:
    """The orders of R rows, as far as they are known, and what is known of the regions that are left.

    The first axis of tensors ``(2, R, ...)`` is the side: S alone (insertion), then the image without S
    (deletion).
    """

    def __init__(self, images: SubsetImages, settings: SearchSettings) -> None:
        self._images, self._settings = images, settings
        self._sizes = sizes = images.regions.sizes()
        (rows, count), device = sizes.shape, sizes.device
        extent = images.problem.extent
        cells = sizes.sum(1)
        self._end = cells if extent is None else (cells * extent.to(device)).round()
        self._inserts = torch.tensor([True, False], device=device)
        self._left = sizes > 0
        self._totals = self._left.sum(1)
        self._chosen = torch.zeros_like(self._left)
        self._place = torch.zeros_like(sizes)
        self._reached = torch.zeros(rows, count, device=device)  # the top before each region was added
        self._slopes = torch.zeros(2, rows, count, device=device)
        self._gains = torch.zeros(2, rows, count, device=device)
        self._objective = torch.zeros(rows, device=device)
        self._steps = torch.zeros_like(self._totals)
        everywhere = torch.ones(2, rows, dtype=torch.bool, device=device)
        side, row = everywhere.nonzero(as_tuple=True)
        self._scores = images.scores(row, self._inserts[side], self._chosen[row]).reshape(2, rows)
        self._failed = ~self._scores.isfinite().all(0)
        self._start = self._top = self._scores[0] - self._scores[1]
        self._absent = settings.absent * (2 * self._scores[1]).clamp_max(1)

    def extend(self, step: int) -> None:
        """Add a region to every row that has one left."""
        share = step / self._totals
        due = (self._totals > step + 1) & ((self._sizes * self._chosen).sum(1) < self._end) & ~self._failed
        if step and step % self._settings.check == 0:
            self._check(due & ~self._open())
        wanted = due & self._open() & ~self._failed
        every = _scheduled(self._settings.gradients, share)
        self._look_at_gradients(wanted & (every > 0) & (step % every.clamp_min(1) == 0))
        candidates = torch.minimum(
            _scheduled(self._settings.candidates, share).clamp_min(1), self._left.sum(1)
        )
        ranked = self._ranked()[:, : int(candidates.max())]
        offered = torch.arange(ranked.shape[1], device=ranked.device) < candidates.unsqueeze(1)
        tried = self._tried(wanted & ~self._failed, ranked, offered)
        self._take(step, tried, ranked, offered)
        self._objective += torch.where(due, self._scores[1] - self._scores[0], 0.0)
        self._steps += due

    def result(self) -> Searched:
        """The orders as masks."""
        place = self._place / (self._totals - 1).clamp_min(1).unsqueeze(1)
        rise = (self._top - self._start).unsqueeze(1)
        # Without a rise, or with a first score that is NaN, the place is all that is known.
        reached = torch.where(rise > 0, (self._reached - self._start.unsqueeze(1)) / rise, place)
        values = reached.lerp(place, self._settings.place).clamp_max(1)
        masks = self._images.regions.spread(values[:, None, :, None]).squeeze(1)
        objective = torch.where(self._failed, torch.nan, self._objective / self._steps)  # NaN without a step
        return Searched(Solution(masks, objective, self._failed), self._steps)

    def _open(self) -> Tensor:
        """The sides ``(2, R)`` whose scores have not reached their end."""
        return torch.stack((self._scores[0] < self._settings.present, self._scores[1] > self._absent))

    def _check(self, closed: Tensor) -> None:
        """Ask whether some sides ``(2, R)`` are still at their end."""
        side, row = closed.nonzero(as_tuple=True)
        found = self._images.scores(row, self._inserts[side], self._chosen[row])
        self._failed[row[~found.isfinite()]] = True
        self._scores[side, row] = torch.where(found.isfinite(), found, self._scores[side, row])
        self._top = torch.maximum(self._top, self._scores[0] - self._scores[1])

    def _look_at_gradients(self, wanted: Tensor) -> None:
        """Add the gradients of some sides ``(2, R)`` to what is known."""
        side, row = wanted.nonzero(as_tuple=True)
        found = self._images.gradients(row, self._inserts[side], self._chosen[row], self._settings.ahead)
        self._failed[row[~found.isfinite().all(1)]] = True
        # Showing more of a region adds to the set alone, and takes from what is removed: both are gains.
        self._slopes[side, row] = self._settings.decay * self._slopes[side, row] + found.nan_to_num(0, 0, 0)

    def _ranked(self) -> Tensor:
        """The regions ``(R, U)`` by their estimated gains; those that are in order come last."""
        estimate = self._settings.weight * _scaled(self._slopes.sum(0), self._left) + _scaled(
            self._gains.sum(0), self._left
        )
        return estimate.masked_fill(~self._left, -torch.inf).argsort(dim=1, descending=True, stable=True)

    def _tried(self, wanted: Tensor, ranked: Tensor, offered: Tensor) -> Tensor:
        """The scores with each candidate added.

        Args:
            wanted: ``(2, R)`` the sides that are asked. The scores of others stay as they are.
            ranked: ``(R, C)`` the numbers of the candidates.
            offered: ``(R, C)`` bool: False where a row has fewer candidates.

        Returns:
            ``(2, R, C)``.
        """
        asked = wanted.unsqueeze(2) & offered
        side, row, rank = asked.nonzero(as_tuple=True)
        sets = self._chosen[row].scatter(1, ranked[row, rank].unsqueeze(1), True)
        before = self._scores.unsqueeze(2)
        tried = before.repeat(1, 1, ranked.shape[1])
        tried[side, row, rank] = self._images.scores(row, self._inserts[side], sets)
        self._failed = self._failed | ~tried.isfinite().all(2).all(0)
        tried = torch.where(self._failed.unsqueeze(1), before, tried)
        measured = torch.stack((tried[0] - before[0], before[1] - tried[1]))
        # The gains of a score that has reached its end are no longer true.
        self._gains = torch.where(self._open().unsqueeze(2), self._gains, 0.0)
        places = ranked.expand(2, -1, -1)
        self._gains.scatter_(2, places, torch.where(asked, measured, self._gains.gather(2, places)))
        return tried

    def _take(self, step: int, tried: Tensor, ranked: Tensor, offered: Tensor) -> None:
        """Add to each row its candidate with the largest value."""
        worth = (tried[0] - tried[1]).masked_fill(~offered, -torch.inf)
        best = worth.argmax(1, keepdim=True)
        some = self._left.any(1)
        taken = torch.zeros_like(self._left).scatter(1, ranked.gather(1, best), True) & self._left
        self._reached = torch.where(taken, self._top.unsqueeze(1), self._reached)
        self._scores = torch.where(some, tried.gather(2, best.expand(2, -1, -1)).squeeze(2), self._scores)
        self._top = torch.maximum(self._top, self._scores[0] - self._scores[1])
        self._chosen, self._left = self._chosen | taken, self._left & ~taken
        self._place = torch.where(taken, step, self._place)


def _scheduled(schedule: Sequence[tuple[float, int]], share: Tensor) -> Tensor:
    """The numbers ``(R,)`` that hold at some shares ``(R,)``."""
    numbers = torch.zeros_like(share, dtype=torch.int64)
    for end, number in reversed(schedule):
        numbers = torch.where(share < end, number, numbers)
    return numbers


def _scaled(values: Tensor, among: Tensor) -> Tensor:
    """Values ``(R, U)``, divided by the largest absolute one among some of them."""
    largest = values.masked_fill(~among, 0).abs().amax(1, keepdim=True)
    return values / largest.clamp_min(torch.finfo(values.dtype).tiny)
