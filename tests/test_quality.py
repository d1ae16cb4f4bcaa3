"""What the masks must reach on the demos, beside masks that know nothing of the network. Takes minutes."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from igos_pl.demo.run import SHAPES_INPUT, run_demo
from igos_pl.store import MaskFile

pytestmark = pytest.mark.slow


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark: a script that imports others by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("quality")


PRESETS = pytest.mark.parametrize("preset", ["draft", "fast", "igospp"])


@PRESETS
def test_photos(preset: str, quality: ModuleType, tmp_path: Path) -> None:
    network = quality.demo_network(None)
    run_demo(tmp_path, how=("--preset", preset))
    with MaskFile(tmp_path / "masks.h5") as masks:
        ours = float((masks.column("insertion") - masks.column("deletion")).mean())
        problem = quality.problem_of(network, masks)
    blob = quality.judge(network, problem, quality.gaussian_blob(problem.targets, 28))
    cells = quality.judge(network, problem, quality.random_cells(problem.targets, 28))
    assert ours > {"draft": 0.45, "fast": 0.60, "igospp": 0.45}[preset]
    assert ours > float(blob.mean()) + 0.20
    assert ours > float(cells.mean()) + 0.20


@PRESETS
def test_detections(preset: str, quality: ModuleType, tmp_path: Path) -> None:
    network = quality.demo_network("mask-rcnn")
    run_demo(tmp_path, detector=True, how=("--preset", preset))
    with MaskFile(tmp_path / "masks.h5") as masks:
        columns = {name: masks.column(name) for name in ("pointing_box", "energy_box", "box", "object")}
        ours = float((masks.column("insertion") - masks.column("deletion")).mean())
        problem = quality.problem_of(network, masks)
        sizes = dict(
            zip(masks.images["sample_id"], masks.images["width"] * masks.images["height"], strict=True)
        )
        area = np.array([sizes[name] for name in masks.column("sample_id")])
    box = columns["box"]
    share = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / area
    assert np.nanmean(columns["pointing_box"]) > 0.9
    assert np.nanmean(columns["energy_box"]) > 3 * share[columns["object"] >= 0].mean()
    filled = quality.filled_box(problem.targets, 28, SHAPES_INPUT)
    for masks_of_others in (filled, quality.random_cells(problem.targets, 28)):
        assert isinstance(masks_of_others, torch.Tensor)
        assert ours > float(quality.judge(network, problem, masks_of_others).mean()) + 0.2
