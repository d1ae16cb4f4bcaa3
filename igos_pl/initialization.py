"""Where the optimisation of a mask starts."""

from __future__ import annotations

import torch
from torch import Tensor


def whole_image_start(rows: int, masks: int, size: int, device: torch.device) -> Tensor:
    """All ones, ``(rows, masks, size, size)``: nothing is removed yet."""
    return torch.ones(rows, masks, size, size, device=device)
