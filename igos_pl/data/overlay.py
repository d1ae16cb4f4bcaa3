"""Saliency in colour over an image in grey, the same in figures and in reports."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

OPACITY = 0.9  # of the most salient pixel
RISE = 0.75  # the opacity grows with this power of the saliency, so that weak saliency can be seen
# The colours span at least this range of saliency, so that a mask without content looks empty.
SMALLEST_RANGE = 0.1
# A mask whose saliency is below this everywhere says nothing.
EMPTY = 0.01
_GREYS = (0.12, 0.82)  # black and white of the image below the colours


def overlaid(
    pixels: NDArray[np.floating[Any]], colors: NDArray[np.floating[Any]], share: NDArray[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """The saliency in colour over the image in grey, so that all colour is saliency.

    Args:
        pixels: ``(height, width, 3)`` the image, in [0, 1].
        colors: ``(height, width, 3)`` the colours of the saliency, in [0, 1].
        share: ``(height, width)`` the saliency as a share of the range of colours, in [0, 1].

    Returns:
        ``(height, width, 3)`` in [0, 1].
    """
    black, white = _GREYS
    grey = black + (white - black) * pixels.mean(-1, keepdims=True)
    opacity = OPACITY * share[..., None] ** RISE
    return np.asarray((1 - opacity) * grey + opacity * colors)
