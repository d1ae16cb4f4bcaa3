"""The score of one target on masked images: all that a method without gradients needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from igos_pl.models import ExplainableNetwork
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem
from igos_pl.solver.perturbation import blend
from peers.partitions import Partition

MICRO_BATCH = 10


def score_of(network: ExplainableNetwork, problem: Problem) -> Callable[[Tensor], Tensor]:
    """The score ``(B,)`` of a problem's only target as a function of images ``(B, C, H, W)``."""

    def score(images: Tensor) -> Tensor:
        targets = problem.targets.select(torch.zeros(len(images), dtype=torch.long))
        return network.score(images.contiguous(memory_format=torch.channels_last), targets)

    return score


@torch.no_grad()
def masked_scores(network: ExplainableNetwork, problem: Problem, maps: Tensor) -> Tensor:
    """The scores ``(B,)`` where maps ``(B, H, W)`` keep the image (1) or show the baseline (0)."""
    score = score_of(network, problem)
    scores = maps.new_empty(len(maps))

    def work(start: int, stop: int) -> None:
        shape = (stop - start, -1, -1, -1)
        image, baseline = problem.images.expand(shape), problem.baselines.expand(shape)
        scores[start:stop] = score(blend(image, baseline, maps[start:stop].unsqueeze(1)))

    MicroBatches(MICRO_BATCH).run(len(maps), work)
    return scores


class SubsetScores:
    """The scores of one target where only some regions of the image are shown.

    Args:
        network: what is explained.
        problem: of one row.
        partition: the regions.
    """

    def __init__(self, network: ExplainableNetwork, problem: Problem, partition: Partition) -> None:
        self._network = network
        self._problem = problem
        self.partition = partition

    def __call__(self, shown: Tensor) -> Tensor:
        """The scores ``(B,)`` of subsets ``(B, G)``: 1 where a region is shown, 0 where its baseline is."""
        parts = torch.split(shown.float(), MICRO_BATCH)  # maps are large
        maps = (self.partition.spread(part) for part in parts)
        return torch.cat([masked_scores(self._network, self._problem, part) for part in maps])

    def insertion_minus_deletion(self, sets: Tensor) -> Tensor:
        """``(B,)``: the score of the sets ``(B, G)`` bool alone, minus the score of all else. Two passes."""
        alone, rest = self(torch.cat((sets, ~sets))).chunk(2)
        return alone - rest
