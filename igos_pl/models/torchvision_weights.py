"""Weight files of torchvision's networks: a file, or one of the weights that torchvision names."""

from __future__ import annotations

from pathlib import Path

import torchvision

from igos_pl.errors import IgosError
from igos_pl.models.weights import WEIGHT_SUFFIXES, fetch_weights


def weights_file(name: str, weights: str, folder: str) -> str:
    """The path of a network's weight file.

    Args:
        name: of one of torchvision's networks.
        weights: a file, or the name of one of the network's weights enums. The enum's file is downloaded into
            the folder if it is not there.
        folder: where the files of weights enums are kept.

    Raises:
        IgosError: if it is neither, or the download fails.
    """
    enum = torchvision.models.get_model_weights(name)
    if weights in enum.__members__:
        return fetch_weights(enum[weights].url, Path(folder))
    if Path(weights).suffix not in WEIGHT_SUFFIXES:
        raise IgosError(
            f"weights is {weights!r}, which is neither a weight file (.pth, .ckpt, .safetensors) nor one of"
            f" {name}'s weights: {', '.join(enum.__members__)}"
        )
    return weights
