"""The regions of an image that an explanation has values for: cells of a grid, or superpixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from igos_pl.data.geometry import upsample
from igos_pl.optional import imported


class Partition(ABC):
    """A division of the network's input, H x W pixels, into G regions."""

    @property
    @abstractmethod
    def areas(self) -> Tensor:
        """The shares ``(G,)`` of the image, float64; their sum is 1."""

    @abstractmethod
    def spread(self, values: Tensor) -> Tensor:
        """Values of regions ``(B, G)`` as maps ``(B, H, W)``."""

    @abstractmethod
    def means(self, pixels: Tensor) -> Tensor:
        """The means ``(G,)`` of a map ``(H, W)`` over the regions."""

    def __len__(self) -> int:
        return len(self.areas)


@dataclass(frozen=True)
class Grid(Partition):
    """``side x side`` cells, which are numbered row by row. Maps are upsampled as the product does it.

    Attributes:
        side: s, cells along the side.
        size: height and width in pixels.
    """

    side: int
    size: tuple[int, int]

    @property
    def areas(self) -> Tensor:
        """1 / G each."""
        cells = self.side**2
        return torch.full((cells,), 1 / cells, dtype=torch.float64)

    def spread(self, values: Tensor) -> Tensor:
        """Bilinear, corners aligned."""
        return upsample(values.reshape(len(values), 1, self.side, self.side), self.size).squeeze(1)

    def means(self, pixels: Tensor) -> Tensor:
        """The means of the pixels of each cell."""
        return F.adaptive_avg_pool2d(pixels[None], self.side).flatten()


@dataclass(frozen=True, eq=False)
class Regions(Partition):
    """Regions of any shape, with hard borders.

    Attributes:
        labels: ``(H, W)`` integer, the number of each pixel's region, from 0 to G - 1; no region is empty.
    """

    labels: Tensor

    @property
    def areas(self) -> Tensor:
        """By pixels."""
        return torch.bincount(self.labels.flatten()).double() / self.labels.numel()

    def spread(self, values: Tensor) -> Tensor:
        """Every pixel gets the value of its region."""
        return values[:, self.labels]

    def means(self, pixels: Tensor) -> Tensor:
        """The means of the pixels of each region."""
        numbers = self.labels.flatten()
        sums = torch.bincount(numbers, weights=pixels.flatten().double())
        return (sums / torch.bincount(numbers)).to(pixels.dtype)


def slic(pixels: Tensor, wanted: int) -> Regions:
    """SLIC superpixels (Achanta et al., TPAMI 2012) by scikit-image, with SLICO's adaptive compactness.

    Args:
        pixels: ``(3, H, W)`` uint8, the picture.
        wanted: about how many regions; small ones are merged with a neighbour, so that there may be fewer.
    """
    superpixels = imported("skimage.segmentation", "bench", "SLIC").slic
    picture = pixels.permute(1, 2, 0).cpu().numpy()
    found = superpixels(picture, n_segments=wanted, slic_zero=True, start_label=0)
    _, numbers = np.unique(found, return_inverse=True)  # without gaps
    return Regions(torch.from_numpy(numbers.reshape(found.shape)))
