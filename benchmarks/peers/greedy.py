"""Searches for an order of regions: each step adds regions so that insertion - deletion becomes largest.

A set of regions is worth the score of the set alone minus the score of the image without it. The plain greedy
search asks the network about every remaining region at every step, which is G (G + 1) passes for G regions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from peers.explanation import Explanation, of_order
from peers.scores import SubsetScores

Worth = Callable[[Tensor], Tensor]

# The regions that the windowed search looks at again before it asks about all.
WINDOW = 8

# The single regions of which the search by pairs tries all pairs.
PAIRED = 6


def greedy(scores: SubsetScores) -> Explanation:
    """The plain search, with the score terms of Chen et al. (ICLR 2024): consistency and collaboration.

    Their terms of confidence and of distance between features need a network of their own.
    """
    chosen = torch.zeros(len(scores.partition), dtype=torch.bool)
    order: list[int] = []
    while len(order) < len(chosen):
        left = (~chosen).nonzero().squeeze(1)
        best = int(left[scores.insertion_minus_deletion(added(chosen, left[:, None])).argmax()])
        order.append(best)
        chosen[best] = True
    return of_order(torch.tensor(order), scores.partition)


def window_greedy(scores: SubsetScores, window: int = WINDOW) -> Explanation:
    """A lazy search in phases, which asks about fewer regions.

    A phase asks about all remaining regions and takes the best. Then it asks again about the next best
    ``window`` regions only, and takes the best of them as long as it is worth no less than what the phase's
    first look promises for the best region outside of the window. It is in the spirit of PhaseWin (Gu et al.,
    CVPR 2026), but not that algorithm.
    """
    chosen = torch.zeros(len(scores.partition), dtype=torch.bool)
    order: list[int] = []
    worth = 0.0  # of the chosen set, once one is known

    def take(region: int, new_worth: float) -> None:
        nonlocal worth
        order.append(region)
        chosen[region] = True
        worth = new_worth

    while len(order) < len(chosen):
        left = (~chosen).nonzero().squeeze(1)
        before = worth if order else float(scores.insertion_minus_deletion(chosen[None])[0])
        found = scores.insertion_minus_deletion(added(chosen, left[:, None]))
        ranked = found.argsort(descending=True)
        gains = found[ranked] - before
        take(int(left[ranked[0]]), float(found[ranked[0]]))
        near = left[ranked[1 : 1 + window]]
        outside = float(gains[1 + window]) if len(gains) > 1 + window else -torch.inf
        while len(near):
            found = scores.insertion_minus_deletion(added(chosen, near[:, None]))
            best = int(found.argmax())
            if float(found[best]) - worth < outside:
                break
            take(int(near[best]), float(found[best]))
            near = near[near != near[best]]
    return of_order(torch.tensor(order), scores.partition)


def pair_greedy(scores: SubsetScores, paired: int = PAIRED) -> Explanation:
    """A search that adds two regions at a time, in the spirit of VX-CODE (Yamauchi et al., CVPR 2026).

    Each step asks about all remaining regions, then about all pairs of the best ``paired`` of them, and adds
    the best pair, its better region first. So it finds regions that count only together.
    """
    chosen = torch.zeros(len(scores.partition), dtype=torch.bool)
    order: list[int] = []
    while len(order) < len(chosen):
        left = (~chosen).nonzero().squeeze(1)
        found = scores.insertion_minus_deletion(added(chosen, left[:, None]))
        best = left[found.argsort(descending=True)[:paired]]
        pairs = torch.combinations(best) if len(best) > 1 else best[None]
        pair = pairs[scores.insertion_minus_deletion(added(chosen, pairs)).argmax()]
        order.extend(pair.tolist())
        chosen[pair] = True
    return of_order(torch.tensor(order), scores.partition)


def added(chosen: Tensor, more: Tensor) -> Tensor:
    """The sets ``(n, G)`` that a set ``(G,)`` becomes with each row of regions ``(n, k)``."""
    sets = chosen.repeat(len(more), 1)
    return sets.scatter(1, more, torch.ones_like(more, dtype=torch.bool))
