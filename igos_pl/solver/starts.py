"""Where the optimisation of a mask starts: nothing removed, or a part of the object removed a little."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from igos_pl.checks import check_count, check_share
from igos_pl.data.geometry import upsample
from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError


@dataclass(frozen=True)
class Start:
    """Diverse starts (Jiang et al., BMVC 2023, section 3.3).

    The target's box (the whole image, for a classifier) is split into k x k cells, row by row from the top
    left. A start lowers the mask inside of one cell, and of the object where its instance mask is known.

    Attributes:
        k: cells along each side of the box.
        cells: the cells to start from, each with an explanation of its own; all k * k by default.
        init_val: how much is removed inside of the cell, from 0 to 1; 0 is the plain start, only for k = 1.
    """

    k: int = 1
    cells: list[int] | None = None
    init_val: float = 0.0

    def __post_init__(self) -> None:
        check_count("start.k", self.k, 1)
        check_share("start.init_val", self.init_val)
        outside = [cell for cell in self.cells or () if not 0 <= cell < self.k**2]
        if outside:
            raise IgosError(
                f"start.cells has {outside[0]}, but k = {self.k} has the cells 0 to {self.k**2 - 1}"
            )
        if self.cells is not None and (not self.cells or len(set(self.cells)) < len(self.cells)):
            raise IgosError(f"start.cells is {self.cells}: name each cell once, or leave cells out for all")

    def check_distinct(self) -> None:
        """Raise if several cells would start alike.

        The constructor does not check this, because the advice is wrong for a method without diverse starts.

        Raises:
            IgosError: saying which value to set.
        """
        if self.plain and (self.k > 1 or self.cells):
            raise IgosError("start.init_val is 0: all cells would start alike. Set it above 0, as in 0.2")

    @property
    def plain(self) -> bool:
        """Whether every mask starts at one."""
        return self.init_val == 0

    def expand(self, targets: Targets) -> Targets:
        """A row for each target and cell, the cells of a target next to each other."""
        if self.plain:
            return targets
        cells = torch.tensor(self.cells or range(self.k**2), device=targets.image.device)
        rows = torch.arange(len(targets), device=cells.device).repeat_interleave(len(cells))
        return replace(targets.select(rows), start_cell=cells.repeat(len(targets)))

    def masks(self, targets: Targets, count: int, size: int, input_size: tuple[int, int]) -> Tensor:
        """Initial masks.

        Args:
            targets: R rows, expanded.
            count: M, masks of each row; all start alike.
            size: s, cells along the side of a mask.
            input_size: height and width of the network's input, in whose pixels boxes and instance masks are.

        Returns:
            ``(R, M, s, s)``.
        """
        device = targets.box.device
        if self.plain:
            return torch.ones(len(targets), count, size, size, device=device)
        column, row = self._cell_bounds(targets, input_size)
        down, along = (torch.arange(side, device=device) + 0.5 for side in input_size)
        inside_x = (along >= column[:, :1]) & (along < column[:, 1:])
        inside_y = (down >= row[:, :1]) & (down < row[:, 1:])
        inside = inside_y[:, :, None] & inside_x[:, None, :]
        if targets.instance_mask is not None:
            empty = ~targets.instance_mask.flatten(1).any(1)
            inside &= targets.instance_mask | empty[:, None, None]
        start = 1 - self.init_val * inside.to(torch.float32)
        return upsample(start.unsqueeze(1), (size, size)).repeat(1, count, 1, 1)

    def _cell_bounds(self, targets: Targets, input_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Left and right, top and bottom of each row's cell: ``(R, 2)`` each."""
        whole = targets.box.new_tensor([0, 0, input_size[1], input_size[0]])
        box = torch.where(targets.box.isnan(), whole, targets.box)
        corner, extent = box[:, :2], (box[:, 2:] - box[:, :2]) / self.k
        place = torch.stack((targets.start_cell % self.k, targets.start_cell // self.k), 1)
        low, high = corner + place * extent, corner + (place + 1) * extent
        return torch.stack((low[:, 0], high[:, 0]), 1), torch.stack((low[:, 1], high[:, 1]), 1)
