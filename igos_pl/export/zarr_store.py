"""Zarr: a group of arrays with named axes, which xarray opens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from igos_pl.export.arrays import arrays_of, settings_as_json
from igos_pl.export.folders import publishing_folder
from igos_pl.optional import imported
from igos_pl.store.reader import Rows

_CHUNK_BYTES = 1 << 20


def write_zarr(rows: Rows, output: Path, advance: Callable[[int], None]) -> str:
    """Write every column as an array of a Zarr group of format 2, which has fixed-length text.

    Args:
        rows: the explanations.
        output: a folder.
        advance: called with the number of rows that were written.

    Returns:
        What was written, in words.

    Raises:
        IgosError: if zarr is not installed.
    """
    zarr = imported("zarr", "zarr", "The export to Zarr")
    arrays = arrays_of(rows)
    with publishing_folder(output) as folder:
        group = zarr.open_group(str(folder), mode="w", zarr_format=2)
        group.attrs.update(json.loads(settings_as_json(rows.settings)))
        for array in arrays:
            row_bytes = max(1, array.dtype.itemsize * math.prod(array.shape[1:]))
            chunk = max(1, min(array.shape[0], _CHUNK_BYTES // row_bytes))
            # Without a fill value. Xarray takes one as the sign of missing values, even a zero. Then a chunk
            # of zeros is no default that may be left out.
            written = group.create_array(
                array.name,
                shape=array.shape,
                dtype=array.dtype,
                chunks=(chunk, *array.shape[1:]),
                fill_value=None,
                config={"write_empty_chunks": True},
            )
            written.attrs.update({"_ARRAY_DIMENSIONS": list(array.axes), "about": array.about})
            start = 0
            for block in array.blocks():
                written[start : start + len(block)] = block
                start += len(block)
                if array.name == "saliency":
                    advance(len(block))
        zarr.consolidate_metadata(str(folder), zarr_format=2)
    return f"{len(arrays)} arrays"
