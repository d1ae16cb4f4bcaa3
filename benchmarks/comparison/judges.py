"""One judge for all methods: deletion and insertion in any partition, under any baseline.

A judge's name is a partition and, after a slash, a baseline (``blur`` without): ``own`` (each method's own
cells or regions), a number (cells along the side of a grid: ``28``), ``slic`` and a number (superpixels:
``slic100``), or ``smoothed`` (single pixels, of masks that are smoothed); ``28/mean``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from peers.explanation import CELLS, Explanation
from peers.partitions import Grid, Partition, slic
from peers.scores import SubsetScores
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from comparison.samples import Sample
from igos_pl.errors import IgosError
from igos_pl.evaluation.deletion_insertion import CURVE_STEPS, curve_cells
from igos_pl.models import ExplainableNetwork
from igos_pl.solver.baselines import BASELINES

# Short names of usual judges.
_SHORT = {"standard": "own/blur", "mean": "own/mean", "black": "own/black", "pooled": "28/blur"}


@dataclass(frozen=True)
class Judge:
    """A partition and a baseline, see the module."""

    partition: str
    baseline: str


def judge_named(name: str) -> Judge:
    """The judge of a name.

    Raises:
        IgosError: if there is none.
    """
    partition, _, baseline = _SHORT.get(name, name).partition("/")
    number = partition.removeprefix("slic")
    known = partition in ("own", "smoothed") or (number.isdigit() and int(number) > 1)
    if not known or (baseline or "blur") not in BASELINES:
        raise IgosError(
            f"There is no judge {name!r}: name own, smoothed, a number of cells (28) or of superpixels"
            f" (slic100), and one of the baselines {', '.join(BASELINES)}, as in 28/mean; or"
            f" {', '.join(_SHORT)}"
        )
    return Judge(partition, baseline or "blur")


def as_judged(explanation: Explanation, partition: str, sample: Sample) -> Explanation:
    """An explanation in the partition of a judge."""
    size = (sample.pixels.shape[-2], sample.pixels.shape[-1])
    if partition == "own":
        return explanation
    if partition == "smoothed":
        pixels = smoothed(explanation.partition.spread(explanation.mask[None])[0])
        return Explanation(Grid(len(pixels), size), pixels.flatten())
    number = int(partition.removeprefix("slic"))
    cells: Partition = slic(sample.pixels, number) if partition.startswith("slic") else Grid(number, size)
    return Explanation(cells, explanation.values_in(cells))


def smoothed(pixels: Tensor) -> Tensor:
    """A map ``(H, W)`` that is smoothed by a 28th of its side.

    Pixels are removed one by one then, so that no method gains by the grid on which it is judged.
    """
    sigma = len(pixels) / CELLS
    kernel = 2 * math.ceil(3 * sigma) + 1
    smooth: Tensor = gaussian_blur(pixels[None], [kernel, kernel], [sigma, sigma])
    return smooth[0]


def judge(
    network: ExplainableNetwork, sample: Sample, row: int, explanation: Explanation, by: Judge
) -> tuple[float, float]:
    """The areas under the deletion and insertion curves of one target's explanation.

    Regions are removed, or inserted, in the order of the mask; ties go to the region with the lower number.
    A classifier's curve ends where nothing is left, a detection's at three times the object's area. The area
    is over the share of that which has been removed.
    """
    judged = as_judged(explanation, by.partition, sample)
    problem = sample.problem(network, row, by.baseline)
    finest = min(network.input_size)
    share = float(curve_cells(problem.targets, finest, network.input_size)) / finest**2
    counts, shares = curve_points(judged, share)
    place = judged.mask.argsort(stable=True).argsort()
    shown = place >= counts[:, None]
    scores = SubsetScores(network, problem, judged.partition)(torch.cat((shown, ~shown)))
    deletion, insertion = scores.double().chunk(2)
    return float(torch.trapezoid(deletion, shares)), float(torch.trapezoid(insertion, shares))


def curve_points(judged: Explanation, share: float) -> tuple[Tensor, Tensor]:
    """How many regions are removed at each point of a curve, and the share of the curve's extent.

    There are 51 points on a grid of more than 50 cells, and one after each region otherwise.

    Args:
        judged: the explanation.
        share: of the image, at which the curve ends; the number of regions that comes nearest to it is taken.

    Returns:
        counts ``(P,)`` and shares ``(P,)`` from 0 to 1.
    """
    areas = judged.partition.areas[judged.mask.argsort(stable=True)]
    removed = torch.cat((areas.new_zeros(1), areas.cumsum(0)))
    last = max(1, int((removed - share).abs().argmin()))
    steps = last if not isinstance(judged.partition, Grid) else min(last, CURVE_STEPS)
    counts = torch.linspace(0, last, steps + 1, dtype=torch.float64).round().long()
    return counts, removed[counts] / removed[last]
