"""Exports: each format is read back by the program that it is for, where that is at hand."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import results
import tiny
from PIL import Image
from pycocotools import mask as rle

import igos_pl
from igos_pl.cli.main import main
from igos_pl.errors import IgosError
from igos_pl.export import FORMATS, Options, export
from igos_pl.export.folders import publishing_folder
from igos_pl.store import MaskFile

IDS = ["cats/a.png", "b.png", "b.png", "نمر.png"]
NAMES = ["cat", "<b>dog</b>", "cat", "قطة"]
NEEDS = {"zarr": "zarr", "virelay": "sklearn"}  # packages of the formats
BOXES = np.array([[np.nan] * 4, [2, 3, 20, 23], [np.nan] * 4, [np.nan] * 4])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    photos = tiny.write_pictures(tmp_path / "photos", list(dict.fromkeys(IDS)))
    return results.write_result(
        tmp_path / "run.h5", IDS, folder=photos, label_name=NAMES, label=[0, 1, 0, 2], box=BOXES,
        deletion=[0.1, np.nan, 0.2, 0.3],
    )  # fmt: skip


@pytest.fixture
def masks(run: Path) -> Iterator[MaskFile]:
    with MaskFile(run) as opened:
        yield opened


@pytest.mark.parametrize("output", ["arrays", "arrays.npz"])
def test_numpy(run: Path, masks: MaskFile, tmp_path: Path, output: str) -> None:
    target = tmp_path / output
    assert main(["export", str(run), "--to", "numpy", "--output", str(target)]) == 0
    if target.is_dir():
        found = {path.stem: np.load(path) for path in target.glob("*.npy")}
        settings = json.loads((target / "settings.json").read_text(encoding="utf-8"))
    else:
        with np.load(target) as archive:
            found = dict(archive)
        settings = json.loads(str(found.pop("settings")))
    np.testing.assert_allclose(found["saliency"], 1 - masks.column("masks"))
    assert found["sample_id"].tolist() == IDS
    assert found["label_name"].tolist() == NAMES
    np.testing.assert_array_equal(found["box"], BOXES.astype(np.float32))
    assert found["width"].tolist() == [40] * 4
    assert found["path"][1].endswith("photos/b.png")
    assert {len(array) for array in found.values()} == {4}
    assert settings["preset"] == "fast"


def test_many_rows_are_written_block_by_block(tmp_path: Path) -> None:
    ids = [f"{number}.png" for number in range(2500)]
    path = results.write_result(tmp_path / "run.h5", ids, score=np.arange(2500))
    counted: list[int] = []
    with MaskFile(path) as opened:
        export(opened, "numpy", tmp_path / "all", on_rows=counted.append)
        np.testing.assert_array_equal(
            np.load(tmp_path / "all" / "saliency.npy", mmap_mode="r"), 1 - opened.column("masks")
        )
    assert counted == [1024, 1024, 452]
    assert np.load(tmp_path / "all" / "score.npy")[-1] == 2499


def test_zarr(run: Path, masks: MaskFile, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    assert main(["export", str(run), "--to", "zarr", "--output", str(tmp_path / "z")]) == 0
    group = zarr.open_group(str(tmp_path / "z"), mode="r")
    np.testing.assert_allclose(group["saliency"][:], 1 - masks.column("masks"))
    assert group["label_name"][:].tolist() == NAMES
    assert group.attrs["preset"] == "fast"
    xarray = pytest.importorskip("xarray")
    with xarray.open_zarr(str(tmp_path / "z")) as data:
        assert data["saliency"].dims == ("explanation", "y", "x")
        assert data["deletion_curve"].dims == ("explanation", "point")
        for name in ("target", "label", "best", "width"):
            assert data[name].dtype.kind == "i"
            np.testing.assert_array_equal(data[name], group[name][:])


def test_zarr_writes_chunks_of_zeros(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    size, count = 64, 150
    masks = np.ones((count, size, size), np.float32)  # no saliency in any chunk
    ids = [f"{number}.png" for number in range(count)]
    path = results.write_result(tmp_path / "run.h5", ids, masks=masks)
    with MaskFile(path) as opened:
        export(opened, "zarr", tmp_path / "z")
    group = zarr.open_group(str(tmp_path / "z"), mode="r")
    assert not group["saliency"][:].any()
    assert group["saliency"].nchunks > 1
    for name, array in group.arrays():
        assert array.nchunks_initialized == array.nchunks, name


def test_zarr_that_is_missing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert main(["export", str(run), "--to", "zarr", "--output", str(tmp_path / "z")]) == 2
    assert "pip install 'igos_pl[zarr]'" in capsys.readouterr().err
    assert not (tmp_path / "z").exists()


def test_png(run: Path, masks: MaskFile, tmp_path: Path) -> None:
    assert main(["export", str(run), "--to", "png", "--output", str(tmp_path / "maps")]) == 0
    table = list(csv.DictReader((tmp_path / "maps" / "index.csv").open(encoding="utf-8")))
    assert [row["grey"] for row in table] == ["cats_a.png", "b.png", "b-2.png", "نمر.png"]
    for row, explanation in zip(table, masks, strict=True):
        with Image.open(tmp_path / "maps" / row["grey"]) as grey:
            assert grey.mode.startswith("I;16")
            assert grey.text["Description"] == "saliency = grey value / 65535"
            values = np.asarray(grey) / 65535
        saliency = explanation.saliency_on_original()
        np.testing.assert_allclose(values, saliency, atol=1e-5)
        assert float(row["largest_saliency"]) == pytest.approx(explanation.saliency.max(), rel=1e-4)
        with Image.open(tmp_path / "maps" / row["coloured"]) as coloured:
            assert (coloured.mode, coloured.size) == ("RGB", (40, 30))


def test_file_names_differ_in_more_than_case(tmp_path: Path) -> None:
    ids = ["A.png", "a.png", "a-2.png", "b-coloured.png", "b.png", "x/../y.png", "q\n'\".png"]
    path = results.write_result(tmp_path / "run.h5", ids)
    with MaskFile(path) as opened:
        export(opened, "png", tmp_path / "maps")
    files = [path.name.lower() for path in (tmp_path / "maps").glob("*.png")]
    assert len(set(files)) == 2 * len(ids)
    assert all("\n" not in name and "/" not in name for name in files)


def test_coco(run: Path, masks: MaskFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(run), "--to", "coco", "--output", str(tmp_path / "r.json"), "--fraction", "0.25"]
    assert main(words) == 0
    assert "image_id is the image's name" in capsys.readouterr().out
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [entry["image_id"] for entry in found] == IDS
    assert [entry["category_id"] for entry in found] == [0, 1, 0, 2]
    assert found[1]["bbox"] == [2, 3, 18, 20]
    assert found[1]["deletion"] is None
    for entry, explanation in zip(found, masks, strict=True):
        region = rle.decode(entry["segmentation"]).astype(bool)
        assert region.shape == (30, 40)
        saliency = explanation.saliency_on_original()
        assert saliency[region].mean() > saliency[~region].mean()
    x, y, width, height = (round(value) for value in found[0]["bbox"])
    region = rle.decode(found[0]["segmentation"]).astype(bool)
    assert region[y : y + height, x : x + width].sum() == region.sum()


def test_coco_takes_regions_as_a_whole(tmp_path: Path) -> None:
    labels = np.array([[4, 4, 7, 7]] * 4)  # the left half and the right half
    mask = np.where(labels == 4, 0.9, 0.2).astype(np.float32)
    path = results.write_result(tmp_path / "run.h5", ["a.jpg"], masks=mask[None], regions=labels[None])
    with MaskFile(path) as opened:
        export(opened, "coco", tmp_path / "r.json")
        expected = opened[0].frame.saliency_on_original((labels == 7).astype(np.float32)) >= 0.5
    (entry,) = json.loads((tmp_path / "r.json").read_text())
    np.testing.assert_array_equal(rle.decode(entry["segmentation"]).astype(bool), expected)


def test_coco_ids_are_names_where_two_names_have_one_number(tmp_path: Path) -> None:
    ids = ["a/1.jpg", "a/1.jpg", "b/01.jpg"]
    with MaskFile(results.write_result(tmp_path / "run.h5", ids)) as opened:
        export(opened, "coco", tmp_path / "r.json")
    assert [entry["image_id"] for entry in json.loads((tmp_path / "r.json").read_text())] == ids


def test_coco_results_are_loaded_by_pycocotools(tmp_path: Path, capsys: Any) -> None:
    from pycocotools.coco import COCO

    ids = ["000000000139.jpg", "000000000285.jpg"]
    path = results.write_result(
        tmp_path / "run.h5", ids, label_name=["cat", "dog"], box=np.array([[1, 2, 11, 12]] * 2)
    )
    numbers = {"images": [{"id": 139, "file_name": ids[0]}, {"id": 285, "file_name": ids[1]}]}
    names = {"images": [{"id": 7, "file_name": ids[0]}, {"id": 8, "file_name": ids[1]}]}
    categories = {"categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}], "annotations": []}
    with MaskFile(path) as opened:
        export(opened, "coco", tmp_path / "a.json")
        (tmp_path / "names.json").write_text(json.dumps({**names, **categories}))
        (tmp_path / "numbers.json").write_text(json.dumps({**numbers, **categories}))
        export(opened, "coco", tmp_path / "b.json", Options(annotations=tmp_path / "names.json"))
        (tmp_path / "none.json").write_text(json.dumps({**numbers, "images": [], "categories": []}))
        with pytest.raises(IgosError, match="139.jpg is not among the annotations"):
            export(opened, "coco", tmp_path / "c.json", Options(annotations=tmp_path / "none.json"))
        with pytest.raises(IgosError, match="is not an instances file of COCO: it must have images with"):
            export(opened, "coco", tmp_path / "c.json", Options(annotations=tmp_path / "a.json"))
        with pytest.raises(IgosError, match=r"Cannot read .*nowhere.json: no such file"):
            export(opened, "coco", tmp_path / "c.json", Options(annotations=tmp_path / "nowhere.json"))
    assert not (tmp_path / "c.json").exists()
    loaded = COCO(str(tmp_path / "numbers.json")).loadRes(str(tmp_path / "a.json"))
    assert sorted(loaded.imgToAnns) == [139, 285]
    loaded = COCO(str(tmp_path / "names.json")).loadRes(str(tmp_path / "b.json"))
    assert [loaded.imgToAnns[number][0]["category_id"] for number in (7, 8)] == [17, 18]


def test_fiftyone_files(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "--to", "fiftyone", "--output", str(tmp_path / "fo")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "fo" / "samples.jsonl").read_text().splitlines()]
    assert [line["sample_id"] for line in lines] == ["cats/a.png", "b.png", "نمر.png"]
    assert [target["field"] for target in lines[1]["targets"]] == ["saliency", "saliency_2"]
    assert lines[1]["targets"][0]["box"] == pytest.approx([2 / 40, 3 / 30, 18 / 40, 20 / 30])
    for line in lines:
        assert Path(line["filepath"]).is_file()
        for target in line["targets"]:
            assert (tmp_path / "fo" / "heatmaps" / target["heatmap"]).is_file()
            assert 6553 <= target["white"] <= 65535
    compile((tmp_path / "fo" / "load.py").read_text(), "load.py", "exec")


def test_chosen_rows_are_exported(run: Path, tmp_path: Path) -> None:
    words = [
        "export",
        str(run),
        "--to",
        "numpy",
        "--output",
        str(tmp_path / "some"),
        "--where",
        "label_name=cat",
    ]
    assert main(words) == 0
    assert np.load(tmp_path / "some" / "sample_id.npy").tolist() == ["cats/a.png", "b.png"]


@pytest.mark.parametrize("to", ["numpy", "zarr", "png", "fiftyone", "virelay"])
def test_nothing_is_overwritten_unless_asked(run: Path, tmp_path: Path, to: str, capsys: Any) -> None:
    if to in NEEDS:
        pytest.importorskip(NEEDS[to])
    output = tmp_path / "out"
    output.mkdir()
    (output / "precious").write_text("old")
    words = ["export", str(run), "--to", to, "--output", str(output)]
    assert main(words) == 2
    assert "exists already: choose another name, or add --overwrite" in capsys.readouterr().err
    assert (output / "precious").read_text() == "old"
    assert main([*words, "--overwrite"]) == 2
    assert (output / "precious").read_text() == "old"
    assert "contains precious, which was not written by igos-pl export" in capsys.readouterr().err
    (output / "precious").unlink()
    assert main([*words, "--overwrite"]) == 0  # of an empty folder
    before = output.stat().st_ino
    assert main([*words, "--overwrite"]) == 0  # of an earlier export
    assert output.stat().st_ino != before
    (output / "more").mkdir()
    (output / "more" / "own").write_text("of the user")
    assert main([*words, "--overwrite"]) == 2
    assert "contains more/own, which was not written by igos-pl export" in capsys.readouterr().err
    assert (output / "more" / "own").read_text() == "of the user"
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


@pytest.mark.parametrize(("to", "name"), [("numpy", "x.npz"), ("coco", "x.json")])
def test_a_file_does_not_replace_a_folder(
    run: Path, masks: MaskFile, tmp_path: Path, to: str, name: str, capsys: Any
) -> None:
    output = tmp_path / name
    output.mkdir()
    for more in ([], ["--overwrite"]):
        assert main(["export", str(run), "--to", to, "--output", str(output), *more]) == 2
        assert f"{name} is a folder: give the name of a file" in capsys.readouterr().err
    counted: list[int] = []
    with pytest.raises(IgosError, match="is a folder: give the name of a file"):
        export(masks, to, output, on_rows=counted.append)
    assert counted == []


@pytest.mark.parametrize(
    ("to", "name", "wanted"),
    [("coco", "x.txt", "a .json file"), ("coco", "x", "a .json file"),
     ("numpy", "x.H5", "an .npz file or a folder"), ("png", "x.npz", "a folder"),
     ("zarr", "x.json", "a folder"), ("fiftyone", "x.zarr", "a folder")],
)  # fmt: skip
def test_the_ending_of_another_format_is_refused(
    masks: MaskFile, tmp_path: Path, to: str, name: str, wanted: str
) -> None:
    told = rf"{name} cannot be written in the format {to}: name {wanted} \(--output\)$"
    with pytest.raises(IgosError, match=told):
        export(masks, to, tmp_path / name)
    assert not list(tmp_path.glob("x*"))


def test_other_endings_are_names_of_folders(masks: MaskFile, tmp_path: Path) -> None:
    export(masks, "numpy", tmp_path / "photos.2")
    assert (tmp_path / "photos.2" / "saliency.npy").is_file()


def test_a_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe"):
        refused = pytest.raises(IgosError, match="is a file, but this format is a folder")
        with refused, publishing_folder(tmp_path / name):
            pass
    assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "pipe").is_fifo()
    assert len(list(tmp_path.iterdir())) == 2


def test_the_current_folder_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with publishing_folder(Path()) as folder:
        (folder / "new").touch()
    monkeypatch.chdir(tmp_path)
    assert (tmp_path / "out" / "new").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_comes_while_an_export_is_written_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out"
    refused = pytest.raises(IgosError, match="out was created while the export was written")
    with refused, publishing_folder(path), publishing_folder(path) as other:
        (other / "file").write_text("other")
    assert (path / "file").read_text() == "other"
    refused = pytest.raises(IgosError, match="out contains own, which was not written by igos-pl export")
    with refused, publishing_folder(path):
        (path / "own").write_text("of the user")
    assert (path / "own").read_text() == "of the user"
    assert (path / "file").read_text() == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("method", ["iterdir", "rename"])
def test_an_export_that_cannot_be_replaced_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    path = tmp_path / "out"
    with publishing_folder(path) as folder:
        (folder / "file").write_text("old")
    real = getattr(Path, method)

    def refused(self: Path, *arguments: Any) -> Any:
        if self == path if method == "iterdir" else self.suffix == ".tmp":
            raise PermissionError(13, "Permission denied")
        return real(self, *arguments)

    raised = pytest.raises(IgosError, match="Cannot write .*out: Permission denied")
    with monkeypatch.context() as patched:
        patched.setattr(Path, method, refused)
        with raised, publishing_folder(path) as folder:
            (folder / "file").write_text("new")
    assert (path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_earlier_export_that_cannot_be_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    with publishing_folder(path) as folder:
        (folder / "file").write_text("old")
    real = shutil.rmtree

    def refused(folder: Path, *arguments: Any, **options: Any) -> None:
        if folder.suffix == ".old":
            raise PermissionError(13, "Permission denied")
        real(folder, *arguments, **options)

    raised = pytest.raises(
        IgosError, match=r"complete in .*out, but the earlier one cannot be removed: .*\.old"
    )
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refused)
        with raised, publishing_folder(path) as folder:
            (folder / "file").write_text("new")
    assert (path / "file").read_text() == "new"


@pytest.mark.parametrize("mark", ["", "[1]", '{"own": 1}'])
def test_an_export_with_a_damaged_list_is_kept(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / ".igos-pl-export").write_text(mark)
    (path / "own").touch()
    refused = pytest.raises(IgosError, match="out is an export whose list of files cannot be read")
    with refused, publishing_folder(path):
        pass
    assert (path / "own").exists()


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError

    with pytest.raises(RuntimeError), publishing_folder(tmp_path / "out") as folder:
        fail(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_leaves_the_old_one(tmp_path: Path) -> None:
    ids = [f"{number}.png" for number in range(400)]
    path = results.write_result(tmp_path / "run.h5", ids, size=(400, 300))
    output = tmp_path / "maps"
    with publishing_folder(output) as folder:
        (folder / "old").write_text("old")
    before = sorted(output.iterdir())
    words = ["export", str(path), "--to", "png", "--output", str(output), "--overwrite"]
    code = f"import sys; from igos_pl.cli.main import main; sys.exit(main({words!r}))"
    root = Path(igos_pl.__file__).resolve().parents[1]
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(root)})
    try:
        while process.poll() is None and not list(tmp_path.glob(".maps.*.tmp/*.png")):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    finally:
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert sorted(output.iterdir()) == before


def test_results_without_explanations(tmp_path: Path, capsys: Any) -> None:
    path = results.write_result(tmp_path / "run.h5", [], failed={"x.png": "no image"})
    for words in (["export", "--to", "png", "--output", "out"], ["figure"]):
        assert main([words[0], str(path), *words[1:]]) == 2
        said = capsys.readouterr().err
        assert "There is no explanation of any of the 1 image" in said
        assert "x.png: unreadable: no image" in said


def test_every_format_is_in_the_help(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in FORMATS)
