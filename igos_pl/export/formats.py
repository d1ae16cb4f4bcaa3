"""The formats, by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from igos_pl.checks import check_choice, check_share
from igos_pl.errors import IgosError
from igos_pl.export.coco import write_coco
from igos_pl.export.fiftyone import write_fiftyone
from igos_pl.export.heatmaps import write_png
from igos_pl.export.numpy_files import is_archive, write_numpy
from igos_pl.export.virelay import write_virelay
from igos_pl.export.zarr_store import write_zarr
from igos_pl.store.reader import Rows

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Options:
    """What some of the formats need.

    Attributes:
        fraction: of the cells that belong to a region of COCO's results.
        annotations: COCO's instances JSON with the ids of images and categories.
        images: where the images are now; None if they are where they were.
    """

    fraction: float = 0.2
    annotations: Path | None = None
    images: Path | None = None


FORMATS: dict[str, Callable[[Rows, Path, Advance, Options], str]] = {
    "coco": lambda rows, output, advance, options: write_coco(
        rows, output, advance, options.fraction, options.annotations
    ),
    "numpy": lambda rows, output, advance, options: write_numpy(rows, output, advance),
    "zarr": lambda rows, output, advance, options: write_zarr(rows, output, advance),
    "png": lambda rows, output, advance, options: write_png(rows, output, advance),
    "virelay": lambda rows, output, advance, options: write_virelay(rows, output, advance, options.images),
    "fiftyone": lambda rows, output, advance, options: write_fiftyone(rows, output, advance, options.images),
}


# What the output may be, other than a folder, and the endings that a format gives to it.
_OUTPUTS = {"coco": "a .json file", "numpy": "an .npz file or a folder"}
_ENDINGS = {"coco": {".json"}, "numpy": {".npz"}, "zarr": {".zarr"}}

# Endings that promise a format. The name of a folder may have any other, such as the 2 of photos.2.
_PROMISES = set.union(*_ENDINGS.values()) | {
    ".csv", ".h5", ".hdf5", ".jsonl", ".nc", ".npy", ".pdf", ".png", ".pt", ".svg", ".tar", ".zip",
}  # fmt: skip


def writes_folder(to: str, output: Path) -> bool:
    """Whether a format writes a folder under this name; otherwise one file.

    Args:
        to: the format, see `FORMATS`.
        output: the name.
    """
    return to != "coco" and not (to == "numpy" and is_archive(output))


def export(
    rows: Rows, to: str, output: Path, options: Options | None = None, on_rows: Advance | None = None
) -> str:
    """Write explanations in the format of another program. The output appears complete or not at all.

    Args:
        rows: the explanations.
        to: the format, see `FORMATS`.
        output: the file or folder; what is there is replaced.
        options: of the format.
        on_rows: called with the number of rows that were written since the last call.

    Returns:
        What was written, in words.

    Raises:
        IgosError: if there are no explanations, the format is another one, the name of the output promises
            another one, or the output cannot be written.
    """
    check_choice("to", to, FORMATS)
    options = options or Options()
    check_share("fraction", options.fraction)
    _check_ending(to, output)
    if output.is_dir() and not writes_folder(to, output):
        raise IgosError(f"{output} is a folder: give the name of a file")
    if not len(rows):
        raise IgosError("There are no explanations to export")
    return FORMATS[to](rows, output, on_rows or (lambda number: None), options)


def _check_ending(to: str, output: Path) -> None:
    """Raise if the ending of a name is not that of the format."""
    ending, own = output.suffix.lower(), _ENDINGS.get(to, set())
    if ending not in own and (to == "coco" or ending in _PROMISES):
        raise IgosError(
            f"{output} cannot be written in the format {to}: name {_OUTPUTS.get(to, 'a folder')} (--output)"
        )
