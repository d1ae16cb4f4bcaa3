"""What goes wrong from outside: nothing may be lost, and nothing may be silent."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import tiny
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from igos_pl.cli.main import main
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.images import file_content, find_images, read_image
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.datamodules import COCODataModule
from igos_pl.datamodules.readers import FatalImages, Readers
from igos_pl.errors import IgosError, NetworkError, RunError, UnreadError
from igos_pl.explainer import Explainer
from igos_pl.models import Classifier, Detector
from igos_pl.store import MaskFile, RunFolder, merge
from igos_pl.store.seals import read_head, seal

NAMES = ["a.png", "b.png", "c.png", "d.png", "e.png"]

pytestmark = [pytest.mark.usefixtures("apart"), pytest.mark.filterwarnings("ignore")]


def predict(*more: str, module: str = "tiny.TinyNet") -> int:
    settings = {
        "data.root": "photos", "data.num_workers": 0, "data.batch_size": 2, "model.network": "Classifier",
        "model.network.module": module, "model.network.input_size": tiny.SIZE, "model.mask_size": 6,
        "model.iterations": 1, "model.path_steps": 1, "trainer.accelerator": "cpu", "trainer.devices": 1,
        "output": "run", "overlays.count": 0,
    }  # fmt: skip
    return main(["predict", *(f"--{key}={value}" for key, value in settings.items()), *more])


def statuses(run: str = "run") -> dict[str, str]:
    with MaskFile(run) as masks:
        return dict(zip(masks.images["sample_id"].tolist(), masks.images["status"].tolist(), strict=True))


# Files that cannot be read now


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOMEM])
def test_a_read_error_of_the_moment_is_not_final(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    (photos / "e.png").write_bytes(b"")
    real = Path.read_bytes

    def fails(path: Path) -> bytes:
        if path.name in ("b.png", "c.png"):
            raise OSError(number, "some words")
        return real(path)

    with monkeypatch.context() as lost:
        lost.setattr(Path, "read_bytes", fails)
        assert predict() == 1
    output = capsys.readouterr()
    for told in (
        "means of 2 explanations",
        "e.png: unreadable: the file is empty",
        "settings  run/config.yaml",
        "2 of 5 images are missing from run:\n  b.png: cannot be read: some words\n  c.png: cannot be",
    ):
        assert told in output.out
    assert "c.png cannot be read: some words: it is tried again by the next run" in output.err
    assert statuses() == {"a.png": "ok", "d.png": "ok", "e.png": "unreadable"}
    assert not Path("run/masks.h5").exists()
    tiny.write_pictures(photos, NAMES)
    assert predict("--data.retry_unreadable=true") == 0
    assert statuses() == dict.fromkeys(NAMES, "ok")


@pytest.mark.parametrize("batch_size", [4, 16])
def test_the_first_images_that_cannot_be_read_are_named(
    capsys: pytest.CaptureFixture[str], batch_size: int
) -> None:
    Path("photos").mkdir()
    for number in range(12):
        Path("photos", f"{number:02}.png").symlink_to("/nowhere/x.png")
    assert predict(f"--data.batch_size={batch_size}") == 1
    named = re.findall(r"(\d\d)\.png cannot be read: it is a broken link", capsys.readouterr().err)
    assert named == [f"{number:02}" for number in range(10)]


def test_what_the_content_says_is_final(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:60])
    (photos / "c.png").write_bytes(b"")
    assert predict() == 0
    assert [statuses()[name] for name in NAMES] == ["ok", "unreadable", "unreadable", "ok", "ok"]
    assert " ok, 2 unreadable\n" in capsys.readouterr().out
    Image.new("RGB", (40, 30)).save(photos / "b.png")
    assert predict() == 0
    assert statuses()["b.png"] == "unreadable", "it is done"
    assert predict("--data.retry_unreadable=true") == 0
    assert [statuses()[name] for name in NAMES] == ["ok", "ok", "unreadable", "ok", "ok"]
    with MaskFile("run/masks.h5") as masks:
        assert masks.column("sample_id").tolist() == ["a.png", "b.png", "d.png", "e.png"]


@pytest.mark.parametrize("root", ["photos", "photos/*"])
def test_a_broken_link_is_tried_again(
    photos: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, root: str
) -> None:
    (photos / "c.png").rename("away.png")
    (photos / "c.png").symlink_to(Path("away.png").absolute())
    Path("away.png").rename("mount")
    os.symlink(b"/nowhere/\xff", photos / "f.png")
    (photos / "g.png").symlink_to("a" * 300)  # too long for a name: Path.exists() raises
    (photos / "h").symlink_to("/nowhere/h")
    assert predict(f"--data.root={root}") == 1
    output = capsys.readouterr().out
    assert "3 of 7 images are missing from run" in output
    assert f"c.png: cannot be read: it is a broken link to {Path('away.png').absolute()}\n" in output
    told = [f"Left out broken links: {photos / 'h'}"] if root == "photos" else []
    assert caplog.messages == told
    Path("mount").rename("away.png")
    (photos / "f.png").unlink()
    (photos / "g.png").unlink()
    assert predict(f"--data.root={root}") == 0
    assert statuses() == dict.fromkeys(NAMES, "ok")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
@pytest.mark.parametrize(
    ("root", "code", "told"),
    [
        ("photos", 2, r"Cannot list the folder \S+/photos/closed: Permission denied"),
        ("photos/*/*.png", 1, r"f\.png cannot be read: Permission denied: it is tried again"),
    ],
)
def test_a_folder_that_may_only_be_listed(
    photos: Path, capsys: pytest.CaptureFixture[str], root: str, code: int, told: str
) -> None:
    tiny.write_pictures(photos / "closed", ["f.png"])
    (photos / "closed").chmod(0o444)
    found = predict(f"--data.root={root}")
    (photos / "closed").chmod(0o755)  # pytest removes it
    assert found == code
    assert re.search(told, capsys.readouterr().err)


@pytest.mark.parametrize(
    "words",
    [
        ["--data.root=shut/in/photos"],
        ["--data.root=shut/in/a.png"],
        ["--data.root=shut/in/*.png"],
        ["--data.root=photos", "--data.labels=shut/labels.csv"],
        ["--data=COCODataModule", "--data.root=photos", "--data.annotations=shut/x.json"],
        ["--data=COCODataModule", "--data.root=shut/photos", "--data.annotations=x.json"],
        ["--data=ImageNetDataModule", "--data.root=photos", "--data.ground_truth=shut/x.txt"],
    ],
)
def test_a_folder_that_may_not_be_entered(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    (photos.parent / "shut").mkdir()  # to root, nothing is closed
    look, may = os.stat, os.access

    def closed(path: Any, **options: Any) -> os.stat_result:
        if "/shut/" in str(path) or str(path).startswith("shut/"):
            raise PermissionError(errno.EACCES, "some words", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", closed)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("shut") and may(path, mode))
    assert predict(*words) == 2
    told = capsys.readouterr().err
    assert re.search(r"shut\S+ cannot be looked for, because the folder \S*shut may not be entered", told)


def test_an_error_at_each_look_is_of_the_moment(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Any, **options: Any) -> os.stat_result:
        raise PermissionError(errno.EACCES, "some words", path)

    monkeypatch.setattr(os, "stat", closed)
    monkeypatch.setattr(os, "lstat", closed)
    with pytest.raises(UnreadError, match="cannot be read: some words"):
        file_content(photos / "a.png")


def test_shards_without_an_explanation(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code of a shard does not depend on what the others have done, unless all is done in vain."""
    for name in NAMES[::2]:
        (photos / name).write_bytes(b"")
    assert predict("--data.shard=0/2") == 0
    assert predict("--data.shard=1/2") == 0
    assert predict("--data.shard=0/2") == 0
    for name in NAMES:
        (photos / name).write_bytes(b"")
    capsys.readouterr()
    for shard, code in (("0/2", 0), ("1/2", 1), ("0/2", 1)):
        assert predict(f"--data.shard={shard}", "--output=none") == code
        told = "No image could be explained: igos-pl info none lists the reasons" in capsys.readouterr().out
        assert told == bool(code)
    assert set(statuses("none").values()) == {"unreadable"}, "what was written stays"
    assert not Path("none/overlays").exists()
    tiny.write_pictures(photos, NAMES)
    assert predict("--data.retry_unreadable=true", "--output=none") == 0


def test_a_dry_run_without_an_estimate(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "a.png").write_bytes(b"")
    (photos / "b.png").unlink()
    (photos / "b.png").symlink_to("/nowhere")
    assert predict("--dry_run") == 1
    told = capsys.readouterr().err
    assert "b.png cannot be read: it is a broken link to /nowhere: it is tried again" in told
    assert "so there is no estimate\n  a.png: unreadable: the file is empty (0 bytes)\n" in told
    assert not Path("run").exists()


def test_memory_that_runs_out_while_decoding_is_of_the_moment(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageOps, "exif_transpose", full)
    with pytest.raises(UnreadError, match="cannot be decoded: too little memory"):
        read_image(photos / "a.png")


# Images that kill the process that reads them


def kills_its_reader(path: Path) -> Image.Image:
    if path.name == "c.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return read_image(path)


def test_an_image_that_kills_its_reader_is_named_and_then_left_out(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As the kernel does when memory runs out: the third start gets past the image."""
    one_by_one = ["--data.num_workers=2", "--data.batch_size=1"]
    with monkeypatch.context() as deadly:
        deadly.setattr("igos_pl.datamodules.samples.read_image", kills_its_reader)
        for _ in range(2):
            caplog.clear()
            assert predict(*one_by_one) == 1
            assert "A process that reads images died (DataLoader worker" in capsys.readouterr().err
            assert caplog.messages == [
                f"{Path('photos/c.png').absolute()}: the process that was reading it died. If that happens"
                " again, the next run records the image as unreadable and goes on without it"
            ]
        assert predict(*one_by_one) == 0
    assert " ok, 1 unreadable\n" in capsys.readouterr().out
    assert statuses() == {name: "unreadable" if name == "c.png" else "ok" for name in NAMES}
    with MaskFile("run") as masks:
        assert "the process that read it died 2 times" in masks.images["message"][2]
    assert predict(*one_by_one, "--data.retry_unreadable=true") == 0
    assert statuses() == dict.fromkeys(NAMES, "ok")


def test_every_process_that_died_is_asked(tmp_path: Path) -> None:
    readers = Readers(3)
    with readers.reading(5):  # not in a data-loading process
        assert readers.read_by_dead(RuntimeError("DataLoader worker (pid 1) is killed")) == []
    readers._rows[:] = torch.tensor([[11, 7], [12, -1], [13, 9]])
    for words, numbers in {
        "DataLoader worker (pid 11) is killed by signal: Killed. ": [7],
        "DataLoader worker (pid(s) 11, 12, 13) exited unexpectedly": [7, 9],
        "DataLoader worker (pid 12) is killed by signal: Killed. ": [],
        "something else": [],
    }.items():
        assert readers.read_by_dead(RuntimeError(words)) == numbers
    assert FatalImages(tmp_path / "none").names() == set()
    FatalImages(tmp_path / "none").note("a")
    assert not (tmp_path / "none").exists()


# One folder, one configuration


def test_two_configurations_cannot_share_a_folder(tmp_path: Path) -> None:
    """However close together they start: one of them claims the folder, the others are told."""
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    gate, won, lost = threading.Barrier(8), [], []

    def claim(seed: int) -> None:
        gate.wait()
        try:
            RunFolder(folder.path).claim({"seed": seed})
            won.append(seed)
        except IgosError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=claim, args=(number // 2,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 2
    assert len(set(won)) == 1
    assert len(lost) == 6
    assert all("another configuration (seed: there" in message for message in lost)
    assert json.loads(folder.claim_path.read_text()) == {"seed": won[0]}
    assert not list(folder.path.glob(".*.tmp"))


def test_a_folder_is_claimed_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*paths: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    folder = RunFolder(tmp_path)
    folder.claim({"seed": 1})
    folder.claim({"seed": 1})
    with pytest.raises(IgosError, match="seed: there 1, now 2"):
        folder.claim({"seed": 2})


def test_an_empty_claim_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no hard links, another run may have created the file, but not yet written it."""
    folder = RunFolder(tmp_path)
    folder.claim_path.touch()
    writer = threading.Timer(0.3, folder.claim_path.write_text, ['{"seed": 1}'])
    writer.start()
    with pytest.raises(IgosError, match="seed: there 1, now 2"):
        folder.claim({"seed": 2})
    folder.claim({"seed": 1})
    writer.join()
    folder.claim_path.write_text("")
    with pytest.raises(IgosError, match=r"Cannot read .*configuration.json"):
        folder.claim({"seed": 1})


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_refused_and_dry_runs_do_not_change_the_folder(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even if some of its files are damaged."""
    assert predict("--writer.images_per_segment=2") == 0
    bad = RunFolder("run").segments()[0]
    with MaskFile(bad) as segment:
        lost = len(segment)
    bad.write_bytes(bad.read_bytes()[:1000])
    before = snapshot(Path("run"))
    assert predict("--model.seed=2") == 2
    assert "seed: there 63, now 2" in capsys.readouterr().err
    assert predict("--preset=draft") == 2
    differing = "(preset: there fast, with iterations=1, path_steps=1, now draft, with iterations=1)"
    assert f"another configuration {differing}. To start over" in capsys.readouterr().err
    Path("run/configuration.json").rename("claim")
    assert predict("--model.seed=2") == 2, "the undamaged files say so"
    Path("claim").rename("run/configuration.json")
    assert predict("--dry_run=true") == 0
    output = capsys.readouterr().out
    assert f"{bad} is damaged: the run sets it aside" in output
    assert f"5 images, {lost} not done" in output
    assert snapshot(Path("run")) == before
    assert predict() == 0
    assert (Path("run/damaged") / bad.name).exists()
    assert statuses() == dict.fromkeys(NAMES, "ok")


def result_of(name: str, **columns: Any) -> BatchResult:
    explainer = Explainer(tiny.tiny_classifier(), mask_size=4, iterations=1, path_steps=1)
    result = explainer.predict_step(tiny.batch_of(tiny.pictures(1), [name]))
    return BatchResult(result.images, {**result.explanations, **columns})


def test_a_folder_that_was_claimed_meanwhile_takes_no_segment(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.prepare()
    folder.claim({"seed": 1})
    folder.publish([result_of("a")], {"seed": 1})
    folder.claim_path.write_text('{"seed": 2}')
    with pytest.raises(IgosError, match="seed: there 2, now 1"):
        folder.publish([result_of("b")], {"seed": 1})
    assert folder.done() == {"a"}


def test_a_run_that_published_nothing_gives_its_claim_back(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("--model.network.targets=[7]") == 2
    assert not Path("run/configuration.json").exists()
    assert predict() == 0
    assert json.loads(Path("run/configuration.json").read_text())["network.name"] == "TinyNet"
    assert predict("--model.seed=2") == 2
    assert "seed: there 63, now 2" in capsys.readouterr().err


def test_a_sibling_that_ends_with_nothing_leaves_the_claim(tmp_path: Path) -> None:
    one, two, other = (RunFolder(tmp_path) for _ in range(3))
    one.prepare()
    one.claim({"seed": 1})
    two.claim({"seed": 1})
    two.release()
    with pytest.raises(IgosError, match="seed: there 1, now 2"):
        other.claim({"seed": 2})
    one.release()
    two.publish([result_of("a")], {"seed": 1})
    with pytest.raises(IgosError, match="seed: there 1, now 2"):
        other.claim({"seed": 2})


def test_a_refused_claim_leaves_nothing_behind(tmp_path: Path) -> None:
    """As in a folder whose claim was deleted."""
    folder = RunFolder(tmp_path)
    folder.prepare()
    folder.publish([result_of("a")], {"seed": 1})
    folder.claim_path.unlink()
    with pytest.raises(IgosError, match="seed: there 1, now 2"):
        RunFolder(tmp_path).claim({"seed": 2})
    assert not folder.claim_path.exists()
    folder.publish([result_of("b")], {"seed": 1})
    assert folder.done() == {"a", "b"}


def test_a_failed_start_does_not_reserve_the_folder(photos: Path) -> None:
    assert predict("--trainer.precision=bf16-true") == 2
    assert predict() == 0


def test_a_claim_of_a_dead_run_is_told(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run/segments").mkdir(parents=True)
    Path("run/configuration.json").write_text('{"seed": 5}')
    assert predict() == 2
    assert "If that run has died, delete run/configuration.json" in capsys.readouterr().err
    Path("run/configuration.json").write_text("{")
    assert predict() == 2
    assert "Cannot read run/configuration.json" in capsys.readouterr().err


# Values that no file can hold


@pytest.mark.parametrize(
    "columns",
    [
        {"label_name": np.array(["zero\0byte"], object)},
        {"label_name": np.array(["\ud800"], object)},
        {"object": np.array([2**70], object)},
        {"masks": np.zeros((1, 4, 5, 6), np.float32)},
    ],
    ids=["zero byte", "surrogate", "large", "shape"],
)
def test_a_value_that_cannot_be_written_costs_its_image_alone(
    tmp_path: Path, columns: dict[str, Any]
) -> None:
    folder = RunFolder(tmp_path)
    folder.prepare()
    folder.expect(["a", "b", "c"])
    folder.publish([result_of("a"), result_of("b", **columns), result_of("c")], {"seed": 1})
    with MaskFile(merge(folder)) as masks:
        assert masks.column("sample_id").tolist() == ["a", "c"]
        assert masks.images["status"].tolist() == ["ok", "failed", "ok"]
        assert "its result cannot be written" in masks.images["message"][1]


def test_results_that_cannot_be_written_at_all(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.prepare()
    with pytest.raises(RunError, match="Results cannot be written as HDF5"):
        folder.publish([result_of("a")], {"seed": "zero\0byte"})
    assert folder.segments() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": "a\0.png"}, "zero byte"),
        ({"id": 2**70}, "more than 64 bits"),
        ({"name": "zero\0byte"}, "zero byte or is not UTF-8"),
        ({"name": "\ud800"}, "zero byte or is not UTF-8"),
    ],
    ids=str,
)
def test_annotations_are_checked_before_the_first_image(
    photos: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    image = {"id": 1, "file_name": change.get("file_name", "a.png"), "width": 40, "height": 30}
    thing = {"id": change.get("id", 1), "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}
    category = {"id": 1, "name": change.get("name", "dog")}
    content = {"images": [image], "categories": [category], "annotations": [thing]}
    Path("instances.json").write_text(json.dumps(content))
    assert predict("--data=COCODataModule", "--data.root=photos", "--data.annotations=instances.json") == 2
    assert message in capsys.readouterr().err
    assert COCODataModule("photos", "instances.json").find_samples()


def test_class_names_are_checked() -> None:
    with pytest.raises(IgosError, match=r"class_names and name: 'dog\\x00' has a zero byte"):
        tiny.tiny_classifier(class_names=["cat", "dog\0"])


# Bytes that change on the disk


def uses(path: Path, folder: RunFolder) -> list[str]:
    """What is said of a file by whoever reads it."""
    said = []
    uses: list[Callable[[], object]] = [
        lambda: MaskFile(path),
        lambda: main(["verify", str(path)]),
        lambda: folder.set_aside(folder.damaged()),
    ]
    for use in uses:
        try:
            said.append(str(use()))
        except IgosError as error:
            said.append(str(error))
    return said


def changed_bytes(tmp_path: Path, changes: int, seed: int) -> None:
    """Change a byte of a segment or of a merged file, again and again: every change is told."""
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    for names in (["a", "b"], ["c"]):
        folder.publish([result_of(name) for name in names], {"seed": 1})
    merge(folder, partial=True)
    files = [*folder.segments(), folder.merged]
    contents = {path: path.read_bytes() for path in files}
    random = np.random.default_rng(seed)
    for _ in range(changes):
        path = files[random.integers(len(files))]
        content = bytearray(contents[path])
        content[random.integers(len(content))] ^= int(random.integers(1, 256))
        path.write_bytes(content)
        reader, verified, aside = uses(path, folder)
        assert "damaged" in reader or "HDF5" in reader
        assert verified == "1" or "HDF5" in verified
        assert f"damaged/{path.name}" in aside or "HDF5" in reader
        path.write_bytes(contents[path])
    for path in files:
        assert main(["verify", str(path)]) == 0


def test_no_changed_byte_goes_unseen(tmp_path: Path) -> None:
    changed_bytes(tmp_path, 100, seed=1)


@pytest.mark.slow
def test_no_changed_byte_of_ten_thousand_goes_unseen(tmp_path: Path) -> None:
    changed_bytes(tmp_path, 10_000, seed=2)


@pytest.mark.parametrize("kind", ["byte", "cut off", "empty", "fifo", "link"])
def test_a_damaged_segment_is_set_aside_and_explained_again(
    photos: Path, kind: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert predict("--writer.images_per_segment=2") == 0
    with MaskFile("run") as masks:
        before = masks.column("masks")
    assert main(["verify", "run"]) == 0
    bad = RunFolder("run").segments()[0]
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 1
    bad.unlink()
    if kind == "fifo":
        os.mkfifo(bad)
    elif kind == "link":
        Path("elsewhere.h5").write_bytes(b"something else")
        bad.symlink_to(Path("elsewhere.h5").resolve())
    else:
        bad.write_bytes({"byte": content, "cut off": content[:1000], "empty": b""}[kind])
    if kind != "fifo":
        capsys.readouterr()
        assert main(["verify", "run"]) == 1
        said = capsys.readouterr().out
        assert f"{bad}: it is damaged" in said
        assert "it explains the images of this file again" in said
        assert "explains the images of damaged segments again" in said
    assert predict("--writer.images_per_segment=2") == 0
    assert f"{bad.name} was damaged and is now run/damaged/{bad.name}" in caplog.text
    assert (Path("run/damaged") / bad.name).exists() or kind == "link"
    assert main(["verify", "run"]) == 0
    with MaskFile("run") as masks:
        np.testing.assert_array_equal(masks.column("masks"), before)


def test_a_damaged_merged_file_is_made_again(photos: Path) -> None:
    assert predict() == 0
    merged = Path("run/masks.h5")
    content = merged.read_bytes()
    merged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert predict() == 0
    assert main(["verify", "run"]) == 0
    assert Path("run/damaged/masks.h5").exists()


def test_rows_that_are_missing_are_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.prepare()
    folder.publish([BatchResult(result_of("a").images)], {"seed": 1})
    with pytest.raises(IgosError, match=r"more or fewer explanations than their records say: 1 image \(a"):
        merge(folder, partial=True)
    assert main(["verify", str(tmp_path)]) == 1


@pytest.mark.parametrize("kind", ["external", "virtual", "soft", "elsewhere"])
def test_files_do_not_lead_elsewhere(tmp_path: Path, kind: str) -> None:
    folder = RunFolder(tmp_path)
    folder.prepare()
    path = folder.publish([result_of("a")], {"seed": 1})
    secret = tmp_path / "secret.h5"
    secret.write_bytes(b"secret!!" * 8)
    head = read_head(path)
    with h5py.File(path, "r+") as file:
        del file["images/ground_truth"]
        images = file["images"]
        if kind == "external":
            images.create_dataset("ground_truth", (1,), "i4", external=[(str(secret), 0, 4)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((1,), "i4")
            layout[0] = h5py.VirtualSource(str(secret), "x", (1,))[0]
            images.create_virtual_dataset("ground_truth", layout)
        elif kind == "soft":
            images["ground_truth"] = h5py.SoftLink("/images/width")
        else:
            images["ground_truth"] = h5py.ExternalLink(str(path), "/images/width")
    seal(path, head)
    with (
        MaskFile(path) as masks,
        pytest.raises(IgosError, match="ground_truth (leads to another place|is damaged)"),
    ):
        masks.images["ground_truth"]
    with pytest.raises(IgosError, match="ground_truth (leads to another place|is damaged)"):
        merge(folder, partial=True)


# Disks


def test_merging_is_refused_where_the_disk_has_no_room(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    assert predict() == 1
    assert "it may take 0.1 MB, but the disk has 0.0 MB left. All results are safe" in capsys.readouterr().err
    assert not Path("run/masks.h5").exists()
    monkeypatch.undo()
    monkeypatch.chdir(photos.parent)
    assert main(["merge", "run"]) == 0
    assert statuses() == dict.fromkeys(NAMES, "ok")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", range(200, 1000, 50))
def test_full_disks(photos: Path, kilobytes: int, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", "run"], check=True)
    try:
        code = predict("--writer.images_per_segment=1", "--overlays.count=2")
        message = capsys.readouterr().err
        assert code == 0 or (code in (1, 2) and "Cannot write" in message), message
        assert all(main(["verify", str(path)]) == 0 for path in RunFolder("run").segments())
        done = RunFolder("run").done()
        subprocess.run(["mount", "-o", "remount,size=100m", "run"], check=True)
        assert predict("--writer.images_per_segment=1", "--overlays.count=2") == 0
        assert done <= set(statuses())
        assert statuses() == dict.fromkeys(NAMES, "ok")
        for picture in Path("run/overlays").iterdir():
            Image.open(picture).load()
    finally:
        subprocess.run(["umount", "run"], check=True)


@pytest.mark.parametrize("place", [".", "segments", "overlays", "deaths"])
def test_stale_files_of_killed_processes_are_removed(tmp_path: Path, place: str) -> None:
    folder = RunFolder(tmp_path)
    folder.prepare()
    (tmp_path / place).mkdir(exist_ok=True)
    stale, fresh = (tmp_path / place / f".{name}.h5.0.tmp" for name in ("stale", "fresh"))
    for path in (stale, fresh):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    folder.prepare()
    assert not stale.exists()
    assert fresh.exists()


def test_overlays_do_not_end_a_run(photos: Path) -> None:
    Path("run").mkdir()
    Path("run/overlays").write_text("a file")
    with pytest.warns(UserWarning, match="No overlays in run/overlays: File exists"):
        assert predict("--overlays.count=2") == 0


def test_an_overlay_is_complete_or_absent(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(figure: Any, path: Path, *options: Any) -> None:
        path.write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("igos_pl.callbacks.overlays.save", half)
    with pytest.warns(UserWarning, match="overlays") as warned:
        assert predict("--overlays.count=2") == 0
    told = [str(warning.message) for warning in warned if "overlay" in str(warning.message)]
    assert len(told) == 1
    assert re.match("No more overlays: Cannot write .*a.png: No space left", told[0])
    assert list(Path("run/overlays").iterdir()) == []


def test_pictures_that_fail_are_told_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> None:
        raise IgosError("some words")

    monkeypatch.setattr("igos_pl.callbacks.overlays.save", fails)
    with pytest.warns(UserWarning, match="overlay") as warned:
        assert predict("--overlays.count=3") == 0
    told = [str(warning.message) for warning in warned if "overlay" in str(warning.message)]
    assert told == [
        "No overlay of a.png: some words",
        "5 explanations have no overlay; the first warning says why",
    ]


@pytest.mark.parametrize("folder", ["segments", "run"])
def test_results_come_before_pictures(photos: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Pictures of this start make room for segments and for the merged file."""
    kept, usage = Path.write_bytes, shutil.disk_usage

    def is_full() -> bool:
        return any(Path("run/overlays").glob("*.png"))

    def written(path: Path, content: bytes) -> int:
        if path.parent.name == folder and is_full():
            raise OSError(errno.ENOSPC, "No space left on device")
        return kept(path, content)

    with monkeypatch.context() as small:
        small.setattr(Path, "write_bytes", written)
        if folder == "run":
            small.setattr(
                shutil, "disk_usage", lambda path: SimpleNamespace(free=0) if is_full() else usage(path)
            )
        with pytest.warns(UserWarning, match="2 pictures in run/overlays made room for results"):
            assert predict("--overlays.count=2") == 0
    assert statuses() == dict.fromkeys(NAMES, "ok")
    assert list(Path("run/overlays").iterdir()) == []
    assert predict("--overlays.count=2") == 0
    assert len(list(Path("run/overlays").iterdir())) == 2


# Folders and names


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    tiny.write_pictures(tmp_path / "elsewhere", ["x.png"])
    tiny.write_pictures(tmp_path / "photos", ["a.png", "b/c.png"])
    (tmp_path / "photos" / "class").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "b" / "loop").symlink_to(tmp_path / "photos")
    found = [path.as_posix() for path in find_images(tmp_path / "photos")]
    assert found == ["a.png", "b/c.png", "class/x.png"]


def test_folders_that_cannot_be_listed_are_told(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "secret").mkdir()
    real = os.scandir

    def denied(path: Any) -> Any:
        if str(path).endswith("secret"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(IgosError, match=r"Cannot list the folder .*secret: Permission denied"):
        find_images(photos)


def test_kinds_that_are_left_out_are_told(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("x.HEIC", "y.svg", "z.svg", "notes.txt"):
        (photos / name).write_bytes(b"?")
    assert len(find_images(photos)) == len(NAMES)
    assert "left out files of kinds that cannot be read here: 1 .heic, 2 .svg" in caplog.text


@pytest.mark.parametrize(
    ("value", "message"), [("--data.root=", "root is empty"), ("--output=", "output is empty")]
)
def test_empty_names_are_refused(
    photos: Path, capsys: pytest.CaptureFixture[str], value: str, message: str
) -> None:
    before = sorted(Path().rglob("*"))
    assert predict(value) == 2
    assert message in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("command", ["predict", "predict --dry_run", "sanity", "demo"])
@pytest.mark.parametrize("output", ["photos/a.png", "photos/a.png/run"])
def test_a_file_is_no_output_folder(
    photos: Path, capsys: pytest.CaptureFixture[str], command: str, output: str
) -> None:
    data = [f"--data.root={photos}"] if command != "demo" else []
    assert main([*command.split(), *data, f"--output={output}"]) == 2
    told = capsys.readouterr().err.splitlines()[1:]  # that it starts
    assert told == [f"igos-pl: {photos}/a.png is a file: set --output to a folder for the results"]


@pytest.mark.parametrize("command", ["predict", "predict --dry_run", "sanity", "demo", "demo --detector"])
def test_a_closed_output_folder_is_told_at_the_start(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    kept = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != photos and kept(path, mode))
    data = [f"--data.root={photos}"] if "demo" not in command else []
    assert main([*command.split(), *data, f"--output={photos / 'new' / 'run'}"]) == 2
    told = capsys.readouterr().err.splitlines()[1:]  # that it starts
    assert told == [
        f"igos-pl: Cannot write to the folder {photos}: set --output to another folder, or fix the"
        " permissions"
    ]


def test_black_16_bit_pictures_are_told(photos: Path) -> None:
    Image.fromarray(np.full((30, 40), 200, np.uint16)).save(photos / "b.png")
    assert predict() == 0
    with MaskFile("run") as masks:
        assert "all below 256: the image is black" in masks.images["message"][1]


def test_control_characters_are_printed_as_text(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.rename(photos / "a.png", photos / "a\x1b[31m\x9b\x07.png")
    (photos / "b\x1b[2J.png").write_bytes(b"no picture")
    assert predict() == 0
    capsys.readouterr()
    assert main(["info", "run"]) == 0
    output = capsys.readouterr().out
    assert "\\x1b[2J" in output
    assert not {"\x1b", "\x9b", "\x07"} & set(output)


# Networks that are no functions


class Raises(tiny.TinyNet):
    """Fails at images whose first pixel is white."""

    def forward(self, images: Tensor) -> Tensor:
        if (images[:, :, 0, 0] > 2).all(1).any():
            raise ValueError("white is not allowed")
        return super().forward(images)


def whitened(*places: int, number: int = 5) -> Tensor:
    images = tiny.pictures(number)
    for place in places:
        images[place, :, 0, 0] = 255
    return images


def explainer_of(module: nn.Module, **options: Any) -> Explainer:
    network = Classifier(module, input_size=tiny.SIZE)
    return Explainer(network, mask_size=6, iterations=1, path_steps=1, **options)


def test_an_exception_of_the_network_costs_its_image_alone() -> None:
    result = explainer_of(Raises()).predict_step(tiny.batch_of(whitened(1, 3)))
    assert [record.status for record in result.images] == ["ok", "failed", "ok", "failed", "ok"]
    assert result.images[1].message == "ValueError: white is not allowed"
    assert result.explanations["sample_id"].tolist() == ["image0", "image2", "image4"]
    alone = explainer_of(tiny.TinyNet()).predict_step(tiny.batch_of(whitened(1, 3)))
    np.testing.assert_allclose(result.explanations["masks"], alone.explanations["masks"][::2], atol=1e-4)


def test_a_network_that_always_raises_ends_the_run() -> None:
    with pytest.raises(NetworkError, match="at 4 images in a row.*ValueError: white is not allowed"):
        explainer_of(Raises()).predict_step(tiny.batch_of(whitened(*range(6), number=6)))
    explainer = explainer_of(Raises())
    explainer.predict_step(tiny.batch_of(tiny.pictures(1)))
    for _ in range(5):
        explainer.predict_step(tiny.batch_of(whitened(*range(6), number=6)))
    with pytest.raises(NetworkError, match="at 32 images in a row"):
        explainer.predict_step(tiny.batch_of(whitened(*range(6), number=6)))


class AlwaysRaises(tiny.TinyNet):
    """Answers only once it was mended."""

    mended = False

    def forward(self, images: Tensor) -> Tensor:
        if not AlwaysRaises.mended:
            raise ValueError("not today")
        return super().forward(images)


def test_a_broken_network_records_no_image(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "AlwaysRaises", AlwaysRaises, raising=False)
    assert predict(module="tiny.AlwaysRaises") == 1
    assert (
        "at 4 images in a row, so the run ends. The last one: ValueError: not today"
        in capsys.readouterr().err
    )
    assert RunFolder("run").done() == set()
    monkeypatch.setattr(AlwaysRaises, "mended", True)
    assert predict("--data.limit=2", module="tiny.AlwaysRaises") == 0
    assert RunFolder("run").is_merged(), "the run that failed asked for more images, but has no results"
    assert predict(module="tiny.AlwaysRaises") == 0
    assert statuses() == dict.fromkeys(NAMES, "ok")


def test_failures_of_earlier_runs_do_not_end_their_retry(photos: Path) -> None:
    for name in NAMES[1:]:
        with Image.open(photos / name) as picture:
            white = picture.convert("RGB")
        white.paste((255, 255, 255), (0, 0, 12, 12))
        white.save(photos / name)
    tiny.Raises = Raises  # type: ignore[attr-defined]
    assert predict("--data.batch_size=5", module="tiny.Raises") == 0
    assert [statuses()[name] for name in NAMES] == ["ok", *["failed"] * 4]
    assert predict("--data.retry_unreadable=true", module="tiny.Raises") == 0


class Zeroes(tiny.TinyNet):
    """Changes what it is given where nobody asks for gradients."""

    def forward(self, images: Tensor) -> Tensor:
        answer = super().forward(images)
        if not images.requires_grad:
            images.zero_()
        return answer


def test_a_network_that_changes_its_input_changes_nothing_of_ours() -> None:
    batch = tiny.batch_of(tiny.pictures(2))
    changed = explainer_of(Zeroes()).predict_step(batch).explanations
    whole = explainer_of(tiny.TinyNet()).predict_step(batch).explanations
    for name in ("score", "masks", "deletion_curve"):
        np.testing.assert_allclose(changed[name], whole[name], atol=1e-5)


class DropsAlways(tiny.TinyNet):
    """Dropout that was left on."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(images, 0.9, training=True))


class SeesItsBatch(tiny.TinyNet):
    """Batch norm that was left in training mode."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 3 * len(images))


@pytest.mark.parametrize("module", [DropsAlways, SeesItsBatch])
def test_scores_that_do_not_repeat_are_told(module: type[nn.Module]) -> None:
    batch = tiny.batch_of(tiny.pictures(4))
    with pytest.warns(UserWarning, match="scores the same image .* is dropout on"):
        result = explainer_of(module(), micro_batch_size=1).predict_step(batch)
    assert any("scores the same image" in record.message for record in result.images)


@pytest.mark.filterwarnings("error:.*scores the same image")
def test_scores_that_repeat_are_not_doubted() -> None:
    for images in (tiny.pictures(4), whitened(2)):
        result = explainer_of(tiny.TinyNet(), micro_batch_size=1).predict_step(tiny.batch_of(images))
        assert {record.message for record in result.images} == {""}


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        torch.OutOfMemoryError("no room"),
        MemoryError(),
    ],
    ids=["device", "loader", "device memory", "memory"],
)
def test_failures_of_the_machine_are_not_the_images(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def fails(self: nn.Module, images: Tensor) -> Tensor:
        seen.append(len(images))
        raise error

    monkeypatch.setattr(tiny.TinyNet, "forward", fails)
    with pytest.raises(type(error)) as caught:
        explainer_of(tiny.TinyNet()).predict_step(tiny.batch_of(tiny.pictures(3)))
    assert caught.value is error
    assert seen == [3], "the images were tried alone"


def test_records_are_whole(photos: Path) -> None:
    record = ImageRecord("a\0\ud800", "/a").failed("b\0")
    assert (record.sample_id, record.message, record.status) == ("a\\0\\ud800", "b\\0", "failed")
    parts: Sequence[BatchResult] = BatchResult([record]).parts()
    assert [list(part.images) for part in parts] == [[record]]


# Odd networks and settings: one clear sentence each


class Odd(tiny.TinyNet):
    """A network whose output is what a function makes of logits and images."""

    change: Any

    def forward(self, images: Tensor) -> Any:
        return type(self).change(super().forward(images), images)


def odd(change: Any) -> type[Odd]:
    return type("OddNet", (Odd,), {"change": staticmethod(change)})


@torch.no_grad()
def without_gradient(logits: Tensor, images: Tensor) -> Tensor:
    return logits * 2


def zeroed(logits: Tensor, images: Tensor) -> Tensor:
    images.zero_()
    return logits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits, images: torch.ones(len(images), 5), "no gradient with respect to the image"),
        (lambda logits, images: logits.detach(), "no gradient with respect to the image"),
        (without_gradient, "no gradient with respect to the image"),
        (
            lambda logits, images: logits.long(),
            "dense and floating-point .*, but returned a tensor of torch.int64",
        ),
        (lambda logits, images: logits > 0, "returned a tensor of torch.bool"),
        (lambda logits, images: torch.complex(logits, logits), "returned a tensor of torch.complex64"),
        (lambda logits, images: logits.to_sparse(), "torch.sparse_coo"),
        (lambda logits, images: logits.to("meta"), "on meta"),
        (lambda logits, images: logits[:, :0], r"returned the shape \(2, 0\) for 2 images"),
        (lambda logits, images: logits[:1], r"returned the shape \(1, 5\) for 2 images"),
        (lambda logits, images: torch.cat((logits, logits)), r"returned the shape \(4, 5\) for 2 images"),
        (lambda logits, images: logits[:, None], r"returned the shape \(2, 1, 5\) for 2 images"),
        (lambda logits, images: ({"scores": logits},), "returned a tuple"),
        (lambda logits, images: None, "returned a NoneType"),
        (zeroed, "The network changes its input, .* in place: use x = x"),
    ],
    ids=[
        "constant",
        "detached",
        "no_grad",
        "integer",
        "bool",
        "complex",
        "sparse",
        "meta",
        "no classes",
        "one row",
        "twice the rows",
        "axes",
        "tuple",
        "none",
        "in place",
    ],
)
def test_what_a_network_returns_is_checked(
    photos: Path, change: Any, message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(tiny, "OddNet", odd(change), raising=False)
    monkeypatch.setattr(tiny.OddNet, "__module__", "tiny")
    assert predict(module="tiny.OddNet") == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert re.search(message, error)
    assert not RunFolder("run").files()


def test_a_run_in_which_all_images_fail_is_no_result(photos: Path, capsys: Any, monkeypatch: Any) -> None:
    """Also if there are fewer of them than it takes to end a large run."""

    def fails(logits: Tensor, images: Tensor) -> Tensor:
        raise KeyError("inner")

    monkeypatch.setattr(tiny, "OddNet", odd(fails), raising=False)
    monkeypatch.setattr(tiny.OddNet, "__module__", "tiny")
    assert predict("--data.limit=3", module="tiny.OddNet") == 1
    assert "raised an exception at 3 images in a row, so the run ends. The last one: KeyError" in (
        capsys.readouterr().err
    )
    assert not RunFolder("run").files()


SETTINGS = {
    "--model.optimizer=torch.optim.LBFGS": "The optimizer cannot optimise masks: .* Use NAG, LineSearch",
    "--model.optimizer=torch.optim.SparseAdam": "The optimizer cannot optimise masks: .* Use NAG",
    "--model.optimizer=torch.optim.Muon": "Muon only supports 2D parameters",
    "--model.optimizer=torch.optim.Adafactor": "Adafactor mixes the masks of a batch",
    "--model.optimizer.betas=[1,1]": "Invalid beta parameter at index 0",
    "--model.optimizer.lr=-1": "Invalid learning rate: -1.0",
    "--model.optimizer.lr=nan": "--model.optimizer.lr is nan, but must be a number",
    "--model.optimizer=Nag": "there is no class Nag: did you mean NAG",
    "--model.optimizer=torch.optim.Adm": "torch.optim has no Adm: did you mean Adam",
    "--model.optimizer.stepsize=1": "Adam has no setting 'stepsize'",
    "--model.l1=.nan": "l1 is nan, but must be at least 0",
    "--model.l2=.inf": "l2 is inf, but must be a finite number",
    "--model.noise=.nan": "noise is nan",
    "--model.masksize=3": "There is no setting --model.masksize: did you mean --model.mask_size",
    "--model.baseline=blurr": "--model.baseline is blurr, but must be one of .* did you mean blur",
    "--model.method=igos+++": "method is 'igos[+]+', but must be one of: .* did you mean igos",
    "--model.network.mean=[.nan,0,0]": "mean is .*, but must be a finite number",
    "--model.network.std=[0,0,0]": "std is .*, but must be above 0 for every channel",
    "--model.network.std=[1]": "mean has 3 values and std 1",
    "--model.network.input_size=1000000": "input_size is 1000000, but must be at most 16384 pixels",
    "--model.network.inputsize=3": "Classifier has no setting 'inputsize': did you mean input_size",
    "--model.network.targets=groundtruth": "one of predicted, ground_truth, both .* you mean ground_truth",
    "--model.network.targets=[99999999999999999999]": "Label 99999999999999999999 is outside of the 5",
    "--model.network.targets=ground_truth": "'ground_truth', but 5 of 5 images have no label",
    "--model.network.class_names=[a,b,c,d]": "class_names has 4 names, but TinyNet has 5 classes",
    "--model.network.output=softmx": "must be one of softmax, sigmoid; did you mean softmax",
    "--model.network=EfficentNetLite0": "no class EfficentNetLite0: did you mean EfficientNetLite0Classifier",
    "--model.network=os.system": "os.system is not a subclass of ExplainableNetwork. Available: Classifier",
    "--model.network.module=tiny.TinyNt": "tiny has no TinyNt: did you mean TinyNet",
    "--trainer.devices=-1": "should be an int > 0",
    "--trainer.device=1": "There is no setting --trainer.device: did you mean --trainer.devices",
    "--trainer.strategy=fsdp": "fsdp",
    "--trainer.strategy=ddp_spawn": "trainer.strategy must be ddp",
    "--trainer.strategy=nope": "invalid strategy name",
    "--trainer.accelerator=nope": "invalid accelerator name",
    "--trainer.num_nodes=0": "num_nodes",
    "--model.regions=Grid": "there is no class Grid: Available: LabelMaps, Slic;",
    "--model.regions=Slick": "--model.regions: there is no class Slick: did you mean Slic",
    "--data=ImageFolder": "there is no class ImageFolder: did you mean ImageFolderDataModule",
    "--data.rot=photos": "ImageFolderDataModule has no setting 'rot': did you mean root",
    "--data.shard=\u00b2/3": "shard is '\u00b2/3', but must be i/n",
    f"--data.root={'x' * 5000}": "File name too long: /.*x+[.][.][.]",
    f"--output={'x' * 300}": "File name too long: x+[.][.][.]",
    f"--data.labels={'x' * 5000}": "File name too long",
    "--preset=fst": "preset is 'fst', but must be one of: .* did you mean fast",
    "--config=binary.yaml": "binary.yaml is not UTF-8 text: -c takes YAML files",
    "--config=deep.yaml": "deep.yaml is nested too deeply|deep.yaml, line 1, column .*: not valid YAML",
    "--config=unknown.yaml": "There is no setting model.sead: did you mean model.seed",
    "--config=list.yaml": "list.yaml holds a list, not settings by name",
    "--config=nowhere.yaml": "Cannot read the settings in nowhere.yaml: No such file",
}


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting[:45] for setting in SETTINGS])
def test_odd_settings_get_a_sentence(photos: Path, setting: str, capsys: Any) -> None:
    Path("binary.yaml").write_bytes(bytes(range(256)))
    Path("deep.yaml").write_text("model: " + "[" * 3000)
    Path("unknown.yaml").write_text("model:\n  sead: 1\n")
    Path("list.yaml").write_text("- 1\n")
    assert predict(setting) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert re.search(SETTINGS[setting], error)
    assert "Namespace(" not in error


def test_a_large_number_is_no_error(photos: Path) -> None:
    assert predict(f"--model.seed={2**70}", f"--data.batch_size={10**30}") == 0


def test_a_constructor_that_raises_is_named(photos: Path, capsys: Any, monkeypatch: Any) -> None:
    class Refuses(tiny.TinyNet):
        def __init__(self) -> None:
            raise RuntimeError("no room today")

    Refuses.__module__, Refuses.__qualname__ = "tiny", "Refuses"
    monkeypatch.setattr(tiny, "Refuses", Refuses, raising=False)
    assert predict(module="tiny.Refuses") == 2
    assert (
        "The settings were refused: no room today (RuntimeError in test_faults.py" in capsys.readouterr().err
    )


# What does not fit is known before the first image


def test_labels_are_checked_before_the_first_image(photos: Path, capsys: Any, monkeypatch: Any) -> None:
    """One wrong label, of the last image, costs a pass of a blank image."""
    seen: list[int] = []
    real = tiny.TinyNet.forward

    def counted(net: tiny.TinyNet, images: Tensor) -> Tensor:
        seen.append(len(images))
        return real(net, images)

    monkeypatch.setattr(tiny.TinyNet, "forward", counted)
    Path("labels.txt").write_text("".join(f"{name} {5 if name == 'e.png' else 1}\n" for name in NAMES))
    assert predict("--data.labels=labels.txt", "--model.network.targets=ground_truth") == 2
    assert "e.png: Label 5 is outside of the 5 classes of TinyNet (0 to 4)" in capsys.readouterr().err
    assert seen == [1]
    assert not Path("run").exists()
    Path("labels.txt").write_text("".join(f"{name} {'9' * 20}\n" for name in NAMES))
    assert predict("--data.labels=labels.txt") == 2
    assert f"labels.txt, line 1, a.png: the label {'9' * 20} is too large" in capsys.readouterr().err


def test_what_a_detector_is_to_find_is_checked() -> None:
    class Blind(Detector):
        def detect(self, images: Tensor) -> list[Any]:
            raise AssertionError("no image is needed")

        score = detect  # type: ignore[assignment]

    network = Blind(tiny.TinyNet(), class_names=["disc", "ring"], targets="ground_truth")
    boxes = np.array([[1, 1, 9, 9]], np.float32)
    network.check([GroundTruth(), GroundTruth(boxes=boxes, names=["disc"], ids=[1])])
    with pytest.raises(IgosError, match="the data have no annotated objects: name an annotations file"):
        network.check([GroundTruth()])
    with pytest.raises(IgosError, match="knows no class .*: 'disk', .* did you mean disc"):
        network.check([GroundTruth(boxes=boxes, names=["disk"], ids=[1])])
    with pytest.raises(IgosError, match="'disk', but TinyNet has no such class: did you mean disc"):
        Blind(tiny.TinyNet(), class_names=["disc", "ring"], categories=["disk"])
    Blind(tiny.TinyNet(), class_names=["disc"]).check([GroundTruth()])


# Files whose digest is right, but not their content


def versioned(version: Any) -> Any:
    def change(path: Path) -> None:
        seal(path, {**read_head(path), "schema_version": version})

    return change


def shorter(group: str, name: str) -> Any:
    def change(path: Path) -> None:
        head = read_head(path)
        with h5py.File(path, "r+") as file:
            values = file[group][name][:-1]
            del file[group][name]
            file[group].create_dataset(name, data=values)
        seal(path, head)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (versioned("two"), "schema_version is 'two', but must be"),
        (versioned(2.5), "schema_version is 2.5, but must be a whole number"),
        (versioned([1, 2]), "schema_version is [1, 2], but must be a whole number"),
        (shorter("/", "label"), "the columns of / differ in length: 4, 5"),
        (shorter("images", "targets"), "the columns of images differ in length: 4, 5"),
    ],
    ids=["text", "nan", "list", "explanations", "images"],
)
def test_a_well_sealed_file_of_odd_content(photos: Path, change: Any, message: str, capsys: Any) -> None:
    assert predict() == 0
    for path in RunFolder("run").files():
        change(path)
    # `status` reads the heads alone; `merge` moves files with odd heads to damaged/.
    for command in ("info", "verify", "status" if "schema_version" in message else "merge"):
        capsys.readouterr()
        assert main([command, "run"]) in (1, 2)
        output = capsys.readouterr()
        assert message in output.out + output.err


def test_a_list_of_images_that_is_no_text(photos: Path, capsys: Any) -> None:
    assert predict() == 0
    Path("run/samples.txt").write_bytes(b"a.png\n\xff\n")
    assert main(["status", "run"]) == 2
    assert "run/samples.txt is damaged (not UTF-8): igos-pl predict" in capsys.readouterr().err
    assert predict() == 0
    assert main(["status", "run"]) == 0
