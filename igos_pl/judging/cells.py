"""Brings saliency of any resolution, sign and scale into the cells of a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igos_pl.data.geometry import Frame, cell_means, upsample
from igos_pl.errors import TargetError

# What happens to negative values of imported saliency.
NEGATIVE = ("refuse", "zero", "absolute", "keep")

# What a person can say of negative values.
MEANINGS = (
    "set negative (--model.negative) to zero (they do not matter), absolute (they matter as much as positive"
    " ones) or keep (they matter less than 0)"
)

# What an imported map shows: the network's input, or the whole image.
COVERS = ("input", "image")


@dataclass(frozen=True)
class Cells:
    """The saliency of some targets in the cells of a mask.

    Attributes:
        saliency: ``(T, s, s)`` in [0, 1], high is important.
        note: what a person should know of it; empty if nothing.
    """

    saliency: Tensor
    note: str = ""


def saliency_cells(maps: NDArray[np.float64], size: int, input_size: tuple[int, int], negative: str) -> Cells:
    """Maps as the saliency of ``size x size`` cells, each map scaled so that its largest value is 1.

    A cell gets the mean of its pixels.

    Args:
        maps: ``(T, h, w)``, high is important; they show the whole input of the network.
        size: cells along the side; at most ``h`` and ``w``.
        input_size: height and width of the network's input.
        negative: ``refuse`` raises an error; ``zero`` sets negative values to 0; ``absolute`` takes absolute
            values, before cells are made; ``keep`` keeps the order of all values: the lowest becomes 0.

    Raises:
        TargetError: if values are not finite, or are negative and refused, or a map has fewer cells.
    """
    height, width = maps.shape[1:]
    if not np.isfinite(maps).all():
        raise TargetError("its saliency has values that are not finite numbers")
    if min(height, width) < size:
        raise TargetError(
            f"its saliency map has {height} x {width} values, fewer than the {size} x {size} cells of a mask:"
            f" set mask_size={min(height, width)} (--model.mask_size {min(height, width)})"
        )
    if negative == "refuse" and (maps < 0).any():
        raise TargetError(
            f"its saliency has negative values (down to {maps.min():.3g}), whose meaning is not known:"
            f" {MEANINGS}"
        )
    if negative == "zero":
        maps = maps.clip(0)
    elif negative == "absolute":
        maps = np.abs(maps)
    elif negative == "keep":  # before cells are made, so that those of a constant map are exactly 0
        maps = maps - maps.min((1, 2), keepdims=True)
    cells = cell_means(maps, size, input_size)
    if negative == "keep":
        cells -= cells.min((1, 2), keepdims=True)
    peak = cells.max((1, 2), keepdims=True)
    # float32 drops the rounding errors of the means, so that equal cells are equal.
    saliency = (cells / np.where(peak > 0, peak, 1)).astype(np.float32)
    flat = (saliency == saliency[:, :1, :1]).all((1, 2))
    note = (
        "its saliency is the same everywhere, so the order of the cells means nothing" if flat.any() else ""
    )
    return Cells(torch.from_numpy(saliency), note)


def seen_part(maps: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
    """The part of maps of a whole image that the network sees.

    Args:
        maps: ``(T, h, w)`` of the whole upright image.
        frame: where the network's input lies in it.

    Returns:
        ``(T, rows, columns)``; 0 where the network's input is padded.
    """
    height, width = maps.shape[1:]
    scale = np.array((width / frame.width, height / frame.height) * 2)
    left, top, right, bottom = np.round(np.array(frame.box) * scale).astype(int).tolist()
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    part = np.zeros((len(maps), bottom - top, right - left))
    inside = maps[:, max(0, top) : bottom, max(0, left) : right]
    row, column = max(0, -top), max(0, -left)
    part[:, row : row + inside.shape[1], column : column + inside.shape[2]] = inside
    return part


def in_equal_cells(masks: Tensor, cells: int | None, input_size: tuple[int, int]) -> Tensor:
    """Masks in ``cells x cells`` cells, so that masks of different resolution are judged alike.

    Each cell gets the mean of its pixels in the mask at the resolution of the network's input.

    Args:
        masks: ``(R, s, s)``.
        cells: at most the height and width of the input; None for the masks as they are.
        input_size: height and width of the network's input.
    """
    if cells is None or masks.shape[1:] == (cells, cells):
        return masks
    pixels = upsample(masks.unsqueeze(1), input_size).squeeze(1).cpu().numpy()
    return torch.from_numpy(cell_means(pixels, cells, input_size)).to(masks)
