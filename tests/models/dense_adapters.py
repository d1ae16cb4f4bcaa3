"""What every detector or segmentation network of another library must do; import ``dense_adapters``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

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
