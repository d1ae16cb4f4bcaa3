"""``igos-pl import``: turns saliency maps of other methods into a result."""

from __future__ import annotations

import sys
from pathlib import Path

from igos_pl.cli.messages import quieten_lightning
from igos_pl.cli.parser import ImportCLI, parsed
from igos_pl.cli.predict import go_through
from igos_pl.errors import IgosError
from igos_pl.judging.importer import Importer


def import_saliency(words: list[str]) -> int:
    """Import saliency as the command line says.

    Args:
        words: the arguments after ``import``.

    Returns:
        The exit code, as of ``predict``.
    """
    quieten_lightning()
    sys.path.insert(0, str(Path.cwd()))  # users' own networks are there
    return go_through(parsed(_settings(words), ImportCLI, Importer))


def _settings(words: list[str]) -> list[str]:
    """The arguments as settings of the importer."""
    if words and not words[0].startswith("-"):
        words = [f"--model.saliency={words[0]}", *words[1:]]
    elif not {"--print_config", "--help"} & set(words) and "-c" not in words:
        raise IgosError("SALIENCY is missing: igos-pl import SALIENCY --data.root FOLDER --output RUN")
    return [
        f"--model.method{word.removeprefix('--name')}" if word.partition("=")[0] == "--name" else word
        for word in words
    ]
