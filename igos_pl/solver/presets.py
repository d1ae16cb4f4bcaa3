"""Settings that belong together, by name: the YAML files of ``configs/presets/``."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from igos_pl.checks import check_choice

PRESETS = Path(__file__).parents[1] / "presets"


def preset_names() -> list[str]:
    """The names of all presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_file(name: str) -> Path:
    """The YAML file of a preset.

    Raises:
        IgosError: naming the presets, if it is not one of them.
    """
    check_choice("preset", name, preset_names())
    return PRESETS / f"{name}.yaml"


def preset_settings(name: str) -> dict[str, Any]:
    """A preset as arguments of the explainer's constructor.

    Raises:
        IgosError: naming the presets, if it is not one of them.
    """
    settings: dict[str, Any] = yaml.safe_load(preset_file(name).read_text(encoding="utf-8"))["model"]
    if "optimizer" in settings:
        settings["optimizer"] = _optimizer(**settings["optimizer"])
    return settings


def _optimizer(class_path: str, init_args: dict[str, Any] | None = None) -> Any:
    """A factory of optimisers; names without a module are those of `igos_pl.solver.optimizers`."""
    module, _, name = class_path.rpartition(".")
    cls = getattr(importlib.import_module(module or "igos_pl.solver.optimizers"), name)
    return partial(cls, **(init_args or {}))
