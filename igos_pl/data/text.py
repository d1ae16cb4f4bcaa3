"""Names from outside, as terminals, tables and pictures can show them."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str) -> str:
    """Text whose control characters are written out, so that a file's name cannot steer the terminal."""
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in text)


def isolated(text: str) -> str:
    """Printable text for a sentence on a page: its direction of writing does not reorder the rest."""
    return f"\N{FIRST STRONG ISOLATE}{printable(text)}\N{POP DIRECTIONAL ISOLATE}"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list: ``a, b, c, ...``."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def shortened(text: str, length: int) -> str:
    """Text of at most ``length`` characters. The middle of a longer one becomes an ellipsis.

    The beginnings and the ends of file names distinguish them.
    """
    if len(text) <= length:
        return text
    kept = max(0, length - 1)
    end = kept // 2
    return f"{text[: kept - end]}…{text[len(text) - end :]}"
