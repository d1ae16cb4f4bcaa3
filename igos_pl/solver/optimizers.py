"""Optimisers of masks that choose a separate step for every target of the batch.

`LineSearch` and `NAG` are `torch.optim.Optimizer`s over one parameter ``(R, M, s, s)``.
Their ``step`` takes a closure:
``closure()`` fills the parameter's gradient and returns the objective ``(R,)``; ``closure(rows)`` returns the
objective ``(n,)`` of some rows at the parameter's current value, without gradient. Any elementwise optimiser
of ``torch.optim`` (such as Adam) works as well; it only calls ``closure()``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from igos_pl.errors import IgosError

Closure = Callable[..., Tensor]
OptimizerFactory = Callable[[Iterable[Tensor]], Optimizer]

# Smaller than any relevant gradient; a row whose gradient is zero does not move, instead of dividing 0 by 0.
_TINY = 1e-30

_ARMIJO_SLOPE = 1e-4
_ARMIJO_SHRINK = 0.2
_ARMIJO_SMALLEST = 1e-5


class MaskOptimizer(Optimizer):
    """The base of `LineSearch` and `NAG`: one parameter of masks, and a separate step for every row.

    ``step_size`` is the largest change of any cell in one gradient step: each row's gradient is divided by
    the largest absolute entry that the row's gradients have had so far. So a step size has the same meaning
    for masks of 28 x 28 and of 224 x 224, for every method and every image. The raw factor ``alpha`` does not
    have this property. Smaller cells have smaller gradients, but not in proportion to their area, because the
    gradients of neighbouring pixels largely cancel.
    """

    default_step_size: float

    def __init__(
        self, params: Iterable[Tensor], step_size: float | None = None, alpha: float | None = None
    ) -> None:
        if alpha is not None and step_size is not None:
            raise IgosError(
                f"step_size is {step_size} and alpha is {alpha}, but only one can be given: make the other"
                " null"
            )
        # Not in the signature, because the command line would pass one optimiser's default on to another.
        step_size = self.default_step_size if step_size is None else step_size
        if not 0 < step_size < math.inf:
            raise IgosError(f"step_size is {step_size}, but must be above 0 and finite")
        if alpha is not None and not 0 < alpha < math.inf:
            raise IgosError(f"alpha is {alpha}, but must be above 0 and finite")
        super().__init__(params, {"step_size": step_size} if alpha is None else {"alpha": alpha})
        if len(self.param_groups) != 1 or len(self.param_groups[0]["params"]) != 1:
            raise IgosError("Mask optimisers take exactly one parameter: the masks of a batch")

    @property
    def masks(self) -> Tensor:
        """The parameter ``(R, M, s, s)``."""
        masks: Tensor = self.param_groups[0]["params"][0]
        return masks

    def rates(self) -> Tensor:
        """The factor ``(R,)`` of each row's gradient, float64; to be called once for each gradient."""
        group, gradient = self.param_groups[0], self.gradient()
        if "alpha" in group:
            return torch.full((len(gradient),), group["alpha"], dtype=torch.float64, device=gradient.device)
        largest = gradient.detach().flatten(1).abs().amax(1).double()
        state = self.state[self.masks]
        state["largest"] = torch.maximum(largest, state.get("largest", largest))
        return torch.as_tensor(group["step_size"] / state["largest"].clamp_min(_TINY))

    def gradient(self) -> Tensor:
        """The gradient that the closure left."""
        gradient = self.masks.grad
        if gradient is None:
            raise IgosError("The closure must fill the gradient of the masks")
        return gradient


class LineSearch(MaskOptimizer):
    """Gradient descent with Armijo backtracking (iGOS++, section 3.4; ``LS`` in the published code).

    Tries the full step, then a fifth of it, and so on, until the objective decreases enough. Once the raw
    step is below 1e-5, it is accepted in any case. Only rows that are still searching are evaluated.

    Args:
        params: the one parameter of masks.
        step_size: the largest change of a cell in the first trial; 1 by default.
        alpha: the first trial as a raw factor of the gradient, as published, instead of ``step_size``.

    Attributes:
        accepted: ``(R,)`` the raw steps that the last ``step`` took.
    """

    default_step_size = 1.0

    def __init__(
        self, params: Iterable[Tensor], step_size: float | None = None, alpha: float | None = None
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
        rates = self.rates()
        searching = losses.isfinite().nonzero().squeeze(1)
        self.accepted = torch.zeros_like(rates)
        while len(searching):
            rate = rates[searching].to(losses.dtype)
            masks[searching] = _descend(start[searching], gradient[searching], rate).clamp(0, 1)
            self.accepted[searching] = rates[searching]
            good = closure(searching) <= losses[searching] - rate * decrease[searching]
            searching = searching[~good & (rates[searching] >= _ARMIJO_SMALLEST)]
            rates[searching] *= _ARMIJO_SHRINK
        return losses


def tried_optimizer(factory: OptimizerFactory) -> Optimizer:
    """Make an optimiser, and check that it moves each of two masks as if that were alone.

    Returns:
        The optimiser after two steps.

    Raises:
        IgosError: if it cannot be made, does not work with masks, or mixes the masks of a batch.
    """
    if not callable(factory):
        raise IgosError(
            f"The optimizer is a {type(factory).__name__}, but must be a class or a function that makes one,"
            f" as in: from igos_pl.solver.optimizers import NAG. {_USABLE}"
        )
    gradient = torch.tensor([1.0, -0.5, 0.25, 3.0, 9.0, -7.0, 0.5, 2.0]).reshape(2, 1, 2, 2)
    try:
        _, together = _moved(factory, gradient)
        optimizer, alone = _moved(factory, gradient[:1])
    except IgosError:
        raise
    except Exception as error:  # torch's optimisers raise various exceptions
        words = str(error) or type(error).__name__
        raise IgosError(f"The optimizer cannot optimise masks: {words}. {_USABLE}") from error
    if not torch.equal(together[:1], alone):
        raise IgosError(
            f"{type(optimizer).__name__} mixes the masks of a batch, so a mask would depend on the other"
            f" images. {_USABLE}"
        )
    return optimizer


_USABLE = "Use NAG, LineSearch, or an elementwise optimiser of torch.optim, such as torch.optim.Adam"


def _moved(factory: Callable[[Iterable[Tensor]], Optimizer], gradient: Tensor) -> tuple[Optimizer, Tensor]:
    """An optimiser of masks of 0.5, and the masks after two steps with a gradient ``(R, 1, s, s)``."""
    masks = nn.Parameter(torch.full_like(gradient, 0.5))
    optimizer = factory([masks])

    def closure(rows: Tensor | None = None) -> Tensor:
        masks.grad = gradient.clone()
        losses = (masks.detach() * gradient).flatten(1).sum(1)
        return losses if rows is None else losses[rows]

    for _ in range(2):
        optimizer.step(closure)  # type: ignore[arg-type]
    return optimizer, masks.detach()


def _descend(masks: Tensor, gradient: Tensor, rates: Tensor) -> Tensor:
    return masks - rates.reshape(-1, 1, 1, 1) * gradient


class NAG(MaskOptimizer):
    """Nesterov's accelerated gradient, projected to [0, 1] (Jiang et al., BMVC 2023, section 3).

    ``t_k = m_k - alpha g_k`` and ``m_{k+1} = clamp(t_k + k / (k + 3) (t_k - t_{k-1}))``;
    ``t_{-1} = m_0``.

    Args:
        params: the one parameter of masks.
        step_size: the largest change of a cell in a gradient step; 0.2 by default.
        alpha: the raw factor of the gradient, as published, instead of ``step_size``.
    """

    default_step_size = 0.2

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """Take one step for every row; returns the objective ``(R,)`` before it."""
        assert closure is not None, "NAG needs its closure"
        losses = closure()
        masks = self.masks
        state: dict[str, Any] = self.state[masks]
        count = state.get("count", 0)
        previous = state.get("descended", masks)
        gradient = self.gradient()
        descended = _descend(masks, gradient, self.rates().to(masks.dtype))
        momentum = count / (count + 3)
        new = (descended + momentum * (descended - previous)).clamp(0, 1)
        state["descended"], state["count"] = descended, count + 1
        masks.copy_(new)
        return losses
