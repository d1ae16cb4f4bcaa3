"""The code of the documentation, block by block; import it as ``pages``."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def blocks(page: str, language: str = "python") -> list[str]:
    """The code blocks of a page, from top to bottom.

    Args:
        page: its path below the repository.
        language: what stands behind the blocks' opening marks.
    """
    return blocks_of((ROOT / page).read_text("utf-8"), language)


def blocks_of(text: str, language: str = "python") -> list[str]:
    """The code blocks of a text, from top to bottom."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return found
