"""Starts ranks as srun or torchrun would, quickly: forks of one process that has imported all there is.

As a program it is that process: it reads orders from its input, a JSON line each, and answers likewise.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

import igos_pl

ROOT = Path(igos_pl.__file__).resolve().parents[1]

BATCH = "explained a batch"  # what `Telling` says


class SlowNet(tiny.TinyNet):
    """Sleeps before it answers, so that a test has time to disturb it."""

    def forward(self, images: Tensor) -> Tensor:
        # Not an attribute: those of a network's layers belong to the run's configuration.
        time.sleep(float(os.environ.get("SLOW_NET_SECONDS", "0")))
        return super().forward(images)


class Telling(Callback):
    """Says when a batch is explained; it is stored soon after, at the latest when the rank tells again."""

    def on_predict_batch_end(self, *arguments: Any, **more: Any) -> None:
        """Say so."""
        print(BATCH, flush=True)


class Failing(Telling):
    """Ends the rank ``FAILING_RANK`` with an exception after its second batch."""

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Raise."""
        if batch_idx == 2 and os.environ.get("FAILING_RANK") == os.environ["LOCAL_RANK"]:
            raise RuntimeError("the machine is on fire")


def environment(**more: str) -> dict[str, str]:
    """Variables with which a process of its own finds this package and the tests' networks."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


class Ranks:
    """The processes of one run. ``output`` is the file that gets what they print."""

    def __init__(self, server: Server, pids: list[int], output: Path) -> None:
        self._server = server
        self._codes: dict[int, int] = {}
        self.pids = pids
        self.output = output

    def kill(self, number: int, *ranks: int) -> None:
        """Send a signal to some ranks."""
        for rank in ranks:
            os.kill(self.pids[rank], number)

    def wait(self, seconds: float = 60) -> list[int]:
        """The exit codes of all ranks, negative for signals."""
        end = time.monotonic() + seconds
        while len(self._codes) < len(self.pids):
            for pid in set(self.pids) - set(self._codes):
                code = self._server.ask(poll=pid)["code"]
                if code is not None:
                    self._codes[pid] = code
            if time.monotonic() > end:
                self.end()
                raise TimeoutError(f"ranks did not end in {seconds} s:\n{self.output.read_text()}")
            time.sleep(0.05)
        return [self._codes[pid] for pid in self.pids]

    def end(self) -> None:
        """Kill what is left."""
        for pid in set(self.pids) - set(self._codes):
            os.kill(pid, signal.SIGKILL)


class Server:
    """The process that is forked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def ask(self, **order: Any) -> Any:
        """Give an order; returns the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(
        self,
        words: Sequence[str],
        ranks: int,
        folder: Path,
        variables: Mapping[str, str] | None = None,
        patience: int | None = None,
    ) -> Ranks:
        """Start the ranks of a run.

        Args:
            words: of the command line.
            ranks: how many.
            folder: where they start, and their output goes.
            variables: of their environment.
            patience: seconds, about, after which a silent rank is taken for dead.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
        output = folder / "output.txt"
        settings = [
            {**(variables or {}), **({**common, "LOCAL_RANK": str(rank)} if ranks > 1 else {})}
            for rank in range(ranks)
        ]
        order = {"words": list(words), "folder": str(folder), "output": str(output), "ranks": settings}
        return Ranks(self, self.ask(**order, patience=patience)["pids"], output)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def _serve() -> None:
    # Named here, so that forks find them imported.
    import torch

    import igos_pl.cli.predict  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, Any] = {}
        if "poll" in order:
            pid, status = os.waitpid(order["poll"], os.WNOHANG)
            answer["code"] = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer["pids"] = [_fork(order, variables) for variables in order["ranks"]]
        print(json.dumps(answer), flush=True)
    os._exit(0)


def _fork(order: dict[str, Any], variables: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        from igos_pl.cli import main as cli
        from igos_pl.run import coordination

        if order["patience"] is not None:
            coordination._BEAT_SECONDS, coordination._POLLS_PER_BEAT = 0.1, 2
            coordination._PATIENCE = order["patience"]
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        file = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(order["folder"])
        os.environ.update(variables)
        code = cli.main(order["words"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
