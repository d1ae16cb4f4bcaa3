"""The results of finished images: a record for each image, and a row for each explained target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from igos_pl.data.geometry import Frame
from igos_pl.settings import storable

Columns = dict[str, NDArray[Any]]

# Statuses of images that have no explanation because something went wrong: the file's content cannot be read;
# the network raised an exception.
FAILED = ("unreadable", "failed")


@dataclass(frozen=True)
class ImageRecord:
    """A row of the result's table of images.

    Attributes:
        sample_id: the image's name, unique in the data set.
        path: where it was read.
        frame: where the network's input lies in it; None if it could not be read.
        ground_truth: its label, -1 if unknown.
        status: ``ok``; ``no detection``; ``nan`` (a score that is not finite); or one of `FAILED`.
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

    def explained(self, targets: int, notes: Sequence[str], nan: bool = False) -> ImageRecord:
        """The record once the image's targets are explained.

        Args:
            targets: how many there are.
            notes: remarks about the targets for the user; empty strings are ignored.
            nan: whether the objective of any of them stopped being finite.
        """
        status = "nan" if nan else "ok" if targets else "no detection"
        why = "the network's scores are not finite numbers" if nan else ""
        message = "; ".join(part for part in (self.message, *notes, why) if part)
        return replace(self, targets=targets, status=status, message=message)

    def failed(self, message: str) -> ImageRecord:
        """The record of the same image without an explanation, and why.

        It keeps only the id, the path and the message, in a form that can always be written to HDF5.
        """
        return ImageRecord(
            storable(self.sample_id), storable(self.path), status="failed", message=storable(message)
        )

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
        unread: records of images that could not be read now. They are not written.
        explanations: the columns of `igos_pl.store.schema.EXPLANATIONS`; none without a target.
    """

    images: Sequence[ImageRecord]
    explanations: Columns = field(default_factory=dict)
    unread: Sequence[ImageRecord] = ()

    def parts(self) -> list[BatchResult]:
        """The result image by image."""
        names = self.explanations.get("sample_id")
        parts = []
        for record in self.images:
            rows = (
                [] if names is None else [row for row, name in enumerate(names) if name == record.sample_id]
            )
            columns = {key: column[rows] for key, column in self.explanations.items()} if rows else {}
            parts.append(BatchResult([record], columns))
        return parts

    def worked(self) -> bool:
        """Whether the network answered for an image."""
        return any(record.status not in FAILED for record in self.images)

    def failed(self) -> BatchResult:
        """The images alone at which the network failed."""
        return BatchResult([record for record in self.images if record.status == "failed"])

    def without_failed(self) -> BatchResult:
        """The result without the images at which the network failed."""
        return replace(self, images=[record for record in self.images if record.status != "failed"])

    def to(self, device: object) -> BatchResult:
        """The result itself, which is in main memory already. Lightning calls this on what it returns."""
        return self
