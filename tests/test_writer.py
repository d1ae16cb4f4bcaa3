"""Publishing beside the main thread: nothing waits that need not, nothing is lost, no error is hidden."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from igos_pl.callbacks import MaskWriter
from igos_pl.coordination import Coordinator, alone
from igos_pl.errors import RunError
from igos_pl.store import BatchResult, ImageRecord, RunFolder

MODULE: Any = SimpleNamespace(describe=lambda: {"method": "iGOS++"})


class Disk:
    """Stands before the folder: holds every publishing until it is let go, and fails some."""

    def __init__(self, publish: Any) -> None:
        self.publish = publish
        self.go, self.begun = threading.Event(), threading.Event()
        self.failing: set[str] = set()
        self.tried: list[list[str]] = []

    def __call__(self, results: Sequence[BatchResult], *rest: Any) -> Path:
        names = [record.sample_id for result in results for record in result.images]
        self.tried.append(names)
        self.begun.set()
        assert self.go.wait(10)
        if self.failing & set(names):
            raise RunError(f"Cannot write {names}: No space left on device")
        path: Path = self.publish(results, *rest)
        return path


@pytest.fixture
def trainer(tmp_path: Path) -> Any:
    data = SimpleNamespace(coordinator=alone(), samples=[], describe=dict)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(
        default_root_dir=str(tmp_path),
        global_rank=0,
        is_global_zero=False,
        datamodule=data,
        strategy=strategy,
    )


@pytest.fixture
def writer(trainer: Any) -> MaskWriter:
    writer = MaskWriter(images_per_segment=2)
    writer.setup(trainer, MODULE, "predict")
    return writer


@pytest.fixture
def disk(writer: MaskWriter, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(writer.run.publish)
    monkeypatch.setattr(writer.run, "publish", disk)
    yield disk
    disk.go.set()


def finish(writer: MaskWriter, trainer: Any, *names: str) -> None:
    """End batches of one image."""
    for name in names:
        result = BatchResult([ImageRecord(name, f"/{name}", status="no detection")])
        writer.write_on_batch_end(trainer, MODULE, result, None, None, 0, 0)


def test_images_are_explained_while_others_are_published(
    writer: MaskWriter, trainer: Any, disk: Disk, tmp_path: Path
) -> None:
    finish(writer, trainer, "a", "b")
    assert disk.begun.wait(10)
    finish(writer, trainer, "c")
    assert RunFolder(tmp_path).done() == set()
    disk.go.set()
    writer.on_predict_end(trainer, MODULE)
    assert disk.tried == [["a", "b"], ["c"]]
    assert RunFolder(tmp_path).done() == {"a", "b", "c"}


def test_one_segment_at_a_time(writer: MaskWriter, trainer: Any, disk: Disk) -> None:
    """Or the results of many would gather in memory before a slow disk."""
    finish(writer, trainer, "a", "b", "c")
    fourth = threading.Thread(target=finish, args=(writer, trainer, "d"))
    fourth.start()
    fourth.join(0.3)
    assert fourth.is_alive()
    assert disk.tried == [["a", "b"]]
    disk.go.set()
    fourth.join(10)
    assert not fourth.is_alive()
    writer.on_predict_end(trainer, MODULE)
    assert disk.tried == [["a", "b"], ["c", "d"]]


def test_error_is_raised_at_the_end_of_a_batch(
    writer: MaskWriter, trainer: Any, disk: Disk, tmp_path: Path
) -> None:
    disk.failing = {"a"}
    disk.go.set()
    finish(writer, trainer, "a", "b")
    writer._thread.submit(int).result(10)  # comes after what the thread was given before
    with pytest.raises(RunError, match=r"\['a', 'b'\]: No space left") as caught:
        finish(writer, trainer, "c")
    writer.on_exception(trainer, MODULE, caught.value)
    assert disk.tried == [["a", "b"], ["c"]]
    assert RunFolder(tmp_path).done() == {"c"}, "what was finished since is not lost"


@pytest.mark.parametrize("begun", [False, True], ids=["last", "in flight"])
def test_error_is_raised_at_the_end_of_the_run(
    writer: MaskWriter, trainer: Any, disk: Disk, begun: bool
) -> None:
    disk.failing = {"a"}
    finish(writer, trainer, "a", *("b" if begun else ""))
    disk.go.set()
    with pytest.raises(RunError, match="No space left"):
        writer.on_predict_end(trainer, MODULE)
    assert len(disk.tried) == 1


@pytest.mark.filterwarnings("error")
def test_what_is_finished_is_published_when_something_else_fails(
    writer: MaskWriter, trainer: Any, disk: Disk, tmp_path: Path
) -> None:
    finish(writer, trainer, "a", "b", "c")
    threading.Timer(0.2, disk.go.set).start()
    writer.on_exception(trainer, MODULE, RuntimeError("the machine is on fire"))
    assert RunFolder(tmp_path).done() == {"a", "b", "c"}


def test_second_error_does_not_hide_the_first(
    writer: MaskWriter, trainer: Any, disk: Disk, tmp_path: Path
) -> None:
    disk.failing = {"a"}
    finish(writer, trainer, "a", "b", "c")
    disk.go.set()
    with pytest.warns(UserWarning, match=r"were not published: Cannot write \['a', 'b'\]"):
        writer.on_exception(trainer, MODULE, RuntimeError("the machine is on fire"))
    assert RunFolder(tmp_path).done() == {"c"}


def test_rank_without_a_run_publishes_nothing(
    writer: MaskWriter, trainer: Any, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked in the main thread: a store's client is not to be shared with one that may hang."""
    asked: list[threading.Thread] = []

    def lost(coordinator: Coordinator) -> None:
        asked.append(threading.current_thread())
        raise RunError("Rank 1 lost the first rank")

    monkeypatch.setattr(Coordinator, "check_connected", lost)
    with pytest.raises(RunError, match="lost the first rank"):
        finish(writer, trainer, "a", "b")
    assert asked == [threading.main_thread()]
    assert disk.tried == []
