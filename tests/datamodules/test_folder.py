"""Any folder of pictures: names, labels, and what cannot be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback
from tiny import SIZE, quiet_trainer, tiny_classifier, write_pictures

from igos_pl.callbacks import MaskWriter, OverlayWriter
from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import Frame
from igos_pl.data.imagenet import class_names
from igos_pl.data.images import read_image, to_input
from igos_pl.data.labels import ClassLabels
from igos_pl.datamodules import ImageFolderDataModule
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.run.progress import OPTIMISING, BatchProgress
from igos_pl.run.run import Run
from igos_pl.store import MaskFile, RunFolder


def samples_of(root: Path, **options: Any) -> dict[str, int]:
    data = ImageFolderDataModule(str(root), **options)
    return {sample.id: sample.truth.label for sample in data.find_samples()}


def run(root: Path, output: Path, **options: Any) -> tuple[ImageFolderDataModule, int]:
    """Predict; returns the data and how many batches were explained."""
    callbacks = options.pop("callbacks", [MaskWriter()])
    data = ImageFolderDataModule(str(root), **{"num_workers": 0, "batch_size": 2, **options})
    explainer = Explainer(tiny_classifier(), mask_size=4, iterations=1, path_steps=1)
    batches = 0

    def count(progress: BatchProgress) -> None:
        nonlocal batches
        batches += progress.phase == OPTIMISING

    explainer.on_progress = count
    trainer = quiet_trainer(output, callbacks=callbacks)
    trainer.predict(explainer, data, return_predictions=False)
    return data, batches


def test_ids_are_paths_below_the_root(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["b.png", "a/b.png", "a/c/b.png", "z.jpg"])
    (tmp_path / "notes.txt").write_text("no picture")
    assert samples_of(tmp_path) == {"a/b.png": -1, "a/c/b.png": -1, "b.png": -1, "z.jpg": -1}


def test_a_run_among_its_images_does_not_explain_its_overlays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path, ["a.png", "b/c.png"])
    for batches in (1, 0):
        callbacks = [MaskWriter(), OverlayWriter(count=2)]
        assert run(tmp_path, tmp_path, callbacks=callbacks)[1] == batches
        assert len(list((tmp_path / "overlays").glob("*.png"))) == 2
        for root in (tmp_path, tmp_path / "**", tmp_path / "**" / "*.png", tmp_path / "*"):
            assert samples_of(root) == {"a.png": -1, "b/c.png": -1}, root
    assert set(samples_of(tmp_path / "overlays" / "a*.png")) == {"a.png"}, "named by the user"
    run(tmp_path / "b", tmp_path / "b" / "run", callbacks=[MaskWriter(), OverlayWriter(count=1)])
    assert samples_of(tmp_path / "b" / "*") == {"c.png": -1}
    assert f"Left out pictures that igos-pl wrote: {tmp_path / 'b' / 'run' / 'overlays'}" in caplog.text
    with pytest.raises(IgosError, match="No image matches .*pictures that igos-pl wrote are left out"):
        samples_of(tmp_path / "b" / "*" / "overlays" / "*.png")


def test_labels_are_matched_by_name(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "photos", ["b.png", "with space.png", "a/ü.png"])
    labels = tmp_path / "labels.txt"
    text = "a/ü.png 3\n\nwith space.png 1\nb.png 2\nnot there.png 4\n"
    labels.write_text(text, encoding="utf-8")
    expected = {"a/ü.png": 3, "b.png": 2, "with space.png": 1}
    assert samples_of(root, labels=str(labels)) == expected
    labels.write_text(text, encoding="utf-8-sig")  # as some editors save it
    assert samples_of(root, labels=str(labels)) == expected


@pytest.mark.parametrize("name", ["labels.txt", "labels.csv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_line_breaks_end_lines_of_labels(tmp_path: Path, name: str, end: str) -> None:
    picture = "a\u2028b\x85.png"
    root = write_pictures(tmp_path / "photos", [picture, "c.png"])
    mark = "," if name.endswith("csv") else " "
    text = f"{picture}{mark}1{end}c.png{mark}2{end}"
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert samples_of(root, labels=str(tmp_path / name)) == {picture: 1, "c.png": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png 1\n", r"labels for 1 image, but 2 of 3 images have none \(b\.png"),
        ("a.png 1\nb.png\nc.png 2\n", r"labels\.txt, line 2: expected 'path label', found 'b\.png'"),
        (
            "a.png 1\nb.png x\nc.png 2\n",
            "line 2, b.png: 'x' is not a class of the network, whose class names are",
        ),
        ("a.png 1\nb.png -1\nc.png 2\n", "line 2, b.png: labels count from 0, but this is -1"),
        ("a.png 1\nb.png ²\nc.png 2\n", "line 2, b.png: '²' is not a class"),
        (
            "a.png 1\nb.png 2\nc.png 2\na.png 5\n",
            r"line 4, a\.png: it has the label 1 in an earlier line, but 5 here",
        ),
    ],
)
def test_bad_label_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    root = write_pictures(tmp_path / "photos", ["a.png", "b.png", "c.png"])
    (tmp_path / "labels.txt").write_text(text, encoding="utf-8")
    with pytest.raises(IgosError, match=message):
        samples_of(root, labels=str(tmp_path / "labels.txt"))


@pytest.mark.parametrize(
    ("name", "problem"),
    [(b"a\nb.png", "line break"), (b"a\rb.png", "line break"), (b"\xff.png", "not UTF-8")],
)
def test_names_that_results_cannot_hold(tmp_path: Path, name: bytes, problem: str) -> None:
    root = write_pictures(tmp_path / "photos", ["a.png"])
    bad = root / os.fsdecode(name)
    (root / "a.png").rename(bad)
    with pytest.raises(IgosError, match=f"{problem}.*correct it") as caught:
        run(root, tmp_path / "run")
    assert repr(str(bad)) in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_binary_and_missing_label_files_are_named(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "photos", ["a.png"])
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80 junk\n")
    with pytest.raises(IgosError, match=r"binary, line 1, .*\\x00.*: 'junk' is not a class"):
        samples_of(root, labels=str(tmp_path / "binary"))
    with pytest.raises(
        IgosError, match=r"There is no labels file .*nowhere.txt: correct labels \(--data.labels\)"
    ):
        samples_of(root, labels=str(tmp_path / "nowhere.txt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "pad"}, "resize is 'pad'.*squash, crop"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IgosError, match=message):
        ImageFolderDataModule(".", **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_recorded_and_the_run_goes_on(tmp_path: Path, workers: int) -> None:
    root = write_pictures(tmp_path / "photos", ["a.png", "e.jpg"])
    (root / "b.png").write_bytes(b"")
    (root / "c.jpg").write_text("no picture")
    (root / "d.png").write_bytes((root / "a.png").read_bytes()[:300])
    run(root, tmp_path / "run", num_workers=workers)
    with MaskFile(RunFolder(tmp_path / "run").merged) as masks:
        found = dict(zip(masks.images["sample_id"], masks.images["status"], strict=True))
        reasons = dict(zip(masks.images["sample_id"], masks.images["message"], strict=True))
        assert found == {
            "a.png": "ok", "b.png": "unreadable", "c.jpg": "unreadable", "d.png": "unreadable", "e.jpg": "ok",
        }  # fmt: skip
        assert "0 bytes" in reasons["b.png"]
        assert "no image" in reasons["c.jpg"]
        assert "damaged" in reasons["d.png"]
        assert masks.images["width"].tolist() == [40, 0, 0, 0, 40]
        assert masks.images["height"].tolist() == [30, 0, 0, 0, 30]
        assert masks.images["path"].tolist() == [str(root / name) for name in found]
        assert masks.column("sample_id").tolist() == ["a.png", "e.jpg"]


def test_folder_of_nothing_but_unreadable_images(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "photos" / name).write_bytes(b"")
    run(tmp_path / "photos", tmp_path / "run")
    with MaskFile(RunFolder(tmp_path / "run").merged) as masks:
        assert len(masks) == 0
        assert masks.images["status"].tolist() == ["unreadable"] * 3


NAMES = ["Egyptian cat", "fire_truck, fire engine", "dog", "lake", "dogs"]


def labelled(root: Path, labels: str, names: list[str] | None = None) -> dict[str, int]:
    """The labels that a run finds."""
    data = ImageFolderDataModule(str(root), labels=labels, num_workers=0)
    explainer = Explainer(tiny_classifier(class_names=names), mask_size=4, iterations=1, path_steps=1)
    data.trainer = quiet_trainer(root)
    data.trainer.strategy.connect(explainer)
    return {sample.id: sample.truth.label for sample in data.find_samples()}


def test_folders_are_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from torchvision.datasets import ImageFolder

    paths = ["lake/a.png", "Dog/b.png", "Dog/deep/c.png", "fire engine/d.png", "egyptian-cat/e.png"]
    root = write_pictures(tmp_path / "photos", paths)
    found = labelled(root, "folders", NAMES)
    assert found == dict(zip(sorted(paths), [2, 2, 0, 1, 3], strict=True))
    assert "class names" not in caplog.text
    theirs = {Path(path).relative_to(root).as_posix(): label for path, label in ImageFolder(root).samples}
    assert labelled(root, "folders") == theirs
    assert "the sorted folders are numbered from 0: 0 is Dog, 1 is egyptian-cat" in caplog.text


def test_wordnet_ids_are_classes_of_imagenet(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "photos", ["n02124075/a.png", "tabby/b.png"])
    names = list(class_names())
    assert labelled(root, "folders", names) == {"n02124075/a.png": 285, "tabby/b.png": 281}


def test_folders_that_are_no_classes_are_named(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "photos", ["dgo/a.png", "dog/b.png"])
    with pytest.raises(IgosError, match="the folder dgo in .*photos: 'dgo' is not a class.*mean dog.*Rename"):
        labelled(root, "folders", NAMES)
    (root / "dgo").rename(root / "xylophone")
    with pytest.raises(IgosError, match="'xylophone' is not a class of the network .there are Egyptian"):
        labelled(root, "folders", NAMES)
    write_pictures(root, ["c.png"])
    with pytest.raises(IgosError, match=r"c\.png lies in no folder below .*photos: move it"):
        labelled(root, "folders", NAMES)


def test_labels_of_folders_are_explained(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "photos", ["dog/a.png", "lake/b.png"])
    data = ImageFolderDataModule(str(root), labels="folders", num_workers=0)
    network = tiny_classifier(class_names=NAMES, targets="ground_truth")
    trainer = quiet_trainer(tmp_path / "run")
    trainer.predict(Explainer(network, mask_size=4, iterations=1, path_steps=1), data)
    with MaskFile(tmp_path / "run") as masks:
        assert masks.column("label_name").tolist() == ["dog", "lake"]
        assert masks.attributes["data.labels"] == "folders"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "a.png,3\nwith space.png,2\n"),
        ("a.csv", "\npath,label\na.png,lake\nwith space.png,dog\n"),
        ("a.csv", 'width;Class;FileName\n3;lake;a.png\n4;"dog";"with space.png"\n'),
        ("a.tsv", "a.png\t3\n\nwith space.png\tDog\n"),
        ("a.txt", "a.png lake\nwith space.png dog\n"),
        ("a.txt", "a.png 3\nnot there.png 4\nwith space.png 2\n"),
    ],
)
def test_tables_and_class_names(tmp_path: Path, name: str, text: str) -> None:
    root = write_pictures(tmp_path / "photos", ["a.png", "with space.png"])
    (tmp_path / name).write_text(text)
    assert labelled(root, str(tmp_path / name), NAMES) == {"a.png": 3, "with space.png": 2}


def test_names_of_several_classes_are_told_apart_by_case() -> None:
    classes = ClassLabels(["Cardigan", "cardigan", "crane, bird", "crane"])
    found = [classes.find(name) for name in ("Cardigan", "cardigan", "bird", "Crane", "CARDIGAN")]
    assert found == [0, 1, 2, 3, None]
    with pytest.raises(IgosError, match=r"2 classes .* the name 'CARDIGAN': give the label \(0, 1\)"):
        classes.of("CARDIGAN")


def test_class_names_of_several_words_in_text(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "photos", ["a.png", "a.png b.png"])
    (tmp_path / "a.txt").write_text("a.png Egyptian cat\na.png b.png fire truck\n")
    assert labelled(root, str(tmp_path / "a.txt"), NAMES) == {"a.png": 0, "a.png b.png": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "a.png,lake,3\n",
            r"a\.csv, line 1: expected a path and a label.*begin with a line of their",
        ),
        ("a.csv", "path,label\na.png\n", r"line 2: expected a path and a label, found \['a.png'\]"),
        ("a.csv", "a.png,laek\n", "line 1, a.png: 'laek' is not a class of the network .did you mean lake"),
        ("a.csv", "a.png,-1\n", "line 1, a.png: labels count from 0, but this is -1"),
        ("a.csv", "path,label\n", "labels for 0 images, but 1 of 1 image has none"),
        ("a.txt", "aa.png 1\n", r"1 image has none .a\.png.: add .*other names are those of aa\.png"),
        ("a.txt", "a.png Egyptian dog\n", "line 1, a.png: 'Egyptian dog' is not a class"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    root = write_pictures(tmp_path / "photos", ["a.png"])
    (tmp_path / name).write_text(text)
    with pytest.raises(IgosError, match=message):
        labelled(root, str(tmp_path / name), NAMES)


def test_a_file_a_pattern_and_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path, ["a/1.png", "a/b/2.png", "a/c/3.png", "a/[x]/4.png", "d/5.png"])
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "a" / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no picture")
    (tmp_path / "far").symlink_to("a/[x]/deep")
    (tmp_path / "a" / "[x]" / "deep").mkdir()
    monkeypatch.chdir(tmp_path)
    for roots, expected in (
        ("a/1.png", ["1.png"]),
        ("a/*.png", ["1.png"]),
        ("a/**/*.png", ["1.png", "[x]/4.png", "b/2.png", "c/3.png"]),
        ("a/[bc]", ["b/2.png", "c/3.png"]),
        ("a/[x]", ["4.png"]),
        ("a/?/[0-9].png", ["b/2.png", "c/3.png"]),
        ("a/*", ["1.png", "[x]/4.png", "b/2.png", "c/3.png"]),  # and an empty folder, and notes
        ("a/1*", ["1.png"]),
        (["a/b/2.png", "d"], ["a/b/2.png", "d/5.png"]),
        (["a/b", "a/b/*.png", "a/b/2.png"], ["2.png"]),
        (Path("a/b"), ["2.png"]),
        ([Path("a/b/2.png"), Path("d")], ["a/b/2.png", "d/5.png"]),
        (["a/c/../b", "a/b", "d/../a/b/*.png"], ["2.png"]),
        (["far/../4.png", "a/b"], ["[x]/4.png", "b/2.png"]),  # the parent of what the link leads to
    ):
        data = ImageFolderDataModule(roots)
        assert [sample.id for sample in data.find_samples()] == expected, roots
        assert all(Path(sample.path).is_absolute() for sample in data.find_samples())
    for bad, message in (
        ([], "root is an empty list"),
        ("", "root is empty"),
        ([""], "root is empty"),
        ("a/*.jpg", r"No image matches .*a/\*\.jpg"),
        ("texts/*", r"No image matches .*texts/\*"),
        ("texts/**", r"No image matches .*texts/\*\*"),
        (["a/1.png", "text?"], r"No image matches .*text\?"),
        ("e", r"There is no folder .*e: set root \(--data.root\)"),
        (None, r"root is None \(of the type NoneType\), but must be a path, or a list of paths"),
    ):
        with pytest.raises(IgosError, match=message):
            ImageFolderDataModule(bad).find_samples()


def test_a_list_is_a_setting(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "photos", ["a.png", "b.png"])
    files = [str(root / "a.png"), str(root / "b.png")]

    def explain(roots: list[str]) -> None:
        explainer = Explainer(tiny_classifier(), mask_size=4, iterations=1, path_steps=1)
        data = ImageFolderDataModule(roots, num_workers=0)
        quiet_trainer(tmp_path / "run").predict(explainer, data)

    explain(files)
    explain(files)
    with pytest.raises(IgosError, match=r"data.root: there '\[.*b.png.*, now "):
        explain(files[:1])


def test_pictures_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "photos", ["a.png"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    run(Path("photos"), Path("run"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    with MaskFile("../run/masks.h5") as masks:
        masks[0].plot().savefig("a.png")
        assert masks.images["path"].tolist() == [str(tmp_path / "photos" / "a.png")]
    assert Path("a.png").stat().st_size > 1000
    run(Path("../photos"), Path("../run"))  # the same configuration


def assert_run(
    data: ImageFolderDataModule, expected: list[str], pending: list[str], assigned: list[str] | None = None
) -> None:
    assert data.trainer is not None
    run = Run.of(data.trainer)
    assert list(run.expected) == run.folder.expected() == expected
    assert list(run.assigned) == expected if assigned is None else assigned
    assert list(run.pending) == pending


def test_only_what_is_missing_is_explained_again(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "photos", [f"{i}.png" for i in range(5)])
    names = [f"{i}.png" for i in range(5)]
    data, batches = run(root, tmp_path / "run", limit=2)
    assert ([sample.id for sample in data.pending], batches) == (names[:2], 1)
    assert_run(data, expected=names[:2], pending=names[:2])
    data, batches = run(root, tmp_path / "run")
    assert ([sample.id for sample in data.pending], batches) == (names[2:], 2)
    assert_run(data, expected=names, pending=names[2:])
    data, batches = run(root, tmp_path / "run")
    assert (data.pending, batches) == ([], 0)
    assert_run(data, expected=names, pending=[])
    with MaskFile(RunFolder(tmp_path / "run").merged) as masks:
        assert masks.column("sample_id").tolist() == names
    data, batches = run(root, tmp_path / "run", limit=2)
    assert_run(data, expected=names, pending=[], assigned=names[:2])
    data, batches = run(root, tmp_path / "run", shard="1/2")
    assert_run(data, expected=names, pending=[], assigned=names[1::2])
    (root / "1.png").unlink()
    write_pictures(root, ["5.png"])
    data, batches = run(root, tmp_path / "run", limit=1)
    assert_run(data, expected=["0.png", *names[2:]], pending=[], assigned=names[:1])
    data, batches = run(root, tmp_path / "run")
    assert_run(data, expected=["0.png", *names[2:], "5.png"], pending=["5.png"])
    with MaskFile(RunFolder(tmp_path / "run").merged) as masks:
        assert masks.column("sample_id").tolist() == [*names, "5.png"]


def test_a_limited_run_does_not_merge_the_rest_of_a_longer_one(tmp_path: Path) -> None:
    """The longer run asked for more, and nobody said that it is not wanted any more."""
    root = write_pictures(tmp_path / "photos", [f"{i}.png" for i in range(4)])
    run(root, tmp_path / "run", shard="0/2")
    folder = RunFolder(tmp_path / "run")
    assert (folder.missing(), folder.merged.exists()) == (["1.png", "3.png"], False)
    run(root, tmp_path / "run", limit=1)
    assert (folder.missing(), folder.merged.exists()) == (["1.png", "3.png"], False)
    run(root, tmp_path / "run", limit=2)
    assert (folder.missing(), folder.merged.exists()) == (["3.png"], False)
    (root / "3.png").unlink()  # it cannot be explained any more
    run(root, tmp_path / "run", limit=2)
    assert (folder.missing(), folder.merged.exists()) == ([], True)


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_images_reach_the_network_as_they_lie_on_disk(tmp_path: Path, resize: str) -> None:
    root = write_pictures(tmp_path / "photos", ["a.png", "b.png", "c.png"])
    seen: list[ImageBatch] = []

    class Watch(Callback):
        def on_predict_batch_start(self, trainer: Any, module: Any, batch: ImageBatch, *_: Any) -> None:
            seen.append(batch)

    run(root, tmp_path / "run", resize=resize, callbacks=[MaskWriter(), Watch()])
    assert [len(batch.images) for batch in seen] == [2, 1]
    frames = {record.sample_id: record.frame for batch in seen for record in batch.records}
    for image, name in zip(torch.cat([batch.images for batch in seen]), "abc", strict=True):
        picture = read_image(root / f"{name}.png")
        frame = Frame.of(*picture.size, (SIZE, SIZE), resize)
        np.testing.assert_array_equal(image.numpy(), to_input(picture, frame))
        assert frames[f"{name}.png"] == frame
