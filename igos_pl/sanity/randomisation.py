"""Replaces the weights of a network by random ones, layer by layer, and brings the old ones back.

Quantus' ``MPRT`` has such a loop, too. It is not used here, for four reasons. It draws the weights of all
layers from the same seed, so that layers of the same shape get the same weights. It explains every image
again for each measure. It randomises one layer at a time, and networks have hundreds of layers. It works on a
deep copy of the network, whose code may still refer to the weights of the original.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import torch
from torch import nn

from igos_pl.errors import IgosError
from igos_pl.randomness import key_of


class Layer(NamedTuple):
    """A module with weights of its own.

    Attributes:
        name: its name in the network.
        module: the module.
    """

    name: str
    module: nn.Module


def layers_of(network: nn.Module) -> list[Layer]:
    """The layers of a network, in the order in which it defines them: usually from input to output.

    Raises:
        IgosError: if it has none.
    """
    kind = type(network).__name__
    layers = [Layer(name or kind, module) for name, module in network.named_modules() if _has_own(module)]
    if not layers:
        raise IgosError(f"{kind} has no weights, so there is nothing to randomise")
    return layers


def _has_own(module: nn.Module) -> bool:
    """Whether a module has parameters, or buffers that it can reset, which are not those of its parts."""
    parameters, buffers = list(module.parameters(recurse=False)), list(module.buffers(recurse=False))
    return bool(parameters) or (bool(buffers) and hasattr(module, "reset_parameters"))


def cascade(count: int, steps: int) -> list[int]:
    """How many layers are random in each step of a cascade: from 1 to all, in equal strides.

    Args:
        count: the number of layers.
        steps: the number of steps; fewer if there are not so many layers.
    """
    if steps == 1:
        return [count]
    return sorted({1 + round(step * (count - 1) / (steps - 1)) for step in range(steps)})


def randomise(layers: Sequence[Layer], seed: int) -> None:
    """Give layers random weights, in place.

    A layer is initialised as it was before its training, by its ``reset_parameters``. The weights of a layer
    without this method are drawn from a normal distribution with their mean and standard deviation. The
    random numbers depend only on the seed, the layer's name and the device. The global generators stay as
    they are.
    """
    gpus = {tensor.device for layer in layers for tensor in layer.module.parameters() if tensor.is_cuda}
    with torch.random.fork_rng(devices=list(gpus)), torch.inference_mode(False), torch.no_grad():
        for name, module in layers:
            torch.manual_seed(key_of(seed, "weights", name))
            reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
                continue
            for tensor in module.parameters(recurse=False):
                if tensor.is_floating_point():
                    tensor.normal_(float(tensor.mean()), float(tensor.std(correction=0)))


@contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """A context after which every parameter and buffer of a network has its old values, bit for bit.

    The tensors themselves stay the same objects in the same memory.
    """
    layers = [(layer, dict(layer._parameters), dict(layer._buffers)) for layer in network.modules()]
    with torch.inference_mode(False):
        values = [
            (tensor, tensor.data, tensor.detach().clone())
            for tensor in chain(network.parameters(), network.buffers())
        ]
    try:
        yield
    finally:
        for layer, parameters, buffers in layers:
            layer._parameters.update(parameters)
            layer._buffers.update(buffers)
        with torch.inference_mode(False), torch.no_grad():
            for tensor, data, value in values:
                tensor.data = data
                tensor.copy_(value)
