"""Presets on the command line. They override YAML files, and other options override them."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from igos_pl.cli.start_folder import paths_from_start
from igos_pl.errors import IgosError
from igos_pl.solver.presets import preset_file, preset_names

# The commands that take --preset.
WITH_PRESET = ("predict", "sanity")


def with_preset(words: list[str]) -> list[str]:
    """The arguments in ascending order of precedence: the YAML files, the preset's file, all others.

    Raises:
        IgosError: if there is no such preset, or more than one is given.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--preset", action="append", default=[])
    try:
        options, others = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        presets = f"; presets are {', '.join(preset_names())}" if error.argument_name == "--preset" else ""
        raise IgosError(f"{error}{presets}") from error
    if len(options.preset) > 1:
        raise IgosError(f"Give --preset once, not: {', '.join(options.preset)}")
    for file in options.config:
        check_file(file)
    given = [word for file in options.config for word in (f"--config={file}", *paths_from_start(Path(file)))]
    return [*given, *(f"--config={preset_file(name)}" for name in options.preset), *others]


def check_file(name: str) -> None:
    """Raise unless a settings file can be read. The parser's own messages would not name the file.

    Raises:
        IgosError: saying what is wrong with the file.
    """
    advice = "-c takes YAML files, as in configs/"
    try:
        content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise IgosError(f"{name} is not UTF-8 text: {advice}") from error
    except RecursionError as error:
        raise IgosError(f"{name} is nested too deeply to be read: {advice}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise IgosError(f"Cannot read the settings in {name[:_SHOWN]}: {reason}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise IgosError(f"{name}{place}: not valid YAML ({problem})") from error
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds a {type(content).__name__}, not settings by name"
        raise IgosError(f"{name} {found}: {advice}")


# The number of characters that are shown of a path that is too long.
_SHOWN = 100
