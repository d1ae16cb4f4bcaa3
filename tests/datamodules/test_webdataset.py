"""WebDataset's tar files: their keys, their damage, and runs that go on within a shard."""

from __future__ import annotations

import io
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback
from tiny import SIZE, pictures, quiet_trainer, tiny_classifier

from igos_pl.callbacks import MaskWriter, OverlayWriter
from igos_pl.data.batches import ImageBatch
from igos_pl.data.images import MAX_BYTES
from igos_pl.datamodules import WebDatasetDataModule
from igos_pl.datamodules.tar_index import members_of
from igos_pl.datamodules.webdataset import TarSample
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.store import MaskFile

sys.path.insert(0, str(Path(__file__).parents[1]))

from ranks import Server

webdataset = pytest.importorskip("webdataset")


def encoded(pixels: torch.Tensor, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, kind)
    return buffer.getvalue()


def write_shards(folder: Path, *counts: int, restart: bool = False) -> list[str]:
    """Shards as WebDataset's own writer makes them; returns the keys in their order."""
    folder.mkdir(exist_ok=True)
    keys, images = [], iter(pictures(sum(counts)))
    for shard, count in enumerate(counts):
        with webdataset.TarWriter(str(folder / f"{shard:03}.tar")) as writer:
            for place in range(count):
                number = place if restart else len(keys)
                keys.append(f"sample{number:04}")
                writer.write({"__key__": keys[-1], "png": encoded(next(images)), "cls": number % 3})
    return keys


def data_of(urls: Any, **options: Any) -> WebDatasetDataModule:
    return WebDatasetDataModule(urls, **{"num_workers": 0, "batch_size": 2, **options})


def run(
    urls: Any,
    output: Path,
    *callbacks: Callback,
    names: Any = None,
    targets: Any = "predicted",
    **options: Any,
) -> list[ImageBatch]:
    """Explain shards; returns what reached the network."""
    seen: list[ImageBatch] = []

    class Watch(Callback):
        def on_predict_batch_start(self, trainer: Any, module: Any, batch: ImageBatch, *_: Any) -> None:
            seen.append(batch)

    network = tiny_classifier(class_names=names, targets=targets)
    explainer = Explainer(network, mask_size=4, iterations=1, path_steps=1)
    trainer = quiet_trainer(output, callbacks=[MaskWriter(), Watch(), *callbacks])
    trainer.predict(explainer, data_of(urls, **options), return_predictions=False)
    return seen


def ids(batches: list[ImageBatch]) -> list[list[str]]:
    return [[record.sample_id for record in batch.records] for batch in batches]


def test_keys_pictures_and_labels_are_those_of_webdataset(tmp_path: Path) -> None:
    keys = write_shards(tmp_path / "shards", 3, 0, 4)
    (batches, again) = (
        run(tmp_path.joinpath("shards", form).as_posix(), tmp_path / f"run{number}", OverlayWriter(1))
        for number, form in enumerate(("{000..002}.tar", "*.tar"))
    )
    assert ids(batches) == ids(again) == [keys[:2], keys[2:4], keys[4:6], keys[6:]]
    theirs = list(
        webdataset.WebDataset(sorted(map(str, (tmp_path / "shards").iterdir())), shardshuffle=False)
    )
    assert [sample["__key__"] for sample in theirs] == keys
    assert torch.equal(torch.cat([batch.images for batch in batches]), pictures(7))
    labels = [int(sample["cls"]) for sample in theirs]
    assert [truth.label for batch in batches for truth in batch.truth] == labels
    assert [path.name for path in (tmp_path / "run0" / "overlays").iterdir()] == ["sample0000.png"]
    with MaskFile(tmp_path / "run0") as masks:
        assert masks.images["path"][0] == str(tmp_path / "shards" / "000.tar" / "sample0000.png")
        assert masks.images["ground_truth"].tolist() == labels


def test_names_of_members(tmp_path: Path) -> None:
    """Which members make a sample, in WebDataset's words and in ours."""
    content = encoded(pictures(1)[0])
    members = {
        "a/b.c/x.JPG": content, "a/b.c/x.seg.png": content, "a/b.c/x.json": b'{"label": 2, "text": "a dog"}',
        "y.image.png": content, "y.cls": b" house_cat\n", "__meta__/z.png": content, "plain": b"",
        "long" * 60 + ".webp": encoded(pictures(1)[0], "WEBP"),
    }  # fmt: skip
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(folder := tarfile.TarInfo("a"))
        folder.type = tarfile.DIRTYPE
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(value)
            archive.addfile(info, io.BytesIO(value))
    batches = run(str(tmp_path / "a.tar"), tmp_path / "run", names=["a", "House Cat", "b", "c", "d"])
    keys = ["a/b.c/x", "y", "long" * 60]
    assert [name for batch in ids(batches) for name in batch] == keys
    assert [truth.label for batch in batches for truth in batch.truth] == [2, 1, -1]
    theirs = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    assert [sample["__key__"] for sample in theirs] == keys


@pytest.mark.parametrize(
    ("member", "content", "expected"),
    [
        ("json", b'{"label": null}', -1), ("json", b'{"label": null, "cls": 1}', 1), ("json", b"{}", -1),
        ("json", b'{"label": 2.0}', 2), ("json", b'{"label": "2"}', 2), ("cls", b"-1", -1),
        ("json", b'{"label": 2.5}', "'2.5' is not a class"),
        ("json", b'{"label": [1]}', r"'\[1\]' is not a class"),
        ("cls", b"-5", "labels count from 0, but this is -5"),
        ("cls", b"2147483648", "the label 2147483648 is too large"), ("cls", b"9" * 5000, "is too large"),
    ],
)  # fmt: skip
def test_forms_of_labels(tmp_path: Path, member: str, content: bytes, expected: int | str) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        writer.write({"__key__": "a", "png": encoded(pictures(1)[0]), member: content})
    (sample,) = data_of(str(tmp_path / "a.tar")).find_samples()
    if isinstance(expected, int):
        assert sample.load()[1].label == expected
    else:
        with pytest.raises(IgosError, match=expected):
            sample.load()


def test_labels_of_shards_are_explained(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 3)
    run(str(tmp_path / "shards/000.tar"), tmp_path / "run", targets="ground_truth")
    with MaskFile(tmp_path / "run") as masks:
        assert masks.column("label").tolist() == [0, 1, 2]


def test_members_that_are_too_large_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "shards", 1)
    (sample,) = data_of(str(tmp_path / "shards/000.tar")).find_samples()
    assert isinstance(sample, TarSample)
    assert sample.image is not None
    member = replace(sample.image, size=MAX_BYTES + 1)

    def never(*rest: object) -> None:
        raise AssertionError("the shard was opened")

    monkeypatch.setattr(Path, "open", never)
    with pytest.raises(IgosError, match="has 1,073,741,825 bytes, but at most 1,073,741,824 are read"):
        replace(sample, image=member, label=None).load()


def test_the_picture_is_named_if_there_are_several(tmp_path: Path) -> None:
    one, other = pictures(2)
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        writer.write({"__key__": "x", "png": encoded(one), "jpg": encoded(other, "JPEG"), "txt": "words"})
    urls = str(tmp_path / "a.tar")
    with pytest.raises(
        IgosError, match=r"sample x in .*a.tar has several pictures \(jpg, png\): set image \(--data.image\)"
    ):
        run(urls, tmp_path / "run")
    assert torch.equal(run(urls, tmp_path / "run", image=".png")[0].images[0], one)
    with pytest.raises(IgosError, match="data.image: there '.png', now 'jpg'"):
        run(urls, tmp_path / "run", image="jpg")
    with pytest.raises(IgosError, match="1 samples, but none of them has a picture"):
        run(urls, tmp_path / "other", image="webp")


def test_keys_that_occur_in_several_shards(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 2, 2, restart=True)
    urls = [str(tmp_path / "shards" / name) for name in ("001.tar", "000.tar")]
    with pytest.raises(IgosError, match=r"share 2 keys \(sample0000, sample0001\), so.*shard_ids=True"):
        run(urls, tmp_path / "run")
    batches = run(urls, tmp_path / "run", shard_ids=True)
    assert ids(batches) == [
        ["001.tar/sample0000", "001.tar/sample0001"], ["000.tar/sample0000", "000.tar/sample0001"],
    ]  # fmt: skip
    with pytest.raises(IgosError, match="Two images have the id"):
        run([urls[0], urls[0]], tmp_path / "twice", shard_ids=True)


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ("", "urls is empty"),
        ([], "urls is empty"),
        (
            "http://host/{000..099}.tar",
            r"http://host/\{000..099\}.tar is not a path.*copy the shards to a disk",
        ),
        ("pipe:curl -s http://host/a.tar", "is not a path"),
        ("s3://bucket/a.tar", "is not a path"),
        ("nowhere/*.tar", "No file matches .*nowhere/.*tar"),
        ("nowhere.tar", "Cannot read the shard .*nowhere.tar: No such file"),
        ("a.tar.gz", "a.tar.gz is compressed.*decompress it"),
        ("words.tar", "words.tar is not a tar file"),
        ("empty.tar", "has no samples"),
    ],
)
def test_shards_that_cannot_be_used_are_refused(
    tmp_path: Path, urls: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.tar").write_text("no tar file " * 99)
    tarfile.open("a.tar.gz", "w:gz").close()
    tarfile.open("empty.tar", "w").close()
    with pytest.raises(IgosError, match=message):
        run(urls, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def statuses(folder: Path) -> dict[str, str]:
    with MaskFile(folder) as masks:
        return dict(zip(masks.images["sample_id"].tolist(), masks.images["message"].tolist(), strict=True))


def test_damage_in_a_shard_is_recorded(tmp_path: Path) -> None:
    """A damaged picture, a bad label, a damaged header, and a shard that is cut off."""
    keys = write_shards(tmp_path / "shards", 4, 3)
    path = tmp_path / "shards" / "000.tar"
    content = bytearray(path.read_bytes())
    found = {member.name: member for member in members_of(path)}
    picture = found["sample0000.png"]
    content[picture.offset : picture.offset + picture.size] = bytes(picture.size)
    content[found["sample0001.cls"].offset] = ord("x")
    content[found["sample0002.png"].offset - 512 : found["sample0002.png"].offset - 412] = b"!" * 100
    path.write_bytes(content)
    other = tmp_path / "shards" / "001.tar"
    last = next(member for member in members_of(other) if member.name == "sample0006.png")
    other.write_bytes(other.read_bytes()[: last.offset + 20])
    run(str(tmp_path / "shards" / "*.tar"), tmp_path / "run")
    messages = statuses(tmp_path / "run")
    (lost,) = (member.offset for member in members_of(path) if not member.name)
    assert found["sample0002.cls"].offset < lost < found["sample0002.png"].offset
    assert sorted(messages) == [f"000.tar@{lost}", *keys]
    assert messages.pop(f"000.tar@{lost}") == f"{path} is damaged at byte {lost}: what was there is lost"
    assert "no image" in messages.pop("sample0000")
    assert messages.pop("sample0001").startswith("'x' is not a class of the network, whose class names are")
    assert messages.pop("sample0002") == "the sample has no picture; its members: cls"
    assert messages.pop("sample0006") == f"sample0006.png is cut off after 20 of {last.size:,} bytes"
    assert set(messages.values()) == {""}


def test_a_tar_of_any_damage_is_scanned_to_its_end(tmp_path: Path) -> None:
    """Every byte range of headers may be damaged: no endless loop, no traceback, the rest is found."""
    write_shards(tmp_path / "shards", 3)
    path = tmp_path / "shards" / "000.tar"
    whole = path.read_bytes()
    names = [member.name for member in members_of(path)]
    random = np.random.RandomState(0)
    for place in range(0, 10 * 512, 97):
        damaged = bytearray(whole)
        damaged[place : place + 40] = random.bytes(40)
        path.write_bytes(damaged)
        try:
            found = [member.name for member in members_of(path) if member.name]
        except IgosError as error:
            assert place < 512, error  # the very first header: it may be no tar file at all
            continue
        assert len(set(names) - set(found)) <= 2
    for length in range(512, len(whole), 333):
        path.write_bytes(whole[:length])
        assert set(member.name for member in members_of(path)) <= {*names, ""}


def test_a_run_goes_on_within_a_shard(tmp_path: Path) -> None:
    keys = write_shards(tmp_path / "shards", 5, 3)
    urls = str(tmp_path / "shards" / "*.tar")
    assert ids(run(urls, tmp_path / "run", limit=3)) == [keys[:2], keys[2:3]]
    write_shards(tmp_path / "more", 8, 2)  # a data set may grow
    (tmp_path / "more" / "001.tar").rename(tmp_path / "shards" / "002.tar")
    assert ids(run(urls, tmp_path / "run")) == [keys[3:5], keys[5:7], [keys[7], "sample0008"], ["sample0009"]]
    assert run(urls, tmp_path / "run") == []


WORDS = [
    "predict", "--trainer.accelerator=cpu", "--model.network=Classifier",
    "--model.network.module=ranks.SlowNet", f"--model.network.input_size={SIZE}", "--model.mask_size=4",
    "--model.iterations=1", "--overlays.count=0", "--data=WebDatasetDataModule",
    "--data.urls=shards/{000..002}.tar", "--data.batch_size=1", "--output=run",
    "--writer.images_per_segment=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_killed_ranks_lose_nothing_that_was_published(tmp_path: Path, server: Server) -> None:
    keys = write_shards(tmp_path / "shards", 4, 4, 4)
    both = server.start([*WORDS, "--trainer.devices=2"], 2, tmp_path, {"SLOW_NET_SECONDS": "0.02"})
    end = time.monotonic() + 60
    while len(list((tmp_path / "run" / "segments").glob("*.h5"))) < 3:
        assert time.monotonic() < end, both.output.read_text()
        time.sleep(0.05)
    both.kill(9, 0, 1)
    both.wait()
    with MaskFile(tmp_path / "run") as masks:
        before = masks.images["sample_id"].tolist()
    assert 3 <= len(before) < 12
    both = server.start([*WORDS, "--trainer.devices=2"], 2, tmp_path)
    assert both.wait() == [0, 0], both.output.read_text()
    assert f"{len(before)} were explained before" in both.output.read_text()
    with MaskFile(tmp_path / "run" / "masks.h5") as masks:
        assert masks.images["sample_id"].tolist() == keys
    counts = []
    for path in (tmp_path / "run" / "segments").glob("*.h5"):
        with MaskFile(path) as masks:
            counts += masks.images["sample_id"].tolist()
    assert sorted(counts) == keys
