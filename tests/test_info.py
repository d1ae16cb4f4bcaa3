"""What ``info`` prints, at any width and whatever names hold; and results as tables for others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import results
from rich.cells import cell_len
from rich.console import Console

from igos_pl.cli.info import print_info, write_csv
from igos_pl.data.geometry import Frame
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.data.wording import ago_in_words
from igos_pl.errors import IgosError
from igos_pl.store import MaskFile, RunFolder
from igos_pl.store.schema import EXPLANATIONS

SETTINGS: dict[str, Any] = {
    "method": "iGOS+", "optimizer": "Adam", "mask_size": 2, "network": "RCNNDetector",
    "network.name": "MaskRCNN", "data.root": "/photos", "l1": 10.0,
}  # fmt: skip
LONG = "a/" * 60 + "猫 [bold]$x$.png"


def write(folder: Path, diverse: bool = False, objects: bool = True) -> Path:
    """A run's folder with four explanations of three images, and two images that failed."""
    names = ["one.png", LONG, "two.png", "two.png"]
    rows = len(names)
    columns: dict[str, np.ndarray] = {}
    for name, column in EXPLANATIONS.items():
        if column.dtype in ("f4", "f8"):
            columns[name] = np.linspace(0.1, 0.9, rows, dtype=np.float32)
        elif name not in ("masks", "sample_id", "label_name", "status"):
            columns[name] = np.zeros(rows, np.int64)
    known = np.array([True, False, True, True]) if objects else np.zeros(rows, bool)
    for name in ("energy_box", "energy_mask", "pointing_box", "pointing_mask"):
        columns[name] = np.where(known, 0.5, np.nan).astype(np.float32)
    columns |= {
        "masks": np.full((rows, 2, 2), 0.75, np.float16),
        "sample_id": np.array(names, object),
        "label_name": np.array(["cat", "a class with a long name, too", "dog", "dog"], object),
        "status": np.array(["ok"] * rows, object),
        "box": np.full((rows, 4), 3.0, np.float32),
        "start_cell": np.array([0, 1, 2, 3]) if diverse else np.full(rows, -1),
        "best": np.array([1, 1, 0, 1]) if diverse else np.ones(rows, np.int64),
        "target": np.array([0, 0, 0, 1]),
        "seconds": np.full(rows, 1234.56, np.float32),
        "deletion_curve": np.zeros((rows, 3), np.float32),
        "insertion_curve": np.zeros((rows, 3), np.float32),
    }
    frame = Frame(4, 4, (0, 0, 4, 4), (4, 4))
    records = [
        ImageRecord("one.png", "/photos/one.png", frame, targets=1, message="3 of 6 objects not detected"),
        ImageRecord(LONG, f"/photos/{LONG}", frame, targets=1),
        ImageRecord("two.png", "/photos/two.png", frame, 7, targets=2),
        ImageRecord("104", "/photos/x.png", status="unreadable", message="no image"),
        ImageRecord("e.png", "/photos/e.png", status="failed", message="ValueError: \x1b[2J"),
    ]
    run = RunFolder(folder)
    run.prepare()
    run.publish([BatchResult(records, columns)], {**SETTINGS, "preset": "fast, with l1=5"})
    return folder


def info(folder: Path, width: int = 80, rows: int = 20) -> list[str]:
    console = Console(width=width, record=True, file=sys.stderr)
    print_info(folder, rows, console=console)
    return console.export_text().splitlines()


def table(lines: list[str]) -> list[list[str]]:
    start = next(number for number, line in enumerate(lines) if line.startswith("image "))
    return [line.split() for line in lines[start : start + 5]]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 seconds ago"),
        (1.9, "1 second ago"),
        (119, "1 minute ago"),
        (7300, "2 hours ago"),
        (2e5, "2 days ago"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert ago_in_words(seconds) == words


def test_info_begins_with_what_counts(tmp_path: Path) -> None:
    lines = info(write(tmp_path))
    assert lines[:3] == [
        "5 images: 3 ok, 1 failed, 1 unreadable",
        "4 explanations: preset fast, with l1=5 (iGOS+, Adam), masks of 2 x 2",
        "network RCNNDetector (MaskRCNN), data /photos",
    ]
    assert "means of 4 explanations" in lines
    assert any(line.split() == ["score", "0.500"] for line in lines)
    assert "means of 3 explanations of an annotated object" in lines
    assert "  peak in its box         0.500  (pointing game)" in lines
    start = lines.index("about the images")
    assert lines[start + 1 :] == [
        "  104 (/photos/x.png): unreadable: no image",
        "  e.png: failed: ValueError: \\x1b[2J",
        "  one.png: 3 of 6 objects not detected",
    ]
    assert info(tmp_path, rows=1)[-1] == "  and 2 more"


def test_info_without_objects_says_nothing_of_localisation(tmp_path: Path) -> None:
    lines = info(write(tmp_path, objects=False), width=120)
    lines = lines[: lines.index("about the images")]
    assert not any("box" in line or "object" in line for line in lines)


@pytest.mark.parametrize("diverse", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 120, 300])
def test_tables_fit_and_cut_no_number(tmp_path: Path, width: int, diverse: bool) -> None:
    lines = info(write(tmp_path, diverse), width)
    heads, *rows = table(lines)
    start = lines.index("4 of 4 explanations" + " (* = the best start of its target)" * diverse)
    assert max(map(cell_len, lines[start : start + 6])) <= max(width, 54)
    numbers = [head for head in heads if head not in ("image", "class", "in")]
    assert "ins-del" in numbers
    assert ("1234.6" in rows[0]) == ("s" in numbers)
    assert ("s" in numbers) == (width >= 80)
    for row in rows:
        assert not any("…" in cell for cell in row[len(row) - len(numbers) :])
    assert rows[0][:2] == ["one.png", "cat"]
    assert any("…" in cell for cell in rows[1]) == (width < 300)
    if diverse and width >= 60:
        assert "cell" in heads
        assert "0*" in rows[0]
        assert "2" in rows[2]


def test_rows_as_a_data_frame(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    with MaskFile(write(tmp_path)) as masks:
        frame = masks.to_dataframe()
        assert frame["sample_id"].tolist() == masks.column("sample_id").tolist()
        np.testing.assert_array_equal(frame["score"], masks.column("score"))
        assert frame["box_y2"].tolist() == [3.0] * 4
        assert frame["ground_truth"].tolist() == [-1, -1, 7, 7]
        assert frame["path"].tolist()[0] == "/photos/one.png"
        assert frame["label"].dtype.kind == "i"
        assert not {"masks", "box", "deletion_curve"} & set(frame.columns)
        high = masks[frame.query("score > 0.4").index]
        assert high.column("score").min() > 0.4
        assert isinstance(masks["two.png"].to_dataframe(), pd.DataFrame)
        assert masks["two.png"].to_dataframe()["target"].tolist() == [0, 1]
        assert len(masks[:0].to_dataframe()) == 0


def test_a_missing_pandas_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with (
        MaskFile(write(tmp_path)) as masks,
        pytest.raises(IgosError, match=r"pip install 'igos_pl\[pandas\]'"),
    ):
        masks.to_dataframe()


def test_an_explanation_is_one_short_line(tmp_path: Path) -> None:
    with MaskFile(write(tmp_path)) as masks:
        assert repr(masks[0]) == "<explanation of 'one.png': cat 0.100, insertion - deletion 0.000>"
        masks[0].values["deletion"] = np.nan


def test_attributes_are_plain_values(tmp_path: Path) -> None:
    with MaskFile(write(tmp_path)) as masks:
        assert {type(masks.attributes[name]) for name in ("mask_size", "l1", "method")} == {int, float, str}


def test_folder_of_a_training_is_told_to_name_a_file(tmp_path: Path) -> None:
    for epoch in range(2):
        (tmp_path / f"epoch=00{epoch}.h5").touch()
    with pytest.raises(IgosError, match=r"No results in .*Name one of its files, such as .*epoch=001\.h5"):
        print_info(tmp_path, 3)


def test_saliency_can_be_normalised(tmp_path: Path) -> None:
    with MaskFile(write(tmp_path)) as masks:
        one = masks[0]
        assert one.saliency_on_original().max() == pytest.approx(0.25)
        assert one.saliency_on_original(normalize=True).max() == 1
        one.values["masks"][:] = 1
        assert not one.saliency_on_original(normalize=True).any()


def test_a_csv_of_one_explanation_is_told_in_the_singular(tmp_path: Path, capsys: Any) -> None:
    run = results.write_result(tmp_path / "run.h5", ["a.png"])
    write_csv(run, tmp_path / "x.csv")
    assert capsys.readouterr().out == f"1 explanation is in {tmp_path / 'x.csv'}\n"


def test_a_csv_in_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(IgosError, match=r"nowhere/x.csv: there is no folder .*nowhere"):
        write_csv(tmp_path, tmp_path / "nowhere" / "x.csv")
