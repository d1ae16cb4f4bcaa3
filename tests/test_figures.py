"""Figures: the layout for every shape of image, honest colours, readable names, and the files."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import results
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from igos_pl import draw
from igos_pl.cli.main import main
from igos_pl.data.explanation import Explanation
from igos_pl.data.geometry import Frame
from igos_pl.errors import IgosError
from igos_pl.figures import STYLES, lettering, save
from igos_pl.figures.subjects import Subject, moved


def explanation(width: int = 60, height: int = 40, **values: Any) -> Explanation:
    """Of a mask whose upper left quarter is important."""
    masks = np.ones((4, 4), np.float32)
    masks[:2, :2] = 0.3
    curve = np.linspace(1, 0, 11)
    row = {
        "sample_id": "b/cat.jpg", "label_name": "tabby", "score": 0.75, "masks": masks, "start_cell": -1,
        "box": np.full(4, np.nan), "deletion": 0.5, "insertion": 0.75, "deletion_curve": curve,
        "insertion_curve": curve[::-1],
    }  # fmt: skip
    image = {
        "path": "/nowhere", "width": width, "height": height, "frame": (0, 0, width, height),
        "input_size": (8, 8),
    }  # fmt: skip
    return Explanation({**row, **values}, image, {"method": "iGOS+", "optimizer": "Adam", "preset": "fast"})


def picture(width: int = 60, height: int = 40, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def drawn(*explanations: Explanation, style: str = "curves", **options: Any) -> Figure:
    images = [picture(one.image["width"], one.image["height"]) for one in explanations]
    return draw(explanations, style, images, **options)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts if text.get_text()]


def shown(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def inches(figure: Figure) -> list[tuple[float, float, float, float]]:
    """The places of all axes: left, bottom, width, height."""
    width, height = figure.get_size_inches()
    boxes = [axes.get_position(original=True) for axes in figure.axes]
    return [(box.x0 * width, box.y0 * height, box.width * width, box.height * height) for box in boxes]


SHAPES = [(60, 40), (40, 60), (640, 100), (100, 640), (900, 5), (5, 900)]


@pytest.mark.parametrize("style", STYLES)
def test_nothing_overlaps_and_all_is_on_the_page(style: str) -> None:
    figures = [drawn(explanation(*shape), style=style) for shape in SHAPES]
    figures.append(drawn(*(explanation(*shape) for shape in SHAPES), style=style))
    for figure in figures:
        figure.draw_without_rendering()
        boxes = [axes.get_position(original=True) for axes in figure.axes]
        for number, one in enumerate(boxes):
            assert -1e-6 <= one.x0 < one.x1 <= 1 + 1e-6
            assert -1e-6 <= one.y0 < one.y1 <= 1 + 1e-6
            assert not any(one.overlaps(other) for other in boxes[number + 1 :])
        assert figure.get_size_inches()[0] <= 11.01


def test_pictures_of_a_grid_have_one_height_and_their_shapes() -> None:
    shapes = [(60, 40), (40, 60), (200, 100), (50, 100), (30, 30)]
    figure = drawn(*(explanation(*shape) for shape in shapes), style="overlay", width=6, height=1.2)
    places = inches(figure)[: len(shapes)]
    for (width, height), (_, _, across, down) in zip(shapes, places, strict=True):
        assert down == pytest.approx(1.2)
        assert across == pytest.approx(1.2 * width / height)
    assert figure.get_size_inches()[0] <= 6
    rows = {round(bottom, 3) for _, bottom, _, _ in places}
    assert len(rows) == 2


def test_a_number_of_columns_fits() -> None:
    figure = drawn(*[explanation()] * 7, style="overlay", columns=3)
    bottoms = [round(place[1], 3) for place in inches(figure)[:7]]
    assert [bottoms.count(bottom) for bottom in dict.fromkeys(bottoms)] == [3, 3, 1]
    assert figure.get_size_inches()[0] == pytest.approx(7.2, abs=0.35)
    assert (
        len(
            {round(place[1], 3) for place in inches(drawn(*[explanation()] * 2, style="pair", columns=1))[:4]}
        )
        == 2
    )


def test_the_pictures_of_columns_line_up() -> None:
    shapes = [(60, 40), (40, 60), (40, 40), (60, 40), (30, 40)]
    figure = drawn(*(explanation(*shape) for shape in shapes), style="overlay", columns=2)
    lefts = [round(place[0], 3) for place in inches(figure)[:5]]
    assert lefts[0] == lefts[2] == lefts[4] < lefts[1] == lefts[3]


@pytest.mark.parametrize(
    ("style", "width", "fitting"), [("overlay", 9, 4), ("overlay", 7.2, 3), ("curves", 31, 4)]
)
@pytest.mark.parametrize("count", [4, 5, 7, 8, 9, 10, 13])
def test_rows_have_equally_many_pictures(style: str, width: float, fitting: int, count: int) -> None:
    figure = drawn(*[explanation()] * count, style=style, width=width)
    panels = len(STYLES[style])
    bottoms = [round(place[1], 3) for place in inches(figure)[: panels * count : panels]]
    rows = [bottoms.count(bottom) for bottom in dict.fromkeys(bottoms)]
    assert len(rows) == -(-count // fitting)
    assert rows == sorted(rows, reverse=True)
    if style == "overlay":
        assert max(rows) - min(rows) <= 1


@pytest.mark.parametrize("columns", [1, 2])
def test_a_wide_picture_among_columns_stays_on_the_page(columns: int) -> None:
    shapes = [(60, 60), (60, 60), (600, 100), (60, 60)]
    figure = drawn(*(explanation(*shape) for shape in shapes), style="pair", columns=columns)
    width = figure.get_size_inches()[0]
    assert all(place[0] >= 0 and place[0] + place[2] <= width for place in inches(figure))


def test_the_last_row_is_the_short_one() -> None:
    """The rows 2, 1 and 2 would be as even, because the last picture is a little narrower."""
    from igos_pl.figures.layout import arranged

    aspects = [1.5, 1.5, 1.5, 1.5, 1.49]
    _, rows = arranged(aspects, 1, 0, 1.0, 3.2, None, {})
    assert [len(row) for row in rows] == [2, 2, 1]


def test_headings_stand_above_new_rows() -> None:
    figure = drawn(*[explanation()] * 5, style="overlay", headings={0: "best", 3: "worst"})
    places = inches(figure)[:5]
    bottoms = [round(place[1], 3) for place in places]
    assert bottoms[0] == bottoms[1] == bottoms[2] > bottoms[3] == bottoms[4]
    height = figure.get_size_inches()[1]
    for text, first in (("best", 0), ("worst", 3)):
        (heading,) = (one for one in figure.texts if one.get_text() == text)
        above = heading.get_position()[1] * height
        assert above > places[first][1] + places[first][3]
        assert all(above < place[1] for place in places[:first])
    with pytest.raises(IgosError, match="headings has a text for explanation 5, but there are 5"):
        drawn(*[explanation()] * 5, style="overlay", headings={5: "worst"})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("style", STYLES)
def test_the_page_ends_below_its_text(style: str, shape: tuple[int, int]) -> None:
    figure = drawn(explanation(*shape), style=style)
    canvas: Any = figure.canvas
    figure.draw_without_rendering()
    extents = [one.get_window_extent(canvas.get_renderer()) for one in figure.texts if one.get_text()]
    extents += [axes.get_tightbbox(canvas.get_renderer()) for axes in figure.axes]
    lowest = min(box.y0 for box in extents) / figure.dpi
    assert -0.01 < lowest < 0.2  # inches


@pytest.mark.parametrize(("columns", "width"), [(None, None), (2, 14)])
def test_curves_of_several_rows_line_up(columns: int | None, width: float | None) -> None:
    shapes = [(60, 40), (40, 60), (640, 100), (50, 50), (20, 60)]
    explanations = [explanation(*shape) for shape in shapes]
    figure = drawn(*explanations, style="curves", columns=columns, width=width)
    curves = inches(figure)[2 : 3 * len(shapes) : 3]
    across = columns or 1
    assert len({round(left, 3) for left, *_ in curves}) == across
    assert len({round(bottom, 3) for _, bottom, *_ in curves}) == -(-len(shapes) // across)


def test_a_wide_image_widens_only_its_own_column() -> None:
    shapes = [(40, 60), (40, 60), (640, 400), (40, 60), (40, 60), (60, 60)]
    figure = drawn(*(explanation(*shape) for shape in shapes), width=18, height=1.6)
    curves = inches(figure)[2 : 3 * len(shapes) : 3]
    lefts = [round(left, 3) for left, *_ in curves]
    assert lefts[:3] == lefts[3:]  # three columns
    gaps = np.diff(lefts[:3])
    assert gaps[1] > gaps[0] + 2  # the two wide pictures are in the last column, left of its curves
    width = figure.get_size_inches()[0]
    assert all(left + across <= width for left, _, across, _ in curves)


def test_image_and_saliency_of_one_explanation_have_one_size() -> None:
    for shape in SHAPES:
        (_, _, *one), (_, _, *other), *_ = inches(drawn(explanation(*shape), style="pair"))
        assert one == pytest.approx(other)


def test_colours_say_true_values() -> None:
    weak = explanation(masks=1 - 0.5 * (1 - explanation().mask))
    bar = drawn(explanation(), style="heatmap").axes[-1]
    assert bar.get_xlim() == pytest.approx((0, 0.7), abs=1e-6)
    shared = drawn(explanation(), weak, style="heatmap", scale="shared")
    assert shared.axes[-1].get_xlim() == pytest.approx((0, 0.7), abs=1e-6)
    assert np.abs(shown(shared.axes[0]) - shown(shared.axes[1])).max() > 0.3
    assert "saliency up to 0.35" not in texts(shared)
    each = drawn(explanation(), weak, style="heatmap")
    np.testing.assert_allclose(shown(each.axes[0]), shown(each.axes[1]), atol=0.02)
    assert each.axes[-1].get_xlim() == pytest.approx((0, 1))
    assert [label.get_text() for label in each.axes[-1].get_xticklabels()][::2] == ["0%", "50%", "100%"]
    assert {"insertion - deletion 0.25", "saliency up to 0.35"} < set(texts(each))


@pytest.mark.parametrize(
    ("score", "words"), [(0.75, "0.75"), (0.005, "0.01"), (0.0049, "<0.01"), (1e-9, "<0.01"), (0.0, "0.00")]
)
def test_small_scores_do_not_read_zero(score: float, words: str) -> None:
    assert f"tabby {words}" in texts(drawn(explanation(score=score)))


def test_dots_mark_measured_points() -> None:
    measured = np.isin(np.arange(11), (0, 4, 10)).astype(np.int8)
    figure = drawn(explanation(deletion_measured=measured))
    dots = [line.get_xdata() for line in figure.axes[2].lines if line.get_marker() == "."]
    assert [np.round(one, 2).tolist() for one in dots] == [[], [0, 0.4, 1]]


@pytest.mark.parametrize("size", [1, 2, 28, 700])
def test_the_largest_saliency_is_that_of_any_cell_in_the_image(size: int) -> None:
    for place in (0, size // 3, size - 1):
        saliency = np.zeros((size, size), np.float32)
        saliency[place, -1] = 0.5
        for width, height, how in ((9, 7, "crop"), (4000, 400, "crop"), (500, 375, "squash")):
            frame = Frame.of(width, height, (224, 224), how)
            assert frame.largest_on_original(saliency) == 0.5


def test_saliency_in_the_padding_has_no_part_in_the_colours() -> None:
    masks = np.full((4, 4), 0.75, np.float32)
    masks[0] = 0  # beyond the upper edge of the image
    padded = explanation(masks=masks)
    padded.image["frame"] = (0, -20, 60, 40)
    figure = drawn(padded, explanation(), style="overlay")
    assert "saliency up to 0.25" in texts(figure)
    assert shown(figure.axes[0]).max() > 0.7, "its pixels have the brightest colour"


@pytest.mark.parametrize("scale", ["shared", "each"])
def test_the_scale_of_one_explanation_has_its_values(scale: str) -> None:
    figure = drawn(explanation(), style="heatmap", scale=scale)
    assert figure.axes[-1].get_xlim() == pytest.approx((0, 0.7), abs=1e-6)
    assert "saliency" in texts(figure)
    assert not any("up to" in text for text in texts(figure))


@pytest.mark.parametrize(
    ("style", "width"), [("overlay", 2), ("heatmap", 2.4), ("masked", 2), ("pair", 2), ("curves", 3.5)]
)
def test_narrow_figures_are_as_narrow_as_asked_for(style: str, width: float) -> None:
    figure = drawn(explanation(), explanation(640, 100), explanation(40, 60), style=style, width=width)
    assert figure.get_size_inches()[0] <= width + 1e-6
    canvas: Any = figure.canvas
    figure.draw_without_rendering()
    lines = [text.get_window_extent(canvas.get_renderer()) for text in figure.texts if text.get_text()]
    panels = [axes.get_tightbbox(canvas.get_renderer()) for axes in figure.axes]
    assert max(box.x1 for box in lines + panels) <= width * figure.dpi + 1
    for number, line in enumerate(lines):
        assert not any(line.overlaps(other) for other in [*lines[number + 1 :], panels[-1]])


@pytest.mark.parametrize("style", ["overlay", "heatmap", "contours"])
@pytest.mark.parametrize("scale", ["shared", "each"])
def test_a_mask_without_content_looks_empty(style: str, scale: str) -> None:
    noise = 1 - 0.01 * np.random.RandomState(0).rand(4, 4).astype(np.float32)
    found = {}
    for name, masks in (
        ("empty", np.ones((4, 4), np.float32)),
        ("noise", noise),
        ("object", explanation().mask),
    ):
        figure = drawn(explanation(masks=masks), style=style, scale=scale)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
        box = figure.axes[0].get_window_extent()  # without texts
        found[name] = pixels[math.ceil(len(pixels) - box.y1) :, math.ceil(box.x0) :][:280, :400]
    assert np.abs(found["noise"] - found["empty"]).max() < 0.25  # a tenth of the colours
    assert np.abs(found["object"] - found["empty"]).max() > 0.3


def test_all_colour_of_an_overlay_is_saliency() -> None:
    colourful = np.zeros((40, 60, 3), np.uint8)
    colourful[..., 1] = 200
    empty = draw([explanation(masks=np.ones((4, 4), np.float32))], "overlay", [colourful])
    assert np.ptp(shown(empty.axes[0]), axis=-1).max() < 1e-6


def test_captions_say_what_and_how() -> None:
    assert texts(drawn(explanation())) == [
        "tabby 0.75", "b/cat.jpg", "insertion - deletion 0.25", "saliency", "preset fast (iGOS+, Adam)"
    ]  # fmt: skip
    over = explanation()
    over.attributes.update({"regions": "Slic", "mask_size": 112})
    assert texts(drawn(over))[-1] == (
        "preset fast (iGOS+, Adam), masks over regions (Slic), drawn in 112 x 112 cells"
    )
    assert texts(drawn(over, style="overlay", height=1))[-2:] == [
        "preset fast (iGOS+, Adam)", "masks over regions (Slic), drawn in 112 x 112 cells"
    ]  # fmt: skip
    named = explanation(sample_id="long/" * 60 + "end.png", label_name="$x$ \x1b[1m\n", start_cell=3)
    label, name, *_ = texts(drawn(named, explanation(), style="overlay"))
    assert label == r"$x$ \x1b[1m\n 0.75"
    assert "…" in name
    assert name.endswith("end.png, start 3")


def test_faint_masks_beside_strong_ones_are_said_to_be() -> None:
    def peaked(saliency: float) -> Explanation:
        masks = np.ones((4, 4), np.float32)
        masks[:2, :2] = 1 - saliency
        return explanation(masks=masks)

    def said(*saliencies: float, **options: Any) -> list[str]:
        figure = drawn(*map(peaked, saliencies), **{"style": "overlay", **options})
        return [text for text in texts(figure) if "saliency up to" in text or "empty" in text]

    shared = {"scale": "shared"}

    assert said(0.7, 0.09, 0.3, 0.02, **shared) == [
        "faint: saliency up to 0.09",
        "faint: saliency up to 0.02",
    ]
    assert said(0.7, 0.3, **shared) == []
    assert said(0.09, 0.02, **shared) == []  # all are nearly empty, with any scale
    assert said(0.7, 0.09, style="masked", **shared) == []
    assert said(0.7, 0.09) == ["saliency up to 0.70", "saliency up to 0.09"]
    for options in shared, {"style": "curves"}, {}:
        assert "empty: saliency below 0.01" in said(0.7, 0.002, **options)
        assert said(0.0, **options) == ["empty: saliency below 0.01"]
    assert said(0.0, style="masked") == []


def test_the_command_says_how_to_see_faint_masks(tmp_path: Path, capsys: Any) -> None:
    masks = np.ones((3, 4, 4), np.float32)
    masks[:, 0, 0] = 0.3, 0.95, 0.97
    run = results.write_result(tmp_path / "run.h5", ["a.png", "b.png", "c.png"], masks=masks)
    output = str(tmp_path / "figure.svg")
    command = ["figure", str(run), "--style", "heatmap", "--output", output]
    assert main([*command, "--scale", "shared"]) == 0
    said = capsys.readouterr().out
    assert "2 masks can hardly be seen beside the others" in said
    assert "--scale each" in said
    assert f"3 of 3 explanations are in {output}" in said
    again = [*command, "--overwrite"]
    assert main(again) == 0
    assert "hardly" not in capsys.readouterr().out
    assert main([*again, "--rows", "0"]) == 0
    assert f"1 of 3 explanations is in {output}" in capsys.readouterr().out


def test_the_command_marks_the_best_and_the_worst(tmp_path: Path) -> None:
    run = results.write_result(
        tmp_path / "run.h5",
        ["a.png", "b.png", "c.png"],
        insertion=[0.3, 0.9, 0.6],
        label_name=["a", "b", "c"],
    )
    output = tmp_path / "figure.svg"

    def written(*choice: str) -> str:
        command = ["figure", str(run), "--style", "heatmap", "--overwrite", "--output", str(output), *choice]
        assert main(command) == 0
        return output.read_text("utf-8")

    marked = written("--best", "2", "--worst", "2", "--random", "1")
    assert "best: largest insertion - deletion" in marked
    assert "worst: smallest insertion - deletion" in marked
    assert [marked.index(f"{name} 0.75<") for name in "bca"] == sorted(
        marked.index(f"{name} 0.75<") for name in "abc"
    )
    assert "random" not in marked  # all explanations are in the other groups
    assert "random" in written("--best", "1", "--random", "3")
    for choice in (("--random", "2"), ("--rows", "0,1"), ()):
        assert not re.search("best|worst|random", written(*choice))


@pytest.mark.parametrize("scale", ["shared", "each"])
def test_captions_stay_in_their_tiles(scale: str) -> None:
    names = ["w" * 200, "<script>alert(1)</script>" * 5, "猫" * 80, "قطة " * 40, "e\u0301" * 90]
    ones = [explanation(30, 40, label_name=name, sample_id=name) for name in names]
    figure = drawn(*ones, style="overlay", columns=5, scale=scale)
    canvas: Any = figure.canvas
    with lettering.no_glyph_warnings():
        boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.texts if text.get_text()]
    lines = 4 if scale == "each" else 3
    for number, one in enumerate(boxes[: lines * len(names)]):
        assert not any(one.overlaps(other) for other in boxes[number + 1 :])
    for label in texts(figure)[: lines * len(names) : lines]:
        assert label.endswith(" 0.75")


def test_figures_without_curves_and_of_grey_arrays() -> None:
    figure = draw([explanation(deletion=np.nan)], images=[picture()[..., 0]])
    assert not figure.axes[2].lines
    assert shown(figure.axes[0]).shape == (40, 60, 3)
    assert "tabby 0.75" in texts(figure)
    assert not any("deletion" in text for text in texts(figure))


def test_objects_are_framed_and_their_curves_explained() -> None:
    figure = drawn(explanation(box=np.array([10.0, 5.0, 30.0, 25.0])))
    frame = figure.axes[1].patches[-1]
    assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (9.5, 4.5, 20, 20)
    assert "3 x the object's area" in figure.axes[2].get_xlabel()
    assert "the whole image" in drawn(explanation()).axes[2].get_xlabel()


def test_masked_images_show_the_most_important_cells_on_the_baseline() -> None:
    one = explanation(80, 80)
    one.attributes["baseline"] = "black"
    revealed = Subject.of(one, picture(80, 80, 255), 80, True).revealed(4 / 16)
    assert revealed[:20, :20].min() > 0.9
    assert revealed[50:, 50:].max() < 0.1
    assert revealed.mean() == pytest.approx(0.25, abs=0.05)
    everything = Subject.of(one, picture(80, 80, 255), 80, True).revealed(1)
    np.testing.assert_allclose(everything, 1)
    figure = draw([one], "masked", [picture(80, 80)], fraction=0.25)
    assert texts(figure)[-2] == "the most important 25% of the cells; the rest is black"
    assert texts(figure)[0] == "tabby"  # without the score, which is that of the whole image


def test_masked_images_show_whole_regions_and_count_them() -> None:
    labels = np.array([[7, 7, 7, 7], [7, 7, 7, 7], [3, 3, 5, 5], [3, 3, 5, 5]], np.int32)
    mask = np.select([labels == 5, labels == 7], [0.1, 0.4], 0.9).astype(np.float32)
    one = explanation(80, 80, masks=mask, regions=labels)
    one.attributes.update({"baseline": "black", "regions": "Slic"})
    subject = Subject.of(one, picture(80, 80, 255), 80, True)
    # A curve takes a region with half of its cells: region 5 with 2 of 4, region 7 with 4 more of 8.
    # The first region is always shown.
    for cells, wanted in ((1, [5]), (2, [5]), (7, [5]), (8, [5, 7]), (16, [3, 5, 7])):
        assert np.unique(labels[subject.most_important(cells / 16)]).tolist() == wanted
        assert subject.regions_in_words(cells / 16) == f"{len(wanted)} of 3 regions"
    shown = texts(drawn(one, style="masked", fraction=0.5))
    assert "b/cat.jpg, 2 of 3 regions" in shown
    assert "the most important regions; the rest is black" in " ".join(shown)


def test_few_cells_have_sharp_borders_and_many_do_not() -> None:
    random = np.random.RandomState(0)
    for size, sharp in ((7, True), (20, True), (21, False)):
        subject = Subject.of(explanation(masks=random.rand(size, size)), None, 60, False)
        values = np.unique(subject.saliency)
        assert (len(values) == size**2) == sharp
    labels = np.repeat(np.arange(28), 28).reshape(28, 28)
    assert len(np.unique(Subject.of(explanation(masks=labels / 28), None, 60, False).saliency)) > 28


@pytest.mark.parametrize(
    "frame",
    [
        Frame(90, 60, (0, 0, 90, 60), (56, 56)),
        Frame.of(90, 60, (56, 56), "crop"),
        Frame(90, 60, (0, -15, 90, 75), (56, 56)),
    ],
)
def test_a_pixel_shows_the_cell_that_weighs_most_in_the_networks_mask(frame: Frame) -> None:
    cells = np.arange(25).reshape(5, 5)
    weights = np.stack([frame.saliency_on_original((cells == cell).astype(np.float32)) for cell in range(25)])
    found = frame.cells_on_original(cells, outside=-1)
    seen = weights.sum(0) > 0.5
    assert (found[~seen] == -1).all()
    two, one = np.sort(weights, 0)[-2:]
    clear = seen & (one - two > 0.05)  # not on a border
    assert clear.sum() > 0.8 * seen.sum()
    np.testing.assert_array_equal(found[clear], weights.argmax(0)[clear])


def numbers(figure: Figure, panel: int = 0) -> dict[str, tuple[float, float]]:
    """The numbers in a picture, with their places as shares of its width and height."""
    axes = figure.axes[panel]
    height, width = shown(axes).shape[:2]
    places = {text.get_text(): text.get_position() for text in axes.texts}
    return {text: ((x + 0.5) / width, (y + 0.5) / height) for text, (x, y) in places.items()}


def searched(masks: np.ndarray, **values: Any) -> Explanation:
    one = explanation(60, 60, masks=masks.astype(np.float32), **values)
    return Explanation(one.values, one.image, {"method": "search", "preset": "search"})


def test_the_overlay_of_a_search_numbers_its_first_cells() -> None:
    masks = np.full((4, 4), 0.95)
    masks[1, 2], masks[0, 0], masks[3, 1], masks[2, 2] = 0.0, 0.1, 0.5, 0.92
    found = numbers(drawn(searched(masks), style="overlay"))
    # Half of an outer cell is in the picture.
    places = {"1": (4 / 6, 2 / 6), "2": (0.5 / 6, 0.5 / 6), "3": (2 / 6, 5.5 / 6)}
    assert found.keys() == places.keys()  # the prediction was complete before the others
    for text, place in places.items():
        assert found[text] == pytest.approx(place, abs=0.03)
    assert numbers(drawn(searched(masks)), 1).keys() == places.keys()
    assert "saliency; numbers: order of the search" in texts(drawn(searched(masks)))
    many = searched(np.linspace(0, 0.8, 16).reshape(4, 4))
    assert list(numbers(drawn(many, style="overlay"))) == ["1", "2", "3", "4", "5"]
    assert not numbers(drawn(many, style="overlay", height=0.2))  # no room
    for figure in (drawn(explanation(), style="overlay"), drawn(many, style="heatmap")):
        assert not numbers(figure)
        assert "order of the search" not in " ".join(texts(figure))


def test_numbers_lie_inside_their_regions() -> None:
    labels = np.ones((40, 40), np.int32)
    labels[4:36, 4:8] = labels[30:36, 4:30] = 9  # an L, whose centre lies outside of it
    labels[10:16, 20:26] = 4
    masks = np.select([labels == 9, labels == 4], [0.0, 0.3], 0.6)
    one = searched(masks, regions=labels)
    one.attributes["regions"] = "Slic"
    figure = drawn(one, style="overlay")
    found = {}
    for text, (x, y) in numbers(figure).items():
        found[text] = labels[int(y * 40), int(x * 40)]
    assert found == {"1": 9, "2": 4, "3": 1}
    assert "numbers: order of the search" in texts(figure)


def test_contours_enclose_the_saliency() -> None:
    axes = drawn(explanation(), style="contours").axes[0]
    vertices = np.concatenate([path.vertices for lines in axes.collections for path in lines.get_paths()])
    assert len(vertices)
    assert vertices[:, 0].max() < 45
    assert vertices[:, 1].max() < 30
    nothing = drawn(explanation(masks=np.full((4, 4), 0.995, np.float32)), style="contours").axes[0]
    assert not nothing.collections


def test_a_large_image_is_drawn_at_the_size_that_is_seen() -> None:
    axes = drawn(explanation(3000, 2000), style="pair", height=1, dpi=100, width=4).axes
    assert max(shown(axes[0]).shape) <= 400


def test_wrong_settings_are_refused() -> None:
    for options, message in (
        ({"style": "overlya"}, "did you mean overlay"), ({"scale": "own"}, "must be one of: each, shared"),
        ({"fraction": 2}, "between 0 and 1"), ({"columns": 0}, "at least 1"), ({"dpi": 0}, "at least 10"),
    ):  # fmt: skip
        with pytest.raises(IgosError, match=message):
            drawn(explanation(), **options)
    with pytest.raises(IgosError, match="0 explanations cannot be drawn"):
        draw([])
    with pytest.raises(IgosError, match="an entry of the type str, but must have explanations, as MaskFile"):
        draw("runs/photos")  # type: ignore[arg-type]
    with pytest.raises(IgosError, match="401 explanations cannot be drawn in one figure: choose 1 to 400"):
        draw([explanation()] * 401)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(IgosError, match="has 61 x 40 pixels, but the explained one had 60 x 40"):
        draw([explanation()], images=[picture(61)])


def test_images_that_moved(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    for path, message in (
        ("/nowhere", r"b/cat.jpg cannot be shown. /nowhere: .* moved, pass .* or its folder .*--images"),
        ("list[0]", r"b/cat.jpg cannot be shown, because list\[0\], .* is not a file: pass .* plot"),
        (f"{tmp_path}/a.tar/cat.jpg", r"because .*a.tar/cat.jpg, .* is not a file"),
    ):
        given = explanation()
        given.image["path"] = path
        with pytest.raises(IgosError, match=message):
            given.plot()
    assert explanation().plot("heatmap").axes  # which needs no image
    (tmp_path / "b").mkdir()
    Image.fromarray(picture()).save(tmp_path / "b" / "cat.jpg")
    found = moved(explanation(), tmp_path)
    assert found.plot("pair").axes
    with pytest.raises(IgosError, match="There is no folder"):
        moved(explanation(), tmp_path / "none")
    with pytest.raises(IgosError, match="is no path in"):
        moved(explanation(sample_id="../cat.jpg"), tmp_path)


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes a figure and returns the file's bytes."""

    def write(kind: str, *explanations: Explanation, **metadata: str) -> bytes:
        path = tmp_path / f"figure.{kind}"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save(drawn(*explanations, style="overlay"), path, metadata=metadata)
        return path.read_bytes()

    return write


NAMES: Sequence[str] = ("<b>&amp;</b>", "قطة", "a\u202eb", "fée_1%20$x$")


def test_svg_keeps_text_and_escapes_it(written: Any) -> None:
    content = written("svg", *(explanation(label_name=name) for name in NAMES)).decode()
    assert "&lt;b&gt;&amp;amp;&lt;/b&gt; 0.75" in content
    assert "قطة" in content
    assert "\u202e" not in content  # it would turn the rest around
    assert r"a\u202eb" in content


def test_pdf_embeds_fonts_as_text(written: Any) -> None:
    content = written("pdf", *(explanation(label_name=name) for name in NAMES))
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content
    assert re.search(rb"/Subtype /(Type0|TrueType|CIDFontType2)", content)
    assert b"/Type3" not in content


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_the_same_figure_gives_the_same_bytes(kind: str, written: Any) -> None:
    assert written(kind, explanation()) == written(kind, explanation())


def test_pictures_hold_the_metadata(written: Any, tmp_path: Path) -> None:
    written("png", explanation(), Explanation="cat 猫")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.text["Explanation"] == "cat 猫"


def test_a_character_that_no_font_has_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = "\U00010f00"  # Old Sogdian
    there = lettering._characters
    monkeypatch.setattr(lettering, "_characters", lambda path: there(path) - {ord(mark)})
    lettering._family_with.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"U\+10F00.*show a box") as warned:
            drawn(explanation(label_name=mark), explanation(label_name=mark), style="overlay")
        assert sum("U+10F00" in str(one.message) for one in warned) == 1
    finally:
        lettering._family_with.cache_clear()
