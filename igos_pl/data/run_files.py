"""The names of the files and folders of results, by which a search for images knows their pictures."""

from __future__ import annotations

from os.path import isdir, isfile  # unlike the methods of Path, they are false in a closed folder
from pathlib import Path

# The merged file, and the folder of the segments.
MERGED, SEGMENTS = "masks.h5", "segments"

# The list of images that the run is to explain, and the configuration that the folder is reserved for.
EXPECTED, CLAIM = "samples.txt", "configuration.json"

# The folders of the overlays, of the report (by default), of damaged result files, and of notes of processes
# that died while they read an image.
OVERLAYS, REPORT, DAMAGED, DEATHS = "overlays", "report", "damaged", "deaths"

# The folder of the figures of `igos-pl evaluate`, with a folder for each metric.
FIGURES = "evaluation"

# An epoch of a training is a file ``epoch=003.h5`` and, if no logger takes pictures, a folder ``epoch=003``.
EPOCH = "epoch="

# The files by which reports and exports are known, wherever they are.
REPORT_MARK, EXPORT_MARK = "report.json", ".igos-pl-export"

# The folders of a report.
REPORT_FOLDERS = ("data", "pictures", "thumbnails", "static")


def holds_written_pictures(folder: Path) -> bool:
    """Whether igos-pl wrote the pictures in a folder.

    It is a run's overlays, an epoch of a training, a report or an export.
    """
    if folder.name == OVERLAYS:
        run = folder.parent
        # A list of images alone is not enough, because users give such names to files of their own.
        has_results = isdir(run / SEGMENTS) or isfile(run / MERGED)
        if has_results and (isfile(run / EXPECTED) or isfile(run / CLAIM)):
            return True
    if folder.name.startswith(EPOCH) and isfile(folder.with_name(f"{folder.name}.h5")):
        return True
    if isfile(folder / REPORT_MARK) and all(isdir(folder / name) for name in REPORT_FOLDERS):
        return True
    return isfile(folder / EXPORT_MARK)
