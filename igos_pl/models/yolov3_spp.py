"""YOLOv3 with spatial pyramid pooling, for the 80 COCO classes.

Sources: J. Redmon and A. Farhadi, "YOLOv3: An Incremental Improvement", arXiv:1804.02767 (2018);
spatial pyramid pooling after K. He et al., arXiv:1406.4729 (2014). Layers are numbered as in the
darknet configuration `yolov3-spp.cfg`, because the names in published checkpoints depend on it.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_CLASSES = 80
NUM_VALUES = 4 + 1 + NUM_CLASSES  # of a prediction: box, objectness, class probabilities
MAX_STRIDE = 32

# Anchor (width, height) in input pixels, by the stride of the scale that uses them.
ANCHORS = {
    32: ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
    16: ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    8: ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
}
_BATCH_NORM_EPS = 1e-5

# A row of the layer table; references to layers are absolute, or relative to the row if negative.
#   conv   (channels, kernel, stride)   convolution, batch norm, leaky ReLU
#   linear (channels,)                  1x1 convolution with a bias, nothing after it
#   add    (layer,)                     sum of the previous output and that layer's
#   cat    (layer, ...)                 those outputs, concatenated along the channels
#   pool   (kernel,)                    max pooling that keeps the size
#   up     (factor,)                    nearest-neighbour upsampling
#   detect (stride,)                    decode the previous output into predictions
_Row = tuple[str, tuple[int, ...]]


def _residual_stage(channels: int, blocks: int) -> list[_Row]:
    """Halve the resolution, then add `blocks` bottlenecks."""
    squeeze, expand = ("conv", (channels // 2, 1, 1)), ("conv", (channels, 3, 1))
    return [("conv", (channels, 3, 2)), *[squeeze, expand, ("add", (-3,))] * blocks]


def _squeeze_expand(channels: int, times: int) -> list[_Row]:
    """`times` pairs of a 1x1 convolution to `channels` and a 3x3 convolution to twice as many."""
    return [("conv", (channels, 1, 1)), ("conv", (2 * channels, 3, 1))] * times


def _detect(stride: int) -> list[_Row]:
    return [("linear", (len(ANCHORS[stride]) * NUM_VALUES,)), ("detect", (stride,))]


def _finer(channels: int, skip: int) -> list[_Row]:
    """Upsample the last squeezed features and join them with backbone layer `skip`."""
    return [("cat", (-4,)), ("conv", (channels, 1, 1)), ("up", (2,)), ("cat", (-1, skip))]


def _absolute(rows: list[_Row]) -> list[_Row]:
    """Resolve the relative layer references."""
    return [
        (kind, tuple(a + i if a < 0 else a for a in args) if kind in ("add", "cat") else args)
        for i, (kind, args) in enumerate(rows)
    ]


_LAYERS = _absolute(
    [
        ("conv", (32, 3, 1)),  # layer 0
        *_residual_stage(64, 1),  # 1-4
        *_residual_stage(128, 2),  # 5-11
        *_residual_stage(256, 8),  # 12-36
        *_residual_stage(512, 8),  # 37-61
        *_residual_stage(1024, 4),  # 62-74
        *_squeeze_expand(512, 1),  # 75-76
        ("conv", (512, 1, 1)),  # 77, pooled at three window sizes in 78-83
        *[("pool", (5,)), ("cat", (77,)), ("pool", (9,)), ("cat", (77,)), ("pool", (13,))],
        ("cat", (82, 80, 78, 77)),
        *[*_squeeze_expand(512, 2), *_detect(32)],  # 84-89
        *[*_finer(256, skip=61), *_squeeze_expand(256, 3), *_detect(16)],  # 90-101
        *[*_finer(128, skip=36), *_squeeze_expand(128, 3), *_detect(8)],  # 102-113
    ]
)
_REUSED = {layer for kind, args in _LAYERS if kind in ("add", "cat") for layer in args}


def decode_predictions(raw: Tensor, anchors: Sequence[tuple[float, float]], stride: int) -> Tensor:
    """Turn one scale's raw outputs into boxes and probabilities.

    Args:
        raw: `(B, A * 85, h, w)`, unbounded, of a grid of cells `stride` pixels wide.
        anchors: `A` pairs of width and height in input pixels.
        stride: input pixels per cell.

    Returns:
        `(B, A * h * w, 85)` in the order anchor, row, column. The last axis is center x, center y,
        width, height in input pixels, then objectness and class probabilities in [0, 1].
        At least float32: bfloat16 cannot tell neighbouring pixels apart beyond 256.
    """
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    batch, _, height, width = raw.shape
    raw = raw.reshape(batch, len(anchors), NUM_VALUES, height, width).permute(0, 1, 3, 4, 2)
    rows, columns = (torch.arange(n, dtype=raw.dtype, device=raw.device) for n in (height, width))
    corner = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)  # (h, w, 2)
    center = (raw[..., :2].sigmoid() + corner) * stride
    size = raw[..., 2:4].exp() * raw.new_tensor(anchors)[:, None, None]
    return torch.cat([center, size, raw[..., 4:].sigmoid()], dim=-1).flatten(1, 3)


def _convolution(before: int, channels: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            Conv2d=nn.Conv2d(before, channels, kernel, stride, kernel // 2, bias=False),
            BatchNorm2d=nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPS),
            # In place, so that autograd keeps one activation per layer instead of two.
            activation=nn.LeakyReLU(0.1, inplace=True),
        )
    )


def _check_images(images: Tensor) -> None:
    """Raise a ValueError unless `images` is `(B, 3, H, W)`, H and W positive multiples of 32."""
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or any(n < 1 or n % MAX_STRIDE for n in shape[2:]):
        raise ValueError(
            f"images: expected shape (B, 3, H, W) with H and W multiples of {MAX_STRIDE}, "
            f"got {shape}; resize or pad the images first"
        )


class YOLOv3SPP(nn.Module):
    """YOLOv3-SPP detector that returns decoded predictions, before non-maximum suppression.

    The `state_dict` has the names, shapes and order of the `model` entry of the published
    `yolov3-spp-ultralytics-512.pt`, which thus loads strictly. Call `eval()` before use.
    """

    def __init__(self) -> None:
        """Build the layers with PyTorch's default initialisation."""
        super().__init__()
        # A dictionary keyed by layer number: rows without weights leave gaps in the numbering.
        self.module_list = nn.ModuleDict()
        widths: list[int] = []  # channels of each layer's output
        width = 3
        for index, (kind, args) in enumerate(_LAYERS):
            if kind == "conv":
                self.module_list[str(index)] = _convolution(width, *args)
                width = args[0]
            elif kind == "linear":
                linear = nn.Conv2d(width, args[0], kernel_size=1)
                self.module_list[str(index)] = nn.Sequential(OrderedDict(Conv2d=linear))
            elif kind == "cat":
                width = sum(widths[layer] for layer in args)
            widths.append(width)

    def forward(self, images: Tensor) -> Tensor:
        """Detect objects.

        Args:
            images: `(B, 3, H, W)`, RGB in [0, 1]; H and W multiples of 32.

        Returns:
            `(B, R, 85)`: the `decode_predictions` of strides 32, 16 and 8, in this order.
            R is the sum of `3 * (H / stride) * (W / stride)`; 16128 for 512 x 512.

        Raises:
            ValueError: if `images` has another shape.
        """
        _check_images(images)
        x = images
        kept: dict[int, Tensor] = {}
        predictions: list[Tensor] = []
        for index, (kind, args) in enumerate(_LAYERS):
            if kind in ("conv", "linear"):
                x = self.module_list[str(index)](x)
            elif kind == "add":
                x = x + kept.pop(args[0])  # its last use: frees it if no gradient is wanted
            elif kind == "cat":
                x = torch.cat([kept[layer] for layer in args], dim=1)
            elif kind == "pool":
                x = F.max_pool2d(x, args[0], stride=1, padding=args[0] // 2)
            elif kind == "up":
                x = F.interpolate(x, scale_factor=args[0], mode="nearest")
            else:
                predictions.append(decode_predictions(x, ANCHORS[args[0]], args[0]))
            if index in _REUSED:
                kept[index] = x
        return torch.cat(predictions, dim=1)
