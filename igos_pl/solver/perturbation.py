"""How a mask changes an image: it blends it with a baseline."""

from __future__ import annotations

import torch
from torch import Tensor


def blend(images: Tensor, baselines: Tensor, masks: Tensor) -> Tensor:
    """Keep ``images`` where the mask is 1 and put ``baselines`` where it is 0.

    Args:
        images: ``(B, C, H, W)``.
        baselines: ``(B, C, H, W)``.
        masks: ``(B, 1, H, W)`` in [0, 1].

    Returns:
        ``(B, C, H, W)``: ``images * masks + baselines * (1 - masks)``.
    """
    return torch.lerp(baselines, images, masks.expand_as(images))


def perturbed(images: Tensor, baselines: Tensor, rows: Tensor, masks: Tensor) -> Tensor:
    """Blend some images with their baselines, in the memory order in which networks are fastest.

    Args:
        images: ``(N, C, H, W)``; blending is faster if they are in this order in memory.
        baselines: ``(N, C, H, W)``, likewise.
        rows: ``(B,)`` the numbers of the images.
        masks: ``(B, 1, H, W)``, see `blend`.

    Returns:
        ``(B, C, H, W)``, channels last.
    """
    whole, bare = (source.index_select(0, rows) for source in (images, baselines))
    return blend(whole, bare, masks).contiguous(memory_format=torch.channels_last)
