"""Reading results: the merged file, or a run's segments as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from igos_pl.data.explanation import Explanation
from igos_pl.data.records import Columns
from igos_pl.errors import IgosError
from igos_pl.store.schema import EXPLANATIONS, IMAGES, read_column
from igos_pl.store.segments import RunFolder, image_ids, open_result, owned_rows, owners


class MaskFile:
    """The results of a run: ``MaskFile("runs/x/masks.h5")``, or ``MaskFile("runs/x")`` for a run's folder.

    A folder is read from its merged file if that holds all there is, or else from its segments, so that a
    run can be looked into while it goes on. Of an image that is in several segments, the first one's rows are
    taken. Iterating gives the explanations one by one; `where` selects rows.
    Use it in a ``with`` statement, or `close` it.

    Args:
        path: a merged file, a segment, or a run's folder.

    Raises:
        IgosError: if there is no result, it is damaged, or of another schema version.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        paths = _results_in(path) if path.is_dir() else [path]
        if not paths:
            raise IgosError(f"No results in {path}: neither masks.h5 nor segments/*.h5")
        self._paths = paths
        self._open, self._stack = -1, ExitStack()
        self.attributes: dict[str, Any] = dict(self._file(0).attrs)
        tables: list[Columns] = []
        self._rows: list[NDArray[np.int64]] = []
        owner = owners(map(image_ids, paths))
        for number in range(len(paths)):
            file = self._file(number)
            table = {name: read_column(file["images"], name) for name in IMAGES}
            kept = owned_rows(owner, number, table["sample_id"])
            tables.append({name: column[kept] for name, column in table.items()})
            ids = read_column(file, "sample_id") if "sample_id" in file else ()
            self._rows.append(owned_rows(owner, number, ids))
        self._starts = np.cumsum([0, *map(len, self._rows)])
        self.images: Columns = {name: np.concatenate([table[name] for table in tables]) for name in IMAGES}
        self._image_row = {name: row for row, name in enumerate(self.images["sample_id"].tolist())}

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

    def _file(self, number: int) -> h5py.File:
        """One of the files. One at a time is open: a long run has more segments than a process may open."""
        if number != self._open:
            self.close()
            self._opened = self._stack.enter_context(open_result(self._paths[number]))
            self._open = number
        return self._opened

    def __len__(self) -> int:
        return int(self._starts[-1])

    def column(self, name: str) -> NDArray[Any]:
        """A whole column of the explanations.

        Raises:
            IgosError: if there is no such column.
        """
        if name not in EXPLANATIONS:
            raise IgosError(f"No column {name!r}; there are: {', '.join(EXPLANATIONS)}")
        parts = [
            read_column(self._file(number), name)[rows] for number, rows in enumerate(self._rows) if len(rows)
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def where(self, **values: Any) -> NDArray[np.int64]:
        """The numbers of the rows whose columns have these values: ``where(label=285, status="ok")``."""
        chosen = np.ones(len(self), dtype=bool)
        for name, value in values.items():
            chosen &= self.column(name) == value
        return np.flatnonzero(chosen)

    def __getitem__(self, row: int) -> Explanation:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row = int(row) % len(self)
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        inside = int(self._rows[part][row - int(self._starts[part])])
        values = {}
        for name in EXPLANATIONS:
            value = read_column(self._file(part), name, slice(inside, inside + 1))[0]
            values[name] = value.item() if isinstance(value, np.generic) else value
        image_row = self._image_row[values["sample_id"]]
        image = {name: column[image_row] for name, column in self.images.items()}
        return Explanation(values, image, self.attributes)

    def __iter__(self) -> Iterator[Explanation]:
        return (self[row] for row in range(len(self)))


def _results_in(folder: Path) -> list[Path]:
    """The merged file of a run's folder if it holds all there is, or else its segments."""
    run = RunFolder(folder)
    segments = run.segments()
    if run.merged.exists() and (not segments or run.is_merged()):
        return [run.merged]
    return segments
