"""The documentation's code runs as it stands there."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pages
import pytest
import tiny
import torch

import igos_pl
from igos_pl import MaskFile
from igos_pl.demo.run import CHECKPOINTS, SHAPES_INPUT
from igos_pl.demo.shapes import draw_shapes
from igos_pl.demo.shapes_detectors import CATEGORIES, shapes_mask_rcnn
from igos_pl.models.weights import load_weights


@pytest.mark.filterwarnings("ignore:.*detections left out")
def test_explain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("quantus")
    monkeypatch.chdir(tmp_path)
    tiny.write_pictures(tmp_path, ["cat.jpg", "dog.jpg"])
    quick = {"iterations": 1, "mask_size": 6}
    for name in ("explain", "explain_func", "MaskAttribution"):
        monkeypatch.setattr(igos_pl, name, partial(getattr(igos_pl, name), **quick), raising=False)
    detector = shapes_mask_rcnn()
    load_weights(detector, CHECKPOINTS / "shapes_maskrcnn.pth", "Mask R-CNN")
    picture = draw_shapes(1, 0)[0].resize((SHAPES_INPUT, SHAPES_INPUT))
    names: dict[str, Any] = {
        "network": tiny.TinyNet(classes=2).eval(),
        "images": torch.rand(2, 3, 24, 24),
        "images01": torch.rand(2, 3, 24, 24),
        "detector": detector,
        "picture": torch.from_numpy(tiny.np.array(picture)).permute(2, 0, 1),
        "names": list(CATEGORIES),
        "x": torch.rand(2, 3, 24, 24).numpy(),
        "y": tiny.np.array([0, 1]),
    }
    for block in pages.blocks("docs/explain.md"):
        exec(block, names)
    assert names["heat"].shape == (24, 24)
    assert len(names["result"]) == 2
    assert names["attributions"].shape == (2, 3, 24, 24)
    assert len(names["scores"]) == 2
    with MaskFile("explanations.h5") as file:
        assert len(file) == 2


@pytest.mark.filterwarnings("ignore:.*regions lie outside")
def test_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setattr(
        igos_pl, "explain", partial(igos_pl.explain, iterations=1, mask_size=8), raising=False
    )
    names: dict[str, Any] = {
        "network": tiny.TinyNet(classes=2).eval(),
        "images": torch.rand(2, 3, 24, 24),
        "labels": torch.arange(24).reshape(1, 24).expand(24, 24) // 6,
    }
    for block in pages.blocks("docs/regions.md"):
        exec(block, names)
    assert sorted(names["result"][0].region_saliency()) == [0, 1, 2, 3]
