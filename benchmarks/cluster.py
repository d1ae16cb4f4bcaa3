"""Measures runs of several ranks: scaling, the cost of kills, writing, memory, restarts and file operations.

Each subcommand prints its command and a small table. Two CPU cores are enough, because the networks are tiny
or only sleep (except for ``ties``). Nothing else should run on these cores at the same time.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import PLACES_VARIABLE
from numpy.typing import NDArray
from PIL import Image

from igos_pl.data.geometry import Frame
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.run.coordination import alone, balanced, batch_ends
from igos_pl.run.publisher import Publisher
from igos_pl.run.run import Run
from igos_pl.store import MaskFile, RunFolder
from igos_pl.store.schema import EXPLANATIONS, IMAGES, configuration_of

HERE = Path(__file__).resolve().parent
INPUT_SIZE = 32


def table(title: str, rows: Iterable[Sequence[object]]) -> None:
    """Print rows of equal length as an aligned table."""
    texts = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    print(f"\n{title}")
    for row in texts:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def write_images(folder: Path, number: int, size: int = INPUT_SIZE) -> Path:
    """Generate pictures; returns the folder."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(number):
        coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(
            folder / f"{index:06d}.png", compress_level=1
        )
    return folder


def predict_words(data: Path, output: Path, ranks: int, **more: object) -> list[str]:
    """The command of a run; ``more`` are settings, with ``__`` for dots."""
    settings: dict[str, object] = {
        "preset": "igospp",
        "data.root": data,
        "data.num_workers": 0,
        "data.batch_size": 4,
        "model.network": "Classifier",
        "model.network.module": "networks.SmallNet",
        "model.network.input_size": INPUT_SIZE,
        "model.mask_size": 7,
        "model.iterations": 2,
        "model.path_steps": 1,
        "model.metrics": "false",
        "trainer.accelerator": "cpu",
        "trainer.devices": ranks,
        "overlays.count": 0,
        "output": output,
    }
    settings.update({key.replace("__", "."): value for key, value in more.items()})
    words = [f"--{key}={value}" for key, value in settings.items()]
    return [sys.executable, "-m", "igos_pl", "predict", *words]


def launch(words: Sequence[str], log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Start a command with one thread for each process. It can import this folder's networks."""
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **variables,
    }
    with log.open("ab") as file:
        return subprocess.Popen(words, env=environment, stdout=file, stderr=file, start_new_session=True)


def finished(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a run that must succeed."""
    if process.wait() != 0:
        raise SystemExit(f"a run failed:\n{log.read_text()}")


# scaling


def timed_run(
    folder: Path, data: Path, ranks: int, name: str, network: str, **variables: str
) -> list[list[float]]:
    """Run, and return the start and the end of every batch of every rank, by a common clock."""
    places = folder / f"{name}-places"
    places.mkdir()
    log = folder / f"{name}.log"
    words = predict_words(
        data,
        folder / name,
        ranks,
        model__network__module=f"networks.{network}",
        trainer__callbacks="networks.Recorder",
    )
    finished(launch(words, log, **{PLACES_VARIABLE: str(places)}, PINNED="1", **variables), log)
    records = []
    for path in sorted(places.iterdir()):
        records.append([float(word) for line in path.read_text().splitlines() for word in line.split()])
    return records


def rate_of(records: list[list[float]], batch_size: int = 4) -> tuple[float, float]:
    """Images a second and seconds, from the first batch's start to the last one's end."""
    batches = sum(len(record) // 2 for record in records)
    seconds = max(record[-1] for record in records) - min(record[0] for record in records)
    return batches * batch_size / seconds, seconds


def scaling(options: argparse.Namespace) -> None:
    """Compare two ranks on two cores with one rank on one; then make one rank five times slower."""
    rows: list[Sequence[object]] = [("run", "images/s", "seconds", "against 1 rank")]
    single = double = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = write_images(folder / "data", options.images)
        for repeat in range(options.repeats):
            for ranks in (1, 2):
                records = timed_run(folder, data, ranks, f"{ranks}-{repeat}", options.network)
                rate, seconds = rate_of(records)
                if ranks == 1:
                    single = max(single, rate)
                else:
                    double = max(double, rate)
                rows.append((f"{ranks} ranks on {ranks} cores", rate, seconds, rate / single))
        rows.append(("best of each", double, "", double / single))
        table("2 pinned ranks (goal: at least 1.85)", rows)
        records = timed_run(folder, data, 2, "slow", options.network, SLOW_RANK="1", SLOW_FACTOR="5")
    # The measured seconds of each rank's batches give the time that an ideal split would take.
    means = [float(np.mean(np.diff(record)[::2])) for record in records]
    counts = [len(record) // 2 for record in records]
    ideal = sum(counts) / sum(1 / mean for mean in means)
    _, seconds = rate_of(records)
    table(
        "rank 1 five times slower (goal: within 15% of the ideal split)",
        [
            ("seconds", "ideal", "above it", "batches", "s/batch of each"),
            (seconds, ideal, f"{seconds / ideal - 1:.1%}", counts, [round(mean, 4) for mean in means]),
        ],
    )


# simulate

COCO_IMAGES, COCO_OBJECTS, COCO_MOST = 5000, 36335, 63


def coco_like_counts(images: int, seed: int = 0) -> NDArray[np.int64]:
    """Objects per image, as skewed as in COCO's val2017.

    A negative binomial distribution with r = 1 (geometric, from 0 on) and the data set's mean of 7.27: its
    standard deviation is 7.8, its median 5, and 1.5% of its values are above 30. Values are clipped to 63,
    the largest in the data set. Single images then get or lose an object until the mean fits the data set.
    """
    generator = np.random.default_rng(seed)
    mean = COCO_OBJECTS / COCO_IMAGES
    counts = generator.negative_binomial(1, 1 / (1 + mean), images).clip(0, COCO_MOST)
    counts[counts.argmax()] = COCO_MOST
    while (difference := round(mean * images) - int(counts.sum())) != 0:
        chosen = generator.integers(images)
        counts[chosen] = np.clip(counts[chosen] + np.sign(difference), 0, COCO_MOST)
    return counts


def idle_share(busy: Sequence[float]) -> float:
    """The share of all ranks' time that is spent waiting for the last one."""
    return 1 - sum(busy) / (len(busy) * max(busy))


def static_split(costs: Sequence[float], ranks: int) -> list[float]:
    """Busy seconds of each rank if images are assigned in turns."""
    return [sum(costs[rank::ranks]) for rank in range(ranks)]


def queue_split(
    costs: Sequence[float], ends: Sequence[int], ahead: int, overhead: float, speeds: Sequence[float]
) -> list[float]:
    """Busy seconds of each rank if a free rank takes the next batch.

    Args:
        costs: the seconds of each image.
        ends: where each batch ends.
        ahead: the batches that a rank reserves while it works on one: one for each worker of its loader.
        overhead: the additional seconds of each batch.
        speeds: the relative speed of each rank.
    """
    before = np.concatenate([[0.0], np.cumsum(costs)])
    queue = iter((overhead + np.diff(before[[0, *ends]])).tolist())
    reserved = [list(islice(queue, ahead)) for _ in speeds]
    free = [(0.0, rank) for rank in range(len(speeds))]
    busy = [0.0] * len(speeds)
    while free:
        now, rank = heapq.heappop(free)
        # When the loader hands out a batch, its worker takes another one.
        reserved[rank] += islice(queue, 1)
        if reserved[rank]:
            cost = reserved[rank].pop(0) / speeds[rank]
            busy[rank] += cost
            heapq.heappush(free, (now + cost, rank))
    return busy


def simulate(options: argparse.Namespace) -> None:
    """Simulate the idle time of many ranks on COCO's objects, and on images that take equally long."""
    counts = coco_like_counts(options.images, options.seed)
    above = (counts > 30).mean()
    print(
        f"{len(counts)} images, {counts.sum()} objects, median {np.median(counts):.0f}, largest"
        f" {counts.max()}, {above:.1%} above 30; an image costs {options.fixed} + {options.per_object} x"
        f" objects seconds, a batch {options.overhead} more"
    )
    # The number of detections scatters around the number of annotated objects.
    generator = np.random.default_rng(1)
    found = np.round(counts * generator.lognormal(0, options.scatter, len(counts)))
    costs = options.fixed + options.per_object * found
    speeds = np.exp(generator.normal(0, options.speeds, options.ranks)).tolist()
    queues = {
        "objects": (1 + counts, costs),
        "equal": (np.ones_like(counts), np.full(len(costs), costs.mean())),
    }
    rows: list[Sequence[object]] = [("images", "split", "batch", "ahead", "batches", "idle", "seconds")]
    for name, (sizes, seconds) in queues.items():
        busy = static_split(seconds.tolist(), options.ranks)
        rows.append((name, "static, in turns", "-", "-", "-", f"{idle_share(busy):.2%}", max(busy)))
        for batch_size in (2, 4, 8):
            order = balanced(sizes.tolist(), batch_size)
            for ahead in (0, 1, 2):
                for split, ranks in (("equal batches", 1), ("smaller at the end", options.ranks)):
                    ends = batch_ends(sizes[order].tolist(), batch_size, ranks, ahead)
                    busy = queue_split(seconds[order], ends, ahead, options.overhead, speeds)
                    idle = f"{idle_share(busy):.2%}"
                    rows.append((name, split, batch_size, ahead, len(ends), idle, max(busy)))
    table(f"{options.ranks} ranks (goal: below 2% idle)", rows)


# kill


def below(pid: int) -> list[int]:
    """The ids of all descendants of a process."""
    direct: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct += [int(word) for word in path.read_text().split()]
        except OSError:
            continue
    return [found for child in direct for found in (child, *below(child))]


def ranks_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The process ids of a run's ranks."""
    found = [process.pid]
    for pid in below(process.pid):
        try:
            if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def kill(options: argparse.Namespace) -> None:
    """Kill ranks at random many times, and compare the result with that of an undisturbed run."""
    chance = random.Random(options.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = write_images(folder / "data", options.images)
        settings: dict[str, Any] = {
            "data__batch_size": 2,
            "writer__images_per_segment": 2,
            "model__network__module": "networks.SleepingNet",
            "model__network__module__seconds": 0.004,
        }
        log = folder / "undisturbed.log"
        finished(launch(predict_words(data, folder / "undisturbed", 2, **settings), log), log)
        words = predict_words(data, folder / "run", 2, **settings)
        log, run = folder / "run.log", RunFolder(folder / "run")
        kills, published_lost, done = 0, 0, 0
        victims = {"rank 0": 0, "rank 1": 0, "all": 0}
        while kills < options.kills:
            process = launch(words, log)
            before = len(run.segments())
            while len(run.segments()) == before and process.poll() is None:
                time.sleep(0.005)
            # After this start's first segment, the ranks are at work: kill at any moment.
            time.sleep(chance.uniform(0, options.within))
            if process.poll() is not None:
                print(f"the run ended after {kills} kills: use more images")
                break
            published = set(run.segments())
            ranks = ranks_of(process)
            victim = chance.choice(list(victims))
            for pid in {"rank 0": ranks[:1], "rank 1": ranks[1:], "all": ranks}[victim]:
                os.kill(pid, signal.SIGKILL)
            kills += 1
            victims[victim] += 1
            process.wait()
            published_lost += len(published - set(run.segments()))
            done = len(run.done())
            print(f"kill {kills} of {victim}: {done} of {options.images} images are published", flush=True)
        finished(launch(words, log), log)
        temporaries = len(list(run.segments_path.glob(".*.tmp")))
        found, unreadable = [], 0
        for path in run.segments():
            try:
                with MaskFile(path) as segment:
                    found += segment.images["sample_id"].tolist()
            except ValueError:
                unreadable += 1
        differing = columns_that_differ(folder / "undisturbed" / "masks.h5", run.merged)
        table(
            f"{kills} kills in {time.monotonic() - began:.0f} s: {victims}",
            [
                ("images", "lost", "twice", "unreadable", "segments lost", "columns that differ"),
                (
                    options.images,
                    options.images - len(set(found)),
                    len(found) - len(set(found)),
                    unreadable,
                    published_lost,
                    ", ".join(differing) or "none",
                ),
            ],
        )
        print(f"killed while publishing: {temporaries} temporary files were left, which nobody reads")


def columns_that_differ(one: Path, two: Path) -> list[str]:
    """The columns that are not equal bit for bit, without the times."""
    with MaskFile(one) as first, MaskFile(two) as second:
        names = [name for name in EXPLANATIONS if name != "seconds"]
        pairs = {name: (first.column(name), second.column(name)) for name in names}
        pairs.update({f"images/{name}": (first.images[name], second.images[name]) for name in IMAGES})
        return [name for name, (left, right) in pairs.items() if not same_values(left, right)]


def same_values(left: NDArray[Any], right: NDArray[Any]) -> bool:
    if left.dtype == object:
        return bool(left.tolist() == right.tolist())
    return left.shape == right.shape and left.tobytes() == right.tobytes()


# writing


def synthetic_result(numbers: Sequence[int], generator: np.random.Generator) -> BatchResult:
    """A finished batch with one explanation of 28 x 28 cells and its curves for each image."""
    images = len(numbers)
    columns: dict[str, Any] = {}
    curves = ("deletion_curve", "insertion_curve", "deletion_measured", "insertion_measured")
    shapes = {"masks": (28, 28), "box": (4,), **dict.fromkeys(curves, (51,))}
    for name, column in EXPLANATIONS.items():
        shape = shapes.get(name, ())
        if column.dtype in ("f", "f4"):
            columns[name] = generator.random((images, *shape), dtype=np.float32)
        elif column.dtype in ("i1", "i4", "i8"):
            columns[name] = np.zeros((images, *shape), column.dtype)
        else:
            columns[name] = np.array(["ok"] * images, dtype=object)
    names = [f"{number:06d}.png" for number in numbers]
    columns["sample_id"] = np.array(names, dtype=object)
    frame = Frame.of(500, 375, (INPUT_SIZE, INPUT_SIZE), "squash")
    records = [ImageRecord(name, f"/data/{name}", frame, targets=1) for name in names]
    return BatchResult(records, columns)


def writing(options: argparse.Namespace) -> None:
    """Measure the main thread's time in publishing while batches arrive as from a fast accelerator."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        run = Run(RunFolder(temporary), alone(), {})
        run.folder.prepare()
        publisher = Publisher(run, {}, options.images_per_segment, seconds=60)
        longest = blocked = computed = 0.0
        results = [
            synthetic_result(range(start, start + options.batch), generator)
            for start in range(0, options.images, options.batch)
        ]
        began = time.perf_counter()
        for number, result in enumerate(results):
            due = began + (number + 1) * options.batch / options.rate
            time.sleep(max(0.0, due - time.perf_counter()))
            start, computing = time.perf_counter(), time.thread_time()
            run.count(number, result)
            publisher.add(result)
            spent = time.perf_counter() - start
            computed += time.thread_time() - computing
            blocked, longest = blocked + spent, max(longest, spent)
        start = time.perf_counter()
        publisher.finish()
        last = time.perf_counter() - start
        seconds = time.perf_counter() - began
        publisher.close()
        segments = run.folder.segments()
        size = sum(path.stat().st_size for path in segments)
    table(
        f"{options.images} images at {options.rate} a second (goal: below 1% blocked)",
        [
            ("blocked", "computing", "of seconds", "share", "longest", "at the end", "segments", "MB"),
            (
                f"{blocked * 1e3:.0f} ms",
                f"{computed * 1e3:.0f} ms",
                seconds,
                f"{blocked / seconds:.2%}",
                f"{longest * 1e3:.0f} ms",
                f"{last * 1e3:.0f} ms",
                len(segments),
                size / 1e6,
            ),
        ],
    )


# memory


def resident(pid: int) -> int:
    """The resident memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def memory(options: argparse.Namespace) -> None:
    """Measure the resident memory of the main process during a run."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = hard_links(folder, options.images)
        places = folder / "places"
        places.mkdir()
        words = predict_words(
            data,
            folder / "run",
            1,
            data__batch_size=16,
            model__iterations=1,
            model__micro_batch_size=64,
            trainer__callbacks="networks.Recorder",
        )
        log = folder / "log.txt"
        process = launch(words, log, **{PLACES_VARIABLE: str(places)})
        marks = [mark for mark in (500, 2000, 5000, 10000, 15000, 20000, 40000) if mark <= options.images]
        rows: list[Sequence[object]] = [("images", "resident MB", "against 2000", "s")]
        base = 0
        while process.poll() is None and marks:
            time.sleep(0.1)
            files = list(places.iterdir())
            done = 16 * len(files[0].read_text().splitlines()) if files else 0
            if done >= marks[0] or (marks[0] == options.images and done >= options.images - 64):
                size = resident(process.pid)
                base = size if marks[0] == 2000 else base
                change = f"{size / base - 1:+.2%}" if base else ""
                rows.append((done, round(size / 1e6, 1), change, process_age(process.pid)))
                del marks[0]
        finished(process, log)
        table("memory of one rank, loader in the same process (goal: below +5% after 2000)", rows)


def process_age(pid: int) -> float:
    """Seconds since a process started."""
    return round(time.time() - Path(f"/proc/{pid}").stat().st_mtime, 0)


def hard_links(folder: Path, number: int) -> Path:
    """Many names of one small picture; returns their folder."""
    original = write_images(folder / "one", 1) / "000000.png"
    data = folder / "data"
    data.mkdir()
    for index in range(number):
        (data / f"{index:06d}.png").hardlink_to(original)
    return data


# restart


def restart(options: argparse.Namespace) -> None:
    """Measure the seconds from the command to the first batch of a run that is nearly done."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = hard_links(folder, options.images)
        words = predict_words(
            data, folder / "run", 1, model__mask_size=28, trainer__callbacks="networks.Recorder"
        )
        log = folder / "log.txt"
        rows: list[Sequence[object]] = [("done", "of", "segments", "to the first batch", "in it, done set")]
        for done in (0, options.done):
            run = RunFolder(folder / "run")
            if done:
                with MaskFile(run.segments()[0]) as masks:
                    attributes = configuration_of(masks.attributes)
                have = len(run.done())
                for start in range(have, done, 256):
                    numbers = range(start, min(start + 256, done))
                    run.publish([synthetic_result(numbers, generator)], attributes)
            places = folder / f"places-{done}"
            places.mkdir()
            began = time.time()
            process = launch(words, log, **{PLACES_VARIABLE: str(places)})
            while process.poll() is None and not any(path.read_text() for path in places.iterdir()):
                time.sleep(0.01)
            seconds = time.time() - began
            process.send_signal(signal.SIGTERM)
            process.wait()
            began = time.perf_counter()
            found = len(run.done())
            rows.append((found, options.images, len(run.segments()), seconds, time.perf_counter() - began))
        table("seconds until work begins; imports are a part of it", rows)


# files


def slow_files(folder: Path, milliseconds: float) -> tuple[dict[str, str], Path]:
    """Environment variables that slow file operations below ``run`` down and log them, and the log."""
    library, log = folder / "slow_files.so", folder / "operations.txt"
    source = HERE / "slow_files.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    variables = {
        "LD_PRELOAD": library,
        "SLOW_FOLDER": folder / "run",
        "SLOW_LOG": log,
        "SLOW_MILLISECONDS": milliseconds,
    }
    return {name: str(value) for name, value in variables.items()}, log


Operation = tuple[int, int, str, str]  # process, thread, call and path


def operations(log: Path) -> list[Operation]:
    """The operations that were logged since the last call."""
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    words = [line.split(" ", 3) for line in lines]
    return [(int(process), int(thread), call, path) for process, thread, call, path in words]


def write_segments(folder: str, writers: int, segments: int) -> None:
    """Publish from many processes at the same time; prints the seconds that each segment took."""
    run = RunFolder(folder)
    run.prepare()
    run.claim({})
    children = []
    for writer in range(writers):
        child = os.fork()
        if child:
            children.append(child)
            continue
        for number in range(writer * segments, (writer + 1) * segments):
            result = synthetic_result(range(16 * number, 16 * number + 16), np.random.default_rng(number))
            began = time.perf_counter()
            run.publish([result], {}, writer)
            print(time.perf_counter() - began, flush=True)
        os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    run.expect(sorted(run.done()))


def view_folder(folder: str) -> None:
    """Read what the first rank reads when it resumes a run."""
    run = RunFolder(folder)
    damaged = run.damaged()
    run.check_configuration({}, damaged)
    run.statuses(damaged)


def files(options: argparse.Namespace) -> None:
    """Count file operations on a slow file system: to start, for each segment, to resume, for status."""
    rows: list[Sequence[object]] = [("", "operations", "of them", "seconds")]

    def row(name: str, found: Iterable[Operation], seconds: float | str = "", parts: int = 1) -> None:
        counts = Counter(call for _, _, call, _ in found)
        shown = ", ".join(f"{number / parts:.3g} {call}" for call, number in counts.most_common())
        rows.append((name, sum(counts.values()) / parts, shown, seconds))

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        variables, log = slow_files(folder, options.milliseconds)
        environment = {**os.environ, **variables, "PYTHONPATH": f"{HERE.parent}:{HERE}"}
        run = RunFolder(folder / "run")

        def timed(*words: object, output: Path | None = None) -> tuple[list[Operation], float]:
            began = time.perf_counter()
            with (output or folder / "output.txt").open("w") as file:
                subprocess.run([sys.executable, *map(str, words)], env=environment, stdout=file, check=True)
            return operations(log), time.perf_counter() - began

        words = predict_words(
            write_images(folder / "data", 40), run.path, 2, data__batch_size=2, writer__images_per_segment=4
        )
        process = launch(words, folder / "log.txt", **variables)
        finished(process, folder / "log.txt")
        found = operations(log)
        first = [each for each in found if each[:2] == (process.pid, process.pid)]
        begun = max(place for place, each in enumerate(first) if each[3].endswith("config.yaml")) + 1
        row("the first rank's start", first[:begun])
        row("another rank, without segments", [e for e in found if e[0] == e[1] != process.pid])
        # Other threads read the segments at the end.
        publishing = {thread for _, thread, call, _ in found if call == "rename"} - {
            each[0] for each in found
        }
        row("a segment", [each for each in found if each[1] in publishing], parts=len(run.segments()))
        shutil.rmtree(run.path)

        program = (
            "import cluster;"
            f" cluster.write_segments({str(run.path)!r}, {options.writers}, {options.segments})"
        )
        timed("-c", program, output=folder / "seconds.txt")
        seconds = [float(line) for line in (folder / "seconds.txt").read_text().splitlines()]
        rows.append((f"{options.writers} writers: a segment on average", "", "", float(np.mean(seconds))))
        rows.append((f"{options.writers} writers: the slowest segment", "", "", max(seconds)))
        number = len(run.segments())
        row(f"status of {number} segments", *timed("-m", "igos_pl", "status", run.path))
        program = f"import cluster; cluster.view_folder({str(run.path)!r})"
        row(f"the first rank's view of {number} segments, to resume", *timed("-c", program))
    table(f"{options.milliseconds} ms for each operation; seconds with imports", rows)


# ties


def ties(options: argparse.Namespace) -> None:
    """Compare micro-batch sizes: the steps that line searches accept, and the final masks."""
    sizes = [int(word) for word in options.sizes.split(",")]
    counts, masks = zip(*(searched(size, options) for size in sizes), strict=True)
    rows: list[Sequence[object]] = [
        (
            "micro-batches",
            "line searches",
            "that differ",
            "masks with one",
            "masks differ by up to",
            "on average",
        )
    ]
    for size, other, mask in zip(sizes[1:], counts[1:], masks[1:], strict=True):
        differ = other != counts[0]
        rows.append(
            (
                f"{size} against {sizes[0]}",
                differ.size,
                f"{differ.mean():.2%}",
                f"{differ.any(axis=0).sum()} of {differ.shape[1]}",
                *differences(mask, masks[0]),
            )
        )
    table("line search", rows)
    changed: dict[str, dict[str, Any]] = {"igospp": {"iterations": options.iterations}, "fast": {}}
    for preset, settings in changed.items():
        masks = tuple(final_masks(size, options, preset, **settings) for size in sizes)
        table(
            preset,
            [
                ("micro-batches", "masks differ by up to", "on average"),
                *(
                    (f"{size} against {sizes[0]}", *differences(mask, masks[0]))
                    for size, mask in zip(sizes[1:], masks[1:], strict=True)
                ),
            ],
        )


def differences(one: NDArray[Any], other: NDArray[Any]) -> tuple[float, float]:
    """The largest and the mean difference of cells."""
    found = np.abs(one - other)
    return float(found.max()), float(found.mean())


def searched(size: int, options: argparse.Namespace) -> tuple[NDArray[Any], NDArray[Any]]:
    """The number of steps back ``(iterations, N)`` of each line search, and the final masks ``(N, s, s)``."""
    from igos_pl.solver.optimizers import LineSearch

    counts: list[NDArray[Any]] = []

    class Counting(LineSearch):
        def step(self, closure: Any = None) -> torch.Tensor:  # type: ignore[override]
            losses = super().step(closure)
            largest = self.state[self.masks]["largest"]
            shrunk = self.param_groups[0]["step_size"] / largest / self.accepted
            counts.append(
                (shrunk.log() / np.log(5)).round().numpy()
            )  # each step back keeps a fifth of the step
            return losses

    masks = final_masks(size, options, "igospp", optimizer=Counting, iterations=options.iterations)
    return np.stack(counts), masks


def final_masks(size: int, options: argparse.Namespace, preset: str, **settings: Any) -> NDArray[Any]:
    """The masks ``(N, s, s)`` of some of the demo's photos with a preset and a micro-batch size."""
    from photos import demo_batch

    from igos_pl.explainer import Explainer
    from igos_pl.models import EfficientNetLite0Classifier

    network = EfficientNetLite0Classifier()
    explainer = Explainer.from_preset(network, preset, **settings, metrics=False, micro_batch_size=size)
    batch = demo_batch(options.photos, network.input_size)
    found: NDArray[Any] = explainer.predict_step(batch).explanations["masks"]
    return found.astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(work: Callable[[argparse.Namespace], None], **defaults: Any) -> None:
        command = commands.add_parser(work.__name__, help=work.__doc__)
        for name, value in defaults.items():
            kind = str if value is None else type(value)
            command.add_argument(f"--{name.replace('_', '-')}", type=kind, default=value)
        command.set_defaults(work=work)

    add(scaling, images=400, repeats=2, network="RepeatingNet")
    add(
        simulate,
        ranks=64,
        images=COCO_IMAGES,
        fixed=0.1,
        per_object=0.5,
        overhead=0.0,
        scatter=0.3,
        speeds=0.0,
        seed=0,
    )
    add(kill, images=1000, kills=20, seed=0, within=1.0)
    add(writing, images=6000, batch=8, rate=200, images_per_segment=1024, folder=None)
    add(memory, images=20000)
    add(restart, images=50000, done=49000)
    add(files, writers=64, segments=2, milliseconds=20.0)
    add(ties, photos=4, iterations=10, sizes="10,7,1")
    options = parser.parse_args()
    print("python", *sys.argv)
    options.work(options)


if __name__ == "__main__":
    main()
