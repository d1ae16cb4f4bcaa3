"""``evaluation.h5``: the figures that ``igos-pl evaluate`` found, one row for each explanation of a run.

The file is made from the folders ``evaluation/METRIC`` of the run, which hold the figures as they were
published, and can be made again from them. It is sealed as all results are (`igos_pl.store.seals`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from igos_pl.data.run_files import FIGURES
from igos_pl.settings import Attributes, digest
from igos_pl.store.files import open_result, publishing
from igos_pl.store.index import Published
from igos_pl.store.schema import (
    HDF5_ERRORS,
    KEYS,
    configuration_of,
    damaged,
    encoded,
    find_column,
    read_column,
    schema_of,
    write_table,
)
from igos_pl.store.seals import HEAD_BYTES, check_seal, seal
from igos_pl.store.segments import now, write_attributes

EVALUATION = "evaluation.h5"

Figures = dict[str, NDArray[np.float32]]


def evaluation_files(run: Path) -> list[Path]:
    """All files of figures of a run's folder: the segments, and the joined file if there is one."""
    joined = run / EVALUATION
    segments = sorted((run / FIGURES).glob("*/segments/[!.]*.h5"))
    return [*segments, *([joined] if joined.exists() else [])]


def run_digest(attributes: Mapping[str, Any]) -> str:
    """What figures name the run by that they belong to: a digest of its settings."""
    return digest(repr(sorted(configuration_of(attributes).items())))


def keys_of(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The columns of `KEYS`, the ids as UTF-8, as one column of records that can be compared and sorted."""
    ids, targets, cells = columns
    keys = np.empty(len(ids), np.dtype(list(zip(_FIELDS, (ids.dtype, "i4", "i4"), strict=True))))
    for name, column in zip(_FIELDS, (ids, targets, cells), strict=True):
        keys[name] = column
    return keys


_FIELDS = ("id", "target", "cell")


def published_figures(folder: Path) -> tuple[NDArray[Any], Figures, dict[str, Any]]:
    """The figures of one metric's folder.

    Args:
        folder: with ``segments/*.h5``.

    Returns:
        The keys of the rows, the figures by name, and the attributes of the first segment.
    """
    published = Published(sorted((folder / "segments").glob("[!.]*.h5")))
    keys: list[list[NDArray[Any]]] = []
    tables: list[Figures] = []
    attributes: dict[str, Any] = {}
    for part, path in enumerate(published.paths):
        entries = published.of(part)
        with open_result(path) as file:
            attributes = attributes or dict(file.attrs)
            if "sample_id" not in file:
                continue
            found = [read_column(file, name) for name in KEYS]
            rows = np.isin(found[0], published.ids[entries][published.used[entries]])
            keys.append([column[rows] for column in found])
            names = [name for name in file if name not in (*KEYS, "images")]
            tables.append({name: read_column(file, name)[rows] for name in names})
    if not tables:
        return keys_of([np.empty(0, "S1"), np.empty(0), np.empty(0)]), {}, attributes
    joined = [np.concatenate(column) for column in zip(*keys, strict=True)]
    figures = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    return keys_of(joined), figures, attributes


def write_evaluation(run: Path, keys: Sequence[NDArray[Any]], attributes: Mapping[str, Any]) -> Path:
    """Write ``evaluation.h5`` of a run from the folders of its metrics.

    Figures of an earlier configuration of the run are left out.

    Args:
        run: the run's folder.
        keys: the columns of `KEYS` of the run's explanations.
        attributes: the run's attributes.

    Returns:
        The file.
    """
    wanted = keys_of([encoded(keys[0]), *keys[1:]])
    columns: dict[str, Any] = dict(zip(KEYS, keys, strict=True))
    settings: Attributes = {"run": run_digest(attributes)}
    for folder in sorted((run / FIGURES).iterdir()):
        if not (folder / "segments").is_dir():
            continue
        found, figures, how = published_figures(folder)
        if not len(found) or how.get("run") != settings["run"]:
            continue
        places = _places(found, wanted)
        for name, values in figures.items():
            columns[name] = np.where(places >= 0, values[places], np.nan).astype(np.float32)
        settings[folder.name] = json.dumps(
            {key: value for key, value in configuration_of(how).items() if not key.startswith("network")}
        )
    path = run / EVALUATION
    with publishing(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=HEAD_BYTES, libver=("v110", "v110")) as file:
            write_attributes(file, {}, now())
            # Text attributes have at most 64 kB together, so the settings are one dataset.
            file.create_dataset("settings", data=json.dumps(settings))
            write_table(file.create_group("figures"), schema_of(columns), columns)
        seal(temporary, {"evaluation": settings["run"]})
    return path


def read_evaluation(
    run: Path, keys: Sequence[NDArray[Any]], attributes: Mapping[str, Any]
) -> tuple[Figures, dict[str, str]]:
    """The figures of a run's explanations, NaN for those that were not judged.

    Args:
        run: the run's folder.
        keys: the columns of `KEYS` of the explanations, the ids as UTF-8.
        attributes: the run's attributes.

    Returns:
        The figures by name, and the settings of each metric as JSON; nothing if the run was not judged.

    Raises:
        IgosError: if the file is damaged.
    """
    path = run / EVALUATION
    if not path.is_file():
        return {}, {}
    check_seal(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            settings = dict(json.loads(file["settings"][()]))
            if settings.pop("run") != run_digest(attributes):
                return {}, {}
            table = file["figures"]
            found = keys_of([read_column(table, name) for name in KEYS])
            names = [name for name in table if name not in KEYS]
            places = _places(found, keys_of(keys))
            values = {name: find_column(table, name)[...] for name in names}
    except HDF5_ERRORS as error:
        raise damaged(path, f"it is damaged ({error})") from error
    figures = {
        name: np.where(places >= 0, column[places], np.nan).astype(np.float32)
        for name, column in values.items()
    }
    return figures, settings


def _places(keys: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64]:
    """The place of each wanted key among the keys; -1 for those that are not there."""
    if len(keys) == len(wanted) and all(
        (keys[name] == wanted[name]).all() for name in keys.dtype.names or ()
    ):
        return np.arange(len(keys))
    numbers = {key: place for place, key in enumerate(keys.tolist())}
    return np.array([numbers.get(key, -1) for key in wanted.tolist()], np.int64)
