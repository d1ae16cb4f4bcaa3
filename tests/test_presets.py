"""What a run's settings say of the preset that they come from."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from igos_pl import Explainer, ImageFolderDataModule, MaskFile
from igos_pl.solver.optimizers import NAG
from igos_pl.solver.presets import preset_difference, preset_names, preset_of


def told(preset: str = "fast", **settings: Any) -> str:
    network = tiny.tiny_classifier(input_size=224)
    return preset_of(Explainer.from_preset(network, preset, **settings).describe())


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_recognised(name: str) -> None:
    assert told(name) == name
    assert told(name, seed=5, baseline="black") == name  # which no preset sets


@pytest.mark.parametrize(
    ("preset", "settings", "expected"),
    [
        ("fast", {"l1": 5}, "fast, with l1=5"),
        ("fast", {"l1": 5, "average": False}, "fast, with average=0, l1=5"),
        ("fast", {"optimizer": partial(torch.optim.Adam, lr=0.2)}, "fast, with optimizer.lr=0.2"),
        ("igospp", {"optimizer": partial(NAG, alpha=3)}, "igospp, with optimizer.alpha=3"),
        ("published", {"method": "igos"}, "published_igos"),
        ("fast", {"mask_size": 7}, "fast"),
        ("fast", {"optimizer": partial(torch.optim.SGD, lr=0.2)}, ""),
        ("fast", {"l1": 5, "l2": 5, "noise": 1, "iterations": 3, "path_steps": 3}, ""),
    ],
)
def test_changes_are_told(preset: str, settings: dict[str, Any], expected: str) -> None:
    assert told(preset, **settings) == expected


@pytest.mark.filterwarnings("ignore")
def test_results_name_the_preset_but_are_not_identified_by_it(tmp_path: Path) -> None:
    photos = tiny.write_pictures(tmp_path / "photos", ["a.png"])
    explainer = Explainer(tiny.tiny_classifier(), mask_size=4, iterations=2)
    trainer = tiny.quiet_trainer(tmp_path / "run")
    trainer.predict(explainer, ImageFolderDataModule(str(photos), num_workers=0), return_predictions=False)
    (segment,) = (tmp_path / "run" / "segments").glob("*.h5")
    for path in (segment, tmp_path / "run" / "masks.h5"):
        with MaskFile(path) as masks:
            assert masks.attributes["preset"] == "fast, with iterations=2"
    assert "preset" not in json.loads((tmp_path / "run" / "configuration.json").read_text())


def test_two_presets_explain_what_belongs_to_them() -> None:
    there = Explainer.from_preset(tiny.tiny_classifier(), "search", seed=1).describe()
    now = Explainer.from_preset(tiny.tiny_classifier(), "draft", mask_size=5, l1=7).describe()
    told, keys = preset_difference(there, now)
    assert told == "preset: there search, now draft, with l1=7"
    differing = {key for key in {*there, *now} if there.get(key) != now.get(key)}
    assert {"method", "optimizer.step_size", "search.weight", "l1", "iterations"} <= differing & keys
    assert differing - keys == {"seed", "mask_size"}
    assert preset_difference(now, {**now, "l1": 8}) == ("", set())
    assert preset_difference({}, now) == ("", set())
