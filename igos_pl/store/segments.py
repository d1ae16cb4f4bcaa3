"""A run's folder: segments are published whole or not at all, and never touched again."""

from __future__ import annotations

import datetime
import errno
import os
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from igos_pl.data.records import BatchResult
from igos_pl.errors import IgosError, RunError
from igos_pl.settings import Attributes
from igos_pl.store.schema import (
    EXPLANATIONS,
    IMAGES,
    SCHEMA_VERSION,
    DamagedFileError,
    check_version,
    configuration_of,
    differing_keys,
    image_columns,
    read_column,
    write_table,
)


class RunFolder:
    """The output folder of a run.

    ``segments/*.h5`` hold the results as they were published, ``masks.h5`` is their merged copy. An image is
    done when its row in a segment's table ``images`` is published, together with all of its explanations.

    Args:
        path: the folder; created by `prepare`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def segments_path(self) -> Path:
        """The folder of the segments."""
        return self.path / "segments"

    @property
    def merged(self) -> Path:
        """The merged file."""
        return self.path / "masks.h5"

    @property
    def expected_path(self) -> Path:
        """The list of images that the run is to explain."""
        return self.path / "samples.txt"

    def segments(self) -> list[Path]:
        """The published segments, in the order of their names (which begin with the time)."""
        return sorted(self.segments_path.glob("[!.]*.h5"))

    def prepare(self) -> None:
        """Create the folder and see that it can be written.

        Raises:
            IgosError: if it cannot.
        """
        probe = self.segments_path / f".probe-{uuid.uuid4().hex}"
        try:
            self.segments_path.mkdir(parents=True, exist_ok=True)
            try:
                probe.write_bytes(b"\0" * 4096)
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise IgosError(
                f"Cannot write to the output folder {self.path}: {error.strerror or error}."
                " Name another by --output, or free space or permissions"
            ) from error

    def done(self) -> set[str]:
        """The ids of all images that are published."""
        return set(owners(map(image_ids, self.segments())))

    def expect(self, ids: Sequence[str]) -> None:
        """Write down which images a run is to explain in all."""
        with publishing(self.expected_path) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")

    def missing(self, done: Container[str] | None = None) -> list[str]:
        """The ids of the images that the run is to explain and has not published yet.

        Args:
            done: what is published, where the caller has read that.

        Raises:
            IgosError: if the folder is not the output folder of a run.
        """
        if not self.expected_path.is_file():
            raise IgosError(
                f"{self.path} is not the output folder of a run: it has no {self.expected_path.name}"
            )
        done = self.done() if done is None else done
        expected = self.expected_path.read_text(encoding="utf-8").split("\n")[:-1]
        return [name for name in expected if name not in done]

    def is_merged(self, done: set[str] | None = None) -> bool:
        """Whether the merged file holds all images that the segments hold.

        Args:
            done: these images, where the caller has read them.
        """
        if not self.merged.exists():
            return False
        return set(image_ids(self.merged)) == (self.done() if done is None else done)

    def check_configuration(self, configuration: Attributes) -> None:
        """Raise if the folder holds results of another configuration.

        Raises:
            IgosError: naming the keys that differ.
        """
        existing = [*self.segments()[:1], *([self.merged] if self.merged.exists() else [])]
        for path in existing:
            with open_result(path) as file:
                stored = configuration_of(dict(file.attrs))
            differing = [
                f"{key}: there {stored.get(key)!r}, now {configuration.get(key)!r}"
                for key in differing_keys(stored, configuration)
            ]
            if differing:
                raise IgosError(
                    f"{self.path} holds results of another configuration ({'; '.join(differing)})."
                    " Choose another folder by --output, or the same configuration to go on with that run"
                )

    def publish(self, results: Sequence[BatchResult], attributes: Attributes, rank: int = 0) -> Path:
        """Publish finished images as one new segment.

        The file appears under its name only when all of it is on the disk.

        Args:
            results: of at least one image.
            attributes: of the run; time and schema version are added.
            rank: goes into the name.

        Raises:
            IgosError: if the disk is full or the folder cannot be written; nothing is published then.
        """
        content = segment_bytes(results, attributes)
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S")
        path = self.segments_path / f"{stamp}-rank{rank:04d}-{uuid.uuid4().hex}.h5"
        with publishing(path) as temporary:
            temporary.write_bytes(content)
        return path


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` once it is complete and on the disk.

    Raises:
        IgosError: if it cannot be written; ``path`` is as it was then.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise RunError(
            f"Cannot write {path}: {error.strerror or error}. All that was published before is safe:"
            " free space or permissions, and run the same command again to go on"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def open_result(path: Path) -> Iterator[h5py.File]:
    """Open a segment or a merged file for reading.

    Raises:
        IgosError: if it is missing, damaged, or of another schema version.
    """
    try:
        with _opened(path) as file:
            check_version(file, path)
            yield file
    except DamagedFileError as error:
        run = RunFolder(path.parent)
        if path != run.merged or not run.segments():
            raise
        raise IgosError(
            f"{error}. It is but a copy of {run.segments_path}: delete it, and run the same command again"
        ) from error


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)  # immutable; some file systems have no locks
    except OSError as error:
        if not path.is_file():
            raise IgosError(f"Cannot read {path}: no such file") from error
        if error.errno is None:  # HDF5's own complaint, not the system's
            raise DamagedFileError(f"Cannot read {path}: damaged, or no HDF5 file ({error})") from error
        limit = error.errno in (errno.EMFILE, errno.ENFILE)
        advice = ". Close some, or raise the limit by ulimit -n" if limit else ""
        raise IgosError(f"Cannot read {path}: {os.strerror(error.errno)}{advice}") from error


def image_ids(path: Path) -> list[str]:
    """The ids in a file's table of images."""
    with open_result(path) as file:
        ids: list[str] = read_column(file["images"], "sample_id").tolist()
    return ids


def owners(ids: Iterable[Iterable[str]]) -> dict[str, int]:
    """The number of the file that each image is taken from: the first one that has it.

    Several files have it if two runs worked on the same images. Its rows are equal or nearly equal in all of
    them, and are taken from one file only.

    Args:
        ids: of the images of each file.
    """
    owner: dict[str, int] = {}
    for number, names in enumerate(ids):
        for name in names:
            owner.setdefault(name, number)
    return owner


def owned_rows(owner: Mapping[str, int], number: int, ids: Iterable[str]) -> NDArray[np.int64]:
    """The rows of a table that are taken from a file.

    Args:
        owner: see `owners`.
        number: of the file.
        ids: the table's column of sample ids.
    """
    return np.array([row for row, name in enumerate(ids) if owner.get(name) == number], dtype=np.int64)


def segment_bytes(results: Sequence[BatchResult], attributes: Attributes) -> bytes:
    """The segment as an HDF5 file in memory, so that a full disk is met by one plain write alone."""
    records = [record for result in results for record in result.images]
    tables = [result.explanations for result in results if result.explanations]
    with h5py.File(uuid.uuid4().hex, "w", driver="core", backing_store=False) as file:
        write_attributes(file, attributes)
        write_table(file.create_group("images"), IMAGES, image_columns(records))
        if tables:
            columns: dict[str, Any] = {
                name: np.concatenate([table[name] for table in tables]) for name in EXPLANATIONS
            }
            write_table(file, EXPLANATIONS, columns)
        file.flush()
        image: bytes = file.id.get_file_image()
        return image


def write_attributes(file: h5py.File, attributes: Attributes) -> None:
    """The root attributes, with the schema's version and the time."""
    file.attrs["schema_version"] = SCHEMA_VERSION
    now = datetime.datetime.now(datetime.timezone.utc)
    file.attrs["created"] = now.isoformat(timespec="seconds")
    for key, value in attributes.items():
        file.attrs[key] = value
