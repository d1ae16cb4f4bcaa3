"""Label files: text of lines "path label", or tables."""

from __future__ import annotations

import csv
import os
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from igos_pl.data.images import check_reachable
from igos_pl.data.labels import ClassLabels
from igos_pl.data.text import first_few, printable
from igos_pl.data.wording import counted, has_or_have
from igos_pl.errors import IgosError

# Names of the columns of tables, in lower case.
_PATHS = ("path", "image", "file", "filename", "file_name", "image_path", "name", "id")
_LABELS = ("label", "class", "target", "category", "class_name", "ground_truth")
_TABLES = {".csv": ",;\t", ".tsv": "\t"}

Line = tuple[int, str, str]


def read_labels(path: Path, names: Sequence[str], classes: ClassLabels) -> dict[str, int]:
    """Labels by the names of the pictures.

    Args:
        path: the labels file.
        names: the names of all pictures.
        classes: the network's classes.

    Raises:
        IgosError: if the file is missing, a line is malformed, or a picture has no label, or two.
    """
    if not os.path.isfile(path):
        check_reachable(path)
        raise IgosError(f"There is no labels file {path}: correct labels (--data.labels)")
    # All line breaks become \n here. `str.splitlines` also splits at marks that names may have (U+2028).
    text = path.read_text("utf-8-sig", errors="replace")
    ending = path.suffix.lower()
    lines = _table(path, text, _TABLES[ending]) if ending in _TABLES else _plain_lines(path, text, set(names))
    labels: dict[str, int] = {}
    for number, name, word in lines:
        try:
            label = classes.label_in(word)
        except IgosError as error:
            raise IgosError(f"{_place(path, number, name)}: {error}") from error
        if labels.setdefault(name, label) != label:
            raise IgosError(
                f"{_place(path, number, name)}: it has the label {labels[name]} in an earlier line, but"
                f" {label} here: remove the wrong line"
            )
    missing = [name for name in names if name not in labels]
    if missing:
        lack = f"{len(missing):,} of {counted(len(names), 'image')} {has_or_have(len(missing))} none"
        others = [printable(name) for name in labels.keys() - set(names)]
        about = f". Its lines for other names are those of {first_few(sorted(others))}" if others else ""
        raise IgosError(
            f"{path} has labels for {counted(len(labels), 'image')}, but {lack} ({first_few(missing)}): add a"
            f" line for each{about}"
        )
    return labels


def _place(path: Path, number: int, name: str) -> str:
    """A line, and the picture that it is about, for messages."""
    return f"{path}, line {number}, {printable(name)}"


def _plain_lines(path: Path, text: str, names: Container[str]) -> Iterator[Line]:
    """The lines of a text file. Paths and class names may have spaces, so known paths are looked for."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        spaces = [place for place, mark in enumerate(line) if mark.isspace()]
        known = [place for place in spaces if line[:place].strip() in names]
        place = known[-1] if known else spaces[-1] if spaces else 0
        name, label = line[:place].strip(), line[place:].strip()
        if not name or not label:
            raise IgosError(f"{path}, line {number}: expected 'path label', found {line!r}")
        yield number, name, label


def _table(path: Path, text: str, delimiters: str) -> Iterator[Line]:
    first = text.lstrip().partition("\n")[0]
    reader = csv.reader(text.split("\n"), delimiter=max(delimiters, key=first.count))
    columns, headed, first_row = (0, 1), False, True
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        named = _columns(row) if first_row else None
        first_row = False
        if named:
            columns, headed = named, True
            continue
        cells = [row[column].strip() if column < len(row) else "" for column in columns]
        if not all(cells) or not (headed or len(row) == 2):
            raise IgosError(
                f"{path}, line {reader.line_num}: expected a path and a label, found {row}. A table with"
                " other columns must begin with a line of their names, 'path' and 'label' among them"
            )
        yield reader.line_num, cells[0], cells[1]


def _columns(header: Sequence[str]) -> tuple[int, int] | None:
    """The columns of paths and labels; None if the row is no header."""
    cells = [cell.strip().lower() for cell in header]
    paths = [cells.index(name) for name in _PATHS if name in cells]
    labels = [cells.index(name) for name in _LABELS if name in cells]
    return (paths[0], labels[0]) if paths and labels else None
