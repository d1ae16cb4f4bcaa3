"""A SLURM cluster of two nodes on this machine, run by the current user in a folder of its own."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

NODES = ("node1", "node2")
GPUS_PER_NODE = 2  # so many are said to be there; nobody looks

_DAEMONS = ("munged", "slurmctld", "slurmd")
_COMMANDS = ("sbatch", "srun", "scontrol", "squeue", "scancel", "sinfo")
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

_CONFIGURATION = """\
ClusterName=miniature
SlurmctldHost=localhost
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
GresTypes=gpu
"""
_NODE = "NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=4 Gres=gpu:{gpus}\n"
_PARTITIONS = """\
PartitionName=usual Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""


class CannotStart(Exception):
    """Why there is no cluster."""


class Cluster:
    """Its daemons and its commands.

    Args:
        folder: for everything that the daemons write; its path is short, since it holds sockets.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SLURM_", "SBATCH_", "SRUN_", "MASTER_")) and key != "CUDA_VISIBLE_DEVICES"
        }
        self.environment |= {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all daemons; returns when both nodes take jobs."""
        missing = [name for name in (*_DAEMONS, *_COMMANDS) if not shutil.which(name, path=_PATH)]
        if missing:
            raise CannotStart(f"{', '.join(missing)} not found (Debian: slurmctld slurmd slurm-client munge)")
        self._configure()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        options = {
            "key-file": "key",
            "socket": "socket",
            "log-file": "log",
            "pid-file": "pid",
            "seed-file": "seed",
        }
        self._spawn(
            "munged",
            "--foreground",
            "--force",
            *(f"--{o}={self.folder}/munge.{e}" for o, e in options.items()),
        )
        self._wait((self.folder / "munge.socket").exists, "munged")
        self._spawn("slurmctld", "-D")
        for node in NODES:
            self._spawn("slurmd", "-D", "-N", node)
        self._wait(lambda: self._states() == ["idle"] * len(NODES), "slurmctld and slurmd")

    def stop(self) -> None:
        """End what was started, the last first."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons = []

    def run(self, *words: str | Path, **variables: str | Path) -> str:
        """What one of SLURM's commands prints."""
        environment = {**self.environment, **{key: str(value) for key, value in variables.items()}}
        done = subprocess.run(
            [str(word) for word in words], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, script: Path, options: list[str], variables: Mapping[str, str | Path]) -> str:
        """Queue a job; returns its number."""
        return self.run("sbatch", "--parsable", *options, script, **variables)

    def jobs(self, number: str) -> list[dict[str, str]]:
        """What is known of a job, or of each job of an array."""
        lines = self.run("scontrol", "--oneliner", "show", "job", number).splitlines()
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]

    def wait(self, number: str, seconds: float = 600) -> list[dict[str, str]]:
        """Wait for the end of a job and of its restarts."""
        ended = {"COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT", "OUT_OF_MEMORY"}
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            jobs = self.jobs(number)
            if all(job["JobState"] in ended for job in jobs):
                return jobs
            time.sleep(0.5)
        raise AssertionError(f"not ended: {jobs}")

    def logs(self) -> str:
        """The last lines of what the daemons said."""
        texts = [path.read_text(errors="replace").splitlines()[-3:] for path in self.folder.glob("*.out")]
        return " | ".join(line for lines in texts for line in lines)

    def _configure(self) -> None:
        ports = _free_ports(1 + len(NODES))
        text = _CONFIGURATION.format(controller_port=ports[0], user=getpass.getuser(), folder=self.folder)
        for node, port in zip(NODES, ports[1:], strict=True):
            (self.folder / node).mkdir()
            text += _NODE.format(node=node, port=port, gpus=GPUS_PER_NODE)
        (self.folder / "state").mkdir()
        (self.folder / "slurm.conf").write_text(text + _PARTITIONS)
        gpus = f"Name=gpu Count={GPUS_PER_NODE} File=/dev/tty[0-{GPUS_PER_NODE - 1}]\n"
        (self.folder / "gres.conf").write_text("".join(f"NodeName={node} {gpus}" for node in NODES))
        version = re.search(r"(\d+)\.(\d+)", self.run("slurmd", "-V"))
        assert version is not None
        old = (int(version[1]), int(version[2])) < (23, 11)  # which cannot do without
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin={'cgroup/v1' if old else 'disabled'}\n")

    def _spawn(self, *words: str) -> None:
        with (self.folder / f"{words[0]}{len(self._daemons)}.out").open("wb") as log:
            self._daemons.append(
                subprocess.Popen(words, env=self.environment, stdout=log, stderr=subprocess.STDOUT)
            )

    def _states(self) -> list[str]:
        done = subprocess.run(
            ["sinfo", "-h", "-p", "usual", "-N", "-o", "%T"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    def _wait(self, ready: Callable[[], bool], who: str) -> None:
        limit = time.monotonic() + 40
        while not ready():
            dead = [daemon for daemon in self._daemons if daemon.poll() is not None]
            if dead or time.monotonic() > limit:
                raise CannotStart(f"{who} did not start: {self.logs()}")
            time.sleep(0.5)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The running cluster; skips where there can be none."""
    with tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True) as folder:
        found = Cluster(Path(folder))
        try:
            found.start()
            yield found
        except CannotStart as reason:
            pytest.skip(f"no SLURM: {reason}")
        finally:
            found.stop()
