"""Publishing beside the main thread: nothing waits that need not, nothing is lost, no error is hidden."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.errors import RunError
from igos_pl.run.coordination import Coordinator, alone
from igos_pl.run.publisher import Publisher
from igos_pl.run.run import Run
from igos_pl.store import RunFolder


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
def run(tmp_path: Path) -> Run:
    folder = RunFolder(tmp_path)
    folder.prepare()
    return Run(folder, alone(), {"method": "iGOS++"})


@pytest.fixture
def publisher(run: Run) -> Publisher:
    return Publisher(run, run.configuration, images=2, seconds=60)


@pytest.fixture
def disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(run.folder.publish)
    monkeypatch.setattr(run.folder, "publish", disk)
    yield disk
    disk.go.set()


def finish(publisher: Publisher, *names: str) -> None:
    """End batches of one image."""
    for name in names:
        result = BatchResult([ImageRecord(name, f"/{name}", status="no detection")])
        publisher.add(result)


def test_images_are_explained_while_others_are_published(
    publisher: Publisher, disk: Disk, tmp_path: Path
) -> None:
    finish(publisher, "a", "b")
    assert disk.begun.wait(10)
    finish(publisher, "c")
    assert RunFolder(tmp_path).done() == set()
    disk.go.set()
    publisher.finish()
    assert disk.tried == [["a", "b"], ["c"]]
    assert RunFolder(tmp_path).done() == {"a", "b", "c"}


def test_one_segment_at_a_time(publisher: Publisher, disk: Disk) -> None:
    """Or the results of many would gather in memory before a slow disk."""
    finish(publisher, "a", "b", "c")
    fourth = threading.Thread(target=finish, args=(publisher, "d"))
    fourth.start()
    fourth.join(0.3)
    assert fourth.is_alive()
    assert disk.tried == [["a", "b"]]
    disk.go.set()
    fourth.join(10)
    assert not fourth.is_alive()
    publisher.finish()
    assert disk.tried == [["a", "b"], ["c", "d"]]


def test_error_is_raised_at_the_end_of_a_batch(publisher: Publisher, disk: Disk, tmp_path: Path) -> None:
    disk.failing = {"a"}
    disk.go.set()
    finish(publisher, "a", "b")
    publisher._thread.submit(int).result(10)  # comes after what the thread was given before
    with pytest.raises(RunError, match=r"\['a', 'b'\]: No space left"):
        finish(publisher, "c")
    publisher.rescue()
    assert disk.tried == [["a", "b"], ["c"]]
    assert RunFolder(tmp_path).done() == {"c"}, "what was finished since is not lost"


@pytest.mark.parametrize("begun", [False, True], ids=["last", "in flight"])
def test_error_is_raised_at_the_end_of_the_run(publisher: Publisher, disk: Disk, begun: bool) -> None:
    disk.failing = {"a"}
    finish(publisher, "a", *("b" if begun else ""))
    disk.go.set()
    with pytest.raises(RunError, match="No space left"):
        publisher.finish()
    assert len(disk.tried) == 1


@pytest.mark.filterwarnings("error")
def test_what_is_finished_is_published_when_something_else_fails(
    publisher: Publisher, disk: Disk, tmp_path: Path
) -> None:
    finish(publisher, "a", "b", "c")
    threading.Timer(0.2, disk.go.set).start()
    publisher.rescue()
    assert RunFolder(tmp_path).done() == {"a", "b", "c"}


def test_second_error_does_not_hide_the_first(publisher: Publisher, disk: Disk, tmp_path: Path) -> None:
    disk.failing = {"a"}
    finish(publisher, "a", "b", "c")
    disk.go.set()
    with pytest.warns(UserWarning, match=r"were not published: Cannot write \['a', 'b'\]"):
        publisher.rescue()
    assert RunFolder(tmp_path).done() == {"c"}


def test_rank_without_a_run_publishes_nothing(
    publisher: Publisher, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked in the main thread: a store's client is not to be shared with one that may hang."""
    asked: list[threading.Thread] = []

    def lost(coordinator: Coordinator) -> None:
        asked.append(threading.current_thread())
        raise RunError("Rank 1 lost the connection to the first rank")

    monkeypatch.setattr(Coordinator, "check_connected", lost)
    with pytest.raises(RunError, match="lost the connection to the first rank"):
        finish(publisher, "a", "b")
    assert asked == [threading.main_thread()]
    assert disk.tried == []


def test_images_of_a_broken_network_are_not_published(publisher: Publisher, tmp_path: Path) -> None:
    failed = ImageRecord("b", "/b").failed("ValueError: not today")
    publisher.add(BatchResult([ImageRecord("a", "/a", status="no detection"), failed]))
    publisher.finish()
    publisher.add(BatchResult([replace(failed, sample_id="c")]))
    publisher.rescue()
    assert RunFolder(tmp_path).statuses() == {"a": "no detection", "b": "failed"}
