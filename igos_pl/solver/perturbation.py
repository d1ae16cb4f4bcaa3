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
