"""How an image of any data set becomes the network's input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from igos_pl.data.geometry import Frame
from igos_pl.data.images import OVERSHOOT
from igos_pl.data.preprocessing import Preprocessing
from igos_pl.errors import IgosError


class NetworkInput:
    """Turns pictures and tensors into a network's input, without normalising them.

    Pictures are preprocessed. Tensors of the input's size are taken as they are. A uint8 tensor of another
    size is preprocessed as a picture; a float tensor of another size is refused.

    Args:
        preprocessing: is applied to pictures.
        input_size: height and width of the network's input.
        mean: of the network's normalisation, for each channel.
        std: of the network's normalisation, for each channel.
        normalized: whether images are float tensors that are already normalised by this mean and std. The
            normalisation is undone, since baselines and perturbed images are made of pixel values.
        bounded: whether float values far outside of [0, 1] are refused.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        input_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        normalized: bool = False,
        bounded: bool = True,
    ) -> None:
        self.preprocessing = preprocessing
        self.input_size = input_size
        self.mean = torch.tensor(mean).reshape(-1, 1, 1)
        self.std = torch.tensor(std).reshape(-1, 1, 1)
        self.normalized = normalized
        self.bounded = bounded

    def __call__(self, image: Image.Image | Tensor) -> tuple[Tensor, Frame]:
        """The network's input, and the part of the image that it shows.

        Args:
            image: upright, 8-bit RGB; or a tensor ``(C, H, W)``: uint8, or float in which 1 stands for 255.

        Returns:
            ``(C, H, W)``, either uint8 or float32 in which 1 stands for 255; and its frame.

        Raises:
            IgosError: if the tensor has another shape or type, or values far outside of [0, 1], or values
                that are not finite; or if it has 8-bit values although images are normalised.
        """
        if self.normalized and (isinstance(image, Image.Image) or image.dtype == torch.uint8):
            raise IgosError(
                "the image has 8-bit values, which are not normalised, but normalized is set: leave"
                " normalized=True (--data.normalized true) out, or give normalised float tensors"
            )
        if isinstance(image, Image.Image):
            return self.preprocessing(image)
        wanted = (len(self.mean), *self.input_size)
        if image.dtype == torch.uint8 and image.ndim == 3 and tuple(image.shape) != wanted:
            return self.preprocessing(_picture(image, wanted))
        if tuple(image.shape) != wanted:
            raise IgosError(
                f"the image is a tensor of the shape {tuple(image.shape)}, but the network takes {wanted}:"
                f" add torchvision.transforms.Resize(({wanted[1]}, {wanted[2]})) to the data set's transform,"
                " or remove the transform, so that the network's own preprocessing is used"
            )
        height, width = self.input_size
        frame = Frame(width, height, (0.0, 0.0, float(width), float(height)), self.input_size)
        return (image if image.dtype == torch.uint8 else self._shares(image)), frame

    def _shares(self, image: Tensor) -> Tensor:
        """A float image as values in which 1 stands for 255."""
        if not image.is_floating_point():
            raise IgosError(
                f"the image is a tensor of {image.dtype}, but must be of torch.uint8 (0 to 255) or"
                " torch.float32 (0 to 1)"
            )
        image = image.float()
        if self.normalized:
            image = image * self.std + self.mean
        low, high = image.min().item(), image.max().item()
        if not (math.isfinite(low) and math.isfinite(high)):  # those of values with NaN are NaN
            raise IgosError("the image has values that are not finite (NaN or infinity): correct them")
        if not self.bounded or (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
            return image
        found = f"the image has values from {low:.3g} to {high:.3g}"
        if self.normalized:
            raise IgosError(
                f"{found} when the network's normalisation (mean {_listed(self.mean)}, std"
                f" {_listed(self.std)}) is undone, but 0 to 1 is expected: normalise the images by this mean"
                " and std; or do not normalise them, and leave normalized=True (--data.normalized true) out"
            )
        raise IgosError(
            f"{found}, but 0 to 1 is expected: set normalized=True (--data.normalized true) if the images are"
            " already normalised; divide them by 255, or use torch.uint8, if values go up to 255"
        )


def _picture(image: Tensor, wanted: tuple[int, ...]) -> Image.Image:
    """A uint8 tensor as RGB."""
    if image.shape[0] not in (1, 3):
        raise IgosError(
            f"the image is a tensor of the shape {tuple(image.shape)}, but the network takes {wanted}, and"
            " only tensors with 1 or 3 channels can be scaled"
        )
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")


def _listed(values: Tensor) -> str:
    return ", ".join(f"{value:.3g}" for value in values.flatten().tolist())
