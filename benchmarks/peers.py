"""Other explanations of classifiers, as masks like ours: low is important.

Captum's integrated gradients and Grad-CAM, and RISE. Each takes a network and a problem of R rows and returns
masks ``(R, s, s)`` with the passes through the network that each row has cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from igos_pl.errors import IgosError
from igos_pl.models import Classifier
from igos_pl.randomness import generator_of
from igos_pl.solver.objective import Problem

MASK_SIZE = 28
_MICRO_BATCH = 10

# RISE as published: masks of 7 x 7 cells, each of them shown with probability 0.5.
_RISE_CELLS, _RISE_SHOWN = 7, 0.5


@dataclass(frozen=True)
class Explanation:
    """Masks and what they cost.

    Attributes:
        masks: ``(R, s, s)`` in [0, 1], low is important.
        evaluations: forward and backward passes for each row.
        forwards: passes without gradient for each row.
    """

    masks: Tensor
    evaluations: int
    forwards: int


Peer = Callable[[Classifier, Problem], Explanation]


def integrated_gradients(network: Classifier, problem: Problem, steps: int) -> Explanation:
    """Integrated gradients of the score from the baseline to the image (Sundararajan et al., ICML 2017).

    A pixel counts by the sum of its channels' absolute attributions, a cell by the mean of its pixels.

    Args:
        network: what is explained.
        problem: R rows.
        steps: positions on the path, each of which costs one evaluation.
    """
    method = _captum().IntegratedGradients(_scores_of(network))
    images, baselines = _rows(problem)
    attributions = [
        method.attribute(
            images[row : row + 1],
            baselines[row : row + 1],
            target=int(label),
            n_steps=steps,
            internal_batch_size=_MICRO_BATCH,
        )
        for row, label in enumerate(problem.targets.label)
    ]
    pixels = torch.cat(attributions).detach().abs().sum(1)
    return Explanation(masks_of(pooled(pixels)), evaluations=steps, forwards=0)


def grad_cam(network: Classifier, problem: Problem, layer: str) -> Explanation:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of the logit.

    Args:
        network: what is explained.
        problem: R rows.
        layer: the name of the module that is looked at, the last convolutional one.
    """
    method = _captum().LayerGradCam(network.module, network.module.get_submodule(layer))
    images, _ = _rows(problem)
    # The weights are frozen: a gradient reaches the layer only if it is on its way to the image.
    maps = [
        method.attribute(piece.requires_grad_(), target=label, relu_attributions=True)
        for piece, label in zip(
            torch.split(images, _MICRO_BATCH), torch.split(problem.targets.label, _MICRO_BATCH), strict=True
        )
    ]
    coarse = torch.cat(maps).detach()
    fine = F.interpolate(coarse, (MASK_SIZE, MASK_SIZE), mode="bilinear", align_corners=False)
    return Explanation(masks_of(fine.squeeze(1)), evaluations=1, forwards=0)


@torch.no_grad()
def rise(network: Classifier, problem: Problem, count: int, seed: int = 63) -> Explanation:
    """RISE (Petsiuk et al., BMVC 2018): the mean of random masks, weighted by the score that they leave.

    Hidden pixels are zeros of the normalised image, as published. All rows share the random masks.

    Args:
        network: what is explained.
        problem: R rows.
        count: random masks, each of which costs one forward pass.
        seed: of the masks.
    """
    images, _ = _rows(problem)
    generator = generator_of(torch.device("cpu"), seed, "rise")
    size = images.shape[-1]
    saliency = images.new_zeros(len(images), size, size)
    for start in range(0, count, _MICRO_BATCH):
        shown = rise_masks(min(_MICRO_BATCH, count - start), size, generator).to(images.device)
        for row, label in enumerate(problem.targets.label):
            masked = (images[row] * shown.unsqueeze(1)).contiguous(memory_format=torch.channels_last)
            scores = network.probabilities(masked)[:, label]
            saliency[row] += torch.einsum("n,nhw->hw", scores, shown)
    return Explanation(masks_of(pooled(saliency)), evaluations=0, forwards=count)


def rise_masks(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Random masks ``(count, size, size)`` in [0, 1]: upsampled cells, shifted by up to one cell."""
    cell = -(-size // _RISE_CELLS)
    cells = torch.rand(count, 1, _RISE_CELLS, _RISE_CELLS, generator=generator) < _RISE_SHOWN
    whole = (_RISE_CELLS + 1) * cell
    large = F.interpolate(cells.float(), (whole, whole), mode="bilinear", align_corners=False).squeeze(1)
    shifts = torch.randint(cell, (count, 2), generator=generator).tolist()
    pieces = [mask[y : y + size, x : x + size] for mask, (y, x) in zip(large, shifts, strict=True)]
    return torch.stack(pieces)


def pooled(pixels: Tensor) -> Tensor:
    """The means over cells: ``(R, H, W)`` to ``(R, s, s)``."""
    return F.adaptive_avg_pool2d(pixels, MASK_SIZE)


def masks_of(saliency: Tensor) -> Tensor:
    """1 - saliency scaled to [0, 1] for each row; ones where all cells are alike."""
    flat = saliency.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    scaled = (flat - low[:, None]) / (high - low).clamp_min(torch.finfo(flat.dtype).tiny)[:, None]
    return 1 - scaled.reshape(saliency.shape)


def _rows(problem: Problem) -> tuple[Tensor, Tensor]:
    """Images and baselines ``(R, 3, H, W)`` of the rows."""
    return problem.images[problem.targets.image], problem.baselines[problem.targets.image]


def _scores_of(network: Classifier) -> Callable[[Tensor], Tensor]:
    return lambda images: network.probabilities(images.contiguous(memory_format=torch.channels_last))


def _captum() -> Any:
    """Captum's methods, imported where they are needed: ours and RISE do without."""
    try:
        import captum.attr  # type: ignore[import-untyped]
    except ImportError as error:
        raise IgosError(
            "Integrated gradients and Grad-CAM are Captum's: pip install 'igos_pl[bench]'"
        ) from error
    return captum.attr
