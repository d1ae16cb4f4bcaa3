"""RetinaNet, FCOS and SSD: torchvision's own detections, the rows they come from, gradients, weights."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FrozenBatchNorm2d

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.targets import Targets
from igos_pl.demo.shapes_detectors import shapes_retinanet
from igos_pl.errors import IgosError
from igos_pl.models import DenseDetector, TorchvisionDenseDetector

CLASSES = 4
NAMES = ["nothing", "disc", "ring", "star"]
KINDS = ["retinanet", "fcos", "ssd"]


class TinyPyramid(nn.Module):
    """Two smooth feature maps of strides 8 and 16."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 8, 8)
        self.second = nn.Conv2d(32, 32, 2, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.first(images).tanh()
        return OrderedDict(fine=fine, coarse=self.second(fine).tanh())


def tiny_module(kind: str, seed: int = 0) -> Any:
    """A detector with random weights that finds something everywhere."""
    sizes = {"min_size": 64, "max_size": 96}
    anchors = AnchorGenerator(((12, 20), (30, 40)), ((0.7, 1.5),) * 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "retinanet":
            module: Any = RetinaNet(TinyPyramid(), CLASSES, anchor_generator=anchors, **sizes)
        elif kind == "fcos":
            points = AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
            module = FCOS(TinyPyramid(), CLASSES, anchor_generator=points, **sizes)
        else:
            boxes = DefaultBoxGenerator([[2], [2, 3]], scales=[0.15, 0.4, 0.7], steps=[8, 16])
            backbone = TinyPyramid()
            backbone.out_channels = [32, 32]
            module = SSD(backbone, boxes, (96, 64), CLASSES)
        for name, weight in module.named_parameters():
            if weight.ndim > 1:
                fan_in = weight[0].numel()
                nn.init.normal_(
                    weight, std=(4.0 if "logits" in name or "module" in name else 1.5) / fan_in**0.5
                )
            elif name.endswith("cls_logits.bias"):
                nn.init.zeros_(weight)
    return module


def tiny_detector(kind: str, **options: Any) -> DenseDetector:
    detector = DenseDetector(tiny_module(kind), class_names=NAMES, input_size=64, **options)
    detector.freeze()
    return detector


def images_of(count: int, height: int = 64, width: int = 80) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(7))


def targets_of(prediction_rows: Tensor, labels: Tensor) -> Targets:
    count, none = len(labels), torch.full_like(labels, -1)
    boxes, scores, zeros = torch.zeros(count, 4), torch.ones(count), torch.zeros_like(labels)
    return Targets(zeros, torch.arange(count), labels, scores, boxes, prediction_rows, none, none)


@pytest.mark.parametrize("size", [(64, 80), (64, 64), (50, 120)])
@pytest.mark.parametrize("topk", [400, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_detections_are_torchvisions_own(kind: str, topk: int, size: tuple[int, int]) -> None:
    detector = tiny_detector(kind)
    detector.module.topk_candidates = topk
    images = images_of(2, *size)
    with torch.no_grad():
        expected = detector.module(list(images))
    for mine, found in zip(detector.detect(images), expected, strict=True):
        assert len(mine) >= 5
        torch.testing.assert_close(mine.boxes, found["boxes"], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(mine.scores, found["scores"], atol=1e-5, rtol=1e-5)
        assert torch.equal(mine.labels, found["labels"])
        assert mine.instance_masks is None


@pytest.mark.parametrize("size", [(64, 80), (50, 120)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_score_of_a_row_is_its_detections(kind: str, size: tuple[int, int]) -> None:
    detector = tiny_detector(kind)
    images = images_of(2, *size)
    targets = detector.propose(images, [GroundTruth()] * 2).targets
    assert len(targets) >= 6
    assert targets.image.unique().tolist() == [0, 1]
    with torch.no_grad():
        scores = detector.score(images[targets.image], targets)
    torch.testing.assert_close(scores, targets.score, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_central_difference(kind: str) -> None:
    detector = tiny_detector(kind)
    images = images_of(2)
    targets = detector.propose(images, [GroundTruth()] * 2).targets
    targets = targets.select(torch.tensor([0, len(targets) - 1]))
    detector, images = detector.double(), images.double()
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(leaf, targets).sum(), leaf)
    assert gradient.abs().amax((1, 2, 3)).gt(0).all()
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        step = 1e-6 * torch.randn(images.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            ahead, behind = (detector.score(images + sign * step, targets) for sign in (1, -1))
        slopes = (gradient * step).sum((1, 2, 3))
        torch.testing.assert_close((ahead - behind) / 2, slopes, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_one_at_a_time_equals_all_together(kind: str) -> None:
    detector, images = tiny_detector(kind), images_of(3)
    before = images.clone()
    targets = targets_of(torch.tensor([0, 70, 11]), torch.tensor([1, 2, 3]))
    together = detector.score(images, targets)
    for row in range(3):
        alone = detector.score(images[row : row + 1], targets.select(slice(row, row + 1)))
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-6, rtol=1e-5)
    assert torch.equal(images, before)


def test_centerness_that_vanishes_keeps_the_slope_finite() -> None:
    detector = tiny_detector("fcos")
    nn.init.constant_(detector.module.head.regression_head.bbox_ctrness.bias, -300.0)
    images = images_of(1).requires_grad_()
    score = detector.score(images, targets_of(torch.tensor([3]), torch.tensor([1])))
    (slope,) = torch.autograd.grad(score.sum(), images)
    assert slope.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_and_nan(kind: str) -> None:
    detector = tiny_detector(kind, score_threshold=1.0)
    assert len(detector.propose(images_of(2), [GroundTruth()] * 2).targets) == 0
    detector = tiny_detector(kind)
    nn.init.constant_(detector.module.backbone.first.weight, torch.nan)
    assert len(detector.propose(images_of(2), [GroundTruth()] * 2).targets) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_label_or_row_outside_the_head(kind: str) -> None:
    detector = tiny_detector(kind)
    with pytest.raises(IgosError, match="Label 4 is outside of the 4 classes"):
        detector.score(images_of(1), targets_of(torch.tensor([0]), torch.tensor([4])))
    with pytest.raises(IgosError, match=r"Prediction row 100000 is outside of the .* rows"):
        detector.score(images_of(1), targets_of(torch.tensor([100_000]), torch.tensor([1])))


def test_the_retinanet_of_shapes() -> None:
    """Group normalisation in the head, two anchors a place, three levels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = shapes_retinanet()
    nn.init.constant_(module.head.classification_head.cls_logits.bias, -1.0)
    detector = DenseDetector(module, input_size=192)
    detector.freeze()
    images = images_of(1, 192, 224)
    with torch.no_grad():
        expected = detector.module(list(images))[0]
    mine = detector.detect(images)[0]
    assert len(mine) == 30
    torch.testing.assert_close(mine.scores, expected["scores"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.boxes, expected["boxes"], atol=1e-3, rtol=1e-5)


def test_another_kind_of_module() -> None:
    with pytest.raises(IgosError, match="Linear must be torchvision's RetinaNet, FCOS or SSD"):
        DenseDetector(nn.Linear(2, 2))


def test_wrong_weights(tmp_path: Path) -> None:
    state = tiny_module("ssd").state_dict()
    del state["backbone.first.weight"]
    torch.save(state, tmp_path / "ssd.pth")
    with pytest.raises(IgosError, match=re.escape("1 missing (backbone.first.weight)")):
        DenseDetector(tiny_module("ssd"), weights=str(tmp_path / "ssd.pth"))
    with pytest.raises(
        IgosError, match="no detector 'maskrcnn.*' of this kind: did you mean retinanet_resnet50_fpn"
    ):
        TorchvisionDenseDetector("maskrcnn_resnet50_fpn", str(tmp_path / "ssd.pth"))


def random_state(name: str, image: Tensor) -> dict[str, Tensor]:
    """Weights that detect much, with variances so small that eps shows; frozen layers count no batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module: Any = get_model(name, weights=None, weights_backbone=None)
        state = module.state_dict()
        for key, value in state.items():
            if key.endswith("running_var") and "resnet50" in name:
                value.uniform_(0.5e-4, 1.5e-4)
                state[key.replace("running_var", "weight")].fill_(0.008)
    head = module.head.classification_head
    last = [head.cls_logits] if hasattr(head, "cls_logits") else list(head.module_list)
    last = [layer[-1] if isinstance(layer, nn.Sequential) else layer for layer in last]
    spreads: dict[Any, float] = {}
    for layer in last:
        nn.init.zeros_(layer.bias)
        layer.register_forward_hook(
            lambda layer, _, out: spreads.update({layer: max(float(out.std()), spreads.get(layer, 0))})
        )
    small(module)(list(image))
    for layer, spread in spreads.items():
        layer.weight.mul_(3 / spread)
    frozen = name in ("retinanet_resnet50_fpn", "fcos_resnet50_fpn")
    return {key: value for key, value in state.items() if not (frozen and "num_batches" in key)}


def small(module: Any) -> Any:
    """The same module for small images, in evaluation."""
    if module.transform.fixed_size is None:
        module.transform.min_size, module.transform.max_size = (128,), 192
    return module.eval()


@pytest.mark.parametrize(
    ("name", "eps"),
    [
        ("ssdlite320_mobilenet_v3_large", 1e-3),
        pytest.param("retinanet_resnet50_fpn", 0.0, marks=pytest.mark.slow),
        pytest.param("retinanet_resnet50_fpn_v2", 1e-5, marks=pytest.mark.slow),
        pytest.param("fcos_resnet50_fpn", 1e-5, marks=pytest.mark.slow),
        pytest.param("ssd300_vgg16", None, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_detections_are_those_of_torchvisions_own_builder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, eps: float | None
) -> None:
    enum = get_model_weights(name)
    image = images_of(1, 96, 128)
    state = random_state(name, image)
    torch.save(state, tmp_path / "state.pth")
    monkeypatch.setattr(enum, "get_state_dict", lambda *_, **__: dict(state))
    # The file stands for torchvision's own, whose name ends in its hash: here in nothing.
    monkeypatch.setattr(enum.COCO_V1.value, "url", "https://example.org/state-.pth")
    # In double precision, so that no rounding decides what is suppressed.
    image = image.double()
    expected = small(get_model(name, weights=enum.COCO_V1)).double()(list(image))[0]
    assert len(expected["scores"].unique()) > 3
    detector = TorchvisionDenseDetector(name, str(tmp_path / "state.pth"), input_size=320).double()
    small(detector.module)
    layers = [layer for layer in detector.modules() if isinstance(layer, FrozenBatchNorm2d)]
    assert {layer.eps for layer in layers} == ({eps} if eps is not None else set())
    found = detector.detect(image)[0]
    torch.testing.assert_close(found.boxes, expected["boxes"], atol=1e-4, rtol=1e-6)
    torch.testing.assert_close(found.scores, expected["scores"], atol=1e-5, rtol=1e-5)
    assert torch.equal(found.labels, expected["labels"])


def test_describe() -> None:
    described = tiny_detector("ssd").describe()
    assert described["name"] == "SSD"
    assert described["module.transform.fixed_size"] == "[96, 64]"
    assert described["module.nms_thresh"] == 0.45
    assert described["module.topk_candidates"] == 400
    described = tiny_detector("fcos").describe()
    assert (described["module.transform.min_size"], described["module.transform.max_size"]) == ("[64]", 96)
