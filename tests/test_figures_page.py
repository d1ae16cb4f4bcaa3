"""The code and the commands of the pages on figures, comparisons and exports run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pages
import pytest
import results
import tiny

import igos_pl
from igos_pl.cli.main import main

ROOT = Path(igos_pl.__file__).resolve().parents[1]
IDS = [f"{number:02}.png" for number in range(8)]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos = tiny.write_pictures(tmp_path / "photos", IDS)
    for name in ("photos", "fast", "igospp", "coco"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        results.write_result(tmp_path / "runs" / name / "masks.h5", IDS, folder=photos)


def commands(page: str) -> list[list[str]]:
    """The igos-pl commands of a page."""
    blocks = re.findall(
        r"^```(?:bash)?\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("igos-pl ")]


@pytest.mark.parametrize("page", ["docs/figures.md", "docs/compare.md", "docs/export.md"])
def test_commands(page: str, runs: None) -> None:
    found = commands(page)
    assert found
    for words in found:
        assert main(words) == 0, words


def test_python_of_figures(runs: None) -> None:
    for block in pages.blocks("docs/figures.md"):
        exec(block, {})
    assert Path("figure.pdf").read_bytes().startswith(b"%PDF")


def test_python_of_exports(runs: None) -> None:
    pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    # as a finished run writes it
    from igos_pl.store import RunFolder, merge

    folder = RunFolder("runs/merged")
    folder.prepare()
    folder.expect(IDS)
    results.write_result(folder.segments_path / "1.h5", IDS)
    merge(folder).replace("runs/photos/masks.h5")
    names: dict[str, object] = {}
    for block in pages.blocks("docs/export.md"):
        exec(block, names)
    assert names["data"].masks.dims == ("explanation", "y", "x")  # type: ignore[attr-defined]
    assert names["images"].frame.dims == ("image", "corner")  # type: ignore[attr-defined]
    for name in ("data", "images"):
        names[name].close()  # type: ignore[attr-defined]
