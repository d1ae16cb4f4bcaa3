"""Faster and Mask R-CNN: golden scores, torchvision's own detections, gradients and wrong weights."""

from __future__ import annotations

import hashlib
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection, get_model, get_model_weights
from torchvision.ops import FrozenBatchNorm2d

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.targets import Targets
from igos_pl.demo.shapes import draw_shapes
from igos_pl.demo.shapes_detectors import CATEGORIES, shapes_faster_rcnn, shapes_mask_rcnn
from igos_pl.errors import IgosError
from igos_pl.models import RCNNDetector, TorchvisionRCNNDetector
from igos_pl.models.rcnn import fixed_proposal_scores
from igos_pl.models.torchvision_detection import prepare_images

ROOT = Path(__file__).parents[1]
CHECKPOINTS = {
    "maskrcnn": ROOT.parent / "igos_pl" / "demo" / "checkpoints" / "shapes_maskrcnn.pth",
    "fasterrcnn": ROOT / "checkpoints" / "shapes_fasterrcnn.pth",
}


class Remembering(nn.Module):
    """A backbone that computes the features of the first image once and gives them to all."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        assert torch.equal(images, images[:1].expand_as(images))
        features = self.backbone(images[:1])
        return {name: value.expand(len(images), -1, -1, -1) for name, value in features.items()}


def golden_weight(random: np.random.RandomState, key: str, value: Tensor) -> Tensor:
    shape = tuple(value.shape)
    if key.endswith("num_batches_tracked"):
        return torch.zeros_like(value)
    if key.endswith("running_var"):
        drawn = 0.5 + random.rand(*shape)
    elif key.endswith("running_mean") or key.endswith("bias"):
        drawn = 0.1 * random.randn(*shape)
    elif ".bn" in key or "downsample.1" in key:
        drawn = 0.45 + 0.15 * random.rand(*shape)
    elif key.endswith("cls_score.weight"):
        drawn = 0.08 * random.randn(*shape)
    else:
        drawn = random.randn(*shape) * np.sqrt(2 / prod(shape[1:]))
    return torch.from_numpy(np.asarray(drawn)).float()


@torch.no_grad()
def test_golden_scores() -> None:
    with np.load(ROOT / "golden" / "fasterrcnn.npz") as golden:
        arrays = dict(golden)
    model = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    random = np.random.RandomState(int(arrays["weights_seed"]))
    model.load_state_dict({k: golden_weight(random, k, v) for k, v in model.state_dict().items()})
    seed = torch.from_numpy(arrays["image_seed_25x25"])
    image = nn.functional.interpolate(seed, (800, 800), mode="bilinear", align_corners=True)
    boxes, labels = torch.from_numpy(arrays["boxes_xyxy"]), torch.from_numpy(arrays["labels"])
    model.backbone = Remembering(model.backbone)
    scores = fixed_proposal_scores(model, image.expand(len(boxes), -1, -1, -1), boxes, labels)
    torch.testing.assert_close(scores.double(), torch.from_numpy(arrays["scores"]), atol=1e-5, rtol=1e-4)


def shapes_images(count: int, height: int = 192, width: int = 224) -> Tensor:
    """Generated pictures ``(count, 3, height, width)`` uint8."""
    pictures = [draw_shapes(5, index, min_objects=3)[0].resize((width, height)) for index in range(count)]
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])


def trained(kind: str, **options: Any) -> RCNNDetector:
    module = shapes_mask_rcnn() if kind == "maskrcnn" else shapes_faster_rcnn()
    detector = RCNNDetector(
        module, weights=str(CHECKPOINTS[kind]), class_names=list(CATEGORIES), input_size=224, **options
    )
    detector.freeze()
    return detector


@pytest.fixture(scope="module")
def masks() -> RCNNDetector:
    return trained("maskrcnn")


def targets_of(boxes: Tensor, labels: Tensor) -> Targets:
    count, none, zeros = len(labels), torch.full_like(labels, -1), torch.zeros_like(labels)
    return Targets(zeros, torch.arange(count), labels, torch.ones(count), boxes, none, none, none)


@pytest.mark.parametrize("size", [(192, 224), (160, 120), (100, 333)])
def test_input_is_prepared_as_by_torchvision(masks: RCNNDetector, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size)
    prepared, inner = prepare_images(masks.module.transform, images)
    expected, _ = masks.module.transform(list(images))
    assert [inner] * 2 == expected.image_sizes
    torch.testing.assert_close(prepared, expected.tensors, atol=1e-6, rtol=0)


def test_proposals_are_the_networks_own_detections(masks: RCNNDetector) -> None:
    images = masks.normalize(shapes_images(2))
    before = images.clone()
    proposals = masks.propose(images, [GroundTruth()] * 2)
    targets = proposals.targets
    assert len(targets) >= 4
    with torch.no_grad():
        together = masks.module(list(images))
    for index, found in enumerate(together):
        mine = targets.select(targets.image == index)
        count = int((found["scores"] >= 0.2).sum())
        assert len(mine) == count
        torch.testing.assert_close(mine.box, found["boxes"][:count], atol=1e-3, rtol=1e-5)
        torch.testing.assert_close(mine.score, found["scores"][:count], atol=1e-5, rtol=1e-5)
        assert mine.label.tolist() == found["labels"][:count].tolist()
        assert mine.instance_mask is not None
        assert (mine.instance_mask != (found["masks"][:count, 0] > 0.5)).float().mean() < 1e-4
        assert mine.instance_mask.flatten(1).any(1).all()
    assert torch.equal(images, before)
    assert not masks.module.training


@pytest.mark.parametrize("size", [(192, 224), (150, 100)])
def test_score_is_the_softmax_at_the_networks_own_proposals(
    masks: RCNNDetector, size: tuple[int, int]
) -> None:
    """The class head of an unmodified pass, proposal by proposal; the second size is resized inside."""
    image = masks.normalize(shapes_images(1, *size))
    seen: dict[str, Any] = {}
    heads = masks.module.roi_heads
    hooks = [
        heads.box_roi_pool.register_forward_pre_hook(lambda _, args: seen.update(proposals=args[1][0])),
        heads.box_predictor.register_forward_hook(lambda _, __, out: seen.update(logits=out[0])),
    ]
    with torch.no_grad():
        masks.module(list(image))
    for hook in hooks:
        hook.remove()
    _, inner = prepare_images(masks.module.transform, image)
    scale = torch.tensor([size[1] / inner[1], size[0] / inner[0]]).repeat(2)
    boxes, expected = seen["proposals"][:8] * scale, seen["logits"][:8].softmax(1)
    for label in (0, 2):
        targets = targets_of(boxes, torch.full((8,), label))
        with torch.no_grad():
            scores = masks.score(image.expand(8, -1, -1, -1), targets)
        torch.testing.assert_close(scores, expected[:, label], atol=2e-5, rtol=1e-4)


def test_annotated_shapes_are_found_by_their_names(masks: RCNNDetector) -> None:
    images = masks.normalize(shapes_images(2))
    detected = masks.propose(images, [GroundTruth()] * 2).targets
    truth = []
    for index in range(2):
        mine = detected.select(detected.image == index)
        names = [masks.label_name(label) for label in mine.label.tolist()]
        truth.append(GroundTruth(boxes=mine.box.flip(0).numpy() + 1, names=names[::-1], ids=range(len(mine))))
    annotated = trained("maskrcnn", targets="ground_truth").propose(images, truth)
    assert list(annotated.notes) == ["", ""]
    assert torch.equal(annotated.targets.box, detected.box)
    assert torch.equal(annotated.targets.label, detected.label)


def test_masks_and_proposals_take_no_part_in_the_score() -> None:
    detector = trained("maskrcnn")
    detector.module.rpn = detector.module.roi_heads.mask_head = None
    boxes = torch.tensor([[20.0, 30, 120, 90]])
    scores = detector.score(torch.rand(1, 3, 192, 224), targets_of(boxes, torch.tensor([1])))
    assert 0 <= float(scores) <= 1


def test_gradient_is_the_central_difference() -> None:
    detector = trained("fasterrcnn").double()
    generator = torch.Generator().manual_seed(0)
    image = detector.normalize(shapes_images(1, 96, 128)).double()
    targets = targets_of(torch.tensor([[10.0, 20, 90, 80]]), torch.tensor([2]))
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(leaf, targets).sum(), leaf)
    # Dense random directions cross the kinks of some of the many ReLUs, whatever the step.
    noise = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    half = gradient * (noise > 0) / gradient.norm()
    for direction, tolerance in ((gradient / gradient.norm(), 1e-6), (half, 1e-6), (noise, 2e-3)):
        step = 1e-7 * direction
        with torch.no_grad():
            ahead, behind = (detector.score(image + sign * step, targets) for sign in (1, -1))
        assert float(ahead - behind) / 2 == pytest.approx(float((gradient * step).sum()), rel=tolerance)


def test_one_at_a_time_equals_all_together(masks: RCNNDetector) -> None:
    images = masks.normalize(shapes_images(3))
    boxes = torch.tensor([[10.0, 20, 90, 80], [3, 3, 4, 4], [0, 0, 224, 192]])  # the second is one pixel
    targets = targets_of(boxes, torch.tensor([1, 2, 0]))

    def run(rows: slice) -> tuple[Tensor, Tensor]:
        leaf = images[rows].clone().requires_grad_()
        score = masks.score(leaf, targets.select(rows))
        return score.detach(), torch.autograd.grad(score.sum(), leaf)[0]

    scores, slopes = run(slice(0, 3))
    for row in range(3):
        alone, slope = run(slice(row, row + 1))
        torch.testing.assert_close(alone, scores[row : row + 1], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(slope, slopes[row : row + 1], atol=1e-6, rtol=1e-3)
        assert slope.isfinite().all()


def test_no_rows_at_all(masks: RCNNDetector) -> None:
    empty = targets_of(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert masks.score(torch.zeros(0, 3, 192, 224), empty).shape == (0,)


def test_300_detections_and_none() -> None:
    detector = trained("maskrcnn", score_threshold=0.0, max_per_image=300)
    heads = detector.module.roi_heads
    heads.score_thresh, heads.nms_thresh, heads.detections_per_img = 0.0, 1.0, 300
    images = detector.normalize(shapes_images(1))
    targets = detector.propose(images, [GroundTruth()]).targets
    assert len(targets) == 300
    assert targets.instance_mask is not None
    assert targets.instance_mask.shape == (300, 192, 224)
    detector.score_threshold = 1.0
    targets = detector.propose(images, [GroundTruth()]).targets
    assert len(targets) == 0
    assert targets.instance_mask is not None
    assert targets.instance_mask.shape == (0, 192, 224)


def test_a_network_of_nans_detects_nothing() -> None:
    detector = trained("maskrcnn", score_threshold=0.0)
    detector.module.backbone.fpn.layer_blocks[0][0].weight.fill_(torch.nan)
    detector.module.backbone.fpn.layer_blocks[1][0].weight.fill_(torch.nan)
    detector.module.backbone.fpn.layer_blocks[2][0].weight.fill_(torch.nan)
    images = torch.rand(1, 3, 192, 224)
    assert len(detector.propose(images, [GroundTruth()]).targets) == 0


def test_label_outside_the_head(masks: RCNNDetector) -> None:
    targets = targets_of(torch.tensor([[10.0, 20, 90, 80]]), torch.tensor([17]))
    with pytest.raises(IgosError, match="Label 17 is outside of the 6 classes"):
        masks.score(torch.rand(1, 3, 192, 224), targets)


def test_another_kind_of_module() -> None:
    with pytest.raises(IgosError, match="Linear has no transform and no backbone and no roi_heads"):
        RCNNDetector(nn.Linear(2, 2))


@pytest.mark.parametrize("saved", ["frozen", "trainable"])
@pytest.mark.parametrize("built", [FrozenBatchNorm2d, nn.BatchNorm2d])
def test_batch_counters_may_be_there_or_not(
    tmp_path: Path, masks: RCNNDetector, saved: str, built: type[nn.Module]
) -> None:
    state = torch.load(CHECKPOINTS["maskrcnn"], weights_only=True)["model"]
    if saved == "trainable":
        state |= {
            key.replace("running_mean", "num_batches_tracked"): torch.tensor(3)
            for key in state
            if key.endswith("running_mean")
        }
    torch.save(state, tmp_path / "weights.pth")
    weights = str(tmp_path / "weights.pth")
    detector = RCNNDetector(shapes_mask_rcnn(built), weights=weights, class_names=list(CATEGORIES))
    detector.freeze()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in detector.modules())
    image = masks.normalize(shapes_images(1))
    with torch.no_grad():
        mine, expected = detector.detect(image)[0], masks.detect(image)[0]
    torch.testing.assert_close(mine.scores, expected.scores)


def test_wrong_weights(tmp_path: Path) -> None:
    good = CHECKPOINTS["fasterrcnn"]
    state = torch.load(good, weights_only=True)["model"]
    lacking = dict(state)
    del lacking["roi_heads.box_predictor.cls_score.weight"], lacking["backbone.stem.0.weight"]
    torch.save(lacking, tmp_path / "lacking.pth")
    (tmp_path / "cut.pth").write_bytes(good.read_bytes()[:100_000])
    (tmp_path / "shapes-0123abcd.pth").write_bytes(good.read_bytes())
    for file, message in {
        "lacking.pth": r"2 missing \(backbone.stem.0.weight, roi_heads.box_predictor.cls_score.weight\)",
        "cut.pth": r"cannot be read as a weight file, or is cut off \(100,000 bytes\)",
        "shapes-0123abcd.pth": "its SHA-256 begins with .*, not with 0123abcd",
        "nowhere.pth": "No weight file at .*nowhere.pth",
    }.items():
        with pytest.raises(IgosError, match=message):
            RCNNDetector(shapes_faster_rcnn(), weights=str(tmp_path / file))
    with pytest.raises(IgosError, match=r"8 not known to it \(roi_heads.mask_head"):
        RCNNDetector(shapes_faster_rcnn(), weights=str(CHECKPOINTS["maskrcnn"]))


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        (
            "retinanet_resnet50_fpn",
            "x.pth",
            "no detector 'retinanet_resnet50_fpn' of this kind: did you mean maskrcnn_resnet50_fpn",
        ),
        ("fasterrcnn_resnet50_fpn", "COCO", "neither a weight file .* nor one of .* weights: COCO_V1"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "nowhere.pth", "No weight file at nowhere.pth"),
    ],
)
def test_wrong_names(name: str, weights: str, message: str) -> None:
    with pytest.raises(IgosError, match=message):
        TorchvisionRCNNDetector(name, weights)


def random_state(name: str, image: Tensor) -> dict[str, Tensor]:
    """Weights that detect much, with variances so small that eps shows; frozen layers count no batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module: Any = get_model(name, weights=None, weights_backbone=None).eval()
        state = module.state_dict()
        for key, value in state.items():
            if key.endswith("running_var"):
                value.uniform_(0.5e-4, 1.5e-4)
                state[key.replace("running_var", "weight")].fill_(0.008)
    scorer = module.roi_heads.box_predictor.cls_score
    logits: list[Tensor] = []
    hook = scorer.register_forward_hook(lambda _, __, out: logits.append(out))
    small(module)(list(image))
    hook.remove()
    scorer.weight.mul_(3 / logits[0].std())
    frozen = not name.endswith("_v2")
    return {key: value for key, value in state.items() if not (frozen and "num_batches" in key)}


def small(module: Any) -> Any:
    """The same module for small images and few detections, in evaluation."""
    module.transform.min_size, module.transform.max_size = (128,), 192
    module.rpn._post_nms_top_n["testing"] = 50
    module.roi_heads.detections_per_img = 20
    return module.eval()


@pytest.mark.parametrize(
    ("name", "eps"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 1e-5),
        ("maskrcnn_resnet50_fpn", 0.0),
        pytest.param("fasterrcnn_resnet50_fpn", 0.0, marks=pytest.mark.slow),
        pytest.param("fasterrcnn_mobilenet_v3_large_fpn", 1e-5, marks=pytest.mark.slow),
        pytest.param("fasterrcnn_resnet50_fpn_v2", 1e-5, marks=pytest.mark.slow),
        pytest.param("maskrcnn_resnet50_fpn_v2", 1e-5, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_detections_are_those_of_torchvisions_own_builder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, eps: float
) -> None:
    """The same file through torchvision's weights enum, through ours, and as a file by its path."""
    enum = get_model_weights(name)
    weights = enum.COCO_V1
    image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    state = random_state(name, image)
    torch.save(state, tmp_path / "state.pth")
    sha256 = hashlib.sha256((tmp_path / "state.pth").read_bytes()).hexdigest()
    path = (tmp_path / "state.pth").rename(tmp_path / f"state-{sha256[:8]}.pth")
    monkeypatch.setattr(weights.value, "url", f"https://example.org/{path.name}")
    monkeypatch.setattr(enum, "get_state_dict", lambda *_, **__: dict(state))
    # In double precision, so that no rounding decides what is suppressed.
    image = image.double()
    expected = small(get_model(name, weights=weights)).double()(list(image))[0]
    assert len(expected["scores"].unique()) > 3
    detectors = [
        TorchvisionRCNNDetector(name, "COCO_V1", str(tmp_path)),
        TorchvisionRCNNDetector(name, str(path)),
    ]
    for detector in detectors:
        assert detector.weights_sha256 == sha256
        assert detector.class_names[1] == "person"
        layers = [layer for layer in detector.modules() if isinstance(layer, FrozenBatchNorm2d)]
        assert {layer.eps for layer in layers} == {eps}
        small(detector.double().module)
        found = detector.detect(image)[0]
        torch.testing.assert_close(found.boxes, expected["boxes"], atol=1e-4, rtol=1e-6)
        torch.testing.assert_close(found.scores, expected["scores"], atol=1e-5, rtol=1e-5)
        assert torch.equal(found.labels, expected["labels"])


def test_weights_of_ones_own(tmp_path: Path) -> None:
    """Other classes, and the eps of batch norm that training from scratch leaves."""
    name, names = "fasterrcnn_mobilenet_v3_large_320_fpn", ["background", "cell", "spore"]
    torch.save(
        get_model(name, weights=None, weights_backbone=None, num_classes=3).state_dict(), tmp_path / "own.pth"
    )
    make = partial(TorchvisionRCNNDetector, name, str(tmp_path / "own.pth"), class_names=names)
    detector = make(categories=["spore"], batch_norm_eps=1e-3)
    assert detector.label_name(2) == "spore"
    assert {layer.eps for layer in detector.modules() if isinstance(layer, FrozenBatchNorm2d)} == {1e-3}
    described = detector.describe()
    assert described["name"] == name
    assert described["module.transform.min_size"] == "[320]"
    assert described["module.transform.max_size"] == 640
    assert described["layers"] != make().describe()["layers"]  # another eps
    assert len(str(described["weights_sha256"])) == 64
