"""Copies a table of all segments into one: gathers its rows in order, block by block, and compresses them.

HDF5 does one thing at a time in a process, even reading and compressing. So this module reads rows directly
from the bytes of the segments, at the places that HDF5 names (`igos_pl.store.schema.write_table` does not
compress them), and compresses chunks in threads, as HDF5's own filters would do it.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from igos_pl.data.records import Columns
from igos_pl.errors import IgosError
from igos_pl.store.files import check_counts, open_result
from igos_pl.store.index import Published
from igos_pl.store.schema import (
    CHUNK_ROWS,
    EXPLANATIONS,
    IMAGES,
    KEYS,
    Column,
    create_column,
    damaged,
    find_column,
    lacks,
    read_column,
    with_optional,
)
from igos_pl.store.seals import cannot_read

# The size of the rows gathered at once. Two such blocks are in memory: one is compressed, one is gathered.
_BLOCK_BYTES = 1 << 27
_NEAR_BYTES = 1 << 14  # rows that are closer together are read at once
_TOGETHER = 16  # chunks that a thread compresses at a time


@dataclass(frozen=True)
class _Place:
    """Where a column lies in a file, and the type and shape of its rows."""

    offset: int | None  # None: `read_column` must read the rows
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @classmethod
    def in_table(cls, table: h5py.Group, name: str) -> _Place:
        if lacks(table, name):
            found = read_column(table, name, slice(0))
            return cls(None, found.dtype, found.shape[1:])
        dataset = find_column(table, name)
        text = h5py.check_string_dtype(dataset.dtype)
        if text is not None and text.length is None:
            return cls(None, np.dtype(object), dataset.shape[1:])
        return cls(dataset.id.get_offset(), np.dtype(dataset.dtype.str), dataset.shape[1:])

    @cached_property
    def row_bytes(self) -> int:
        """The size of a row."""
        return self.dtype.itemsize * math.prod(self.shape)

    def read(self, file: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows, in ascending order.

        Args:
            file: descriptor of the open file.
            rows: their numbers.

        Raises:
            EOFError: if the file ends before the last of these rows.
        """
        if (rows[-1] - rows[0]) * self.row_bytes <= _NEAR_BYTES:
            return self._read_near(file, rows)
        far = np.flatnonzero(np.diff(rows) * self.row_bytes > _NEAR_BYTES) + 1
        return np.concatenate([self._read_near(file, near) for near in np.split(rows, far)])

    def _read_near(self, file: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read rows at once, together with the bytes between them."""
        assert self.offset is not None
        first, number = int(rows[0]), int(rows[-1] - rows[0]) + 1
        content = os.pread(file, number * self.row_bytes, self.offset + first * self.row_bytes)
        if len(content) < number * self.row_bytes:
            raise EOFError
        block = np.frombuffer(content, self.dtype).reshape(-1, *self.shape)
        return block if number == len(rows) else block[rows - first]


@dataclass(frozen=True)
class _Source:
    """One table of one segment."""

    path: Path
    group: str
    columns: Mapping[str, _Place]

    @classmethod
    def of(cls, file: h5py.File, path: Path, group: str, schema: Mapping[str, Column]) -> _Source:
        table = file[group]
        return cls(path, group, {name: _Place.in_table(table, name) for name in with_optional(schema, table)})

    def read(self, rows: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Some rows of each column, in ascending order."""
        try:
            with self.path.open("rb", buffering=0) as file:
                for name, place in self.columns.items():
                    if place.offset is not None:
                        yield name, place.read(file.fileno(), rows)
        except OSError as error:
            raise cannot_read(self.path, error) from error
        except EOFError as error:
            raise damaged(self.path, "it became shorter while it was merged") from error
        long = [name for name, place in self.columns.items() if place.offset is None]
        if long:
            low, high = int(rows[0]), int(rows[-1]) + 1
            with open_result(self.path) as opened:
                for name in long:
                    yield name, read_column(opened[self.group], name, slice(low, high))[rows - low]


class SortedTable:
    """One table over all segments: the rows that are used, sorted.

    Args:
        schema: its columns.
        sources: the segments' tables.
        parts: the number of the source of each row.
        rows: the number of each row in its source.

    Raises:
        IgosError: if the rows of two sources have different shapes.
    """

    def __init__(
        self,
        schema: Mapping[str, Column],
        sources: Sequence[_Source],
        parts: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        # All segments of a run have the same optional columns.
        self.schema = with_optional(schema, sources[0].columns if sources else ())
        self._sources, self._parts, self._rows = sources, parts, rows
        self.like = {name: self._common(name) for name in self.schema} if sources else {}

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: slice) -> Columns:
        """Some rows of all columns."""
        parts, numbers = self._parts[rows], self._rows[rows]
        columns = {
            name: np.empty((len(parts), *like.shape[1:]), like.dtype) for name, like in self.like.items()
        }
        order = np.lexsort((numbers, parts))
        for places in np.split(order, np.flatnonzero(np.diff(parts[order])) + 1):
            for name, values in self._sources[parts[places[0]]].read(numbers[places]):
                columns[name][places] = values
        return columns

    def _common(self, name: str) -> NDArray[Any]:
        """An empty column that can hold the rows of all sources."""
        places = [source.columns[name] for source in self._sources]
        for source, place in zip(self._sources, places, strict=True):
            if place.shape != places[0].shape:
                raise IgosError(f"{source.path}: {name} has rows of {place.shape}, not {places[0].shape}")
        return np.empty((0, *places[0].shape), np.result_type(*{place.dtype for place in places}))


def sorted_tables(published: Published) -> tuple[SortedTable, SortedTable]:
    """The tables of images and of explanations. Each segment is opened once.

    Raises:
        IgosError: if an image has more or fewer explanations than its record says.
    """
    images: list[_Source] = []
    explanations: list[_Source] = []
    keys, numbers, parts = [], [], []
    for number, path in enumerate(published.paths):
        entries = published.of(number)
        ids, used = published.ids[entries], published.used[entries]
        with open_result(path) as file:
            images.append(_Source.of(file, path, "images", IMAGES))
            targets = read_column(file["images"], "targets")
            rows = "sample_id" in file
            found = [read_column(file, key) for key in KEYS] if rows else [ids[:0]]
            check_counts(path, ids, targets, found[0])
            if not rows:
                continue
            chosen = np.arange(len(found[0])) if used.all() else np.flatnonzero(np.isin(found[0], ids[used]))
            keys.append([column[chosen] for column in found])
            numbers.append(chosen)
            parts.append(np.full(len(chosen), len(explanations)))
            explanations.append(_Source.of(file, path, "/", EXPLANATIONS))
    order = np.flatnonzero(published.used)
    order = order[np.argsort(published.ids[order], kind="stable")]
    part = published.parts()[order]
    return (
        SortedTable(IMAGES, images, part, order - published.starts[part]),
        _sorted(explanations, keys, parts, numbers),
    )


def _sorted(
    sources: Sequence[_Source],
    keys: Sequence[Sequence[NDArray[Any]]],
    parts: Sequence[NDArray[np.int64]],
    rows: Sequence[NDArray[np.int64]],
) -> SortedTable:
    """The explanations in the order of their keys."""
    if not sources:
        return SortedTable(EXPLANATIONS, [], np.empty(0, np.int64), np.empty(0, np.int64))
    columns = [np.concatenate(column) for column in zip(*keys, strict=True)]
    order = np.lexsort(columns[::-1])
    return SortedTable(EXPLANATIONS, sources, np.concatenate(parts)[order], np.concatenate(rows)[order])


def copy_table(table: SortedTable, target: h5py.Group, on_rows: Callable[[int], None]) -> None:
    """Write a table, compressed by all cores.

    Args:
        table: the table, with at least one row.
        target: an empty group.
        on_rows: called after each block with its number of rows.
    """
    row_bytes = sum(like.dtype.itemsize * math.prod(like.shape[1:]) for like in table.like.values())
    fitting = max(1, _BLOCK_BYTES // row_bytes)
    chunk_rows = min(CHUNK_ROWS, 1 << (fitting.bit_length() - 1))
    block = fitting - fitting % chunk_rows  # whole chunks of all columns
    datasets = {
        name: create_column(
            target,
            name,
            column,
            (len(table), *table.like[name].shape[1:]),
            table.like[name].dtype,
            chunk_rows,
        )
        for name, column in table.schema.items()
    }
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compressing: list[_Chunks] = []
        for start in range(0, len(table), block):
            columns = table.read(slice(start, start + block))
            chunks: list[_Chunks] = []
            for name, values in columns.items():
                if values.dtype.kind == "O":
                    datasets[name][start : start + block] = values
                elif values.size:
                    chunks += _chunks(datasets[name], start, values, pool)
            _write(compressing)  # the block before, while this one is compressed
            compressing = chunks
            on_rows(min(block, len(table) - start))
        _write(compressing)


# A column, its first row, and the compressed chunks.
_Chunks = tuple[h5py.Dataset, int, "Future[list[bytes]]"]


def _chunks(
    dataset: h5py.Dataset, start: int, values: NDArray[Any], pool: ThreadPoolExecutor
) -> Iterator[_Chunks]:
    """Start to compress some rows in chunks."""
    rows = dataset.chunks[0]
    for row in range(0, len(values), rows * _TOGETHER):
        some = values[row : row + rows * _TOGETHER]
        yield dataset, start + row, pool.submit(_compressed_chunks, some, rows)


def _compressed_chunks(values: NDArray[Any], rows: int) -> list[bytes]:
    return [compressed(values[row : row + rows], rows) for row in range(0, len(values), rows)]


def _write(chunks: Sequence[_Chunks]) -> None:
    for dataset, start, contents in chunks:
        rows, *rest = dataset.chunks
        for number, content in enumerate(contents.result()):
            dataset.id.write_direct_chunk((start + number * rows, *(0 for _ in rest)), content)


def compressed(values: NDArray[Any], rows: int) -> bytes:
    """Compress a chunk as HDF5's filters shuffle and deflate do.

    Deflate looks only for repeated bytes here (run-length encoding). On masks this is twice as quick as its
    usual search, and the result is as small.

    Args:
        values: the rows.
        rows: the rows of a whole chunk; the last chunk of a column is filled up with zeros.
    """
    chunk = np.zeros((rows, *values.shape[1:]), values.dtype)
    chunk[: len(values)] = values
    shuffled = chunk.reshape(-1).view(np.uint8).reshape(-1, values.dtype.itemsize).T
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    return deflate.compress(shuffled.tobytes()) + deflate.flush()
