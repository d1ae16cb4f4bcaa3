"""The command line from end to end, with a tiny network given by its class path."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import yaml
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning_fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

import igos_pl
from igos_pl.cli.help import PREDICT_HELP
from igos_pl.cli.main import main
from igos_pl.cli.messages import explained, interrupts_explained, quieten_lightning
from igos_pl.cli.messages import refused as refusal
from igos_pl.cli.parser import PredictCLI, parsed
from igos_pl.data.batches import ImageBatch
from igos_pl.data.records import BatchResult
from igos_pl.datamodules.samples import ImageDataset
from igos_pl.demo.run import run_demo
from igos_pl.errors import RunError
from igos_pl.run.coordination import Coordinator
from igos_pl.solver.presets import preset_names
from igos_pl.store import MaskFile, RunFolder
from igos_pl.store.seals import read_head, seal

ROOT = Path(igos_pl.__file__).resolve().parents[1]
NAMES = ["a.png", "b/c.jpg", "d.png", "e.png"]

pytestmark = [pytest.mark.usefixtures("apart"), pytest.mark.filterwarnings("ignore")]


def words(photos: Path, *more: str) -> list[str]:
    settings = {
        "data.root": photos,
        "data.num_workers": 0,
        "data.batch_size": 2,
        "model.network": "Classifier",
        "model.network.module": "tiny.TinyNet",
        "model.network.input_size": tiny.SIZE,
        "model.mask_size": 6,
        "model.iterations": 2,
        "model.path_steps": 1,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "output": "run",
    }
    return ["predict", *(f"--{key}={value}" for key, value in settings.items()), *more]


def masks_by_id(path: Path) -> dict[str, np.ndarray]:
    with MaskFile(path) as masks:
        return dict(zip(masks.column("sample_id").tolist(), masks.column("masks"), strict=True))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str], code: int | None = 2, path: str = "run"
) -> str:
    """The message with which a command ends; nothing may have been written."""
    try:
        found = main(arguments)
    except SystemExit as end:
        found = end.code if isinstance(end.code, int) else 1
    message = capsys.readouterr().err
    assert found == code
    assert "Traceback" not in message
    assert not (Path(path) / "masks.h5").exists()
    return message


def test_predict_from_end_to_end(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    assert main(words(photos, "--overlays.count=3")) == 0
    run = RunFolder("run")
    said = capsys.readouterr()
    assert said.err.startswith("igos-pl 0.1.0 is starting: ")
    assert "loading the network Classifier tiny.TinyNet\nlooking for the images of " in said.err
    assert "5 images to explain\n" in said.err
    lines = said.out.splitlines()
    assert lines[:2] == [
        "5 images are in run/masks.h5: 4 ok, 1 unreadable",
        "4 explanations: preset fast, with iterations=2, path_steps=1 (iGOS+, Adam), masks of 6 x 6",
    ]
    assert lines[2] == "means of 4 explanations"
    for name, line in zip(
        ("score", "deletion", "insertion", "insertion - deletion"), lines[3:7], strict=True
    ):
        assert re.match(rf"  {name} +-?\d\.\d\d\d", line)
    assert lines[7] == "without an explanation"
    assert lines[8].startswith("  broken.png: unreadable: no image")
    assert lines[-4:] == [
        "masks     run/masks.h5",
        "pictures  run/overlays (3)",
        "settings  run/config.yaml",
        "next      igos-pl info run",
    ]
    with MaskFile(run.merged) as masks:
        assert masks.column("sample_id").tolist() == NAMES
        assert masks.images["sample_id"].tolist() == ["a.png", "b/c.jpg", "broken.png", "d.png", "e.png"]
        assert masks.images["status"].tolist() == ["ok", "ok", "unreadable", "ok", "ok"]
        assert masks.column("masks").shape == (4, 6, 6)
        expected = {
            "network": "Classifier", "network.name": "TinyNet", "method": "iGOS+", "optimizer": "Adam",
            "mask_size": 6, "seed": 63,
        }  # fmt: skip
        assert expected.items() <= masks.attributes.items()
        assert masks.attributes["data.root"] == str(photos)
    overlays = sorted(path.name for path in Path("run/overlays").iterdir())
    assert overlays == ["a.png", "b_c.png", "d.png"]
    for name in overlays:
        with Image.open(Path("run/overlays") / name) as picture:
            assert min(picture.size) > 200
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["model"]["mask_size"] == 6
    assert config["model"]["network"]["init_args"]["module"]["class_path"] == "tiny.TinyNet"
    assert config["data"]["init_args"]["root"] == str(photos)
    assert sorted(path.name for path in Path("run").iterdir() if "h5" in path.name) == ["masks.h5"]


def test_saved_configuration_repeats_the_run(photos: Path) -> None:
    assert main(words(photos)) == 0
    assert main(["predict", "-c", "run/config.yaml", "--output", "again"]) == 0
    first, second = masks_by_id(Path("run/masks.h5")), masks_by_id(Path("again/masks.h5"))
    assert list(first) == list(second)
    for name, mask in first.items():
        np.testing.assert_array_equal(mask, second[name])


def test_second_run_does_nothing_new(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(words(photos)) == 0
    before = contents(Path("run"))

    def never(self: tiny.TinyNet, images: Tensor) -> Tensor:
        raise AssertionError("an image was explained again")

    monkeypatch.setattr(tiny.TinyNet, "forward", never)
    assert main(words(photos)) == 0
    assert contents(Path("run")) == before


def test_changed_configuration_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(photos)) == 0
    before = contents(Path("run"))
    capsys.readouterr()
    changed = ["--model.l1=0.5", "--model.method=igos", "--data.resize=crop"]
    assert main(words(photos, *changed)) == 2
    message = capsys.readouterr().err
    for part in (
        "l1: there 10.0, now 0.5",
        "method: there 'iGOS+', now 'I-GOS'",
        "data.resize: there 'network', now 'crop'",
        "To start over, choose another output folder (--output), or delete the old one",
    ):
        assert part in message
    assert "mask_size" not in message
    assert contents(Path("run")) == before
    assert main(words(photos, "--trainer.max_epochs=3", "--data.batch_size=1")) == 0


def test_jobs_of_an_array_save_the_same_configuration(photos: Path) -> None:
    saved = []
    for part in range(2):
        assert main(words(photos, f"--data.shard={part}/2")) == 0
        saved.append(Path("run/config.yaml").read_text())
    assert saved[0] == saved[1]
    assert yaml.safe_load(saved[0])["data"]["init_args"].get("shard") is None
    assert sorted(path.name for path in Path("run").iterdir() if path.is_file()) == [
        "config.yaml", "configuration.json", "masks.h5", "samples.txt",
    ]  # fmt: skip
    before = masks_by_id(Path("run/masks.h5"))
    assert main(["predict", "-c", "run/config.yaml", "--output", "again"]) == 0
    assert list(masks_by_id(Path("again/masks.h5"))) == list(before) == NAMES


def test_targets_by_class_name(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = "--model.network.class_names=[ant,bee,cat,dog,eel]"
    assert "did you mean dog?" in refused(words(photos, named, "--model.network.targets=[dgo]"), capsys)
    bare = refused(words(photos, named, "--model.network.targets=dog"), capsys)
    assert "both or a list in square brackets; did you mean '[dog]'?" in bare
    twice = refused(words(photos, named, "--model.network.targets=[dog, 3]"), capsys)
    assert "targets names the class 3 twice (label 3)" in twice
    assert main(words(photos, named, "--model.network.targets=[dog, 1]")) == 0
    with MaskFile(Path("run/masks.h5")) as masks:
        assert masks.column("label_name").tolist() == ["dog", "bee"] * len(NAMES)
    assert main(words(photos, named, "--model.network.targets=[3, bee]")) == 0, "the same run"


def test_targets_by_class_names_that_are_numbers(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = '--model.network.targets=["2", 0]'
    bare = refused(words(photos, "--model.network.class_names=[4,3,2,1,0]", targets), capsys)
    assert 'class_names has the entry 4, but each must be text: write "4" in quotes\n' in bare
    named = '--model.network.class_names=["4","3","2","1","0"]'
    assert main(words(photos, named, targets)) == 0
    with MaskFile(Path("run/masks.h5")) as masks:
        assert masks.column("label_name").tolist() == ["2", "4"] * len(NAMES)
    assert main(["predict", "-c", "run/config.yaml", "--output", "again"]) == 0
    with MaskFile(Path("again/masks.h5")) as masks:
        assert masks.column("label").tolist() == [2, 0] * len(NAMES)


def test_a_misspelt_preset_is_told_before_torch_is_imported() -> None:
    for command in ("predict", "sanity"):
        code = (
            "import sys; from igos_pl.cli.main import main;"
            f" print(main(['{command}', '--preset', 'fats']), 'torch' in sys.modules)"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout == "2 False\n"
        assert "did you mean fast?" in found.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("predict photos/", "photos/ belongs to no setting: .* If .* the images, write --data.root photos/"),
        ("predict 'my photos' --model.seed 3", "my photos belongs to no setting: .* --data.root 'my photos'"),
        ("predict photos runs", "photos belongs to no setting: .* If .* images, write --data.root photos"),
        ("predict b/c.png b/d.png", r"root to their folder, or to a pattern in quotes: 'b/\*.png'"),
        ("predict --data.root b/c.png b/d.png", r"one value too many .* quotes, .*: --data.root 'b/\*.png'"),
        ("predict --data.root b/c.png b/d.jpg", r"one value too many .* quotes, .*: --data.root 'b/\*'"),
        ("predict --data.root=b c", "c is one value too many for --data.root\n"),
        ("predict --model.seed 3 4 --data.root b", "4 is one value too many for --model.seed\n"),
        ("predict word --data.root=b", "word belongs to no setting: each setting has one value, as in"),
        ("sanity runs/x extra", "runs/x belongs to no setting: each setting has one value, as in .*VALUE\n"),
        ("predict -c a.yaml b.yaml", "b.yaml belongs to no setting: each file of settings needs its own -c"),
        (
            "predict --data.root=b --overwrite",
            "igos-pl predict does not replace results. To start over, choose",
        ),
        (
            "sanity --force",
            "no setting --force: igos-pl sanity does not replace results. To start over, choose",
        ),
        ("sanity --overlays.count 3", r"There is no setting --overlays.count\n  igos-pl sanity --help says"),
        ("predict -c wrong.yaml", r"There is no setting modle: did you mean model\?"),
        ("predict --data.root=a --data.shard=3/3", "0/3 to 2/3, for example"),
        ("predict --model.network.class_names [a]", "has no setting class_names: the class sets it itself"),
        ("predict --model.network=Classifier --model.network.class_names=4", "must be imagenet or a list in"),
        (
            "predict --model.network=Classifier --model.network.mean=2",
            r"must be a list .* did you mean '\[2\]'\?",
        ),
    ],
)
def test_words_at_a_wrong_place(given: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text("data:\n  root: b\n")
    Path("wrong.yaml").write_text("modle:\n  network:\n    class_path: Classifier\n")
    message = refused(shlex.split(given), capsys)
    assert re.search(told, message), message
    assert "in all)" not in message, "a list of all settings"


def test_a_gpu_that_is_not_there() -> None:
    told = str(refusal(MisconfigurationException("No supported gpu backend found!")))
    assert "set --trainer.accelerator to auto or cpu" in told
    assert str(refusal(MisconfigurationException("some words"))) == "some words"


def test_a_detector_that_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_demo(tmp_path / "demo", detector=True, how=["--model.network.score_threshold=1"], pictures=2)
    told = capsys.readouterr().out
    assert "2 no detection" in told
    assert "No detection has a score of 1.0 or more: try a lower --model.network.score_threshold" in told


def test_more_processes_than_cores_are_told(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parsed(words(photos, "--trainer.devices=9999")[1:], PredictCLI)
    assert ", which makes them slower: set --trainer.devices to" in capsys.readouterr().err
    parsed(words(photos)[1:], PredictCLI)
    assert "share" not in capsys.readouterr().err


def test_a_killed_rank_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the words of Lightning's own observer."""
    quieten_lightning()
    child = subprocess.Popen(["sleep", "60"])
    child.kill()
    child.wait()
    observer = _ChildProcessObserver(0, [child])
    monkeypatch.setattr(observer, "_terminate_all", lambda: None)
    assert observer._run()
    assert capsys.readouterr().err == (
        "igos-pl: the process of rank 1 was killed by signal 9 (usually too little memory), so all processes"
        " end now: run the same command again\n"
    )


def test_evaluate_has_no_output_that_could_be_set() -> None:
    told = explained("unrecognized arguments: --force", "evaluate").splitlines()[0]
    assert told == "There is no setting --force: igos-pl evaluate does not replace results"


def test_status_of_a_run_without_images(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run/segments").mkdir(parents=True)
    Path("run/samples.txt").touch()
    assert main(["status", "run"]) == 0
    assert capsys.readouterr().out == "This run has no images\n"


def test_a_misspelt_option_of_the_preset(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean --preset?" in refused(words(photos, "--presett=fast"), capsys)


def test_dry_run_into_results_of_another_configuration(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(photos, "--data.limit=1")) == 0
    before = contents(Path("run"))
    capsys.readouterr()
    assert main(words(photos, "--dry_run=true", "--model.l1=0.5")) == 2
    assert "l1: there 10.0, now 0.5" in capsys.readouterr().err
    assert main(words(photos, "--dry_run")) == 0
    told = capsys.readouterr()
    assert "4 images, 3 not done" in told.out
    assert "3 of 4 images to explain" in told.err, "before the batch is done"
    assert contents(Path("run")) == before


def test_signal_stops_a_dry_run(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coordinator, "stop_requested", lambda self: True)
    assert main(words(photos, "--dry_run=true")) == 75
    assert not Path("run").exists()


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Reading the image with this number is interrupted, as by Ctrl-C."""
    read, handler = ImageDataset.__getitem__, signal.getsignal(signal.SIGINT)

    def interrupt(number: int) -> None:
        def interrupted(self: ImageDataset, numbers: Sequence[int]) -> ImageBatch:
            if number in numbers:
                raise KeyboardInterrupt
            return read(self, numbers)

        monkeypatch.setattr(ImageDataset, "__getitem__", interrupted)

    yield interrupt
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(
    ("number", "more", "told"),
    [
        (0, (), "No image was finished yet, so nothing is kept. Run the same command again"),
        (2, (), "The results of 2 of 4 images are kept in run; .* the same command again .* the other 2$"),
        (0, ("--dry_run",), "This command wrote nothing"),
    ],
)
def test_an_interrupt_says_what_is_kept(
    photos: Path,
    number: int,
    more: Sequence[str],
    told: str,
    interrupt_at: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupt_at(number)
    assert main(words(photos, *more)) == 130
    assert re.search(f"igos-pl: interrupted. {told}", capsys.readouterr().err, re.MULTILINE)
    done = RunFolder("run").done()
    assert len(done) == number
    interrupt_at(-1)
    assert main(words(photos)) == 0
    assert RunFolder("run").done() >= done


def test_only_the_first_rank_looks_at_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, told in ((1, ""), (0, "all")):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        with pytest.raises(KeyboardInterrupt) as caught, interrupts_explained(iter(["all"]).__next__):
            raise KeyboardInterrupt
        assert str(caught.value) == told


def test_failed_write_is_not_tried_again(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []
    publish = RunFolder.publish

    def fail_once(run: RunFolder, results: Sequence[BatchResult], *rest: Any) -> Path:
        names = [record.sample_id for result in results for record in result.images]
        tried.extend(names)
        if NAMES[0] in names:
            raise RunError("Cannot write: no space left")
        return publish(run, results, *rest)

    monkeypatch.setattr(RunFolder, "publish", fail_once)
    one = ["--writer.images_per_segment=1", "--data.batch_size=1"]
    assert main(words(photos, *one)) == 1
    assert "Cannot write: no space left" in capsys.readouterr().err
    assert len(tried) == len(set(tried)), "something was written again"
    assert RunFolder("run").done() == set(tried) - {NAMES[0]}
    monkeypatch.undo()
    monkeypatch.chdir(photos.parent)
    assert main(words(photos, *one)) == 0
    assert list(masks_by_id(Path("run/masks.h5"))) == NAMES


def test_run_that_was_stopped_goes_on(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["--writer.images_per_segment=1", "--data.batch_size=1"]
    assert main(words(photos, *one, "--output=whole")) == 0
    expected = masks_by_id(Path("whole/masks.h5"))

    with tiny.broken_at_the_third_image(monkeypatch), pytest.raises(RuntimeError, match="on fire"):
        main(words(photos, *one))
    run = RunFolder("run")
    published = run.segments()
    assert 0 < len(run.done()) < len(NAMES), "it stopped too early or too late to show anything"
    assert not run.merged.exists()
    for command in ("status", "info"):
        capsys.readouterr()
        assert main([command, "run"]) == 0
        told = capsys.readouterr().out
        assert re.search(r"last results \d+ seconds? ago", told), "whether it goes on"
        assert "a run that is going on writes results about once a minute" in told
    assert main(words(photos, *one)) == 0
    assert main(["status", "run"]) == 0
    assert "going on" not in capsys.readouterr().out
    assert set(published) < set(run.segments())
    found = masks_by_id(run.merged)
    assert list(found) == list(expected)
    for name, mask in expected.items():
        np.testing.assert_allclose(found[name], mask, atol=1e-4)


def test_lost_segment_is_made_again(photos: Path) -> None:
    assert main(words(photos, "--writer.images_per_segment=1")) == 0
    run = RunFolder("run")
    expected = masks_by_id(run.merged)
    run.segments()[0].unlink()
    assert len(run.done()) < len(NAMES)
    assert main(words(photos, "--writer.images_per_segment=1")) == 0
    assert len(run.done()) == len(NAMES)
    assert list(masks_by_id(run.merged)) == list(expected)


def test_limit_can_be_raised_later(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(photos, "--data.limit=1")) == 0
    assert list(masks_by_id(Path("run/masks.h5"))) == NAMES[:1]
    assert main(words(photos)) == 0
    assert list(masks_by_id(Path("run/masks.h5"))) == NAMES
    assert "4 images are in run/masks.h5" in capsys.readouterr().out


def test_settings_from_files_and_words(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("model:\n  method: igos\n  l1: 3.0\n  iterations: 1\n")
    (tmp_path / "two.yaml").write_text("model:\n  l1: 4.0\n  optimizer:\n    class_path: LineSearch\n")
    files = ["-c", "one.yaml", "-c", "two.yaml"]
    arguments = [word for word in words(photos) if not word.startswith("--model.iterations")]
    assert main(["predict", *files, *arguments[1:], "--model.l2=7"]) == 0
    with MaskFile("run/masks.h5") as masks:
        found = {key: masks.attributes[key] for key in ("method", "l1", "l2", "optimizer", "iterations")}
    assert found == {"method": "I-GOS", "l1": 4.0, "l2": 7.0, "optimizer": "LineSearch", "iterations": 1}


def test_info(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    assert main(words(photos)) == 0
    for path in ("run", "run/masks.h5", str(RunFolder("run").segments()[0])):
        capsys.readouterr()
        assert main(["info", path, "--rows", "2"]) == 0
        output = capsys.readouterr().out
        assert output.startswith("5 images: 4 ok, 1 unreadable\n4 explanations: preset fast, with ")
        assert "network Classifier (TinyNet), data " in output
        assert "2 of 4 explanations\n" in output
        assert "a.png" in output
        assert "d.png" not in output
        assert re.search(r"insertion - deletion +-?0\.\d\d\d", output)
        assert "  broken.png: unreadable: no image" in output
        assert "optimizer.betas" not in output
    assert main(["info", "run", "--settings"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^  network.name +TinyNet$", output, re.MULTILINE)
    assert re.search(r"^  optimizer.betas +\[0.9, 0.999\]$", output, re.MULTILINE)


def test_info_as_csv(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(photos, "--model.metrics=false")) == 0
    capsys.readouterr()
    assert main(["info", "run", "--csv", "-"]) == 0
    output = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [row["sample_id"] for row in rows] == NAMES
    with MaskFile("run") as masks:
        assert [np.float32(row["score"]) for row in rows] == masks.column("score").tolist()
        assert not {"masks", "deletion_curve", "box"} & rows[0].keys()
    assert {(row["deletion"], row["box_x1"], row["status"]) for row in rows} == {("", "", "ok")}
    assert rows[1]["path"] == str(photos / "b/c.jpg")
    assert main(["info", "run", "--csv", "table.csv"]) == 0
    assert capsys.readouterr().out == "4 explanations are in table.csv\n"
    assert Path("table.csv").read_text() == output
    again = ["info", "run", "--csv", "table.csv"]
    Path("table.csv").write_text("of the user")
    assert "table.csv exists already" in refused(again, capsys, 2, path="table.csv")
    assert Path("table.csv").read_text() == "of the user"
    assert main([*again, "--overwrite"]) == 0
    assert Path("table.csv").read_text() == output
    os.mkfifo("pipe")
    words_of = ["info", "run", "--csv", "pipe", "--overwrite"]
    assert "pipe is a device or a pipe" in refused(words_of, capsys, 2, path="pipe")
    assert Path("pipe").is_fifo()
    assert "Cannot write nowhere/table.csv" in refused(
        ["info", "run", "--csv", "nowhere/table.csv"], capsys, 2, path="nowhere"
    )


def test_info_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.h5").write_text("?")
    assert "There is no nowhere.h5: give a run's output folder" in refused(["info", "nowhere.h5"], capsys)
    assert "text.h5: it is damaged, or was not written by igos-pl" in refused(["info", "text.h5"], capsys)
    (tmp_path / "empty").mkdir()
    assert ". Give the output folder of a run" in refused(["info", str(tmp_path / "empty")], capsys)
    (tmp_path / "empty" / "samples.txt").write_text("a.png\n")
    said = refused(["info", str(tmp_path / "empty")], capsys)
    assert ". A run writes its first results after" in said
    assert "if it has stopped, repeat its command" in said


def test_merge(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(photos)) == 0
    expected = masks_by_id(Path("run/masks.h5"))
    Path("run/masks.h5").unlink()
    capsys.readouterr()
    assert main(["merge", "run"]) == 0
    assert "Merged into run/masks.h5" in capsys.readouterr().out
    found = masks_by_id(Path("run/masks.h5"))
    assert list(found) == list(expected)
    assert "not the output folder of a run" in refused(["merge", "photos"], capsys, path="photos")
    assert "not the output folder of a run" in refused(["merge", "nowhere"], capsys, path="nowhere")


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--model.method=gradcam"], ["method is 'gradcam'", "igos++"]),
        (["--model.optimizer=Sgdd"], ["there is no class Sgdd", "torch.optim.SGD"]),
        (["--model.optimizer=Nothing"], ["Nothing", "LineSearch"]),
        (["--model.network=no.such.Network"], ["no.such.Network", "TorchvisionClassifier"]),
        (["--model.network.module=tiny.NoNet"], ["tiny.NoNet"]),
        (
            ["--model.network=TorchvisionClassifier", "--model.network.name=resnet51"],
            ["resnet51", "resnet50"],
        ),
        (["--data=Photos"], ["Photos", "ImageFolderDataModule"]),
        (["--model.iterations=0"], ["iterations is 0", "at least 1"]),
        (["--model.iterations=-1"], ["iterations is -1", "at least 1"]),
        (["--model.iterations=many"], ["iterations", "many"]),
        (["--model.mask_size=25"], ["mask_size is 25", "24 pixels"]),
        (["--model.network.weights=nowhere.pth"], ["nowhere.pth", "--model.network.weights"]),
        (["--model.network.targets=ground_truth"], ["ground_truth", "--data.labels"]),
        (["--model.network.targets=[7]"], ["Label 7", "5 classes"]),
        (["--model.baseline=pink"], ["pink", "blur"]),
        (["--model.colour=red"], ["colour"]),
        (["--model.iteration=3"], ["iteration"]),
        (["--outpu=there"], ["outpu"]),
        (["--data.root=nowhere"], ["nowhere", "--data.root"]),
        (["--data.labels=nowhere.txt"], ["nowhere.txt"]),
        (["--data.resize=pad"], ["pad", "crop"]),
        (["--output=photos/a.png"], ["photos/a.png", "--output"]),
        (["--overlays.count=-1"], ["count is -1"]),
        (["-c", "nowhere.yaml"], ["nowhere.yaml"]),
    ],
    ids=lambda value: value[-1] if isinstance(value[0], str) and value[0].startswith("-") else "",
)
def test_bad_settings_are_named(
    photos: Path, capsys: pytest.CaptureFixture[str], more: list[str], parts: list[str]
) -> None:
    message = refused(words(photos, *more), capsys)
    for part in parts:
        assert part in message
    assert len(message.splitlines()) < 20


def test_base_classes_of_data_modules_are_not_offered(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(words(photos, "--data=Photos"), capsys)
    offered = re.findall(r"\w+DataModule", message)
    assert len(offered) == len(set(offered)) == 6
    assert not {"ImageDataModule", "SampleDataModule"} & set(offered)
    message = refused(words(photos, "--data=ImageDataModule"), capsys)
    assert "--data names ImageDataModule, which is the base of other classes. Available: COCO" in message


def test_folders_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "No image in" in refused(words(tmp_path / "empty"), capsys)
    (tmp_path / "empty" / "notes.txt").write_text("?")
    assert ": there is 1 other file (" in refused(words(tmp_path / "empty"), capsys)


def test_weights_that_are_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(tiny.TinyNet(classes=9).state_dict(), tmp_path / "other.pth")
    torch.save(tiny.TinyNet(), tmp_path / "module.pth")
    message = refused(words(photos, "--model.network.weights=other.pth"), capsys)
    assert "other.pth does not fit TinyNet" in message
    assert "last.weight" in message
    message = refused(words(photos, "--model.network.weights=module.pth"), capsys)
    assert "module.pth holds more than tensors and was refused" in message


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["merge", "run", "--part"], "--part"),
        (["info", "run", "--row", "3"], "--row"),
        (["demo", "--detect"], "--detect"),
        (["--vers"], "--vers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_abbreviations_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    message = refused(arguments, capsys)
    assert named in message or "required: COMMAND" in message


def test_no_command_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in refused([], capsys)
    assert "explode" in refused(["explode"], capsys)


def test_output_of_another_schema_version(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(photos)) == 0
    Path("run/masks.h5").unlink()
    (segment,) = RunFolder("run").segments()
    seal(segment, {**read_head(segment), "schema_version": 99})
    capsys.readouterr()
    assert "schema version 99" in refused(words(photos), capsys)


# What each option of the help is given here, with the class that has it.
_ANY = {
    "data.root": "photos", "data.resize": "crop", "data.batch_size": "3", "data.num_workers": "1",
    "data.limit": "5", "data.shard": "1/4",
    "data.retry_unreadable": "true", "model.network.targets": "[1,2]", "model.network.top_k": "2",
    "model.method": "igos", "model.optimizer": "LineSearch", "model.optimizer.step_size": "0.5",
    "model.optimizer.alpha": "2.5", "model.mask_size": "7", "model.iterations": "3",
    "model.path_steps": "4", "model.path": "scaled", "model.average": "false", "model.levels": "16",
    "model.l1": "0.3", "model.l2": "0.4", "model.noise": "0.1",
    "model.baseline": "mean", "model.start.k": "2", "model.start.init_val": "0.2",
    "model.start.cells": "[0,3]", "model.metrics": "false", "model.curves": "full", "model.seed": "9",
    "model.micro_batch_size": "6", "output": "there", "overlays.count": "1",
    "overlays.seed": "2", "overlays.label_names": "[a, b]",
    "writer.images_per_segment": "2", "trainer.devices": "1",
    "dry_run": "true",
}  # fmt: skip
_CLASSIFIER = {
    "data": "ImageFolderDataModule", "data.labels": "labels.txt", "model.network": "TorchvisionClassifier",
    "model.network.name": "resnet50", "model.network.weights": "a.pth",
    "model.regions": "Slic", "model.regions.count": "9",
}  # fmt: skip
_IMAGENET = {
    "data": "ImageNetDataModule", "data.ground_truth": "truth.txt",
    "model.regions": "LabelMaps", "model.regions.root": "labels",
}  # fmt: skip
_DETECTOR = {
    "data": "COCODataModule", "data.annotations": "instances.json",
    "model.network": "TorchvisionRCNNDetector", "model.network.score_threshold": "0.4",
    "model.network.categories": "[dog]", "model.network.max_per_image": "3",
}  # fmt: skip
_OWN = {
    "data": "ImageFolderDataModule", "model.network": "Classifier", "model.network.module": "tiny.TinyNet",
    "model.network.input_size": "64", "model.network.mean": "[0.1,0.2,0.3]",
    "model.network.std": "[0.3,0.2,0.1]",
    "model.network.class_names": "imagenet", "model.network.output": "sigmoid",
}  # fmt: skip
_DATASET = {"data": "DatasetDataModule", "data.dataset": "tiny.Items"}
_SHARDS = {"data": "WebDatasetDataModule", "data.urls": "shards/{000..099}.tar"}
_NOT_OF_DETECTORS = {"model.network.targets", "model.network.top_k"}


def printed(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The configuration that the real parser makes of some settings, flat."""
    classes = ("data", "model.network", "model.optimizer", "model.regions")
    first = sorted(settings, key=lambda key: key not in classes)
    with pytest.raises(SystemExit) as end:
        main(["predict", *(f"--{key}={settings[key]}" for key in first), "--print_config"])
    output = capsys.readouterr()
    assert end.value.code in (0, None), output.err
    flat: dict[str, object] = {}

    def flatten(value: object, key: str) -> None:
        if isinstance(value, dict) and "class_path" in value:
            flat[key] = value["class_path"].rsplit(".", 1)[1] if key in classes else value["class_path"]
            flatten(value.get("init_args", {}), key)
        elif isinstance(value, dict):
            for name, below in value.items():
                flatten(below, f"{key}.{name}" if key else name)
        else:
            flat[key] = value

    flatten(yaml.safe_load(output.out), "")
    return flat


@pytest.mark.parametrize(
    "special",
    [_CLASSIFIER, _IMAGENET, _DETECTOR, _OWN, _SHARDS],
    ids=["folder", "imagenet", "coco", "own", "shards"],
)
def test_options_of_the_help_are_real(special: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    without = _NOT_OF_DETECTORS if special is _DETECTOR else {"data.root"} if special is _SHARDS else set()
    settings = {key: value for key, value in {**_ANY, **special}.items() if key not in without}
    found = printed(settings, capsys)
    for key, value in settings.items():
        texts = ("data.shard", "trainer.devices")
        assert found[key] == (value if key in texts else yaml.safe_load(value)), key


def test_help_names_the_options_that_are_tried_here() -> None:
    named = set(re.findall(r"--([a-z]\w*(?:\.\w+)*)", PREDICT_HELP)) - {
        "preset",
        "print_config",
        "help_all",
        "help",
    }
    named = {"trainer.devices" if key == "trainer.KEY" else key for key in named if key != "KEY"}
    tried = {**_ANY, **_CLASSIFIER, **_IMAGENET, **_DETECTOR, **_OWN, **_DATASET, **_SHARDS}
    assert named <= set(tried)
    assert set(tried) <= named
    (named_presets,) = re.findall(r"--preset NAME  +(.*?);", PREDICT_HELP, re.DOTALL)
    assert re.split(r",\s+", named_presets) == preset_names()
    assert max(map(len, PREDICT_HELP.splitlines())) <= 80


def test_defaults_of_the_help_are_the_parsers(capsys: pytest.CaptureFixture[str]) -> None:
    told = {}
    for entry in re.split(r"^  --", PREDICT_HELP.partition("\n\n")[2], flags=re.MULTILINE)[1:]:
        if default := re.search(r"\[([^\]]+)\]", entry):
            told[re.match(r"[\w.]+", entry)[0]] = default[1]  # type: ignore[index]
    assert len(told) > 20
    found = printed({"data.root": "photos"}, capsys)
    for key, value in told.items():
        expected = value.rpartition(".")[2] if key == "model.optimizer" else yaml.safe_load(value)
        assert found[key] == expected, key
    silent = {key for key, value in found.items() if value is not None} - set(told)
    assert {key for key in silent if not key.startswith(("trainer.", "model.optimizer."))} == {
        "data.root", "dry_run", "seed_everything", "writer.seconds_per_segment",
    }  # fmt: skip


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_understood(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["predict", "-c", str(config), "--data.root=photos", "--print_config"])
    output = capsys.readouterr()
    assert end.value.code in (0, None), output.err
    assert "class_path" in output.out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory.\nMuch more"),
            "Out of memory outside of the network (CUDA out",
        ),
        (MemoryError(), "Out of memory outside of the network (MemoryError)"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "reads images died"),
    ],
)
def test_shortages_are_told_and_what_is_finished_stays(
    photos: Path,
    error: Exception,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = ImageDataset.__getitem__

    def short(self: ImageDataset, numbers: Sequence[int]) -> ImageBatch:
        if 2 in numbers and not mended:
            raise error
        return read(self, numbers)

    mended: list[bool] = []
    monkeypatch.setattr(ImageDataset, "__getitem__", short)
    assert main(words(photos)) == 1
    message = capsys.readouterr().err
    assert told in message
    assert "run the same command again to go on" in message
    assert len(RunFolder("run").done()) == 2
    mended.append(True)
    assert main(words(photos)) == 0
    assert len(RunFolder("run").done()) == len(NAMES)


def test_long_help_comes_from_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["predict", "--help_all"])
    assert end.value.code in (0, None)
    assert "--model.path_steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([name, "--help"] for name in ("predict", "sanity", "status", "verify", "merge", "info", "demo")),
    ],
)
def test_help_imports_little(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"  # those of the interpreter, its editable installs among them
        "from igos_pl.cli.main import main\n"
        "try:\n"
        f"    code = main({arguments})\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "packages = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "others = packages - set(sys.stdlib_module_names) - {'igos_pl'}\n"
        "sys.exit(code or (f'{others} imported' if others else 0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: igos-pl" in done.stdout


def test_a_shard_without_images_ends_well(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = len(NAMES)
    assert main(words(photos, f"--data.shard={count}/{count + 1}")) == 0
    assert f"0 images are in run/segments; {count} still missing" in capsys.readouterr().out


def test_info_shows_the_results_so_far(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(photos, "--data.limit=1")) == 0
    assert main(words(photos, "--data.shard=1/2")) == 0  # not merged again: images are missing
    assert main(["info", "run"]) == 0
    assert capsys.readouterr().out.count(" ok\n") >= 1
    with MaskFile("run") as masks:
        number = len(masks)
    capsys.readouterr()
    assert main(["info", "run"]) == 0
    assert f"{number} explanations: " in capsys.readouterr().out


def test_a_run_counts_what_the_folder_holds(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def counted(*more: str) -> str:
        assert main(words(photos, *more)) == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if " images are in run/" in line)
        return line

    count, half = len(NAMES), len(NAMES[::2])
    left = f"{half} images are in run/segments: {half} ok; {count - half} still missing"
    assert counted("--data.shard=0/2") == left
    whole = f"{count} images are in run/masks.h5: {count} ok"
    assert counted() == whole
    assert counted("--data.limit=2") == f"{whole}; this run was to explain 2 of them"
    assert counted("--data.shard=0/2") == f"{whole}; this run was to explain {half} of them"
    (photos / sorted(NAMES)[0]).unlink()
    told = f"{whole}; this run was to explain {count - 1} of them; 1 no longer in the data set"
    assert counted() == told
    assert main(["status", "run"]) == 0
    assert capsys.readouterr().out.startswith(f"{count} of {count} images are written ({count} ok)")
    assert Path("run/samples.txt").read_text().splitlines() == sorted(NAMES)[1:]


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (
            ["--data=DatasetDataModule"],
            "--data.dataset is missing: set it to the import path of a map-style data",
        ),
        (["--data=WebDatasetDataModule"], "--data.urls is missing: set it to the tar files"),
        (["--data=LitDataDataModule"], "--data.root is missing: set it to the folder with the images"),
    ],
)
def test_what_a_data_module_needs(
    options: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *options]) == 2
    assert advice in capsys.readouterr().err
