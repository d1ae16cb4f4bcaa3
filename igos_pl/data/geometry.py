"""Where the network's input lies in the original image, and how boxes and saliency are converted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igos_pl.checks import check_choice

if TYPE_CHECKING:  # looking into a result imports this module, and must not import torch
    from torch import Tensor

RESIZE_MODES = ("squash", "crop")

# Masks with at most so many cells along a side are drawn as cells with sharp borders. The method search takes
# at most so many single cells, too.
_FEW_CELLS = 20

# The usual ImageNet evaluation resizes the shorter side to 256 and crops 224 x 224.
_CROP_FRACTION = 0.875


@dataclass(frozen=True)
class Frame:
    """The part of an original image that the network sees.

    Attributes:
        width: of the upright original, in pixels.
        height: of the upright original, in pixels.
        box: x1 y1 x2 y2 of the part that the network sees, in pixels of the original. It reaches beyond the
            original where the input is padded (letterbox).
        input_size: height and width of the network's input, to which the part is scaled.
    """

    width: int
    height: int
    box: tuple[float, float, float, float]
    input_size: tuple[int, int]

    @classmethod
    def of(cls, width: int, height: int, input_size: tuple[int, int], resize: str) -> Frame:
        """The frame of an image of ``width x height`` pixels.

        Args:
            width: of the upright original.
            height: of the upright original.
            input_size: height and width of the network's input.
            resize: ``squash`` takes the whole image; ``crop`` takes 7/8 of the largest centred part that has
                the input's aspect ratio.
        """
        check_choice("resize", resize, RESIZE_MODES)
        if resize == "squash":
            return cls(width, height, (0.0, 0.0, float(width), float(height)), input_size)
        rows, columns = input_size
        scale = min(width / columns, height / rows) * _CROP_FRACTION
        across, down = columns * scale, rows * scale
        left, top = (width - across) / 2, (height - down) / 2
        return cls(width, height, (left, top, left + across, top + down), input_size)

    def scaled(self, width: int, height: int) -> Frame:
        """The frame of the same image, scaled to ``width x height`` pixels."""
        across, down = width / self.width, height / self.height
        left, top, right, bottom = self.box
        return Frame(
            width, height, (left * across, top * down, right * across, bottom * down), self.input_size
        )

    def boxes_to_original(self, boxes: NDArray[Any]) -> NDArray[np.float32]:
        """Boxes ``(n, 4)`` of the network's input, in pixels of the original; NaN stays NaN.

        Parts that lie in the input's padding are cut off.
        """
        corner, extent, scale = self._affine()
        end = np.array((self.width, self.height) * 2, np.float32)
        return np.clip(np.asarray(boxes / scale * extent + corner, np.float32), 0, end)

    def boxes_to_input(self, boxes: NDArray[Any]) -> NDArray[np.float32]:
        """Boxes ``(n, 4)`` of the original, in pixels of the network's input."""
        corner, extent, scale = self._affine()
        return np.asarray((boxes - corner) / extent * scale, np.float32)

    def saliency_on_original(self, saliency: NDArray[np.float32]) -> NDArray[np.float32]:
        """The saliency of every pixel of the original.

        Args:
            saliency: ``(s, s)``, a value for each cell of a mask.

        Returns:
            ``(height, width)``; 0 outside of the frame.
        """
        import torch
        import torch.nn.functional as F

        left, top, right, bottom = self._pixels()
        grid = upsample(torch.from_numpy(saliency)[None, None], self.input_size)
        # Pixels of the input and of the original cover the same area: their corners, not centres, agree.
        inside = F.interpolate(grid, (bottom - top, right - left), mode="bilinear", align_corners=False)
        # Where the input is padded, the frame reaches beyond the original.
        seen = inside[0, 0, max(0, -top) : self.height - top, max(0, -left) : self.width - left]
        whole = np.zeros((self.height, self.width), np.float32)
        top, left = max(0, top), max(0, left)
        whole[top : top + seen.shape[0], left : left + seen.shape[1]] = seen.numpy()
        return whole

    def cells_on_original(self, cells: NDArray[Any], outside: Any = 0) -> NDArray[Any]:
        """The cell of every pixel of the original (`cells_of_pixels`): cells have sharp borders.

        Args:
            cells: ``(s, s)``, a value for each cell.
            outside: the value of pixels that the network does not see.

        Returns:
            ``(height, width)``.
        """
        whole = np.full((self.height, self.width), outside, cells.dtype)
        (rows, down), (columns, across) = self._cells_of_pixels(len(cells))
        whole[np.ix_(rows, columns)] = cells[np.ix_(down, across)]
        return whole

    def largest_on_original(self, saliency: NDArray[np.float32]) -> float:
        """The largest saliency of the cells ``(s, s)`` in the image. The colours of pictures end there.

        Cells in the input's padding do not count, because they are not drawn.
        """
        left, top, right, bottom = self.box
        seen = []
        for start, end, pixels, length in (
            (top, bottom, self.input_size[0], self.height),
            (left, right, self.input_size[1], self.width),
        ):
            count = max(pixels, 4 * len(saliency))  # places on the input, several in each cell
            places = (np.arange(count) + 0.5) / count
            on_original = start + places * (end - start)
            inside = places[(on_original >= 0) & (on_original <= length)]
            seen.append(np.unique(_cells_at(inside * pixels, pixels, len(saliency))))
        return float(saliency[np.ix_(*seen)].max(initial=0))

    def _cells_of_pixels(self, count: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Down and across: the original's pixels that the network sees, and the cell of each.

        Args:
            count: cells along a side.
        """
        left, top, right, bottom = self._pixels()
        places = []
        for start, end, pixels, length in (
            (top, bottom, self.input_size[0], self.height),
            (left, right, self.input_size[1], self.width),
        ):
            seen = np.arange(max(0, start), min(length, end))
            places.append((seen, _cells_at((seen + 0.5 - start) / (end - start) * pixels, pixels, count)))
        return places

    def _pixels(self) -> tuple[int, int, int, int]:
        """The box in whole pixels, at least one along each side."""
        left, top = round(self.box[0]), round(self.box[1])
        return left, top, max(left + 1, round(self.box[2])), max(top + 1, round(self.box[3]))

    def _affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
        """Corner and extent of the box, and the size of the input, each as x y x y."""
        box = np.array(self.box, np.float64)
        size = np.array(self.input_size[::-1], np.float32)
        return np.tile(box[:2], 2), np.tile(box[2:] - box[:2], 2), np.tile(size, 2)


def has_few_cells(size: int) -> bool:
    """Whether pictures show the cells of masks ``(size, size)`` with sharp borders.

    The network was shown masks with smooth borders (`upsample`). If a picture of few, large cells showed them
    like this, each cell would look like a star with a bright centre, and nobody could tell where a cell ends.
    But a cell has one value, and a search and the curves take it as a whole.
    """
    return size <= _FEW_CELLS


def cells_of_pixels(length: int, pixels: int, count: int) -> NDArray[np.int64]:
    """Along one side, the cell of each pixel of a map: the one whose centre is nearest.

    The centres of the outer cells lie on the outer pixels of the network's input (`upsample`). So only half
    of an outer cell is in the input.

    Args:
        length: of the map, which shows the whole input.
        pixels: of the network's input.
        count: cells; at most ``length`` and ``pixels``, so that each cell has a pixel.

    Returns:
        ``(length,)`` ascending, from 0 to ``count - 1``.
    """
    return _cells_at((np.arange(length) + 0.5) / length * pixels, pixels, count)


def _cells_at(places: NDArray[np.float64], pixels: int, count: int) -> NDArray[np.int64]:
    """The cells at places along one side of the network's input, from 0 to ``pixels``."""
    place = (places - 0.5).clip(0, pixels - 1)
    return np.rint(place / max(1, pixels - 1) * (count - 1)).astype(np.int64)


def cell_means(maps: NDArray[Any], count: int, input_size: tuple[int, int]) -> NDArray[np.float64]:
    """The mean of the pixels of each cell (`cells_of_pixels`).

    Args:
        maps: ``(N, h, w)``, which show the whole input of the network.
        count: cells along a side; at most ``h`` and ``w``, and at most the sides of the input.
        input_size: height and width of the network's input.

    Returns:
        ``(N, count, count)``; the values of the maps if they have this size already.
    """
    means = maps.astype(np.float64)
    for axis, pixels in enumerate(input_size, 1):
        sizes = np.bincount(cells_of_pixels(maps.shape[axis], pixels, count))
        sums = np.add.reduceat(means, np.cumsum(sizes) - sizes, axis)
        means = sums / np.expand_dims(sizes, 2 - axis)
    return means


def upsample_nearest(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Give each pixel of the network's input the value of its cell (`cells_of_pixels`).

    Args:
        cells: ``(B, s, s)``.
        size: ``(H, W)`` in pixels.

    Returns:
        ``(B, H, W)``.
    """
    down, across = (cells_of_pixels(pixels, pixels, cells.shape[-1]) for pixels in size)
    return cells[:, down][:, :, across]


def upsample(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring masks to the resolution of the network's input: bilinear, corners aligned (I-GOS, section 3.2).

    Args:
        masks: ``(B, M, s, s)``.
        size: ``(H, W)`` in pixels.

    Returns:
        ``(B, M, H, W)``; the masks themselves if they have this size already.
    """
    import torch.nn.functional as F

    if masks.shape[-2:] == size:
        return masks
    return F.interpolate(masks, size=size, mode="bilinear", align_corners=True)


def pooled(mask: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Average a mask ``(s, s)`` down to ``(size, size)``, each cell by the area that it covers."""
    weights = _coverage(mask.shape[0], size)
    return weights @ mask @ weights.T


def _coverage(cells: int, size: int) -> NDArray[np.float64]:
    """``(size, cells)`` the share of each old cell in each new one, along one side. Rows sum to 1."""
    edges = np.arange(size + 1) * cells / size
    low, high = np.arange(cells), np.arange(1, cells + 1)
    covered = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return np.asarray(covered.clip(0) * size / cells)
