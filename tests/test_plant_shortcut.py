"""The example plants a shortcut, and the findings name it; without one they name none."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pages
import pytest

from igos_pl.cli.main import main

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[1]
SMALL: dict[str, Any] = {"training": 60, "held_out": 12, "size": 32, "mask_size": 8, "epochs": 60}

pytestmark = pytest.mark.filterwarnings("ignore:.*many workers.*", "ignore:.*TensorBoard.*")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("plant_shortcut")


def test_a_planted_mark_is_found(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = example.run(tmp_path, **SMALL)
    (finding,) = found.findings
    assert (finding.kind, finding.class_name) == ("corner", example.MARKED)
    assert "bottom right corner" in finding.title
    assert finding.value > 0.5
    capsys.readouterr()
    assert main(["findings", str(tmp_path / "run")]) == 0
    assert finding.title in capsys.readouterr().out
    (tmp_path / "runs").mkdir()
    (tmp_path / "run").rename(tmp_path / "runs/val")
    monkeypatch.chdir(tmp_path)
    for block in pages.blocks("docs/findings.md"):
        exec(block, {})
    assert finding.title in capsys.readouterr().out


def test_nothing_is_found_where_nothing_is_planted(example: ModuleType, tmp_path: Path) -> None:
    assert example.run(tmp_path, mark=False, **SMALL).findings == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_example(example: ModuleType, tmp_path: Path, seed: int) -> None:
    (finding,) = example.run(tmp_path / "marked", seed=seed).findings
    assert (finding.class_name, finding.kind) == (example.MARKED, "corner")
    assert "bottom right corner" in finding.title
    assert finding.value > 0.5
    others = example.run(tmp_path / "plain", mark=False, seed=seed).findings
    assert all(one.class_name != example.MARKED and one.value < 0.3 for one in others), others
