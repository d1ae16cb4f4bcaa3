"""PhaseWin: a greedy search in phases, which mostly asks about a window of good regions instead of about all.

Gu et al., "PhaseWin Search Framework Enable Efficient Object-Level Interpretation" (CVPR 2026, arXiv
2511.10914) and "PhaseWin: An Efficient Search Algorithm for Faithful Visual Attribution" (2026, arXiv
2606.18008). The steps and the numbers are those of the program that the authors published with the second
paper (github.com/Qihuai27/phasewin-va, commit d306802), with its settings for classifiers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from peers.explanation import Explanation
from peers.greedy import Search
from peers.scores import SubsetScores

_SEED = 63
_TINY = 1e-12


@dataclass(frozen=True)
class PhaseWinSettings:
    """The numbers of the search; by default those of the authors' program.

    Attributes:
        window: the regions that are looked at together, as a share of all.
        prune: a region that is worth less than this share of the phase's best is put off to the end.
        candidate: a region that is worth at least this share of the phase's best may enter the window.
        accept: a region in the window that is worth at least this share of the window's best is taken.
        slowing: a phase ends where the ratio of a worth to the next one grows by more than this.
        keep: the region at which a phase ends is taken if it is worth at least this share of the last one.
        defer: the chance that a candidate goes to the end of the queue instead of into the window.
    """

    window: float = 0.3
    prune: float = 0.05
    candidate: float = 0.6
    accept: float = 0.99
    slowing: float = 0.02
    keep: float = 0.98
    defer: float = 0.5


PUBLISHED = PhaseWinSettings()


def phase_win(scores: SubsetScores, settings: PhaseWinSettings = PUBLISHED) -> Explanation:
    """The search. A set is worth its score + 1 - the score of all else, which is between 0 and 2.

    A phase asks about all remaining regions and takes the best. It asks about all again, puts off bad
    regions to the end of the search, and fills a window with the best candidates. It takes those regions of
    the window that are about as good as the window's best, fills the window with further candidates, asks
    about the regions in it, and so on. It ends where no candidate is left, where none is good enough, or
    where the worth grows more slowly than before.

    The differences from the program: The missing parts of an image show the baseline that all methods use
    here, instead of black. The program sends a candidate to the end of the queue with a chance of one half
    (its temperature cancels out), at most once in a phase; here the draws have a fixed seed. The program
    asks twice about the first window of a phase, with the same answer; here it is asked about once, which
    gives the same order for fewer passes.

    Args:
        scores: of the target that is explained.
        settings: the numbers of the search.
    """
    phases = _Phases(scores, settings)
    left = list(range(len(scores.partition)))
    while left:
        left = phases.run(left)
    phases.take_pruned()
    return phases.search.explanation()


class _Phases:
    """The search between its phases, and what a phase does."""

    def __init__(self, scores: SubsetScores, settings: PhaseWinSettings) -> None:
        self.search = Search(scores)
        self.settings = settings
        self.width = max(1, int(settings.window * len(scores.partition)))
        self.pruned: list[int] = []
        self.generator = torch.Generator().manual_seed(_SEED)

    def run(self, regions: list[int]) -> list[int]:
        """One phase over the remaining regions; returns those that are left for the next phase."""
        found = self._worths(regions)
        best = _ranked(found)[0]
        self.search.take([best])
        growth = _Growth(found[best], self.settings.slowing)
        found = self._worths([region for region in regions if region != best])
        largest = max(found.values(), default=0.0)
        bad, good = self.settings.prune * largest, self.settings.candidate * largest
        ranked = _ranked(found)
        self.pruned += [region for region in ranked if found[region] < bad]
        candidates = {region: found[region] for region in ranked if found[region] >= good}
        middle = [region for region in ranked if bad <= found[region] < good]
        return self._windows(candidates, good, growth) + middle

    def take_pruned(self) -> None:
        """Take the regions that were put off, in the order of their worths now."""
        self.search.take(_ranked(self._worths(self.pruned)))

    def _windows(self, candidates: dict[int, float], good: float, growth: _Growth) -> list[int]:
        """Take candidates by windows; returns those that were not taken.

        Args:
            candidates: the regions, the best first, and their worths.
            good: what a region must be worth to be taken.
            growth: of the phase.
        """
        window, queue = list(candidates)[: self.width], list(candidates)[self.width :]
        found = {region: candidates[region] for region in window}
        deferred: set[int] = set()
        while window:
            least = max(good, self.settings.accept * max(found.values()))
            accepted = [region for region in window if found[region] >= least]
            if not accepted:
                break
            for region in accepted:
                slows = growth.slows(found[region])
                if slows and found[region] < self.settings.keep * growth.last:
                    return window + queue
                self.search.take([region])
                window.remove(region)
                growth.add(found[region])
                if slows:
                    return window + queue
            while queue and len(window) < self.width:
                region = queue.pop(0)
                if region not in deferred and self._draw() < self.settings.defer:
                    deferred.add(region)
                    queue.append(region)
                else:
                    window.append(region)
            found = self._worths(window)
        return window + queue

    def _worths(self, regions: list[int]) -> dict[int, float]:
        """The worth of the taken regions with each of some others."""
        if not regions:
            return {}
        found = 1 + self.search.worths(torch.tensor(regions)[:, None])
        return dict(zip(regions, found.tolist(), strict=True))

    def _draw(self) -> float:
        return float(torch.rand((), generator=self.generator))


class _Growth:
    """Whether the worth of the taken regions grows more slowly than before, in one phase."""

    def __init__(self, worth: float, limit: float) -> None:
        self.worths = [worth]
        self.limit = limit

    @property
    def last(self) -> float:
        return self.worths[-1]

    def add(self, worth: float) -> None:
        self.worths.append(worth)

    def slows(self, worth: float) -> bool:
        """Whether the ratio of a worth to the next one grows by more than the limit, with this one next."""
        if len(self.worths) < 2:
            return False
        before, last = (max(each, _TINY) for each in self.worths[-2:])
        return last / max(worth, _TINY) - before / last > self.limit


def _ranked(worths: dict[int, float]) -> list[int]:
    """The regions, the best first."""
    return sorted(worths, key=lambda region: -worths[region])
