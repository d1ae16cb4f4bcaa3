"""The order of a mask's cells, the most important first. Curves, figures and exports all follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # comparing results imports this module, and must not import torch
    from torch import Tensor

    from igos_pl.solver.regions import Regions


def ranks(masks: Tensor, regions: Regions | None = None) -> Tensor:
    """The place of each cell in its mask's order, 0 for the most important (lowest).

    Among equal values, the cell that comes first in reading order is the more important one.

    Args:
        masks: ``(R, s, s)``.
        regions: whose cells are taken together, see `Regions.places`; None for single cells.

    Returns:
        ``(R, s, s)`` integers from 0 to ``s * s - 1``.
    """
    if regions is not None:
        return regions.places(masks)
    order = masks.flatten(1).argsort(dim=1, stable=True)
    return order.argsort(dim=1).reshape(masks.shape)


def array_ranks(masks: NDArray[Any], labels: NDArray[np.integer[Any]] | None = None) -> NDArray[np.int64]:
    """The same as `ranks`, for arrays.

    Args:
        masks: ``(R, s, s)``.
        labels: ``(R, s, s)`` the label of each cell's region; None for single cells.

    Returns:
        ``(R, s, s)`` integers from 0 to ``s * s - 1``.
    """
    if labels is None:
        order = masks.reshape(len(masks), -1).argsort(axis=1, kind="stable")
        return order.argsort(axis=1).reshape(masks.shape)
    import torch

    from igos_pl.solver.regions import Regions

    native = masks.astype(masks.dtype.newbyteorder("="))  # PyTorch knows no other byte order
    return ranks(torch.tensor(native), Regions.of(torch.tensor(labels.astype(np.int64)))).numpy()


def most_important(
    mask: NDArray[Any], fraction: float, labels: NDArray[np.integer[Any]] | None = None
) -> NDArray[np.bool_]:
    """The most important cells of a mask, at least one cell or region.

    Args:
        mask: ``(s, s)``.
        fraction: of the cells.
        labels: ``(s, s)`` the label of each cell's region; None for single cells. A region is taken as a
            whole, if at least half of its cells are due.

    Returns:
        ``(s, s)``.
    """
    place = array_ranks(mask[None], None if labels is None else labels[None])[0]
    return np.asarray(place < max(round(fraction * mask.size), place.min() + 1))
