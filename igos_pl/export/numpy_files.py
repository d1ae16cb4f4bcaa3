"""NumPy: a folder of ``.npy`` files, or one ``.npz`` file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from igos_pl.export.arrays import Array, arrays_of, settings_as_json
from igos_pl.export.folders import publishing_folder
from igos_pl.store.files import publishing
from igos_pl.store.reader import Rows

Advance = Callable[[int], None]


def write_numpy(rows: Rows, output: Path, advance: Advance) -> str:
    """Write every column as an array.

    Args:
        rows: the explanations.
        output: a file whose name ends in .npz, or a folder.
        advance: called with the number of rows that were written.

    Returns:
        What was written, in words.
    """
    arrays = arrays_of(rows)
    settings = settings_as_json(rows.settings)
    if is_archive(output):
        with publishing(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for array in arrays:
                with archive.open(f"{array.name}.npy", "w", force_zip64=True) as file:
                    _write(array, file, advance)
            with archive.open("settings.npy", "w") as file:
                np.lib.format.write_array(file, np.array(settings), allow_pickle=False)
    else:
        with publishing_folder(output) as folder:
            for array in arrays:
                with (folder / f"{array.name}.npy").open("wb") as file:
                    _write(array, file, advance)
            (folder / "settings.json").write_text(settings, encoding="utf-8")
    return f"{len(arrays)} arrays"


def is_archive(output: Path) -> bool:
    """Whether the arrays are written into one file, by its name; otherwise into a folder."""
    return output.suffix.lower() == ".npz"


def _write(array: Array, file: IO[bytes], advance: Advance) -> None:
    about = {
        "descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape
    }  # fmt: skip
    np.lib.format.write_array_header_2_0(file, about)
    for block in array.blocks():
        file.write(np.ascontiguousarray(block).tobytes())
        if array.name == "saliency":
            advance(len(block))
