"""A run and its owner: what a bare trainer does, in which ways a run ends, and who may come first."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from igos_pl.callbacks import DryRun, MaskProgressBar, MaskWriter, OverlayWriter, RunCallback
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.datamodules import ImageFolderDataModule
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.run.coordination import alone
from igos_pl.run.run import Ending, Run
from igos_pl.run.signals import StopSignals
from igos_pl.store import MaskFile, RunFolder

sys.path.insert(0, str(Path(__file__).parent))

from ranks import environment

NAMES = ["a.png", "b.png", "c.png", "d.png", "e.png"]

pytestmark = pytest.mark.filterwarnings("ignore:.*many workers.*", "ignore:.*TensorBoard.*")


def explainer() -> Explainer:
    return Explainer(tiny.tiny_classifier(), mask_size=6, iterations=2)


def data_of(photos: Path) -> ImageFolderDataModule:
    return ImageFolderDataModule(str(photos), batch_size=2, num_workers=0)


def test_a_bare_trainer_does_the_right_thing(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trainer = Trainer(default_root_dir=folder, accelerator="cpu", devices=1)
    trainer.predict(explainer(), data_of(photos))
    run = Run.of(trainer)
    assert run.ending is Ending.FINISHED
    assert (list(run.expected), list(run.assigned), list(run.pending)) == (NAMES, NAMES, NAMES)
    with MaskFile(folder / "masks.h5") as masks:
        assert masks.column("sample_id").tolist() == NAMES
        assert masks.attributes["data"] == "ImageFolderDataModule"
    trainer.predict(explainer(), data_of(photos))
    again = Run.of(trainer)
    assert again is not run
    assert (again.ending, list(again.pending)) == (Ending.FINISHED, [])
    assert sum(isinstance(callback, RunCallback) for callback in vars(trainer)["callbacks"]) == 1


def test_a_bare_trainer_of_two_ranks_explains_each_image_once(photos: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import tiny, sys\n"
        "from pytorch_lightning import Trainer\n"
        "from igos_pl import Explainer, ImageFolderDataModule\n"
        "trainer = Trainer(default_root_dir='run', accelerator='cpu', devices=2)\n"
        "explainer = Explainer(tiny.tiny_classifier(), mask_size=6, iterations=2)\n"
        f"data = ImageFolderDataModule({str(photos)!r}, batch_size=1, num_workers=0)\n"
        "results = trainer.predict(explainer, data)\n"
        "print('explained', [record.sample_id for result in results for record in result.images])\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment(), capture_output=True, text=True,
        check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    explained = [eval(line[9:]) for line in done.stdout.splitlines() if line.startswith("explained")]
    assert len(explained) == 2
    assert sorted(itertools.chain(*explained)) == NAMES
    with MaskFile(tmp_path / "run" / "masks.h5") as masks:
        assert masks.column("sample_id").tolist() == NAMES


class Signalled(Callback):
    """Sends a signal to this process when a batch has ended."""

    def on_predict_batch_end(self, *arguments: Any, **more: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)


class Broken(Callback):
    """Fails when the second batch has ended."""

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 1:
            raise RuntimeError("the machine is on fire")


ORDERS = list(itertools.permutations(range(4)))


@pytest.mark.parametrize("order", ORDERS[::5], ids=str)
def test_the_order_of_callbacks_does_not_matter(photos: Path, tmp_path: Path, order: tuple[int, ...]) -> None:
    callbacks = [MaskWriter(), OverlayWriter(1), MaskProgressBar(), Signalled()]
    options = {"enable_progress_bar": True, "callbacks": [callbacks[place] for place in order]}
    trainer = tiny.quiet_trainer(tmp_path / "run", **options)
    trainer.predict(explainer(), data_of(photos), return_predictions=False)
    run = Run.of(trainer)
    assert run.ending is Ending.STOPPED
    assert run.folder.done() == set(NAMES[:2])
    assert (run.progress().images, run.progress().failures) == (2, 0)
    assert run.missing() == NAMES[2:]
    assert len(list((tmp_path / "run" / "overlays").iterdir())) == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_failed_run_keeps_what_was_finished(photos: Path, tmp_path: Path, first: bool) -> None:
    callbacks = [Broken(), MaskWriter()] if first else [MaskWriter(), Broken()]
    trainer = tiny.quiet_trainer(tmp_path / "run", callbacks=callbacks)
    with pytest.raises(RuntimeError, match="on fire"):
        trainer.predict(explainer(), data_of(photos), return_predictions=False)
    run = Run.of(trainer)
    assert run.ending is Ending.FAILED
    assert len(run.folder.done()) in (2, 4)  # the broken batch counts if the writer came first
    assert not run.folder.merged.exists()
    again = tiny.quiet_trainer(tmp_path / "run")
    again.predict(explainer(), data_of(photos), return_predictions=False)
    assert Run.of(again).ending is Ending.FINISHED
    assert RunFolder(tmp_path / "run").missing() == []


def test_a_dry_run_writes_nothing(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = tiny.quiet_trainer(tmp_path / "run", callbacks=[DryRun()], limit_predict_batches=1)
    trainer.predict(explainer(), data_of(photos), return_predictions=False)
    assert "5 images, 5 not done\n" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert Run.of(trainer).ending is Ending.FINISHED


def test_other_data_are_refused_in_a_sentence(tmp_path: Path, photos: Path) -> None:
    loader: DataLoader[Any] = DataLoader([tiny.batch_of(tiny.pictures(1))], batch_size=None)  # type: ignore[arg-type]
    trainer = tiny.quiet_trainer(tmp_path / "run")
    with pytest.raises(IgosError, match=r"no data module.*pass igos_pl\.DatasetDataModule\(loader\.dataset"):
        trainer.predict(explainer(), loader)
    with pytest.raises(IgosError, match=r"pass igos_pl\.DatasetDataModule"):
        trainer.predict(explainer(), tiny.Items(3))  # type: ignore[arg-type]
    trainer.predict(explainer(), data_of(photos), return_predictions=False)
    with pytest.raises(IgosError, match="no data module of igos_pl"):
        trainer.predict(explainer(), loader)


def test_other_modules_are_refused_in_a_sentence(tmp_path: Path, photos: Path) -> None:
    class Other(LightningModule):
        def predict_step(self, batch: Any, batch_idx: int) -> None:
            """Nothing."""

    with pytest.raises(IgosError, match=r"for igos_pl.Explainer, but the trainer has a Other"):
        tiny.quiet_trainer(tmp_path / "run").predict(Other(), data_of(photos))


def test_a_batch_counts_once(tmp_path: Path) -> None:
    run = Run(RunFolder(tmp_path), alone(), {})
    result = BatchResult([ImageRecord("a", "/a"), ImageRecord("b", "/b", status="unreadable")])
    for batch in (0, 0, 1, 0, 1):
        run.count(batch, result)
    assert (run.progress().images, run.progress().failures) == (4, 2)


def test_a_signal_is_known_to_who_listens_later() -> None:
    with StopSignals() as outer:
        signal.raise_signal(signal.SIGTERM)
        with StopSignals() as inner:
            assert inner.heard
    assert outer.heard
    with StopSignals() as outer, StopSignals() as inner:
        signal.raise_signal(signal.SIGUSR1)
        assert inner.heard
        assert outer.heard
    with StopSignals() as later:
        assert not later.heard


STUCK = """
from datetime import timedelta
from torch.distributed import TCPStore
from igos_pl.run import signals
signals._STUCK_SECONDS = signals._START_SECONDS = 0.5
with signals.StopSignals(starting=True):
    print("listening", flush=True)
    TCPStore("127.0.0.1", 0, world_size=2, is_master=True, timeout=timedelta(minutes=5))
"""

PATIENT = """
import time
from igos_pl.run import signals
signals._STUCK_SECONDS = signals._START_SECONDS = 0.5
with signals.StopSignals() as heard:
    print("listening", flush=True)
    while not heard.heard:
        time.sleep(0.01)
    time.sleep(1.5)
    print("went on")
"""


def told(program: str, number: signal.Signals) -> tuple[int, str]:
    """How a program ends that is sent a signal once it listens."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    process.send_signal(number)
    out, error = process.communicate(timeout=20)
    return process.returncode, out + error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_rendezvous_that_nobody_joins(number: signal.Signals) -> None:
    code, said = told(STUCK, number)
    assert code == 75
    assert "stopped by a signal while waiting for others" in said


def test_a_process_that_hears_its_signals_is_left_alone() -> None:
    code, said = told(PATIENT, signal.SIGTERM)
    assert (code, said) == (0, "went on\n")


def test_a_rank_dies_with_who_started_it() -> None:
    """Even before it waits for others."""
    child = (
        "import os, sys, time\n"
        "os.environ |= {'LOCAL_RANK': '1', 'IGOS_PL_FIRST_RANK': str(os.getppid())}\n"
        "from igos_pl.run.signals import die_with_parent\n"
        "die_with_parent()\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = (
        f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, env=environment(), text=True
    )
    assert process.stdout is not None
    number = int(process.stdout.readline())
    process.kill()
    process.wait()
    for _ in range(100):
        if not Path(f"/proc/{number}").exists() or "Z (zombie)" in Path(f"/proc/{number}/status").read_text():
            return
        time.sleep(0.05)
    os.kill(number, signal.SIGKILL)
    pytest.fail("the rank outlived its parent")
