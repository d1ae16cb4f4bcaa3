"""Regions: parts of the image that a mask removes as a whole, instead of single cells."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Regions:
    """A partition of the cells of R masks into regions; a mask has one value for each region.

    Attributes:
        index: ``(R, s, s)`` integer: which region each cell belongs to, from 0, without gaps in a row.
        count: U, the largest number of regions that a row has. Rows with fewer have unused values.
    """

    index: Tensor
    count: int

    @classmethod
    def of(cls, labels: Tensor) -> Regions:
        """The partition of label maps.

        Args:
            labels: ``(R, s, s)`` integer; cells of a row with equal labels are one region. Regions are
                numbered in the order of their labels.
        """
        found = [torch.unique(row, return_inverse=True) for row in labels]
        counts = [len(values) for values, _ in found]
        index = torch.stack([inverse for _, inverse in found]) if found else labels
        return cls(index, max(counts, default=0))

    def select(self, rows: Tensor) -> Regions:
        """The partition of some rows."""
        return Regions(self.index[rows], self.count)

    def sizes(self) -> Tensor:
        """``(R, U)`` integer: the number of cells of each region; 0 for unused ones."""
        flat = self.index.flatten(1)
        return flat.new_zeros(len(flat), self.count).scatter_add_(1, flat, torch.ones_like(flat))

    def spread(self, values: Tensor) -> Tensor:
        """Give each cell the value of its region: ``(R, M, U, 1)`` to ``(R, M, s, s)``."""
        place = self.index.flatten(1).unsqueeze(1).expand(-1, values.shape[1], -1)
        cells = values.squeeze(3).gather(2, place)
        return cells.reshape(*cells.shape[:2], *self.index.shape[1:])

    def summed(self, cells: Tensor) -> Tensor:
        """Sums over the cells of each region: ``(R, M, s, s)`` to ``(R, M, U, 1)``.

        This turns the gradient of the cells into that of the regions' values.
        """
        place = self.index.flatten(1).unsqueeze(1).expand(-1, cells.shape[1], -1)
        sums = cells.new_zeros(len(cells), cells.shape[1], self.count)
        return sums.scatter_add_(2, place, cells.flatten(2)).unsqueeze(3)

    def means(self, cells: Tensor) -> Tensor:
        """Means over the cells of each region: ``(R, M, s, s)`` to ``(R, M, U, 1)``; 0 for unused ones."""
        return self.summed(cells) / self.sizes().clamp_min(1).reshape(len(cells), 1, self.count, 1)

    def places(self, masks: Tensor) -> Tensor:
        """The place of each cell where whole regions are removed in the order of their values.

        All cells of a region have the same place: that of its middle cell, if its cells were removed one by
        one. So a curve removes a region where at least half of its cells are due. Regions of the same value
        are removed in the order of their numbers.

        Args:
            masks: ``(R, s, s)``, constant within each region; low is removed first.

        Returns:
            ``(R, s, s)`` integers from 0 to ``s * s - 1``.
        """
        sizes = self.sizes()
        values = masks.new_full(sizes.shape, torch.inf)  # of unused regions, which come last
        values = values.scatter_reduce(1, self.index.flatten(1), masks.flatten(1), "amin")
        order = values.argsort(dim=1, stable=True)
        ordered = sizes.gather(1, order)
        middle = ordered.cumsum(1) - ordered + (ordered - 1).clamp_min(0) // 2
        place = torch.zeros_like(sizes).scatter(1, order, middle)
        return place.gather(1, self.index.flatten(1)).reshape(self.index.shape)
