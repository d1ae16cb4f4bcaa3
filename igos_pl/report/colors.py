"""The colours of saliency in a report: those of the overlays."""

from __future__ import annotations

import base64

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

# Perceptually uniform, and dark where nothing matters; the same as in the overlays.
PALETTE = (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def palette_text() -> str:
    """The 256 colours as base64 of 768 bytes, red, green and blue in turn."""
    return base64.b64encode(PALETTE.tobytes()).decode()


def colored(saliency: NDArray[np.float32], top: float) -> NDArray[np.uint8]:
    """The colours of saliency values.

    Args:
        saliency: ``(h, w)``.
        top: the saliency that gets the brightest colour; 0 gets the darkest.

    Returns:
        ``(h, w, 3)``.
    """
    return PALETTE[(saliency * (255 / top)).round().clip(0, 255).astype(np.uint8)]
