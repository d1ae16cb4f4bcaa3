"""Baselines: images without information that masks blend towards, made on the device before normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from igos_pl.checks import check_choice, check_shape
from igos_pl.randomness import generator_of

BASELINES = ("blur", "black", "mean", "noise")


def make_baselines(kind: str, images: Tensor, sample_ids: Sequence[str], seed: int) -> Tensor:
    """One baseline for each image.

    Args:
        kind: ``blur`` (Gaussian, as published), ``black`` (zeros), ``mean`` (the image's own mean colour) or
            ``noise`` (uniform from 0 to 1, or 255; it depends only on the seed and the sample id).
        images: ``(B, C, H, W)``: uint8, or float in which 1 stands for 255.
        sample_ids: the names of the B images.
        seed: the run's seed.

    Returns:
        ``(B, C, H, W)`` of the images' type; rounded if that is uint8.

    Raises:
        IgosError: if the kind or the shape is another one.
    """
    check_choice("baseline", kind, BASELINES)
    check_shape("images", images, ("B", "C", "H", "W"))
    if kind == "blur":
        return gaussian_blur(images, *blur_parameters(images.shape[-2:]))
    if kind == "black":
        return torch.zeros_like(images)
    if kind == "mean":
        mean = images.float().mean((-2, -1), keepdim=True)
        return _like(images, mean).expand_as(images).contiguous()
    cpu = torch.device("cpu")  # noise is drawn there, so that it is the same for all devices
    noise = [
        torch.randint(
            256, images.shape[1:], dtype=torch.uint8, generator=generator_of(cpu, seed, name, "baseline")
        )
        for name in sample_ids
    ]
    drawn = torch.stack(noise).to(images.device)
    return drawn / 255 if images.is_floating_point() else drawn


def blur_parameters(size: Sequence[int]) -> tuple[int, float]:
    """The published kernel (odd, in pixels) and sigma for an input of ``(H, W)``.

    The kernel is shorter for small inputs, because half a kernel of padding must fit into the image.
    """
    longest, shortest = max(size), min(size)
    kernel, sigma = (51, 50.0) if longest < 500 else (151, 150.0) if longest < 800 else (201, 200.0)
    return min(kernel, 2 * shortest - 1), sigma


def gaussian_blur(images: Tensor, kernel: int, sigma: float) -> Tensor:
    """Blur images, borders mirrored without repeating the edge pixel.

    Two one-dimensional passes: torchvision's two-dimensional kernel costs `kernel / 2` times as much.

    Args:
        images: ``(B, C, H, W)`` uint8 or float.
        kernel: odd, in pixels.
        sigma: in pixels.

    Returns:
        ``(B, C, H, W)`` of the images' type; rounded if that is uint8.
    """
    offsets = torch.arange(kernel, device=images.device, dtype=torch.float32) - kernel // 2
    weights = torch.exp(-0.5 * (offsets / sigma).square())
    weights = weights / weights.sum()
    batch, channels, height, width = images.shape
    half = kernel // 2
    planes = images.float().reshape(batch * channels, 1, height, width)
    planes = F.pad(planes, (half, half, half, half), mode="reflect")
    with torch.autocast(images.device.type, enabled=False):
        planes = F.conv2d(planes, weights.reshape(1, 1, kernel, 1))
        planes = F.conv2d(planes, weights.reshape(1, 1, 1, kernel))
    return _like(images, planes).reshape(images.shape)


def _like(images: Tensor, values: Tensor) -> Tensor:
    """Float values converted to the images' type."""
    return values if images.is_floating_point() else values.round().clamp(0, 255).to(torch.uint8)
