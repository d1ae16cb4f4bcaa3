"""Image classifiers of transformers give the probabilities of transformers' own pipeline."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import batch_of, probabilities_of, quiet_trainer, real_photos
from torch import nn

from igos_pl.datamodules import ImageFolderDataModule
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.models import Classifier, HuggingFaceClassifier
from igos_pl.store import MaskFile

transformers = pytest.importorskip("transformers")

NAMES = {0: "an eider", 1: "a teal", 2: "a smew", 3: "a garganey"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def vit(**options: Any) -> Any:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=48,
            patch_size=8, id2label=NAMES, **options,
        )
    )  # fmt: skip


def resnet(**options: Any) -> Any:
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            layer_type="basic",
            id2label=NAMES,
            **options,
        )
    )


def convnext() -> Any:
    return transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, id2label=NAMES)
    )


def clip() -> Any:
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vision = {**size, "image_size": 48, "patch_size": 8}
    return transformers.CLIPForImageClassification(
        transformers.CLIPConfig(text_config=size, vision_config=vision, id2label=NAMES)
    )


def saved(folder: Path, made: Any, processor: Any, seed: int = 0) -> str:
    """A folder with random weights whose outputs differ between images, and an image processor."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in made.named_parameters():
        if weight.ndim > 1 or "class_embedding" in name:
            scale = 5 if "classifier" in name else 1.4
            fan = max(weight[0].numel(), 2)
            weight.data = torch.randn(weight.shape, generator=generator) * scale / fan**0.5
    made.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def processors() -> dict[str, tuple[Any, Any]]:
    square = {"height": 48, "width": 48}
    return {
        "ViT": (vit, transformers.ViTImageProcessor(size=square)),
        "ViT of raw values": (
            vit,
            transformers.ViTImageProcessor(
                size=square, do_rescale=False, image_mean=[127.5] * 3, image_std=[60.0, 70.0, 80.0]
            ),
        ),
        "ViT of -1 to 1": (
            vit,
            transformers.ViTImageProcessor(
                size=square, rescale_factor=1 / 127.5, image_mean=[1] * 3, image_std=[1] * 3
            ),
        ),
        "ResNet": (resnet, transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, resample=2)),
        "ConvNext": (convnext, transformers.ConvNextImageProcessor(size={"shortest_edge": 96}, crop_pct=0.8)),
        "CLIP": (clip, transformers.CLIPImageProcessor(size={"shortest_edge": 48}, crop_size=square)),
        "EfficientNet's": (resnet, transformers.EfficientNetImageProcessor(size={"height": 64, "width": 80})),
        "MobileViT's": (
            resnet,
            transformers.MobileViTImageProcessor(
                size={"shortest_edge": 64}, crop_size={"height": 72, "width": 72}
            ),
        ),
    }  # fmt: skip


def pipeline_probabilities(folder: str, photo: Image.Image) -> dict[str, float]:
    pipeline = transformers.pipeline("image-classification", model=folder, device="cpu")
    return {row["label"]: row["score"] for row in pipeline(photo, top_k=len(NAMES))}


def assert_same(network: Classifier, folder: str) -> None:
    network.freeze()
    found = []
    for photo in real_photos().values():
        expected = pipeline_probabilities(folder, photo)
        found.append(probabilities_of(network, photo))
        named = {network.label_name(label): score for label, score in enumerate(found[-1].tolist())}
        assert named == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert max((one - other).abs().max() for one in found for other in found) > 0.005, "all photos look alike"


@pytest.mark.parametrize("kind", list(processors()))
def test_probabilities_are_the_pipelines(kind: str, tmp_path: Path) -> None:
    make, processor = processors()[kind]
    folder = saved(tmp_path / "mine", make(), processor)
    network = HuggingFaceClassifier(folder)
    assert_same(network, folder)
    assert network.name == "mine"
    assert network.class_names == tuple(NAMES.values())
    assert network.output == "softmax"


@pytest.mark.parametrize("output", [None, "softmax"])
def test_many_labels_at_once(output: Any, tmp_path: Path) -> None:
    make, processor = processors()["ViT"]
    folder = saved(tmp_path / "mine", make(problem_type="multi_label_classification"), processor)
    network = HuggingFaceClassifier(folder, output=output, class_names=np.array(list(NAMES.values())))
    assert network.class_names == tuple(NAMES.values())
    if output is None:
        assert_same(network, folder)
    else:
        network.freeze()
        assert probabilities_of(network, real_photos()["wide"]).sum() == pytest.approx(1, abs=1e-5)


def test_it_runs_in_a_trainer_with_loader_processes(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, photo in real_photos().items():
        photo.save(tmp_path / "photos" / f"{name}.png")
    make, processor = processors()["CLIP"]
    folder = saved(tmp_path / "mine", make(), processor)
    explainer = Explainer(HuggingFaceClassifier(folder), mask_size=6, iterations=2)
    data = ImageFolderDataModule(str(tmp_path / "photos"), batch_size=2, num_workers=2)
    quiet_trainer(tmp_path / "run").predict(explainer, data, return_predictions=False)
    with MaskFile(tmp_path / "run" / "masks.h5") as masks:
        found = {row.sample_id: row for row in masks}
    for name, photo in real_photos().items():
        expected = pipeline_probabilities(folder, photo)
        row = found[f"{name}.png"]
        assert row.label_name == max(expected, key=lambda label: expected[label])
        assert row.score == pytest.approx(max(expected.values()), rel=1e-3)


def test_settings_weights_and_processor_identify_a_run(tmp_path: Path) -> None:
    make, processor = processors()["ViT"]
    first = HuggingFaceClassifier(saved(tmp_path / "a" / "mine", make(), processor)).describe()
    moved = HuggingFaceClassifier(saved(tmp_path / "b" / "mine", make(), processor)).describe()
    assert first == moved
    assert first["preprocessing.processor"] == "ViTImageProcessor"
    others = [
        HuggingFaceClassifier(saved(tmp_path / "c" / "mine", make(), processor, seed=1)),
        HuggingFaceClassifier(
            saved(
                tmp_path / "d" / "mine",
                make(),
                transformers.ViTImageProcessor(size={"height": 48, "width": 48}, resample=3),
            )
        ),
        HuggingFaceClassifier(str(tmp_path / "a" / "mine"), output="sigmoid"),
    ]
    assert all(other.describe() != first for other in others)


def test_half_precision_folders_become_float32(tmp_path: Path) -> None:
    make, processor = processors()["ViT"]
    network = HuggingFaceClassifier(saved(tmp_path / "mine", make().half(), processor))
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    result = Explainer(network, mask_size=6, iterations=2).predict_step(
        batch_of(torch.rand(1, 3, 48, 48) * 255)
    )
    assert result.explanations["masks"].min() < 1


@pytest.mark.parametrize(
    "shape",
    [
        lambda logits: {"logits": logits},
        lambda logits: (logits, None),
        lambda logits: [logits],
        lambda logits: SimpleNamespace(logits=logits),
    ],
)
def test_outputs_that_are_no_tensors(shape: Any) -> None:
    class Wrapped(nn.Linear):
        def forward(self, images: Any) -> Any:
            return shape(super().forward(images.flatten(1)))

    with torch.random.fork_rng(devices=[]):
        module = Wrapped(3 * 8 * 8, 4)
    network = Classifier(module, input_size=8)
    images = torch.rand(2, 3, 8, 8)
    expected = nn.Linear.forward(module, images.flatten(1)).softmax(1)
    assert torch.equal(network.probabilities(images), expected)


@pytest.mark.parametrize("output", [{"other": 1}, (), "text", ({"logits": 1},)])
def test_outputs_without_logits_are_named(output: Any) -> None:
    class Odd(nn.Module):
        def forward(self, images: Any) -> Any:
            return output

    with pytest.raises(IgosError, match=f"Odd must return logits .* returned a {type(output).__name__}"):
        Classifier(Odd(), input_size=8).probabilities(torch.rand(1, 3, 8, 8))


# --- what cannot be done is said ------------------------------------------------------------------------


def test_without_network_the_message_says_what_to_do() -> None:
    with pytest.raises(
        IgosError, match=r"google/vit.*not a folder.*hf download google/vit --local-dir FOLDER"
    ):
        HuggingFaceClassifier("google/vit")


def test_folders_without_a_trained_head_are_refused(tmp_path: Path) -> None:
    made, processor = vit(), processors()["ViT"][1]
    folder = saved(tmp_path / "mine", made, processor)
    made.vit.save_pretrained(folder)
    with pytest.raises(IgosError, match=r"no weights for 2 tensors .*classifier\.bias.*would be random"):
        HuggingFaceClassifier(folder)


def test_incomplete_folders(tmp_path: Path) -> None:
    make, processor = processors()["ViT"]
    folder = Path(saved(tmp_path / "mine", make(), processor))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(IgosError, match="cannot be loaded.*hold all files that save_pretrained writes"):
        HuggingFaceClassifier(str(folder))
    processor.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(IgosError, match="cannot be loaded"):
        HuggingFaceClassifier(str(folder))


class RunsCode:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_code_in_a_folder_never_runs(tmp_path: Path) -> None:
    make, processor = processors()["ViT"]
    folder = Path(saved(tmp_path / "mine", make(), processor))
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.bias": RunsCode(str(tmp_path / "pwned"))}, folder / "pytorch_model.bin")
    with pytest.raises(IgosError, match="cannot be loaded"):
        HuggingFaceClassifier(str(folder))
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "mine"
    config["auto_map"] = {
        "AutoConfig": "code.MyConfig",
        "AutoModelForImageClassification": "code.MyModel",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'pwned')!r})\n")
    with pytest.raises(IgosError, match="Python code of its own, which is never run here"):
        HuggingFaceClassifier(str(folder))
    assert not (tmp_path / "pwned").exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        IgosError, match=r"needs the package transformers.*pip install 'igos_pl\[huggingface\]'"
    ):
        HuggingFaceClassifier("mine")
