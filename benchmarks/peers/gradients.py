"""Captum's methods: integrated gradients, GradientSHAP and occlusion, of the target's score."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from igos_pl.models import ExplainableNetwork
from igos_pl.optional import imported
from igos_pl.solver.objective import Problem
from peers.explanation import Explanation, of_pixels
from peers.scores import MICRO_BATCH, score_of

_SEED = 63

# Standard deviation of GradientSHAP's noise, in units of the normalised image, as in Captum's tutorials.
_NOISE = 0.09


def integrated_gradients(network: ExplainableNetwork, problem: Problem, steps: int) -> Explanation:
    """Integrated gradients from the baseline to the image (Sundararajan et al., ICML 2017).

    Args:
        network: what is explained.
        problem: of one row.
        steps: positions on the path, each of which costs one forward and backward pass.
    """
    method = _captum().IntegratedGradients(score_of(network, problem))
    attributions = method.attribute(
        problem.images, problem.baselines, n_steps=steps, internal_batch_size=MICRO_BATCH
    )
    return of_pixels(_magnitude(attributions))


def gradient_shap(network: ExplainableNetwork, problem: Problem, samples: int) -> Explanation:
    """GradientSHAP (Lundberg and Lee, NeurIPS 2017): gradients at random places between baseline and image.

    Args:
        network: what is explained.
        problem: of one row.
        samples: each of them costs one forward and backward pass.
    """
    method = _captum().GradientShap(score_of(network, problem))
    before = np.random.get_state()  # noqa: NPY002  Captum draws from NumPy's global generator
    total = torch.zeros_like(problem.images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        np.random.seed(_SEED)  # noqa: NPY002
        for start in range(0, samples, MICRO_BATCH):
            number = min(MICRO_BATCH, samples - start)
            mean = method.attribute(problem.images, problem.baselines, n_samples=number, stdevs=_NOISE)
            total += number * mean.detach()
    np.random.set_state(before)  # noqa: NPY002
    return of_pixels(_magnitude(total))


def occlusion(network: ExplainableNetwork, problem: Problem, places: int) -> Explanation:
    """Occlusion (Zeiler and Fergus, ECCV 2014): the fall of the score where a window shows the baseline.

    Args:
        network: what is explained.
        problem: of one row.
        places: windows along the side of the image, which overlap by half: ``places`` squared forward passes,
            and one for the whole image.
    """
    method = _captum().Occlusion(score_of(network, problem))
    side = problem.images.shape[-1]
    window = max(1, round(2 * side / (places + 1)))
    stride = max(1, -(-(side - window) // max(1, places - 1)))
    attributions = method.attribute(
        problem.images,
        sliding_window_shapes=(problem.images.shape[1], window, window),
        strides=(problem.images.shape[1], stride, stride),
        baselines=problem.baselines,
        perturbations_per_eval=MICRO_BATCH,
    )
    return of_pixels(attributions[0].detach().mean(0))


def _magnitude(attributions: Tensor) -> Tensor:
    """A pixel counts by the sum of its channels' absolute attributions: ``(1, C, H, W)`` to ``(H, W)``."""
    return attributions[0].detach().abs().sum(0)


def _captum() -> Any:
    return imported("captum.attr", "bench", "Captum's methods")
