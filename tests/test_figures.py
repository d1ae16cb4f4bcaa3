"""Figures: the layout for every shape of image, honest colours, readable names, and the files."""

from __future__ import annotations

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
    shared = drawn(explanation(), weak, style="heatmap")
    assert shared.axes[-1].get_xlim() == pytest.approx((0, 0.7), abs=1e-6)
    assert np.abs(shown(shared.axes[0]) - shown(shared.axes[1])).max() > 0.3
    each = drawn(explanation(), weak, style="heatmap", scale="each")
    np.testing.assert_allclose(shown(each.axes[0]), shown(each.axes[1]), atol=0.02)
    assert each.axes[-1].get_xlim() == pytest.approx((0, 1))
    assert "saliency up to 0.35" in texts(each)


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
        found[name] = np.asarray(figure.canvas.buffer_rgba())[55:-60, :, :3] / 255  # without texts
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
    assert texts(drawn(over))[-2:] == [
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
        return [text for text in texts(figure) if "saliency up to" in text]

    assert said(0.7, 0.09, 0.3, 0.01) == ["faint: saliency up to 0.09", "faint: saliency up to 0.01"]
    assert said(0.7, 0.3) == []
    assert said(0.09, 0.01) == []  # all are nearly empty, with any scale
    assert said(0.7, 0.09, style="masked") == []
    assert said(0.7, 0.09, scale="each") == ["saliency up to 0.70", "saliency up to 0.09"]


def test_the_command_says_how_to_see_faint_masks(tmp_path: Path, capsys: Any) -> None:
    masks = np.ones((3, 4, 4), np.float32)
    masks[:, 0, 0] = 0.3, 0.95, 0.97
    run = results.write_result(tmp_path / "run.h5", ["a.png", "b.png", "c.png"], masks=masks)
    output = str(tmp_path / "figure.svg")
    assert main(["figure", str(run), "--style", "heatmap", "--output", output]) == 0
    said = capsys.readouterr().out
    assert "2 masks can hardly be seen beside the others" in said
    assert "--scale each" in said
    assert f"3 of 3 explanations are in {output}" in said
    again = ["figure", str(run), "--style", "heatmap", "--output", output, "--overwrite", "--scale", "each"]
    assert main(again) == 0
    assert "hardly" not in capsys.readouterr().out
    assert main([*again, "--rows", "0"]) == 0
    assert f"1 of 3 explanations is in {output}" in capsys.readouterr().out


@pytest.mark.parametrize("scale", ["shared", "each"])
def test_captions_stay_in_their_tiles(scale: str) -> None:
    names = ["w" * 200, "<script>alert(1)</script>" * 5, "猫" * 80, "قطة " * 40, "e\u0301" * 90]
    ones = [explanation(30, 40, label_name=name, sample_id=name) for name in names]
    figure = drawn(*ones, style="overlay", columns=5, scale=scale)
    canvas: Any = figure.canvas
    with lettering.no_glyph_warnings():
        boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.texts if text.get_text()]
    for number, one in enumerate(boxes[: 3 * len(names)]):
        assert not any(one.overlaps(other) for other in boxes[number + 1 :])
    for label in texts(figure)[: 3 * len(names) : 3]:
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
        ({"style": "overlya"}, "did you mean overlay"), ({"scale": "own"}, "must be one of: shared, each"),
        ({"fraction": 2}, "between 0 and 1"), ({"columns": 0}, "at least 1"), ({"dpi": 0}, "at least 10"),
    ):  # fmt: skip
        with pytest.raises(IgosError, match=message):
            drawn(explanation(), **options)
    with pytest.raises(IgosError, match="0 explanations cannot be drawn"):
        draw([])
    with pytest.raises(IgosError, match="401 explanations cannot be drawn in one figure: choose 1 to 400"):
        draw([explanation()] * 401)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(IgosError, match="has 61 x 40 pixels, but the explained one had 60 x 40"):
        draw([explanation()], images=[picture(61)])


def test_images_that_moved(tmp_path: Path) -> None:
    with pytest.raises(IgosError, match=r"b/cat.jpg cannot be shown: /nowhere: .*add --images FOLDER"):
        explanation().plot()
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
