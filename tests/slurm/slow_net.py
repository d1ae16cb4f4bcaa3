"""For jobs that are to be interrupted: they must last, but need not keep a processor busy."""

from __future__ import annotations

import time

import tiny
from torch import Tensor


class SlowNet(tiny.TinyNet):
    """Computes what `TinyNet` does, and takes its time."""

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(0.03)
        return super().forward(images)
