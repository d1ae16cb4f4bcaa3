"""What the progress bar says: phases, the time left within the first batch, and lines without a terminal."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning import LightningModule

from igos_pl.callbacks import MaskProgressBar, progress
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.run.coordination import alone
from igos_pl.run.progress import BatchProgress
from igos_pl.run.run import Run
from igos_pl.store import RunFolder


class Clock:
    """Stands for time.monotonic."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: self.now))


class Reporting(LightningModule):
    on_progress: Any = None


class Bar:
    """A bar in a run of ten images, of which the first batches have four."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int = 0) -> None:
        names = [f"{i}.png" for i in range(10)]
        self.run = Run(RunFolder(tmp_path), alone(), {}, names, names, names[before:])
        monkeypatch.setattr(Run, "of", lambda trainer: self.run)
        self.trainer: Any = SimpleNamespace(world_size=1)
        self.explainer = Reporting()
        self.bar = MaskProgressBar()
        self.bar.on_predict_start(self.trainer, self.explainer)

    def begin(self, images: int = 4) -> None:
        self.bar.on_predict_batch_start(
            self.trainer, self.explainer, SimpleNamespace(records=range(images)), 0
        )

    def end(self, number: int, images: int = 4, failed: int = 0) -> None:
        records = [ImageRecord(str(i), "", status="failed" if i < failed else "ok") for i in range(images)]
        self.bar.on_predict_batch_end(self.trainer, self.explainer, BatchResult(records), None, number)


def test_lines_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    bar = Bar(tmp_path, monkeypatch)
    assert capsys.readouterr().err == "10 images to explain\n"
    bar.begin()
    tell = bar.explainer.on_progress
    for _ in range(74):
        clock.now += 1
        tell(BatchProgress("optimising", 5, 20, 0.1))
    lines = capsys.readouterr().err.splitlines()
    # After 5, 15 and 35 seconds, with four tenths of an image done.
    assert [line.split(", ")[1] for line in lines] == ["0:02:00 left", "0:06:00 left", "0:14:00 left"]
    clock.now += 1
    tell(BatchProgress("optimising", 12, 20, 0.25))  # one of ten images' work in 75 s
    assert capsys.readouterr().err == (
        "0 of 10 images finished, 0:11:15 left, optimising 12/20 of this batch\n"
    )
    clock.now += 59
    tell(BatchProgress("optimising", 13, 20, 0.3))
    assert capsys.readouterr().err == ""
    clock.now += 66
    bar.end(0, failed=1)
    assert (
        capsys.readouterr().err
        == "4 of 10 images finished, 0:05:00 left, 50.0 s/image, 1 unreadable or failed\n"
    )
    clock.now += 100
    bar.end(1, images=6)
    bar.bar.on_predict_end(bar.trainer, bar.explainer)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "10 of 10 images finished, in 0:05:00, 30.0 s/image, 1 unreadable or failed"
    assert bar.explainer.on_progress is None


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (0, "10 images to explain"),
        (1, "9 of 10 images to explain: 1 was explained before"),
        (3, "7 of 10 images to explain: 3 were explained before"),
    ],
)
def test_what_was_done_before_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    before: int,
    expected: str,
) -> None:
    Bar(tmp_path, monkeypatch, before)
    assert capsys.readouterr().err == f"{expected}\n"


def test_each_batch_starts_without_a_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    clock = Clock(monkeypatch)
    bar = Bar(tmp_path, monkeypatch)
    for number in range(2):
        bar.begin()
        assert bar.bar._bars is not None
        images, phase = bar.bar._bars.tasks
        assert (phase.description, phase.total, phase.completed) == ("starting", None, 0)
        clock.now += 10
        bar.explainer.on_progress(BatchProgress("optimising", 34, 102, 0.3))
        assert (phase.description, phase.total, phase.completed) == ("optimising", 102, 34)
        bar.end(number)
    assert images.completed == 8
    bar.bar.on_predict_end(bar.trainer, bar.explainer)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bars_name_the_phase_and_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    clock = Clock(monkeypatch)
    bar = Bar(tmp_path, monkeypatch, before=2)
    bar.begin()
    for phase, share in (("optimising", 0.3), ("curves", 0.8)):
        clock.now += 10
        bar.explainer.on_progress(BatchProgress(phase, 34, 102, share))
        assert bar.bar._bars is not None
        bar.bar._bars.refresh()
    clock.now += 10
    bar.end(0)
    bar.bar.on_predict_end(bar.trainer, bar.explainer)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    lines = re.split(r"[\r\n]+", drawn)
    assert any(re.match(r"optimising .* 34/102", line) for line in lines)
    assert any(re.match(r"curves .* 34/102", line) for line in lines)
    last = next(line for line in reversed(lines) if line.strip())
    assert last.startswith("images ")
    assert "6/10" in last
    assert last.rstrip().endswith("in 0:00:30, 0.13 images/s")
    assert any("0:00:30 left" in line for line in lines)
    assert max(map(len, lines)) <= width
