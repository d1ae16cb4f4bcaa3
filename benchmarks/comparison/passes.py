"""Count what a method costs from outside, so that no method counts for itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from igos_pl.models import ExplainableNetwork

# A forward and backward pass costs about three forward passes.
BACKWARD_COST = 3


@dataclass
class Passes:
    """Images that went through the network.

    Attributes:
        evaluations: forward and backward.
        forwards: forward alone.
    """

    evaluations: int = 0
    forwards: int = 0

    @property
    def cost(self) -> float:
        """In forward passes."""
        return BACKWARD_COST * self.evaluations + self.forwards


@contextmanager
def counted_passes(network: ExplainableNetwork) -> Iterator[Passes]:
    """Count the images that go through a network within a context.

    A detector's passes are those of its backbone, since its parts may be called one by one. A pass whose
    output has a gradient counts as forward and backward.
    """
    module: nn.Module = getattr(network.module, "backbone", network.module)
    passes = Passes()

    def count(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if _has_gradient(output):
            passes.evaluations += len(args[0])
        else:
            passes.forwards += len(args[0])

    handle = module.register_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def _has_gradient(output: Any) -> bool:
    if isinstance(output, Tensor):
        return output.requires_grad
    parts = output.values() if isinstance(output, dict) else output
    return any(_has_gradient(part) for part in parts)
