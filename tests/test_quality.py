"""What the masks must reach on the demos, beside masks that know nothing of the network. Takes minutes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from igos_pl.demo.run import CHECKPOINTS, SHAPES_INPUT, SHAPES_THRESHOLD, run_demo
from igos_pl.models import RCNN, EfficientNetLite0
from igos_pl.models.shapes_detectors import CATEGORIES, shapes_mask_rcnn
from igos_pl.store import MaskFile

pytestmark = pytest.mark.slow


def benchmark() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "quality.py"
    spec = importlib.util.spec_from_file_location("quality", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SETTINGS = pytest.mark.parametrize("how", [(), ("--preset", "fast")])


@SETTINGS
def test_photos(how: tuple[str, ...], tmp_path: Path) -> None:
    quality, network = benchmark(), EfficientNetLite0()
    run_demo(tmp_path, how=how)
    with MaskFile(tmp_path / "masks.h5") as masks:
        ours = float((masks.column("insertion") - masks.column("deletion")).mean())
        problem = quality.problem_of(network, masks)
    blob = quality.judge(network, problem, quality.gaussian_blob(problem.targets, 28))
    cells = quality.judge(network, problem, quality.random_cells(problem.targets, 28))
    assert ours > (0.60 if how else 0.45)
    assert ours > float(blob.mean()) + 0.20
    assert ours > float(cells.mean()) + 0.20


@SETTINGS
def test_detections(how: tuple[str, ...], tmp_path: Path) -> None:
    quality = benchmark()
    network = RCNN(
        shapes_mask_rcnn(),
        str(CHECKPOINTS / "shapes_maskrcnn.pth"),
        list(CATEGORIES),
        input_size=SHAPES_INPUT,
        score_threshold=SHAPES_THRESHOLD,
    )
    run_demo(tmp_path, detector=True, how=how)
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
