"""The names of the files and folders of a run, by which a search for images knows its results."""

from __future__ import annotations

from collections.abc import Collection

# The merged file, and the folder of the segments.
MERGED, SEGMENTS = "masks.h5", "segments"

# The list of images that the run is to explain, and the configuration that the folder is reserved for.
EXPECTED, CLAIM = "samples.txt", "configuration.json"

# The folders of the overlays, of the report (by default), and of damaged result files.
OVERLAYS, REPORT, DAMAGED = "overlays", "report", "damaged"

RESULT_FOLDERS = frozenset({SEGMENTS, OVERLAYS, REPORT, DAMAGED})


def holds_run(folders: Collection[str], files: Collection[str]) -> bool:
    """Whether a folder is the output folder of a run, by the names of what it holds.

    A list of images alone is not enough, because users give such names to files of their own.
    """
    return (SEGMENTS in folders or MERGED in files) and (EXPECTED in files or CLAIM in files)
