"""Small result files with chosen content; import it as ``results``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from igos_pl.data.geometry import Frame
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.store.schema import EXPLANATIONS, OPTIONAL
from igos_pl.store.segments import segment_bytes

ATTRIBUTES = {
    "method": "iGOS+", "optimizer": "Adam", "preset": "fast", "mask_size": 4, "network": "Classifier",
    "network.name": "TinyNet", "baseline": "blur", "seed": 63,
}  # fmt: skip


def columns_of(ids: Sequence[str], **columns: Any) -> dict[str, Any]:
    """Columns of explanations of some images. The targets of an image are counted from 0."""
    rows = len(ids)
    random = np.random.RandomState(0)
    target = [list(ids[:row]).count(name) for row, name in enumerate(ids)]
    made: dict[str, Any] = {
        "masks": random.rand(rows, 4, 4).astype(np.float32), "sample_id": ids, "target": target,
        "start_cell": [-1] * rows, "label": [0] * rows, "label_name": ["cat"] * rows, "score": [0.75] * rows,
        "baseline_score": [0.0] * rows, "box": np.full((rows, 4), np.nan), "deletion": [0.2] * rows,
        "insertion": [0.8] * rows, "deletion_curve": np.tile(np.linspace(1, 0, 5), (rows, 1)),
        "insertion_curve": np.tile(np.linspace(0, 1, 5), (rows, 1)), "object": [-1] * rows,
        "best": [1] * rows, "status": ["ok"] * rows, **columns,
    }  # fmt: skip
    texts = ("sample_id", "label_name", "status")
    return {
        name: np.array(
            made.get(name, [np.nan if column.dtype == "f4" else 0] * rows), object if name in texts else None
        )
        for name, column in (EXPLANATIONS | OPTIONAL).items()
        if name in EXPLANATIONS or name in made
    }


def write_result(
    path: Path,
    ids: Sequence[str],
    *,
    ground_truth: Sequence[int] | None = None,
    size: tuple[int, int] = (40, 30),
    folder: Path | None = None,
    failed: Mapping[str, str] | None = None,
    attributes: Mapping[str, Any] | None = None,
    **columns: Any,
) -> Path:
    """Write a segment; returns its path.

    Args:
        path: the file.
        ids: the image's id of each explanation.
        ground_truth: the label of each image, in the order of their first explanations.
        size: width and height of all images.
        folder: where the images are.
        failed: more images, without an explanation, and why.
        attributes: settings that differ from `ATTRIBUTES`.
        columns: columns of explanations; the others have made-up values.
    """
    names = list(dict.fromkeys(ids))
    frame = Frame(*size, (0.0, 0.0, float(size[0]), float(size[1])), (24, 24))
    records = [
        ImageRecord(
            name, str((folder or Path("/nowhere")) / name), frame,
            -1 if ground_truth is None else ground_truth[number], targets=list(ids).count(name),
        )
        for number, name in enumerate(names)
    ]  # fmt: skip
    records += [
        ImageRecord(name, f"/nowhere/{name}", status="unreadable", message=why)
        for name, why in (failed or {}).items()
    ]
    result = BatchResult(records, columns_of(ids, **columns) if ids else {})
    path.write_bytes(segment_bytes([result], {**ATTRIBUTES, **(attributes or {})}))
    return path
