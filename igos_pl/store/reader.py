"""Reading results: the merged file, or a run's segments as they are."""

from __future__ import annotations

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
from igos_pl.store.files import image_statuses, open_result, owned_rows, owners
from igos_pl.store.folder import RunFolder
from igos_pl.store.schema import EXPLANATIONS, IMAGES, read_column

_BLOCK = 1024  # rows that are read at once

# The columns of explanations that hold more than one number in a row.
_ARRAYS = ("masks", "box", "deletion_curve", "insertion_curve")
_CORNERS = ("x1", "y1", "x2", "y2")


class Rows(Sequence[Explanation]):
    """Some explanations of a file, in an order. Nothing is read before it is asked for.

    ``rows[3]`` is an explanation; ``rows[10:20]``, ``rows[[1, 5]]`` and ``rows["cat.jpg"]`` are rows again.
    Iterating reads a thousand rows at a time.

    Args:
        file: where they are read.
        numbers: of the rows in it.
    """

    def __init__(self, file: MaskFile, numbers: NDArray[np.int64]) -> None:
        self._masks = file
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, name: str) -> NDArray[Any]:
        """A column of these rows.

        Raises:
            IgosError: if there is no such column.
        """
        return self._masks.read(name, self.numbers)

    def where(self, **values: Any) -> NDArray[np.int64]:
        """The places of the rows whose columns have these values: ``where(label=285, status="ok")``."""
        chosen = np.ones(len(self), dtype=bool)
        for name, value in values.items():
            chosen &= self.column(name) == value
        return np.flatnonzero(chosen)

    def table(self) -> dict[str, NDArray[Any]]:
        """What can stand in a flat table: a column for each number and text of these rows.

        Masks and curves are left out; `column` gives them in the same order. The box has four columns, and
        the image's path and label come from the table of images.
        """
        columns: dict[str, NDArray[Any]] = {}
        for name in EXPLANATIONS:
            if name == "box":
                corners = self.column(name).reshape(len(self), 4)
                columns.update({f"box_{corner}": corners[:, i] for i, corner in enumerate(_CORNERS)})
            elif name not in _ARRAYS:
                columns[name] = self.column(name)
        images = [self._masks.image_row(name) for name in columns["sample_id"].tolist()]
        return {**columns, **{name: self._masks.images[name][images] for name in ("path", "ground_truth")}}

    def to_dataframe(self) -> Any:
        """These rows as a `pandas.DataFrame`, with the columns of `table`.

        The index counts from 0, so that ``rows[frame.query("score > 0.9").index]`` are the same rows again.

        Raises:
            IgosError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise IgosError("Data frames need pandas: pip install 'igos_pl[pandas]'") from error
        return pd.DataFrame(self.table())

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
            raise IndexError(f"row {row} of {len(self)}")
        return next(iter(Rows(self._masks, self.numbers[[row]])))

    def __iter__(self) -> Iterator[Explanation]:
        for start in range(0, len(self), _BLOCK):
            numbers = self.numbers[start : start + _BLOCK]
            columns = {name: _values(self._masks.read(name, numbers)) for name in EXPLANATIONS}
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                image = self._masks.image(row["sample_id"])
                yield Explanation(row, image, self._masks.attributes)

    def __repr__(self) -> str:
        return f"<{len(self)} explanations>"


class MaskFile(Rows):
    """The results of a run: ``MaskFile("runs/x/masks.h5")``, or ``MaskFile("runs/x")`` for a run's folder.

    A folder is read from its merged file if that holds all results, or else from its segments, so that a run
    can be inspected while it goes on. If several segments hold an image, the rows of one of them are used.
    See `Rows` for what a file offers. Use it in a ``with`` statement, or `close` it.

    Args:
        path: a merged file, a segment, or a run's folder.

    Attributes:
        attributes: the settings of the run.
        images: the table of images, a column for each key; columns are read when they are asked for.

    Raises:
        IgosError: if there is no result, it is damaged, or of another schema version.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self._paths = _results_in(path) if path.is_dir() else [path]
        if not self._paths:
            raise IgosError(f"No results in {path}: neither masks.h5 nor segments/*.h5")
        self._open, self._stack = -1, ExitStack()
        self.attributes: dict[str, Any] = dict(self._file(0).attrs)
        owner = owners(map(image_statuses, self._paths)) if len(self._paths) > 1 else None
        # The rows that are taken of each file; all of a single one.
        self._rows = [self._taken(number, "/", owner) for number in range(len(self._paths))]
        self._image_rows = [self._taken(number, "images", owner) for number in range(len(self._paths))]
        self._starts = np.cumsum([0, *map(len, self._rows)])
        self.images = _Images(self)
        super().__init__(self, np.arange(int(self._starts[-1])))

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
        """Close the file that was read last."""
        self._stack.close()
        self._open = -1

    def read(self, name: str, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows of a column of the explanations, in the order given.

        Raises:
            IgosError: if there is no such column.
        """
        if name not in EXPLANATIONS:
            raise IgosError(f"No column {name!r}; there are: {', '.join(EXPLANATIONS)}")
        parts = np.searchsorted(self._starts, numbers, side="right") - 1
        values: NDArray[Any] | None = None
        for part in np.unique(parts):
            places = np.flatnonzero(parts == part)
            rows = self._rows[part][numbers[places] - self._starts[part]]
            low, high = int(rows.min()), int(rows.max()) + 1
            found: NDArray[Any] = read_column(self._file(int(part)), name, slice(low, high))[rows - low]
            if len(places) == len(numbers):
                return found
            values = np.empty((len(numbers), *found.shape[1:]), found.dtype) if values is None else values
            values[places] = found
        return np.empty(0) if values is None else values

    def image(self, sample_id: str) -> dict[str, Any]:
        """The row of an image in the table of images."""
        row = self.image_row(sample_id)
        return {name: column[row] for name, column in self.images.items()}

    def image_row(self, sample_id: str) -> int:
        """The number of an image's row in the table of images."""
        return self._image_rows_by_id[sample_id]

    @cached_property
    def _image_rows_by_id(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.images["sample_id"].tolist())}

    def _taken(self, number: int, group: str, owner: dict[str, int] | None) -> NDArray[np.int64]:
        """The rows of one file's table that are taken."""
        table = self._file(number)[group]
        if "sample_id" not in table:
            return np.empty(0, np.int64)
        if owner is None:
            return np.arange(len(table["sample_id"]))
        return owned_rows(owner, number, read_column(table, "sample_id"))

    def _file(self, number: int) -> h5py.File:
        """One of the files. One at a time is open: a long run has more segments than a process may open."""
        if number != self._open:
            self.close()
            self._opened = self._stack.enter_context(open_result(self._paths[number]))
            self._open = number
        return self._opened

    def _image_column(self, name: str) -> NDArray[Any]:
        return np.concatenate(
            [
                read_column(self._file(number)["images"], name)[rows]
                for number, rows in enumerate(self._image_rows)
            ]
        )


class _Images(Mapping[str, NDArray[Any]]):
    """The table of images; each column is read once, when it is asked for."""

    def __init__(self, masks: MaskFile) -> None:
        self._masks = masks
        self._read: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in IMAGES:
            raise KeyError(name)
        if name not in self._read:
            self._read[name] = self._masks._image_column(name)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(IMAGES)

    def __len__(self) -> int:
        return len(IMAGES)


def _values(column: NDArray[Any]) -> Any:
    """A column's rows: plain Python values, or arrays."""
    return column.tolist() if column.ndim == 1 else column


def _results_in(folder: Path) -> list[Path]:
    """The merged file of a run's folder if it holds all results, or else its segments."""
    run = RunFolder(folder)
    segments = run.segments()
    if run.merged.exists() and (not segments or run.is_merged()):
        return [run.merged]
    return segments
