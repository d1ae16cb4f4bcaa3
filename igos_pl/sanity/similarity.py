"""How alike two saliency maps are, how complex one is, and the maps of edge detectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from igos_pl.data.geometry import cell_means
from igos_pl.optional import imported

Map = NDArray[np.float64]

_EXTRA, _NEEDED_BY = "sanity", "igos-pl sanity"
_WINDOW = 7  # the side of SSIM's windows, in cells
_BINS = 100  # of the histogram whose entropy is the complexity; Quantus' default


def check_installed() -> None:
    """Raise now if a package is missing.

    Raises:
        IgosError: the message says how to install it.
    """
    for name in ("scipy.stats", "skimage.metrics"):
        _library(name)


def spearman(one: Map, other: Map) -> float:
    """Spearman's rank correlation of the cells; NaN if all cells of a map are equal."""
    if not _has_order(one) or not _has_order(other):
        return np.nan
    return float(_library("scipy.stats").spearmanr(one.ravel(), other.ravel()).statistic)


def ssim(one: Map, other: Map) -> float:
    """The structural similarity of two maps, each divided by its maximum; NaN for maps below 3 x 3."""
    window = min(_WINDOW, *one.shape)
    window -= 1 - window % 2
    if window < 3 or not np.isfinite([one, other]).all():
        return np.nan
    compare = _library("skimage.metrics").structural_similarity
    return float(compare(_scaled(one), _scaled(other), data_range=1.0, win_size=window))


def entropy(saliency: Map) -> float:
    """The entropy in nats of the histogram of a map, which is 0 if all cells are equal.

    This is the complexity of efficient MPRT (Hedström et al. 2024).
    """
    if not np.isfinite(saliency).all():
        return np.nan
    counts, _ = np.histogram(saliency, bins=_BINS)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0


def sobel_edges(image: Tensor, size: int) -> Map:
    """The magnitude of Sobel's filter on the grey image, as the mean of each cell.

    Args:
        image: ``(C, H, W)``.
        size: s, cells along the side of the map.
    """
    return _pooled(_library("skimage.filters").sobel(_grey(image)), size)


def canny_edges(image: Tensor, size: int) -> Map:
    """The share of each cell's pixels that are on one of Canny's edges; see `sobel_edges`."""
    return _pooled(_library("skimage.feature").canny(_grey(image), sigma=2).astype(float), size)


def _grey(image: Tensor) -> Map:
    """The mean of the channels, scaled to [0, 1]."""
    grey = image.double().mean(0).cpu().numpy()
    span = grey.max() - grey.min()
    return np.asarray((grey - grey.min()) / (span or 1.0))


def _pooled(pixels: Map, size: int) -> Map:
    height, width = pixels.shape
    return np.asarray(cell_means(pixels[None], size, (height, width))[0])


def _scaled(saliency: Map) -> Map:
    highest = saliency.max()
    return saliency / highest if highest > 0 else saliency


def _has_order(saliency: Map) -> bool:
    return bool(np.isfinite(saliency).all() and np.ptp(saliency) > 0)


def _library(name: str) -> Any:
    return imported(name, _EXTRA, _NEEDED_BY)
