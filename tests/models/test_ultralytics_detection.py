"""Ultralytics' detectors: their own detections, fixed rows, letterboxed pictures, and what files may hold."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense_adapters import (
    PHOTOS,
    assert_scores_are_the_proposals,
    explained,
    lively,
    photo,
    seen_by,
    slopes,
    targets_of,
    ultralytics_library,
)
from PIL import Image
from torch import nn

from igos_pl.errors import IgosError
from igos_pl.models import UltralyticsDetector
from igos_pl.models.ultralytics_detection import LetterboxResize

SIDE = 160


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return ultralytics_library(tmp_path_factory.mktemp("config"))


def yolo(library: Any, config: str) -> Any:
    """A model with seeded weights whose scores differ from row to row."""
    torch.manual_seed(0)
    made = library.YOLO(config)
    head = made.model.model[-1]
    lively(made.model)
    made.model.train()
    for layer in made.model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():  # once, for the statistics of the batch norms
        made.model(torch.stack([LetterboxResize((SIDE, SIDE))(photo(name))[0] for name in PHOTOS]) / 255)
    for kind, bias in (("cv2", 0), ("cv3", -2)):
        for branch in (*getattr(head, kind), *(getattr(head, f"one2one_{kind}", None) or ())):
            branch[-1].weight.data.mul_(0.2)  # steep ones saturate, and turn rounding into pixels
            branch[-1].bias.data.fill_(bias)
    made.model.eval()
    return made


CONFIGS = {"yolov8n": True, "yolo11n": True, "yolov10n": False, "yolo26n": False}


@pytest.mark.parametrize("config", CONFIGS)
def test_detections_are_those_of_predict(library: Any, config: str) -> None:
    model = yolo(library, f"{config}.yaml")
    for nms in {True, CONFIGS[config]}:
        threshold = 0.2 if nms else 0.28  # without suppression, there are hundreds with nearly equal scores
        detector = UltralyticsDetector(model, input_size=SIDE, nms=nms, score_threshold=threshold)
        for name in PHOTOS:
            picture = photo(name)
            pixels, frame = detector.preprocessing(picture)
            with detector.frozen():
                (found,) = detector.detect(detector.normalize(pixels[None]))
            (theirs,) = model.predict(
                picture,
                imgsz=SIDE,
                rect=False,
                conf=threshold,
                iou=0.7,
                nms=None if nms else False,
                device="cpu",
                verbose=False,
            )
            assert len(found) > 5
            boxes = torch.from_numpy(frame.boxes_to_original(found.boxes.numpy()))
            ours = torch.cat((boxes, 1000 * found.scores[:, None], 1000 * found.labels[:, None]), 1)
            data = theirs.boxes.data * torch.tensor([1, 1, 1, 1, 1000, 1000])
            assert ours.shape == data.shape
            # In any order: rounding swaps detections whose scores are nearly equal.
            apart = torch.cdist(ours.double(), data.double(), compute_mode="donot_use_mm_for_euclid_dist")
            assert apart.amin(0).max() < 0.2
            assert apart.amin(1).max() < 0.2


@pytest.mark.parametrize("config", ["yolo11n", "yolo26n"])
def test_a_row_is_scored_by_itself(library: Any, config: str) -> None:
    model = yolo(library, f"{config}.yaml")
    detector = UltralyticsDetector(model, input_size=SIDE, nms=CONFIGS[config], score_threshold=0.2)
    with detector.frozen():
        images = torch.cat([seen_by(detector, name) for name in PHOTOS])
        targets = targets_of(detector, images)
        assert targets.image.unique().tolist() == [0, 1]
        assert_scores_are_the_proposals(detector, images, targets)
        few = targets.select(torch.tensor([0, len(targets) - 1]))
        by_autograd, by_difference = slopes(detector, images[few.image], few)
        torch.testing.assert_close(by_autograd, by_difference, rtol=1e-4, atol=1e-13)
    detector.float()


def test_a_run_leaves_the_model_as_it_was(library: Any) -> None:
    model = yolo(library, "yolov8n.yaml").model.train()
    head = model.model[-1]
    moved = ("stride", "anchors", "strides")  # with the weights, to another memory format
    before = {key: value for key, value in vars(head).items() if key not in moved}
    detector = UltralyticsDetector(model, input_size=SIDE, score_threshold=0.2, max_per_image=2)
    described = detector.describe()
    result = explained(detector)
    assert len(result.explanations["score"]) == 2
    after = {key: value for key, value in vars(head).items() if key not in moved}
    assert {*after} == {*before}
    assert all(after[key] is before[key] for key in before)
    assert head.shape is None
    assert model.training
    assert detector.describe() == described
    assert described["nms"] == 1
    assert described["nms_iou"] == 0.7
    assert described["max_det"] == 300
    assert described["preprocessing"] == "LetterboxResize"
    assert described["name"] == "DetectionModel"


def test_a_model_that_has_predicted(library: Any) -> None:
    """Predictions run in inference mode, whose tensors autograd cannot use."""
    model = yolo(library, "yolov8n.yaml")
    with torch.inference_mode():
        model.model(torch.zeros(1, 3, SIDE, SIDE))
    detector = UltralyticsDetector(model, input_size=SIDE, score_threshold=0.2)
    images = seen_by(detector)
    targets = targets_of(detector, images).select(slice(1))
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(leaf, targets).sum(), leaf)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(("width", "height"), [(600, 400), (300, 512), (37, 1000), (64, 64)])
@pytest.mark.parametrize("size", [(160, 160), (128, 192)])
def test_letterboxed_pictures(width: int, height: int, size: tuple[int, int]) -> None:
    """Grey on the two sides that are left over; the frame maps pixels of the input onto the original."""
    pixels, frame = LetterboxResize(size)(Image.new("RGB", (width, height), (200, 10, 60)))
    assert pixels.shape == (3, *size)
    inside = (pixels == torch.tensor([200, 10, 60])[:, None, None]).all(0)
    assert (pixels[:, ~inside] == 114).all()
    rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
    box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
    assert size in [(box[3] - box[1], size[1]), (size[0], box[2] - box[0])]
    on_original = frame.boxes_to_original(np.array([box], np.float32))
    np.testing.assert_allclose(on_original, [[0, 0, width, height]], atol=1e-3)
    np.testing.assert_allclose(frame.boxes_to_input(on_original), [box], atol=1e-3)


def test_names_and_files(library: Any, tmp_path: Path) -> None:
    model = yolo(library, "yolov8n.yaml")
    model.model.names = {label: f"thing {label}" for label in range(80)}
    path = tmp_path / "mine.pt"
    model.save(path)
    detector = UltralyticsDetector(str(path), input_size=SIDE, score_threshold=0.2)
    assert detector.class_names[3] == "thing 3"
    assert detector.name == "mine"
    assert len(detector.weights_sha256) == 64
    assert "weights" not in detector.describe()
    names = np.array(list(detector.class_names))
    given = UltralyticsDetector(model, input_size=SIDE, score_threshold=0.2, class_names=names)
    images = seen_by(given)
    # The package saves in half precision.
    torch.testing.assert_close(
        detector.half().float().detect(images)[0].scores[:5],
        given.half().float().detect(images)[0].scores[:5],
        atol=1e-3,
        rtol=0,
    )


class Harmful:
    def __reduce__(self) -> Any:
        return (print, ("code of the file has run",))


def test_files_that_are_refused(
    library: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"model": Harmful()}, tmp_path / "harmful.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK")
    for file, message in {
        "harmful.pt": "cannot be read as a file of ultralytics, or holds code",
        "cut.pt": "cannot be read as a file of ultralytics",
        "nowhere.pt": "No weight file at",
    }.items():
        with pytest.raises(IgosError, match=message):
            UltralyticsDetector(str(tmp_path / file))
    monkeypatch.setattr(library.nn.tasks._SafeLoad, "SUPPORTED", False)
    with pytest.raises(IgosError, match="needs torch 2.6 and ultralytics 8.4.190 or newer"):
        UltralyticsDetector(str(tmp_path / "harmful.pt"))
    assert "has run" not in capsys.readouterr().out


def test_wrong_models_and_options(library: Any) -> None:
    model = library.YOLO("yolov8n.yaml")
    for options, message in (
        ({"nms": False}, "no end-to-end head"),
        ({"nms_iou": 2}, "nms_iou is 2"),
        ({"input_size": 100}, "must be a multiple of 32"),
        ({"categories": ["dog"]}, "no such class"),
    ):
        with pytest.raises(IgosError, match=message):
            UltralyticsDetector(model, **{"input_size": SIDE, **options})
    with pytest.raises(IgosError, match="but is a SegmentationModel with the head Segment"):
        UltralyticsDetector(library.YOLO("yolov8n-seg.yaml"))
    with pytest.raises(IgosError, match="but is a Linear"):
        UltralyticsDetector(nn.Linear(2, 2))
    fused = library.YOLO("yolov10n.yaml").model.eval().fuse(verbose=False)
    with pytest.raises(IgosError, match="no end-to-end head"):
        UltralyticsDetector(fused, nms=False)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(IgosError, match=r"pip install 'igos_pl\[ultralytics\]'"):
        UltralyticsDetector("yolov8n.pt")
