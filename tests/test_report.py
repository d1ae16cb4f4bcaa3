"""Reports: their numbers, which explanations they show, their pictures, and text from outside."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from report_runs import CLASSES, invented, write_run

from igos_pl.cli.main import main
from igos_pl.data.geometry import Frame
from igos_pl.data.overlay import overlaid
from igos_pl.errors import IgosError
from igos_pl.findings import Cluster, Finding
from igos_pl.report.choice import choose
from igos_pl.report.curves import AXIS, MeanCurve, mean_curves, on_axis
from igos_pl.report.findings import Seen, by_class
from igos_pl.report.numbers import Numbers, means_by_class, means_of
from igos_pl.report.pictures import _blur, saliency_on_picture
from igos_pl.solver.baselines import blur_parameters, gaussian_blur
from igos_pl.store import MaskFile, merge, unfinished
from igos_pl.store.index import Index

pytest.importorskip("jinja2")

from igos_pl.report import ReportSettings, write_report


def data_of(report: Path, name: str) -> Any:
    """The value in a data script."""
    text = (report / "data" / f"{name}.js").read_text("ascii")
    found = re.fullmatch(r"""igosData\("([\w-]+)",JSON\.parse\('(.*)'\)\);\n""", text, re.DOTALL)
    assert found is not None
    assert found[1] == name
    assert not re.search(r"(?<!\\)(?:\\\\)*'", found[2])
    return json.loads(found[2].replace("\\'", "'").replace("\\\\", "\\"))


# ---- curves


def test_curves_of_any_number_of_points_come_to_one_axis() -> None:
    for points in (2, 11, 51, 101):
        line = np.linspace(0.2, 0.9, points, dtype=np.float32)[None]
        np.testing.assert_allclose(on_axis(line)[0], np.linspace(0.2, 0.9, len(AXIS)), atol=1e-6)
    np.testing.assert_allclose(on_axis(np.array([[0.0, 1.0, 0.0]]))[0][[0, 25, 50]], [0, 1, 0])
    assert np.isnan(on_axis(np.full((2, 51), np.nan))).all()


def test_the_band_counts_each_image_once(tmp_path: Path) -> None:
    columns = invented(40)
    twice = {name: np.repeat(values, 2, axis=0) for name, values in columns.items()}
    twice["target"] = np.tile([0, 1], 40)
    write_run(tmp_path / "once", columns)
    write_run(tmp_path / "twice", twice)
    found = []
    for name in ("once", "twice"):
        with MaskFile(tmp_path / name) as masks:
            numbers = Numbers(masks)
            every = {"all": np.ones(len(masks), bool)}
            curve = mean_curves(masks, numbers.image, every)["all"]["insertion"]
            found.append((curve.mean, curve.half_width, means_of(numbers, every)[0].half_width))
            whole = on_axis(masks.column("insertion_curve"))
            np.testing.assert_allclose(curve.mean, whole.mean(0), atol=1e-6)
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-9)
    first = on_axis(columns["insertion_curve"])
    np.testing.assert_allclose(found[0][1], 1.96 * first.std(0, ddof=1) / np.sqrt(40), atol=1e-6)


def test_bands_stay_where_scores_are(tmp_path: Path) -> None:
    columns = invented(3)
    columns["insertion_curve"] = np.array([[0.0] * 21, [0.05] * 21, [0.9] * 21], np.float32)
    columns["deletion_curve"] = 1 - columns["insertion_curve"]
    write_run(tmp_path, columns)
    write_report(tmp_path, tmp_path / "report")
    curves = data_of(tmp_path / "report", "summary")["curves"]["all"]
    for kind, mean in (("insertion", 0.3167), ("deletion", 0.6833)):
        half = curves[kind]["half"][5]
        assert half > 0.5
        assert curves[kind]["low"][5] == pytest.approx(max(0, mean - half), abs=2e-4)
        assert curves[kind]["high"][5] == pytest.approx(min(1, mean + half), abs=2e-4)
    outside = MeanCurve(np.array([1.5, -2.0]), np.array([0.2, 0.2]), 2)  # scores of a network of one's own
    assert [end.tolist() for end in outside.band()] == [[1.3, -2.0], [1.5, -1.8]]


def test_means_by_class_are_those_of_its_rows(tmp_path: Path) -> None:
    columns = invented(60)
    columns["deletion_curve"][7] = np.nan
    columns["deletion"][7] = np.nan
    write_run(tmp_path, columns)
    with MaskFile(tmp_path) as masks:
        numbers = Numbers(masks)
        for means in means_by_class(numbers):
            rows = np.flatnonzero(masks.column("label_name") == means.name)
            difference = (masks.column("insertion") - masks.column("deletion"))[rows]
            assert means.rows == len(rows)
            assert means.difference == pytest.approx(np.nanmean(difference), abs=1e-6)
            assert means.uninformative == pytest.approx(np.mean(difference[np.isfinite(difference)] < 0.05))
            assert means.right == 1
            assert np.isnan(means.localisation["energy_box"])


# ---- choice


def test_the_choice_has_the_best_the_worst_each_class_and_what_is_not_ok(tmp_path: Path) -> None:
    columns = invented(300)
    columns["status"][[5, 250]] = "nan"
    write_run(tmp_path, columns)
    with MaskFile(tmp_path) as masks:
        numbers = Numbers(masks)
        choice = choose(numbers, 40, [17, 18])
        order = np.argsort(numbers.difference)
        assert len(choice.rows) == 40
        assert set(order[:4]) | set(order[-4:]) | {5, 250, 17, 18} <= set(choice.rows.tolist())
        assert {name: choice.rows[places].tolist() for name, places in choice.reasons.items()} == {
            "not ok": [5, 250],
            "finding": [17, 18],
            "best": sorted(order[-4:].tolist()),
            "worst": sorted(order[:4].tolist()),
        }
        assert set(numbers.class_index[choice.rows]) == set(range(len(CLASSES)))
        assert (choose(numbers, 40, [17, 18]).rows == choice.rows).all()
        assert (choose(numbers, None).rows == np.arange(300)).all()
        assert (choose(numbers, 5000).rows == np.arange(300)).all()


def test_all_starts_of_a_target_are_shown_together(tmp_path: Path) -> None:
    rows = 30
    columns = invented(10, 3, start_cell=np.tile([0, 1, 2], 10), target=np.zeros(rows, np.int64))
    columns["best"] = np.tile([0, 1, 0], 10)
    write_run(tmp_path, columns)
    with MaskFile(tmp_path) as masks:
        chosen = choose(Numbers(masks), 9).rows
    assert len(chosen) == 9
    assert (chosen.reshape(-1, 3) % 3 == [0, 1, 2]).all()


# ---- the report


def test_report_shows_every_explanation_and_its_values(tmp_path: Path) -> None:
    columns = invented(6, 2)
    write_run(tmp_path / "run", columns, failures=2, pictures=tmp_path / "photos")
    report = write_report(tmp_path / "run", tmp_path / "report")
    assert (report.shown, report.total, report.pictures) == (12, 12, {"ok": 6})
    gallery = data_of(report.index.parent, "gallery")
    masks = data_of(report.index.parent, "masks-0")
    assert gallery["row"] == list(range(12))
    assert gallery["insertion"] == pytest.approx(columns["insertion"].tolist(), abs=1e-4)
    assert gallery["largest"] == pytest.approx((1 - columns["masks"]).max((1, 2)).tolist(), abs=1e-4)
    shown = np.frombuffer(base64.b64decode(masks[3]["mask"]), "<u2").reshape(8, 8) / 65535
    np.testing.assert_allclose(shown, 1 - columns["masks"][3], atol=1e-5)
    assert len(masks[3]["deletion"]) == len(AXIS)
    for place in range(12):
        name, picture = gallery["thumbnail"][place], gallery["images"]["picture"][gallery["image"][place]]
        with Image.open(report.index.parent / "thumbnails" / name[:2] / f"{name}.webp") as image:
            assert image.size == (96, 72)
        assert (report.index.parent / "pictures" / picture[:2] / f"{picture}.webp").is_file()
    page = report.index.read_text("utf-8")
    assert "2 <bdi>unreadable</bdi>" in page
    assert "&lt;i&gt;no&lt;/i&gt; image" in page


def test_nothing_from_outside_is_code(tmp_path: Path) -> None:
    write_run(tmp_path / "run", invented(40), failures=1)
    folder = write_report(tmp_path / "run", tmp_path / "report").index.parent
    page = (folder / "index.html").read_text("utf-8")
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "<b>" not in page
    assert not re.search(r"<script[^>]*>[^<]", page)
    assert 'dir="auto">قطة سوداء' in page
    assert "dog\\nwith a line" in page
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
    assert data_of(folder, "gallery")["classes"] == [name.replace("\n", "\\n") for name in CLASSES]


FRAMES = (
    Frame(200, 120, (0, 0, 200, 120), (56, 56)),
    Frame.of(200, 120, (56, 56), "crop"),
    Frame(200, 120, (0, -40, 200, 160), (56, 56)),
)


def test_saliency_lies_where_the_overlays_have_it() -> None:
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.random((7, 7)).astype(np.float32))
    saliency = np.array(coarse.resize((21, 21), Image.Resampling.BILINEAR))
    for frame in FRAMES:
        expected = frame.saliency_on_original(saliency)
        found = saliency_on_picture(saliency, frame, (200, 120))
        assert np.abs(found - expected).mean() < 0.02


def test_few_cells_are_as_sharp_as_in_the_overlays() -> None:
    saliency = np.random.default_rng(0).random((7, 7)).astype(np.float32)
    for frame in FRAMES:
        found = saliency_on_picture(saliency, frame, (200, 120))
        np.testing.assert_array_equal(found, frame.cells_on_original(saliency))
        half = saliency_on_picture(saliency, frame, (100, 60))
        assert set(np.unique(half)) <= {0, *saliency.flat}


def test_regions_are_counted_as_the_curves_take_them(tmp_path: Path) -> None:
    labels = np.array([[7, 7, 7, 7], [7, 7, 7, 7], [3, 3, 5, 5], [3, 3, 5, 5]], np.int32).repeat(24, 0)
    labels = labels.repeat(24, 1)
    mask = np.select([labels == 5, labels == 7], [0.1, 0.4], 0.9).astype(np.float32)
    columns = invented(2, masks=np.stack([mask, np.ones_like(mask)]), regions=np.stack([labels, labels]))
    write_run(tmp_path / "run", columns, settings={"method": "search", "regions": "Slic", "mask_size": 96})
    folder = write_report(tmp_path / "run", tmp_path / "report").index.parent
    gallery = data_of(folder, "gallery")
    assert (gallery["cells"], gallery["maskSize"], gallery["sharp"]) == (48, 96, False)
    found, empty = (row["regions"] for row in data_of(folder, "masks-0"))
    assert found["sizes"] == [2304, 4608, 2304]
    assert found["places"] == [1151, 2304 + 2303, 6912 + 1151]  # the middle cell of each
    assert found["half"] == 2  # 0.9 of 4 parts, 0.6 of 8, 0.1 of 4: the first has 3.6 of 8.8
    assert gallery["salient"] == [0.75, None]
    assert empty["half"] == 0
    rank = np.frombuffer(base64.b64decode(found["rank"]), "<u2").reshape(48, 48)
    np.testing.assert_array_equal(rank, np.select([labels == 5, labels == 7], [0, 1], 2)[::2, ::2])
    assert [row["whole"] for row in data_of(folder, "masks-0")] == [96**2] * 2
    page = (folder / "index.html").read_text("utf-8")
    assert "A search put the regions into order" in page


def test_the_baseline_is_the_solvers_blur() -> None:
    size = (224, 160)
    image = torch.nn.functional.interpolate(
        torch.rand(1, 3, 28, 20, generator=torch.Generator().manual_seed(0)), size, mode="bilinear"
    )
    kernel, sigma = blur_parameters(size)
    expected, small = (
        torch.nn.functional.adaptive_avg_pool2d(whole, (56, 40))[0].numpy()
        for whole in (gaussian_blur(image, kernel, sigma), image)
    )
    found = np.einsum("ij,cjk,lk->cil", _blur(224, 56, kernel, sigma), small, _blur(160, 40, kernel, sigma))
    assert np.abs(found - expected).max() < 0.02


def test_an_untrained_networks_masks_look_empty(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    columns = invented(4, masks=(1 - 0.002 * random.random((4, 8, 8))).astype(np.float32))
    write_run(tmp_path / "run", columns, pictures=tmp_path / "photos")
    folder = write_report(tmp_path / "run", tmp_path / "report").index.parent
    gallery = data_of(folder, "gallery")
    name, picture = gallery["thumbnail"][0], gallery["images"]["picture"][0]
    with Image.open(folder / "thumbnails" / name[:2] / f"{name}.webp") as image:
        over = np.asarray(image, float)
    with Image.open(folder / "pictures" / picture[:2] / f"{picture}.webp") as image:
        under = np.asarray(image, float)
    nothing = np.zeros(under.shape[:2])
    grey = overlaid(under / 255, np.zeros_like(under), nothing) * 255
    assert np.abs(over - grey).mean() < 6


def test_a_faint_mask_has_the_colours_of_a_strong_one(tmp_path: Path) -> None:
    saliency = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    columns = invented(1, 2, masks=1 - np.stack([saliency, 0.2 * saliency]))
    write_run(tmp_path / "run", columns, pictures=tmp_path / "photos")
    folder = write_report(tmp_path / "run", tmp_path / "report").index.parent
    names = data_of(folder, "gallery")["thumbnail"]
    strong, faint = (
        np.asarray(Image.open(folder / "thumbnails" / name[:2] / f"{name}.webp"), float) for name in names
    )
    assert strong.std() > 30
    assert np.abs(strong - faint).mean() < 2
    assert "go from 0 to the mask's own largest saliency" in (folder / "index.html").read_text("utf-8")


def test_the_page_knows_which_scores_were_measured(tmp_path: Path) -> None:
    points = np.zeros((1, 21), np.int8)
    points[0, [0, 1, 2, 20]] = 1  # 0.05 is not on the axis
    columns = invented(1, deletion_measured=points, insertion_measured=np.ones_like(points))
    write_run(tmp_path / "run", columns)
    (row,) = data_of(write_report(tmp_path / "run", tmp_path / "report").index.parent, "masks-0")
    assert row["measured"] == {"deletion": [0, 5, 50], "insertion": list(range(0, 51, 5))}


def test_findings_are_shown_with_their_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about: dict[str, Any] = {"kind": "corner", "meaning": "m", "certainty": "c", "value": 1.0}
    name = "<b>نجمة</b>"
    of_class = Finding(statement="saliency in the corner", class_name=name, rows=[3, 5, 99], **about)
    of_run = Finding(statement="saliency off the objects", class_name=None, rows=[3], **about)
    mean = np.eye(4, dtype=np.float32)
    clusters = [SimpleNamespace(class_name="قطة", size=7, rows=[2], mean_mask=mean)]
    confusions = [SimpleNamespace(sample_id="folder/1", predicted_row=0, true_row=1)]
    seen = Seen([of_class, of_run], clusters, confusions, ["a note"])
    monkeypatch.setattr("igos_pl.report.write.look", lambda masks: seen)
    write_run(tmp_path / "run", invented(100))
    report = write_report(tmp_path / "run", tmp_path / "report", ReportSettings(count=30))
    gallery = data_of(report.index.parent, "gallery")
    page = report.index.read_text("utf-8")
    assert "<h3><bdi>&lt;b&gt;نجمة&lt;/b&gt;</bdi>: saliency in the corner</h3>" in page
    assert "<h3><bdi>All classes</bdi>: saliency off the objects</h3>" in page
    assert of_class.title == f"{name}: saliency in the corner"
    assert "<bdi>قطة</bdi>" in page
    assert "<bdi>folder/1</bdi>: predicted, then true" in page
    assert "a note" in page
    shown = [[gallery["row"][int(at)] for at in places.split(",")] for places in re.findall(_PLACES, page)]
    assert shown == [[3, 5, 99], [3], [2], [0, 1]]
    assert [gallery["row"][at] for at in gallery["reasons"]["finding"]] == [0, 1, 2, 3, 5, 99]


def test_classes_are_in_the_order_of_their_counts_and_names(tmp_path: Path) -> None:
    names = ["zebra", "Ant", "bee", "cat", "cat"]
    label = {"zebra": 0, "cat": 1, "bee": 2, "Ant": 3}
    columns = invented(5, label=np.array([label[name] for name in names]), label_name=np.array(names, object))
    write_run(tmp_path / "run", columns)
    page = write_report(tmp_path / "run", tmp_path / "report").index.read_text("utf-8")
    assert re.findall(r'class="to-gallery".*?>(\w+)</a>', page) == ["cat", "Ant", "bee", "zebra"]
    mean = np.eye(4, dtype=np.float32)
    clusters = [Cluster(name, size, [], mean) for name, size in (("b", 9), ("b", 1), ("A", 10), ("c", 11))]
    assert [(one.class_name, one.size) for one in by_class(clusters)] == [
        ("c", 11), ("A", 10), ("b", 9), ("b", 1),
    ]  # fmt: skip


_PLACES = r'class="examples" data-places="([\d,]+)"'


def test_the_time_of_the_results_is_that_of_the_last_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hour in (9, 11, 10):
        monkeypatch.setattr(
            "igos_pl.store.segments.now", lambda hour=hour: f"2026-05-04T{hour:02}:00:00+00:00"
        )
        columns = invented(1)
        columns["sample_id"][:] = f"{hour}.jpg"
        write_run(tmp_path, columns)
    write_report(tmp_path, tmp_path / "report")
    assert "2026-05-04T11:00:00+00:00" in (tmp_path / "report" / "index.html").read_text("utf-8")


# ---- bad input


def test_a_run_that_goes_on_is_said_to(tmp_path: Path) -> None:
    run = write_run(tmp_path, invented(5))
    run.expect([f"folder/{n:05}.jpg" for n in range(8)])
    report = write_report(tmp_path, tmp_path / "report")
    assert "not finished: 3 of 8 images have no result yet" in report.warnings[0]
    assert report.warnings[0].split(":")[0] in report.index.read_text("utf-8")
    run.expect([f"folder/{n:05}.jpg" for n in range(5)])
    assert "not merged" in write_report(tmp_path, tmp_path / "report").warnings[0]
    merge(run)
    assert write_report(tmp_path, tmp_path / "report").warnings == []


@pytest.mark.parametrize("merged", [False, True])
def test_the_head_of_a_segment_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    run = write_run(tmp_path / "run", invented(3))
    write_run(tmp_path / "run", {**invented(1), "sample_id": np.array(["other.jpg"], object)})
    run.expect([*run.done(), "later.jpg"])
    if merged:
        merge(run, partial=True)
    reads: list[Path] = []

    def read(path: Path) -> Index:
        reads.append(path)
        return whole(path)

    whole = Index.read
    monkeypatch.setattr(Index, "read", read)
    report = write_report(run.path, tmp_path / "report")
    assert sorted(reads) == run.segments()
    assert "not finished: 1 of 5 images" in report.warnings[0]


@pytest.mark.parametrize(
    "command",
    [
        "findings",
        "report",
        "info",
        "info --csv {0}.csv",
        "figure --style heatmap --output {0}.svg",
        "export --to png --output {0}",
    ],
)
def test_every_command_says_that_a_run_is_unfinished(tmp_path: Path, command: str, capsys: Any) -> None:
    told = (
        "This run is not finished: 3 of 8 images have no result yet, and are left out here. To continue,"
        " repeat the command that started the run, and then igos-pl "
    )
    run = write_run(tmp_path / "run", invented(5))
    name, *options = command.format(tmp_path / "out").split()
    run.expect([f"folder/{n:05}.jpg" for n in range(8)])
    assert main([name, str(run.path), *options]) == 0
    assert capsys.readouterr().out.count(f"{told}{name}.") == 1
    run.expect([f"folder/{n:05}.jpg" for n in range(5)])
    writes = any(option in options for option in ("--output", "--csv"))
    assert main([name, str(run.path), *options, *(["--overwrite"] if writes else [])]) == 0
    assert "not finished" not in capsys.readouterr().out


@pytest.mark.parametrize(("command", "shown"), [("info", "5 explanations"), ("report", "Open ")])
def test_a_merged_run_is_read_although_a_segment_is_damaged(
    tmp_path: Path, command: str, shown: str, capsys: Any
) -> None:
    run = write_run(tmp_path, invented(5))
    run.expect([f"folder/{n:05}.jpg" for n in range(5)])
    merge(run)
    (segment,) = run.segments()
    segment.write_bytes(segment.read_bytes()[:100])
    assert main([command, str(run.path)]) == 0
    said = capsys.readouterr().out
    assert "It is not known whether this run is finished: " in said
    assert segment.name in said
    assert shown in said


def test_the_page_says_what_is_unknown_because_a_segment_is_damaged(tmp_path: Path) -> None:
    run = write_run(tmp_path, invented(5))
    run.expect([f"folder/{n:05}.jpg" for n in range(5)])
    merge(run)
    (segment,) = run.segments()
    segment.write_bytes(b"")
    page = write_report(tmp_path, tmp_path / "report").index.read_text("utf-8")
    assert "unknown, because a segment cannot be read" in page
    assert "It is not known whether this run is finished: " in page
    assert segment.name in page
    assert "Repeat the command that started the run: it explains the images of this file again" in page
    assert "The results shown here come from masks.h5, which has the results of all segments." in page
    run.expected_path.unlink()
    page = write_report(tmp_path, tmp_path / "report").index.read_text("utf-8")
    assert "unknown, because a segment cannot be read" in page
    assert segment.name in page
    assert "The results shown here come from masks.h5." in page


def test_a_damaged_list_of_images_does_not_make_results_complete(tmp_path: Path) -> None:
    run = write_run(tmp_path, invented(5))
    run.expect([f"folder/{n:05}.jpg" for n in range(5)])
    for merged in (False, True):
        if merged:
            merge(run)
        whole = run.expected_path.read_bytes()
        run.expected_path.write_bytes(b"\xff.jpg\n")
        told = unfinished(tmp_path, "igos-pl info")
        assert told.startswith("It is not known whether this run is finished: ")
        assert ("The results shown here come from masks.h5" in told) == merged
        run.expected_path.write_bytes(whole)


def test_a_table_on_standard_output_has_nothing_else_in_it(tmp_path: Path, capsys: Any) -> None:
    run = write_run(tmp_path, invented(5))
    run.expect([f"folder/{n:05}.jpg" for n in range(8)])
    assert main(["info", str(run.path), "--csv", "-"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 6
    assert "This run is not finished: 3 of 8 images" in said.err


def test_failures_only(tmp_path: Path) -> None:
    write_run(tmp_path, invented(0), failures=3)
    report = write_report(tmp_path, tmp_path / "report")
    assert report.shown == 0
    page = report.index.read_text("utf-8")
    assert "No image has an explanation" in page
    assert "bad/&lt;b&gt;2&lt;/b&gt;.jpg" in page


def test_nothing_yet(tmp_path: Path) -> None:
    with pytest.raises(IgosError, match="No results"):
        write_report(tmp_path, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_without_metrics(tmp_path: Path) -> None:
    nothing = np.full((4, 51), np.nan, np.float32)
    write_run(tmp_path, invented(4, deletion_curve=nothing, insertion_curve=nothing, points=51))
    report = write_report(tmp_path, tmp_path / "report")
    assert "were not computed" in report.warnings[-1]
    assert data_of(report.index.parent, "gallery")["difference"] == [None] * 4
    assert [row["deletion"] for row in data_of(report.index.parent, "masks-0")] == [[]] * 4


def test_images_that_moved_are_found_again_or_kept(tmp_path: Path) -> None:
    photos, moved, report = tmp_path / "photos", tmp_path / "moved", tmp_path / "report"
    write_run(tmp_path / "run", invented(3), pictures=photos)
    photos.rename(moved)
    assert write_report(tmp_path / "run", report).pictures == {"missing": 3}
    assert "could not be read" in (report / "index.html").read_text("utf-8")
    there = ReportSettings(images=moved)
    assert write_report(tmp_path / "run", report, there).pictures == {"ok": 3}
    assert write_report(tmp_path / "run", report).pictures == {"kept": 3}
    Image.new("RGB", (96, 72)).save(moved / "folder/00000.jpg")
    Image.new("RGB", (10, 10)).save(moved / "folder/00001.jpg")
    assert write_report(tmp_path / "run", report, there).pictures == {"kept": 2, "ok": 1}
    assert "file has changed" in data_of(report, "masks-0")[0]["note"]
    found = write_report(tmp_path / "run", tmp_path / "other", there).pictures
    assert found == {"ok": 2, "changed": 1}


def test_a_folder_that_cannot_be_listed_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run", invented(5))
    (tmp_path / "report").mkdir()
    real = Path.iterdir

    def refused(self: Path) -> Any:
        if self.name == "report":
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(IgosError, match="Cannot write .*report: Permission denied"):
        write_report(tmp_path / "run", tmp_path / "report")


def test_an_id_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    columns = invented(1, sample_id=np.array(["../secret.jpg"], object))
    write_run(tmp_path / "run", columns, pictures=tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    there = ReportSettings(images=tmp_path / "empty")
    assert write_report(tmp_path / "run", tmp_path / "report", there).pictures == {"missing": 1}


def test_a_report_that_was_interrupted_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run", invented(2))
    with monkeypatch.context() as patch:
        patch.setattr("igos_pl.report.gallery.make_picture", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_report(tmp_path / "run", tmp_path / "report")
    assert not (tmp_path / "report" / "index.html").exists()
    assert write_report(tmp_path / "run", tmp_path / "report").shown == 2


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    write_run(tmp_path / "run", invented(1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(IgosError, match="other files than a report"):
        write_report(tmp_path / "run", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_files_of_an_earlier_report_are_removed(tmp_path: Path) -> None:
    write_run(tmp_path / "run", invented(30), pictures=tmp_path / "photos")
    report = tmp_path / "report"

    def files() -> int:
        return sum(path.is_file() for path in (report / "thumbnails").rglob("*"))

    write_report(tmp_path / "run", report)
    assert files() == 30
    write_report(tmp_path / "run", report, ReportSettings(count=10))
    assert files() == 10


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", invented(20))
    assert main(["report", str(tmp_path / "run"), "--count", "7"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "The gallery shows 7 explanations of 20 (--all shows all; the numbers are of all)",
        "7 images could not be read, and have no picture (--images FOLDER says where the images are now)",
        f"Open {tmp_path / 'run' / 'report' / 'index.html'}",
    ]
    assert main(["report", str(tmp_path / "run"), "--images", str(tmp_path / "nothing")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    write_run(tmp_path / "memory", invented(2), in_memory=True)
    assert main(["report", str(tmp_path / "memory")]) == 0
    told = "2 images have no picture: they were explained in memory, and a result holds no images\n"
    assert told in capsys.readouterr().out
    page = (tmp_path / "memory" / "report" / "index.html").read_text("utf-8")
    assert "were explained in memory: their saliency is shown alone" in page
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "run"), "--all", "--count", "7"])
    assert "not allowed with" in capsys.readouterr().err


def test_without_enough_images_nothing_is_claimed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    write_run(tmp_path / "run", invented(5))
    page = write_report(tmp_path / "run", tmp_path / "report").index.read_text("utf-8")
    told = "No class was tested: a test needs at least 8 images of the class and 8 of the others."
    assert told in page
    assert main(["findings", str(tmp_path / "run")]) == 0
    assert told in capsys.readouterr().out
    assert "too few to say anything about them: " in page
