"""Optimisers of masks with a step of its own for every target of the batch.

Both are `torch.optim.Optimizer`s over one parameter ``(R, M, s, s)``. Their ``step`` takes a closure:
``closure()`` fills the parameter's gradient and returns the objective ``(R,)``; ``closure(rows)`` returns the
objective ``(n,)`` of some rows at the parameter's present value, without gradient. Any other optimiser of
``torch.optim`` that treats its elements one by one (Adam, say) fits as well: it calls ``closure()`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from igos_pl.errors import IgosError

Closure = Callable[..., Tensor]

# The mask size for which step sizes are stated, that of the papers' classification experiments.
REFERENCE_SIZE = 224

_ARMIJO_SLOPE = 1e-4
_ARMIJO_SHRINK = 0.2
_ARMIJO_SMALLEST = 1e-5


class MaskOptimizer(Optimizer):
    """What the line search and NAG share: one parameter of masks, and a resolution-independent step.

    The gradient of a cell shrinks with the number of cells, because the objective averages over them. So the
    step is stated for masks of 224 x 224 and scaled by ``(s / 224) ** 2``: it then changes the mask alike at
    every resolution.
    """

    def __init__(self, params: Iterable[Tensor], step_size: float, alpha: float | None) -> None:
        if alpha is None and not step_size > 0:
            raise IgosError(f"step_size is {step_size}, but must be above 0")
        if alpha is not None and not alpha > 0:
            raise IgosError(f"alpha is {alpha}, but must be above 0")
        super().__init__(params, {"step_size": step_size, "alpha": alpha})
        if len(self.param_groups) != 1 or len(self.param_groups[0]["params"]) != 1:
            raise IgosError("Mask optimisers take exactly one parameter: the masks of a batch")

    @property
    def masks(self) -> Tensor:
        """The parameter ``(R, M, s, s)``."""
        masks: Tensor = self.param_groups[0]["params"][0]
        return masks

    @property
    def alpha(self) -> float:
        """The raw step: the factor of the gradient."""
        group = self.param_groups[0]
        if group["alpha"] is not None:
            return float(group["alpha"])
        cells = self.masks.shape[-2] * self.masks.shape[-1]
        return float(group["step_size"]) * cells / REFERENCE_SIZE**2

    def gradient(self) -> Tensor:
        """The gradient that the closure left."""
        gradient = self.masks.grad
        if gradient is None:
            raise IgosError("The closure must fill the gradient of the masks")
        return gradient


class LineSearch(MaskOptimizer):
    """Gradient descent with Armijo backtracking (iGOS++, section 3.4; ``LS`` in the published code).

    Tries ``alpha``, ``alpha / 5``, ... until the objective falls enough; a search that has shrunk below 1e-5
    takes its last step anyway. Only rows that are still searching are evaluated.

    Args:
        params: the one parameter of masks.
        step_size: the first trial, stated for masks of 224 x 224.
        alpha: the first trial as a raw factor of the gradient, instead of ``step_size``.

    Attributes:
        accepted: ``(R,)`` the raw steps that the last ``step`` took.
    """

    def __init__(
        self, params: Iterable[Tensor], step_size: float = 1000.0, alpha: float | None = None
    ) -> None:
        super().__init__(params, step_size, alpha)
        self.accepted = torch.empty(0)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """Take one step for every row; returns the objective ``(R,)`` before it."""
        assert closure is not None, "a line search needs its closure"
        losses = closure()
        masks, gradient = self.masks, self.gradient()
        start = masks.clone()
        decrease = _ARMIJO_SLOPE * gradient.square().flatten(1).sum(1)
        searching = losses.isfinite().nonzero().squeeze(1)
        self.accepted = torch.zeros_like(losses)
        alpha = self.alpha
        while len(searching):
            masks[searching] = (start[searching] - alpha * gradient[searching]).clamp(0, 1)
            self.accepted[searching] = alpha
            good = closure(searching) <= losses[searching] - alpha * decrease[searching]
            if alpha < _ARMIJO_SMALLEST:
                break
            searching = searching[~good]
            alpha *= _ARMIJO_SHRINK
        return losses


class NAG(MaskOptimizer):
    """Nesterov's accelerated gradient, projected to [0, 1] (Jiang et al., BMVC 2023, section 3).

    ``t_k = m_k - alpha g_k`` and ``m_{k+1} = clamp(t_k + k / (k + 3) (t_k - t_{k-1}))``;
    ``t_{-1} = m_0``.

    Args:
        params: the one parameter of masks.
        step_size: stated for masks of 224 x 224.
        alpha: the raw factor of the gradient, instead of ``step_size``.
    """

    def __init__(
        self, params: Iterable[Tensor], step_size: float = 300.0, alpha: float | None = None
    ) -> None:
        super().__init__(params, step_size, alpha)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """Take one step for every row; returns the objective ``(R,)`` before it."""
        assert closure is not None, "NAG needs its closure"
        losses = closure()
        masks = self.masks
        state: dict[str, Any] = self.state[masks]
        count = state.get("count", 0)
        previous = state.get("descended", masks)
        descended = masks - self.alpha * self.gradient()
        momentum = count / (count + 3)
        new = (descended + momentum * (descended - previous)).clamp(0, 1)
        state["descended"], state["count"] = descended, count + 1
        masks.copy_(new)
        return losses
