"""Finds out what a run has published from the heads of its segments, without reading the rest."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igos_pl.data.records import FAILED, ImageRecord
from igos_pl.data.wording import counted, is_or_are
from igos_pl.settings import Attributes, digest
from igos_pl.store.schema import configuration_of, damaged, decoded, text_array
from igos_pl.store.seals import read_head

_READERS = 8  # threads: on a slow file system, reading is mostly waiting


@dataclass(frozen=True)
class Index:
    """What the head of a segment says of its content.

    Attributes:
        created: when the segment was made.
        configuration: a digest of its configuration.
        rows: the number of its explanations.
        ids: the ids of its images, as UTF-8.
        statuses: the statuses of its images, as UTF-8.
    """

    created: datetime.datetime
    configuration: str
    rows: int
    ids: NDArray[Any]
    statuses: NDArray[Any]

    @classmethod
    def read(cls, path: Path) -> Index:
        """The index of a segment.

        Raises:
            DamagedFileError: if the head is damaged, or the file is not a segment.
        """
        head = read_head(path)
        if "images" not in head:
            raise damaged(path, "it is not a segment")
        ids, statuses = (text_array([value.encode() for value in head["images"][name]]) for name in _COLUMNS)
        created = datetime.datetime.fromisoformat(head["created"])
        return cls(created, head["configuration"], head["rows"], ids, statuses)


_COLUMNS = ("sample_id", "status")


def segment_head(
    records: Sequence[ImageRecord], rows: int, attributes: Attributes, created: str
) -> Mapping[str, Any]:
    """The content of a segment's head, which `Index` reads.

    Args:
        records: the records of the segment's images.
        rows: the number of its explanations.
        attributes: the segment's attributes.
        created: the time in ISO format.
    """
    return {
        "created": created,
        "configuration": digest(repr(sorted(configuration_of(attributes).items()))),
        "rows": rows,
        "images": {name: [getattr(record, name) for record in records] for name in _COLUMNS},
    }


def merged_head(segments: Sequence[Path]) -> Mapping[str, Any]:
    """What the head of a merged file says of the segments that it was made from.

    Segments never change, so their names stand for their content.
    """
    return {"segments": digest("\n".join(path.name for path in segments))}


class Published:
    """The images of a run's segments.

    Several segments contain the same image if two runs worked on it. The rows of the image are equal or
    nearly equal in all of them, and are used from one segment only: the first that contains the image. If the
    image is unreadable or failed there, the first later segment with another status is used.

    Args:
        paths: the segments.

    Attributes:
        indexes: the segments' indexes.
        ids: the image ids (entries) of all segments, in the order of the segments, as UTF-8.
        statuses: the status of each entry, as UTF-8.
        starts: the first entry of each segment, and the number of entries.
        used: whether each entry is used.

    Raises:
        DamagedFileError: if a segment's head is damaged, or an image is in a segment twice.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        with ThreadPoolExecutor(_READERS) as pool:
            indexes = list(pool.map(Index.read, self.paths))
        self.ids = _joined([index.ids for index in indexes])
        self.statuses = _joined([index.statuses for index in indexes])
        self.starts = np.cumsum([0, *(len(index.ids) for index in indexes)])
        self.indexes = [
            replace(index, ids=self.ids[self.of(part)], statuses=self.statuses[self.of(part)])
            for part, index in enumerate(indexes)
        ]
        self.used = self._used()

    def __len__(self) -> int:
        """The number of images, each counted once."""
        return int(np.count_nonzero(self.used))

    def parts(self) -> NDArray[np.int64]:
        """The number of the segment of each entry."""
        return np.repeat(np.arange(len(self.paths)), np.diff(self.starts))

    def of(self, part: int) -> slice:
        """The entries of a segment."""
        return slice(int(self.starts[part]), int(self.starts[part + 1]))

    def statuses_by_id(self) -> dict[str, str]:
        """The status of every image."""
        names, statuses = (decoded(column[self.used]).tolist() for column in (self.ids, self.statuses))
        return dict(zip(names, statuses, strict=True))

    def counts(self) -> dict[str, int]:
        """How many images have each status."""
        statuses, counts = np.unique(self.statuses[self.used], return_counts=True)
        return dict(zip(decoded(statuses).tolist(), counts.tolist(), strict=True))

    def explained_again(self) -> int:
        """How many images have explanations in several segments; retries after a failure do not count."""
        _, counts = np.unique(self.ids[~self._failed()], return_counts=True)
        return int(np.count_nonzero(counts > 1))

    def contains(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each of some images is published.

        Args:
            ids: the images' ids, as UTF-8.
        """
        return find(self._sorted, ids) >= 0

    def _failed(self) -> NDArray[np.bool_]:
        return np.isin(self.statuses, text_array([status.encode() for status in FAILED]))

    def _used(self) -> NDArray[np.bool_]:
        parts = self.parts()
        order = np.lexsort((parts, self._failed(), self.ids))
        self._sorted = self.ids[order]
        again = self._sorted[1:] == self._sorted[:-1]  # the same image as the entry before
        twice = again & (np.diff(parts[order]) == 0)
        if twice.any():
            path = self.paths[parts[order][1:][twice][0]]
            number = int(np.count_nonzero(twice))
            raise damaged(path, f"{counted(number, 'image')} {is_or_are(number)} in it more than once")
        used = np.ones(len(order), bool)
        used[order[1:][again]] = False
        return used


def find(ids: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64]:
    """The places of some ids among sorted ones; -1 for those that are not there."""
    if not len(ids):
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[places] == wanted, places, -1)


def _joined(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(columns) if columns else text_array([])
