"""YOLO: candidates of several classes, fixed rows, gradients, and the published file's layout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.models import YOLODetector, YOLOv3SPPDetector
from igos_pl.models.yolo import coco_names
from igos_pl.models.yolov3_spp import decode_predictions

NAMES = ["disc", "ring", "star"]
GOLDEN = Path(__file__).parents[1] / "golden"


class Rows(nn.Module):
    """Predicts the same rows for every image."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor(rows).reshape(-1, 8))

    def forward(self, images: Tensor) -> Tensor:
        rows: Tensor = self.rows
        return rows.expand(len(images), -1, -1)


class TinyYOLO(nn.Module):
    """Two smooth convolutions to three anchors on 8 x 8 pixel cells, three classes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(3, 12, 8, 8)
            self.second = nn.Conv2d(12, 3 * 85, 3, padding=1)
        nn.init.normal_(self.second.weight, std=0.4, generator=torch.Generator().manual_seed(seed))

    def forward(self, images: Tensor) -> Tensor:
        raw = self.second(self.first(images).tanh())
        return decode_predictions(raw, ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)), 8)[..., :8]


def yolo(module: nn.Module, **options: Any) -> YOLODetector:
    detector = YOLODetector(module, class_names=NAMES, input_size=64, **options)
    detector.freeze()
    return detector


def propose(detector: YOLODetector, count: int = 1, height: int = 64, width: int = 96) -> Targets:
    return detector.propose(torch.zeros(count, 3, height, width), [GroundTruth()] * count).targets


def images_of(count: int) -> Tensor:
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(7))


def test_every_class_of_a_row_is_a_candidate() -> None:
    rows = [
        [30, 20, 10, 8, 0.9, 0.8, 0.1, 0.5],  # disc 0.72, star 0.45
        [31, 20, 10, 8, 0.9, 0.7, 0.6, 0.1],  # disc is suppressed, ring 0.54 is not
        [60, 40, 10, 8, 0.5, 0.3, 0.1, 0.41],  # star 0.205
        [60, 20, 10, 8, 0.5, 0.4, 0.4, 0.39],  # 0.2 is not above the threshold
    ]
    targets = propose(yolo(Rows(rows)), 2)
    assert targets.image.tolist() == [0] * 4 + [1] * 4
    targets = targets.select(slice(4))
    assert targets.label.tolist() == [0, 1, 2, 2]
    assert targets.prediction_row.tolist() == [0, 1, 0, 2]
    torch.testing.assert_close(targets.score, torch.tensor([0.72, 0.54, 0.45, 0.205]))
    assert targets.box[0].tolist() == [25, 16, 35, 24]
    assert targets.instance_mask is None


def test_overlap_that_suppresses() -> None:
    rows = [[30, 20, 20, 20, 0.9, 0.8, 0, 0], [36, 20, 20, 20, 0.9, 0.7, 0, 0]]  # IoU 14 / 26
    assert len(propose(yolo(Rows(rows)))) == 1
    assert len(propose(yolo(Rows(rows), nms_iou=0.55))) == 2


def test_boxes_end_at_the_border_and_broken_rows_are_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    rows = [
        [2, 60, 10, 20, 0.9, 0.8, 0, 0],
        [nan, 20, 10, 8, 0.9, 0.8, 0, 0],
        [30, 20, inf, 8, 0.9, 0.8, 0, 0],
        [30, 20, 10, 8, nan, 0.8, 0, 0],
        [-40, 20, 10, 8, 0.9, 0.8, 0, 0],  # wholly outside
    ]
    targets = propose(yolo(Rows(rows)))
    assert targets.box.tolist() == [[0, 50, 7, 64]]


def test_300_detections_one_and_none() -> None:
    rows = [[4 + 3 * (i % 30), 2 + 6 * (i // 30), 2, 4, 0.9, 0.5 + i / 1000, 0, 0] for i in range(300)]
    targets = propose(yolo(Rows(rows), max_per_image=300))
    assert len(targets) == 300
    assert targets.prediction_row.tolist() == list(range(299, -1, -1))
    assert len(propose(yolo(Rows(rows[:1])))) == 1
    assert len(propose(yolo(Rows(rows), score_threshold=0.99))) == 0
    pixel = propose(yolo(Rows([[10.5, 10.5, 1, 1, 0.9, 0.8, 0, 0]])))
    assert pixel.box.tolist() == [[10, 10, 11, 11]]


def test_the_score_of_a_row_is_its_detections() -> None:
    detector, images = yolo(TinyYOLO()), images_of(2)
    before = images.clone()
    targets = detector.propose(images, [GroundTruth()] * 2).targets
    assert targets.image.unique().tolist() == [0, 1]
    scores = detector.score(images[targets.image], targets)
    torch.testing.assert_close(scores, targets.score, atol=1e-6, rtol=1e-5)
    for row in range(0, len(targets), 7):
        one = targets.select(slice(row, row + 1))
        torch.testing.assert_close(detector.score(images[one.image], one), scores[row : row + 1])
    assert torch.equal(images, before)


def test_gradient_is_the_central_difference() -> None:
    detector, images = yolo(TinyYOLO()), images_of(2)
    targets = detector.propose(images, [GroundTruth()] * 2).targets
    targets = targets.select(torch.tensor([0, len(targets) - 1]))
    detector, images = detector.double(), images.double()
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(leaf, targets).sum(), leaf)
    assert gradient.abs().amax((1, 2, 3)).gt(0).all()
    step = 1e-6 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ahead, behind = (detector.score(images + sign * step, targets) for sign in (1, -1))
    slopes = (gradient * step).sum((1, 2, 3))
    torch.testing.assert_close((ahead - behind) / 2, slopes, rtol=1e-4, atol=1e-12)


def test_label_or_row_outside_the_head() -> None:
    detector = yolo(TinyYOLO())
    targets = detector.propose(images_of(1), [GroundTruth()]).targets.select(slice(1))
    with pytest.raises(IgosError, match="Label 3 is outside of the 3 classes of TinyYOLO"):
        detector.score(images_of(1), replace(targets, label=torch.tensor([3])))
    with pytest.raises(IgosError, match="Prediction row 999 is outside of the 288 rows of TinyYOLO"):
        detector.score(images_of(1), replace(targets, prediction_row=torch.tensor([999])))


def test_wrong_modules_and_options() -> None:
    with pytest.raises(IgosError, match=r"Identity must return rows of shape \(B, R, 5 \+ classes\)"):
        yolo(nn.Identity()).detect(images_of(1))
    with pytest.raises(IgosError, match="nms_iou is 2"):
        yolo(TinyYOLO(), nms_iou=2)
    with pytest.raises(IgosError, match="input_size is 500, but must be a multiple of 32"):
        YOLOv3SPPDetector("nowhere.pt", input_size=500)


def test_coco_names() -> None:
    names = coco_names()
    assert len(names) == len(set(names)) == 80
    assert (names[0], names[11], names[79]) == ("person", "stop sign", "toothbrush")


@pytest.fixture
def instant_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the 63 million weights as the memory has them: they are overwritten."""
    monkeypatch.setattr(nn.Conv2d, "reset_parameters", lambda self: None)


@pytest.mark.usefixtures("instant_weights")
def test_the_published_files_layout(tmp_path: Path) -> None:
    """A dict of plain values, of which the entry ``model`` counts, in half precision."""
    shapes = json.loads((GOLDEN / "yolov3_spp_state_dict.json").read_text())
    state = {key: torch.zeros(shape, dtype=torch.float16) for key, shape in shapes.items()}
    for key, value in state.items():
        if key.endswith("Conv2d.bias"):
            value.copy_(torch.linspace(-1, 1, len(value)))
    content = {
        "epoch": -1,
        "best_fitness": 0.5,
        "training_results": "text",
        "optimizer": None,
        "model": state,
    }
    path = tmp_path / "yolov3-spp-ultralytics-512.pt"
    torch.save(content, path)
    detector = YOLOv3SPPDetector(str(path), input_size=64)
    detector.freeze()
    assert len(detector.weights_sha256) == 64
    targets = detector.propose(torch.rand(1, 3, 64, 64), [GroundTruth()]).targets
    assert len(targets) > 0
    assert targets.label.max() < 80
    scores = detector.score(torch.rand(1, 3, 64, 64).expand(len(targets), -1, -1, -1), targets)
    torch.testing.assert_close(scores, targets.score)
    described = detector.describe()
    assert described["name"] == "yolov3_spp"
    assert described["nms_iou"] == 0.5


@pytest.mark.usefixtures("instant_weights")
def test_wrong_weights(tmp_path: Path) -> None:
    torch.save({"model": {"module_list.0.Conv2d.weight": torch.zeros(32, 3, 3, 3)}}, tmp_path / "few.pt")
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "code.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "few.pt").read_bytes()[:1000])
    for file, message in {
        "few.pt": r"does not fit yolov3_spp: of its 444 tensors, 370 missing \(module_list.0.BatchNorm2d",
        "code.pt": "holds more than tensors and was refused",
        "cut.pt": "cannot be read as a weight file, or is cut off",
        "nowhere.pt": "No weight file at",
    }.items():
        with pytest.raises(IgosError, match=message):
            YOLOv3SPPDetector(str(tmp_path / file))
