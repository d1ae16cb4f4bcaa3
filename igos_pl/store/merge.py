"""The merged file: a physical, sorted copy of all segments."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from igos_pl.errors import IgosError, RunError
from igos_pl.store.files import (
    SEAL_BYTES,
    check_rows,
    image_statuses,
    open_result,
    owned_rows,
    owners,
    publishing,
    seal,
)
from igos_pl.store.folder import RunFolder
from igos_pl.store.schema import (
    EXPLANATIONS,
    IMAGES,
    PROVENANCE,
    Column,
    configuration_of,
    create_column,
    differing_keys,
    read_column,
)
from igos_pl.store.segments import write_attributes

# Large, because the rows of a block may come from all segments, and each block reads each of them once.
_BLOCK_BYTES = 1 << 28


def merge(run: RunFolder, partial: bool = False) -> Path:
    """Copy all segments of a run into its ``masks.h5``.

    Rows are sorted by sample id, target and start cell, so that the file does not depend on how the work was
    split. A second call gives the same tables. An existing file is replaced once the new one is complete. If
    several segments contain the same image, the rows of one segment are used, and the number of duplicates is
    logged.

    Args:
        run: the output folder.
        partial: merge even if images are missing.

    Returns:
        The merged file.

    Raises:
        IgosError: if there is no segment, one is damaged, or images are missing.
    """
    tell_damaged(run.set_aside(run.damaged()))
    paths = run.segments()  # what is published from here on does not matter
    for path in paths:
        check_rows(path)
    statuses = [image_statuses(path) for path in paths]
    owner = owners(statuses)
    missing = [] if partial else run.missing(owner)
    if missing:
        raise IgosError(
            f"{len(missing)} images are not explained yet ({missing[0]}, ...): run igos-pl predict again"
            " to explain them, or merge without them by adding --partial"
        )
    if not paths:
        raise IgosError(f"No segments in {run.segments_path}: is {run.path} the output folder of a run?")
    _check_configurations(paths)
    _check_nothing_lost(run, owner)
    _check_room(run, paths)
    with publishing(run.merged) as temporary:
        _write(run, paths, owner, temporary)
        seal(temporary)
    if twice := sum(map(len, statuses)) - len(owner):
        logging.getLogger(__name__).warning(
            "%s: %d images were explained more than once; one result of each was taken",
            run.merged,
            twice,
        )
    return run.merged


def _write(run: RunFolder, paths: list[Path], owner: Mapping[str, int], path: Path) -> None:
    """Write the merged tables into a new file, with room for its seal."""
    with h5py.File(path, "w", userblock_size=SEAL_BYTES) as target:
        with open_result(paths[0]) as first:
            provenance = {k: first.attrs[k] for k in PROVENANCE[2:] if k in first.attrs}
            write_attributes(target, {**configuration_of(dict(first.attrs)), **provenance})
        images = target.create_group("images")
        _merge_table(paths, owner, images, "images", IMAGES, ("sample_id",))
        _merge_table(paths, owner, target, "/", EXPLANATIONS, ("sample_id", "target", "start_cell"))


def _check_room(run: RunFolder, paths: list[Path]) -> None:
    """Raise if the disk has no room for the merged file: HDF5 may crash on a disk that is full.

    The merged file is compressed, so that it is hardly ever larger than its segments.
    """
    needed, free = sum(path.stat().st_size for path in paths), shutil.disk_usage(run.path).free
    if free < needed:
        raise RunError(
            f"Cannot write {run.merged}: it may take {needed / 1e6:,.1f} MB, but the disk has"
            f" {free / 1e6:,.1f} MB left. All results are safe in {run.segments_path}: free space, and run"
            f" igos-pl merge {run.path}"
        )


def tell_damaged(damaged: list[Path]) -> None:
    """Say which files were set aside because they are damaged."""
    for path in damaged:
        logging.getLogger(__name__).warning(
            "%s was damaged and is now %s: igos-pl predict explains any lost images again",
            path.name,
            path,
        )


def _check_configurations(paths: list[Path]) -> None:
    """Tasks that started at the same time in an empty folder may not have seen each other's settings."""
    with open_result(paths[0]) as file:
        first = configuration_of(dict(file.attrs))
    for path in paths[1:]:
        with open_result(path) as file:
            differing = differing_keys(first, configuration_of(dict(file.attrs)))
        if differing:
            raise IgosError(
                f"{paths[0].name} and {path.name} in {path.parent} have different configurations"
                f" ({', '.join(differing)}): move the segments of one configuration to another folder"
            )


def _check_nothing_lost(run: RunFolder, owner: Mapping[str, int]) -> None:
    """Segments may have been removed after an earlier merge: their images must not vanish now."""
    if not run.merged.exists():
        return
    lost = image_statuses(run.merged).keys() - owner.keys()
    if lost:
        raise IgosError(
            f"{run.merged} holds {len(lost)} images that no segment has any more ({min(lost)}, ...):"
            f" restore the segments, or move {run.merged.name} to another folder"
        )


def _merge_table(
    paths: list[Path],
    owner: Mapping[str, int],
    target: h5py.Group,
    group: str,
    schema: dict[str, Column],
    keys: tuple[str, ...],
) -> None:
    """Copy one table of all segments in the order of its keys, block by block."""
    parts, rows_of, key_columns = [], [], []
    for number, path in enumerate(paths):
        with open_result(path) as file:
            if keys[0] in file[group]:
                found = [read_column(file[group], key) for key in keys]
                parts.append(path)
                rows_of.append(owned_rows(owner, number, found[0]))
                key_columns.append([column[rows_of[-1]] for column in found])
    if not parts:
        return
    columns = [np.concatenate(column) for column in zip(*key_columns, strict=True)]
    order = np.lexsort(columns[::-1])
    part_of = np.repeat(np.arange(len(parts)), list(map(len, rows_of)))[order]
    row_of = np.concatenate(rows_of)[order]
    for name, column in schema.items():
        with open_result(parts[0]) as file:
            like = read_column(file[group], name, slice(0, 1))
        dataset = create_column(target, name, column, len(order), like)
        block = max(1, _BLOCK_BYTES // max(1, like.nbytes))
        for start in range(0, len(order), block):
            rows = slice(start, start + block)
            dataset[rows] = _gather(parts, group, name, part_of[rows], row_of[rows], like)


def _gather(
    parts: list[Path],
    group: str,
    name: str,
    part_of: NDArray[np.int64],
    row_of: NDArray[np.int64],
    like: NDArray[Any],
) -> NDArray[Any]:
    """Some rows of one column, from whichever segments they lie in."""
    values = np.empty((len(part_of), *like.shape[1:]), dtype=like.dtype)
    for part in np.unique(part_of):
        places = np.flatnonzero(part_of == part)
        rows = row_of[places]
        with open_result(parts[part]) as file:
            found = read_column(file[group], name, slice(int(rows.min()), int(rows.max()) + 1))
        if found.shape[1:] != like.shape[1:]:
            raise IgosError(f"{parts[part]}: {name} has rows of {found.shape[1:]}, not {like.shape[1:]}")
        values[places] = found[rows - rows.min()]
    return values
