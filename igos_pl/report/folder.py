"""A report's folder: data as scripts, which a page from disk may load, and the files of earlier reports."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igos_pl.data.run_files import REPORT_FOLDERS, REPORT_MARK
from igos_pl.errors import IgosError
from igos_pl.store.files import cannot_write, publishing

_HEX = "0123456789abcdef"


class ReportFolder:
    """The folder that a report is written to.

    Args:
        path: the folder; created if it does not exist.

    Attributes:
        digests: of the files from which earlier reports made the large pictures, by the pictures' names.

    Raises:
        IgosError: if it holds other files than a report's, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        mark = path / REPORT_MARK
        try:
            if path.exists() and not mark.is_file() and (not path.is_dir() or any(path.iterdir())):
                raise IgosError(
                    f"{path} contains other files than a report: choose another folder (--output)"
                )
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self.digests: dict[str, str] = dict(json.loads(mark.read_bytes())["pictures"])
        except (OSError, ValueError, KeyError, TypeError):
            self.digests = {}
        self._kept: set[Path] = {mark, self.index}
        try:
            for name in REPORT_FOLDERS:
                (path / name).mkdir(parents=True, exist_ok=True)
            for name in ("pictures", "thumbnails"):
                for first in _HEX:
                    for second in _HEX:
                        (path / name / (first + second)).mkdir(exist_ok=True)
            self.index.unlink(missing_ok=True)  # until all files fit together again
            if not mark.is_file():
                mark.write_text(compact({"pictures": {}}), encoding="utf-8")
        except OSError as error:
            raise cannot_write(path, error) from error

    @property
    def index(self) -> Path:
        """The page."""
        return self.path / "index.html"

    def keep(self, path: Path) -> None:
        """Note that a file belongs to this report."""
        self._kept.add(path)

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file.

        Raises:
            IgosError: if it cannot be written.
        """
        path = self.path / name
        self.keep(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        except OSError as error:
            raise cannot_write(path, error) from error

    def write_data(self, name: str, value: Any) -> None:
        """Write a value as a script. Names from outside are in a text there, and are never run as code."""
        # Browsers parse JSON several times quicker than the same value as code.
        text = compact(value).replace("\\", "\\\\").replace("'", "\\'")
        self.write(f"data/{name}.js", f"igosData({json.dumps(name)},JSON.parse('{text}'));\n")

    def write_static(self) -> None:
        """Copy the scripts and styles of the page."""
        root = resources.files("igos_pl.report") / "static"
        for folder in ("", "uplot"):
            for file in (root / folder).iterdir():
                if file.is_file():
                    self.write(f"static/{folder + '/' if folder else ''}{file.name}", file.read_bytes())

    def finish(self, page: str, digests: dict[str, str]) -> int:
        """Write the page, and remove files of earlier reports that it does not need.

        Args:
            page: the HTML.
            digests: of the files from which the large pictures were made, by the pictures' names.

        Returns:
            How many files were removed.
        """
        with publishing(self.path / REPORT_MARK) as temporary:
            temporary.write_text(compact({"pictures": digests}), encoding="utf-8")
        with publishing(self.index) as temporary:
            temporary.write_text(page, encoding="utf-8")
        removed = 0
        for name in REPORT_FOLDERS:
            for path in (self.path / name).rglob("*"):
                if path.is_file() and path not in self._kept:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed


def compact(value: Any) -> str:
    """A value as JSON in ASCII."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def compact_floats(values: NDArray[Any] | Iterable[float], digits: int = 4) -> list[float | None]:
    """Numbers for JSON, rounded; None for those that are not finite."""
    numbers = np.asarray(values, np.float64)
    known = np.isfinite(numbers)
    rounded = np.where(known, numbers, 0).round(digits).tolist()
    if known.all():
        return list(rounded)
    return [number if is_known else None for number, is_known in zip(rounded, known.tolist(), strict=True)]


def number(value: float, digits: int = 4) -> float | None:
    """A number for JSON, rounded; None if it is not finite."""
    return round(float(value), digits) if math.isfinite(value) else None
