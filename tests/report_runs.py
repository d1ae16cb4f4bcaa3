"""Runs of invented explanations, from which reports are made quickly; import it as ``report_runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from igos_pl.data.geometry import Frame
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.store import RunFolder
from igos_pl.store.schema import EXPLANATIONS

CLASSES = (
    "cat", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "قطة سوداء",
    "dog\nwith a line", "crane's \\ \"friend\"",
)  # fmt: skip
SETTINGS: dict[str, Any] = {
    "method": "iGOS+", "optimizer": "Adam", "mask_size": 8, "network": "Classifier", "baseline": "blur",
    "data": "ImageFolderDataModule", "network.class_names": "</script><script>alert(1)</script>",
}  # fmt: skip
_FLOATS = ("f4", "f8")


def invented(
    images: int, targets: int = 1, points: int = 21, seed: int = 0, **values: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """The columns of invented explanations: one blob in each mask; the better the mask, the larger the blob.

    Args:
        images: the number of images.
        targets: explanations of each.
        points: of the curves.
        seed: of the random numbers.
        values: columns that replace the invented ones.
    """
    random = np.random.default_rng(seed)
    rows = images * targets
    columns: dict[str, NDArray[Any]] = {}
    for name, column in EXPLANATIONS.items():
        unknown = np.full(rows, np.nan, np.float32)
        columns[name] = unknown if column.dtype in _FLOATS else np.zeros(rows, np.int64)
    quality = random.uniform(0.05, 0.9, rows).astype(np.float32)
    axis = np.linspace(0, 1, points, dtype=np.float32)
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8), indexing="ij"))
    center = random.uniform(1, 6, (rows, 2, 1, 1))
    blob = np.exp(-np.square(grid - center).sum(1) / 4) * quality[:, None, None]
    score = random.uniform(0.3, 1, rows).astype(np.float32)
    label = random.integers(0, len(CLASSES), rows)
    drop = np.exp(-axis[None] / (0.05 + 0.5 * (1 - quality[:, None])))
    columns |= {
        "masks": (1 - blob).astype(np.float32),
        "sample_id": np.repeat(np.array([f"folder/{n:05}.jpg" for n in range(images)], object), targets),
        "target": np.tile(np.arange(targets), images),
        "start_cell": np.full(rows, -1),
        "label": label,
        "label_name": np.array([CLASSES[number] for number in label], object),
        "score": score,
        "baseline_score": score / 10,
        "box": np.full((rows, 4), np.nan, np.float32),
        "deletion_curve": (score[:, None] * drop).astype(np.float32),
        "insertion_curve": (score[:, None] * (1 - drop)).astype(np.float32),
        "deletion_measured": np.ones((rows, points), np.int8),
        "insertion_measured": np.ones((rows, points), np.int8),
        "object": np.full(rows, -1),
        "best": np.ones(rows, np.int64),
        "seconds": np.full(rows, 0.5, np.float32),
        "status": np.array(["ok"] * rows, object),
        **values,
    }
    for kind in ("deletion", "insertion"):
        columns[kind] = np.trapezoid(columns[f"{kind}_curve"], dx=1 / (points - 1), axis=1).astype(np.float32)
    return columns


def write_run(
    folder: Path,
    columns: dict[str, NDArray[Any]],
    failures: int = 0,
    pictures: Path | None = None,
    settings: dict[str, Any] | None = None,
    in_memory: bool = False,
) -> RunFolder:
    """Publish explanations, and images that failed.

    Args:
        folder: the run's folder.
        columns: of the explanations.
        failures: how many images could not be read.
        pictures: the folder to which the images are written; by default, none are.
        settings: that differ.
        in_memory: whether the images never were files, as in a training.
    """
    ids = columns["sample_id"].astype(str)
    names, first, counts = (part.tolist() for part in np.unique(ids, return_index=True, return_counts=True))
    random = np.random.default_rng(1)
    records = []
    for number, (name, at, count) in enumerate(zip(names, first, counts, strict=True)):
        path = (pictures or Path("/nowhere")) / name
        if pictures is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = random.integers(0, 256, (3, 4, 3), np.uint8)
            Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC).save(path, quality=80)
        frame = Frame.of(96, 72, (32, 32), "squash" if number % 2 else "crop")
        place = "" if in_memory else str(path)
        records.append(ImageRecord(name, place, frame, int(columns["label"][at]), targets=count))
    records += [
        ImageRecord(f"bad/<b>{n}</b>.jpg", "", status="unreadable", message="<i>no</i> image")
        for n in range(failures)
    ]
    root = {} if pictures is None else {"data.root": str(pictures)}
    run = RunFolder(folder)
    run.prepare()
    result = BatchResult(records, columns if names else {})
    run.publish([result], {**SETTINGS, **root, **(settings or {})})
    return run
