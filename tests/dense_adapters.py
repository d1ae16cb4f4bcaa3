"""What every detector or segmentation network of another library must do; import ``dense_adapters``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.batches import ImageBatch
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.data.targets import Targets
from igos_pl.explainer import Explainer
from igos_pl.models import ExplainableNetwork

PHOTOS = ("coffee.png", "astronaut.png")  # 600 x 400 and 512 x 512


def photo(name: str = "coffee.png") -> Image.Image:
    """A photo that comes with scikit-image."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-image is needed for its photos")
    return Image.open(Path(spec.origin).parent / "data" / name).convert("RGB")


def seen_by(network: ExplainableNetwork, name: str = "coffee.png") -> Tensor:
    """A photo as the network's input, ``(1, 3, H, W)``, normalised."""
    pixels, _ = network.preprocessing(photo(name))
    return network.normalize(pixels.unsqueeze(0))


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights with which outputs differ from place to place, as those of a trained network do."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            fan = weight[0].numel()
            weight.data = torch.randn(weight.shape, generator=generator) * (1.5 / fan**0.5)
        elif name.endswith("bias"):
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    return module.eval()


def targets_of(network: ExplainableNetwork, images: Tensor) -> Targets:
    proposed = network.propose(images, [GroundTruth()] * len(images))
    return proposed.targets


def assert_scores_are_the_proposals(
    network: ExplainableNetwork, images: Tensor, targets: Targets, atol: float = 1e-4
) -> None:
    """All rows in one batch, and the first in a batch of its own."""
    with torch.no_grad():
        scores = network.score(images[targets.image], targets)
        torch.testing.assert_close(scores, targets.score, atol=atol, rtol=0)
        one = targets.select(slice(1))
        torch.testing.assert_close(network.score(images[one.image], one), scores[:1], atol=atol, rtol=0)


def slopes(
    network: ExplainableNetwork, images: Tensor, targets: Targets, length: float = 1e-7
) -> tuple[Tensor, Tensor]:
    """The score's slope in one direction by autograd and by central differences, in float64."""
    network, images = network.double(), images.double()
    # Pixels that are equal have equal activations, whose maximum has no derivative.
    images = images + 0.01 * torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network.score(leaf, targets).sum(), leaf)
    assert gradient.abs().amax((1, 2, 3)).gt(0).all()
    step = length * torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (network.score(images + sign * step, targets) for sign in (1, -1))
    return (gradient * step).sum((1, 2, 3)), (ahead - behind) / 2


def explained(network: ExplainableNetwork, name: str = "coffee.png") -> BatchResult:
    """The result of a short run of the explainer on a photo."""
    picture = photo(name)
    pixels, frame = network.preprocessing(picture)
    batch = ImageBatch(pixels.unsqueeze(0), [ImageRecord(name, f"/nowhere/{name}", frame)], [GroundTruth()])
    explainer = Explainer(network, mask_size=6, iterations=2, path_steps=2)
    result = explainer.predict_step(batch)
    columns = result.explanations
    assert set(columns["status"]) == {"ok"}
    assert np.isfinite(columns["deletion"]).all()
    # The curve begins with the unmasked image: its score is the proposal's, in another batch.
    np.testing.assert_allclose(columns["deletion_curve"][:, 0], columns["score"], atol=1e-4)
    assert "scores the same image" not in result.images[0].message
    assert (columns["masks"] < 1).any()  # the gradient has reached the masks
    width, height = picture.size
    assert (columns["box"] >= 0).all()
    assert (columns["box"][:, 2:] <= [width, height]).all()
    return result


# --- small networks of transformers, as their save_pretrained writes them ---------------------------------

DETECTOR_SIZE = (96, 128)
DETECTOR_CLASSES = {0: "cup", 1: "face", 2: "cat", 3: "moon"}
DECODER = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 32}
ENCODER = {"encoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 32}
QUERIES = 12


def rtdetr_config(kind: Any = None, backbone: Any = None, **options: Any) -> Any:
    """The configuration of a small RT-DETR, or of one of its relatives."""
    import transformers

    kind = kind or transformers.RTDetrConfig
    backbone = backbone or transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return kind(
        backbone_config=backbone,
        encoder_in_channels=[16, 24, 32],
        encoder_hidden_dim=32,
        decoder_in_channels=[32, 32, 32],
        num_queries=QUERIES,
        **{**DECODER, **ENCODER, **options},
    )


def save_detector(config: Any, processor: str, folder: Path) -> None:
    """Write a detector with seeded weights and its image processor."""
    import transformers

    config.id2label = DETECTOR_CLASSES
    config.label2id = {name: label for label, name in DETECTOR_CLASSES.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = transformers.AutoModelForObjectDetection.from_config(config)
    lively(module)
    module.save_pretrained(folder)
    size = {"height": DETECTOR_SIZE[0], "width": DETECTOR_SIZE[1]}
    getattr(transformers, processor)(size=size).save_pretrained(folder)


def rtdetr_folder(folder: Path) -> str:
    """A small RT-DETR."""
    pytest.importorskip("transformers")
    save_detector(rtdetr_config(), "RTDetrImageProcessor", folder)
    return str(folder)


def segformer_folder(folder: Path) -> str:
    """A small SegFormer."""
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=16,
        id2label=dict(enumerate(("wall", "sky", "tree", "road", "cup"))),
    )
    with torch.random.fork_rng(devices=[]):
        lively(transformers.SegformerForSemanticSegmentation(config)).save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 96}).save_pretrained(folder)
    return str(folder)


def ultralytics_library(folder: Path) -> Any:
    """The package, imported with its settings in a folder of the tests and without the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(folder))
        patch.setenv("YOLO_OFFLINE", "1")
        return pytest.importorskip("ultralytics")
