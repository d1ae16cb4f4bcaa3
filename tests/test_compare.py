"""Comparing results: pairing, differences with intervals, agreement of masks, and what is written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import ExitStack
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import results
import tiny
from rich.console import Console

from igos_pl.cli.compare import _print
from igos_pl.cli.main import main
from igos_pl.compare import Comparison, compare
from igos_pl.compare.agreement import agreement, rank_correlation, top_overlaps
from igos_pl.compare.comparison import paired_difference
from igos_pl.compare.page import page
from igos_pl.compare.pairing import pair
from igos_pl.compare.words import counts, metric_rows, remarks, settings_in_some
from igos_pl.data.explanation import Explanation
from igos_pl.data.geometry import pooled
from igos_pl.errors import IgosError
from igos_pl.store import MaskFile, RunFolder

IDS = ["a.png", "b.png", "c.png", "d.png"]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Any]:
    """Writes results and opens them."""
    with ExitStack() as stack:

        def write(name: str, ids: list[str], **columns: Any) -> MaskFile:
            path = results.write_result(tmp_path / f"{name}.h5", ids, **columns)
            return stack.enter_context(MaskFile(path))

        yield write


def box(x: float, y: float, side: float = 10) -> list[float]:
    return [x, y, x + side, y + side]


def test_targets_are_paired_by_image_class_and_box(opened: Any) -> None:
    one = opened(
        "one", ["a", "a", "a", "b"], label_name=["cat", "cat", "dog", "cat"],
        box=np.array([box(0, 0), box(20, 0), box(0, 0), box(0, 0)]),
    )  # fmt: skip
    other = opened(
        "other", ["a", "a", "b", "c"], label_name=["cat", "cat", "dog", "cat"],
        box=np.array([box(21, 1), box(0, 8), box(0, 0), box(0, 0)]),
    )  # fmt: skip
    found = pair([one, other])
    assert found.rows.tolist() == [[1, 0]]  # the same class at the same place; an IoU of 0.1 is too little
    assert found.alone == [3, 3]
    assert found.images_alone == [[], ["c"]]


def test_of_several_starts_the_best_is_paired(opened: Any) -> None:
    starts = opened("starts", ["a", "a", "b"], target=[0, 0, 0], start_cell=[0, 1, -1], best=[0, 1, 1])
    assert pair([starts, opened("one", ["b", "a"])]).rows.tolist() == [[1, 1], [2, 0]]


def test_a_target_with_a_box_is_not_one_without(opened: Any) -> None:
    assert not len(pair([opened("boxed", ["a"], box=np.array([box(0, 0)])), opened("bare", ["a"])]).rows)


def test_intervals_hold_the_mean_and_shrink_with_more_images() -> None:
    random = np.random.RandomState(0)
    few, many = random.randn(20) + 0.5, random.randn(2000) + 0.5
    small, large = (
        paired_difference(values, np.arange(len(values)).astype(str).astype(object)) for values in (few, many)
    )
    assert small.low < small.mean < small.high
    # the standard error is 1 / sqrt(n)
    assert large.high - large.low == pytest.approx(2 * 1.96 / np.sqrt(2000), rel=0.1)
    assert small.high - small.low > 3 * (large.high - large.low)
    assert large.low < 0.5 < large.high


def test_explanations_of_one_image_count_as_one_draw() -> None:
    values = np.repeat(np.random.RandomState(0).randn(50), 20)
    alone = paired_difference(values, np.arange(1000).astype(str).astype(object))
    grouped = paired_difference(values, np.repeat(np.arange(50), 20).astype(str).astype(object))
    assert alone.mean == pytest.approx(grouped.mean)
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)


def test_unknown_values_are_left_out() -> None:
    images = np.array(list("abcd"), object)
    found = paired_difference(np.array([1.0, np.nan, 3.0, np.nan]), images)
    assert (found.mean, found.count) == (2, 2)
    assert np.isnan(paired_difference(np.full(4, np.nan), images).mean)
    single = paired_difference(np.array([1.0, 2.0]), np.array(["a", "a"], object))
    assert single.mean == 1.5
    assert np.isnan(single.low)


def explanation(masks: np.ndarray, frame: tuple[float, float, float, float] = (0, 0, 60, 40)) -> Explanation:
    image = {"width": 60, "height": 40, "frame": frame, "input_size": (24, 24)}
    return Explanation({"masks": masks.astype(np.float32)}, image, {})


def test_agreement_of_equal_opposite_and_unrelated_masks() -> None:
    masks = np.random.RandomState(0).rand(28, 28)
    assert agreement(explanation(masks), explanation(masks / 2 + 0.25)) == pytest.approx((1, 1, 1))
    assert agreement(explanation(masks), explanation(1 - masks)) == pytest.approx((-1, 0, 0))
    unrelated = agreement(explanation(masks), explanation(np.random.RandomState(1).rand(28, 28)))
    assert unrelated == pytest.approx((0, 0.1 / 1.9, 0.2 / 1.8), abs=0.1)
    assert np.isnan(agreement(explanation(masks), explanation(np.ones((28, 28))))).all()


def test_rank_correlation_is_spearmans() -> None:
    scipy = pytest.importorskip("scipy.stats")
    random = np.random.RandomState(0)
    for _ in range(5):
        a, b = (random.randint(0, 6, (8, 8)).astype(float) for _ in range(2))  # with ties
        assert rank_correlation(a, b) == pytest.approx(scipy.spearmanr(a, b, axis=None).statistic)


def test_overlap_counts_cells() -> None:
    a = np.arange(100.0).reshape(10, 10)
    b = np.roll(a.ravel(), 5).reshape(10, 10)  # the top ten of one are five of the other
    assert top_overlaps(a, a, (0.1, 0.5)) == [1, 1]
    assert top_overlaps(a, b, (0.1, 0.5)) == pytest.approx([5 / 15, 45 / 55])


@pytest.mark.parametrize(("cells", "size"), [(28, 14), (28, 20), (7, 7), (9, 4)])
def test_pooling_keeps_the_mean(cells: int, size: int) -> None:
    mask = np.random.RandomState(0).rand(cells, cells)
    small = pooled(mask, size)
    assert small.shape == (size, size)
    assert small.mean() == pytest.approx(mask.mean())
    if cells == 2 * size:
        np.testing.assert_allclose(small, mask.reshape(size, 2, size, 2).mean((1, 3)))


def test_masks_of_other_sizes_and_frames_are_compared_where_both_are() -> None:
    coarse = np.random.RandomState(0).rand(7, 7)
    fine = coarse.repeat(4, 0).repeat(4, 1)
    assert agreement(explanation(fine), explanation(coarse))[0] == pytest.approx(1)
    # the same picture seen whole, and as its middle half
    smooth = np.add.outer(np.linspace(0, 1, 28), np.linspace(0, 1, 28) ** 2)
    middle = np.add.outer(np.linspace(0.25, 0.75, 28), np.linspace(0.25, 0.75, 28) ** 2)
    found = agreement(explanation(smooth), explanation(middle, (15, 10, 45, 30)))
    assert found[0] > 0.98
    apart = agreement(explanation(smooth, (0, 0, 30, 40)), explanation(smooth, (30, 0, 60, 40)))
    assert np.isnan(apart).all()


def test_a_comparison(opened: Any) -> None:
    one = opened("one", IDS, deletion=[0.2] * 4, insertion=[0.5, 0.6, 0.7, 0.8])
    other = opened(
        "other", IDS[::-1], insertion=[0.9, 0.9, 0.7, 0.5], attributes={"mask_size": 7, "preset": "draft"}
    )
    found = compare([one, other], ["one", "other"])
    assert found.images.tolist() == IDS
    assert found.mean("insertion", 0) == pytest.approx(0.65)
    assert found.difference("insertion", 1).mean == pytest.approx(0.1)
    assert found.difference("difference", 1).mean == pytest.approx(0.1)
    assert np.isnan(found.difference("energy_box", 1).mean)
    assert list(found.settings.items()) == [("preset", ["fast", "draft"]), ("mask_size", ["4", "7"])]
    assert not found.remarks
    assert found.agreements[0, 1].shape == (4, 3)


def test_a_difference_of_zero_has_no_minus(opened: Any) -> None:
    ids = [f"{number}.png" for number in range(9)]
    first = opened("first", ids, score=np.full(9, 0.5))
    second = opened("second", ids, score=np.full(9, 0.4999))
    (row,) = (row for row in metric_rows(compare([first, second], ["first", "second"])) if row[0] == "score")
    assert row == ["score", "0.500", "0.500", "+0.000", "+0.000 to +0.000"]


def test_settings_that_only_some_results_have_are_one_line(opened: Any) -> None:
    settings = {
        "one": {"l1": 10.0, "l2": 80.0},
        "other": {"l1": 10.0, "seed": 1},
        "map": {"negative": "zero", "files": "a" * 30 + "b" * 30},
    }
    names = list(settings)
    results = [opened(name, IDS, attributes=settings[name]) for name in names]
    two = compare([results[0], results[2]], ["one", "map"])
    assert two.settings == {}
    of_map = f"only in map: files={'a' * 20}…{'b' * 19}, negative=zero"
    assert settings_in_some(two) == ["only in one: l1=10.0, l2=80.0", of_map]
    three = compare(results, names)
    assert three.settings == {"seed": ["63", "1", "63"]}
    assert settings_in_some(three) == ["only in one: l2=80.0", "only in one, other: l1=10.0", of_map]
    console = Console(width=200, record=True, file=io.StringIO())
    _print(two, console)
    assert f"settings that differ\n  only in one: l1=10.0, l2=80.0\n  {of_map}" in console.export_text()
    assert f'<p class="name">{of_map}</p>' in unmarked(page(results, three)[0])


def unmarked(text: str) -> str:
    """A page's text without the marks around names and values, which must come in pairs."""
    assert text.count(OPEN) == text.count(CLOSE)
    return text.replace(OPEN, "").replace(CLOSE, "")


OPEN, CLOSE = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"


def test_other_networks_and_baselines_are_told(opened: Any) -> None:
    attributes = {"network.name": "Other", "baseline": "black"}
    found = compare([opened("one", IDS), opened("other", IDS, attributes=attributes)], ["one", "other"])
    assert any("different networks" in remark for remark in found.remarks)
    assert any("different baselines (blur, black)" in remark for remark in found.remarks)


@pytest.mark.parametrize(("images", "told"), [(9, ["9 images only"]), (10, [])])
def test_intervals_of_few_images_are_told(opened: Any, images: int, told: list[str]) -> None:
    names = [f"{number}.png" for number in range(images)]
    found = remarks(compare([opened("one", names), opened("other", names)], ["one", "other"]))
    assert [line.removeprefix("The intervals come from ")[:13] for line in found] == told


def test_images_that_failed_are_told(opened: Any) -> None:
    one = opened("one", IDS)
    other = opened("other", IDS[1:], failed={IDS[0]: "no image"})
    assert counts(compare([one, other], ["one", "other"])) == [
        "3 shared explanations of 3 images",
        "only in one: 1 explanation",
        f"1 image of other is not fully explained: {IDS[0]} (unreadable)",
    ]


def test_a_run_that_is_unfinished_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / "one", tmp_path / "<b>two"]
    for number, folder in enumerate(folders):
        (folder / "segments").mkdir(parents=True)
        results.write_result(folder / "segments" / "s.h5", IDS)
        RunFolder(folder).expect([*IDS, *["e.png"] * number])
    told = "<b>two: This run is not finished: 1 of 5 images has no result yet, and is left out here."
    assert main(["compare", *map(str, folders), "--html", str(tmp_path / "c.html")]) == 0
    said = capsys.readouterr().out
    assert said.count("not finished") == 1
    assert f"note: {told} To continue, repeat the command" in said
    assert "and then igos-pl compare." in said
    page = Page((tmp_path / "c.html").read_text(encoding="utf-8"))
    assert told in unmarked(page.text)
    assert f"{OPEN}<b>two{CLOSE}: {OPEN}This run" in page.text


def test_names_and_values_do_not_reorder_the_page(opened: Any) -> None:
    """Beside a name that is written from right to left, numbers and commas would change places."""
    name, value, image = "تشغيل", "قيمة", "صورة.png"
    one = opened("one", [*IDS, image], attributes={"note": value, "same": value})
    other = opened("other", IDS, attributes={"same": "2"})
    text, _ = page([one, other], compare([one, other], [name, "b"]))
    for outside in (name, value, image):
        bare = re.sub(rf"(<bdi>|{OPEN}){re.escape(outside)}(</bdi>|{CLOSE})", "", text)
        assert bare != text
        assert outside not in bare


def test_results_without_anything_in_common(opened: Any) -> None:
    with pytest.raises(IgosError, match="have no image in common .*for example, a.png, z.png"):
        compare([opened("one", IDS), opened("other", ["z.png"])], ["one", "other"])
    cats, dogs = (opened(name, IDS, label_name=[name] * len(IDS)) for name in ("cat", "dog"))
    with pytest.raises(IgosError, match="share no explanation .*same classes, set targets of the network"):
        compare([cats, dogs], ["cat", "dog"])
    with pytest.raises(IgosError, match="two results or more"):
        compare([opened("single", IDS)], ["one"])


HOSTILE = "<script>alert(1)</script> & 'q' \"r\" \u202eevil قطة"


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    photos = tiny.write_pictures(tmp_path / "photos", IDS)
    paths = []
    for number, name in enumerate(("one", "two <b>")):
        masks = np.random.RandomState(number).rand(4, 4 + number, 4 + number).astype(np.float32)
        path = results.write_result(
            tmp_path / f"{name}.h5", IDS, folder=photos, masks=masks, label_name=[HOSTILE] * 4,
            insertion=[0.5 + 0.1 * number] * 4,
        )  # fmt: skip
        paths.append(str(path))
    return paths


class Page(HTMLParser):
    """What a page has in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_command_prints_tables_and_writes_files(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--csv", str(tmp_path / "c.csv"), "--html", str(tmp_path / "c.html")]
    assert main(["compare", *runs, *files]) == 0
    said = capsys.readouterr().out
    assert "4 shared explanations of 4 images" in said
    assert re.search(r"insertion \(high is good\) +0.500 +0.600 +\+0.100 +\+0.100 to \+0.100", said)
    assert "rank correlation" in said
    assert "\\n" not in said
    rows = list(csv.DictReader((tmp_path / "c.csv").open(encoding="utf-8")))
    assert [row["sample_id"] for row in rows] == IDS
    assert rows[0]["insertion two <b>.h5"] == "0.6"
    assert rows[0]["label_name"] == HOSTILE
    assert -1 <= float(rows[0]["rank correlation one.h5 two <b>.h5"]) <= 1
    page = Page((tmp_path / "c.html").read_text(encoding="utf-8"))
    names = [tag for tag, _ in page.tags]
    assert "script" not in names
    assert "b" not in names
    assert names.count("img") == 4 * 3
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in page.text
    assert not re.search(r"(src|href)=.?https?:", (tmp_path / "c.html").read_text(encoding="utf-8"))
    assert main(["compare", *runs, *files]) == 2  # exists already
    assert main(["compare", *runs, *files, "--overwrite"]) == 0


def test_images_that_have_gone_are_told(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos" / "b.png").unlink()
    assert main(["compare", *runs, "--html", str(tmp_path / "c.html")]) == 0
    assert "1 image cannot be shown: The image of b.png cannot be shown" in capsys.readouterr().out
    page = Page((tmp_path / "c.html").read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.tags].count("img") == 3 * 3
    assert "b.png cannot be shown" in page.text
    (tmp_path / "photos").rename(tmp_path / "moved")
    words = ["compare", *runs, "--html", str(tmp_path / "d.html"), "--images", str(tmp_path / "moved")]
    assert main(words) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--names", "a"], "--names needs 2 different names"), (["--names", "a,a"], "2 different names"),
        (["--csv", "nowhere/a.csv"], "there is no folder"),
        (["--csv", "/", "--overwrite"], "/ is a folder: give the name of a file"),
        (["--images", "nowhere"], "There is no folder nowhere: set --images"),
    ],
)  # fmt: skip
def test_wrong_options(
    runs: list[str], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *runs, *words]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out
    assert main(["compare", runs[0]]) == 2
    assert "two results or more" in capsys.readouterr().err
    assert main(["compare", runs[0], runs[0]]) == 2
    assert "given twice" in capsys.readouterr().err


def test_three_results(opened: Any) -> None:
    names = ["one", "two", "three"]
    found: Comparison = compare([opened(name, IDS) for name in names], names)
    assert set(found.agreements) == {(0, 1), (0, 2), (1, 2)}
    assert found.difference("insertion", 2).mean == 0
    console = Console(width=200, record=True, file=io.StringIO())
    _print(found, console)
    text = console.export_text()
    assert "three - one" in text
    assert "two, three" in text
