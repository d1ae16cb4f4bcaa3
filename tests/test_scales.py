"""The axes of masks.h5 have names: HDF5 dimension scales, as netCDF and xarray read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import results

from igos_pl.errors import IgosError
from igos_pl.store import MaskFile, RunFolder, merge
from igos_pl.store.files import open_result
from igos_pl.store.scales import name_axes
from igos_pl.store.schema import EXPLANATIONS, IMAGES, Column
from igos_pl.store.seals import check_seal

AXES = {
    "masks": ("explanation", "y", "x"), "score": ("explanation",), "box": ("explanation", "corner"),
    "deletion_curve": ("explanation", "point"), "insertion_curve": ("explanation", "point"),
}  # fmt: skip
OF_IMAGES = {"frame": ("image", "corner"), "input_size": ("image", "side")}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    folder.expect(["a", "b", "c"])
    results.write_result(folder.segments_path / "1.h5", ["a", "a", "b"])
    results.write_result(folder.segments_path / "2.h5", ["c"])
    merge(folder)
    return folder


def names(dataset: h5py.Dataset) -> tuple[str, ...]:
    return tuple(dataset.dims[axis][0].name.rpartition("/")[2] for axis in range(dataset.ndim))


def test_every_axis_of_every_column_has_a_name(run: RunFolder) -> None:
    with h5py.File(run.merged) as file:
        for table, schema in ((file, EXPLANATIONS), (file["images"], IMAGES)):
            for name in schema:
                found = names(table[name])
                assert found == {**AXES, **OF_IMAGES}.get(name, (found[0],)), name
                assert found[0] == ("explanation" if schema is EXPLANATIONS else "image")
                for axis, length in enumerate(table[name].shape):
                    assert len(table[name].dims[axis][0]) == length


def test_the_file_is_sealed_and_read_as_before(run: RunFolder) -> None:
    check_seal(run.merged)
    with MaskFile(run.merged) as masks:
        assert masks.column("sample_id").tolist() == ["a", "a", "b", "c"]
        assert masks[0].mask.shape == (4, 4)
    assert run.damaged() == []


def test_axes_whose_length_differs_get_names_of_their_own(tmp_path: Path) -> None:
    schema = {
        "one": Column("f", "", axes=("point",)),
        "two": Column("f", "", axes=("point",)),
        "three": Column("f", ""),
    }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, shape in (("one", (2, 5)), ("two", (2, 7)), ("three", (2, 3, 3))):
            file[name] = np.zeros(shape)
        name_axes(file, schema, "row")
        assert [names(file[name]) for name in schema] == [
            ("row", "point"), ("row", "two_point"), ("row", "three_0", "three_1")
        ]  # fmt: skip


def test_older_files_without_scales_are_read(run: RunFolder, tmp_path: Path) -> None:
    segment = run.segments()[0]
    with open_result(segment) as file:
        assert not file["masks"].dims[0]
    with MaskFile(segment) as masks:
        assert len(masks) == 3


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_opens_it(run: RunFolder, engine: str) -> None:
    xarray: Any = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf" if engine == "h5netcdf" else "netCDF4")
    with MaskFile(run.merged) as masks:
        expected = {name: masks.column(name) for name in ("masks", "score", "sample_id")}
    with xarray.open_dataset(run.merged, engine=engine) as data:
        assert data["masks"].dims == ("explanation", "y", "x")
        assert dict(data.sizes) == {"explanation": 4, "y": 4, "x": 4, "corner": 4, "point": 5}
        np.testing.assert_array_equal(data["masks"].values, expected["masks"])
        np.testing.assert_array_equal(data["score"].values, expected["score"])
        texts = [text.decode() if isinstance(text, bytes) else str(text) for text in data["sample_id"].values]
        assert texts == expected["sample_id"].tolist()
        assert data["masks"].attrs["about"].startswith("(s, s)")
        if engine == "h5netcdf":  # HDF5 opens a file once in a process, with or without locks
            with pytest.raises(IgosError, match="open in this process by another library"):
                MaskFile(run.merged)
    with xarray.open_dataset(run.merged, engine=engine, group="images") as images:
        assert images["frame"].dims == ("image", "corner")
