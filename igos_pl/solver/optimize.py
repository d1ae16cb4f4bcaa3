"""The loop that turns initial masks into optimised ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from igos_pl.checks import check_count
from igos_pl.solver.objective import Objective
from igos_pl.solver.regions import Regions


@dataclass(frozen=True)
class Solution:
    """The result of an optimisation.

    Attributes:
        masks: ``(R, s, s)`` in [0, 1], the product of each row's masks, or the weighted mean of the products
            over the iterations; low cells are important.
        objective: ``(R,)`` the objective before the last step.
        failed: ``(R,)`` whether the row's objective or gradient became NaN or infinite. The row keeps the
            mask from before that iteration.
    """

    masks: Tensor
    objective: Tensor
    failed: Tensor


def optimize(
    objective: Objective,
    masks: nn.Parameter,
    optimizer: Optimizer,
    iterations: int,
    average: bool = False,
    on_iteration: Callable[[int, int], None] | None = None,
    regions: Regions | None = None,
    levels: int = 0,
) -> Solution:
    """Minimise the objective over the masks.

    Args:
        objective: of R rows.
        masks: ``(R, M, s, s)``, the optimiser's one parameter; changed in place. With ``regions``, the values
            of the regions: ``(R, M, U, 1)``.
        optimizer: see `igos_pl.solver.optimizers` for what its ``step`` is given.
        iterations: at least 1.
        average: return the weighted mean of the products over the iterations, where the k-th has weight k,
            instead of the last product. Cells that end at the same bound (0 or 1) can still be ranked, by how
            early they reached it.
        on_iteration: called after each iteration with the number done and the number in all.
        regions: the parts of the masks that are optimised as a whole; single cells by default.
        levels: round the masks to multiples of ``1 / levels`` after each iteration; 0 for no rounding.
            Differences as small as the rounding errors of two devices would otherwise double with nearly
            every iteration. A step that is too small in all cells of a row is kept as it is.
    """
    check_count("iterations", iterations, 1)
    failed = torch.zeros(len(masks), dtype=torch.bool, device=masks.device)
    losses = torch.full((len(masks),), torch.nan, device=masks.device)
    product = _cells(masks.detach(), regions).prod(1)
    iteration = 0

    def closure(rows: Tensor | None = None) -> Tensor:
        nonlocal failed
        if rows is not None:
            some = None if regions is None else regions.select(rows)
            return objective.value(_cells(masks.detach()[rows], some), rows)
        values, gradient = objective.value_and_gradient(_cells(masks.detach(), regions), iteration)
        gradient = gradient if regions is None else regions.summed(gradient)
        bad = ~(values.isfinite() & gradient.flatten(1).isfinite().all(1))
        failed = failed | bad
        masks.grad = torch.where(failed.reshape(-1, 1, 1, 1), 0.0, gradient)
        return torch.where(failed, torch.nan, values)

    for iteration in range(iterations):
        before = masks.detach().clone()
        losses = optimizer.step(closure)  # type: ignore[arg-type, assignment]
        with torch.no_grad():
            moved = masks.clamp(0, 1)
            if levels:
                moved = _rounded(before, moved, levels)
            masks.copy_(torch.where(failed.reshape(-1, 1, 1, 1), before, moved))
            latest = product.lerp(_cells(masks, regions).prod(1), 2 / (iteration + 2) if average else 1.0)
            product = torch.where(failed.reshape(-1, 1, 1), product, latest)
        if on_iteration is not None:
            on_iteration(iteration + 1, iterations)
    return Solution(product, losses, failed)


def _rounded(before: Tensor, after: Tensor, levels: int) -> Tensor:
    """The masks ``(R, M, s, s)`` after a step, rounded, but where rounding would undo a row's whole step."""
    small = (after - before).abs().flatten(1).amax(1) < 0.5 / levels
    return torch.where(small.reshape(-1, 1, 1, 1), after, (after * levels).round() / levels)


def _cells(values: Tensor, regions: Regions | None) -> Tensor:
    """The masks ``(R, M, s, s)`` of the optimised values."""
    return values if regions is None else regions.spread(values)
