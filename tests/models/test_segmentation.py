"""Segmentation: regions of the predicted map, their scores and gradients, and the libraries' pipelines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torchvision
from dense_adapters import (
    PHOTOS,
    assert_scores_are_the_proposals,
    explained,
    lively,
    photo,
    seen_by,
    segformer_folder,
    slopes,
    targets_of,
)
from torch import Tensor, nn

from igos_pl.data.annotations import GroundTruth
from igos_pl.errors import IgosError
from igos_pl.evaluation.deletion_insertion import curve_cells
from igos_pl.explainer import Explainer
from igos_pl.models import HuggingFaceSegmenter, Segmenter, TorchvisionSegmenter
from igos_pl.models.names import network_named

NAMES = ["background", "sky", "sea", "sand"]


class Stripes(nn.Module):
    """Logits that follow the channels of the image, at half its size; the first class is never the best."""

    def __init__(self, key: str | None = None) -> None:
        super().__init__()
        self.key = key

    def forward(self, images: Tensor) -> Any:
        small = nn.functional.avg_pool2d(images, 2)
        logits = torch.cat((-9 * torch.ones_like(small[:, :1]), 4 * small), 1)
        return {self.key: logits, "aux": None} if self.key else logits


def segmenter(module: nn.Module | None = None, **options: Any) -> Segmenter:
    network = Segmenter(
        module or Stripes(),
        class_names=NAMES,
        **{"input_size": (16, 32), "mean": (0, 0, 0), "std": (1, 1, 1), **options},
    )
    network.freeze()
    return network


def beach(sky: int = 16, sea: int = 10) -> Tensor:
    """Columns of sky, of sea, and sand for the rest of 32: ``(1, 3, 16, 32)``."""
    image = torch.zeros(1, 3, 16, 32)
    for channel, columns in enumerate((slice(0, sky), slice(sky, sky + sea), slice(sky + sea, None))):
        image[:, channel, :, columns] = 1
    return image


def propose(network: Segmenter, images: Tensor) -> Any:
    return network.propose(images, [GroundTruth()] * len(images))


@pytest.mark.parametrize("key", [None, "out", "logits"])
def test_regions_of_the_predicted_map(key: str | None) -> None:
    proposed = propose(segmenter(Stripes(key)), torch.cat((beach(), beach(6, 6))))
    targets = proposed.targets
    assert targets.image.tolist() == [0, 0, 0, 1, 1, 1]
    assert targets.number.tolist() == [0, 1, 2, 0, 1, 2]
    assert targets.label.tolist() == [1, 2, 3, 3, 1, 2]  # the largest first
    assert targets.box.tolist()[:3] == [[0, 0, 16, 16], [16, 0, 26, 16], [26, 0, 32, 16]]
    assert targets.instance_mask.dtype == torch.bool
    assert targets.instance_mask.sum((1, 2)).tolist() == [256, 160, 96, 320, 96, 96]
    assert list(proposed.notes) == ["", ""]


def test_score_is_the_mean_probability_over_the_region() -> None:
    network, image = segmenter(), beach()
    targets = propose(network, image).targets
    probabilities = network._logits(image).softmax(1)
    full = nn.functional.interpolate(probabilities, (16, 32), mode="bilinear", align_corners=False)[0]
    for row in range(3):
        label, region = int(targets.label[row]), targets.instance_mask[row]
        assert targets.score[row].item() == pytest.approx(full[label][region].mean().item(), abs=1e-6)
    # The region is the unmasked image's, whatever the perturbed one is predicted to show.
    dark = network.score(torch.zeros(3, 3, 16, 32), targets)
    torch.testing.assert_close(dark, torch.full((3,), 1 / (3 + torch.exp(torch.tensor(-9.0)))))


def test_choice_of_classes() -> None:
    image = beach()
    few = propose(segmenter(max_per_image=1), image)
    assert few.targets.label.tolist() == [1]
    assert list(few.notes) == ["2 of 3 classes left out: max_per_image (--model.network.max_per_image) is 1"]
    assert propose(segmenter(min_area=0.25), image).targets.label.tolist() == [1, 2]
    assert propose(segmenter(categories=["sand", "sky"]), image).targets.label.tolist() == [1, 3]
    none = propose(segmenter(categories=["background"]), image).targets
    assert len(none) == 0
    assert none.instance_mask.shape == (0, 16, 32)
    dark = torch.full((1, 3, 16, 32), -9.0)  # all background now
    assert len(propose(segmenter(), dark).targets) == 0
    assert propose(segmenter(categories=["background"]), dark).targets.label.tolist() == [0]


def test_wrong_modules_and_options() -> None:
    with pytest.raises(IgosError, match=r"must return logits of shape \(B, classes, h, w\), but returned"):
        propose(segmenter(nn.Flatten()), beach())
    with pytest.raises(IgosError, match="categories names 'sea lion', but Stripes has no such class"):
        segmenter(categories=["sea lion"])
    with pytest.raises(IgosError, match="min_area is 2"):
        segmenter(min_area=2)
    with pytest.raises(IgosError, match="max_per_image is 0"):
        segmenter(max_per_image=0)


def test_regions_reach_the_score_and_the_curves() -> None:
    """A row's curves remove three times its region; all rows keep their own through the micro-batches."""
    network = segmenter(Stripes("out"))
    batch = tiny.batch_of((beach(26, 4) * 255).round().to(torch.uint8), ["beach"])
    explainer = Explainer(network, mask_size=8, iterations=2, path_steps=2, micro_batch_size=3)
    columns = explainer.predict_step(batch).explanations
    assert columns["label_name"].tolist() == ["sky", "sea", "sand"]
    torch.testing.assert_close(
        torch.tensor(columns["deletion_curve"][:, 0]), torch.tensor(columns["score"]), atol=1e-5, rtol=0
    )
    targets = propose(network, beach(26, 4)).targets
    assert curve_cells(targets, 8, (16, 32)).tolist() == [64, 24, 12]
    # The order of the rows decides nothing: the regions move with them.
    turned = targets.select(torch.tensor([2, 0, 1]))
    scores = network.score(beach(20, 6).expand(3, -1, -1, -1), turned)
    straight = network.score(beach(20, 6).expand(3, -1, -1, -1), targets)
    torch.testing.assert_close(scores, straight[[2, 0, 1]])


# --- torchvision -----------------------------------------------------------------------------------------


def torchvision_file(name: str, folder: Path, **options: Any) -> Path:
    module = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=21, **options
    )
    torch.save(lively(module).state_dict(), folder / f"{name}.pth")
    return folder / f"{name}.pth"


@pytest.mark.parametrize(
    ("name", "aux"), [("lraspp_mobilenet_v3_large", {}), ("fcn_resnet50", {"aux_loss": True})]
)
def test_torchvisions_predictions(name: str, aux: dict[str, bool], tmp_path: Path) -> None:
    path = torchvision_file(name, tmp_path, **aux)
    network = TorchvisionSegmenter(name, str(path), input_size=(96, 96))
    module = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=21, **aux)
    module.load_state_dict(torch.load(path))
    module.eval()
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms(resize_size=96)
    picture = photo("astronaut.png")  # a square one, which torchvision scales as it is scaled here
    with torch.no_grad(), network.frozen():
        theirs = module(preset(picture)[None])["out"]
        images = seen_by(network, "astronaut.png")
        assert (network._logits(images) - theirs).abs().max() < 1e-3 * theirs.abs().max()
        assert (network.predict(images) == theirs.argmax(1)).float().mean() > 0.999
        targets = targets_of(network, images)
        assert len(targets) > 1
        for row in range(len(targets)):
            region = theirs.argmax(1)[0] == targets.label[row]
            mean = theirs.softmax(1)[0, targets.label[row]][region].mean()
            assert targets.score[row].item() == pytest.approx(mean.item(), abs=1e-3)
    assert network.class_names[8] == "cat"
    assert network.describe()["weights_sha256"] == network.weights_sha256


def test_a_run_of_torchvisions(tmp_path: Path) -> None:
    path = torchvision_file("lraspp_mobilenet_v3_large", tmp_path)
    network = TorchvisionSegmenter(
        "lraspp_mobilenet_v3_large", str(path), input_size=(64, 96), max_per_image=2, min_area=0.001
    )
    described = network.describe()
    result = explained(network)
    assert len(result.explanations["score"]) == 2
    assert network.describe() == described
    assert described["min_area"] == 0.001
    assert described["name"] == "lraspp_mobilenet_v3_large"
    with network.frozen():
        images = torch.cat([seen_by(network, name) for name in PHOTOS])
        targets = targets_of(network, images)
        assert_scores_are_the_proposals(network, images, targets)
        few = targets.select(torch.tensor([0, len(targets) - 1]))
        by_autograd, by_difference = slopes(network, images[few.image], few)
        torch.testing.assert_close(by_autograd, by_difference, rtol=1e-3, atol=1e-12)


def test_torchvision_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(IgosError, match="no segmentation network 'unet', but: deeplabv3_mobilenet_v3_large"):
        TorchvisionSegmenter("unet")
    with pytest.raises(IgosError, match="neither a weight file .* nor one of fcn_resnet50's weights"):
        TorchvisionSegmenter("fcn_resnet50", "VOC")
    path = torchvision_file("lraspp_mobilenet_v3_large", tmp_path)
    with pytest.raises(IgosError, match="does not fit lraspp_mobilenet_v3_large"):
        TorchvisionSegmenter("lraspp_mobilenet_v3_large", str(path), class_names=np.array(["one", "two"]))


# --- Hugging Face ----------------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.mark.usefixtures("offline")
def test_segformers_predictions(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    path = segformer_folder(tmp_path / "tiny-segformer")
    network = HuggingFaceSegmenter(path, min_area=0)
    module = transformers.AutoModelForSemanticSegmentation.from_pretrained(path).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    assert network.input_size == (64, 96)
    for name in PHOTOS:
        with torch.no_grad(), network.frozen():
            outputs = module(**processor(images=photo(name), return_tensors="pt"))
            (theirs,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(64, 96)])
            images = seen_by(network, name)
            assert (network.predict(images)[0] == theirs).float().mean() > 0.999
            targets = targets_of(network, images)
            present = theirs.unique().tolist()
            assert set(targets.label.tolist()) <= set(present)
            probabilities = outputs.logits.softmax(1)
            full = nn.functional.interpolate(probabilities, (64, 96), mode="bilinear", align_corners=False)
            for row in range(len(targets)):
                mean = full[0, targets.label[row]][theirs == targets.label[row]].mean()
                assert targets.score[row].item() == pytest.approx(mean.item(), abs=1e-3)


@pytest.mark.usefixtures("offline")
def test_a_network_that_takes_blue_green_red(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    path = segformer_folder(tmp_path / "bgr")
    size = {"height": 64, "width": 96}
    transformers.MobileViTImageProcessor(size=size, do_flip_channel_order=True).save_pretrained(path)
    network = HuggingFaceSegmenter(path, min_area=0)
    module = transformers.AutoModelForSemanticSegmentation.from_pretrained(path).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(path, do_center_crop=False)
    with torch.no_grad(), network.frozen():
        theirs = module(**processor(images=photo(PHOTOS[0]), size=size, return_tensors="pt")).logits
        wanted = nn.functional.interpolate(theirs.softmax(1), (64, 96), mode="bilinear").argmax(1)
        ours = network.predict(seen_by(network, PHOTOS[0]))
    assert (ours == wanted).float().mean() > 0.99


@pytest.mark.usefixtures("offline")
def test_a_run_of_segformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = segformer_folder(tmp_path / "tiny-segformer")
    network = HuggingFaceSegmenter(path, max_per_image=2)
    described = network.describe()
    result = explained(network)
    assert len(result.explanations["score"]) == 2
    assert set(result.explanations["label_name"]) <= {"wall", "sky", "tree", "road", "cup"}
    assert network.describe() == described
    assert described["name"] == "tiny-segformer"
    assert isinstance(network_named(f"hf:{path}"), HuggingFaceSegmenter)
    assert described["preprocessing.processor"].startswith("SegformerImageProcessor")
    images = seen_by(network)
    by_autograd, by_difference = slopes(network, images, targets_of(network, images).select(slice(1)))
    torch.testing.assert_close(by_autograd, by_difference, rtol=1e-3, atol=1e-12)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(IgosError, match=r"pip install 'igos_pl\[huggingface\]'"):
        HuggingFaceSegmenter(path)
