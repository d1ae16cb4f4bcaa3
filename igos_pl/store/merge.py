"""The merged file: a physical, sorted copy of all segments."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py

from igos_pl.data.text import first_few
from igos_pl.data.wording import counted, is_or_are
from igos_pl.errors import DiskFullError, IgosError
from igos_pl.store.files import open_result, publishing
from igos_pl.store.folder import RunFolder
from igos_pl.store.index import Published, merged_head
from igos_pl.store.scales import name_axes
from igos_pl.store.schema import PROVENANCE, configuration_of, differing_keys, read_column
from igos_pl.store.seals import HEAD_BYTES, seal
from igos_pl.store.segments import now, write_attributes
from igos_pl.store.tables import copy_table, sorted_tables

_ROOM_BYTES = 1 << 16  # HDF5 itself needs less than this in a small file


def merge(
    run: RunFolder | str | Path, partial: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Copy all segments of a run into its ``masks.h5``.

    Rows are sorted by sample id, target and start cell, so that the file does not depend on how the work was
    split. A second call gives the same tables. An existing file is replaced when the new one is complete. If
    several segments contain the same image, the rows of one segment are used, and the number of duplicates is
    logged.

    Args:
        run: the output folder.
        partial: merge even if images are missing.
        on_progress: called with the number of rows copied so far, and the number of all rows.

    Returns:
        The merged file.

    Raises:
        IgosError: if there is no segment, images are missing, configurations differ, or the disk is full.
    """
    run = run if isinstance(run, RunFolder) else RunFolder(run)
    tell_damaged(run.set_aside(run.damaged()))
    published = run.published()  # segments that are published later are not merged
    missing = [] if partial else run.missing(published)
    if missing:
        raise IgosError(
            f"{counted(len(missing), 'image')} {is_or_are(len(missing))} not explained yet"
            f" ({first_few(missing, 1)}): run igos-pl predict again, or merge what there is with"
            " partial=True (--partial)"
        )
    if not published.paths:
        raise IgosError(f"No segments in {run.segments_path}: is {run.path} the output folder of a run?")
    _check_configurations(published)
    _check_nothing_lost(run, published)
    _check_room(run, published.paths)
    with publishing(run.merged) as temporary:
        _write(published, temporary, on_progress)
        seal(temporary, merged_head(published.paths))
    if again := published.explained_again():
        logging.getLogger(__name__).warning(
            "%s: images explained by more than one run: %d; one result of each is used", run.merged, again
        )
    return run.merged


def _write(published: Published, path: Path, on_progress: Callable[[int, int], None] | None) -> None:
    """Write the merged tables into a new file, with room for its head."""
    tables = sorted_tables(published)
    total, done = sum(map(len, tables)), 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if on_progress is not None:
            on_progress(done, total)

    # In this version of the format, HDF5's own data have checksums, too.
    with h5py.File(path, "w", userblock_size=HEAD_BYTES, libver=("v110", "v110")) as target:
        with open_result(published.paths[0]) as first:
            provenance = {k: first.attrs[k] for k in PROVENANCE[2:] if k in first.attrs}
            write_attributes(target, {**configuration_of(dict(first.attrs)), **provenance}, now())
        groups = ("image", target.create_group("images")), ("explanation", target)
        for table, (row, group) in zip(tables, groups, strict=True):
            if len(table):
                copy_table(table, group, count)
                name_axes(group, table.schema, row)


def _check_room(run: RunFolder, paths: list[Path]) -> None:
    """Raise if the disk has no room for the merged file, because HDF5 may crash on a full disk.

    The merged file is compressed, so it is hardly ever larger than its segments.
    """
    needed = sum(path.stat().st_size for path in paths) + _ROOM_BYTES
    free = shutil.disk_usage(run.path).free
    if free < needed:
        raise DiskFullError(
            f"Cannot write {run.merged}: it may take {needed / 1e6:,.1f} MB, but the disk has"
            f" {free / 1e6:,.1f} MB left. All results are safe in {run.segments_path}: free space, and run"
            f" igos-pl merge {run.path}"
        )


def tell_damaged(damaged: list[Path]) -> None:
    """Log a warning for each damaged file that was set aside."""
    for path in damaged:
        logging.getLogger(__name__).warning(
            "%s was damaged and is now %s: igos-pl predict explains any lost images again",
            path.name,
            path,
        )


def _check_configurations(published: Published) -> None:
    """Raise if segments have different configurations.

    Tasks that started at the same time in an empty folder may not have seen each other's settings.
    """
    first = published.paths[0]
    for path, index in zip(published.paths, published.indexes, strict=True):
        if index.configuration == published.indexes[0].configuration:
            continue
        with open_result(first) as one, open_result(path) as other:
            differing = differing_keys(*(configuration_of(dict(file.attrs)) for file in (one, other)))
        if differing:
            raise IgosError(
                f"{first.name} and {path.name} in {path.parent} have different configurations"
                f" ({', '.join(differing)}): move the segments of one configuration to another folder"
            )


def _check_nothing_lost(run: RunFolder, published: Published) -> None:
    """Raise if the merged file has images that no segment has, because merging again would lose them."""
    if not run.merged.exists():
        return
    with open_result(run.merged) as file:
        ids = read_column(file["images"], "sample_id")
    lost = ids[~published.contains(ids)]
    if len(lost):
        raise IgosError(
            f"{run.merged} holds {counted(len(lost), 'image')} that no segment has any more, such as"
            f" {lost[0].decode()}: restore the segments, or move {run.merged.name} to another folder"
        )
