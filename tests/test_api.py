"""`igos_pl.explain` on images in memory, and the interfaces of Captum and Quantus."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN

import igos_pl
from igos_pl import Classifier, Explainer, MaskAttribution, MaskFile, RCNNDetector, explain, explain_func
from igos_pl.api.images import Picture, gathered
from igos_pl.cli.info import print_info
from igos_pl.demo.run import CHECKPOINTS, SHAPES_INPUT
from igos_pl.demo.shapes import draw_shapes
from igos_pl.demo.shapes_detectors import CATEGORIES, shapes_mask_rcnn
from igos_pl.errors import IgosError
from igos_pl.models.weights import load_weights

IDS = ["image 0", "image 1", "image 2"]
QUICK: dict[str, Any] = {"iterations": 2, "mask_size": 6}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def normalized(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return (pixels / 255 - mean) / std


@pytest.fixture
def images() -> Tensor:
    return tiny.pictures(3)


@pytest.fixture
def net() -> tiny.TinyNet:
    return tiny.TinyNet()


def test_two_lines_explain_a_tensor(net: tiny.TinyNet, images: Tensor) -> None:
    result = explain(net, normalized(images), iterations=2)
    assert result.masks.shape == (3, 24, 24)  # the default of 28 is larger than the images
    np.testing.assert_array_equal(result.saliency, 1 - result.masks)
    assert (result.masks < 1).any((1, 2)).all()
    assert result.label.tolist() == net(normalized(images)).argmax(1).tolist()
    assert result.deletion_curve.shape == result.insertion_curve.shape == (3, 51)
    assert result.image_index.tolist() == [0, 1, 2]
    assert [heat.shape for heat in result.saliency_on_original()] == [(24, 24)] * 3
    assert repr(result) == "<3 explanations of 3 images>"


def test_the_callers_network_is_left_as_it_was(net: tiny.TinyNet, images: Tensor) -> None:
    net.second.eval()
    net.last.bias.requires_grad_(False)
    before = {
        name: (value.clone(), value.data_ptr(), value.stride()) for name, value in net.state_dict().items()
    }
    net.last.weight.grad = torch.ones_like(net.last.weight)
    random = torch.get_rng_state()
    explain(net, normalized(images), targets=lambda output: output[0], **QUICK)
    explain(net, normalized(images), targets=1, **QUICK)
    assert (net.training, net.second.training) == (True, False)
    assert not net.last.bias.requires_grad
    assert net.last.weight.requires_grad
    assert torch.equal(net.last.weight.grad, torch.ones_like(net.last.weight))
    for name, value in net.state_dict().items():
        values, pointer, strides = before[name]
        assert torch.equal(value, values)
        assert (value.data_ptr(), value.stride()) == (pointer, strides)
    assert torch.equal(torch.get_rng_state(), random)


def test_it_gives_what_the_explainer_gives(net: tiny.TinyNet, images: Tensor) -> None:
    adapter = Classifier(net, input_size=tiny.SIZE, mean=MEAN, std=STD)
    wanted = Explainer(adapter, **QUICK).predict_step(tiny.batch_of(images, IDS)).explanations
    result = explain(adapter, images, **QUICK)
    np.testing.assert_array_equal(result.masks, wanted["masks"])
    for same in (
        explain(net, images, mean=MEAN, std=STD, **QUICK),
        explain(adapter, images / 255, baseline="black", **QUICK),
        explain(adapter, normalized(images), baseline="black", normalized=True, **QUICK),
    ):
        assert same.score == pytest.approx(wanted["score"], abs=1e-6)
    black = explain(adapter, images, baseline="black", **QUICK)
    given = explain(adapter, normalized(images), baseline="black", normalized=True, **QUICK)
    np.testing.assert_allclose(given.masks, black.masks, atol=1e-4)


def test_batches_make_no_difference(net: tiny.TinyNet, images: Tensor) -> None:
    one, all_ = (explain(net, normalized(images), batch_size=size, **QUICK) for size in (1, 3))
    np.testing.assert_allclose(one.masks, all_.masks, atol=1e-5)


def test_pictures_of_any_kind_are_scaled_to_the_network(tmp_path: Path, net: tiny.TinyNet) -> None:
    folder = tiny.write_pictures(tmp_path, ["a.png", "b.png"])
    adapter = Classifier(net, input_size=tiny.SIZE)
    paths = [str(folder / "a.png"), folder / "b.png"]
    wanted = explain(adapter, paths, **QUICK)
    pictures = [Image.open(path) for path in paths]
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    for images in (pictures, arrays, list(arrays)):
        np.testing.assert_array_equal(explain(adapter, images, **QUICK).score, wanted.score)
    assert [heat.shape for heat in wanted.saliency_on_original()] == [(30, 40)] * 2
    assert [record.path for record in wanted.images] == [str(path) for path in paths]
    assert len(explain(adapter, paths[0], **QUICK)) == 1
    assert len(explain(adapter, pictures[0], **QUICK)) == 1
    assert [row.sample_id for row in explain(adapter, paths[:1] * 2, **QUICK)] == [
        f"0 {paths[0]}",
        f"1 {paths[0]}",
    ]


def test_a_picture_in_memory_is_read_as_its_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(rng.integers(0, 256, (20, 30, 4), np.uint8)).save(tmp_path / "transparent.png")
    Image.fromarray(rng.integers(0, 1 << 16, (20, 30), np.uint16)).save(tmp_path / "deep.png")
    for name in ("turned.jpg", "transparent.png", "deep.png"):
        (of_file,), (of_picture,) = gathered(tmp_path / name), gathered(Image.open(tmp_path / name))
        assert isinstance(of_file, Picture)
        assert isinstance(of_picture, Picture)
        np.testing.assert_array_equal(np.asarray(of_picture.image), np.asarray(of_file.image))


@pytest.mark.parametrize(("height", "width"), [(8, 4), (9, 3)])
def test_narrow_images_with_many_channels(height: int, width: int) -> None:
    """Their last axis is as short as that of channels, but the network takes more."""
    net = nn.Sequential(nn.Conv2d(12, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    result = explain(net, torch.rand(2, 12, height, width), iterations=1, mask_size=3, metrics=False)
    assert result.masks.shape == (2, 3, 3)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_and_any_size(channels: int) -> None:
    net = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(2, channels, 9, 17, generator=torch.Generator().manual_seed(0))
    for settings in ({}, {"mean": 0.5, "std": 0.25}, {"mean": [0.5] * channels, "std": [0.25] * channels}):
        result = explain(net, images, iterations=2, **settings)
        assert result.masks.shape == (2, 9, 9)
        assert result.saliency_on_original()[0].shape == (9, 17)
    assert explain(net, images.numpy(), iterations=2).masks.shape == (2, 9, 9)
    if channels in (1, 3):
        last = np.ascontiguousarray(np.moveaxis(images.numpy(), 1, -1))
        np.testing.assert_array_equal(
            explain(net, last, iterations=2).score, explain(net, images, iterations=2).score
        )


def test_grey_pictures_for_a_grey_network() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    grey = tiny.pictures(1, 20)[0, 0].numpy()
    result = explain(net, grey, mean=[0.5], std=[0.5], input_size=12, **QUICK)
    assert result.saliency_on_original()[0].shape == (20, 20)


def test_targets_are_labels_names_or_functions(net: tiny.TinyNet, images: Tensor) -> None:
    x = normalized(images)
    names = ["cat", "dog", "Fire engine", "bird", "fish"]
    assert explain(net, x, 3, **QUICK).label.tolist() == [3, 3, 3]
    assert explain(net, x, [0, 4, 2], **QUICK).label.tolist() == [0, 4, 2]
    assert explain(net, x, torch.tensor([0, 4, 2]), **QUICK).label.tolist() == [0, 4, 2]
    named = explain(net, x, ["fire engine", "dog", "dog"], class_names=names, **QUICK)
    assert named.label_name.tolist() == ["Fire engine", "dog", "dog"]
    assert explain(net, x[0], "fire_engine", class_names=names, **QUICK).label.tolist() == [2]
    assert explain(net, x[0], "bird", class_names=names, **QUICK).label.tolist() == [3]
    assert explain(net, x, top_k=2, **QUICK).image_index.tolist() == [0, 0, 1, 1, 2, 2]
    sigmoid = explain(net, x, 1, output="sigmoid", **QUICK)
    assert sigmoid.score == pytest.approx(net(x).sigmoid()[:, 1].detach().numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"start": {"k": 2}},
            r"start is \{'k': 2\} \(of the type dict\), but must be a Start, .*igos_pl\.Start\(k=2",
        ),
        ({"mask_size": "14"}, r"mask_size is '14' \(of the type str\), but must be a whole number"),
        ({"mask_size": 7.5}, r"mask_size is 7.5 \(of the type float\), but must be a whole number"),
        ({"top_k": True}, r"top_k is True \(of the type bool\), but must be a whole number"),
        ({"seed": "x"}, r"seed is 'x' \(of the type str\), but must be a whole number"),
        ({"metrics": "no"}, r"metrics is 'no' \(of the type str\), but must be true or false"),
        ({"normalized": "no"}, r"normalized is 'no' \(of the type str\), but must be true or false"),
        ({"input_size": "24"}, r"input_size is '24' \(of the type str\), but must be a whole number"),
        ({"input_size": (24.0, 24)}, r"input_size is 24.0 \(of the type float\), but must be a whole number"),
        ({"class_names": "cat"}, r"class_names is 'cat' \(of the type str\), but must be a list of names"),
        (
            {"class_names": {0: "cat"}},
            r"class_names is \{0: 'cat'\} \(of the type dict\), but must be a list of names",
        ),
        ({"class_names": np.array("a")}, r"class_names is array.* \(of the type ndarray\), but must"),
        ({"class_names": 0}, r"class_names is 0 \(of the type int\), but must be a list of names"),
        ({"class_names": ["a", 1]}, r"class_names\[1\] is 1 \(of the type int\), but must be text"),
        ({"average": 1}, r"average is 1 \(of the type int\), but must be true or false"),
        ({"curves": 3}, "curves is 3, but must be one of: adaptive, full"),
        ({"optimizer": "NAG"}, r"optimizer is a str, .*from igos_pl\.solver\.optimizers import NAG"),
    ],
)
def test_settings_of_a_wrong_type_are_named(
    net: tiny.TinyNet, images: Tensor, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(IgosError, match=message):
        explain(net, normalized(images), **{**QUICK, **settings})


def test_class_names_in_an_array(net: tiny.TinyNet, images: Tensor) -> None:
    names = np.array([f"c{label}" for label in range(tiny.CLASSES)])
    result = explain(net, normalized(images[:1]), class_names=names, metrics=False, **QUICK)
    assert result.label_name.tolist() == names[result.label].tolist()
    assert {type(name) for name in Classifier(net, names).class_names} == {str}


def test_probabilities_instead_of_logits_are_refused(net: tiny.TinyNet, images: Tensor) -> None:
    softmaxed = nn.Sequential(net, nn.Softmax(1))
    with pytest.raises(IgosError, match="Sequential returns probabilities .* must return logits: leave"):
        explain(softmaxed, normalized(images), **QUICK)
    # The logarithm is as good as the logits.
    found = explain(nn.Sequential(net, nn.LogSoftmax(1)), normalized(images), metrics=False, **QUICK)
    expected = explain(net, normalized(images), metrics=False, **QUICK)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-6)


def test_rows_and_folders_that_there_are_not(net: tiny.TinyNet, images: Tensor, tmp_path: Path) -> None:
    result = explain(net, normalized(images[:2]), metrics=False, **QUICK)
    for row in (2, -3):
        with pytest.raises(IgosError, match=f"row is {row}, but there are 2 explanations: 0 to 1"):
            result.plot(row)
    with pytest.raises(IgosError, match=r"row is '0' \(of the type str\), but must be a whole number"):
        result.plot("0")  # type: ignore[arg-type]
    with pytest.raises(IgosError, match="There is no folder .*nowhere: create it"):
        result.save(tmp_path / "nowhere" / "x.h5")


@pytest.mark.parametrize("none", [torch.zeros(0, 3, 24, 24), np.zeros((0, 3, 24, 24)), []])
def test_no_images_are_told(net: tiny.TinyNet, none: Any) -> None:
    with pytest.raises(IgosError, match="images is empty"):
        explain(net, none, **QUICK)


def test_one_output_needs_the_sigmoid(images: Tensor) -> None:
    net, x = nn.Sequential(tiny.TinyNet(), nn.Linear(5, 1)), normalized(images)
    with pytest.raises(
        IgosError, match=r'always 1\. Set output="sigmoid": .* applies the sigmoid itself, .* targets=lambda'
    ):
        explain(net, x, **QUICK)
    with pytest.raises(IgosError, match="image 1: Label 1 .* it has one output, whose label is 0"):
        explain(net, x, targets=[0, 1, 0], output="sigmoid", **QUICK)
    flat = nn.Sequential(net, nn.Flatten(0))
    with pytest.raises(
        IgosError, match=r'\(3,\) .* its one output, return \(B, 1\), and set output="sigmoid"$'
    ):
        explain(flat, x, output="sigmoid", **QUICK)
    result = explain(net, x, output="sigmoid", **QUICK)
    assert result.label.tolist() == [0, 0, 0]
    assert result.score == pytest.approx(net(x).sigmoid()[:, 0].detach().numpy(), abs=1e-6)
    for module, function in ((net, lambda output: output[0].sigmoid()), (flat, torch.sigmoid)):
        logit = explain(module, x, targets=function, **QUICK)
        assert logit.score == pytest.approx(result.score, abs=1e-6)


def test_functions_score_the_output_of_one_image(images: Tensor) -> None:
    class Both(tiny.TinyNet):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            hidden = self.first(images).tanh()
            return {"map": hidden, "logits": super().forward(images)}

    def margin(output: dict[str, Tensor]) -> Tensor:
        assert output["map"].shape == (6, tiny.SIZE, tiny.SIZE)
        return output["logits"][0] - output["logits"][1]

    net, x = Both(), normalized(images)
    result = explain(net, x, margin, **QUICK)
    logits = net(x)["logits"].detach()
    assert result.score == pytest.approx((logits[:, 0] - logits[:, 1]).numpy(), abs=1e-5)
    assert result.label_name.tolist() == ["margin"] * 3
    each = explain(net, x, [margin, lambda output: output["map"].mean(), margin], **QUICK)
    assert each.label.tolist() == [0, 1, 0]
    assert each.score[0] == pytest.approx(result.score[0], abs=1e-5)


def test_a_network_by_its_name() -> None:
    pytest.importorskip("timm")
    image = tiny.pictures(1, 32)[0].permute(1, 2, 0).numpy()
    result = explain("EfficientNetLite0Classifier", image, top_k=2, metrics=False, iterations=1, mask_size=6)
    assert result.attributes["network.name"] == "efficientnet_lite0"
    assert len(result) == 2
    assert result.saliency_on_original()[0].shape == (32, 32)


@pytest.fixture(scope="module")
def maskrcnn() -> MaskRCNN:
    module = shapes_mask_rcnn()
    load_weights(module, CHECKPOINTS / "shapes_maskrcnn.pth", "the shapes' Mask R-CNN")
    return module


def test_a_bare_detector_of_torchvision(tmp_path: Path, maskrcnn: MaskRCNN) -> None:
    picture, _ = draw_shapes(1, 0)
    image = torch.from_numpy(np.array(picture.resize((SHAPES_INPUT, SHAPES_INPUT)))).permute(2, 0, 1)
    result = explain(maskrcnn, image, class_names=list(CATEGORIES), metrics=False, iterations=1)
    assert len(result) > 1
    assert set(result.label_name) <= set(CATEGORIES)
    box = result.box[0]
    one = explain(maskrcnn, image, box[None], class_names=list(CATEGORIES), metrics=False, iterations=1)
    np.testing.assert_allclose(one.box, box[None], atol=1e-3)
    target = {"boxes": box[None], "labels": [result.label_name[0]]}
    same = explain(maskrcnn, image, target, class_names=list(CATEGORIES), metrics=False, iterations=1)
    np.testing.assert_allclose(same.box, box[None], atol=1e-3)
    adapter = RCNNDetector(maskrcnn, class_names=list(CATEGORIES), input_size=SHAPES_INPUT)
    assert len(explain(adapter, picture, metrics=False, iterations=1)) >= 1
    with pytest.warns(UserWarning, match="not detected") as caught:
        none = explain(adapter, image, torch.tensor([[0.0, 0, 3, 3]]), iterations=1)
    assert caught[0].filename == __file__
    assert len(none) == 0
    with pytest.raises(AttributeError, match="nothing was explained in 1 image"):
        none.masks  # noqa: B018
    with pytest.raises(AttributeError, match=r"nothing was explained in 1 image .*so there is no"):
        none.saliency  # noqa: B018
    with pytest.raises(IgosError, match=r"nothing was explained in 1 image .*nothing to draw"):
        none.plot()
    none.save(tmp_path / "none.h5")
    console = Console(width=80, record=True, file=io.StringIO())
    print_info(tmp_path / "none.h5", 20, console=console)
    lines = console.export_text().splitlines()
    assert "network RCNNDetector (MaskRCNN)" in lines
    assert any(line.startswith("  image 0: ") for line in lines)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (1, "must be boxes .*, but is 1: leave targets out to explain all that it detects"),
        ({"labels": ["circle"]}, r"must be boxes .*, but is \{'labels'"),
        (torch.tensor([[50.0, 60, 10, 10]]), r"The box \[50.0, 60.0, 10.0, 10.0\] .* x1 below x2"),
        (torch.tensor([[0, 0, 9, torch.nan]]), r"The box \[0.0, 0.0, 9.0, nan\]"),
        ({"boxes": [[0, 0, 9, 9]], "labels": [1, 2]}, "1 box, but 2 labels"),
    ],
)
def test_objects_that_are_none_are_refused(
    target: Any, message: str, maskrcnn: MaskRCNN, images: Tensor
) -> None:
    with pytest.raises(IgosError, match=message):
        explain(maskrcnn, images, target)


def test_results_are_saved_as_files_that_the_reader_reads(
    tmp_path: Path, net: tiny.TinyNet, images: Tensor
) -> None:
    result = explain(net, normalized(images), **QUICK)
    path = result.save(tmp_path / "some.h5")
    with MaskFile(path) as file:
        np.testing.assert_array_equal(file.column("masks"), result.masks)
        assert file.attributes["mask_size"] == 6
        assert file.attributes["igos_pl"] == igos_pl.__version__
        assert [row.sample_id for row in file] == IDS
        with pytest.raises(IgosError, match="image 0 cannot be shown, because it was explained .* draw"):
            file[0].plot("overlay")
        assert file[0].plot("overlay", result.originals[0]).axes
    with pytest.raises(IgosError, match=r"some.h5 exists already"):
        result.save(path)


def test_a_result_is_drawn(tmp_path: Path, net: tiny.TinyNet, images: Tensor) -> None:
    result = explain(net, normalized(images), class_names=["a", "b", "c", "d", "e"], **QUICK)
    figure = result.plot(1)
    titles = [text.get_text() for text in figure.texts]
    assert titles[:2] == [f"{result.label_name[1]} {result.score[1]:.2f}", "image 1"]
    assert len(result.plot(1, "overlay", dpi=50).axes) == 2
    figure.savefig(tmp_path / "a.png")
    shown = figure.axes[0].get_images()[0].get_array()
    assert shown.shape == (tiny.SIZE, tiny.SIZE, 3)
    assert float(shown.max()) == 1.0  # normalised values are stretched into what can be shown
    np.testing.assert_array_equal(result[1].original, result.originals[1])
    assert len(igos_pl.draw(result[1:], "overlay").axes) == 3  # with the colour bar


class Answer(nn.Module):
    """Returns what a function makes of the logits."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.net = tiny.TinyNet()
        self.made = made

    def forward(self, images: Tensor) -> Any:
        return self.made(self.net(images))


@pytest.mark.parametrize(
    ("made", "target", "cause", "message"),
    [
        (
            lambda x: x,
            lambda x: x[9],
            IndexError,
            "raised IndexError: .*, which is a tensor of shape \\(5,\\)",
        ),
        (
            lambda x: {"out": x, "list": [x, None]},
            lambda x: x["logits"],
            KeyError,
            r"raised KeyError: 'logits'.* a dict of out: a tensor of shape \(5,\), list: a list of a tensor"
            r" of shape \(5,\), a NoneType$",
        ),
        (lambda x: x, lambda: 1, TypeError, "The target <lambda> raised TypeError: .*the output of Answer"),
        (
            lambda x: {1, 2},
            lambda x: x,
            None,
            "Answer returned a set, but a function as target needs a tensor",
        ),
    ],
)
def test_a_target_function_that_raises_is_named(
    made: Any, target: Any, cause: type[Exception] | None, message: str, images: Tensor
) -> None:
    with pytest.raises(IgosError, match=message) as caught:
        explain(Answer(made), normalized(images), target, **QUICK)
    assert isinstance(caught.value.__cause__, cause or type(None))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (tiny.TinyNet(), "The weights of TinyNet are half, but images are float32: call network.float"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2)),
            "weights of Sequential are half, but images",
        ),
    ],
)
def test_weights_of_another_type_are_named(module: nn.Module, message: str, images: Tensor) -> None:
    with pytest.raises(IgosError, match=message):
        explain(Classifier(module.half(), input_size=tiny.SIZE), images, **QUICK)


def test_weights_without_autograd_are_named(images: Tensor) -> None:
    with torch.inference_mode():
        net = tiny.TinyNet()
    with pytest.raises(IgosError, match="first.weight was made in torch.inference_mode"):
        explain(net, normalized(images), **QUICK)


@pytest.mark.parametrize("length", [1, 2, 3, 7])  # 3 is the number of images
def test_parts_of_the_output_without_a_batch_come_whole(images: Tensor, length: int) -> None:
    def score(output: tuple[Tensor, Tensor, Tensor, str]) -> Tensor:
        logits, scale, anchors, name = output
        assert (scale.shape, anchors.shape, name) == ((), (length, 4), "tiny")
        return logits[0] * scale

    net = Answer(lambda logits: (logits, torch.tensor(0.5), torch.zeros(length, 4), "tiny"))
    x = normalized(images)
    found = explain(net, x, score, metrics=False, **QUICK)
    assert found.score == pytest.approx(0.5 * net.net(x)[:, 0].detach().numpy(), abs=1e-5)


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_networks_may_squeeze_the_batch_axis_of_one_image(images: Tensor, outputs: int) -> None:
    net, x = Answer(lambda logits: logits[:, :outputs].squeeze()), normalized(images)
    for size in (1, 3):
        result = explain(net, x, lambda output: output.sum(), batch_size=size, metrics=False, **QUICK)
        wanted = net.net(x)[:, :outputs].sum(1).detach().numpy()
        assert result.score == pytest.approx(wanted, abs=1e-5)


def test_patterns_of_paths(tmp_path: Path, net: tiny.TinyNet) -> None:
    tiny.write_pictures(tmp_path, ["b.png", "a.png", "c/d.jpg"])
    adapter = Classifier(net, input_size=tiny.SIZE)
    for given, names in ((tmp_path / "*.png", ["a.png", "b.png"]), ([f"{tmp_path}/**/d.*"], ["c/d.jpg"])):
        result = explain(adapter, given, metrics=False, **QUICK)
        assert [record.path for record in result.images] == [str(tmp_path / name) for name in names]
    (tmp_path / "[1].png").write_bytes((tmp_path / "a.png").read_bytes())  # a file of this name is no pattern
    assert len(explain(adapter, str(tmp_path / "[1].png"), metrics=False, **QUICK)) == 1


def test_a_path_that_is_no_text(tmp_path: Path, net: tiny.TinyNet) -> None:
    tiny.write_pictures(tmp_path, ["a.png"])
    path = (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"bad\xff.png"))
    explain(Classifier(net, input_size=tiny.SIZE), path, metrics=False, **QUICK).save(tmp_path / "a.h5")
    with MaskFile(tmp_path / "a.h5") as masks:
        assert masks[0].sample_id == masks[0].image["path"] == str(tmp_path / "bad\\udcff.png")


def test_messages_name_arguments_and_no_options(net: tiny.TinyNet, images: Tensor) -> None:
    """Those that the command line shows as well, with the option behind the argument's name."""
    x, one = normalized(images), nn.Sequential(net, nn.Linear(5, 1))
    adapter = Classifier(net, input_size=tiny.SIZE)
    low = torch.rand(3, 4, 4)
    calls: list[Any] = [
        lambda: explain(one, x),
        lambda: explain(net, x, "cat"),
        lambda: explain(adapter, x * 9),
        lambda: explain(adapter, x * 99, normalized=True),
        lambda: explain(adapter, images, normalized=True),
        lambda: explain("EfficientNetLite0Classifier", "/nowhere.png", "cat"),
        lambda: igos_pl.import_saliency(low, net, x, mask_size=8),
        lambda: igos_pl.import_saliency(low - 1, net, x),
        lambda: igos_pl.import_saliency([low] * 3, net, x),
        lambda: igos_pl.evaluate(explain(net, x, **QUICK), "aopc", net, x, "cat"),
    ]
    for call in calls:
        with pytest.raises(IgosError) as caught:
            call()
        assert "--" not in str(caught.value)


class OnlyBatches(tiny.TinyNet):
    """Takes only batches of one size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.view(self.size, 3, tiny.SIZE, tiny.SIZE))


WRONG = [
    ({"images": 3}, "images is of the type int, but must be a tensor"),
    ({"images": torch.utils.data.DataLoader([1])}, "DataLoader.*use.*Trainer.*DatasetDataModule"),
    ({"images": []}, "images is empty"),
    ({"images": torch.zeros(3)}, r"must have the shape \(N, C, H, W\) or \(C, H, W\), but has \(3,\)"),
    ({"images": torch.zeros(0, 3, 8, 8)}, r"is empty, of shape \(0, 3, 8, 8\)"),
    (
        {"images": torch.zeros(1, 3, 8, 8, dtype=torch.int64)},
        "torch.int64, but must be of uint8",
    ),
    ({"images": [torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)]}, "tensors of different shapes"),
    ({"images": [torch.zeros(3, 8, 8), Image.new("RGB", (9, 9))]}, "mixes tensors"),
    ({"images": np.zeros((3, 8, 3), np.uint8)}, "may come first or last"),
    ({"images": "/nowhere.png"}, "/nowhere.png: cannot be read"),
    ({"images": "/"}, r"/ is a folder: give a pattern such as /\*.jpg"),
    ({"images": "https://example.com/a.png"}, "https://example.com/a.png is a URL: download"),
    ({"images": "/nowhere/*.png"}, r"No image matches /nowhere/\*.png"),
    ({"images": [torch.zeros(2, 3, 8, 8), torch.zeros(2)]}, "a pair of images and labels"),
    (
        {"images": torch.zeros(1, 8, 8, 3)},
        r"3 channels behind height and width \(8 x 8\), .*movedim",
    ),
    ({"images": torch.zeros(8, 8, 3, dtype=torch.uint8)}, "images has 3 channels behind height and width"),
    (
        {"network": tiny.tiny_classifier(), "images": torch.zeros(1, 8, 8, 3)},
        "images has 3 channels behind height and width",
    ),
    (
        {"images": torch.zeros(2, 8, 8, 1)},
        r"images has the shape \(2, 8, 8, 1\), so the images are 8 x 1 pixels, but must .* move axis -1",
    ),
    (
        {"network": Answer(list), "targets": lambda output: output[0][0]},
        "returned a list of a tensor of shape .* for two images, but .* for three: wrap the network",
    ),
    ({"images": Image.new("RGB", (9, 9))}, "mean, std, input_size must be given to explain pictures"),
    ({"images": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, "images is of uint8: pass the mean and std"),
    ({"mean": 0.5}, "mean and std belong together"),
    ({"mean": [0.5, 0.5], "std": [1.0, 1.0]}, "images has 3 channels, but TinyNet takes 2"),
    ({"images": torch.zeros(1, 1, 24, 24)}, "images has 1 channel, but TinyNet takes 3"),
    ({"mean": [123.7, 116.3, 103.5], "std": 57.0}, "mean is .*: divide mean and std by 255"),
    ({"mean": 0.5, "std": 0.0}, "std is .*must be above 0"),
    ({"mean": 0.5, "std": 0.5}, "values from -10 to 10, but 0 to 1 is expected: set normalized=True"),
    ({"input_size": 9}, "input_size is 9, but the images are 24 x 24"),
    ({"targets": [1]}, "There is 1 target for 3 images: give one for each, or one for all"),
    ({"targets": 9}, "Label 9 is outside of the 5 classes"),
    ({"targets": [0, 4, 5], "batch_size": 2}, r"image 2: Label 5 is outside of the 5 .* \(0 to 4\)"),
    ({"targets": [0, -1, 0]}, "The target of image 1 is -1, but labels begin at 0"),
    ({"top_k": 6}, "top_k is 6, but must be at most 5, the number of classes of TinyNet"),
    (
        {"targets": "cat"},
        "'cat' is not a class of the network, whose class names are unknown: set class",
    ),
    (
        {"targets": "cta", "class_names": ["cat", "dog"]},
        r"'cta' is not a class of the network \(did you mean cat",
    ),
    ({"targets": 1.5}, r"The target of image 0 is 1.5 \(of the type float\), but must be a label"),
    ({"targets": [0, 1, "cat"]}, "'cat' is not a class of the network"),
    ({"targets": torch.eye(5)[:3]}, r"targets has the shape \(3, 5\), but must have one label for each"),
    ({"targets": 1, "top_k": 2}, "top_k is .* but targets are given: leave one of them out"),
    (
        {"targets": lambda output: output},
        r"must return a tensor of one number.*returned shape \(5,\)",
    ),
    ({"targets": lambda output: float(output[0])}, r"returned float \(a number .*leave out float"),
    ({"network": "resnet"}, "There is no network 'resnet'"),
    (
        {"network": OnlyBatches(1)},
        r"OnlyBatches raised RuntimeError: shape .* batches of 1, but not of 2 or 3: set batch_size=1 and",
    ),
    (
        {"network": OnlyBatches(3)},
        "It takes batches of 3, but not of 1 or 2: let its forward take any number",
    ),
    ({"images": torch.zeros(2, 3, 24, 24, device="meta")}, "images is on the meta device, without values"),
    ({"device": "cuda"}, r"no argument 'device', .*: move the network, as in network\.to\('cuda'\)"),
    (
        {"network": Answer(lambda logits: {"out": logits, "aux": logits})},
        "but returned a dict of out, aux: wrap it in a module that returns its logits",
    ),
    ({"network": 3}, "network is of the type int, but must be a torch.nn.Module"),
    ({"network": torch.jit.ScriptModule()}, "ScriptModule of TorchScript.* made from"),
    ({"network": tiny.TinyNet().half()}, "weights are torch.float16"),
    (
        {"network": tiny.tiny_classifier(), "mean": 0.5, "std": 0.5},
        "TinyNet has its own mean, std",
    ),
    ({"network": "EfficientNetLite0Classifier", "mean": 0.5}, "has its own mean and std: leave mean out"),
    (
        {"network": "TorchvisionDenseDetector", "top_k": 2},
        "TorchvisionDenseDetector has no argument 'top_k'",
    ),
    ({"iteratons": 3}, "explain has no argument 'iteratons': did you mean iterations"),
    ({"topk": 3}, "explain has no argument 'topk': did you mean top_k"),
    ({"mean": "grey", "std": 0.5}, "mean is 'grey', but must be a number"),
    ({"preset": "quick"}, "preset is 'quick', but must be one of: draft, fast"),
    ({"batch_size": 0}, "batch_size is 0"),
]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("adapted", [False, True])
def test_an_image_that_is_not_finite_is_named(
    net: tiny.TinyNet, images: Tensor, value: float, adapted: bool
) -> None:
    x = normalized(images)
    x[1, 2, 3, 4] = value
    network = Classifier(net, input_size=tiny.SIZE, mean=MEAN, std=STD) if adapted else net
    with pytest.raises(IgosError, match=r"image 1: .* not finite \(NaN or infinity\)"):
        explain(network, x, normalized=adapted, **QUICK)


def test_eight_bits_are_not_normalized(net: tiny.TinyNet, images: Tensor) -> None:
    adapter = Classifier(net, input_size=tiny.SIZE)
    for given in (images, images.permute(0, 2, 3, 1).numpy(), [Image.new("RGB", (9, 9))]):
        with pytest.raises(IgosError, match="image 0: .* 8-bit values, .* leave normalized=True out, or"):
            explain(adapter, given, normalized=True, **QUICK)


def test_networks_for_single_images_are_explained(images: Tensor) -> None:
    result = explain(OnlyBatches(1), normalized(images), batch_size=1, micro_batch_size=1, **QUICK)
    assert len(result) == len(images)


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_does_not_fit_is_told(arguments: dict[str, Any], message: str, images: Tensor) -> None:
    usual = {"network": tiny.TinyNet(), "images": 4 * normalized(images), **QUICK}
    with pytest.raises(IgosError, match=message):
        explain(**{**usual, **arguments})


def test_a_detector_takes_no_top_k(maskrcnn: MaskRCNN, images: Tensor) -> None:
    with pytest.raises(IgosError, match="A MaskRCNN has no argument 'top_k': there are"):
        explain(maskrcnn, images, top_k=2)


@pytest.mark.parametrize("kind", [np.array, torch.tensor, lambda values: np.reshape(values, (3, 1, 1))])
def test_mean_and_std_are_lists_arrays_or_tensors(kind: Any, net: tiny.TinyNet, images: Tensor) -> None:
    wanted = explain(net, images, mean=list(MEAN), std=list(STD), **QUICK)
    given = explain(net, images, mean=kind(MEAN), std=kind(STD), **QUICK)
    np.testing.assert_allclose(given.score, wanted.score, atol=1e-6)


def test_a_bare_module_for_the_explainer_is_told_the_way(net: tiny.TinyNet) -> None:
    with pytest.raises(IgosError, match=r"network is a TinyNet.*igos_pl.Classifier.*igos_pl.explain"):
        Explainer(net)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"module": 3}, r"module is 3 \(of the type int\), but must be a torch.nn.Module"),
        ({"module": tiny.TinyNet}, r"module is the class TinyNet, but must be an object: TinyNet\(...\)"),
        ({"weights": {}}, "weights is a dict, .* module.load_state_dict"),
        (
            {"mean": 0.5},
            r"mean is 0.5 \(of the type float\), but must be a list with one number for each channel",
        ),
        ({"std": "imagenet"}, r"std is 'imagenet' \(of the type str\), but must be a list"),
        ({"targets": 1}, r"targets is 1 \(of the type int\), but must be one of predicted, .*list of labels"),
        ({"targets": [0, 1.5]}, r"targets\[1\] is 1.5 \(of the type float\), but must be a whole number"),
    ],
)
def test_what_a_classifier_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(IgosError, match=message):
        Classifier(**{"module": tiny.TinyNet(), **settings})


def test_captum_takes_it_for_one_of_its_methods(net: tiny.TinyNet, images: Tensor) -> None:
    metrics = pytest.importorskip("captum.metrics")
    x = normalized(images)
    method = MaskAttribution(net.eval(), **QUICK)
    saliency = method.attribute(x, target=torch.tensor([0, 1, 2]))
    assert saliency.shape == x.shape
    assert (saliency >= 0).all()
    assert (saliency <= 1).all()
    (in_tuple,) = method.attribute((x,), target=[0, 1, 2])
    assert torch.equal(in_tuple, saliency)

    def noise(inputs: Tensor) -> tuple[Tensor, Tensor]:
        change = 0.1 * torch.ones_like(inputs)
        return change, inputs - change

    infidelity = metrics.infidelity(net, noise, x, saliency, target=torch.tensor([0, 1, 2]))
    assert infidelity.shape == (3,)
    sensitivity = metrics.sensitivity_max(
        method.attribute, x, target=torch.tensor([0, 1, 2]), n_perturb_samples=1
    )
    assert sensitivity.shape == (3,)
    assert sensitivity.isfinite().all()


def test_what_the_interfaces_of_other_libraries_refuse(net: tiny.TinyNet, images: Tensor) -> None:
    with pytest.raises(
        IgosError, match="metrics is True, but attributions come without curves: leave it out"
    ):
        MaskAttribution(net, metrics=True)
    x, method = normalized(images), MaskAttribution(net, **QUICK)
    for inputs, message in (
        (x.numpy(), r"inputs is of the type ndarray, but must be a tensor \(N, C, H, W\)"),
        (x[0], r"inputs must have the shape \(N, C, H, W\), but has \(3, 24, 24\)"),
    ):
        with pytest.raises(IgosError, match=message):
            method.attribute(inputs)
    for targets in (np.eye(5)[:3], np.array([0.5, 1, 2]), np.array(["a", "b", "c"]), None):
        with pytest.raises(
            IgosError, match=r"targets must be whole numbers, .* of the 3 images, but is .+ of the shape"
        ):
            explain_func(net, x.numpy(), targets, **QUICK)  # type: ignore[arg-type]


def test_attributions_of_uint8_images_are_no_integers(net: tiny.TinyNet, images: Tensor) -> None:
    saliency = MaskAttribution(net, mean=MEAN, std=STD, **QUICK).attribute(images)
    assert images.dtype == torch.uint8
    assert saliency.dtype == torch.float32
    assert ((saliency > 0) & (saliency < 1)).any()
    wide = MaskAttribution(net, **QUICK).attribute(normalized(images).double())
    assert wide.dtype == torch.float64


def test_quantus_takes_it_for_an_explain_func(net: tiny.TinyNet, images: Tensor) -> None:
    quantus = pytest.importorskip("quantus")
    x, y = normalized(images).numpy(), np.array([0, 1, 2])
    saliency = explain_func(net, x, y, **QUICK)
    assert saliency.shape == (3, 1, tiny.SIZE, tiny.SIZE)
    for metric in (
        quantus.Sparseness(disable_warnings=True),
        quantus.MaxSensitivity(nr_samples=1, disable_warnings=True),
    ):
        scores = metric(
            model=net.eval(), x_batch=x, y_batch=y, explain_func=explain_func, explain_func_kwargs=QUICK
        )
        assert len(scores) == 3
        assert np.isfinite(scores).all()
