"""Counts and the settings of a run in words, the same on the terminal, in figures and in reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def counted(number: int, word: str) -> str:
    """``1 image``, ``2 images``, ``2 classes``, ``2 boxes``."""
    if number != 1:
        word += "es" if word.endswith(("s", "x")) else "s"
    return f"{number:,} {word}"


def is_or_are(number: int) -> str:
    """The verb for so many things."""
    return "is" if number == 1 else "are"


def ago_in_words(seconds: float) -> str:
    """``5 seconds ago``, ``3 minutes ago``; whole units, the largest that fits."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return f"{counted(int(seconds // size), unit)} ago"
    return f"{counted(max(0, int(seconds)), 'second')} ago"


def has_or_have(number: int) -> str:
    """The verb for so many things."""
    return "has" if number == 1 else "have"


def score_in_words(score: float) -> str:
    """A score with two decimals; ``<0.01`` if these would be zeros and it is not."""
    return "<0.01" if 0 < score < 0.005 else f"{score:.2f}"


def has_regions(settings: Mapping[str, Any]) -> bool:
    """Whether a run's masks are over regions instead of single cells."""
    return str(settings.get("regions", "none")) != "none"


def is_search(settings: Mapping[str, Any]) -> bool:
    """Whether a search made a run's masks. Only its values tell the order in which the cells were taken."""
    return bool(settings.get("method") == "search")


def cells_in_words(settings: Mapping[str, Any]) -> str:
    """What a mask consists of: ``28 x 28 cells``, or ``regions (Slic), drawn in 112 x 112 cells``.

    It is empty if the settings do not name the size of the masks.
    """
    size = settings.get("mask_size")
    cells = f"{size} x {size} cells" if size else ""
    if not has_regions(settings):
        return cells
    return f"regions ({settings['regions']})" + (f", drawn in {cells}" if cells else "")


def masks_in_words(settings: Mapping[str, Any]) -> str:
    """``masks of 28 x 28``, or ``masks over regions (Slic), drawn in 112 x 112 cells``; empty if unknown."""
    if has_regions(settings):
        return f"masks over {cells_in_words(settings)}"
    size = settings.get("mask_size")
    return f"masks of {size} x {size}" if size else ""


def preset_in_words(settings: Mapping[str, Any]) -> str:
    """``preset fast (iGOS+, Adam)``. A method with the name of its preset, such as search, is said once."""
    preset = str(settings.get("preset", ""))
    known = preset.partition(",")[0]
    names = [str(settings[name]) for name in ("method", "optimizer") if name in settings]
    method = ", ".join(name for name in names if name != known)
    if not preset:
        return method
    return f"preset {preset} ({method})" if method else f"preset {preset}"


def method_in_words(settings: Mapping[str, Any]) -> str:
    """How the masks were made: ``preset fast (iGOS+, Adam), masks of 28 x 28``."""
    return ", ".join(filter(None, (preset_in_words(settings), masks_in_words(settings))))
