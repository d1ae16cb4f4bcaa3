"""The regions that a user gives for images in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from igos_pl.api.images import check_one_for_each
from igos_pl.checks import closest
from igos_pl.data.records import ImageRecord
from igos_pl.data.regions import GivenLabelMaps, RegionSource, Slic
from igos_pl.errors import IgosError


def as_regions(regions: Any, records: Sequence[ImageRecord]) -> RegionSource | None:
    """The source of the regions.

    Args:
        regions: None; ``slic``; a `RegionSource`; or label maps: ``(N, h, w)``, ``(h, w)`` for all images, or
            a list with one for each.
        records: the records of the N images.

    Raises:
        IgosError: if they are something else, or their number is another one, or two images share one.
    """
    if regions is None:
        return None
    if isinstance(regions, RegionSource):
        regions.check([record.sample_id for record in records])
        return regions
    if isinstance(regions, str):
        if regions != "slic":
            meant = "; did you mean slic?" if closest(regions, ["slic"]) else ""
            raise IgosError(f"regions is {regions!r}, but must be slic, label maps, or a RegionSource{meant}")
        return Slic()
    if has_map_of_each(regions, len(records)):
        maps = [_array(one) for one in regions]
    else:
        maps = [_array(regions)] * len(records)
    return GivenLabelMaps({record.sample_id: found for record, found in zip(records, maps, strict=True)})


def has_map_of_each(regions: Any, images: int) -> bool:
    """Whether regions are label maps, one for each image.

    Args:
        regions: as `as_regions` takes them.
        images: the number of images.

    Raises:
        IgosError: if there are more or fewer label maps than images.
    """
    if not isinstance(regions, list | tuple) and np.ndim(regions) != 3:
        return False
    check_one_for_each("label map", len(regions), images)
    return True


def _array(regions: Any) -> Any:
    found = regions.cpu().numpy() if isinstance(regions, Tensor) else np.asarray(regions)
    if found.dtype.kind not in "iub":
        raise IgosError(f"regions must be whole numbers, the label of each pixel, but is {found.dtype}")
    return found
