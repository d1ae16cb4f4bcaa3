"""Reading results: the merged file, or a run's segments as they are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import h5py
import numpy as np
from numpy.typing import NDArray

from igos_pl.data.explanation import Explanation
from igos_pl.errors import IgosError
from igos_pl.optional import imported
from igos_pl.store.evaluations import EVALUATION, read_evaluation
from igos_pl.store.files import open_result
from igos_pl.store.folder import RunFolder
from igos_pl.store.index import Published, find
from igos_pl.store.schema import (
    CHUNK_ROWS,
    EXPLANATIONS,
    HDF5_ERRORS,
    IMAGES,
    KEYS,
    Column,
    damaged,
    decoded,
    lacks,
    read_column,
    with_optional,
)

_BLOCK = 1024  # rows that are read at once
_OPEN_FILES = 4  # a long run has more segments than a process may open

# The columns of explanations that hold more than one number in a row.
ARRAYS = (
    "masks",
    "regions",
    "box",
    "deletion_curve",
    "insertion_curve",
    "deletion_measured",
    "insertion_measured",
)
_CORNERS = ("x1", "y1", "x2", "y2")


class Rows(Sequence[Explanation]):
    """Some explanations of a file, in a given order. Rows are read only when they are used.

    ``rows[3]`` is an explanation; ``rows[10:20]``, ``rows[[1, 5]]`` and ``rows["cat.jpg"]`` are rows again.
    Iterating reads a thousand rows at a time.

    Args:
        file: the file that they are read from.
        numbers: the numbers of the rows in it.
    """

    def __init__(self, file: MaskFile, numbers: NDArray[np.int64]) -> None:
        self._masks = file
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the run."""
        return self._masks.attributes

    def column(self, name: str) -> NDArray[Any]:
        """A column of these rows.

        Raises:
            IgosError: if there is no such column.
        """
        return self._masks.read(name, self.numbers)

    def image_column(self, name: str) -> NDArray[Any]:
        """For each of these rows, its image's value in a column of the table of images.

        Raises:
            IgosError: if there is no such column.
        """
        images = self._masks.image_rows(self._masks.table.read_bytes("sample_id", self.numbers))
        return self._masks.image_table.read(name, images)

    def where(self, **values: Any) -> NDArray[np.int64]:
        """The places of the rows whose columns have these values: ``where(label=285, status="ok")``."""
        chosen = np.ones(len(self), dtype=bool)
        for name, value in values.items():
            wanted = value.encode() if isinstance(value, str) else value
            chosen &= self._masks.table.read_bytes(name, self.numbers) == wanted
        return np.flatnonzero(chosen)

    def flat(self) -> dict[str, NDArray[Any]]:
        """These rows as a flat table: a column for each number and text.

        Masks and curves are left out; `column` gives them in the same order. The box becomes four columns.
        The image's path and annotated label, and the figures of ``igos-pl evaluate``, are added.
        """
        columns: dict[str, NDArray[Any]] = {}
        for name in self._masks.table.schema:
            if name == "box":
                corners = self.column(name).reshape(len(self), 4)
                columns.update({f"box_{corner}": corners[:, i] for i, corner in enumerate(_CORNERS)})
            elif name not in ARRAYS:
                columns[name] = self.column(name)
        images = {name: self.image_column(name) for name in ("path", "ground_truth")}
        figures = {name: values[self.numbers] for name, values in self._masks.evaluation.items()}
        return {**columns, **images, **figures}

    def to_dataframe(self) -> Any:
        """These rows as a `pandas.DataFrame`, with the columns of `flat`.

        The index counts from 0, so that ``rows[frame.query("score > 0.9").index]`` are the same rows again.

        Raises:
            IgosError: if pandas is not installed.
        """
        return imported("pandas", "pandas", "to_dataframe").DataFrame(self.flat())

    @overload
    def __getitem__(self, row: int) -> Explanation: ...
    @overload
    def __getitem__(self, row: slice | str | Sequence[int] | NDArray[Any]) -> Rows: ...
    def __getitem__(self, row: Any) -> Explanation | Rows:
        if isinstance(row, str):
            found = self.where(sample_id=row)
            if not len(found):
                raise KeyError(f"no explanation of {row!r}")
            return Rows(self._masks, self.numbers[found])
        if isinstance(row, slice) or np.ndim(row):
            places = row if isinstance(row, slice) else np.asarray(row, None if len(row) else np.int64)
            return Rows(self._masks, self.numbers[places])
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} does not exist: there are {len(self)} rows")
        return next(iter(Rows(self._masks, self.numbers[[row]])))

    def __iter__(self) -> Iterator[Explanation]:
        for start in range(0, len(self), _BLOCK):
            numbers = self.numbers[start : start + _BLOCK]
            ids = self._masks.table.read_bytes("sample_id", numbers)
            images = self._masks.images_by_id(ids)
            columns = {name: _values(self._masks.read(name, numbers)) for name in self._masks.table.schema}
            for name, *values in zip(ids.tolist(), *columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                yield Explanation(row, images[name], self._masks.attributes)

    def __repr__(self) -> str:
        return f"<{len(self)} explanations>"


class MaskFile(Rows):
    """The results of a run: ``MaskFile("runs/x/masks.h5")``, or ``MaskFile("runs/x")`` for a run's folder.

    A folder is read from its merged file if that holds all results, otherwise from its segments, so a run can
    be inspected while it goes on. If several segments hold an image, the rows of one of them are used. `Rows`
    describes how rows are read. Use the file in a ``with`` statement, or `close` it.

    Args:
        path: a merged file, a segment, or a run's folder.

    Attributes:
        path: the file or folder that was given.
        published: the index of the run's segments; None if a single file is read, such as a merged one.
        attributes: the settings of the run.
        images: the table of images: a mapping from the name of a column to its values. A column is read when
            it is used.
        table: the table of explanations, from which some rows of a column can be read.
        image_table: the table of images, likewise.

    Raises:
        IgosError: if there are no results, or a file is damaged or of another schema version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        if not path.exists():
            raise IgosError(f"There is no {path}: give a run's output folder, or a result file")
        paths, published = _results_in(path) if path.is_dir() else ([path], None)
        if not paths:
            raise IgosError(f"No results in {path}: neither masks.h5 nor segments/*.h5. {_advice(path)}")
        self._files, self.published = _Files(paths), published
        self._folder = path if path.is_dir() else path.parent
        try:
            self.attributes: dict[str, Any] = {
                key: value.item() if isinstance(value, np.generic) else value
                for key, value in self._files[0].attrs.items()
            }
            lengths = [_length(self._files[0][group]) for group in ("/", "images")]
        except HDF5_ERRORS as error:
            raise damaged(paths[0], f"damaged ({error})") from error
        # The rows of each file that are used; of a single file, all.
        if published is None:
            rows, image_rows = ([np.arange(length)] for length in lengths)
        else:
            image_rows = [np.flatnonzero(published.used[published.of(part)]) for part in range(len(paths))]
            rows = [self._used_rows(published, part) for part in range(len(paths))]
        with_rows = next((part for part, numbers in enumerate(rows) if len(numbers)), 0)
        schema = with_optional(EXPLANATIONS, self._files[with_rows]["/"])
        self.table = Table(self._files, "/", schema, rows)
        self.image_table = Table(self._files, "images", IMAGES, image_rows)
        self.images = _Images(self.image_table)
        super().__init__(self, np.arange(len(self.table)))

    def __enter__(self) -> MaskFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def read(self, name: str, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows of a column of the explanations, in the order given.

        Raises:
            IgosError: if there is no such column.
        """
        return self.table.read(name, numbers)

    def image_rows(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """The places of some images in the table of images.

        Args:
            ids: as UTF-8, in any order, also repeatedly.
        """
        order, names = self._image_order
        places = find(names, ids)
        if (places < 0).any():
            name = ids[places < 0][0].decode(errors="replace")
            raise damaged(self._files.paths[0], f"{name} is missing from its table of images")
        return np.asarray(order[places])

    def images_by_id(self, ids: NDArray[Any]) -> dict[bytes, dict[str, Any]]:
        """The rows of some images in the table of images, by their ids.

        Args:
            ids: as UTF-8, in any order, also repeatedly.
        """
        ids = np.unique(ids)
        rows = self.image_rows(ids)
        columns = {name: _values(self.image_table.read(name, rows)) for name in IMAGES}
        records = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        return dict(zip(ids.tolist(), records, strict=True))

    @property
    def evaluation(self) -> dict[str, NDArray[np.float32]]:
        """What ``igos-pl evaluate`` found: figures by name, one for each row; NaN for rows not judged.

        Raises:
            IgosError: if the file of the figures is damaged.
        """
        return self._evaluation[0]

    @property
    def evaluation_settings(self) -> dict[str, str]:
        """How the figures of `evaluation` were found: the settings of each metric, as JSON."""
        return self._evaluation[1]

    @cached_property
    def _evaluation(self) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
        rows = np.arange(len(self.table))
        if not (self._folder / EVALUATION).is_file():
            return {}, {}
        return read_evaluation(
            self._folder, [self.table.read_bytes(name, rows) for name in KEYS], self.attributes
        )

    @cached_property
    def _image_order(self) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """The rows of the table of images in the order of their ids, and the ids in this order."""
        if self.published is None:
            ids = self.image_table.read_bytes("sample_id", np.arange(len(self.image_table)))
        else:
            ids = self.published.ids[self.published.used]
        order = np.argsort(ids, kind="stable")
        return order, ids[order]

    def _used_rows(self, published: Published, part: int) -> NDArray[np.int64]:
        """The explanations of one segment that are used."""
        entries = published.of(part)
        ids, used, rows = published.ids[entries], published.used[entries], published.indexes[part].rows
        if used.all() or not rows:
            return np.arange(rows)
        return np.flatnonzero(np.isin(read_column(self._files[part], "sample_id"), ids[used]))


class _Files:
    """Opens files by number. Only a few are open at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._open: OrderedDict[int, tuple[h5py.File, ExitStack]] = OrderedDict()

    def __getitem__(self, number: int) -> h5py.File:
        if number not in self._open:
            if len(self._open) == _OPEN_FILES:
                self._open.popitem(last=False)[1][1].close()
            stack = ExitStack()
            self._open[number] = stack.enter_context(open_result(self.paths[number])), stack
        self._open.move_to_end(number)
        return self._open[number][0]

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1][1].close()


class Table:
    """One table over all files: the rows that are used, in the order of the files.

    Args:
        files: the files.
        group: the table's group in each file.
        schema: its columns.
        rows: the rows of each file that are used, ascending.
    """

    def __init__(
        self, files: _Files, group: str, schema: Mapping[str, Column], rows: Sequence[NDArray[np.int64]]
    ) -> None:
        self._files, self._group, self.schema, self._rows = files, group, schema, rows
        self._starts = np.cumsum([0, *map(len, rows)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, name: str, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows of a column, in the order given.

        Raises:
            IgosError: if there is no such column.
        """
        try:
            return decoded(self.read_bytes(name, numbers))
        except UnicodeDecodeError as error:
            raise damaged(self._files.paths[0], f"{name} is damaged ({error})") from error

    def read_bytes(self, name: str, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The same as `read`, but text stays UTF-8 bytes, which is many times quicker."""
        if name not in self.schema:
            raise IgosError(f"No column {name!r}; there are: {', '.join(self.schema)}")
        if not len(numbers):
            return self._no_rows(name)
        parts = np.searchsorted(self._starts, numbers, side="right") - 1
        order = np.argsort(parts, kind="stable")
        found = []
        for places in np.split(order, np.flatnonzero(np.diff(parts[order])) + 1):
            part = int(parts[places[0]])
            rows = self._rows[part][numbers[places] - self._starts[part]]
            found.append(_read_rows(self._files[part][self._group], name, rows))
        return _reordered(found, order)

    def _no_rows(self, name: str) -> NDArray[Any]:
        """Zero rows of a column, with its type, and with the shape of a row if any file has rows."""
        part = next((part for part, rows in enumerate(self._rows) if len(rows)), None)
        if part is None:
            return np.empty((0, *self.schema[name].shape), self.schema[name].dtype)
        return read_column(self._files[part][self._group], name, slice(0, 0))


class _Images(Mapping[str, NDArray[Any]]):
    """The table of images. Each column is read once, when it is used."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._read: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in IMAGES:
            raise KeyError(name)
        if name not in self._read:
            self._read[name] = self._table.read(name, np.arange(len(self._table)))
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(IMAGES)

    def __len__(self) -> int:
        return len(IMAGES)


def _read_rows(table: h5py.Group, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Some rows of a column of one file, in the order given.

    Rows without gaps are read at once. Others are read chunk by chunk, so a few rows of a large file need
    little memory.
    """
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    if (np.diff(ascending) == 1).all():
        cuts = []
    else:
        chunk = CHUNK_ROWS if lacks(table, name) else (table[name].chunks or (CHUNK_ROWS,))[0]
        cuts = (np.flatnonzero(np.diff(ascending // chunk)) + 1).tolist()
    found = []
    for first, last in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        near = ascending[first:last]
        found.append(read_column(table, name, slice(int(near[0]), int(near[-1]) + 1))[near - near[0]])
    return _reordered(found, order)


def _reordered(found: Sequence[NDArray[Any]], order: NDArray[np.int64]) -> NDArray[Any]:
    """Bring values into the order that was asked for.

    Args:
        found: the values, in parts, as they were found.
        order: the place of each value in the result.
    """
    values = np.concatenate(found) if len(found) > 1 else found[0]
    if (np.diff(order) == 1).all():
        return values
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return values[places]


def _length(table: h5py.Group) -> int:
    return len(table["sample_id"]) if "sample_id" in table else 0


def _values(column: NDArray[Any]) -> Any:
    """The rows of a column: plain Python values, or arrays."""
    return column.tolist() if column.ndim == 1 else column


def _advice(folder: Path) -> str:
    """What to do about a folder without results."""
    if others := sorted(folder.glob("*.h5")):  # of a training, for example
        return f"Name one of its files, such as {others[-1]}"
    if RunFolder(folder).expected_path.is_file():
        return (
            "A run writes its first results after about a minute: igos-pl status says how far it is; if it"
            " has stopped, repeat its command"
        )
    return "Give the output folder of a run"


def _results_in(folder: Path) -> tuple[list[Path], Published | None]:
    """The merged file of a run's folder if it holds all results, otherwise its segments."""
    run = RunFolder(folder)
    segments = run.segments()
    if run.merged.exists() and (not segments or run.is_merged()):
        return [run.merged], None
    return segments, Published(segments)
