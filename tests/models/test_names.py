"""A network by its name, with "did you mean" for others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from igos_pl.errors import IgosError
from igos_pl.models import (
    Classifier,
    EfficientNetLite0Classifier,
    TorchvisionClassifier,
    TorchvisionDenseDetector,
    TorchvisionRCNNDetector,
    names,
)
from igos_pl.models.names import network_classes, network_named


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("resnet50", TorchvisionClassifier),
        ("vit_b_16", TorchvisionClassifier),
        ("fasterrcnn_resnet50_fpn", TorchvisionRCNNDetector),
        ("maskrcnn_resnet50_fpn_v2", TorchvisionRCNNDetector),
        ("retinanet_resnet50_fpn", TorchvisionDenseDetector),
        ("fcos_resnet50_fpn", TorchvisionDenseDetector),
        ("ssd300_vgg16", TorchvisionDenseDetector),
        ("ssdlite320_mobilenet_v3_large", TorchvisionDenseDetector),
    ],
)
def test_torchvisions_names_choose_the_family(name: str, family: Any) -> None:
    assert names.SOURCES["torchvision"](name) is family


def test_torchvision_with_settings(tmp_path: Any) -> None:
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "squeeze.pth")
    network = network_named(
        "torchvision:squeezenet1_1", weights=str(tmp_path / "squeeze.pth"), top_k=2, input_size=64
    )
    assert isinstance(network, TorchvisionClassifier)
    assert (network.name, network.top_k, network.input_size) == ("squeezenet1_1", 2, (64, 64))


def test_classes_by_name() -> None:
    network = network_named("Classifier", module=nn.Flatten(), input_size=8, name="mine")
    assert isinstance(network, Classifier)
    assert network_classes()["EfficientNetLite0Classifier"] is EfficientNetLite0Classifier
    assert "ExplainableNetwork" not in network_classes()
    assert "Detections" not in network_classes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("EfficientNetLite0", "no network 'EfficientNetLite0': did you mean EfficientNetLite0Classifier"),
        ("classifer", "did you mean .*Classifier"),
        ("resnet50", "no network 'resnet50': did you mean torchvision:resnet50"),
        ("tim:resnet50", "no network 'tim:resnet50': did you mean timm:"),
        ("torchvision:resnet51", "torchvision has no network 'resnet51': did you mean .*resnet50"),
        ("timm:resnet51", "timm has no model 'resnet51'.*resnet50"),
        ("zzz", "There is no network 'zzz': there are .*hf:NAME"),
    ],
)
def test_did_you_mean(name: str, message: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(IgosError, match=message):
        network_named(name)


def test_folders_of_transformers(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**small, image_size=16, patch_size=8, num_labels=3)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "classifier")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "classifier")
    network = network_named(f"hf:{tmp_path / 'classifier'}", top_k=3)
    assert type(network).__name__ == "HuggingFaceClassifier"
    assert (network.name, network.input_size) == ("classifier", (16, 16))
    transformers.ViTModel(config).save_pretrained(tmp_path / "bare")
    with pytest.raises(IgosError, match=r"bare is a ViTModel, which igos_pl does not support\. It supports"):
        network_named(f"hf:{tmp_path / 'bare'}")
