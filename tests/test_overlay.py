"""Overlays: the layout for every shape of image, honest colours, and readable titles."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from igos_pl.data.explanation import Explanation
from igos_pl.errors import IgosError
from igos_pl.figures.overlay import figure_of, write_overlay


def explanation(width: int = 60, height: int = 40, **values: Any) -> Explanation:
    """Of a mask whose upper left quarter is important."""
    masks = np.ones((4, 4), np.float32)
    masks[:2, :2] = 0.3
    curve = np.linspace(1, 0, 11)
    row = {
        "sample_id": "b/cat.jpg", "label_name": "tabby", "score": 0.75, "masks": masks, "start_cell": -1,
        "box": np.full(4, np.nan), "deletion": 0.5, "insertion": 0.5, "deletion_curve": curve,
        "insertion_curve": curve[::-1],
    }  # fmt: skip
    image = {
        "path": "/nowhere", "width": width, "height": height, "frame": (0, 0, width, height),
        "input_size": (8, 8),
    }  # fmt: skip
    return Explanation({**row, **values}, image, {"method": "iGOS+", "optimizer": "Adam", "preset": "fast"})


def picture(width: int = 60, height: int = 40) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


@pytest.mark.parametrize(
    ("width", "height"), [(60, 40), (40, 60), (640, 100), (100, 640), (900, 5), (5, 900)]
)
def test_image_and_saliency_have_one_size_and_nothing_overlaps(width: int, height: int) -> None:
    figure = figure_of(explanation(width, height), picture(width, height))
    figure.draw_without_rendering()
    inches = figure.get_size_inches()
    assert max(inches) < 20
    left, middle, bar, curves = (axes.get_position(original=True) for axes in figure.axes)
    np.testing.assert_allclose(left.size, middle.size)
    shown, expected = left.size * inches, width / height
    if 0.3 < expected < 20:
        assert shown[0] / shown[1] == pytest.approx(expected, rel=0.01)
    boxes = [left, middle, bar, curves]
    for number, one in enumerate(boxes):
        assert one.x0 >= 0
        assert one.y0 >= 0
        assert one.x1 <= 1
        assert one.y1 <= 1
        assert not any(one.overlaps(other) for other in boxes[number + 1 :])


def test_colours_say_true_values() -> None:
    figure = figure_of(explanation(), picture())
    assert figure.axes[2].get_ylim() == pytest.approx((0, 0.7), abs=1e-6)


def test_a_mask_without_content_looks_empty() -> None:
    noise = 1 - 0.01 * np.random.RandomState(0).rand(4, 4).astype(np.float32)
    overlays = {
        name: np.asarray(figure_of(explanation(masks=masks), picture()).axes[1].images[0].get_array())
        for name, masks in (
            ("empty", np.ones((4, 4), np.float32)),
            ("noise", noise),
            ("object", explanation().mask),
        )
    }
    assert np.abs(overlays["noise"] - overlays["empty"]).max() < 0.15
    assert np.abs(overlays["object"] - overlays["empty"]).max() > 0.3


def test_titles_say_what_and_how() -> None:
    assert texts(figure_of(explanation(), picture())) == (
        "b/cat.jpg: tabby, score 0.75\niGOS+, Adam, preset fast"
    )
    named = explanation(sample_id="long/" * 40 + "end.png", label_name="$x$ \x1b[1m", start_cell=3)
    title = texts(figure_of(named, picture()))
    assert "…" in title
    assert "end.png: $x$ \\x1b[1m" in title
    assert title.endswith("start in cell 3")
    assert max(map(len, title.splitlines())) < 120


def test_figures_without_curves_and_of_grey_arrays() -> None:
    figure = figure_of(explanation(deletion=np.nan), picture()[..., 0])
    assert not figure.axes[3].lines
    assert figure.axes[0].images[0].get_array().shape == (40, 60, 3)


def test_objects_are_framed_and_their_curves_explained() -> None:
    figure = figure_of(explanation(box=np.array([10.0, 5.0, 30.0, 25.0])), picture())
    (frame,) = figure.axes[1].patches
    assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (10, 5, 20, 20)
    assert "three times the object's area" in figure.axes[3].get_xlabel()
    assert "the whole image" in figure_of(explanation(), picture()).axes[3].get_xlabel()


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(IgosError, match="has 61 x 40 pixels, but the explained one had 60 x 40"):
        figure_of(explanation(), picture(61))


def test_pictures_hold_the_metadata(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "image.png")
    one = explanation(label_name="猫")
    one.image["path"] = str(tmp_path / "image.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a font may lack the sign
        write_overlay(one, tmp_path / "overlay.png", {"Explanation": "cat 猫"})
    with Image.open(tmp_path / "overlay.png") as written:
        assert written.text["Explanation"] == "cat 猫"
