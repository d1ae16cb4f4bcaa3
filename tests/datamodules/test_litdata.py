"""Folders of LitData."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import SIZE, Items, pictures, quiet_trainer, tiny_classifier

from igos_pl.datamodules import DatasetDataModule, LitDataDataModule
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.store import MaskFile

sys.path.insert(0, str(Path(__file__).parents[1]))

from ranks import Server

pytest.importorskip("litdata")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITDATA_DISABLE_VERSION_CHECK", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def write_folder(folder: Path, items: list[Any]) -> Path:
    """Items in chunks of two."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_size=2)
    for index, item in enumerate(items):
        writer[index] = item
    writer.done()
    writer.merge()
    return folder


def run(folder: Path, output: Path, **options: Any) -> None:
    data = LitDataDataModule(str(folder), **{"batch_size": 2, "num_workers": 0, **options})
    explainer = Explainer(tiny_classifier(), mask_size=4, iterations=1, path_steps=1)
    quiet_trainer(output).predict(explainer, data, return_predictions=False)


def test_items_are_those_of_the_folder(tmp_path: Path) -> None:
    items = [
        {"image": Image.fromarray(image.permute(1, 2, 0).numpy()), "label": number}
        for number, image in enumerate(pictures(5))
    ]
    folder = write_folder(tmp_path / "data", items)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    data = LitDataDataModule(str(folder))
    loaded = [sample.load() for sample in data.find_samples()]
    read = np.stack([np.asarray(image).transpose(2, 0, 1) for image, _ in loaded])
    np.testing.assert_array_equal(read, pictures(5).numpy())
    assert [truth.label for _, truth in loaded] == [0, 1, 2, 3, 4]
    run(folder, tmp_path / "run", limit=3)
    run(folder, tmp_path / "run", num_workers=2)
    with MaskFile(tmp_path / "run") as masks:
        assert masks.images["sample_id"].tolist() == ["0", "1", "2", "3", "4"]
        assert masks.images["ground_truth"].tolist() == [0, 1, 2, 3, 4]
        assert masks.attributes["data.root"] == str(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_the_stream_itself_is_refused(tmp_path: Path) -> None:
    from litdata import StreamingDataset

    folder = write_folder(tmp_path / "data", [Items(2, "uint8")[0][0]])
    stream: Any = StreamingDataset(str(folder))
    with pytest.raises(IgosError, match="StreamingDataset has no dataset.*LitDataDataModule for folders"):
        DatasetDataModule(stream).find_samples()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        IgosError, match=r"is not a folder that litdata.optimize wrote: cannot read index\.json"
    ):
        LitDataDataModule(str(tmp_path))
    (tmp_path / "index.json").write_text('{"chunks": 3}')
    with pytest.raises(IgosError, match="is not a folder that litdata.optimize wrote"):
        LitDataDataModule(str(tmp_path))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_two_ranks_explain_each_item_once(tmp_path: Path, server: Server) -> None:
    write_folder(tmp_path / "data", [Items(7, "uint8")[number][0] for number in range(7)])
    words = [
        "predict", "--trainer.accelerator=cpu", "--trainer.devices=2", "--model.network=Classifier",
        "--model.network.module=tiny.TinyNet", f"--model.network.input_size={SIZE}", "--model.mask_size=4",
        "--model.iterations=1", "--overlays.count=0", "--data=LitDataDataModule", "--data.root=data",
        "--data.batch_size=1", "--output=run",
    ]  # fmt: skip
    both = server.start(words, 2, tmp_path)
    assert both.wait() == [0, 0], both.output.read_text()
    with MaskFile(tmp_path / "run" / "masks.h5") as masks:
        assert masks.images["sample_id"].tolist() == [str(number) for number in range(7)]
        assert masks.images["status"].tolist() == ["ok"] * 7
