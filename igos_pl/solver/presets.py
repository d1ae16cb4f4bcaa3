"""Presets: named settings in the YAML files of ``configs/presets/``.

Importing this does not import torch, so that the command line can check a preset's name at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from igos_pl.checks import check_choice
from igos_pl.settings import Attributes, nested, plain
from igos_pl.solver.methods import method_named

if TYPE_CHECKING:
    from igos_pl.solver.optimizers import OptimizerFactory

# If more settings than this differ, no preset is named.
_MOST_CHANGES = 4

PRESETS = Path(__file__).parents[1] / "presets"


def preset_names() -> list[str]:
    """The names of all presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_file(name: str) -> Path:
    """The YAML file of a preset.

    Raises:
        IgosError: if there is no such preset. The message names all.
    """
    check_choice("preset", name, preset_names())
    return PRESETS / f"{name}.yaml"


def preset_settings(name: str) -> dict[str, Any]:
    """A preset as arguments of the explainer's constructor.

    Raises:
        IgosError: if there is no such preset. The message names all.
    """
    settings: dict[str, Any] = yaml.safe_load(preset_file(name).read_text(encoding="utf-8"))["model"]
    if "optimizer" in settings:
        settings["optimizer"] = _optimizer(**settings["optimizer"])
    return settings


def preset_of(settings: Mapping[str, Any]) -> str:
    """The preset that an explainer's settings come from, and what differs from it: ``fast, with l1=5``.

    Only the settings count, not how they were given. Settings that no preset has are ignored.

    Args:
        settings: an explainer's settings, as `igos_pl.settings.Configurable.describe` gives them.

    Returns:
        The text; empty if the settings are not close to any preset with the same optimiser, or with the same
        method if it has no optimiser.
    """
    if "optimizer" not in settings and "start.k" not in settings:
        return ""  # of imported saliency, whose method may have any name
    same = [name for name in preset_names() if _solver(_described(name)) == _solver(settings)]
    if not same:
        return ""
    changes, name = min(
        ((_changes(settings, name), name) for name in same), key=lambda found: (len(found[0]), found[1])
    )
    if len(changes) > _MOST_CHANGES:
        return ""
    return f"{name}, with {', '.join(changes)}" if changes else name


def preset_difference(there: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, set[str]]:
    """Two explainers' presets if they are different ones, in words: ``preset: there search, now fast``.

    Returns:
        The text, and the settings whose differences it explains; empty if no presets explain them.
    """
    found = [preset_of(settings) for settings in (there, now)]
    names = [text.partition(",")[0] for text in found]
    if not all(names) or names[0] == names[1]:
        return "", set()
    one, other = map(_described, names)
    keys = {key for key in {*there, *now} if key.startswith(("optimizer.", "search."))}.union(one, other)
    # What only one of them sets, as a mask size, may differ for another reason.
    keys = {key for key in keys if (key in one and key in other) or not (key in there and key in now)}
    return f"preset: there {found[0]}, now {found[1]}", keys


def optimizer_facts(factory: OptimizerFactory) -> Attributes:
    """An optimiser's name and settings, read from an instance that was tried.

    Raises:
        IgosError: if it does not work with masks.
    """
    from igos_pl.solver.optimizers import tried_optimizer

    optimizer = tried_optimizer(factory)
    settings = {key: plain(value) for key, value in optimizer.defaults.items() if value is not None}
    return {"optimizer": type(optimizer).__name__, **nested("optimizer", settings)}


def _solver(settings: Mapping[str, Any]) -> Any:
    """What makes the masks: the optimiser, or the method where there is none."""
    return settings.get("optimizer", settings.get("method"))


def _changes(settings: Mapping[str, Any], preset: str) -> list[str]:
    """The settings that differ from a preset's, as ``name=value``."""
    expected = _described(preset)
    # Only the optimiser's own settings: one with alpha has no step_size.
    keys = [key for key in expected if not key.startswith("optimizer.")]
    keys += [key for key in settings if key.startswith("optimizer.")]
    return [
        f"{key}={value:g}" if isinstance(value, int | float) else f"{key}={value}"
        for key in keys
        if (value := settings.get(key, "none")) != expected.get(key)
    ]


@cache
def _described(preset: str) -> Attributes:
    """A preset's settings as an explainer describes them."""
    settings = preset_settings(preset)
    method, optimizer = method_named(settings.pop("method")), settings.pop("optimizer", None)
    others = {key: plain(value) for key, value in settings.items()}
    return {"method": method.name, **others, **(optimizer_facts(optimizer) if optimizer else {})}


def _optimizer(class_path: str, init_args: dict[str, Any] | None = None) -> Any:
    """A factory of optimisers; names without a module are those of `igos_pl.solver.optimizers`."""
    module, _, name = class_path.rpartition(".")
    cls = getattr(importlib.import_module(module or "igos_pl.solver.optimizers"), name)
    return partial(cls, **(init_args or {}))
