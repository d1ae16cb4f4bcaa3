"""What goes wrong from outside: nothing may be lost, and nothing may be silent."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor, nn

from igos_pl.cli.main import main
from igos_pl.data.images import find_images, read_image
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.datamodules import COCODataModule
from igos_pl.errors import IgosError, NetworkError, RunError, UnreadError
from igos_pl.explainer import Explainer
from igos_pl.models import Classifier
from igos_pl.store import MaskFile, RunFolder, merge
from igos_pl.store.files import seal

NAMES = ["a.png", "b.png", "c.png", "d.png", "e.png"]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tiny.write_pictures(tmp_path / "photos", NAMES)


def predict(*more: str, module: str = "tiny.TinyNet") -> int:
    settings = {
        "data.root": "photos", "data.num_workers": 0, "data.batch_size": 2, "model.network": "Classifier",
        "model.network.module": module, "model.network.input_size": tiny.SIZE, "model.mask_size": 6,
        "model.iterations": 1, "model.path_steps": 1, "trainer.accelerator": "cpu", "trainer.devices": 1,
        "output": "run", "overlays.count": 0,
    }  # fmt: skip
    return main(["predict", *(f"--{key}={value}" for key, value in settings.items()), *more])


def statuses() -> dict[str, str]:
    with MaskFile("run") as masks:
        return dict(zip(masks.images["sample_id"].tolist(), masks.images["status"].tolist(), strict=True))


# Files that cannot be read now


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOMEM])
def test_a_read_error_of_the_moment_is_not_final(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    real = Path.read_bytes

    def fails(path: Path) -> bytes:
        if path.name in ("b.png", "c.png"):
            raise OSError(number, "some words")
        return real(path)

    with monkeypatch.context() as lost:
        lost.setattr(Path, "read_bytes", fails)
        assert predict() == 1
    output = capsys.readouterr()
    assert "2 of 5 images are missing from run" in output.out
    assert "b.png: cannot be read: some words" in output.out
    assert "c.png cannot be read: some words: it is tried again by the next run" in output.err
    assert statuses() == dict.fromkeys(["a.png", "d.png", "e.png"], "ok")
    assert not Path("run/masks.h5").exists()
    assert predict() == 0
    assert statuses() == dict.fromkeys(NAMES, "ok")


def test_what_the_content_says_is_final(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:60])
    (photos / "c.png").write_bytes(b"")
    assert predict() == 0
    assert [statuses()[name] for name in NAMES] == ["ok", "unreadable", "unreadable", "ok", "ok"]
    assert "2 unreadable: igos-pl info run says why" in capsys.readouterr().out
    Image.new("RGB", (40, 30)).save(photos / "b.png")
    assert predict() == 0
    assert statuses()["b.png"] == "unreadable", "it is done"
    assert predict("--data.retry_unreadable=true") == 0
    assert [statuses()[name] for name in NAMES] == ["ok", "ok", "unreadable", "ok", "ok"]
    with MaskFile("run/masks.h5") as masks:
        assert masks.column("sample_id").tolist() == ["a.png", "b.png", "d.png", "e.png"]


def test_memory_that_runs_out_while_decoding_is_of_the_moment(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(UnreadError, match="cannot be decoded: too little memory"):
        read_image(photos / "a.png")


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
    for use in (lambda: MaskFile(path), lambda: main(["verify", str(path)]), folder.set_damaged_aside):
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
        assert f"{bad}: it is damaged" in capsys.readouterr().out
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
    with pytest.raises(
        IgosError, match=r"1 images have more or fewer explanations than their records say \(a"
    ):
        merge(folder, partial=True)
    assert main(["verify", str(tmp_path)]) == 1


@pytest.mark.parametrize("kind", ["external", "virtual", "soft", "elsewhere"])
def test_files_do_not_lead_elsewhere(tmp_path: Path, kind: str) -> None:
    folder = RunFolder(tmp_path)
    folder.prepare()
    path = folder.publish([result_of("a")], {"seed": 1})
    secret = tmp_path / "secret.h5"
    secret.write_bytes(b"secret!!" * 8)
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
    seal(path)
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


def test_stale_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.prepare()
    stale, fresh = (folder.segments_path / f".{name}.h5.0.tmp" for name in ("stale", "fresh"))
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
    def half(explanation: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("igos_pl.callbacks.overlays.write_overlay", half)
    with pytest.warns(UserWarning, match="No overlay of a.png: Cannot write .*No space left"):
        assert predict("--overlays.count=2") == 0
    assert list(Path("run/overlays").iterdir()) == []


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
