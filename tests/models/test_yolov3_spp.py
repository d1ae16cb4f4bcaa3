"""YOLOv3-SPP against the published checkpoint's layout and a golden output."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from igos_pl.models.yolov3_spp import ANCHORS, YOLOv3SPP, decode_predictions

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Fix the order of the sums, and leave the other cores alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "yolov3_spp.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def shapes() -> list[tuple[str, list[int]]]:
    text = (GOLDEN / "yolov3_spp_state_dict.json").read_text()
    return list(json.loads(text).items())


def golden_weight(random: np.random.RandomState, key: str, shape: list[int]) -> Tensor:
    """Draw one entry of the state dict as it was drawn for the golden output."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_var"):
        value = 0.5 + random.rand(*shape)
    elif key.endswith("running_mean"):
        value = 0.1 * random.randn(*shape)
    elif "BatchNorm2d.weight" in key:
        value = 0.45 + 0.15 * random.rand(*shape)
    elif key.endswith("bias"):
        value = 0.1 * random.randn(*shape)
    else:
        value = random.randn(*shape) * np.sqrt(2 / prod(shape[1:]))
    return torch.from_numpy(value).float()


@pytest.fixture(scope="module")
def model(
    golden: dict[str, np.ndarray], shapes: list[tuple[str, list[int]]], meta_model: YOLOv3SPP
) -> YOLOv3SPP:
    random = np.random.RandomState(int(golden["weights_seed"]))
    weights = {key: golden_weight(random, key, shape) for key, shape in shapes}
    model = deepcopy(meta_model)  # skips an initialisation that is overwritten anyway
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def meta_model() -> YOLOv3SPP:
    """A model without storage, for what only depends on shapes."""
    with torch.device("meta"):
        return YOLOv3SPP().eval()


@pytest.fixture(scope="module")
def image(golden: dict[str, np.ndarray]) -> Tensor:
    return torch.from_numpy(golden["image"])


def test_state_dict_is_the_published_one(meta_model: YOLOv3SPP, shapes: list[tuple[str, list[int]]]) -> None:
    assert [(key, list(value.shape)) for key, value in meta_model.state_dict().items()] == shapes


# Boxes are up to 400 pixels wide: in float32, rounding alone comes to 1e-4 there.
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-6), (torch.float64, 0.0)])
def test_golden_output(
    model: YOLOv3SPP,
    image: Tensor,
    golden: dict[str, np.ndarray],
    dtype: torch.dtype,
    rtol: float,
) -> None:
    before = image.clone()
    if dtype == torch.float64:
        model = deepcopy(model).double()
    with torch.no_grad():
        output = model(image.to(dtype))
    expected = torch.from_numpy(golden["output"]).to(dtype)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=rtol)
    assert torch.equal(image, before)


@pytest.mark.parametrize("values", [slice(0, 4), slice(4, 5), slice(5, None)])
def test_image_gradient(model: YOLOv3SPP, image: Tensor, values: slice) -> None:
    image = image[..., :32, :32].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(image)[..., values].sum(), image)
    assert gradient.isfinite().all()
    assert gradient.abs().amin(dim=(0, 2, 3)).gt(0).all()


def test_batch_equals_one_at_a_time(model: YOLOv3SPP, image: Tensor) -> None:
    batch = torch.cat([image, image.flip(3)])
    with torch.no_grad():
        together, alone = model(batch), torch.cat([model(one[None]) for one in batch])
    assert not torch.allclose(alone[0], alone[1])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-6)


def test_bfloat16_autocast_decodes_in_float32(model: YOLOv3SPP, image: Tensor) -> None:
    with torch.no_grad():
        expected = model(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(image)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, expected, atol=0.02, rtol=0.02)


def test_follows_shape_and_device(meta_model: YOLOv3SPP) -> None:
    """On the meta device any tensor left on another one is an error, and large sizes are free."""
    for height, width in [(512, 512), (96, 416)]:
        output = meta_model(torch.empty(2, 3, height, width, device="meta"))
        cells = sum((height // stride) * (width // stride) for stride in ANCHORS)
        assert output.shape == (2, 3 * cells, 85)
        assert output.device.type == "meta"


def test_pooling_windows_and_their_order(model: YOLOv3SPP) -> None:
    """The golden image has 2 x 3 cells, which every window covers: here there are 1 x 14."""
    seen: list[Tensor] = []
    hook = model.module_list["84"].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(torch.rand(1, 3, 32, 448, generator=torch.Generator().manual_seed(0)))
    hook.remove()
    *pooled, features = seen[0].reshape(4, 512, 14)
    for window, radius in zip(pooled, (6, 4, 2), strict=True):
        cells = [features[:, max(i - radius, 0) : i + radius + 1].amax(1) for i in range(14)]
        assert torch.equal(window, torch.stack(cells, dim=1))


def test_decode_by_hand() -> None:
    """Zeros decode to cell centers, anchor sizes and probabilities of one half."""
    output = decode_predictions(torch.zeros(1, 2 * 85, 1, 2), ((10.0, 13.0), (16.0, 30.0)), 8)
    boxes = [[4, 4, 10, 13], [12, 4, 10, 13], [4, 4, 16, 30], [12, 4, 16, 30]]
    torch.testing.assert_close(output[0, :, :4], torch.tensor(boxes, dtype=torch.float32))
    assert output[..., 4:].eq(0.5).all()


@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 100), (1, 3, 31, 64), (1, 3, 0, 32), (1, 1, 64, 64), (3, 64, 64)]
)
def test_wrong_shape_is_named(meta_model: YOLOv3SPP, shape: tuple[int, ...]) -> None:
    message = rf"expected shape \(B, 3, H, W\).*multiples of 32.*got {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=message):
        meta_model(torch.zeros(shape))
