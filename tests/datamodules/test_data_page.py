"""The page about data: its code and its commands run as they stand there."""

from __future__ import annotations

import inspect
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pages
import pytest
import tiny
from PIL import Image

from igos_pl.cli.main import main
from igos_pl.datamodules.base import SampleDataModule
from igos_pl.explainer import Explainer
from igos_pl.store import MaskFile

NAMES = ["cat", "dog", "c", "d", "e"]
IMAGES = {
    "photos": 4, "one": 1, "some": 3, "list": 3, "labelled": 4, "table": 4, "dataset": 4, "normalized": 4,
    "flowers": 3, "shards": 4, "litdata": 3,
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the page's data."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LITDATA_DISABLE_VERSION_CHECK", "1")
    webdataset = pytest.importorskip("webdataset")
    datasets = pytest.importorskip("datasets")
    writer = pytest.importorskip("litdata.streaming.writer")
    monkeypatch.chdir(tmp_path)
    paths = ["cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "dog/deep/4.jpg"]
    tiny.write_pictures(tmp_path / "photos", paths)
    Path("labels.csv").write_text("width,path,label\n" + "".join(f"40,{path},dog\n" for path in paths))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in tiny.pictures(4)]
    rows = [{"image": picture, "name": f"flower {i}"} for i, picture in enumerate(pictures[:3])]
    features = datasets.Features({"image": datasets.Image(), "name": datasets.Value("string")})
    datasets.Dataset.from_list(rows, features=features).save_to_disk("flowers")
    Path("shards").mkdir()
    for shard in range(2):
        with webdataset.TarWriter(f"shards/{shard:03}.tar") as tar:
            for number in range(2 * shard, 2 * shard + 2):
                content = io.BytesIO()
                pictures[number].save(content, "JPEG")
                tar.write({"__key__": f"{number}", "jpg": content.getvalue(), "json": {"label": 1}})
    chunks = writer.BinaryWriter("optimized", chunk_size=2)
    for number, picture in enumerate(pictures[:3]):
        chunks[number] = {"image": picture, "label": number}
    chunks.done()
    chunks.merge()
    return tmp_path


def counted(place: Path) -> dict[str, int]:
    found = {}
    for path in (place / "runs").iterdir():
        with MaskFile(path / "masks.h5") as masks:
            assert set(masks.images["status"]) == {"ok"}
            found[path.name] = len(masks.images["status"])
    return found


@pytest.mark.filterwarnings("ignore:.*many workers.*")
def test_python(place: Path) -> None:
    network = tiny.tiny_classifier(input_size=224, class_names=NAMES)
    names: dict[str, Any] = {
        "explainer": Explainer(network, mask_size=4, iterations=1, path_steps=1, metrics=False)
    }
    for block in pages.blocks("docs/data.md"):
        exec(block, names)
    assert counted(place) == IMAGES
    with MaskFile("runs/table") as masks:
        assert set(masks.images["ground_truth"]) == {1}
    with MaskFile("runs/flowers") as masks:
        assert masks.images["sample_id"].tolist() == ["flower 0", "flower 1", "flower 2"]


def test_commands(place: Path) -> None:
    options = [
        "--model.network=Classifier", "--model.network.module=tiny.TinyNet", "--model.network.input_size=24",
        f"--model.network.class_names={json.dumps(NAMES)}", "--model.mask_size=4", "--model.iterations=1",
        "--model.metrics=false", "--trainer.accelerator=cpu", "--overlays.count=0",
    ]  # fmt: skip
    for block in pages.blocks("docs/data.md", "bash"):
        for command in block.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(command)
            assert program == "igos-pl"
            assert main([*words[:1], *options, *words[1:], "--data.num_workers=0"]) == 0, command
    with_commands = {"photos", "some", "labelled", "dataset", "shards", "litdata"}
    assert counted(place) == {name: IMAGES[name] for name in with_commands}


def test_every_data_module_is_on_the_page() -> None:
    text = (pages.ROOT / "docs/data.md").read_text("utf-8")
    found = [SampleDataModule]
    for cls in found:
        found.extend(cls.__subclasses__())
    ours = [cls for cls in found if cls.__module__.startswith("igos_pl.")]
    assert {cls.__name__ for cls in ours if inspect.isabstract(cls)} == {
        "SampleDataModule",
        "ImageDataModule",
    }
    for cls in ours:
        assert inspect.isabstract(cls) or cls.__name__ in text
