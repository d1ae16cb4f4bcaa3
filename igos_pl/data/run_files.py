"""The names of the files and folders of results, by which a search for images knows their pictures."""

from __future__ import annotations

from pathlib import Path

# The merged file, and the folder of the segments.
MERGED, SEGMENTS = "masks.h5", "segments"

# The list of images that the run is to explain, and the configuration that the folder is reserved for.
EXPECTED, CLAIM = "samples.txt", "configuration.json"

# The folders of the overlays, of the report (by default), and of damaged result files.
OVERLAYS, REPORT, DAMAGED = "overlays", "report", "damaged"

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
        has_results = (run / SEGMENTS).is_dir() or (run / MERGED).is_file()
        if has_results and ((run / EXPECTED).is_file() or (run / CLAIM).is_file()):
            return True
    if folder.name.startswith(EPOCH) and folder.with_name(f"{folder.name}.h5").is_file():
        return True
    if (folder / REPORT_MARK).is_file() and all((folder / name).is_dir() for name in REPORT_FOLDERS):
        return True
    return (folder / EXPORT_MARK).is_file()
