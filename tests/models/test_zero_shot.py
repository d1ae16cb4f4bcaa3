"""CLIP and SigLIP with sentences as classes give the probabilities of their libraries."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import PROMPTS, SMALL, clip_folder, open_clip_model, siglip_folder
from PIL import Image
from tiny import batch_of, pictures, probabilities_of, real_photos
from torch import Tensor

from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.models import Classifier, OpenCLIPClassifier, ZeroShotClassifier


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


FOLDERS = {"CLIP": clip_folder, "SigLIP": siglip_folder}


def assert_differ(found: list[Tensor]) -> None:
    assert max((one - other).abs().max() for one in found for other in found) > 0.005, "all photos look alike"


@pytest.mark.parametrize("kind", FOLDERS)
def test_probabilities_are_those_of_transformers_pipeline(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = FOLDERS[kind](tmp_path / "mine")
    network = ZeroShotClassifier(folder, PROMPTS)
    network.freeze()
    pipeline = transformers.pipeline("zero-shot-image-classification", model=folder, device="cpu")
    found = []
    for photo in real_photos().values():
        rows = pipeline(photo, candidate_labels=PROMPTS, hypothesis_template="{}")
        expected = {row["label"]: row["score"] for row in rows}
        found.append(probabilities_of(network, photo))
        named = {network.label_name(label): score for label, score in enumerate(found[-1].tolist())}
        assert named == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert_differ(found)
    assert network.output == {"CLIP": "softmax", "SigLIP": "sigmoid"}[kind]
    assert not any("text_model" in name for name, _ in network.named_modules())


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
def test_probabilities_are_those_of_open_clip(resize_mode: str, tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    _, name = open_clip_model(tmp_path / "mine")
    path = tmp_path / "mine" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"]["resize_mode"] = resize_mode
    path.write_text(json.dumps(config))
    model, transform = open_clip.create_model_from_pretrained(name)
    tokens = open_clip.get_tokenizer(name)(PROMPTS)
    network = OpenCLIPClassifier(name, PROMPTS, class_names=["cup", "roof", "cat"])
    network.freeze()
    found = []
    for photo in real_photos().values():
        with torch.no_grad():
            image, text, scale = model.eval()(transform(photo)[None], tokens)[:3]
        found.append(probabilities_of(network, photo))
        torch.testing.assert_close(found[-1], (scale * image @ text.T).softmax(1)[0], rtol=1e-3, atol=1e-5)
    assert_differ(found)
    assert (network.name, network.class_names) == ("mine", ("cup", "roof", "cat"))


def explained(network: Classifier) -> Any:
    images = pictures(1, 48)
    return Explainer(network, mask_size=6, iterations=2).predict_step(batch_of(images)).explanations


@pytest.mark.parametrize("kind", ["CLIP", "SigLIP", "open_clip"])
def test_masks_follow_the_gradient(kind: str, tmp_path: Path) -> None:
    if kind == "open_clip":
        network: Classifier = OpenCLIPClassifier(open_clip_model(tmp_path / "mine")[1], PROMPTS, top_k=3)
    else:
        network = ZeroShotClassifier(FOLDERS[kind](tmp_path / "mine"), PROMPTS, top_k=3)
    rows = explained(network)
    assert rows["masks"].shape == (3, 6, 6)
    assert all(mask.std() > 1e-3 for mask in rows["masks"])
    assert set(rows["label_name"]) == set(PROMPTS)


@pytest.mark.parametrize("kind", ["CLIP", "open_clip"])
def test_the_sentences_identify_a_run(kind: str, tmp_path: Path) -> None:
    if kind == "open_clip":
        name = open_clip_model(tmp_path / "mine")[1]
        make: Any = OpenCLIPClassifier
    else:
        name, make = clip_folder(tmp_path / "mine"), ZeroShotClassifier
    first = make(name, PROMPTS, class_names=["a", "b", "c"]).describe()
    assert first == make(name, np.array(PROMPTS), class_names=np.array(["a", "b", "c"])).describe()
    other = make(name, [*PROMPTS[:2], "a photo of a cat"], class_names=["a", "b", "c"]).describe()
    assert {key for key in first if first[key] != other[key]} == {"prompts", "weights_sha256"}


# --- what cannot be done is said ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, r"prompts is \[\], but must be a list with a sentence for each class"),
        ({"prompts": "a cat"}, r"prompts is 'a cat' \(of the type str\), but must be a list with a sentence"),
        ({"prompts": ["a cat", ""]}, "a sentence for each class"),
        (
            {"prompts": PROMPTS, "class_names": ["one"]},
            "There are 1 class_names, but 3 prompts: give one for each",
        ),
        (
            {"prompts": ["a photo of a cup " * 3]},
            r"The prompt 'a photo .* has 16 tokens, but .* takes 12 at most",
        ),
    ],
)
def test_wrong_sentences_are_named(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(IgosError, match=message):
        ZeroShotClassifier(clip_folder(tmp_path / "mine"), **options)


def test_other_models_are_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.ViTModel(transformers.ViTConfig(**SMALL, image_size=48, patch_size=8))
    model.save_pretrained(tmp_path / "mine")
    with pytest.raises(IgosError, match="mine is a ViTModel, but must be a CLIP or SigLIP model"):
        ZeroShotClassifier(str(tmp_path / "mine"), PROMPTS)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("ViT-B-33", None, "open_clip has no model 'ViT-B-33': did you mean .*ViT-B-32"),
        ("ViT-B-32", None, "weights is None, which is neither a file nor one of ViT-B-32's tags: .*openai"),
        ("ViT-B-32", "openai", "ViT-B-32 cannot be loaded.*Without internet: .*local-dir:FOLDER"),
        ("local-dir:nowhere", None, "local-dir:nowhere cannot be loaded"),
    ],
)
def test_what_open_clip_does_not_have(
    name: str, weights: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_clip = pytest.importorskip("open_clip")

    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", no_network)
    with pytest.raises(IgosError, match=message):
        OpenCLIPClassifier(name, PROMPTS, weights)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = __import__("sys").modules
    for package, extra, make in (
        ("transformers", "huggingface", ZeroShotClassifier),
        ("open_clip", "openclip", OpenCLIPClassifier),
    ):
        monkeypatch.setitem(modules, package, None)
        with pytest.raises(IgosError, match=rf"{package}.*pip install 'igos_pl\[{extra}\]'"):
            make("mine", PROMPTS)


def test_code_in_a_folder_of_open_clip_never_runs(tmp_path: Path) -> None:
    _, name = open_clip_model(tmp_path / "mine")
    torch.save({"text": RunsCode(str(tmp_path / "pwned"))}, tmp_path / "mine" / "open_clip_pytorch_model.bin")
    with pytest.raises(IgosError, match="cannot be loaded"):
        OpenCLIPClassifier(name, PROMPTS)
    assert not (tmp_path / "pwned").exists()


class RunsCode:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_own_weights_of_an_open_clip_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_clip = pytest.importorskip("open_clip")
    model, folder = open_clip_model(tmp_path / "mine")
    config = json.loads((tmp_path / "mine" / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "mine", config)
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "mine.pt"
    )
    network = OpenCLIPClassifier("mine", PROMPTS, str(tmp_path / "mine.pt"))
    assert torch.equal(network.module.text, OpenCLIPClassifier(folder, PROMPTS).module.text)
    picture = Image.new("RGB", (60, 50), "red")
    network.freeze()
    assert probabilities_of(network, picture).sum() == pytest.approx(1, abs=1e-5)
