"""Groups of masks within a class that are alike.

The idea is that of spectral relevance analysis (Lapuschkin et al., "Unmasking Clever Hans predictors and
assessing what machines really learn", Nature Communications 2019): if a network has several strategies for
a class, the class has several kinds of heat maps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from igos_pl.findings.results import Cluster
from igos_pl.models.optional import imported

# Classes with fewer masks are not clustered, and clusters with a smaller share of the masks are not shown.
FEWEST_MASKS = 20
_LEAST_SHARE = 0.1

_MOST = 8  # clusters of a class
_NEIGHBOURS = 10
_SEPARATE = (
    0.25  # the least mean silhouette; below it, there is "no substantial structure" (Kaufman, Rousseeuw)
)


def clusters_of(name: str, rows: NDArray[np.int64], pooled: NDArray[np.float32], seed: int) -> list[Cluster]:
    """The clusters of one class, the largest first; none if its masks are all of one kind.

    Spectral clustering on the graph of nearest neighbours. The number of clusters is where the eigenvalues
    have their largest gap; the mean silhouette says whether they are apart.

    Args:
        name: of the class.
        rows: ``(n,)`` of the result.
        pooled: ``(n, p, p)`` their pooled saliency, with a sum above 0.
        seed: of the clustering.
    """
    if len(rows) < FEWEST_MASKS:
        return []
    shares = pooled / pooled.sum((1, 2), keepdims=True)
    features = _features(shares)
    labels = _labels(features, seed)
    if labels.max() == 0:
        return []
    metrics = imported("sklearn.metrics", "report", "Findings")
    if metrics.silhouette_score(features, labels) < _SEPARATE:
        return []
    clusters = []
    for label in range(labels.max() + 1):
        places = np.flatnonzero(labels == label)
        if len(places) < _LEAST_SHARE * len(rows):
            continue
        distance = np.linalg.norm(features[places] - features[places].mean(0), axis=1)
        places = places[np.argsort(distance, kind="stable")]
        clusters.append(Cluster(name, len(places), rows[places].tolist(), shares[places].mean(0)))
    return sorted(clusters, key=lambda cluster: -cluster.size) if len(clusters) > 1 else []


def _features(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(n, features)``: square roots of the shares of larger cells.

    The distance of two square roots is Hellinger's, which does not let a few bright cells decide alone.
    Larger cells make masks alike that differ by a small shift.
    """
    side = shares.shape[-1] // 2
    larger = shares.reshape(len(shares), side, 2, side, 2).sum((2, 4))
    return np.asarray(np.sqrt(larger.reshape(len(shares), -1)), np.float32)


def _labels(features: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """The cluster of each mask, from 0."""
    neighbors = imported("sklearn.neighbors", "report", "Findings")
    linalg = imported("scipy.linalg", "report", "Findings")
    cluster = imported("sklearn.cluster", "report", "Findings")
    count = min(_NEIGHBOURS, len(features) // 4)
    graph = neighbors.kneighbors_graph(features, count, include_self=True).toarray()
    graph = (graph + graph.T) / 2
    scale = 1 / np.sqrt(graph.sum(1))
    laplacian = np.eye(len(graph)) - scale[:, None] * graph * scale
    values, vectors = linalg.eigh(laplacian, subset_by_index=(0, _MOST))
    number = 1 + int(np.argmax(np.diff(values)))
    if number == 1:
        return np.zeros(len(features), np.int64)
    places = vectors[:, :number] * scale[:, None]
    means = cluster.KMeans(number, n_init=10, random_state=seed).fit(
        places / np.linalg.norm(places, axis=1, keepdims=True)
    )
    return np.asarray(means.labels_, np.int64)
