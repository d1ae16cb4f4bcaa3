"""One explained target with its image."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igos_pl.data.geometry import Frame
from igos_pl.data.records import BatchResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Explanation:
    """One explained target. The columns of its row (``score``, ``label``, ...) are attributes.

    Attributes:
        values: the row's columns; see `igos_pl.store.schema.EXPLANATIONS`.
        image: the image's columns; see `igos_pl.store.schema.IMAGES`.
        attributes: the settings of the run.
        original: the upright original ``(h, w, 3)`` uint8 of an image that was explained in memory; None for
            images in files.
    """

    values: dict[str, Any]
    image: dict[str, Any]
    attributes: dict[str, Any]
    original: NDArray[np.uint8] | None = None

    def __getattr__(self, name: str) -> Any:
        # self.values would call this method again while the object is copied or unpickled, and has none yet.
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(f"an explanation has no column {name!r}") from None

    def __repr__(self) -> str:
        name, label, score = (self.values.get(key) for key in ("sample_id", "label_name", "score"))
        known = np.isfinite([self.values.get(key, np.nan) for key in ("deletion", "insertion")]).all()
        difference = f", insertion - deletion {self.insertion - self.deletion:.3f}" if known else ""
        return f"<explanation of {name!r}: {label} {score:.3f}{difference}>"

    @property
    def mask(self) -> NDArray[np.float32]:
        """``(s, s)`` in [0, 1], low = important."""
        return np.asarray(self.values["masks"], dtype=np.float32)

    @property
    def saliency(self) -> NDArray[np.float32]:
        """``(s, s)`` in [0, 1], high = important."""
        return 1 - self.mask

    def region_saliency(self) -> dict[int, float]:
        """The saliency of each region by its label, high = important.

        Raises:
            AttributeError: if the masks are of single cells.
        """
        labels = np.asarray(self.regions)
        found, first = np.unique(labels, return_index=True)
        return dict(zip(found.tolist(), self.saliency.flat[first].tolist(), strict=True))

    @property
    def frame(self) -> Frame:
        """Where the network's input lies in the upright original."""
        left, top, right, bottom = (float(value) for value in self.image["frame"])
        height, width = (int(value) for value in self.image["input_size"])
        return Frame(
            int(self.image["width"]), int(self.image["height"]), (left, top, right, bottom), (height, width)
        )

    def saliency_on_original(self, normalize: bool = False) -> NDArray[np.float32]:
        """Saliency of every pixel of the upright original, ``(height, width)``; 0 outside of a crop.

        The values are in [0, 1], and usually far from 1: they are 1 - mask.

        Args:
            normalize: stretch them so that the largest value is 1. A mask that is 1 everywhere stays 0.
        """
        saliency = self.frame.saliency_on_original(self.saliency)
        peak = float(saliency.max(initial=0)) if normalize else 0
        return saliency / np.float32(peak) if peak > 0 else saliency

    def plot(self, style: str = "curves", image: Any = None, **options: Any) -> Figure:
        """Draw the explanation: the image, its saliency over it, and its deletion and insertion curves.

        Args:
            style: what is drawn, see `igos_pl.draw`.
            image: the upright original, as a picture or an array. By default, that which was explained in
                memory, or its file is read again.
            options: more options of `igos_pl.draw`.

        Returns:
            A matplotlib figure, which a notebook shows and ``savefig`` writes.

        Raises:
            IgosError: if the image cannot be read, or has another size now.
        """
        # Drawing is a layer above this one: the package's public names lead there.
        figure: Figure = import_module("igos_pl").draw([self], style, [image], **options)
        return figure


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
