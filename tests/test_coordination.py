"""What ranks tell each other, and runs of several ranks that are disturbed."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from pytorch_lightning import Callback
from torch.distributed import HashStore, TCPStore

from igos_pl.callbacks import MaskWriter, RunCallback
from igos_pl.datamodules import ImageFolderDataModule
from igos_pl.errors import IgosError, RunError
from igos_pl.explainer import Explainer
from igos_pl.run.coordination import (
    Coordinator,
    QueueSampler,
    alone,
    balanced,
    batch_ends,
    connect,
    on_all_ranks,
)
from igos_pl.run.run import Ending, Run
from igos_pl.store import MaskFile, RunFolder
from igos_pl.store.schema import EXPLANATIONS, IMAGES

sys.path.insert(0, str(Path(__file__).parent))

from ranks import BATCH, Ranks, Server, environment

NAMES = [f"{number:02d}.png" for number in range(20)]
STOPPED = 75
TELLING = "--trainer.callbacks=ranks.Telling"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_pictures(tmp_path_factory.mktemp("data") / "photos", NAMES)


@pytest.fixture
def start(server: Server, photos: Path, tmp_path: Path) -> Iterator[Callable[..., Ranks]]:
    """Starts the ranks of a run; they are killed when the test ends."""
    started = []

    def start(
        ranks: int, *more: str, seconds: float = 0, patience: int | None = None, failing_rank: int = -1
    ) -> Ranks:
        variables = {"SLOW_NET_SECONDS": str(seconds), "FAILING_RANK": str(failing_rank)}
        run = server.start(words(photos, ranks, *more), ranks, tmp_path, variables, patience)
        started.append(run)
        return run

    yield start
    for run in started:
        run.end()


def words(photos: Path, ranks: int, *more: str) -> list[str]:
    settings = {
        "data.root": photos,
        "data.num_workers": 0,
        "data.batch_size": 2,
        "model.network": "Classifier",
        "model.network.module": "ranks.SlowNet",
        "model.network.input_size": tiny.SIZE,
        "model.mask_size": 6,
        "model.iterations": 2,
        "model.path_steps": 1,
        "model.metrics": "false",
        "trainer.accelerator": "cpu",
        "trainer.devices": ranks,
        "overlays.count": 0,
        "output": "run",
    }
    return ["predict", *(f"--{key}={value}" for key, value in settings.items()), *more]


def wait_for(condition: Callable[[], object], run: Ranks, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, run.output.read_text()
        time.sleep(0.02)


def wait_for_batches(run: Ranks, number: int) -> None:
    """Wait until some batches are explained. The run needs ``TELLING``."""
    wait_for(run.output.exists, run)
    wait_for(lambda: run.output.read_text().count(BATCH) >= number, run)


def same_tables(one: Path, two: Path, tolerance: float = 0) -> None:
    """Compare all columns but the time."""
    with MaskFile(one) as first, MaskFile(two) as second:
        assert len(first) == len(second) > 0
        for name in IMAGES:
            np.testing.assert_array_equal(first.images[name], second.images[name])
        for name in set(EXPLANATIONS) - {"seconds"}:
            expected, found = first.column(name), second.column(name)
            if tolerance and expected.dtype.kind == "f":
                np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
            else:
                np.testing.assert_array_equal(found, expected)


def every_image_once(folder: Path, names: list[str] = NAMES) -> None:
    """Each in one segment only, and all in the merged file."""
    run = RunFolder(folder)
    found = []
    for path in run.segments():
        with MaskFile(path) as segment:
            found += segment.images["sample_id"].tolist()
    assert sorted(found) == names
    with MaskFile(run.merged) as masks:
        assert masks.column("sample_id").tolist() == names


@pytest.fixture(scope="module")
def undisturbed(server: Server, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a single rank."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert server.start(words(photos, 1), 1, folder).wait() == [0]
    return folder / "run" / "masks.h5"


def pair() -> tuple[TCPStore, TCPStore]:
    first = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))
    return first, TCPStore("127.0.0.1", first.port, is_master=False, timeout=timedelta(seconds=20))


# The queue


def test_one_rank_gets_the_batches_in_order() -> None:
    sampler = QueueSampler(alone(), batch_ends([1] * 7, 3, ranks=1, ahead=2))
    assert len(sampler) == 3
    assert list(sampler) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(sampler) == []
    assert batch_ends([], 3, ranks=1, ahead=2) == []


def test_ranks_share_the_queue() -> None:
    first, second = pair()
    taken: list[list[list[int]]] = [[], []]

    def work(rank: int, store: TCPStore) -> None:
        for batch in QueueSampler(Coordinator(store, rank), range(4, 105, 4)):
            taken[rank].append(batch)
            time.sleep(0.001 * (1 + 4 * rank))

    threads = [threading.Thread(target=work, args=part) for part in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(chain(*taken[0], *taken[1])) == list(range(104))
    assert len(taken[0]) > len(taken[1]) > 0, "the slower one gets less"


def test_processes_share_the_queue() -> None:
    store = pair()[0]
    program = (
        "import sys; from torch.distributed import TCPStore\n"
        "from igos_pl.run.coordination import Coordinator, QueueSampler\n"
        "store = TCPStore('127.0.0.1', int(sys.argv[1]), is_master=False)\n"
        "for batch in QueueSampler(Coordinator(store, 1), range(3, 601, 3)): print(*batch)\n"
    )
    mine = QueueSampler(Coordinator(store), range(3, 601, 3))
    command = [sys.executable, "-c", program, str(store.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as process:
        while not store.check(["taken"]) and process.poll() is None:
            time.sleep(0.001)
        ours = list(chain(*mine))
        assert process.stdout is not None
        theirs = [int(number) for number in process.stdout.read().split()]
    assert sorted(ours + theirs) == list(range(600))
    assert theirs


def batches_of(sizes: list[int], ends: list[int]) -> list[list[int]]:
    return [sizes[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(
    ("images", "ranks", "lengths"),
    [
        (20, 1, [8, 8, 4]),
        (52, 2, [8] * 6 + [2, 2]),
        (101, 4, [8] * 12 + [2, 2, 1]),
        (20, 2, [4] * 4 + [2, 2]),  # each rank reserves two batches when it starts
        (100, 64, [2] * 50),
        (3, 5, [2, 1]),
        (1, 2, [1]),
    ],
)
def test_last_round_of_equal_images_is_shared(images: int, ranks: int, lengths: list[int]) -> None:
    for size in (1, 4):
        batches = batches_of([size] * images, batch_ends([size] * images, 8, ranks, ahead=2))
        assert list(map(len, batches)) == lengths


@pytest.mark.parametrize(("ranks", "ahead"), [(2, 0), (4, 1), (16, 2), (500, 2)])
def test_uneven_batches_leave_enough_for_the_others(ranks: int, ahead: int) -> None:
    """While a rank works through what it holds, the others find as much in the queue."""
    sizes = np.random.default_rng(0).geometric(0.12, 3000)
    sizes = sizes[balanced(sizes.tolist(), 8)].tolist()
    batches = batches_of(sizes, batch_ends(sizes, 8, ranks, ahead))
    assert list(chain(*batches)) == sizes
    assert {len(batch) for batch in batches} <= set(range(1, 9))
    assert any(len(batch) == 8 for batch in batches) or ranks == 500, "only where it gains something"
    left = sum(sizes)
    for batch in batches:
        rounding = ranks * (ahead + 2)
        assert len(batch) <= 2 or sum(batch) * ranks * (ahead + 1) <= left + rounding
        left -= sum(batch)


def test_one_rank_has_full_batches() -> None:
    assert batch_ends([5, 1, 1, 9, 1, 1, 1], 3, ranks=1, ahead=2) == [3, 6, 7]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 50])
def test_crowded_images_come_early(batch_size: int) -> None:
    sizes = np.random.default_rng(0).geometric(0.12, 90).tolist()
    order = balanced(sizes, batch_size)
    assert sorted(order) == list(range(90))
    batches = [sum(sizes[i] for i in order[start : start + batch_size]) for start in range(0, 90, batch_size)]
    full = batches[: 90 // batch_size]
    first = full[: max(1, len(full) // 2)]
    assert max(batches[len(first) :], default=0) <= min(first)
    if batch_size == 8:
        assert max(first) < 1.5 * min(first), "equal while ranks reserve some ahead of each other"


def test_equal_images_stay_in_order() -> None:
    assert balanced([0] * 9, 2) == list(range(9))
    assert balanced([], 2) == []


def test_finished_batches_leave_the_others_as_they_are() -> None:
    """So that a run that goes on has the micro-batches, and to the last bit the masks, of a whole one."""
    sizes = list(range(40))
    order = balanced(sizes, 4)
    batches = [order[start : start + 4] for start in range(0, 40, 4)]
    left = [image for image in order if image not in batches[1] + batches[5]]
    assert [left[start : start + 4] for start in range(0, 32, 4)] == [
        batch for number, batch in enumerate(batches) if number not in (1, 5)
    ]


# What else is shared


def test_progress_is_of_all_ranks() -> None:
    store = HashStore()
    first, second = Coordinator(store, 0), Coordinator(store, 1)
    first.report(3, 1)
    second.report(4, 0)
    assert (second.progress().images, first.progress().failures) == (7, 1)


def test_signal_of_one_rank_stops_all() -> None:
    store = HashStore()
    ranks = [Coordinator(store, rank) for rank in range(3)]
    assert not any(rank.stop_requested() for rank in ranks)
    ranks[1].signals.heard = True
    assert ranks[1].stop_requested()
    assert ranks[0].stop_requested()
    assert ranks[2].stop_requested()


def test_rank_that_waits_passes_a_signal_on() -> None:
    first, second = pair()
    waiting, working = Coordinator(first, 0, 2), Coordinator(second, 1, 2)
    thread = threading.Thread(target=waiting.finish)
    thread.start()
    waiting.signals.heard = True
    while not working.stop_requested():
        time.sleep(0.01)
    working.stop_early()
    working.finish()
    thread.join(10)
    assert not thread.is_alive()
    assert waiting.stopped_early


def test_failed_rank_is_not_waited_for() -> None:
    first, second = pair()
    Coordinator(second, 1, 2).give_up(ValueError("no"), wait=False)
    with pytest.raises(RunError, match=r"Rank 1 of 2 failed: ValueError: no\n.*same command again"):
        Coordinator(first, 0, 2).finish()


def test_dead_rank_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("igos_pl.run.coordination._POLLS_PER_BEAT", 1)
    monkeypatch.setattr("igos_pl.run.coordination._PATIENCE", 2)
    with pytest.raises(IgosError, match=r"Rank 1 of 2 died.*same command"):
        Coordinator(HashStore(), 0, 2).finish()


def test_lost_store_is_explained() -> None:
    first, second = pair()
    coordinator = Coordinator(second, 1)
    assert coordinator.take() == 0
    del first
    with pytest.raises(IgosError, match=r"Rank 1 lost the connection to the first rank.*same command"):
        coordinator.check_connected()


# Shards and the world's size


class Trained:
    """As much of a trainer as processes need to find each other."""

    def __init__(self, folder: Path, world_size: int = 1, devices: int = 1) -> None:
        self.default_root_dir = str(folder)
        self.world_size, self.num_devices, self.num_nodes = world_size, devices, 1
        self.is_global_zero, self.global_rank = True, 0
        self.strategy = SimpleNamespace(
            broadcast=lambda value: value, cluster_environment=SimpleNamespace(main_address="127.0.0.1")
        )


def assigned(photos: Path, folder: Path, shard: str) -> list[str]:
    """The images of a run that explains none of them."""
    trainer = tiny.quiet_trainer(folder, callbacks=[RunCallback()], limit_predict_batches=0)
    trainer.predict(
        Explainer(tiny.tiny_classifier(), mask_size=6), ImageFolderDataModule(str(photos), shard=shard)
    )
    return list(Run.of(trainer).assigned)


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 20, 23])
def test_shards_are_a_partition(photos: Path, tmp_path: Path, parts: int) -> None:
    shards = [assigned(photos, tmp_path, f"{part}/{parts}") for part in range(parts)]
    assert sorted(name for shard in shards for name in shard) == NAMES
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(
    "text", ["", "1", "/", "1/", "/2", "2/2", "3/2", "-1/2", "a/b", "1/2/3", "0/0", "0.5/2"]
)
def test_bad_shards(text: str) -> None:
    shards = "0/2 to 1/2" if text.endswith("/2") else "0/8 to 7/8"
    with pytest.raises(IgosError, match=f"shard is .*{shards}"):
        ImageFolderDataModule("photos", shard=text)


def test_number_of_shards_may_change(start: Callable[..., Ranks], tmp_path: Path, undisturbed: Path) -> None:
    assert start(1, "--data.shard=0/2").wait() == [0]
    assert len(RunFolder(tmp_path / "run").done()) == 10
    assert not (tmp_path / "run" / "masks.h5").exists()
    for part in range(3):
        assert start(1, f"--data.shard={part}/3").wait() == [0]
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5", tolerance=1e-4)


def test_too_few_processes(photos: Path, tmp_path: Path) -> None:
    data = ImageFolderDataModule(str(photos))
    data.trainer = Trained(tmp_path, devices=2)  # type: ignore[assignment]
    with pytest.raises(IgosError, match="1 nodes with 2 devices need 2 processes, but 1 started.*srun"):
        data.setup("predict")


def test_connecting(tmp_path: Path) -> None:
    coordinator = connect(Trained(tmp_path, world_size=2, devices=2))
    assert (coordinator.rank, coordinator.world_size) == (0, 2)
    assert [coordinator.take(), coordinator.take()] == [0, 1]
    coordinator.give_up(ValueError(), wait=False)


# What is taken for granted of Lightning


def test_stop_iteration_ends_predict(photos: Path, tmp_path: Path) -> None:
    happened = []

    class Stop(Callback):
        def on_predict_batch_start(self, *arguments: Any, **more: Any) -> None:
            happened.append("start")
            if len(happened) > 2:
                raise StopIteration

        def on_predict_batch_end(self, *arguments: Any, **more: Any) -> None:
            happened.append("end")

        def on_predict_end(self, *arguments: Any, **more: Any) -> None:
            happened.append("predict end")

        def teardown(self, *arguments: Any, **more: Any) -> None:
            happened.append("teardown")

    trainer = tiny.quiet_trainer(tmp_path, callbacks=[Stop()])
    explainer = Explainer(tiny.tiny_classifier(), mask_size=6, iterations=1, metrics=False)
    data = ImageFolderDataModule(str(photos), num_workers=0, batch_size=1)
    trainer.predict(explainer, data, return_predictions=False)
    assert happened == ["start", "end", "start", "predict end", "teardown"]


def test_run_listens_by_itself_where_no_command_does(photos: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]

    class Signalled(Callback):
        def on_predict_batch_end(self, *arguments: Any, **more: Any) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

    trainer = tiny.quiet_trainer(tmp_path, callbacks=[MaskWriter(), Signalled()])
    explainer = Explainer(tiny.tiny_classifier(), mask_size=6, iterations=1, metrics=False)
    data = ImageFolderDataModule(str(photos), num_workers=0, batch_size=3)
    trainer.predict(explainer, data, return_predictions=False)
    assert Run.of(trainer).ending is Ending.STOPPED
    assert len(RunFolder(tmp_path).done()) == 3
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


# Runs of two ranks


def test_two_ranks_equal_one(start: Callable[..., Ranks], tmp_path: Path, undisturbed: Path) -> None:
    run = start(2, seconds=0.05)
    assert run.wait() == [0, 0], run.output.read_text()
    names = {path.name.split("-")[1] for path in RunFolder(tmp_path / "run").segments()}
    assert names == {"rank0000", "rank0001"}
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5")


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 1), (7, 2)])
def test_other_batches_and_workers(
    start: Callable[..., Ranks], tmp_path: Path, undisturbed: Path, batch_size: int, workers: int
) -> None:
    run = start(2, f"--data.batch_size={batch_size}", f"--data.num_workers={workers}")
    assert run.wait() == [0, 0], run.output.read_text()
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5", tolerance=1e-4)


def test_fewer_images_than_ranks_and_a_late_resume(
    start: Callable[..., Ranks], tmp_path: Path, undisturbed: Path
) -> None:
    assert start(2, "--data.limit=1").wait() == [0, 0]
    every_image_once(tmp_path / "run", NAMES[:1])
    assert start(1, "--data.limit=19").wait() == [0]
    run = start(2, "--data.num_workers=1")
    assert run.wait() == [0, 0], run.output.read_text()
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5", tolerance=1e-4)
    assert start(2).wait() == [0, 0], "nothing is left to do"
    every_image_once(tmp_path / "run")


@pytest.mark.parametrize(
    ("number", "rank", "workers"), [(signal.SIGTERM, 0, 0), (signal.SIGUSR1, 1, 1)], ids=["term", "usr1"]
)
def test_signals(
    start: Callable[..., Ranks], tmp_path: Path, undisturbed: Path, number: int, rank: int, workers: int
) -> None:
    more = ["--writer.images_per_segment=100", f"--data.num_workers={workers}"]
    run = start(2, *more, TELLING, seconds=0.1)
    wait_for_batches(run, 3)  # so that one of the ranks has explained two
    run.kill(number, rank)
    assert run.wait(20) == [STOPPED, 0], run.output.read_text()
    left = RunFolder(tmp_path / "run").missing()
    assert 0 < len(left) < len(NAMES)
    assert f"Stopped by a signal with {len(left)} images left" in run.output.read_text()
    run = start(2, *more)
    assert run.wait() == [0, 0], run.output.read_text()
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5")


def test_signal_when_one_rank_has_no_work_left(start: Callable[..., Ranks], tmp_path: Path) -> None:
    """The first rank waits for the other one, hears the signal, and must say that work is left."""
    run = start(2, "--data.limit=3", "--data.batch_size=1", "--data.num_workers=1", seconds=0.5)
    wait_for((tmp_path / "run" / "segments").exists, run)
    wait_for(lambda: list(RunFolder(tmp_path / "run").segments()), run)
    run.kill(signal.SIGTERM, 0)
    codes = run.wait(30)
    assert codes == [STOPPED if RunFolder(tmp_path / "run").missing() else 0, 0], run.output.read_text()


def test_signal_to_every_process(start: Callable[..., Ranks], tmp_path: Path) -> None:
    """As SLURM sends it: to the workers of the loaders as well."""
    run = start(2, "--data.num_workers=2", TELLING, seconds=0.1)
    wait_for_batches(run, 3)  # so that all workers are there
    for pid in [*run.pids, *(child for parent in run.pids for child in children(parent))]:
        os.kill(pid, signal.SIGUSR1)
    assert run.wait(20) == [STOPPED, 0], run.output.read_text()


def test_killed_loader(start: Callable[..., Ranks], tmp_path: Path, undisturbed: Path) -> None:
    """A process that reads images, as when the memory runs out; what is finished is published first."""
    more = ["--writer.images_per_segment=100", "--data.num_workers=1"]
    run = start(1, *more, TELLING, seconds=0.1)
    wait_for_batches(run, 2)
    (loader,) = children(run.pids[0])
    os.kill(loader, signal.SIGKILL)
    assert run.wait(20) == [1]
    output = run.output.read_text()
    assert "A process that reads images died" in output
    assert "run the same command again" in output
    assert "Traceback" not in output
    assert 0 < len(RunFolder(tmp_path / "run").done()) < len(NAMES)
    assert start(1, *more).wait() == [0]
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5")


@pytest.mark.parametrize("rank", [0, 1])
def test_killed_rank(start: Callable[..., Ranks], tmp_path: Path, undisturbed: Path, rank: int) -> None:
    run = start(2, "--writer.images_per_segment=1", seconds=0.1, patience=3)
    folder = RunFolder(tmp_path / "run")
    wait_for(lambda: len(folder.segments()) > 1, run)
    run.kill(signal.SIGKILL, rank)
    codes = run.wait(30)
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] > 0, run.output.read_text()
    told = "Rank 1 of 2 died" if rank else "Rank 1 lost the connection to the first rank"
    assert told in run.output.read_text()
    published = folder.segments()
    assert start(2, "--writer.images_per_segment=1").wait() == [0, 0]
    assert set(published) <= set(folder.segments())
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5")


def test_the_first_rank_alone_tells_what_is_wrong_with_the_data(
    start: Callable[..., Ranks], tmp_path: Path
) -> None:
    data = tiny.write_pictures(tmp_path / "data", NAMES[:4])
    (data / "away").symlink_to("/nowhere")
    run = start(2, f"--data.root={data}", "--model.network.targets=[7]")
    assert run.wait() == [2, 0]
    output = run.output.read_text()
    assert output.count("Left out broken links: ") == 1
    assert output.count("Label 7 is outside of the 5 classes of SlowNet") == 1
    assert not (tmp_path / "run").exists()
    run = start(2, "--data.root=nowhere")
    assert run.wait() == [2, 0]
    assert run.output.read_text().count("There is no folder") == 1


@pytest.mark.parametrize("failing", [(0,), (1,), (0, 1), ()])
def test_failing_work_of_all_ranks(failing: tuple[int, ...]) -> None:
    def end_of(rank: int) -> object:
        def work() -> int:
            if rank in failing:
                raise IgosError(f"rank {rank}")
            return rank

        strategy = SimpleNamespace(broadcast=lambda failed: 0 in failing)
        try:
            return on_all_ranks(SimpleNamespace(strategy=strategy, is_global_zero=rank == 0), work)
        except (IgosError, SystemExit) as error:
            return str(error)

    others = "0" if 0 in failing else "rank 1" if 1 in failing else 1
    assert [end_of(0), end_of(1)] == ["rank 0" if 0 in failing else 0, others]


@pytest.mark.parametrize("rank", [0, 1])
def test_failed_rank(start: Callable[..., Ranks], tmp_path: Path, undisturbed: Path, rank: int) -> None:
    """All ranks publish what they finished; the first one says which rank failed and why."""
    more = ["--writer.images_per_segment=100", "--data.batch_size=2"]
    run = start(2, *more, "--trainer.callbacks=ranks.Failing", seconds=0.1, failing_rank=rank)
    assert run.wait(30) == ([1, 0] if rank == 0 else [1, 1]), run.output.read_text()
    output = run.output.read_text()
    assert "RuntimeError: the machine is on fire" in output
    assert ("Rank 1 of 2 failed: RuntimeError: the machine is on fire\nAll finished" in output) == (rank == 1)
    folder = RunFolder(tmp_path / "run")
    assert {path.name.split("-")[1] for path in folder.segments()} == {"rank0000", "rank0001"}
    finished = output.count(BATCH)
    assert len(folder.done()) == 2 * finished
    assert start(2, *more).wait() == [0, 0]
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5")


def test_interrupt_of_one_rank_ends_all(start: Callable[..., Ranks], tmp_path: Path) -> None:
    run = start(2, "--writer.images_per_segment=100", TELLING, seconds=0.1, patience=100)
    wait_for_batches(run, 3)  # so that one of the ranks has explained two
    run.kill(signal.SIGINT, 0)
    assert run.wait(20) == [130, 0], run.output.read_text()
    assert "Traceback" not in run.output.read_text()
    done = len(RunFolder(tmp_path / "run").done())
    assert 0 < done < len(NAMES)
    told = f"igos-pl: interrupted. The results of {done} of {len(NAMES)} images are kept in "
    assert run.output.read_text().count(told) == 1
    assert start(2).wait() == [0, 0]
    every_image_once(tmp_path / "run")


def disturb(start: Callable[..., Ranks], tmp_path: Path, undisturbed: Path, kills: int, seed: int) -> None:
    """Kill ranks at any moment, also while they start or merge, and go on until nothing is left to do."""
    chance, killed, finished = random.Random(seed), 0, 0
    folder = RunFolder(tmp_path / "run")
    while killed < kills or not finished:
        run = start(2, "--writer.images_per_segment=2", seconds=0.05, patience=4)
        published = set(folder.segments())
        if killed < kills:
            time.sleep(chance.uniform(0, 3))
            for rank in chance.choice([[0], [1], [0, 1]]):
                with suppress(ProcessLookupError):
                    run.kill(signal.SIGKILL, rank)
            try:
                codes = run.wait(6)
            except TimeoutError:  # one of them waits for the other to start: who started it ends it
                codes = [-signal.SIGKILL]
        else:
            codes = run.wait()
        assert published <= set(folder.segments()), "published results are gone"
        if codes == [0, 0]:
            every_image_once(folder.path)
            same_tables(undisturbed, folder.merged)
            finished += 1
            shutil.rmtree(folder.path)
        else:
            assert -signal.SIGKILL in codes, run.output.read_text()
            killed += 1


def test_random_kills(start: Callable[..., Ranks], tmp_path: Path, undisturbed: Path) -> None:
    disturb(start, tmp_path, undisturbed, kills=2, seed=1)


@pytest.mark.slow
def test_a_hundred_random_kills(start: Callable[..., Ranks], tmp_path: Path, undisturbed: Path) -> None:
    disturb(start, tmp_path, undisturbed, kills=100, seed=2)


def race(server: Server, photos: Path, tmp_path: Path) -> list[int]:
    """Exit codes of two runs of different configurations that start at the same moment in one folder."""
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    both = []
    for seed in (1, 2):
        here = tmp_path / str(seed)
        here.mkdir(exist_ok=True)
        more = (f"--model.seed={seed}", f"--output={run}", "--data.limit=4", "--writer.images_per_segment=2")
        both.append(server.start(words(photos, 1, *more), 1, here))
    codes = [ranks.wait()[0] for ranks in both]
    assert codes.count(0) < 2, "both seem to have explained all"
    assert set(codes) <= {0, 2}, [ranks.output.read_text() for ranks in both]
    if 0 in codes:
        with MaskFile(run / "masks.h5") as masks:
            assert masks.attributes["seed"] == codes.index(0) + 1
            assert masks.column("sample_id").tolist() == NAMES[:4]
        for path in RunFolder(run).segments():
            with MaskFile(path) as segment:
                assert segment.attributes["seed"] == codes.index(0) + 1
    return codes


def test_two_configurations_race(server: Server, photos: Path, tmp_path: Path) -> None:
    assert 0 in [code for _ in range(3) for code in race(server, photos, tmp_path)]


@pytest.mark.slow
def test_two_configurations_race_often(server: Server, photos: Path, tmp_path: Path) -> None:
    for _ in range(100):
        race(server, photos, tmp_path)


# The same through Lightning's own launcher


def children(pid: int) -> list[int]:
    """All processes below one."""
    direct: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            direct += map(int, path.read_text().split())
    return [below for child in direct for below in (child, *children(child))]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def launch(
    photos: Path, folder: Path, seconds: float, ranks: int = 2, *more: str, **variables: str
) -> subprocess.Popen[bytes]:
    """Start a command as a terminal does: its processes are a group of their own."""
    settings = words(photos, ranks, "--writer.images_per_segment=1", *more)
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "igos_pl", *settings], cwd=folder, stdout=output, stderr=output,
            env=environment(SLOW_NET_SECONDS=str(seconds), **variables), start_new_session=True,
        )  # fmt: skip


def test_real_command(photos: Path, tmp_path: Path, undisturbed: Path) -> None:
    with launch(photos, tmp_path, 0) as process:
        assert process.wait(120) == 0
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5")


def test_failed_rank_of_the_launcher(photos: Path, tmp_path: Path, undisturbed: Path) -> None:
    more = ["--writer.images_per_segment=100", "--trainer.callbacks=ranks.Failing"]
    with launch(photos, tmp_path, 0.1, 2, *more, FAILING_RANK="1") as process:
        assert process.wait(60) == 1
    output = (tmp_path / "output.txt").read_text()
    assert "igos-pl: Rank 1 of 2 failed: RuntimeError: the machine is on fire" in output
    folder = RunFolder(tmp_path / "run")
    assert {path.name.split("-")[1] for path in folder.segments()} == {"rank0000", "rank0001"}
    assert len(folder.done()) == 2 * output.count(BATCH)
    with launch(photos, tmp_path, 0) as process:
        assert process.wait(120) == 0
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5")


def test_workers_do_not_print_broken_pipes() -> None:
    """A rank that is interrupted closes its end while a worker hands a batch over."""
    from igos_pl.datamodules.base import _without_broken_pipes

    told: list[type[BaseException]] = []
    hook = _without_broken_pipes(lambda kind, error, trace: told.append(kind))
    for error in (BrokenPipeError(), ValueError()):
        hook(type(error), error, None)
    assert told == [ValueError]


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_interrupt_at_a_terminal(photos: Path, tmp_path: Path, undisturbed: Path, ranks: int) -> None:
    """It goes to all processes of the group."""
    with launch(
        photos, tmp_path, 0.3, ranks, "--writer.images_per_segment=100", "--data.num_workers=1", TELLING
    ) as process:
        while (tmp_path / "output.txt").read_text().count(BATCH) < 3:
            assert process.poll() is None
            time.sleep(0.02)
        below = children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) == 130
    lines = (tmp_path / "output.txt").read_text().splitlines()
    assert re.fullmatch(r"igos-pl: interrupted\. The results of .* go on with the other \d+", lines[-1])
    assert not [line for line in lines if "Traceback" in line or "rror" in line], lines
    end = time.monotonic() + 10
    while any(map(alive, below)):
        assert time.monotonic() < end, "a process was left behind"
        time.sleep(0.1)
    assert 0 < len(RunFolder(tmp_path / "run").done()) < len(NAMES)
    with launch(photos, tmp_path, 0, ranks) as process:
        assert process.wait(120) == 0
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5")


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
def test_interrupt_while_starting(photos: Path, tmp_path: Path, seconds: float) -> None:
    with launch(photos, tmp_path, 0.3, 2) as process:
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) == 130
    output = (tmp_path / "output.txt").read_text()
    said = output.splitlines()
    assert said.pop() == "igos-pl: interrupted. Run the same command again to go on"
    assert all("is starting" in line for line in said)
    assert not (tmp_path / "run" / "configuration.json").exists()


def is_importing(pid: int) -> bool:
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("number", "ranks"),
    [(signal.SIGTERM, 1), pytest.param(signal.SIGUSR1, 2, marks=pytest.mark.slow)],
    ids=["one", "launched"],
)
def test_signal_while_starting(photos: Path, tmp_path: Path, number: int, ranks: int) -> None:
    """Of several ranks to the last, which has but begun when the first one has launched it."""
    with launch(photos, tmp_path, 0.1, ranks) as process:
        last: list[int] = []
        while not (last and is_importing(last[0])):
            assert process.poll() is None
            time.sleep(0.01)
            last = [process.pid] if ranks == 1 else list(filter(is_rank, children(process.pid)))
        assert not (tmp_path / "run").exists()
        os.kill(last[0], number)
        assert process.wait(120) == STOPPED
    left = RunFolder(tmp_path / "run").missing()
    assert left == NAMES if ranks == 1 else left, "another rank may have begun"


@pytest.mark.slow
def test_torchrun(photos: Path, tmp_path: Path, undisturbed: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, "-m", "igos_pl", *words(photos, 2)]
    variables = environment(SLOW_NET_SECONDS="0.05")
    assert subprocess.run(command, cwd=tmp_path, env=variables, check=False, timeout=200).returncode == 0
    names = {path.name.split("-")[1] for path in RunFolder(tmp_path / "run").segments()}
    assert names == {"rank0000", "rank0001"}
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "rank"), [(9, 0), (9, 1), (15, 0), (15, 1), (10, 0), (10, 1)], ids=str)
def test_real_command_disturbed(
    photos: Path, tmp_path: Path, undisturbed: Path, number: int, rank: int
) -> None:
    folder = RunFolder(tmp_path / "run")
    with launch(photos, tmp_path, 0.1) as process:
        while not folder.segments():
            assert process.poll() is None
            time.sleep(0.05)
        below = children(process.pid)
        ranks = [process.pid, *(pid for pid in below if is_rank(pid))]
        assert len(ranks) == 2
        os.kill(ranks[rank], number)
        code = process.wait(30)
    if number == signal.SIGKILL:
        assert code not in (0, STOPPED)
    else:
        assert code == STOPPED
    end = time.monotonic() + 15
    while any(map(alive, below)):
        assert time.monotonic() < end, "a process was left behind"
        time.sleep(0.1)
    assert 0 < len(folder.done()) < len(NAMES)
    with launch(photos, tmp_path, 0) as process:
        assert process.wait(120) == 0
    every_image_once(tmp_path / "run")
    same_tables(undisturbed, tmp_path / "run" / "masks.h5")


def is_rank(pid: int) -> bool:
    """Whether a process is the second rank, and none of the loaders' workers."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"LOCAL_RANK=1" in variables


def test_nothing_changes_outside() -> None:
    assert torch.is_grad_enabled()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# The store's port


def test_store_listens_on_the_address_of_the_ranks_alone(tmp_path: Path) -> None:
    coordinator = connect(Trained(tmp_path, world_size=2, devices=2))
    listening = {
        tuple(line.split()[1].split(":"))
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    port = f"{coordinator._store.underlying_store.port:04X}"
    assert {address for address, found in listening if found == port} == {"0100007F"}  # 127.0.0.1
    coordinator.give_up(ValueError(), wait=False)


def test_store_needs_the_secret_of_the_run(tmp_path: Path) -> None:
    coordinator = connect(Trained(tmp_path, world_size=2, devices=2))
    assert coordinator.take() == 0
    stranger = TCPStore("127.0.0.1", coordinator._store.underlying_store.port, wait_for_workers=False)
    stranger.set("stop", "1")
    stranger.delete_key("taken")
    assert not coordinator.stop_requested()
    assert coordinator.take() == 1
    coordinator.give_up(ValueError(), wait=False)
