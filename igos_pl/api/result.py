"""What `igos_pl.explain` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from igos_pl.checks import check_whole
from igos_pl.data.explanation import Explanation, explanations_of
from igos_pl.data.records import BatchResult, Columns, ImageRecord
from igos_pl.data.wording import counted, is_or_are
from igos_pl.errors import IgosError
from igos_pl.evaluation.columns import joined
from igos_pl.settings import Attributes
from igos_pl.store.files import publishing
from igos_pl.store.segments import segment_bytes


class Explanations(Sequence[Explanation]):
    """Explanations of some images: R rows, one for each target, in the order of the images.

    Every column of `igos_pl.store.schema.EXPLANATIONS` is an attribute: ``masks`` ``(R, s, s)`` in [0, 1],
    low = important; ``label``, ``label_name``, ``score``, ``deletion``, ``insertion`` ``(R,)``;
    ``deletion_curve``, ``insertion_curve`` ``(R, 51)``; ... ``result[3]`` is one explanation.

    Args:
        images: the records of the N images.
        tables: the rows of the batches.
        attributes: the settings.
        originals: the N pictures ``(h, w, 3)`` uint8 that are drawn on.

    Attributes:
        image_index: ``(R,)`` the number of each row's image.
    """

    def __init__(
        self,
        images: Sequence[ImageRecord],
        tables: Sequence[Columns],
        attributes: Attributes,
        originals: Sequence[NDArray[np.uint8]],
    ) -> None:
        self.images = images
        self.attributes = attributes
        self._result = BatchResult(images, joined(tables))
        self.originals = originals
        place = {record.sample_id: number for number, record in enumerate(images)}
        rows = explanations_of(self._result, attributes)
        self.image_index: NDArray[np.int64] = np.array([place[row.sample_id] for row in rows], np.int64)
        self._rows = [
            replace(row, original=originals[number])
            for row, number in zip(rows, self.image_index.tolist(), strict=True)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, row: int) -> Explanation: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Explanation]: ...
    def __getitem__(self, row: int | slice) -> Explanation | Sequence[Explanation]:
        return self._rows[row]

    def __getattr__(self, name: str) -> Any:
        # self._result would call this method again while the object is copied or unpickled, and has none yet.
        result = self.__dict__.get("_result")
        if result is None or name.startswith("_"):
            raise AttributeError(name)
        if name in result.explanations:
            return result.explanations[name]
        if not result.explanations:
            raise AttributeError(f"{self._empty()}, so there is no {name}")
        raise AttributeError(
            f"explanations have no column {name!r}; they have: {', '.join(result.explanations)}"
        )

    def _empty(self) -> str:
        images = counted(len(self.images), "image")
        return f"nothing was explained in {images} (see the message of each of .images)"

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'explanation')} of {counted(len(self.images), 'image')}>"

    @property
    def saliency(self) -> NDArray[np.float32]:
        """``(R, s, s)`` in [0, 1], high = important."""
        return np.asarray(1 - self.masks, np.float32)

    def saliency_on_original(self) -> list[NDArray[np.float32]]:
        """For each row, the saliency of every pixel of its image, ``(height, width)``, high = important."""
        return [row.saliency_on_original() for row in self._rows]

    def plot(self, row: int = 0, style: str = "curves", **options: Any) -> Figure:
        """Draw an explanation: the image, its saliency, and its deletion and insertion curves.

        Args:
            row: which of the R.
            style: what is drawn, see `igos_pl.draw`.
            options: more options of `igos_pl.draw`.

        Returns:
            A matplotlib figure, which a notebook shows and ``savefig`` writes.

        Raises:
            IgosError: if nothing was explained, or there is no such row.
        """
        if not self:
            raise IgosError(f"{self._empty()}, so there is nothing to draw")
        check_whole("row", row)
        if not -len(self) <= row < len(self):
            there_are = f"there {is_or_are(len(self))} {counted(len(self), 'explanation')}"
            raise IgosError(f"row is {row}, but {there_are}: 0 to {len(self) - 1}")
        return self[row].plot(style, **options)

    def save(self, path: str | Path) -> Path:
        """Write the explanations to an HDF5 file, which `igos_pl.MaskFile` and ``igos-pl info`` read.

        Raises:
            IgosError: if the file exists, its folder does not exist, or it cannot be written.
        """
        path = Path(path)
        if path.exists():
            raise IgosError(f"{path} exists already: choose another name, or remove it")
        if not path.parent.is_dir():
            raise IgosError(f"There is no folder {path.parent}: create it, or choose another path")
        content = segment_bytes([self._result], self.attributes)
        with publishing(path) as temporary:
            temporary.write_bytes(content)
        return path
