"""Where the network's input lies in the original, by pictures of coordinates and the libraries' code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision import transforms

from igos_pl.data.geometry import Frame
from igos_pl.data.library_preprocessing import (
    ImageProcessorTransform,
    PictureTransform,
    input_size_of,
    traced_frame,
)
from igos_pl.data.preprocessing import Preprocessing
from igos_pl.errors import IgosError

SIZES = [(640, 480), (480, 640), (1000, 300), (300, 300), (97, 140), (513, 257)]


def timm_steps(**settings: Any) -> PictureTransform:
    timm_data = pytest.importorskip("timm.data")
    made = timm_data.create_transform(**{"input_size": (3, 224, 224), **settings}, normalize=False)
    return PictureTransform(made.transforms[:-1], about=str(settings))


def processor(kind: str, **settings: Any) -> ImageProcessorTransform:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    return ImageProcessorTransform(getattr(transformers, kind)(**settings))


KINDS: dict[str, Callable[[], Preprocessing]] = {
    "timm centre": timm_steps,
    "timm squash": lambda: timm_steps(crop_mode="squash", crop_pct=0.9),
    "timm border": lambda: timm_steps(crop_mode="border", crop_pct=0.95, interpolation="bicubic"),
    "timm not square": lambda: timm_steps(input_size=(3, 128, 256), interpolation="bicubic"),
    "timm trims": lambda: timm_steps(crop_border_pixels=3),
    "timm pads": lambda: timm_steps(crop_pct=1.3),
    "ViT": lambda: processor("ViTImageProcessor"),
    "ViT not square": lambda: processor("ViTImageProcessor", size={"height": 96, "width": 160}),
    "CLIP": lambda: processor("CLIPImageProcessor"),
    "CLIP pads": lambda: processor("CLIPImageProcessor", size={"shortest_edge": 180}),
    "ConvNext crops": lambda: processor("ConvNextImageProcessor", size={"shortest_edge": 224}),
    "ConvNext squashes": lambda: processor("ConvNextImageProcessor", size={"shortest_edge": 384}),
    "LeViT": lambda: processor("LevitImageProcessor"),
    "PoolFormer": lambda: processor("PoolFormerImageProcessor"),
    "MobileNetV2": lambda: processor("MobileNetV2ImageProcessor"),
    "MobileViT": lambda: processor("MobileViTImageProcessor"),
    "EfficientNet": lambda: processor("EfficientNetImageProcessor"),
    "SigLIP": lambda: processor("SiglipImageProcessor"),
}


def coordinates(width: int, height: int) -> Image.Image:
    """Red rises from left to right, green from top to bottom; blue is half."""
    x = np.broadcast_to((np.arange(width) + 0.5) / width, (height, width))
    y = np.broadcast_to((np.arange(height) + 0.5)[:, None] / height, (height, width))
    pixels = np.stack([x, y, np.full((height, width), 0.5)], axis=-1)
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def shares(pixels: Tensor) -> Tensor:
    return pixels if pixels.is_floating_point() else pixels / 255


def misplacement(ramp: Tensor, start: float, end: float, length: int) -> float:
    """How many input pixels a ramp along an axis is off from where the frame says, on average."""
    scale = (end - start) / len(ramp)
    expected = start + (torch.arange(len(ramp)) + 0.5) * scale
    inside = (expected > 0.15 * length) & (expected < 0.85 * length)
    assert inside.sum() > 8
    return float((ramp[inside] * length - expected[inside]).mean() / scale)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_where_the_library_takes_pixels_from(kind: str) -> None:
    preprocessing = KINDS[kind]()
    size = input_size_of(preprocessing, kind)
    for width, height in SIZES:
        pixels, frame = preprocessing(coordinates(width, height))
        assert tuple(pixels.shape) == (3, *size)
        assert (frame.width, frame.height, frame.input_size) == (width, height, size)
        red, green = shares(pixels)[:2]
        x1, y1, x2, y2 = frame.box
        assert abs(misplacement(red[size[0] // 2], x1, x2, width)) < 0.25
        assert abs(misplacement(green[:, size[1] // 2], y1, y2, height)) < 0.25


def test_a_wrong_frame_would_be_seen() -> None:
    pixels, frame = timm_steps()(coordinates(640, 480))
    x1, _, x2, _ = frame.box
    assert abs(misplacement(shares(pixels)[0, 112], x1 + 5, x2 + 5, 640)) > 1


@pytest.mark.parametrize(
    ("kind", "box"),
    [
        # 256 / 480 of the original; torchvision cuts the width off at 341 pixels, and crops from the 58th on.
        ("timm centre", (58 * 640 / 341, 16 * 480 / 256, 282 * 640 / 341, 240 * 480 / 256)),
        ("ViT", (0, 0, 640, 480)),
        ("CLIP", (37 * 640 / 298, 0, 261 * 640 / 298, 480)),
        # The whole width becomes 235 pixels, of which 224 are seen; above and below, there is padding.
        ("timm border", (6 * 640 / 235, -24 * 480 / 176, 230 * 640 / 235, 200 * 480 / 176)),
    ],
)
def test_frames_by_hand(kind: str, box: tuple[float, ...]) -> None:
    _, frame = KINDS[kind]()(coordinates(640, 480))
    assert frame.box == pytest.approx(box, abs=1e-9)


@pytest.mark.parametrize("kind", ["timm centre", "timm squash", "CLIP", "ViT"])
def test_a_mask_lands_on_what_it_covers(kind: str) -> None:
    preprocessing = KINDS[kind]()
    picture = Image.new("RGB", (500, 380))
    ImageDraw.Draw(picture).ellipse((300, 90, 330, 120), fill="white")
    pixels, frame = preprocessing(picture)
    cells = torch.nn.functional.adaptive_avg_pool2d(shares(pixels).mean(0, keepdim=True), 28)[0]
    whole = frame.saliency_on_original(cells.numpy().astype(np.float32))
    row, column = np.unravel_index(whole.argmax(), whole.shape)
    assert abs(column - 315) < 20
    assert abs(row - 105) < 20


@pytest.mark.parametrize("kind", ["timm border", "CLIP", "EfficientNet"])
def test_loaders_can_send_them_to_their_processes(kind: str) -> None:
    preprocessing = KINDS[kind]()
    copy = pickle.loads(pickle.dumps(preprocessing))
    picture = coordinates(200, 150)
    for one, other in zip(preprocessing(picture), copy(picture), strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other
    assert copy.describe() == preprocessing.describe()


def test_processors_that_reverse_the_colours() -> None:
    preprocessing = processor("MobileViTImageProcessor", do_flip_channel_order=True)
    assert preprocessing.reverses
    assert not processor("ViTImageProcessor").reverses
    pixels, _ = preprocessing(Image.new("RGB", (80, 80), (255, 102, 0)))
    assert pixels[:, 100, 100].tolist() == pytest.approx([1, 0.4, 0], abs=1e-6)


def test_values_are_those_of_the_processor() -> None:
    for settings in (
        {},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [60.0, 70.0, 80.0]},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        {"do_normalize": False},
        {"do_normalize": False, "do_rescale": False},
    ):
        preprocessing = processor("ViTImageProcessor", **settings)
        picture = coordinates(300, 200)
        pixels, _ = preprocessing(picture)
        assert pixels.min() > -1e-5
        assert pixels.max() < 1 + 1e-5
        mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
        expected = preprocessing.processor(images=picture, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close((pixels - mean) / std, expected.float(), rtol=1e-5, atol=1e-5)


def test_settings_decide_the_description() -> None:
    assert processor("ViTImageProcessor").describe() == processor("ViTImageProcessor").describe()
    for settings in ({"resample": 3}, {"size": {"height": 96, "width": 96}}):
        assert (
            processor("ViTImageProcessor", **settings).describe() != processor("ViTImageProcessor").describe()
        )
    assert processor("BitImageProcessor").describe() != processor("CLIPImageProcessor").describe()


def test_own_transforms_of_torchvision() -> None:
    steps = [transforms.Resize((80, 100)), transforms.CenterCrop(60)]
    _, frame = PictureTransform(steps, "mine")(Image.new("RGB", (200, 160)))
    assert frame == Frame(200, 160, (40, 20, 160, 140), (60, 60))
    grey = PictureTransform(steps, "mine", mode="L")(coordinates(200, 160))[0]
    assert grey.shape == (1, 60, 60)


# --- what cannot be done is said ------------------------------------------------------------------------


def test_unknown_steps_are_named() -> None:
    transform = PictureTransform([transforms.RandomResizedCrop(50)], "mine")
    with pytest.raises(IgosError, match="step RandomResizedCrop changes the size"):
        transform(Image.new("RGB", (200, 100)))


def test_inputs_of_different_sizes_are_refused() -> None:
    transform = PictureTransform([transforms.Resize(50)], "mine")
    with pytest.raises(IgosError, match="mine makes inputs of different sizes"):
        input_size_of(transform, "mine")
    with pytest.raises(IgosError, match="makes inputs of different sizes"):
        input_size_of(processor("CLIPImageProcessor", do_center_crop=False), "clip")


def test_flips_and_unknown_changes_of_size_are_refused() -> None:
    with pytest.raises(IgosError, match="flips"):
        traced_frame(lambda image: image.flip(-1), 50, 40)
    with pytest.raises(IgosError, match="in an unknown way"):
        traced_frame(lambda image: torch.zeros(3, 7, 7, device=image.device), 50, 40)


def test_other_kinds_of_processors_are_refused() -> None:
    with pytest.raises(IgosError, match="object cannot be used here: only image processors of torchvision"):
        ImageProcessorTransform(object())
