"""ViRelAy: a project with a data set, attributions, and an analysis of each class (the format of 0.6)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from igos_pl.data.geometry import Frame, pooled
from igos_pl.data.wording import counted
from igos_pl.errors import IgosError
from igos_pl.export.folders import publishing_folder
from igos_pl.figures.subjects import Subject, moved
from igos_pl.optional import imported
from igos_pl.store.reader import Rows

_POOLED = 14  # cells along the side of the masks that are analysed
_CLUSTERS = (2, 3, 4, 5)
_DIMENSIONS, _NEIGHBOURS = 8, 10  # of the embedding
_FEW = 2000  # explanations of which all pairs are compared
_FINER = 4  # images are read at so many times the network's resolution
_FEWEST = 6  # explanations of a class that is analysed


def write_virelay(rows: Rows, output: Path, advance: Callable[[int], None], images: Path | None) -> str:
    """Write a project: ``project.yaml``, and the files that it names.

    The data set has an image for each explanation: the part of it that the network sees, at the network's
    resolution. The analysis of a class is a spectral embedding of its masks with k-means clusters.

    Args:
        rows: the explanations.
        output: a folder.
        advance: called with the number of explanations that were written.
        images: where the images are now; None if they are where they were.

    Returns:
        What was written, in words.

    Raises:
        IgosError: if an image cannot be read, or scikit-learn is missing.
    """
    imported("sklearn", "virelay", "The export to ViRelAy")
    labels = rows.column("label").astype(np.int64)
    if (labels < 0).any():
        raise IgosError(
            "ViRelAy needs explanations of classes, but some of these explain something else: leave them out,"
            " as with --where 'label>=0'"
        )
    names = dict(zip(labels.tolist(), rows.column("label_name").tolist(), strict=True))
    height, width = (int(side) for side in rows[0].image["input_size"])
    with publishing_folder(output) as folder:
        analysed = _write_analysis(rows, labels, names, folder / "analysis.h5")
        _write_images(rows, labels, (height, width), folder, advance, images)
        classes = [
            {"index": label, "word_net_id": _category(label), "name": names.get(label) or str(label)}
            for label in range(max(names) + 1)
        ]
        (folder / "label-map.json").write_text(json.dumps(classes, indent=1), encoding="utf-8")
        project = _project(rows.settings, (height, width), analysed > 0)
        (folder / "project.yaml").write_text(yaml.safe_dump(project, sort_keys=False), encoding="utf-8")
    found = f"{counted(len(rows), 'attribution')}, {counted(analysed, 'class')} analysed"
    return f"{found}: virelay {output}/project.yaml shows them"


def _category(label: int) -> str:
    """The name under which the analysis of a class is stored; the label map gives the class's own name."""
    return f"{label:05d}"


def _project(settings: dict[str, Any], size: tuple[int, int], analysed: bool) -> dict[str, Any]:
    method = ", ".join(str(settings[name]) for name in ("method", "preset") if settings.get(name))
    sampling = {"up_sampling_method": "resize", "down_sampling_method": "resize"}
    return {
        "project": {
            "name": f"igos_pl: {method}",
            "model": str(settings.get("network.name", settings.get("network", "network"))),
            "label_map": "label-map.json",
            "dataset": {
                "name": str(settings.get("data", "images")), "type": "hdf5", "path": "dataset.h5",
                "input_width": size[1], "input_height": size[0], **sampling,
            },
            "attributions": {
                "attribution_method": method, "attribution_strategy": "predicted_label",
                "sources": ["attributions.h5"],
            },
            "analyses": [{"analysis_method": "Spectral", "sources": ["analysis.h5"]}] if analysed else [],
        }
    }  # fmt: skip


def _write_images(
    rows: Rows,
    labels: NDArray[np.int64],
    size: tuple[int, int],
    folder: Path,
    advance: Callable[[int], None],
    images: Path | None,
) -> None:
    """Write the data set and the attributions, one row for each explanation."""
    count, classes = len(rows), int(labels.max()) + 1
    packed: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    with h5py.File(folder / "dataset.h5", "w") as data, h5py.File(folder / "attributions.h5", "w") as found:
        pixels = data.create_dataset("data", (count, 3, *size), "f4", chunks=(1, 3, *size), **packed)
        data.create_dataset("label", data=labels.astype(np.uint16))
        found.create_dataset("index", data=np.arange(count, dtype=np.uint32))
        found.create_dataset("label", data=labels.astype(np.uint16))
        heat = found.create_dataset("attribution", (count, 1, *size), "f4", chunks=(1, 1, *size), **packed)
        scores = found.create_dataset("prediction", (count, classes), "f4", chunks=(1, classes), **packed)
        for number, explanation in enumerate(rows):
            subject = Subject.of(moved(explanation, images), None, _FINER * max(size), True)
            pixels[number] = np.asarray(subject.seen(size), np.float32).transpose(2, 0, 1) / 255
            inside = Frame(size[1], size[0], (0.0, 0.0, float(size[1]), float(size[0])), size)
            heat[number, 0] = inside.saliency_on_original(explanation.saliency)
            scores[number, labels[number]] = explanation.score
            advance(1)


def _write_analysis(rows: Rows, labels: NDArray[np.int64], names: dict[int, str], path: Path) -> int:
    """Embed and cluster the masks of each class that has enough of them; returns the number of classes."""
    from sklearn.cluster import KMeans
    from sklearn.manifold import SpectralEmbedding

    analysed = 0
    with h5py.File(path, "w") as file:
        for label in np.unique(labels).tolist():
            places = np.flatnonzero(labels == label)
            if len(places) < _FEWEST:
                continue
            analysed += 1
            masks = rows[places].column("masks").astype(np.float64)
            cells = np.stack([pooled(1 - mask, min(_POOLED, len(mask))).ravel() for mask in masks])
            dimensions = min(_DIMENSIONS, len(places) - 2)
            # A matrix of all pairs where that is small; for large classes, neighbours only.
            affinity = "rbf" if len(places) <= _FEW else "nearest_neighbors"
            gamma = 1 / max(float(cells.var(0).sum()), 1e-12)
            embedding = SpectralEmbedding(
                dimensions, affinity=affinity, gamma=gamma, n_neighbors=_NEIGHBOURS, random_state=0
            ).fit_transform(cells)
            group = file.create_group(_category(label))
            group["name"] = names[label] or str(label)
            group["index"] = places.astype(np.uint32)
            # Version 0.6 reads arrays here; its documentation describes groups with the array as "root".
            group["embedding/spectral"] = embedding.astype(np.float32)
            for clusters in (count for count in _CLUSTERS if count < len(places)):
                # As in spectral clustering: k clusters by k eigenvectors, the first of which is constant.
                vectors = embedding[:, : clusters - 1]
                found = KMeans(clusters, n_init=10, random_state=0).fit_predict(vectors)
                group[f"cluster/kmeans-{clusters:02d}"] = found.astype(np.uint32)
    return analysed
