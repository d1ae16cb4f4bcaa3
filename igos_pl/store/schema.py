"""The file format: two tables of columns, and attributes that describe how they were made."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from igos_pl.data.records import Columns, ImageRecord
from igos_pl.data.run_files import MERGED, SEGMENTS
from igos_pl.errors import IgosError
from igos_pl.settings import Attributes

SCHEMA_VERSION = 4

# Version 4 added the columns that have a `Column.ones_like`.
_READABLE = (3, SCHEMA_VERSION)

# Attributes that may differ between parts of one run; all others are its configuration.
PROVENANCE = ("schema_version", "created", "igos_pl", "torch", "torchvision", "threads", "device", "preset")

_TEXT = h5py.string_dtype()

# Text columns have a fixed length, which is many times quicker, unless a value has more bytes than this.
_LONGEST_FIXED = 256

_CHUNK_BYTES = 1 << 16
CHUNK_ROWS = 1024  # the most; chunk lengths are powers of two, so blocks of 1024 rows are whole chunks


# The exceptions that h5py raises for damaged data.
HDF5_ERRORS = (OSError, KeyError, RuntimeError)


class DamagedFileError(IgosError):
    """A file's content is not what was written."""


def damaged(path: Path, why: str) -> DamagedFileError:
    """The error for a damaged file. For a file of a run, the message says how to make it again."""
    message = f"Cannot read {path}: {why}"
    if path.name == MERGED and (path.parent / SEGMENTS).is_dir():
        message += f". It is a copy of {path.parent / SEGMENTS}: igos-pl merge {path.parent} creates it again"
    elif path.parent.name == SEGMENTS:
        message += ". Repeat the command that started the run: it explains the images of this file again"
    return DamagedFileError(message)


@dataclass(frozen=True)
class Column:
    """A column's type.

    Attributes:
        dtype: the type of the values; ``f`` keeps the type of the array that is written.
        about: what the column contains.
        shape: the shape of one row in the table of images. Rows of explanations may have any shape, but all
            rows of a run have the same one.
        axes: the names of the axes of one row, for `igos_pl.store.scales`.
        ones_like: the name of another column. Files of earlier versions do not have this column: it is read
            as ones, in the shape of the other one.
    """

    dtype: Any
    about: str
    shape: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()
    ones_like: str = ""


EXPLANATIONS = {
    "masks": Column("f", "(s, s) in [0, 1], low = important", axes=("y", "x")),
    "sample_id": Column(_TEXT, "the image's name, unique in the data set"),
    "target": Column("i4", "number of the target within its image"),
    "start_cell": Column("i4", "cell of a diverse start, row by row; -1 for a plain start"),
    "label": Column("i4", "class that is explained"),
    "label_name": Column(_TEXT, "its name"),
    "score": Column("f4", "score of the class or the detection, as the network gives it for the image"),
    "baseline_score": Column("f4", "score of the target on the baseline"),
    "box": Column("f4", "x1 y1 x2 y2 in original pixels; NaN for classifiers", axes=("corner",)),
    "deletion": Column("f4", "area under the deletion curve, low is good; NaN if not computed"),
    "insertion": Column("f4", "area under the insertion curve, high is good; NaN if not computed"),
    "deletion_curve": Column("f4", "scores from nothing removed to all removed", axes=("point",)),
    "insertion_curve": Column("f4", "scores from nothing shown to all shown", axes=("point",)),
    "deletion_measured": Column(
        "i1",
        "1 at the points of the deletion curve that were measured, 0 on the straight lines between them",
        axes=("point",),
        ones_like="deletion_curve",
    ),
    "insertion_measured": Column(
        "i1", "the same for the insertion curve", axes=("point",), ones_like="insertion_curve"
    ),
    "object": Column("i8", "annotation id of the object that was detected, paired one to one; -1 if none"),
    "pointing_box": Column("f4", "1 if the most salient pixel is in the object's box; NaN without object"),
    "pointing_mask": Column("f4", "the same for its instance mask"),
    "energy_box": Column("f4", "share of the saliency in the object's box; NaN without object"),
    "energy_mask": Column("f4", "the same for its instance mask"),
    "diversity": Column(
        "f4", "1 - mean overlap of the top 20 % of cells between the target's starts; NaN for one start"
    ),
    "best": Column("i1", "1 for the start with the largest insertion - deletion of its target"),
    "iterations": Column("i4", "iterations of the optimiser, or steps of the search"),
    "evaluations": Column("i4", "forward and backward passes of the optimisation"),
    "forwards": Column("i4", "passes without gradient of the optimisation"),
    "seconds": Column("f4", "the time of the row's batch, divided by the rows of the batch"),
    "objective": Column("f4", "value of the objective before the last step"),
    "status": Column(_TEXT, "ok, or nan: the objective stopped being finite"),
}

# Columns of explanations that only some runs have.
OPTIONAL = {
    "regions": Column(
        "i4", "(s, s) label of each cell's region; low mask values = important regions", axes=("y", "x")
    )
}
# The columns that identify an explanation.
KEYS = ("sample_id", "target", "start_cell")

IMAGES = {
    "sample_id": Column(_TEXT, "the image's name, unique in the data set"),
    "path": Column(_TEXT, "the file that it was read from"),
    "width": Column("i4", "width of the upright original, in pixels; 0 if unreadable"),
    "height": Column("i4", "height of the upright original, in pixels; 0 if unreadable"),
    "frame": Column(
        "f8", "x1 y1 x2 y2 of what the network sees, in pixels of the upright original", (4,), ("corner",)
    ),
    "input_size": Column("i4", "height and width to which that was scaled for the network", (2,), ("side",)),
    "ground_truth": Column("i4", "label, -1 if unknown"),
    "status": Column(_TEXT, "ok, no detection, nan (not finite), unreadable, or failed (the network)"),
    "message": Column(_TEXT, "why it is not ok, or remarks on its targets"),
    "targets": Column("i4", "number of the image's rows in the table of explanations"),
}


def schema_of(names: Collection[str]) -> dict[str, Column]:
    """The schema of a table of explanations, or of figures about them.

    Args:
        names: the table's columns. A table of figures has no masks, but `KEYS` and a column for each figure.
    """
    if "masks" in names:
        return with_optional(EXPLANATIONS, names)
    figures = {name: Column("f4", _FIGURE) for name in names if name not in KEYS}
    return {**{name: EXPLANATIONS[name] for name in KEYS}, **figures}


_FIGURE = "a figure of igos-pl evaluate, see docs/evaluation.md; NaN where it is unknown"


def image_columns(records: Sequence[ImageRecord]) -> Columns:
    """Records as columns."""
    rows = [record.row() for record in records]
    return {
        name: np.array([row[name] for row in rows], column.dtype).reshape(len(rows), *column.shape)
        for name, column in IMAGES.items()
    }


def text_array(values: Sequence[bytes]) -> NDArray[Any]:
    """UTF-8 text as the store handles it: of fixed length, or as objects if a value is long."""
    longest = max(map(len, values), default=0)
    return np.array(values, f"S{max(1, longest)}" if longest <= _LONGEST_FIXED else object)


def encoded(values: NDArray[Any]) -> NDArray[Any]:
    """Text from outside as `text_array`.

    Raises:
        TypeError, ValueError: if a value is not text, has a zero byte, or is not valid Unicode.
    """
    texts = [str.encode(value) for value in values.tolist()]
    if any(b"\0" in text for text in texts):
        raise ValueError("text with a zero byte")
    return text_array(texts)


def decoded(values: NDArray[Any]) -> NDArray[Any]:
    """A column as a reader sees it: text as Python strings, all else unchanged.

    Raises:
        UnicodeDecodeError: if it is not UTF-8.
    """
    if values.dtype.kind not in "SO":
        return values
    return np.array([value.decode() for value in values.tolist()], object)


def create_column(
    table: h5py.Group,
    name: str,
    column: Column,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunk_rows: int | None = None,
) -> h5py.Dataset:
    """Create an empty column.

    Args:
        table: the group that gets the column.
        name: the column's name.
        column: its type.
        shape: the number of rows, and the shape of one row.
        dtype: the type of the values that are written; for text, that of `text_array`.
        chunk_rows: compress the column in chunks of at most so many rows, a power of two. If None, it is
            neither chunked nor compressed.
    """
    if column.dtype == _TEXT:
        stored = _TEXT if dtype.kind == "O" else h5py.string_dtype("utf-8", dtype.itemsize)
    else:
        stored = dtype if column.dtype == "f" else np.dtype(column.dtype)
    options: dict[str, Any] = {}
    if chunk_rows is not None and 0 not in shape:
        row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * stored.itemsize
        fitting = 1 << max(0, (_CHUNK_BYTES // row_bytes).bit_length() - 1)
        options = {"chunks": (min(fitting, chunk_rows, shape[0]), *shape[1:]), "shuffle": True}
        options["compression"] = "gzip"
    dataset = table.create_dataset(name, shape, stored, **options)
    dataset.attrs["about"] = column.about
    return dataset


def write_table(table: h5py.Group, schema: Mapping[str, Column], columns: Columns) -> None:
    """Write whole columns, not compressed. This is quick, and `igos_pl.store.tables` can read rows directly.

    Raises:
        IgosError: if the columns are not those of the schema, or differ in length.
    """
    if set(columns) != set(schema):
        raise IgosError(f"Columns {sorted(set(columns) ^ set(schema))} are missing or unknown")
    if len({len(values) for values in columns.values()}) != 1:
        lengths = {name: len(values) for name, values in columns.items()}
        raise IgosError(f"Columns differ in length: {lengths}")
    for name, column in schema.items():
        values = encoded(columns[name]) if column.dtype == _TEXT else columns[name]
        dataset = create_column(table, name, column, values.shape, values.dtype)
        dataset[...] = values.view(dataset.dtype) if values.dtype.kind == "S" else values


def with_optional(schema: Mapping[str, Column], names: Container[str]) -> dict[str, Column]:
    """A schema with the optional columns that are among some names."""
    return {**schema, **{name: column for name, column in OPTIONAL.items() if name in names}}


def lacks(table: h5py.Group, column: str) -> bool:
    """Whether a table of an earlier version does not have a column, which is then read as ones."""
    known = EXPLANATIONS.get(column)
    return known is not None and bool(known.ones_like) and column not in table


def find_column(table: h5py.Group, name: str) -> h5py.Dataset:
    """A column that is stored in the file itself.

    Raises:
        DamagedFileError: if it is missing, damaged, or leads to another place.
    """
    try:  # by h5py's low-level functions, which are several times quicker
        here = table.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD
        if here:
            dataset = h5py.Dataset(h5py.h5d.open(table.id, name.encode()))
            how = dataset.id.get_create_plist()
            here = how.get_layout() != h5py.h5d.VIRTUAL and how.get_external_count() == 0
    except HDF5_ERRORS as error:
        raise damaged(Path(table.file.filename), f"{name} is damaged ({error})") from error
    if not here:
        raise damaged(Path(table.file.filename), f"{name} leads to another place")
    return dataset


def read_column(table: h5py.Group, name: str, rows: Any = ...) -> NDArray[Any]:
    """A column, or some rows of it; text as UTF-8 bytes.

    Raises:
        DamagedFileError: if the column is missing, damaged, or leads to another place.
    """
    if lacks(table, name):
        return np.ones_like(read_column(table, EXPLANATIONS[name].ones_like, rows), EXPLANATIONS[name].dtype)
    dataset = find_column(table, name)
    try:
        return np.asarray(dataset[rows])
    except HDF5_ERRORS as error:
        raise damaged(Path(table.file.filename), f"{name} is damaged ({error})") from error


def check_version(version: Any, path: Path) -> None:
    """Raise unless this program can read a file.

    Args:
        version: the file's schema version; None if it has none.
        path: the file.

    Raises:
        IgosError: if igos-pl did not write it, or wrote it with another schema version.
    """
    if version is None:
        raise IgosError(f"{path} is an HDF5 file, but was not written by igos-pl (no schema_version)")
    if not isinstance(version, int | np.integer):
        raise DamagedFileError(f"{path}: schema_version is {version!r}, but must be a whole number")
    if int(version) not in _READABLE:
        raise IgosError(
            f"{path} has schema version {int(version)}, but this igos-pl reads versions {_READABLE[0]}"
            f" to {_READABLE[1]}:"
            + (" update igos-pl" if version > SCHEMA_VERSION else " read it with the igos-pl that wrote it")
        )


def differing_keys(one: Attributes, other: Attributes) -> list[str]:
    """The keys, sorted, in which two configurations differ."""
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


def configuration_of(attributes: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The attributes that two runs in one folder must share, as plain Python values."""
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in attributes.items()
        if key not in PROVENANCE
    }


def check_lengths(file: h5py.File, path: object) -> None:
    """Raise unless all columns of a table have the same number of rows.

    Raises:
        DamagedFileError: the message names the table and the lengths.
    """
    for table, schema in (("/", EXPLANATIONS | OPTIONAL), ("images", IMAGES)):
        group = file[table]
        found = [group.get(name) for name in schema if group.get(name, getlink=True) is not None]
        lengths = {len(column) for column in found if isinstance(column, h5py.Dataset) and column.shape}
        if len(lengths) > 1:
            raise DamagedFileError(
                f"{path}: the columns of {table} differ in length: {', '.join(map(str, sorted(lengths)))}"
            )
