"""The columns of a result as arrays, which are read block by block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igos_pl.store.reader import Rows
from igos_pl.store.schema import EXPLANATIONS, IMAGES, configuration_of

_BLOCK = 1024  # rows that are in memory at once

# The columns of the table of images that every explanation gets.
_OF_IMAGES = ("path", "width", "height", "frame", "input_size", "ground_truth")


@dataclass(frozen=True)
class Array:
    """One column.

    Attributes:
        name: of the column; ``saliency`` is 1 - masks.
        rows: the explanations.
        dtype: text has a fixed length.
        shape: begins with the number of rows.
        about: what it contains.
        axes: the names of its axes.
    """

    name: str
    rows: Rows
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    about: str
    axes: tuple[str, ...]

    def blocks(self) -> Iterator[NDArray[Any]]:
        """The values, up to 1024 rows at a time."""
        for start in range(0, len(self.rows), _BLOCK):
            yield _read(self.rows[start : start + _BLOCK], self.name).astype(self.dtype)


def arrays_of(rows: Rows) -> list[Array]:
    """All columns of some explanations, with those of their images.

    Args:
        rows: at least one.
    """
    found = []
    for name in ("saliency", *(name for name in EXPLANATIONS if name != "masks"), *_OF_IMAGES):
        column = EXPLANATIONS.get("masks" if name == "saliency" else name) or IMAGES[name]
        first = _read(rows[:1], name)
        dtype = first.dtype if first.dtype.kind != "O" else _text_type(rows, name)
        about = "(s, s) in [0, 1], high = important" if name == "saliency" else column.about
        rest = first.ndim - 1
        axes = column.axes if len(column.axes) == rest else tuple(f"{name}_{axis}" for axis in range(rest))
        shape = (len(rows), *first.shape[1:])
        found.append(Array(name, rows, dtype, shape, about, ("explanation", *axes)))
    return found


def settings_as_json(attributes: dict[str, Any]) -> str:
    """The settings of a run as JSON."""
    plain = {
        key: value.item() if isinstance(value, np.generic) else value for key, value in attributes.items()
    }
    return json.dumps({**plain, **configuration_of(attributes)}, indent=1, sort_keys=True)


def _read(rows: Rows, name: str) -> NDArray[Any]:
    if name == "saliency":
        return np.asarray(1 - rows.column("masks").astype(np.float32))
    return rows.column(name) if name in EXPLANATIONS else rows.image_column(name)


def _text_type(rows: Rows, name: str) -> np.dtype[Any]:
    """A type that holds the longest text of a column."""
    longest = max(
        len(text)
        for start in range(0, len(rows), _BLOCK)
        for text in _read(rows[start : start + _BLOCK], name)
    )
    return np.dtype(f"U{max(1, longest)}")
