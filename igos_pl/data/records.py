"""What is known of an image when it is finished: its record, and the rows that explain its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from igos_pl.data.geometry import Frame

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ImageRecord:
    """A row of the result's table of images.

    Attributes:
        sample_id: the image's name, unique in the data set.
        path: where it was read.
        frame: where the network's input lies in it; None if it could not be read.
        ground_truth: its label, -1 if unknown.
        status: ``ok``, ``no detection`` or ``unreadable``.
        message: why it is not ok, or what a person should know of its targets.
        targets: how many explanations it has.
    """

    sample_id: str
    path: str
    frame: Frame | None = None
    ground_truth: int = -1
    status: str = "ok"
    message: str = ""
    targets: int = 0

    def seen(self) -> Frame:
        """The frame of an image that was read."""
        assert self.frame is not None, f"{self.sample_id} was not read"
        return self.frame

    def explained(self, targets: int, note: str) -> ImageRecord:
        """The record once the image's targets are known.

        Args:
            targets: how many there are.
            note: what a person should know of them; empty for nothing.
        """
        message = "; ".join(part for part in (self.message, note) if part)
        return replace(self, targets=targets, status="ok" if targets else "no detection", message=message)

    def row(self) -> dict[str, Any]:
        """The record by the columns of the table `igos_pl.store.schema.IMAGES`."""
        frame = self.frame or Frame(0, 0, (0.0, 0.0, 0.0, 0.0), (0, 0))
        return {
            "sample_id": self.sample_id,
            "path": self.path,
            "width": frame.width,
            "height": frame.height,
            "frame": frame.box,
            "input_size": frame.input_size,
            "ground_truth": self.ground_truth,
            "status": self.status,
            "message": self.message,
            "targets": self.targets,
        }


@dataclass(frozen=True)
class BatchResult:
    """Some finished images: their records, and the rows that explain their targets.

    Attributes:
        images: the records.
        explanations: the columns of `igos_pl.store.schema.EXPLANATIONS`; none without a target.
    """

    images: Sequence[ImageRecord]
    explanations: Columns = field(default_factory=dict)

    def to(self, device: object) -> BatchResult:
        """The result itself, which is in main memory already. Lightning calls this on what it returns."""
        return self
