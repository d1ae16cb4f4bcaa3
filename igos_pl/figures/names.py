"""Names of the files of pictures."""

from __future__ import annotations

from pathlib import PurePosixPath

_LONGEST = 150  # bytes; file systems allow 255


def stem_of(sample_id: str) -> str:
    """A readable name for a file: ``cat`` for ``cat.jpg``, ``birds_owl`` for ``birds/owl.jpg``."""
    path = PurePosixPath(sample_id)
    whole = "_".join(part for part in (*path.parent.parts, path.stem) if part not in ("/", "..", "."))
    safe = "".join(mark if mark.isalnum() or mark in "-_. " else "_" for mark in whole).strip(". ")
    return safe.encode()[-_LONGEST:].decode(errors="ignore") or "image"
