"""Methods that weigh random masks: RISE, D-RISE and HSIC attribution."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from igos_pl.models import ExplainableNetwork
from igos_pl.models.detector import Detections, Detector
from igos_pl.randomness import generator_of
from igos_pl.solver.objective import Problem
from igos_pl.solver.perturbation import blend
from peers.explanation import Explanation, of_cells, of_pixels
from peers.partitions import Grid
from peers.scores import MICRO_BATCH, SubsetScores, masked_scores

# Cells of a random mask along the side as published; each is shown with probability 0.5.
RISE_CELLS, D_RISE_CELLS, HSIC_CELLS = 7, 16, 7
_SHOWN = 0.5
_SEED = 63


@torch.no_grad()
def rise(network: ExplainableNetwork, problem: Problem, count: int) -> Explanation:
    """RISE (Petsiuk et al., BMVC 2018): the mean of random masks, weighted by the score that they leave.

    Hidden pixels are zeros of the normalised image, as published.

    Args:
        network: what is explained.
        problem: of one row.
        count: random masks, each of which costs one forward pass.
    """
    black = replace(problem, baselines=torch.zeros_like(problem.images))
    generator = generator_of(torch.device("cpu"), _SEED, "rise")
    size = problem.images.shape[-1]
    saliency = torch.zeros(size, size)
    for number in _pieces(count):
        shown = random_masks(number, RISE_CELLS, size, generator)
        saliency += torch.einsum("n,nhw->hw", masked_scores(network, black, shown), shown)
    return of_pixels(saliency)


@torch.no_grad()
def d_rise(network: ExplainableNetwork, problem: Problem, count: int) -> Explanation:
    """D-RISE (Petsiuk et al., CVPR 2021): random masks, weighted by how well the detection is found again.

    A mask's weight is the best product of overlap (IoU) and score among the detections of the same class. The
    published weight compares the scores of all classes, which torchvision's detectors do not return.

    Args:
        network: a detector.
        problem: of one row; hidden pixels are black.
        count: random masks, each of which costs one forward pass.
    """
    assert isinstance(network, Detector)
    generator = generator_of(torch.device("cpu"), _SEED, "d-rise")
    size = problem.images.shape[-1]
    saliency = torch.zeros(size, size)
    for number in _pieces(count):
        shown = random_masks(number, D_RISE_CELLS, size, generator)
        images = problem.images.expand(number, -1, -1, -1)
        found = network.detect(blend(images, torch.zeros_like(images), shown.unsqueeze(1)))
        weights = [similarity(each, problem.targets.box[0], int(problem.targets.label[0])) for each in found]
        saliency += torch.einsum("n,nhw->hw", torch.stack(weights), shown)
    return of_pixels(saliency)


def similarity(found: Detections, box: Tensor, label: int) -> Tensor:
    """The best IoU times score of the detections of a class; 0 without any."""
    overlap = box_iou(box[None], found.boxes)[0] * found.scores * (found.labels == label)
    return overlap.max() if len(overlap) else torch.zeros(())


def random_masks(count: int, cells: int, size: int, generator: torch.Generator) -> Tensor:
    """RISE's masks ``(count, size, size)`` in [0, 1]: upsampled cells, shifted by up to one cell."""
    cell = -(-size // cells)
    shown = torch.rand(count, 1, cells, cells, generator=generator) < _SHOWN
    whole = (cells + 1) * cell
    large = F.interpolate(shown.float(), (whole, whole), mode="bilinear", align_corners=False).squeeze(1)
    shifts = torch.randint(cell, (count, 2), generator=generator).tolist()
    pieces = [mask[y : y + size, x : x + size] for mask, (y, x) in zip(large, shifts, strict=True)]
    return torch.stack(pieces)


def hsic(network: ExplainableNetwork, problem: Problem, count: int) -> Explanation:
    """HSIC attribution (Novello et al., NeurIPS 2022): how much the score depends on each cell.

    The Hilbert-Schmidt independence criterion between a cell being shown and the score, over random subsets
    of 7 x 7 cells. Hidden cells show the problem's baseline.

    Args:
        network: what is explained.
        problem: of one row.
        count: random subsets, each of which costs one forward pass.
    """
    size = (problem.images.shape[-2], problem.images.shape[-1])
    scores = SubsetScores(network, problem, Grid(HSIC_CELLS, size))
    generator = generator_of(torch.device("cpu"), _SEED, "hsic")
    shown = torch.rand(count, HSIC_CELLS**2, generator=generator) < _SHOWN
    dependence = hsic_of(shown.double(), scores(shown).double())
    return of_cells(dependence.float().reshape(HSIC_CELLS, HSIC_CELLS), size)


def hsic_of(inputs: Tensor, outputs: Tensor) -> Tensor:
    """The biased estimates ``(G,)`` of HSIC between binary inputs ``(n, G)`` and outputs ``(n,)``.

    The kernels are those of the paper: whether inputs are equal, and a Gaussian of outputs whose bandwidth is
    the median of their distances. Centred, the first is twice the product of the centred inputs.
    """
    distances = (outputs[:, None] - outputs[None]).abs()
    upper = distances[torch.ones_like(distances, dtype=torch.bool).triu(1)]
    bandwidth = upper.median().clamp_min(torch.finfo(outputs.dtype).tiny)
    kernel = torch.exp(-0.5 * (distances / bandwidth).square())
    centred = inputs - inputs.mean(0)
    return 2 * torch.einsum("ng,nm,mg->g", centred, kernel, centred) / len(outputs) ** 2


def _pieces(count: int) -> list[int]:
    """Sizes of micro-batches that are ``count`` in all."""
    return [min(MICRO_BATCH, count - start) for start in range(0, count, MICRO_BATCH)]
