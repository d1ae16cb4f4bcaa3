"""Presets on the command line. They override YAML files, and other options override them."""

from __future__ import annotations

import argparse

from igos_pl.errors import IgosError
from igos_pl.solver.presets import preset_file, preset_names


def with_preset(words: list[str]) -> list[str]:
    """The arguments in ascending precedence: the YAML files, the preset's file, all others.

    Raises:
        IgosError: if there is no such preset, or more than one is given.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--preset", action="append", default=[])
    try:
        options, others = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise IgosError(f"{error}; presets are {', '.join(preset_names())}") from error
    if len(options.preset) > 1:
        raise IgosError(f"Give --preset once, not: {', '.join(options.preset)}")
    files = [*options.config, *(str(preset_file(name)) for name in options.preset)]
    return [*(f"--config={file}" for file in files), *others]
