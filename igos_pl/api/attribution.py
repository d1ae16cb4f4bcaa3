"""Saliency with the interfaces of other libraries: Captum's ``attribute`` and Quantus' ``explain_func``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from igos_pl.api.call import explain
from igos_pl.checks import check_shape
from igos_pl.data.wording import counted
from igos_pl.errors import IgosError


class MaskAttribution:
    """Saliency with Captum's interface: ``MaskAttribution(net).attribute(x, target=y)``.

    It can be used wherever one of Captum's methods can, as in ``captum.metrics``.

    Args:
        network: see `igos_pl.explain`.
        preset: see `igos_pl.explain`.
        **settings: other arguments of `igos_pl.explain`. Curves are never measured.

    Raises:
        IgosError: if curves are asked for.
    """

    def __init__(self, network: nn.Module | str, preset: str = "fast", **settings: Any) -> None:
        if settings.get("metrics"):
            raise IgosError(
                f"metrics is {settings['metrics']!r}, but attributions come without curves: leave it out, or"
                " use igos_pl.explain"
            )
        self.network = network
        self.settings = {"preset": preset, **settings, "metrics": False}

    def attribute(self, inputs: Tensor | tuple[Tensor], target: Any = None) -> Any:
        """The saliency of every input value.

        Args:
            inputs: ``(N, C, H, W)``, or a tuple with this one tensor.
            target: a label or a function for all images, or one for each (a list, or a tensor ``(N,)``); the
                predicted class by default.

        Returns:
            Saliency in [0, 1], high = important, of the shape of ``inputs`` and on its device; of its type if
            that is a floating-point type, else float32. All channels of a pixel have the same value.

        Raises:
            IgosError: see `igos_pl.explain`.
        """
        if isinstance(inputs, tuple):
            if len(inputs) != 1:
                raise IgosError(f"inputs has {len(inputs)} tensors, but must have one")
            return (self.attribute(inputs[0], target),)
        if not isinstance(inputs, Tensor):
            raise IgosError(
                f"inputs is of the type {type(inputs).__name__}, but must be a tensor (N, C, H, W)"
            )
        check_shape("inputs", inputs, ("N", "C", "H", "W"))
        result = explain(self.network, inputs, target, **self.settings)
        if len(result) != len(inputs):
            raise IgosError(
                f"There are {len(result)} explanations for {counted(len(inputs), 'image')}, but attribute"
                " needs one for each: use igos_pl.explain"
            )
        dtype = inputs.dtype if inputs.is_floating_point() else torch.float32
        saliency = torch.from_numpy(np.stack(result.saliency_on_original())).to(inputs.device, dtype)
        return saliency.unsqueeze(1).expand_as(inputs).clone()


def explain_func(
    model: nn.Module, inputs: NDArray[Any] | Tensor, targets: NDArray[Any] | Tensor, **settings: Any
) -> NDArray[np.float32]:
    """Saliency with Quantus' interface: ``metric(model, x, y, explain_func=igos_pl.explain_func)``.

    Args:
        model: see `igos_pl.explain`.
        inputs: ``(N, C, H, W)``, the model's input.
        targets: ``(N,)`` labels.
        **settings: arguments of `igos_pl.explain`. Quantus' ``device`` and ``channel_first`` are ignored: the
            network stays where its weights are.

    Returns:
        ``(N, 1, H, W)`` in [0, 1], high = important.
    """
    own = {name: value for name, value in settings.items() if name not in ("device", "channel_first")}
    images = torch.as_tensor(np.asarray(inputs), dtype=torch.float32)
    labels = np.asarray(targets)
    is_number = labels.dtype.kind in "iuf"
    if labels.shape != (len(images),) or not (is_number and (labels == np.trunc(labels)).all()):
        raise IgosError(
            f"targets must be whole numbers, one for each of the {counted(len(images), 'image')}, but is"
            f" {labels.dtype} of the shape {labels.shape}"
        )
    attribution = MaskAttribution(model, **own)
    saliency: Tensor = attribution.attribute(images, labels.astype(int))
    return np.asarray(saliency[:, :1].numpy(), np.float32)
