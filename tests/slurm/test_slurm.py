"""The job scripts in a real SLURM of two nodes: whatever ends them, every image is there once at the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tiny
import yaml

import igos_pl
from igos_pl.store import MaskFile, RunFolder

if TYPE_CHECKING:
    from conftest import Cluster

ROOT = Path(igos_pl.__file__).resolve().parents[1]
SCRIPTS = ROOT / "configs" / "slurm"
HERE = Path(__file__).parent
NAMES = [f"{number:02}.png" for number in range(30)]

ONE_PER_NODE = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1"]
THREE_TASKS = ["--array=0-2", "--cpus-per-task=1"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("apart")]  # the jobs' logs land there


class Work:
    """What all jobs here have in common: pictures, settings, and an environment with ``igos-pl`` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = tiny.write_pictures(folder / "photos", NAMES)
        self.settings = folder / "settings.yaml"
        self.settings.write_text(yaml.safe_dump(_settings("slow_net.SlowNet")))
        binaries = folder / "venv" / "bin"
        binaries.mkdir(parents=True)
        path = os.pathsep.join(map(str, (ROOT, HERE, HERE.parent)))
        (binaries / "activate").write_text(
            f'export PATH="{binaries}:$PATH" PYTHONPATH="{path}" OMP_NUM_THREADS=1\n'
        )
        self.program = binaries / "igos-pl"
        self.program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m igos_pl "$@"\n')
        self.program.chmod(0o755)
        self.expected = self._undisturbed()

    def variables(self, output: Path) -> dict[str, str | Path]:
        """For a job's script."""
        return {
            "VENV": self.folder / "venv",
            "CONFIG": self.settings,
            "DATA": self.photos,
            "OUTPUT": output,
            "MASTER_ADDR": "127.0.0.1",  # the nodes' names mean nothing outside SLURM
        }

    def check(self, output: Path) -> None:
        """Every image is there once, in the segments and in masks.h5, as if nothing had happened."""
        run = RunFolder(output)
        written: Counter[str] = Counter()
        for segment in run.segments():
            with MaskFile(segment) as masks:
                written.update(masks.column("sample_id").tolist())
        assert written == Counter(NAMES)
        with MaskFile(run.merged) as masks:
            assert masks.column("sample_id").tolist() == NAMES
            np.testing.assert_allclose(masks.column("masks"), self.expected, atol=1e-4)

    def _undisturbed(self) -> np.ndarray:
        settings, output = self.folder / "quick.yaml", self.folder / "undisturbed"
        settings.write_text(yaml.safe_dump(_settings("tiny.TinyNet")))
        words = [sys.executable, "-m", "igos_pl", "predict", "-c", settings, "--trainer.devices=1"]
        path = os.pathsep.join(map(str, (ROOT, HERE.parent)))
        subprocess.run(
            [*words, f"--data.root={self.photos}", f"--output={output}"],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            check=True,
        )
        with MaskFile(output / "masks.h5") as masks:
            assert masks.column("sample_id").tolist() == NAMES
            found: np.ndarray = masks.column("masks")
        return found


def _settings(network: str) -> dict[str, object]:
    classifier = {"module": network, "input_size": tiny.SIZE}
    return {
        "model": {
            "network": {"class_path": "Classifier", "init_args": classifier},
            "mask_size": 6,
            "iterations": 10,
            "path_steps": 4,
            "micro_batch_size": 8,
        },
        "data": {
            "class_path": "ImageFolderDataModule",
            "init_args": {"root": "set by --data.root", "batch_size": 2, "num_workers": 1},
        },
        "writer": {"images_per_segment": 2},
        "trainer": {"accelerator": "cpu"},
    }


@pytest.fixture(scope="module")
def work(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(tmp_path_factory.mktemp("work"))


def wait_for_segments(output: Path, number: int, seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while len(list((output / "segments").glob("*.h5"))) < number:
        assert time.monotonic() < limit, [path.read_text() for path in Path().glob("*.log")]
        time.sleep(0.1)


def ranks(output: Path) -> dict[str, int]:
    """Process ids of the explaining processes that write to a folder, by array task and rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            above = Path("/proc", parent, "cmdline").read_bytes()
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if b"igos_pl" in words and str(output).encode() in words and b"slurmstepd" in above:
            values = dict(entry.decode().partition("=")[::2] for entry in variables)
            found[values.get("SLURM_ARRAY_TASK_ID", "") + ":" + values["SLURM_PROCID"]] = int(folder.name)
    return found


def stop(cluster: Cluster, job: str, output: Path) -> None:
    """As SLURM does shortly before the end of a job's time."""
    cluster.run("scancel", "--signal=USR1", job)


def requeue(cluster: Cluster, job: str, output: Path) -> None:
    cluster.run("scontrol", "requeue", job)


def kill_first(cluster: Cluster, job: str, output: Path) -> None:
    os.kill(ranks(output)[":0"], signal.SIGKILL)


def kill_second(cluster: Cluster, job: str, output: Path) -> None:
    os.kill(ranks(output)[":1"], signal.SIGKILL)


def preempt(cluster: Cluster, job: str, output: Path) -> None:
    cluster.run(
        "sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=urgent.out", "--wrap=true"
    )


def test_several_nodes_undisturbed(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    output = tmp_path / "run"
    job = cluster.submit(SCRIPTS / "multi_node.sbatch", ONE_PER_NODE, work.variables(output))
    (found,) = cluster.wait(job)
    log = Path(f"igos-pl-{job}.log").read_text()
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "0"), log
    assert "30 images are in" in log
    assert {path.name.split("-")[1] for path in RunFolder(output).segments()} == {"rank0000", "rank0001"}
    work.check(output)


@pytest.mark.parametrize(
    ("disturb", "code"),
    [(stop, "75"), (requeue, None), (kill_first, "1(37|43)"), (kill_second, "1(37|43)"), (preempt, "75")],
    ids=["USR1", "requeue", "kill first rank", "kill second rank", "preempted"],
)
def test_several_nodes_disturbed(
    cluster: Cluster,
    work: Work,
    tmp_path: Path,
    disturb: Callable[[Cluster, str, Path], None],
    code: str | None,
) -> None:
    output = tmp_path / "run"
    job = cluster.submit(SCRIPTS / "multi_node.sbatch", ONE_PER_NODE, work.variables(output))
    wait_for_segments(output, 3)
    disturb(cluster, job, output)
    (found,) = cluster.wait(job)
    log = Path(f"igos-pl-{job}.log").read_text()
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), log
    assert "explained before" in log
    if code:
        assert re.search(f"igos-pl ended with {code}: job {job} is queued again", log), log
    work.check(output)


def test_cancelled_job_stays_cancelled(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    output = tmp_path / "run"
    job = cluster.submit(SCRIPTS / "multi_node.sbatch", ONE_PER_NODE, work.variables(output))
    wait_for_segments(output, 2)
    cluster.run("scancel", job)
    (found,) = cluster.wait(job)
    time.sleep(8)  # a job that is queued again may begin after five seconds
    (found,) = cluster.jobs(job)
    assert (found["JobState"], found["Restarts"]) == ("CANCELLED", "0")
    resumed = cluster.submit(SCRIPTS / "multi_node.sbatch", ONE_PER_NODE, work.variables(output))
    (found,) = cluster.wait(resumed)
    assert found["JobState"] == "COMPLETED"
    work.check(output)


def test_array_disturbed(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    output = tmp_path / "run"
    job = cluster.submit(SCRIPTS / "array.sbatch", THREE_TASKS, work.variables(output))
    wait_for_segments(output, 3)
    cluster.run("scancel", "--signal=USR1", f"{job}_1")
    os.kill(ranks(output)["2:0"], signal.SIGKILL)
    found = {each["ArrayTaskId"]: each for each in cluster.wait(job)}
    assert {task: (each["JobState"], each["Restarts"]) for task, each in found.items()} == {
        "0": ("COMPLETED", "0"),
        "1": ("COMPLETED", "1"),
        "2": ("COMPLETED", "1"),
    }
    work.check(output)


def test_one_node(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    output = tmp_path / "run"
    options = ["--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1"]
    job = cluster.submit(SCRIPTS / "single_node.sbatch", options, work.variables(output))
    wait_for_segments(output, 3)
    cluster.run("scancel", "--signal=USR1", job)
    (found,) = cluster.wait(job)
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1")
    work.check(output)


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sbatch")), ids=lambda path: path.stem)
def test_scripts_are_accepted(cluster: Cluster, script: Path) -> None:
    smaller = THREE_TASKS if script.stem == "array" else ONE_PER_NODE
    cluster.run("sbatch", "--test-only", *smaller, script)
