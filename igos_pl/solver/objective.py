"""The objective of every method and its gradient, for a whole batch of targets at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from igos_pl.checks import check_at_least, check_choice, check_count
from igos_pl.data.geometry import upsample
from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.randomness import generator_of
from igos_pl.solver.integration_paths import PATHS, LinearCoverage
from igos_pl.solver.methods import Method
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.regions import Regions
from igos_pl.solver.regularizers import (
    area,
    bilateral_total_variation,
    edge_weights,
    total_variation,
)


class Scorer(Protocol):
    """What the objective needs of a network."""

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """The score ``(B,)`` in [0, 1] of one target on each of ``images (B, C, H, W)``."""
        ...


@dataclass(frozen=True)
class Problem:
    """The targets of some images, with all that is needed to perturb these images.

    Attributes:
        images: ``(N, C, H, W)``, normalised for the network.
        baselines: ``(N, C, H, W)``, likewise.
        targets: R rows, any number of them for an image.
        keys: R keys from which the rows' random numbers are drawn.
        extent: ``(R,)`` the share of a mask's cells that the row's curves remove, 1 by default; see
            `igos_pl.evaluation.deletion_insertion.curve_cells`.
        regions: of the R rows' masks, if they are optimised and judged by regions instead of single cells.
    """

    images: Tensor
    baselines: Tensor
    targets: Targets
    keys: Sequence[int]
    extent: Tensor | None = None
    regions: Regions | None = None


@dataclass(frozen=True)
class ObjectiveSettings:
    """The hyperparameters of the objective.

    Attributes:
        l1: weight of the removed area. On a path with ``follows_extent``, the area is divided by
            ``Problem.extent``.
        l2: weight of the (bilateral) total variation.
        path_steps: K, the number of positions on the integration path.
        noise: standard deviation of the noise on perturbed images, in units of ``Problem.images``.
        path: ``scaled`` or ``threshold``, see `igos_pl.solver.integration_paths`.
    """

    l1: float
    l2: float
    path_steps: int
    noise: float
    path: str = "scaled"

    def __post_init__(self) -> None:
        check_at_least("l1", self.l1, 0)
        check_at_least("l2", self.l2, 0)
        check_count("path_steps", self.path_steps, 1)
        check_at_least("noise", self.noise, 0)
        check_choice("path", self.path, PATHS)


# Parts of autograd's messages about a tensor that was changed although its value is needed.
_IN_PLACE = ("in-place operation", "inplace operation", "modified inplace")

_CHANGED = (
    "The network changes its input, or a tensor that its gradient needs, in place: use x = x * 2 instead of"
    " x.mul_(2), and inplace=False"
)

_NO_GRADIENT = (
    "The network's score has no gradient with respect to the image: its output is constant, or it is detached"
    " (torch.no_grad, .detach(), .numpy(), argmax or rounding in its forward). Return a score that has a"
    " gradient"
)


class Objective:
    """Values and mask gradients of one method on one problem.

    All perturbed images (rows x terms x path positions) form one stream that is cut into micro-batches. After
    each micro-batch, the gradient with respect to the perturbed images is immediately reduced to the gradient
    of the masks, so memory does not grow with the number of terms or path positions.

    The noise depends only on (row key, iteration, term, position), so the trials of a line search have the
    same noise and the same path as the point that they are compared with.

    Attributes:
        evaluations: ``(R,)`` forward and backward passes through the network so far.
        forwards: ``(R,)`` passes without gradient.
    """

    def __init__(
        self,
        network: Scorer,
        problem: Problem,
        method: Method,
        settings: ObjectiveSettings,
        micro_batches: MicroBatches,
    ) -> None:
        self.network = network
        self.problem = problem
        self.method = method
        self.settings = settings
        self.micro_batches = micro_batches
        images = problem.images
        rows = len(problem.targets)
        self.evaluations = torch.zeros(rows, dtype=torch.int64)
        self.forwards = torch.zeros(rows, dtype=torch.int64)

        products = list(dict.fromkeys(term.masks for term in method.terms))
        self._products = products
        self._path = PATHS[settings.path]
        self._extent = torch.ones(rows).to(images)
        if self._path.follows_extent and problem.extent is not None:
            self._extent = problem.extent.to(images)
        self._iteration = 0
        self._coverage: LinearCoverage | None = None
        self._term_product = torch.tensor(
            [products.index(term.masks) for term in method.terms], device=images.device
        )
        self._term_inserts = torch.tensor(
            [term.kind == "insertion" for term in method.terms], device=images.device
        )
        self._term_signs = torch.where(self._term_inserts, -1.0, 1.0).to(images.dtype)
        # In (N, C, H, W) memory order, even if the network uses channels last: blending is faster.
        self._difference = (images - problem.baselines).contiguous()
        self._ends = torch.cat((problem.baselines, images)).contiguous()  # first where deletions end
        self._edges = edge_weights(images) if method.regularizer == "bilateral_tv" else None

    def value_and_gradient(self, masks: Tensor, iteration: int = 0) -> tuple[Tensor, Tensor]:
        """The objective ``(R,)`` of all rows and its gradient, as the update uses it.

        The method's ``score_gradient_scale`` scales the score terms of the gradient, not of the value.

        Args:
            masks: ``(R, M, s, s)`` in [0, 1].
            iteration: of the optimiser, from 0; noise and path positions depend on it.

        Returns:
            values ``(R,)`` and gradients ``(R, M, s, s)``.
        """
        rows, keys = torch.arange(len(masks), device=masks.device), self.problem.keys
        self._iteration = iteration
        self._coverage = self._path.coverage(
            self._multiplied(masks.detach()).flatten(2)[:, self._term_product],
            self._extent,
            iteration,
            self.settings.path_steps,
        )
        with torch.enable_grad():
            leaf = masks.detach().requires_grad_()
            maps = self._maps(leaf)
            penalty = self._penalty(leaf, rows)
            scores, map_gradient = self._stream(maps.detach(), self._coverage, rows, keys, gradient=True)
            map_gradient *= self.method.score_gradient_scale
            (gradient,) = torch.autograd.grad((maps, penalty), leaf, (map_gradient, torch.ones_like(penalty)))
        self.evaluations += scores[0].numel()
        return self._total(scores) + penalty.detach(), gradient

    @torch.no_grad()
    def value(self, masks: Tensor, rows: Tensor) -> Tensor:
        """The objective ``(n,)`` of some rows for other masks.

        Path and noise are those of the last `value_and_gradient`, so that the values can be compared.

        Args:
            masks: ``(n, M, s, s)``.
            rows: ``(n,)`` the rows that the masks belong to.
        """
        numbers = rows.tolist()
        keys = [self.problem.keys[number] for number in numbers]
        assert self._coverage is not None, "value_and_gradient comes first: it places the path"
        coverage = self._coverage.select(rows)
        scores, _ = self._stream(self._maps(masks), coverage, rows, keys, gradient=False)
        self.forwards[numbers] += scores[0].numel()
        return self._total(scores) + self._penalty(masks, rows)

    def _maps(self, masks: Tensor) -> Tensor:
        """The products of upsampled masks that the terms ask for: ``(n, P, H, W)``."""
        height, width = self.problem.images.shape[-2:]
        return self._multiplied(upsample(masks, (height, width)))

    def _multiplied(self, masks: Tensor) -> Tensor:
        """The products of masks that the terms ask for: ``(n, M, H, W)`` to ``(n, P, H, W)``."""
        planes = masks.unbind(1)
        return torch.stack(
            [reduce(torch.mul, [planes[mask] for mask in product]) for product in self._products], 1
        )

    def _penalty(self, masks: Tensor, rows: Tensor) -> Tensor:
        """The regulariser of the masks' product: ``(n,)``."""
        product = masks.prod(1, keepdim=True)
        if self._edges is None:
            smoothness = total_variation(product)
        else:
            images = self.problem.targets.image[rows]
            smoothness = bilateral_total_variation(product, self._edges.select(images))
        removed = area(product) / self._extent[rows]
        return self.settings.l1 * removed + self.settings.l2 * smoothness

    def _total(self, scores: Tensor) -> Tensor:
        """The sum of the terms, ``(n, T, K)`` to ``(n,)``: insertion scores count as negative."""
        return (scores.mean(2) * self._term_signs).sum(1)

    def _stream(
        self, maps: Tensor, coverage: LinearCoverage, rows: Tensor, keys: Sequence[int], gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Score all path positions of some rows.

        Never synchronises with the device, so that a GPU's queue stays full.

        Args:
            maps: ``(n, P, H, W)`` without gradient.
            coverage: ``(n, T, K)``.
            rows: ``(n,)``.
            keys: of these n rows.
            gradient: whether to compute the gradient of the terms with respect to ``maps`` as well.

        Returns:
            scores ``(n, T, K)`` and the gradient ``(n, P, H, W)`` (zeros without ``gradient``).
        """
        terms, steps = len(self.method.terms), self.settings.path_steps
        scores = maps.new_zeros(len(rows), terms, steps)
        map_gradient = torch.zeros_like(maps) if gradient else maps.new_zeros(())

        def work(start: int, stop: int) -> None:
            item = torch.arange(start, stop, device=maps.device)
            owner, term = item // (terms * steps), item // steps % terms
            targets = self.problem.targets.select(rows[owner])
            place = owner * len(self._products) + self._term_product[term]
            covered, slope = coverage.flat(item).cover(maps.flatten(0, 1).index_select(0, place))
            # Coverage c goes from 1 (the start of the path) to 0 (its end): end + c (start - end).
            change = self._difference.index_select(0, targets.image)
            reach = (self._term_signs[term].reshape(-1, 1, 1) * covered).unsqueeze(1)
            end = self._term_inserts[term] * len(self._difference) + targets.image
            images = self._ends.index_select(0, end).addcmul_(reach, change)
            if self.settings.noise > 0:
                images.add_(self._noise(images, keys, start), alpha=self.settings.noise)
            images = images.contiguous(memory_format=torch.channels_last)
            if not gradient:
                scores.view(-1)[start:stop] = self.network.score(images, targets).to(scores.dtype)
                return
            score, image_gradient = score_and_gradient(self.network, images, targets)
            # No sign is needed: for insertion, -1 in the objective cancels -1 in the blend's derivative.
            share = (image_gradient.contiguous() * change).sum(1) * (slope / steps)
            scores.view(-1)[start:stop] = score.to(scores.dtype)
            map_gradient.flatten(0, 1).index_add_(0, place, share)

        self.micro_batches.run(scores.numel(), work)
        return scores, map_gradient

    def _noise(self, images: Tensor, keys: Sequence[int], start: int) -> Tensor:
        """Standard normal noise ``(B, C, H, W)`` of the items from ``start`` on, different for each one."""
        terms, steps = len(self.method.terms), self.settings.path_steps
        noise = torch.empty_like(images)
        for item, image in enumerate(noise, start):
            row, term, step = item // (terms * steps), item // steps % terms, item % steps
            image.normal_(generator=generator_of(images.device, keys[row], self._iteration, term, step))
        return noise


def score_and_gradient(network: Scorer, images: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """The scores ``(B,)`` and their gradient ``(B, C, H, W)`` with respect to the images.

    Raises:
        IgosError: if the score has no gradient, or the network changes in place what the gradient needs.
    """
    images.requires_grad_()
    try:
        with torch.enable_grad():
            score = network.score(images, targets)
            if not score.requires_grad:  # this does not wait for the device
                raise IgosError(_NO_GRADIENT)
            (gradient,) = torch.autograd.grad(score.sum(), images)
    except RuntimeError as error:
        if any(words in str(error) for words in _IN_PLACE):
            raise IgosError(f"{_CHANGED} ({str(error).splitlines()[0]})") from error
        raise
    return score.detach(), gradient
