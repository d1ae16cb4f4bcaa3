"""Every shipped configuration is a test case: it is parsed, and run on generated data with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image

from igos_pl.cli.main import main
from igos_pl.demo.shapes import write_shapes_dataset
from igos_pl.models.yolov3_spp import YOLOv3SPP
from igos_pl.store import MaskFile

CONFIGS = Path(__file__).parents[1] / "configs"
NETWORKS = ("imagenet_vgg19", "imagenet_resnet50")
PUBLISHED = ("published", "published_nag", "published_igos", "published_igos_nag")
DETECTORS = ("coco_maskrcnn", "coco_fasterrcnn", "coco_yolov3spp", "coco_maskrcnn_diverse")


def test_all_configurations_are_known_here() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*NETWORKS, *DETECTORS}
    presets = {"draft", "fast", "igospp", "published_coco", "search", *PUBLISHED}
    assert {path.stem for path in CONFIGS.glob("presets/*.yaml")} == presets


def settings(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    """What the command line makes of some words."""
    with pytest.raises(SystemExit) as done:
        main(["predict", *words, "--print_config"])
    assert done.value.code in (0, None)
    loaded: dict[str, dict[str, object]] = yaml.safe_load(capsys.readouterr().out)
    return loaded


def configuration(name: str) -> list[str]:
    return ["-c", str(CONFIGS / f"{name}.yaml")]


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_settings(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = settings([*configuration("imagenet_vgg19"), "--preset", preset], capsys)["model"]
    found = {key: model[key] for key in ("mask_size", "iterations", "path_steps", "l1", "l2", "noise")}
    assert found == {
        "mask_size": 224, "iterations": 20, "path_steps": 20, "l1": 10, "l2": 20, "noise": 0.2,
    }  # fmt: skip
    assert (model["path"], model["average"]) == ("scaled", False)
    assert model["method"] == ("igos" if "igos" in preset else "igos++")
    optimizer = model["optimizer"]
    assert isinstance(optimizer, dict)
    assert optimizer["class_path"].endswith("NAG" if preset.endswith("nag") else "LineSearch")
    assert optimizer["init_args"]["alpha"] == 1000


@pytest.mark.parametrize("preset", ["draft", "igospp", "published_coco", *PUBLISHED])
def test_presets_leave_no_setting_of_fast(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    """But for the mask size: what a preset does not name would be the default, which is fast."""
    stated = {path.stem: yaml.safe_load(path.read_text())["model"] for path in CONFIGS.glob("presets/*.yaml")}
    assert stated["fast"].keys() <= stated[preset].keys()
    model = settings(["--preset", preset], capsys)["model"]
    assert isinstance(model["optimizer"], dict)
    assert model["optimizer"]["class_path"].startswith("igos_pl.")


def test_fast_settings(capsys: pytest.CaptureFixture[str]) -> None:
    model = settings(["--preset=fast"], capsys)["model"]
    assert (model["method"], model["path"], model["average"]) == ("igos+", "threshold", True)
    # Two terms: what docs/performance.md and the README call 80 evaluations.
    assert 2 * model["iterations"] * model["path_steps"] == 80  # type: ignore[operator]
    assert isinstance(model["optimizer"], dict)
    assert model["optimizer"]["class_path"] == "torch.optim.Adam"


def test_draft_is_fast_with_an_eighth_of_the_passes(capsys: pytest.CaptureFixture[str]) -> None:
    fast, draft = (settings([f"--preset={name}"], capsys)["model"] for name in ("fast", "draft"))
    differing = {key for key in fast if fast[key] != draft[key]}
    assert differing == {"optimizer", "iterations", "path_steps"}
    assert 2 * draft["iterations"] * draft["path_steps"] == 10  # type: ignore[operator]


def test_presets_win_over_files_and_options_over_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: {iterations: 7, path_steps: 7, mask_size: 9}")
    words = ["--model.path_steps=9", "--model.optimizer=NAG", "--preset", "fast", "-c", str(mine)]
    model = settings(words, capsys)["model"]
    assert (model["iterations"], model["path_steps"], model["path"]) == (20, 9, "threshold")
    assert model["mask_size"] == 9  # which the preset leaves alone
    assert isinstance(model["optimizer"], dict)
    assert model["optimizer"]["class_path"].endswith("NAG")
    assert "lr" not in model["optimizer"]["init_args"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--preset", "quick"], "preset is 'quick', but must be one of: draft, fast, igospp, published,"),
        (
            ["--data.root", "x", "--preset=fast", "--model.optimizer.step_size", "0.1"],
            "torch.optim.Adam has no setting 'step_size'",
        ),
        (["--preset"], "expected one argument; presets are draft, fast, igospp, published"),
        (["--preset=fast", "--preset=published"], "Give --preset once, not: fast, published"),
    ],
)
def test_wrong_presets_are_refused(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *words]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("detector", DETECTORS)
def test_published_detector_settings(detector: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = settings([*configuration(detector), "--preset=published_coco"], capsys)["model"]
    names = ("method", "mask_size", "iterations", "path_steps", "path", "average", "l1", "l2", "noise")
    assert {key: model[key] for key in names} == {
        "method": "igos++", "mask_size": 100, "iterations": 5, "path_steps": 5, "path": "scaled",
        "average": False, "l1": 0.1, "l2": 20, "noise": 0.2,
    }  # fmt: skip
    network, optimizer, start = model["network"], model["optimizer"], model["start"]
    assert isinstance(network, dict)
    assert isinstance(optimizer, dict)
    assert network["init_args"]["input_size"] == (512 if "yolo" in detector else 800)
    assert optimizer["init_args"]["alpha"] == 10
    diverse = {"k": 2, "cells": [2], "init_val": 0.2}
    assert start == (diverse if "diverse" in detector else {"k": 1, "cells": None, "init_val": 0.0})
    alone = settings(configuration(detector), capsys)["model"]
    assert (alone["method"], alone["path"], alone["mask_size"]) == ("igos+", "threshold", 100)


def random_classifier(name: str, folder: Path) -> Path:
    path = folder / "random.pth"
    torch.save(torchvision.models.get_model(name, weights=None).state_dict(), path)
    return path


def random_detector(name: str, folder: Path) -> Path:
    """Weights that find a thing everywhere: the biases of the first class are high."""
    path = folder / "random.pt"
    if "yolo" in name:
        state = YOLOv3SPP().state_dict()
        for value in state.values():
            if value.shape == (255,):
                value.reshape(3, 85)[:, 4:6] = 5
        torch.save({"model": state, "epoch": -1, "optimizer": None}, path)
        return path
    kind = "fasterrcnn" if "faster" in name else "maskrcnn"
    builder = f"{kind}_resnet50_fpn"
    module = torchvision.models.get_model(builder, weights=None, weights_backbone=None)
    with torch.no_grad():
        module.roi_heads.box_predictor.cls_score.bias[1] = 10
    torch.save(module.state_dict(), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("preset", ["published_igos", "published_nag"])
def test_classifiers_run(network: str, preset: str, tmp_path: Path) -> None:
    folder = tmp_path / "val" / "n01440764"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "ILSVRC2012_val_00000001.JPEG")
    words = [*configuration(network), "--preset", preset]
    words += ["--data.root", str(tmp_path / "val"), "--output", str(tmp_path / "run")]
    words += ["--model.network.weights", str(random_classifier(network.split("_")[1], tmp_path))]
    short = ["--model.iterations", "1", "--model.path_steps", "1", "--model.metrics", "false"]
    assert main(["predict", *words, *short]) == 0
    with MaskFile(tmp_path / "run" / "masks.h5") as masks:
        assert len(masks) == 1
        assert masks[0].mask.shape == (224, 224)
        assert masks.images["ground_truth"].tolist() == [0]
        assert masks.attributes["optimizer.alpha"] == 1000


@pytest.mark.slow
@pytest.mark.parametrize("detector", DETECTORS)
def test_detectors_run(detector: str, tmp_path: Path) -> None:
    annotations = write_shapes_dataset(tmp_path / "data", images=1, seed=5)
    words = [*configuration(detector), "--preset", "published_coco"]
    words += ["--data.root", str(annotations.parent / "images")]
    words += ["--data.annotations", str(annotations), "--output", str(tmp_path / "run")]
    words += ["--model.network.weights", str(random_detector(detector, tmp_path))]
    short = ["--model.iterations", "1", "--model.path_steps", "1", "--model.metrics", "false"]
    assert main(["predict", *words, *short, "--model.network.max_per_image", "2"]) == 0
    with MaskFile(tmp_path / "run" / "masks.h5") as masks:
        assert len(masks) == 2
        assert masks[0].mask.shape == (100, 100)
        assert masks.column("start_cell").tolist() == ([2, 2] if "diverse" in detector else [-1, -1])
        width, height = masks.images["width"][0], masks.images["height"][0]
        assert (masks.column("box") <= [width, height, width, height]).all()
        assert set(masks.column("label_name")) == {"person"}


def test_each_optimizer_has_its_own_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shapes_dataset(tmp_path, images=1, seed=5)
    words = ["predict", "--data.root", str(tmp_path / "images"), "--overlays.count", "0"]
    words += ["--model.network", "Classifier", "--model.network.module", "tiny.TinyNet"]
    words += ["--model.network.input_size", "24", "--model.mask_size", "4", "--model.iterations", "1"]
    for optimizer, step in (("NAG", 0.2), ("LineSearch", 1.0)):
        output = tmp_path / optimizer
        assert main([*words, "--model.optimizer", optimizer, "--output", str(output)]) == 0
        with MaskFile(output) as masks:
            assert masks.attributes["optimizer"] == optimizer
            assert masks.attributes["optimizer.step_size"] == step
