"""Names the axes of a table's columns by HDF5 dimension scales, so that xarray and netCDF read them."""

from __future__ import annotations

from collections.abc import Mapping

import h5py

from igos_pl.store.schema import Column

# How netCDF marks a scale that has a length and no values. The length has ten places.
_NO_VALUES = "This is a netCDF dimension but not a netCDF variable{:10d}"


def name_axes(table: h5py.Group, schema: Mapping[str, Column], row: str) -> None:
    """Attach a scale to every axis of every column of a table.

    The scales have no values and take no room for them. An axis that the schema does not name, or whose name
    has another length in this table, gets the column's name in front.

    Args:
        table: the group with the columns.
        schema: the columns.
        row: the name of the first axis of all columns.
    """
    scales: dict[str, h5py.Dataset] = {}
    for name, column in schema.items():
        dataset = table[name]
        rest = len(dataset.shape) - 1
        axes = column.axes if len(column.axes) == rest else tuple(f"{name}_{axis}" for axis in range(rest))
        for axis, (wanted, length) in enumerate(zip((row, *axes), dataset.shape, strict=True)):
            known = scales.get(wanted)
            label = wanted if known is None or len(known) == length else f"{name}_{wanted}"
            if label not in scales:
                scales[label] = table.create_dataset(label, (length,), ">f4")
                scales[label].make_scale(_NO_VALUES.format(length))
            dataset.dims[axis].attach_scale(scales[label])
