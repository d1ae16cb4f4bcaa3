"""Text in figures: fonts that have its characters, and room that it fits into."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, findSystemFonts, fontManager, get_font

from igos_pl.data.text import printable, shortened

SMALL = 6.5  # points: the letters of captions, footers, curves and numbers

_FONT = "DejaVu Sans"  # comes with matplotlib, so a figure looks the same everywhere

_BOXES = "Last Resort"  # has a box for every character; comes with matplotlib, too

# Fonts for other scripts are tried in this order; all others of the system come later.
_PREFERRED = ("Noto Sans", "Source Han Sans", "Droid Sans", "WenQuanYi", "Arial Unicode", "FreeSans")


def write(
    figure: Figure, x: float, y: float, text: str, room: float, size: float, fixed: str = "", **options: Any
) -> None:
    """Write a line of text. A text that is too long loses its middle.

    Args:
        figure: the figure; its canvas is Agg's.
        x: left end, in inches from the figure's left side.
        y: centre of the line, in inches from the figure's upper side.
        text: from outside, so it may hold anything.
        room: width in inches.
        size: of the letters, in points.
        fixed: is appended, and never shortened.
        options: of `matplotlib.text.Text`.
    """
    whole = printable(text)
    width, height = figure.get_size_inches()
    line = figure.text(
        x / width,
        1 - y / height,
        "",
        fontsize=size,
        family=families(whole + fixed),
        verticalalignment="center",
        parse_math=False,  # names may contain dollar signs
        **options,
    )
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]

    def too_long(length: int) -> bool:
        line.set_text(shortened(whole, length) + fixed)
        with no_glyph_warnings():
            return bool(line.get_window_extent(renderer).width > room * figure.dpi)

    if too_long(len(whole)):
        longest = bisect_left(range(len(whole)), True, key=too_long) - 1
        line.set_text(shortened(whole, max(0, longest)) + fixed)


def width_of(text: str, size: float) -> float:
    """The width of a line of text in inches.

    Args:
        text: the text.
        size: of the letters, in points.
    """
    figure = Figure()
    line = figure.text(0, 0, text, fontsize=size, family=families(text), parse_math=False)
    canvas: Any = FigureCanvasAgg(figure)
    return float(line.get_window_extent(canvas.get_renderer()).width / figure.dpi)


@contextmanager
def no_glyph_warnings() -> Iterator[None]:
    """Leave out matplotlib's warnings of missing characters; `families` gives one that says what to do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def families(text: str) -> list[str]:
    """Names of the fonts that have the characters of a text, the usual one first."""
    names = [_FONT, *(_family_with(mark) for mark in sorted(set(text)))]
    return list(dict.fromkeys(name for name in names if name))


@cache
def _family_with(mark: str) -> str:
    """A font on this system that has a character; an empty text, after a warning, if there is none."""
    for entries in (_entries, _new_entries):
        for entry in entries():
            if ord(mark) in _characters(entry.fname):
                return entry.name
    warnings.warn(
        f"No font on this system has the character {mark} (U+{ord(mark):04X}): figures show a box in its"
        " place. Install a font for its script, such as one of the Noto fonts",
        stacklevel=2,
    )
    return ""


@cache
def _entries() -> list[FontEntry]:
    """The upright fonts of the system, the usual one first."""

    def place(entry: FontEntry) -> tuple[bool, int, str]:
        first = next((i for i, name in enumerate(_PREFERRED) if entry.name.startswith(name)), len(_PREFERRED))
        return entry.name != _FONT, first, entry.name

    regular = (400, "normal", "regular", "book")
    upright = [one for one in fontManager.ttflist if one.style == "normal" and one.weight in regular]
    return sorted((one for one in upright if not one.name.startswith(_BOXES)), key=place)


@cache
def _new_entries() -> list[FontEntry]:
    """Fonts that were installed after matplotlib made its list of fonts."""
    known = {entry.fname for entry in fontManager.ttflist}
    new = [path for path in findSystemFonts() if path not in known]
    for path in new:
        with suppress(OSError, RuntimeError, ValueError):  # a font that matplotlib cannot read
            fontManager.addfont(path)
    return [entry for entry in fontManager.ttflist if entry.fname in new and entry.style == "normal"]


@cache
def _characters(path: str) -> frozenset[int]:
    """The characters that a font file has."""
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):  # a font that matplotlib cannot read
        return frozenset()
