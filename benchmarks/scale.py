"""Measures what results of a million images cost: files, bytes, time and memory.

    python benchmarks/scale.py make FOLDER --images 1000000
    python benchmarks/scale.py measure FOLDER
    python benchmarks/scale.py limit FOLDER
    python benchmarks/scale.py half runs/demo/masks.h5

``make`` publishes synthetic segments as a run does. ``measure`` runs the usual tasks on them, each in a
process of its own. ``limit`` only compresses and writes the same masks, so no merge can be quicker. ``half``
shows what half precision would lose of real masks.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from igos_pl.data.geometry import Frame
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.settings import Attributes
from igos_pl.store import MaskFile, RunFolder
from igos_pl.store.schema import EXPLANATIONS
from igos_pl.store.tables import compressed

CURVE = 51
ATTRIBUTES: Attributes = {"method": "iGOS+", "network": "Synthetic", "seed": 63}


# Synthetic results


def smooth_masks(rows: int, size: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Masks that compress about like real ones: a few important spots, and noise in the last bits."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    masks = np.ones((rows, size, size), np.float32)
    for _ in range(3):
        centre, width = (
            random.random((2, rows, 1, 1), np.float32),
            0.05 + random.random((rows, 1, 1), np.float32),
        )
        masks -= np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / width**2 * 8)
    masks += random.standard_normal(masks.shape, np.float32) * np.float32(0.01)
    return masks.clip(0, 1)


def image_name(number: int) -> str:
    """A file name like those of ImageNet's training set."""
    folder = f"n{1440764 + 137 * (number // 1300):08d}"
    return f"{folder}/{folder}_{number % 1300}.JPEG"


def result_of(numbers: Sequence[int], targets: NDArray[np.int64], size: int, random: Any) -> BatchResult:
    """A synthetic result of finished images.

    Args:
        numbers: the numbers of the images.
        targets: the number of explanations of each image.
        size: the side of a mask.
        random: generates the values.
    """
    rows, names = int(targets.sum()), [image_name(number) for number in numbers]
    curves = ("deletion_curve", "insertion_curve", "deletion_measured", "insertion_measured")
    shapes = {"box": (4,), **dict.fromkeys(curves, (CURVE,))}
    columns: dict[str, Any] = {}
    for name, column in EXPLANATIONS.items():
        if column.dtype == "f4":
            columns[name] = random.random((rows, *shapes.get(name, ())), np.float32)
        elif name != "masks":
            columns[name] = np.zeros((rows, *shapes.get(name, ())), column.dtype)
    labels = random.integers(0, 1000, rows)
    columns |= {
        "masks": smooth_masks(rows, size, random),
        "sample_id": np.repeat(np.array(names, object), targets),
        "target": np.concatenate([np.arange(count) for count in targets.tolist()]),
        "start_cell": np.full(rows, -1),
        "label": labels,
        "label_name": np.array([f"class number {label}" for label in labels.tolist()], object),
        "status": np.full(rows, "ok", object),
    }
    frame = Frame.of(500, 375, (224, 224), "squash")
    records = [
        ImageRecord(name, f"/datasets/imagenet/train/{name}", frame, targets=count)
        if count
        else ImageRecord(name, f"/datasets/imagenet/train/{name}", frame, status="no detection")
        for name, count in zip(names, targets.tolist(), strict=True)
    ]
    return BatchResult(records, columns if rows else {})


def make(options: argparse.Namespace) -> None:
    """Publish synthetic segments."""
    run = RunFolder(options.folder)
    run.prepare()
    random = np.random.default_rng(options.seed)
    run.expect([image_name(number) for number in range(options.images)])
    order = np.arange(options.images)
    if options.scattered:
        random.shuffle(order)
    targets = np.full(options.images, options.targets)
    if options.detections:  # as on COCO: many images have a few, some have many
        mean = options.detections / options.images
        targets = random.negative_binomial(1, 1 / (1 + mean), options.images)
    publishing = 0.0
    for start in range(0, options.images, options.segment):
        numbers = order[start : start + options.segment]
        result = result_of(numbers.tolist(), targets[numbers], options.size, random)
        began = time.process_time()
        run.publish([result], ATTRIBUTES)
        publishing += time.process_time() - began
    size = sum(path.stat().st_size for path in run.segments())
    print(
        f"{options.images} images, {targets.sum()} explanations of {options.size} x {options.size}:"
        f" {len(run.segments())} segments, {size / 1e6:,.0f} MB, {size / targets.sum():,.0f} bytes an"
        f" explanation; publishing took {publishing:.1f} s of CPU,"
        f" {publishing / len(run.segments()) * 1e3:.0f} ms a segment"
    )


# The usual tasks

TASKS = {
    "list": "RunFolder(folder).missing()",
    "resume": "run = RunFolder(folder); run.statuses(run.damaged())",
    "status": "main(['status', folder])",
    "open segments": "MaskFile(folder)",
    "info of segments": "main(['info', folder])",
    "merge": "main(['merge', folder])",
    "merge again": "main(['merge', folder])",
    "status, merged": "main(['status', folder])",
    "open": "MaskFile(folder)",
    "info": "main(['info', folder])",
    "verify": "main(['verify', folder])",
    "a column": "MaskFile(folder).column('score')",
    "ids": "MaskFile(folder).column('sample_id')",
    "where": "MaskFile(folder).where(label_name='class number 7')",
    "by name": "[*MaskFile(folder)[NAME]]",
    "by slice": "[*MaskFile(folder)[100:200]]",
    "by array": "f = MaskFile(folder); f[np.random.default_rng(0).integers(0, len(f), 1000)].column('masks')",
    "go through": "for explanation in MaskFile(folder)[:ROWS]: explanation.mask",
}

_PROGRAM = """
import resource, sys, time
folder, NAME, ROWS = sys.argv[1], sys.argv[2], int(sys.argv[3])
def measured(task):
    began, cpu = time.perf_counter(), cpu_now()
    exec(task, globals())
    return time.perf_counter() - began, cpu_now() - cpu
def cpu_now():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
import numpy as np
from igos_pl.cli.main import main
from igos_pl.store import MaskFile, RunFolder
seconds, _ = measured(sys.argv[4])
used = resource.getrusage(resource.RUSAGE_SELF)
print(seconds, cpu_now(), used.ru_maxrss / 1e3, "torch" in sys.modules, file=sys.stderr)
"""


def measure(options: argparse.Namespace) -> None:
    """Measure each task in a process of its own: its seconds, and the CPU and memory of the whole process."""
    run = RunFolder(options.folder)
    tasks = {name: task for name, task in TASKS.items() if not options.tasks or name in options.tasks}
    print(f"{'':20}{'seconds':>10}{'CPU':>10}{'MB':>10}")
    for name, task in tasks.items():
        if name == "merge":
            run.merged.unlink(missing_ok=True)
        words = [str(options.folder), image_name(options.name), str(options.rows), task]
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        seconds, cpu, memory, torch = done.stderr.split()[-4:]
        print(
            f"{name:20}{float(seconds):10.2f}{float(cpu):10.2f}{float(memory):10.0f}"
            + ("  imports torch" if torch == "True" else ""),
            flush=True,
        )
    if run.merged.exists():
        with MaskFile(run.merged) as masks:
            rows, size = len(masks), run.merged.stat().st_size
        print(f"{run.merged}: {rows} rows, {size / 1e6:,.0f} MB, {size / rows:,.0f} bytes an explanation")


# The lower bound of the time of a merge


def limit(options: argparse.Namespace) -> None:
    """Only compress and write the masks and curves of a run's segments, with all cores."""
    paths = RunFolder(options.folder).segments()[: options.segments]
    temporary = Path(options.folder) / "limit.tmp"

    def chunks(path: Path) -> Iterator[bytes]:
        with h5py.File(path, locking=False) as file:
            columns = [file[name][...] for name in ("masks", "deletion_curve", "insertion_curve")]
        for values in columns:
            rows = max(1, (1 << 16) // values[0].nbytes)
            for start in range(0, len(values), rows):
                yield compressed(values[start : start + rows], rows)

    began, cpu = time.perf_counter(), time.process_time()
    with temporary.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        for content in pool.map(lambda path: b"".join(chunks(path)), paths):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    size = sum(path.stat().st_size for path in paths)
    temporary.unlink()
    print(f"{len(paths)} segments of {size / 1e6:,.0f} MB: {seconds:.1f} s, {cpu:.1f} s of CPU")


# What half precision would lose


def half(options: argparse.Namespace) -> None:
    """Print how real masks change in half precision, and their compressed sizes."""
    for path in options.files:
        with MaskFile(path) as file:
            masks = file.column("masks").astype(np.float32)
        rounded = masks.astype(np.float16)
        flat, less = masks.reshape(len(masks), -1), rounded.reshape(len(masks), -1).astype(np.float32)
        order, after = (np.argsort(values, axis=1, kind="stable") for values in (flat, less))
        sizes = [len(compressed(values, len(values))) for values in (masks, rounded)]
        print(
            f"{path}: {len(masks)} masks of {masks.shape[1]} x {masks.shape[2]}."
            f" Cells that half precision changes: {np.mean(flat != less):.1%};"
            f" masks whose order of cells changes: {np.mean((order != after).any(1)):.1%}"
            f" ({np.mean(order != after):.2%} of the ranks); largest change {np.abs(flat - less).max():.1e}."
            f" Compressed: {sizes[0] / masks.nbytes:.0%} of {masks.nbytes / len(masks):,.0f} bytes a mask in"
            f" single, {sizes[1] / masks.nbytes:.0%} in half precision"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--images", type=int, default=50_000)
    making.add_argument("--segment", type=int, default=1024, help="images in a segment")
    making.add_argument("--size", type=int, default=28, help="side of a mask")
    making.add_argument("--targets", type=int, default=1, help="explanations of each image")
    making.add_argument(
        "--detections", type=int, default=0, help="explanations of all images, unevenly spread"
    )
    making.add_argument("--scattered", action="store_true", help="images in random order, as from many ranks")
    making.add_argument("--seed", type=int, default=0)
    making.set_defaults(command=make)
    measuring = commands.add_parser("measure")
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("--tasks", nargs="*", help=f"some of: {', '.join(TASKS)}")
    measuring.add_argument("--rows", type=int, default=100_000, help="rows that 'go through' reads")
    measuring.add_argument("--name", type=int, default=1234, help="number of the image that is read by name")
    measuring.set_defaults(command=measure)
    limiting = commands.add_parser("limit")
    limiting.add_argument("folder", type=Path)
    limiting.add_argument("--segments", type=int, default=100)
    limiting.set_defaults(command=limit)
    halving = commands.add_parser("half")
    halving.add_argument("files", nargs="+", type=Path)
    halving.set_defaults(command=half)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
