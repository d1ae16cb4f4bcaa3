"""How a mask changes an image: upsampling and blending with a baseline."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring masks to image resolution, bilinearly with aligned corners (I-GOS, section 3.2).

    Args:
        masks: ``(B, M, s, s)``.
        size: ``(H, W)`` in pixels.

    Returns:
        ``(B, M, H, W)``; the masks themselves where the size is already right.
    """
    if masks.shape[-2:] == size:
        return masks
    return F.interpolate(masks, size=size, mode="bilinear", align_corners=True)


def blend(images: Tensor, baselines: Tensor, masks: Tensor) -> Tensor:
    """Keep ``images`` where the mask is 1 and put ``baselines`` where it is 0.

    Args:
        images: ``(B, 3, H, W)``.
        baselines: ``(B, 3, H, W)``.
        masks: ``(B, 1, H, W)`` in [0, 1].

    Returns:
        ``(B, 3, H, W)``: ``images * masks + baselines * (1 - masks)``.
    """
    return torch.lerp(baselines, images, masks.expand_as(images))
