"""One explained target, as a person looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igos_pl.data.geometry import Frame
from igos_pl.data.records import BatchResult


@dataclass(frozen=True)
class Explanation:
    """One explained target. The columns of its row (``score``, ``label``, ...) are attributes.

    Attributes:
        values: the row's columns; see `igos_pl.store.schema.EXPLANATIONS`.
        image: the image's columns; see `igos_pl.store.schema.IMAGES`.
        attributes: the settings of the run.
    """

    values: dict[str, Any]
    image: dict[str, Any]
    attributes: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        # Not by self.values, which an explanation lacks while it is being copied or unpickled.
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(f"an explanation has no column {name!r}") from None

    @property
    def mask(self) -> NDArray[np.float32]:
        """``(s, s)`` in [0, 1], low = important."""
        return np.asarray(self.values["masks"], dtype=np.float32)

    @property
    def saliency(self) -> NDArray[np.float32]:
        """``(s, s)`` in [0, 1], high = important."""
        return 1 - self.mask

    @property
    def frame(self) -> Frame:
        """Where the network's input lies in the upright original."""
        left, top, right, bottom = (float(value) for value in self.image["frame"])
        height, width = (int(value) for value in self.image["input_size"])
        return Frame(
            int(self.image["width"]), int(self.image["height"]), (left, top, right, bottom), (height, width)
        )

    def saliency_on_original(self) -> NDArray[np.float32]:
        """Saliency of every pixel of the upright original, ``(height, width)``; 0 outside of a crop."""
        return self.frame.saliency_on_original(self.saliency)


def explanations_of(result: BatchResult, attributes: dict[str, Any]) -> list[Explanation]:
    """The rows of a batch as the reader would give them, before they are written."""
    images = {record.sample_id: record.row() for record in result.images}
    columns = result.explanations
    return [
        Explanation(
            {name: column[row] for name, column in columns.items()},
            images[columns["sample_id"][row]],
            attributes,
        )
        for row in range(len(columns.get("sample_id", ())))
    ]
