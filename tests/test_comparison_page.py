"""Every block of docs/comparison.md runs as it stands there, and the numbers of the page are true."""

from __future__ import annotations

import re
from functools import partial, partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import adapters
import numpy as np
import pages
import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.resnet import BasicBlock, ResNet

import igos_pl
from igos_pl import MaskFile
from igos_pl.demo.run import CHECKPOINTS, SHAPES_INPUT
from igos_pl.demo.shapes import draw_shapes
from igos_pl.demo.shapes_detectors import shapes_mask_rcnn
from igos_pl.models.weights import load_weights

captum_attr = pytest.importorskip("captum.attr")
grad_cam = pytest.importorskip("pytorch_grad_cam")

PAGE = "docs/comparison.md"
LIBRARIES = ("igos_pl", "captum", "pytorch_grad_cam")
TEXT = (pages.ROOT / PAGE).read_text("utf-8")
TASKS = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
BLOCKS = {
    (task, library): block
    for task, section in zip(TASKS, re.split(r"^## .*$", TEXT, flags=re.MULTILINE)[1:], strict=True)
    for library, block in zip(LIBRARIES, pages.blocks_of(section), strict=True)
}
SIZE = 64
QUICK: dict[str, Any] = {"iterations": 1, "mask_size": 6}

each_library = pytest.mark.parametrize("library", LIBRARIES)
pytestmark = pytest.mark.filterwarnings("ignore")  # of the other libraries


def small_resnet() -> ResNet:
    """Torchvision's ResNet with one block in each layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5).eval()


def normalized(number: int) -> Tensor:
    return (tiny.pictures(number, SIZE).float() / 255 - 0.5) / 0.25


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own in which the methods take few steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("explain", "Explainer", "ExplainCallback"):
        monkeypatch.setattr(igos_pl, name, partial(getattr(igos_pl, name), **QUICK), raising=False)
    attribute = partialmethod(captum_attr.IntegratedGradients.attribute, n_steps=3)
    quick = type("IntegratedGradients", (captum_attr.IntegratedGradients,), {"attribute": attribute})
    monkeypatch.setattr(captum_attr, "IntegratedGradients", quick)
    tiny.make_trainers_quick(monkeypatch)
    return tmp_path


def run(task: str, library: str, **names: Any) -> dict[str, Any]:
    """Run a block, and return its variables."""
    variables: dict[str, Any] = names
    exec(BLOCKS[task, library], variables)
    return variables


def assert_maps(heat: Any, *shape: int) -> None:
    """Finite maps, not constant."""
    maps = np.stack([np.asarray(torch.as_tensor(one).detach()) for one in heat])
    assert maps.shape == shape
    assert np.isfinite(maps).all()
    assert (np.ptp(maps, axis=(1, 2)) > 0).all()


def test_the_table_has_the_lines_of_the_blocks() -> None:
    rows = re.findall(r"^\| \[(.*?)\]\(#.*\) \| (\d+) \| (\d+) \| (\d+) \|$", TEXT, re.MULTILINE)
    assert [row[0] for row in rows] == TASKS
    assert len(TASKS) == 6
    for task, *numbers in rows:
        for library, number in zip(LIBRARIES, numbers, strict=True):
            lines = [line for line in BLOCKS[task, library].splitlines() if line.strip()]
            lines = [line for line in lines if not line.lstrip().startswith("#")]
            assert len(lines) == int(number), (task, library)
            assert max(map(len, lines)) <= 100, (task, library)
            imported = {other for other in LIBRARIES if f"from {other}" in BLOCKS[task, library]}
            assert imported == {library}


@each_library
def test_one_tensor(library: str) -> None:
    variables = run("One tensor", library, network=small_resnet(), images=normalized(2))
    assert_maps(variables["heat"], 2, SIZE, SIZE)


@each_library
def test_a_dataloader(library: str, workplace: Path) -> None:
    loader = DataLoader(TensorDataset(normalized(3), torch.arange(3)), 2)
    given = {"network": small_resnet(), "loader": loader, "mean": [0.5] * 3, "std": [0.25] * 3}
    run("A DataLoader", library, **given)
    if library == "igos_pl":
        with MaskFile("runs/igos/masks.h5") as masks:
            assert sorted(row.sample_id for row in masks) == ["0", "1", "2"]
            assert_maps([row.saliency_on_original() for row in masks], 3, SIZE, SIZE)
    else:
        files = sorted(workplace.glob("*-*.*"))
        read = torch.load if library == "captum" else np.load
        assert_maps([one for file in files for one in read(file)], 3, SIZE, SIZE)


@each_library
def test_a_timm_model(library: str, workplace: Path) -> None:
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model("test_resnet", pretrained=False)
    timm.models.save_for_hf(module, workplace / "my_resnet", safe_serialization=True)
    picture = tiny.real_photos()["square"]
    picture.save("cup.jpg")
    side = module.pretrained_cfg["input_size"][-1]
    heat = run("A timm model", library)["heat"]
    assert_maps(heat, 1, *(picture.size[::-1] if library == "igos_pl" else (side, side)))


@each_library
def test_a_hugging_face_model(library: str, workplace: Path) -> None:
    adapters.vit_folder(workplace / "my_vit", 112)
    picture = tiny.real_photos()["square"]
    picture.save("cup.jpg")
    heat = run("A Hugging Face model", library)["heat"]
    assert_maps(heat, 1, *(picture.size[::-1] if library == "igos_pl" else (112, 112)))


@each_library
def test_a_detector(library: str) -> None:
    detector = shapes_mask_rcnn()
    load_weights(detector, CHECKPOINTS / "shapes_maskrcnn.pth", "Mask R-CNN")
    detector.roi_heads.score_thresh = 0.5
    detector.eval()
    # Torchvision's ResNets have their last convolutions here.
    detector.backbone.body = SimpleNamespace(layer4=detector.backbone.stages)
    drawn = draw_shapes(1, 0)[0].resize((SHAPES_INPUT, SHAPES_INPUT))
    picture = torch.from_numpy(np.array(drawn)).permute(2, 0, 1) / 255
    count = len(detector([picture])[0]["labels"])
    assert count > 1
    heat = run("A detector", library, detector=detector, picture=picture)["heat"]
    assert_maps(heat, count, SHAPES_INPUT, SHAPES_INPUT)


@each_library
def test_a_training_callback(library: str, workplace: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loader = DataLoader(TensorDataset(normalized(8), torch.arange(8) % 5), 8)
    module = tiny.Learner(small_resnet().train())
    run("A training callback", library, module=module, train_loader=loader, val_loader=loader)
    assert all(part.training for part in module.modules())
    (events,) = workplace.rglob("events.out.tfevents.*")
    board = EventAccumulator(str(events))
    board.Reload()
    group = "explanations" if library == "igos_pl" else "maps"
    assert sorted(board.Tags()["images"]) == [f"{group}/{number}" for number in range(8)]


class Counted(nn.Module):
    """Counts the images of its forward and of its backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        self.forwards = self.backwards = 0

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        logits: Tensor = self.head(self.layer4(images))
        if logits.requires_grad:
            logits.register_hook(self.count)
        return logits

    def count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


@each_library
def test_the_passes_of_an_image(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # with the libraries' own defaults
    network = Counted().eval()
    run("One tensor", library, network=network, images=normalized(1))
    rows = re.findall(r"^\| (\w\S+), .* \| (\d+) \| (\d+) \| .* s \|$", TEXT, re.MULTILINE)
    assert [row[0] for row in rows] == ["igos_pl", "Captum", "pytorch-grad-cam"]
    _, backwards, forwards = rows[LIBRARIES.index(library)]
    found = network.forwards - network.backwards
    assert network.backwards == int(backwards)
    if library == "igos_pl":  # its curves take more passes the more they bend; these hardly do
        assert 1 + 12 <= found <= int(forwards)
    else:
        assert found == int(forwards)
