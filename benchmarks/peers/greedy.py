"""The plain greedy search for an order of regions, and what all such searches share.

A set of regions is worth the score of the set alone minus the score of the image without it. The plain greedy
search asks the network about every remaining region at every step, which is G (G + 1) passes for G regions.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from peers.explanation import Explanation, of_order
from peers.scores import SubsetScores


class Search:
    """The state of a search: the regions that it has taken so far.

    Args:
        scores: of the target that is explained.

    Attributes:
        order: the numbers of the regions that were taken, the most important first.
    """

    def __init__(self, scores: SubsetScores) -> None:
        self._scores = scores
        self._taken = torch.zeros(len(scores.partition), dtype=torch.bool)
        self.order: list[int] = []

    def left(self) -> Tensor:
        """The numbers of the regions that were not taken, in rising order."""
        return (~self._taken).nonzero().squeeze(1)

    def worths(self, groups: Tensor) -> Tensor:
        """What the taken regions are worth with each row of regions ``(n, k)``: ``(n,)``, two passes each."""
        sets = self._taken.repeat(len(groups), 1)
        sets.scatter_(1, groups, torch.ones_like(groups, dtype=torch.bool))
        return self._scores.insertion_minus_deletion(sets)

    def take(self, regions: Iterable[int]) -> None:
        """Take regions, the most important first."""
        for region in regions:
            self.order.append(region)
            self._taken[region] = True

    def explanation(self) -> Explanation:
        """The explanation, once all regions were taken."""
        return of_order(torch.tensor(self.order), self._scores.partition)


def greedy(scores: SubsetScores) -> Explanation:
    """The plain search, with the score terms of Chen et al. (ICLR 2024): consistency and collaboration.

    Their terms of confidence and of distance between features need a network of their own.
    """
    search = Search(scores)
    while len(left := search.left()):
        search.take([int(left[search.worths(left[:, None]).argmax()])])
    return search.explanation()
