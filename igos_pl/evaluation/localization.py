"""How well saliency falls on the object that it explains, by ground-truth boxes and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from igos_pl.data.annotations import GroundTruth, Rle
from igos_pl.errors import IgosError

Saliency = NDArray[np.floating[Any]]
Region = NDArray[np.bool_]


def pointing_game(saliency: Saliency, region: Region) -> bool:
    """Whether the most salient pixel lies in a region.

    Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016 and IJCV 2018; here without
    their tolerance of 15 pixels. Of several equal maxima the first in reading order counts.

    Args:
        saliency: ``(h, w)``, high is important.
        region: ``(h, w)``.
    """
    _check_sizes(saliency, region)
    return bool(region.flat[int(saliency.argmax())])


def energy_pointing_game(saliency: Saliency, region: Region) -> float:
    """The share of the saliency that lies in a region.

    Wang et al., "Score-CAM", CVPR workshops 2020. Compare it with the region's share of the image, which is
    the value for constant saliency.

    Args:
        saliency: ``(h, w)``, at least 0, high is important.
        region: ``(h, w)``.

    Returns:
        From 0 to 1; NaN if there is no saliency at all.
    """
    _check_sizes(saliency, region)
    total = float(saliency.sum(dtype=np.float64))
    return float(saliency[region].sum(dtype=np.float64)) / total if total > 0 else float("nan")


def box_region(box: NDArray[np.floating[Any]], height: int, width: int) -> Region:
    """The pixels whose centres lie in a box, or the pixel in its middle if it contains no pixel centre.

    Args:
        box: ``(4,)`` x1 y1 x2 y2 in pixels; pixel 0 reaches from 0 to 1.
        height: of the image.
        width: of the image.

    Returns:
        ``(height, width)``; nothing if the box lies outside.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    region = np.zeros((height, width), np.bool_)
    region[_covered(y1, y2, height), _covered(x1, x2, width)] = True
    return region


def _covered(low: float, high: float, length: int) -> slice:
    """The pixels in a row of ``length`` whose centres lie between ``low`` and ``high``."""
    low, high = float(np.clip(low, 0, length)), float(np.clip(high, 0, length))
    if not low < high:
        return slice(0, 0)
    start, stop = int(np.ceil(low - 0.5)), int(np.ceil(high - 0.5))
    return slice(start, stop) if start < stop else slice(int((low + high) / 2), int((low + high) / 2) + 1)


def mask_region(rle: Rle) -> Region:
    """The pixels of a run-length encoded mask.

    Args:
        rle: as pycocotools takes it; of an image of h x w pixels.

    Returns:
        ``(h, w)``.

    Raises:
        IgosError: if it cannot be decoded.
    """
    try:
        region: Region = np.ascontiguousarray(coco_mask.decode(rle)).astype(np.bool_)
    except (KeyError, TypeError, ValueError) as error:
        raise IgosError(
            f"A mask cannot be decoded ({error}): it must be a dict with size [height, width] and compressed"
            " counts, as from pycocotools"
        ) from error
    return region


def localize(saliency: Saliency, truth: GroundTruth, place: int) -> dict[str, float]:
    """Judge the saliency of a detection by the annotated object that was detected.

    Args:
        saliency: ``(h, w)`` of the upright original, at least 0, high is important.
        truth: the objects, in pixels of the original.
        place: of the detected object among them; see `igos_pl.data.matching`.

    Returns:
        ``pointing_box`` and ``pointing_mask``: 1 for a hit and 0 for a miss in the object's box and instance
        mask, see `pointing_game`. ``energy_box`` and ``energy_mask``: see `energy_pointing_game`. NaN where
        the object has no instance mask, or the saliency is not finite.
    """
    figures = nothing_to_localize()
    if not np.isfinite(saliency).all():
        return figures
    regions = {"box": box_region(truth.boxes[place], *saliency.shape)}
    rle = truth.instance_masks[place] if truth.instance_masks else None
    if rle is not None:
        regions["mask"] = mask_region(rle)
    for kind, region in regions.items():
        figures[f"pointing_{kind}"] = float(pointing_game(saliency, region))
        figures[f"energy_{kind}"] = energy_pointing_game(saliency, region)
    return figures


def nothing_to_localize() -> dict[str, float]:
    """The figures of `localize` where no object was detected: NaN."""
    return dict.fromkeys(("pointing_box", "energy_box", "pointing_mask", "energy_mask"), float("nan"))


def _check_sizes(saliency: Saliency, region: Region) -> None:
    if saliency.ndim != 2 or saliency.shape != region.shape:
        raise IgosError(
            f"Saliency and region must have one shape (h, w), but have {saliency.shape} and {region.shape}:"
            " upsample the saliency to the original image"
        )
