"""Builds segments: the HDF5 files in which finished images are published."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from igos_pl.data.records import BatchResult
from igos_pl.errors import IgosError, RunError
from igos_pl.settings import Attributes
from igos_pl.store.index import segment_head
from igos_pl.store.schema import IMAGES, SCHEMA_VERSION, image_columns, schema_of, write_table
from igos_pl.store.seals import sealed


def segment_bytes(results: Sequence[BatchResult], attributes: Attributes) -> bytes:
    """Build a segment in memory, so that a full disk can only fail one plain write."""
    records = [record for result in results for record in result.images]
    tables = [result.explanations for result in results if result.explanations]
    created = now()
    with h5py.File(uuid.uuid4().hex, "w", driver="core", backing_store=False) as file:
        write_attributes(file, attributes, created)
        write_table(file.create_group("images"), IMAGES, image_columns(records))
        if tables:
            schema = schema_of(tables[0])
            columns: dict[str, Any] = {
                name: np.concatenate([table[name] for table in tables]) for name in schema
            }
            write_table(file, schema, columns)
        file.flush()
        rows = sum(len(table["sample_id"]) for table in tables)
        return sealed(file.id.get_file_image(), segment_head(records, rows, attributes, created))


def added_bytes(result: BatchResult, attributes: Attributes) -> int:
    """How much a result adds to a segment, without what every segment takes."""
    nothing = BatchResult([], {name: column[:0] for name, column in result.explanations.items()})
    return len(segment_bytes([result], attributes)) - len(segment_bytes([nothing], attributes))


def now() -> str:
    """The time in ISO format."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def write_attributes(file: h5py.File, attributes: Attributes, created: str) -> None:
    """Write the root attributes, the schema version and the time."""
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["created"] = created
    for key, value in attributes.items():
        file.attrs[key] = value


def writable_segment(results: Sequence[BatchResult], attributes: Attributes) -> bytes:
    """Build a segment, with a failed record in place of each image that HDF5 cannot write.

    Raises:
        RunError: if no image can be written, so that the images are not to blame.
    """
    try:
        return segment_bytes(results, attributes)
    except IgosError:
        raise  # columns are missing, which no single image causes
    except _UNWRITABLE as error:
        first = error
    kept: list[BatchResult] = []
    for part in (part for result in results for part in result.parts()):
        try:
            # With another part, because rows must have one shape.
            segment_bytes([*kept[:1], part], attributes)
            kept.append(part)
        except _UNWRITABLE as error:
            kept.append(BatchResult([part.images[0].failed(f"its result cannot be written: {error}")]))
    try:
        return segment_bytes(kept, attributes)
    except _UNWRITABLE:
        raise RunError(f"Results cannot be written as HDF5: {first}") from first


# The exceptions of h5py and NumPy for values that do not fit: zero bytes in text, integers of more than 64
# bits, ... They are never about the disk, because segments are built in memory.
_UNWRITABLE = (ValueError, TypeError, OverflowError, OSError)
