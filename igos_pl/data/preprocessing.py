"""How a picture becomes a network's input: which part of it the network sees, and at which size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from igos_pl.checks import check_choice
from igos_pl.data.geometry import RESIZE_MODES, Frame
from igos_pl.data.images import to_input
from igos_pl.settings import Configurable


class Preprocessing(Configurable, ABC):
    """Turns pictures into a network's input, without normalising them.

    Data-loading processes get a copy, so it holds no network. All parameters of its constructor are settings
    of the run, see `igos_pl.settings.Configurable`.
    """

    @abstractmethod
    def __call__(self, picture: Image.Image) -> tuple[Tensor, Frame]:
        """The network's input, and the part of the picture that it shows.

        Args:
            picture: upright, 8-bit RGB.

        Returns:
            ``(C, H, W)``, either uint8 or float32 in which 1 stands for 255; and its frame.
        """


class Resize(Preprocessing):
    """Scales a picture, or its centre, to a fixed size with antialiasing.

    Args:
        input_size: height and width of the network's input.
        resize: ``squash`` scales the whole picture, whatever its aspect ratio (as published); ``crop`` scales
            its centre (the usual ImageNet evaluation).
        channels: 3, or 1 for grey values.
    """

    not_settings = frozenset({"input_size", "channels"})  # the network has them as settings

    def __init__(
        self,
        input_size: tuple[int, int],
        resize: Literal["squash", "crop"] = "squash",
        channels: int = 3,
    ) -> None:
        check_choice("resize", resize, RESIZE_MODES)
        self.input_size = input_size
        self.resize = resize
        self.channels = channels

    def __call__(self, picture: Image.Image) -> tuple[Tensor, Frame]:
        """See `Preprocessing`.

        Raises:
            IgosError: if the network takes neither 1 nor 3 channels.
        """
        frame = Frame.of(picture.width, picture.height, self.input_size, self.resize)
        return torch.from_numpy(to_input(picture, frame, self.channels)), frame
