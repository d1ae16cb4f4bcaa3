"""Groups of masks within a class that are alike.

The idea is that of spectral relevance analysis (Lapuschkin et al., "Unmasking Clever Hans predictors and
assessing what machines really learn", Nature Communications 2019): if a network has several strategies for
a class, the class has several kinds of heat maps. There, eigenvalues give the number of clusters. Objects
whose place varies smoothly have no clear gap among them, so here a test decides whether groups are apart.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from igos_pl.findings.results import Cluster
from igos_pl.optional import imported

# Classes with fewer masks are not clustered: no two groups of them can be told apart with certainty.
FEWEST_MASKS = 30

_MOST_GROUPS = 8  # with which the search begins
_MASKS_OF_A_GROUP = 10  # at that time, on average
_LEVEL = 0.01  # p-value below which two groups are apart
_LEAST_SHARE = 0.05  # of the class's masks: smaller clusters are not shown


def clusters_of(name: str, rows: NDArray[np.int64], pooled: NDArray[np.float32], seed: int) -> list[Cluster]:
    """The clusters of one class, the largest first; none if its masks are all of one kind.

    k-means makes a few groups. Then the two groups that are least apart are joined, again and again, until
    all are apart (see `_valley`).

    Args:
        name: of the class.
        rows: ``(n,)`` of the result.
        pooled: ``(n, p, p)`` their pooled saliency, with a sum above 0.
        seed: of k-means.
    """
    if len(rows) < FEWEST_MASKS:
        return []
    shares = pooled / pooled.sum((1, 2), keepdims=True)
    features = _features(shares)
    clusters = []
    for group in _groups(features, seed):
        if len(group) < _LEAST_SHARE * len(rows):
            continue
        distance = np.linalg.norm(features[group] - features[group].mean(0), axis=1)
        group = group[np.argsort(distance, kind="stable")]
        clusters.append(Cluster(name, len(group), rows[group].tolist(), shares[group].mean(0)))
    return sorted(clusters, key=lambda cluster: -cluster.size) if len(clusters) > 1 else []


def _features(shares: NDArray[np.float32]) -> NDArray[np.float64]:
    """``(n, features)``: square roots of the shares of larger cells.

    The distance of two square roots is Hellinger's, which does not let a few bright cells decide alone.
    Larger cells make masks alike that differ by a small shift.
    """
    side = shares.shape[-1] // 2
    larger = shares.reshape(len(shares), side, 2, side, 2).sum((2, 4), dtype=np.float64)
    return np.asarray(np.sqrt(larger.reshape(len(shares), -1)), np.float64)


def _groups(features: NDArray[np.float64], seed: int) -> list[NDArray[np.int64]]:
    """The places of the masks of each group that is apart from all others."""
    cluster = imported("sklearn.cluster", "report", "The search for findings")
    different = len(np.unique(features, axis=0))
    number = min(_MOST_GROUPS, len(features) // _MASKS_OF_A_GROUP, different)
    labels = cluster.KMeans(number, n_init=4, random_state=seed).fit(features).labels_
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    while len(groups) > 1:
        pairs = list(combinations(range(len(groups)), 2))
        values = [_valley(features[groups[one]], features[groups[other]]) for one, other in pairs]
        if max(values) < _LEVEL:
            break
        one, other = pairs[int(np.argmax(values))]
        groups[one] = np.concatenate([groups[one], groups.pop(other)])
    return groups


def _valley(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The p-value of the hypothesis that two groups are parts of one.

    Masks are projected on the line through the centres of the groups. If both were parts of one group, the
    middle third between the centres would not hold fewer masks for its extent than the ends. The smaller end
    is at least twice as long as the middle, so a mask of both would lie in the middle with a probability of
    at least 1/3.
    """
    stats = imported("scipy.stats", "report", "The search for findings")
    places = np.concatenate([_projected(one, other), 1 - _projected(other, one)])
    middle = np.count_nonzero((places > 1 / 3) & (places < 2 / 3))
    end = min(np.count_nonzero(places <= 1 / 3), np.count_nonzero(places >= 2 / 3))
    return float(stats.binom.cdf(middle, middle + end, 1 / 3))


def _projected(own: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where each mask of a group lies on the line from the group's centre (0) to the other centre (1).

    A mask does not count for the centre of its own group: it would pull the centre towards itself, and
    groups of noise would seem to be apart.
    """
    centre = own.mean(0)
    centres = centre + (centre - own) / max(1, len(own) - 1)
    along = other.mean(0) - centres
    return np.asarray(((own - centres) * along).sum(1) / np.maximum((along**2).sum(1), 1e-12), np.float64)
