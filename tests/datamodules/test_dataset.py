"""Anyone's map-style data set: what its items may be, what tells it from others, and how its runs go on."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback
from tiny import CLASSES, SIZE, Items, TinyNet, pictures, quiet_trainer, tiny_classifier
from torch.utils.data import DataLoader, Dataset, IterableDataset

from igos_pl.callbacks import MaskWriter, OverlayWriter
from igos_pl.data.batches import ImageBatch
from igos_pl.data.inputs import NetworkInput
from igos_pl.data.preprocessing import Resize
from igos_pl.data.targets import Targets
from igos_pl.datamodules import DatasetDataModule
from igos_pl.datamodules.samples import ImageDataset, Sample
from igos_pl.errors import IgosError, UnreadError
from igos_pl.explainer import Explainer
from igos_pl.models.detector import Detections, Detector
from igos_pl.run.run import Run
from igos_pl.store import MaskFile

sys.path.insert(0, str(Path(__file__).parents[1]))

from ranks import Server, environment

NAMES = ("plane", "car", "Bird of Prey", "cat, house cat", "deer")


class Watch(Callback):
    """Keeps the batches that reach the network."""

    def __init__(self) -> None:
        self.batches: list[ImageBatch] = []

    def on_predict_batch_start(self, trainer: Any, module: Any, batch: ImageBatch, *_: Any) -> None:
        self.batches.append(batch)

    @property
    def images(self) -> torch.Tensor:
        return torch.cat([batch.images for batch in self.batches])


def explainer(**network: Any) -> Explainer:
    return Explainer(tiny_classifier(**network), mask_size=4, iterations=1, path_steps=1)


def run(dataset: Any, output: Path, network: dict[str, Any] | None = None, **options: Any) -> Watch:
    """Explain a data set; returns what reached the network."""
    watch = Watch()
    data = DatasetDataModule(dataset, **{"num_workers": 0, "batch_size": 2, **options})
    trainer = quiet_trainer(output, callbacks=[MaskWriter(), watch])
    trainer.predict(explainer(**(network or {})), data, return_predictions=False)
    return watch


def truths(watch: Watch) -> list[int]:
    return [truth.label for batch in watch.batches for truth in batch.truth]


def jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_items_of_all_kinds_become_the_same_input(tmp_path: Path) -> None:
    pixels = pictures(3)
    channels_last = [image.permute(1, 2, 0).numpy() for image in pixels]
    pil = [Image.fromarray(array) for array in channels_last]
    kinds: dict[str, list[Any]] = {
        "uint8": list(pixels),
        "arrays": channels_last,
        "pil": list(pil),
        "bytes": [jpeg(picture) for picture in pil],
        "tuples": [(picture, 2) for picture in pil],
        "lists": [[picture, torch.tensor(2), "more"] for picture in pil],
        "dicts": [{"img": picture, "label": np.int64(2), "index": 7} for picture in pil],
        "names": [{"jpg": jpeg(picture), "cls": "bird_of prey"} for picture in pil],
    }
    for name, items in kinds.items():
        watch = run(items, tmp_path / name, {"class_names": list(NAMES)})
        assert watch.images.dtype == torch.uint8, name
        assert torch.equal(watch.images, pixels), name
        known = 2 if name in ("tuples", "lists", "dicts", "names") else -1
        assert truths(watch) == [known] * 3, name
    floats = run([image / 255 for image in pixels], tmp_path / "floats")
    torch.testing.assert_close(floats.images, pixels / 255, rtol=0, atol=0)
    for name, arrays in (
        ("first", [image.numpy() / np.float32(255) for image in pixels]),
        ("last", [array / np.float32(255) for array in channels_last]),
    ):
        torch.testing.assert_close(run(arrays, tmp_path / name).images, pixels / 255, rtol=0, atol=1e-6)
    bare = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIZE**2, 5))
    flat = [array[..., 0] / np.float32(255) for array in channels_last]
    grey = run(flat, tmp_path / "grey", {"module": bare, "mean": [0.5], "std": [0.5]})
    torch.testing.assert_close(grey.images, pixels[:, :1] / 255, rtol=0, atol=1e-6)
    with MaskFile(tmp_path / "floats") as masks, MaskFile(tmp_path / "uint8") as others:
        np.testing.assert_allclose(masks.column("score"), others.column("score"), rtol=1e-6)


def test_pictures_are_preprocessed_and_tensors_are_not(tmp_path: Path) -> None:
    picture = Image.fromarray(pictures(1, 40)[0].permute(1, 2, 0).numpy()[:30])
    expected, frame = Resize((SIZE, SIZE))(picture)
    grey = picture.convert("L")
    watch = run([picture, torch.from_numpy(np.array(picture)).permute(2, 0, 1), grey], tmp_path / "run")
    assert torch.equal(watch.images[0], expected)
    assert torch.equal(watch.images[1], expected)
    assert torch.equal(watch.images[2], Resize((SIZE, SIZE))(grey.convert("RGB"))[0])
    assert [record.frame for batch in watch.batches for record in batch.records] == [frame] * 3
    assert (frame.width, frame.height) == (40, 30)


def test_normalized_tensors_are_not_normalized_again(tmp_path: Path) -> None:
    shares = pictures(3) / 255
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    normalized = (shares - mean[:, None, None]) / std[:, None, None]
    network = {"mean": mean.tolist(), "std": std.tolist()}
    plain = run(list(shares), tmp_path / "plain", network)
    watch = run(list(normalized), tmp_path / "normalized", network, normalized=True)
    torch.testing.assert_close(watch.images, shares, rtol=0, atol=1e-6)
    seen = tiny_classifier(**network).normalize(watch.images)
    torch.testing.assert_close(seen, normalized.contiguous(), rtol=0, atol=1e-5)
    torch.testing.assert_close(plain.images, shares)
    with MaskFile(tmp_path / "plain") as one, MaskFile(tmp_path / "normalized") as other:
        np.testing.assert_allclose(one.column("score"), other.column("score"), rtol=1e-5)
        assert (one.attributes["data.normalized"], other.attributes["data.normalized"]) == (0, 1)


@pytest.mark.parametrize(
    ("item", "options", "message"),
    [
        (torch.rand(3, 30, 30), {}, r"\(3, 30, 30\), but .* takes \(3, 24, 24\): add .*Resize\(\(24, 24\)\)"),
        (torch.rand(1, SIZE, SIZE), {}, r"\(1, 24, 24\), but the network takes \(3, 24, 24\)"),
        (torch.rand(SIZE, SIZE), {}, r"\(24, 24\), but the network takes"),
        (np.zeros((30, 30, 3), np.float32), {}, r"\(3, 30, 30\), but the network takes"),
        (np.zeros((3, 9, 3), np.float32), {}, r"\(3, 9, 3\): its channels may come first or last"),
        (np.zeros((2, 3, 9, 9), np.float32), {}, r"array of the shape \(2, 3, 9, 9\), but must be"),
        (torch.zeros(2, 9, 9, dtype=torch.uint8), {}, "only tensors with 1 or 3 channels can be scaled"),
        (np.zeros((9, 9, 7), np.uint8), {}, r"\(9, 9, 7\), but .* only tensors with 1 or 3 channels"),
        (torch.zeros(3, SIZE, SIZE, dtype=torch.int64), {}, "of torch.int64, but must be of torch.uint8"),
        (torch.rand(3, SIZE, SIZE) * 255, {}, "but 0 to 1 is expected: set normalized=True"),
        (torch.randn(3, SIZE, SIZE), {}, "but 0 to 1 is expected: set normalized=True"),
        (torch.full((3, SIZE, SIZE), torch.nan), {}, "values that are not finite"),
        (torch.zeros(3, SIZE, SIZE).byte(), {"normalized": True}, "8-bit values, .*data.normalized"),
        (Image.new("L", (9, 9)), {"normalized": True}, "8-bit values, .*data.normalized"),
        (torch.randn(3, SIZE, SIZE) * 9, {"normalized": True}, "normalisation .mean 0.485, 0.456, 0.406"),
        ({"label": 3}, {}, r"a dict with no image \(its keys: 'label'\)"),
        ({"a": Image.new("L", (9, 9)), "b": Image.new("L", (9, 9))}, {}, "images under 'a', 'b'.*image_key"),
        ({"a": Image.new("L", (9, 9))}, {"image_key": "c"}, "a dict without 'c'; its keys: 'a'"),
        ("picture.jpg", {}, "the image is a str, but must be a tensor"),
        ((Image.new("L", (9, 9)), "car"), {}, "'car' is not a class of the network, whose class"),
        ((), {}, "the item is empty"),
    ],
)  # fmt: skip
def test_items_that_the_network_does_not_take_are_refused_at_once(
    tmp_path: Path, item: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(IgosError, match=rf"^list\[0\]: .*{message}"):
        run([item, item], tmp_path / "run", **options)
    assert not list((tmp_path / "run").rglob("*.h5"))


def test_what_is_no_map_style_data_set_is_refused(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(pictures(2))

    for data, message in (
        (Stream(), "Stream has no dataset.index. and len.dataset.*use WebDatasetDataModule"),
        (iter([1]), "list_iterator has no dataset"),
        (DataLoader(Items(3)), r"dataset is a DataLoader: pass its data set, loader\.dataset"),
        ([], "list has no items"),
    ):
        with pytest.raises(IgosError, match=message):
            run(data, tmp_path / "run")


def test_class_names_with_mistakes_are_recorded(tmp_path: Path) -> None:
    items = [
        (image, name) for image, name in zip(pictures(4), ("CAR", "house-cat", "deerr", "plane"), strict=True)
    ]
    watch = run(items, tmp_path / "run", {"class_names": list(NAMES)})
    assert truths(watch) == [1, 3, 0]
    with MaskFile(tmp_path / "run") as masks:
        assert masks.images["status"].tolist() == ["ok", "ok", "unreadable", "ok"]
        assert masks.images["message"][2] == "'deerr' is not a class of the network (did you mean deer?)"
        assert masks.images["ground_truth"].tolist() == [1, 3, -1, 0]


def test_other_annotations_are_named_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run([(image, {"wound": "deep"}) for image in pictures(2)], tmp_path / "run")
    assert "list[0] comes with a dict, which is neither a label nor boxes with labels" in caplog.text


def test_boxes_are_pixels_of_the_image(tmp_path: Path) -> None:
    watch = run(Items(3, "boxes"), tmp_path / "run", {"class_names": list(NAMES)})
    (truth, _), (other,) = (batch.truth_in_input() for batch in watch.batches)
    assert truth.boxes.tolist() == [[1, 2, 9, 12]]
    assert (truth.names, other.names) == (("plane",), ("Bird of Prey",))
    picture = Image.new("RGB", (2 * SIZE, SIZE))
    target = {"boxes": [[10, 3, 20, 6]], "labels": [1]}
    watch = run([{"image": picture, **target}, (picture, target)], tmp_path / "pil")
    assert [truth.boxes.tolist() for truth in watch.batches[0].truth_in_input()] == [[[5, 3, 10, 6]]] * 2


def test_ids_are_given_or_counted(tmp_path: Path) -> None:
    for number, (ids, found) in enumerate(
        [
            (None, ["0", "1", "2"]),
            (["b", "a", "c"], ["b", "a", "c"]),
            ([7, 8, 9], ["7", "8", "9"]),
            (lambda index: f"picture {index}", ["picture 0", "picture 1", "picture 2"]),
        ]
    ):
        run(Items(3), tmp_path / str(number), ids=ids)
        with MaskFile(tmp_path / str(number)) as masks:
            assert masks.images["sample_id"].tolist() == sorted(found)
            assert masks.images["ground_truth"].tolist() == [found.index(name) for name in sorted(found)]
            assert masks.images["path"].tolist() == [f"Items[{found.index(name)}]" for name in sorted(found)]
    for bad, message in (
        (["a", "b"], "ids has 2 names, but the data set has 3 items"),
        (["a", "b", "a"], r"Two images have the id 'a': Items\[0\] and Items\[2\]"),
        (["a", "b\n", "c"], "a line break"),
    ):
        with pytest.raises(IgosError, match=message):
            run(Items(3), tmp_path / "bad", ids=bad)


def test_another_data_set_is_refused_in_the_folder(tmp_path: Path) -> None:
    class Other(Items):
        pass

    run(Items(4), tmp_path / "run", limit=1)
    for changed, options, key in (
        (Items(5), {}, "data.length: there 4, now 5"),
        (Items(4, size=SIZE + 1, kind="pil"), {}, "the first or the last image has another content"),
        (Items(4), {"ids": list("abcd")}, "first at number 0: there '0', now 'a'"),
        (Items(4), {"ids": ["0", "1", "c", "d"]}, "somewhere from number 1 on"),
        (Other(4), {}, "data.dataset: there 'tiny.Items', now '.*Other'"),
        (Items(4), {"normalized": True}, "data.normalized"),
    ):
        with pytest.raises(IgosError, match=f"results of another configuration .*{key}"):
            run(changed, tmp_path / "run", **options)
    assert len(run(Items(4), tmp_path / "run").batches) == 2


def test_random_transforms_are_refused(tmp_path: Path) -> None:
    class Random(Items):
        def __getitem__(self, index: int) -> Any:
            return torch.rand(3, SIZE, SIZE)

    with pytest.raises(IgosError, match=r"Random\[0\] is another image each time.*random transforms"):
        run(Random(3), tmp_path / "run")


class Trouble(Items):
    """Raises an exception of a kind at an item, until it is mended."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__(4)
        self.error = error

    def __getitem__(self, index: int) -> Any:
        if index == 1 and self.error is not None:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ValueError("no number"), False),
        (KeyError("no key"), False),
        (OSError("image file is truncated"), False),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (ConnectionError("no route"), True),
        (TimeoutError("too late"), True),
        (MemoryError("no room"), True),
    ],
)
def test_an_exception_at_an_item_is_its_own(tmp_path: Path, error: Exception, passes: bool) -> None:
    run(Trouble(error), tmp_path / "run", num_workers=2 if isinstance(error, KeyError) else 0)
    with MaskFile(tmp_path / "run") as masks:
        found = dict(zip(masks.images["sample_id"].tolist(), masks.images["status"].tolist(), strict=True))
        messages = masks.images["message"].tolist()
    if passes:
        assert found == {"0": "ok", "2": "ok", "3": "ok"}
    else:
        assert found == {"0": "ok", "1": "unreadable", "2": "ok", "3": "ok"}
        assert messages[1] == f"the data set raised {type(error).__name__}: {error}"
    again = run(Trouble(None), tmp_path / "run")
    assert sum(len(batch.records) for batch in again.batches) == (1 if passes else 0)
    retried = run(Trouble(None), tmp_path / "run", retry_unreadable=True)
    assert sum(len(batch.records) for batch in retried.batches) == (0 if passes else 1)
    with MaskFile(tmp_path / "run") as masks:
        assert masks.images["status"].tolist() == ["ok"] * 4


def test_a_first_item_that_is_broken_is_recorded_or_awaited(tmp_path: Path) -> None:
    run(Items(3, broken=[0]), tmp_path / "broken")
    run(Items(3, broken=[0]), tmp_path / "broken")
    with MaskFile(tmp_path / "broken") as masks:
        assert masks.images["status"].tolist() == ["unreadable", "ok", "ok"]

    class Away(Items):
        def __getitem__(self, index: int) -> Any:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(UnreadError, match=r"Away\[0\]: .*Input/output error. Run the same command again"):
        run(Away(3), tmp_path / "away")


def test_overlays_show_what_has_no_file(tmp_path: Path) -> None:
    data = DatasetDataModule(Items(2, "pil", 40), num_workers=0, resize="crop")
    trainer = quiet_trainer(tmp_path, callbacks=[MaskWriter(), OverlayWriter(2)])
    trainer.predict(explainer(), data, return_predictions=False)
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["0.png", "1.png"]
    data = DatasetDataModule(Items(5, "uint8"), num_workers=0, limit=3)
    quiet_trainer(tmp_path / "later", callbacks=[MaskWriter()]).predict(explainer(), data)
    trainer = quiet_trainer(tmp_path / "later", callbacks=[MaskWriter(), OverlayWriter(4)])
    with pytest.warns(UserWarning, match=r"No overlays of 2 earlier.*Items\[0\], for example") as warned:
        trainer.predict(explainer(), DatasetDataModule(Items(5, "uint8"), num_workers=0))
    assert sum("No overlay" in str(one.message) for one in warned) == 1
    assert sorted(path.name for path in (tmp_path / "later/overlays").iterdir()) == ["3.png", "4.png"]


def test_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=list("abcde"))})
    rows = [{"img": picture, "label": label} for picture, label in map(Items(4, "pil").__getitem__, range(4))]
    watch = run(datasets.Dataset.from_list(rows, features=features), tmp_path / "run", num_workers=2)
    assert torch.equal(watch.images, pictures(4))
    assert truths(watch) == [0, 1, 2, 3]


def test_torchvision_transforms(tmp_path: Path) -> None:
    from torchvision import datasets, transforms

    shape = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.ToTensor()])
    fake = datasets.FakeData(3, (3, 30, 30), CLASSES, transform=shape)
    watch = run(fake, tmp_path / "run")
    torch.testing.assert_close(watch.images, torch.stack([fake[i][0] for i in range(3)]), rtol=0, atol=0)
    assert truths(watch) == [fake[i][1] for i in range(3)]


def test_input_sizes_and_channels_of_the_network() -> None:
    to_input = NetworkInput(Resize((4, 6), channels=4), (4, 6), [0.5] * 4, [0.5] * 4)
    image = torch.rand(4, 4, 6)
    pixels, frame = to_input(image)
    assert pixels is image
    assert (frame.width, frame.height, frame.box, frame.input_size) == (6, 4, (0, 0, 6, 4), (4, 6))
    assert to_input(image.double() * 1.2)[0].dtype == torch.float32  # bicubic scaling goes beyond 1


WORDS = [
    "predict", "--trainer.accelerator=cpu", "--model.network=Classifier",
    "--model.network.module=tiny.TinyNet", f"--model.network.input_size={SIZE}", "--model.mask_size=4",
    "--model.iterations=1", "--overlays.count=0", "--data=DatasetDataModule", "--data.dataset=tiny.Items",
    "--data.dataset.number=9", "--data.batch_size=1", "--output=run",
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_two_ranks_and_shards_explain_each_item_once(tmp_path: Path, server: Server) -> None:
    first = server.start([*WORDS, "--data.shard=1/3"], 1, tmp_path)
    assert first.wait() == [0]
    with MaskFile(tmp_path / "run") as masks:
        assert masks.images["sample_id"].tolist() == ["1", "4", "7"]
    both = server.start([*WORDS, "--trainer.devices=2"], 2, tmp_path)
    assert both.wait() == [0, 0], both.output.read_text()
    assert "6 of 9 images to explain: 3 were explained before" in both.output.read_text()
    with MaskFile(tmp_path / "run" / "masks.h5") as masks:
        assert masks.images["sample_id"].tolist() == [str(index) for index in range(9)]
    assert len(list((tmp_path / "run" / "segments").glob("*.h5"))) == 3  # one of each process


def test_a_run_of_python_knows_its_items(tmp_path: Path) -> None:
    data = DatasetDataModule(Items(5), num_workers=0, limit=3)
    trainer = quiet_trainer(tmp_path)
    trainer.predict(explainer(), data, return_predictions=False)
    assert list(Run.of(trainer).expected) == ["0", "1", "2"]
    assert isinstance(data.dataset, Dataset)


class OneBox(Detector):
    """Finds each class at the box of `Items`."""

    def detect(self, images: torch.Tensor) -> list[Detections]:
        labels = torch.arange(CLASSES)
        box = torch.tensor([[1.0, 2, 9, 12]]).expand(CLASSES, 4)
        return [Detections(box, labels, scores, labels) for scores in self.module(images).softmax(1)]

    def score(self, images: torch.Tensor, targets: Targets) -> torch.Tensor:
        return self.module(images).softmax(1).gather(1, targets.label[:, None])[:, 0]


def test_what_is_known_only_when_it_is_read_may_be_explained(tmp_path: Path) -> None:
    labelled = run(Items(3), tmp_path / "labels", {"targets": "ground_truth"})
    assert truths(labelled) == [0, 1, 2]
    with MaskFile(tmp_path / "labels") as masks:
        assert masks.column("label").tolist() == [0, 1, 2]
    network = OneBox(
        TinyNet(), class_names=list(NAMES), input_size=SIZE, targets="ground_truth", score_threshold=0
    )
    network.freeze()
    boxes = Explainer(network, mask_size=4, iterations=1, path_steps=1)
    data = DatasetDataModule(Items(3, "boxes"), num_workers=0)
    quiet_trainer(tmp_path / "boxes", callbacks=[MaskWriter()]).predict(boxes, data)
    with MaskFile(tmp_path / "boxes") as masks:
        assert masks.column("label").tolist() == [0, 1, 2]
    with pytest.raises(IgosError, match="3 of 3 images have no label"):
        run(list(pictures(3)), tmp_path / "none", {"targets": "ground_truth"}, batch_size=3)


@pytest.mark.parametrize("workers", [0, 1])
def test_malformed_items_are_their_own_failure(tmp_path: Path, workers: int) -> None:
    image = pictures(1)[0]
    good = {"boxes": [[1, 2, 9, 12]], "labels": [1]}
    items = [
        (image, good),
        (image, {**good, "boxes": [[1, 2, 3]]}),
        (image, {**good, "boxes": [[1, 2, 3], [1, 2]]}),
        (image, {**good, "labels": [1.5]}),
        (image, {"boxes": [], "labels": []}),
        Image.open(io.BytesIO(jpeg(Image.new("RGB", (400, 300)))[:200])),  # decoded later
        (image, good),
        (image, -5),
        (image, 2**31),
        (image, -1),
    ]
    run(items, tmp_path / "run", {"class_names": list(NAMES)}, num_workers=workers)
    with MaskFile(tmp_path / "run") as masks:
        statuses, messages = masks.images["status"].tolist(), masks.images["message"].tolist()
    assert [place for place, status in enumerate(statuses) if status == "unreadable"] == [1, 2, 3, 5, 7, 8]
    assert messages[1] == "boxes must be (n, 4), x1 y1 x2 y2 of each, but are (1, 3)"
    assert messages[2].startswith("boxes must be (n, 4) numbers x1 y1 x2 y2: ")
    assert messages[3] == "labels of boxes must be whole numbers or class names, but one is 1.5"
    assert messages[5].startswith("reading it raised OSError: ")
    assert messages[7] == "labels count from 0, but this is -5"
    assert messages[8] == "the label 2147483648 is too large; labels count from 0"


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("odd"), "unreadable"), (MemoryError("no room"), "unread")]
)
def test_any_exception_of_a_sample_is_its_own(error: Exception, status: str) -> None:
    class Odd(Sample):
        def load(self) -> Any:
            raise error

    to_input = NetworkInput(Resize((SIZE, SIZE)), (SIZE, SIZE), [0.5] * 3, [0.5] * 3)
    batch = ImageDataset([Odd("a", "a")], to_input)[[0]]
    (record,) = batch.failures + batch.unread
    assert (record.status, record.message) == (status, f"reading it raised {type(error).__name__}: {error}")
    assert len(batch.failures) == (status == "unreadable")


ENDS = """
import tiny
from igos_pl import DatasetDataModule, Explainer
from igos_pl.datamodules.samples import ImageDataset

def breaks(self, sample):
    raise AssertionError("a bug in a data-loading process")

ImageDataset._item = breaks
data = DatasetDataModule(tiny.Items(6), num_workers=1, batch_size=1)
explainer = Explainer(tiny.tiny_classifier(), mask_size=4, iterations=1, path_steps=1)
tiny.quiet_trainer("run").predict(explainer, data)
"""


def test_a_process_ends_after_an_exception_of_its_workers(tmp_path: Path) -> None:
    """Python waits for workers at its exit, and they ignore its signal."""
    command = [sys.executable, "-c", ENDS]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert b"a bug in a data-loading process" in done.stderr


def test_a_run_goes_on_whatever_its_next_item_is(tmp_path: Path) -> None:
    items: list[Any] = [*pictures(2), torch.rand(3, SIZE + 1, SIZE), (pictures(1)[0], "car")]
    run(items, tmp_path / "run", limit=2)
    run(items, tmp_path / "run")
    run(items, tmp_path / "undisturbed")
    for folder in ("run", "undisturbed"):
        with MaskFile(tmp_path / folder) as masks:
            assert masks.images["status"].tolist() == ["ok", "ok", "unreadable", "unreadable"]


@pytest.mark.parametrize(
    "first",
    [b"no picture", (pictures(1)[0], "carr"), (pictures(1)[0], {"boxes": [[1, 2]], "labels": [1]})],
    ids=["damaged", "misspelt", "boxes"],
)
def test_a_fault_of_the_first_item_alone_is_recorded(tmp_path: Path, first: Any) -> None:
    run([first, *pictures(2)], tmp_path / "run", {"class_names": list(NAMES)})
    with MaskFile(tmp_path / "run") as masks:
        assert masks.images["status"].tolist() == ["unreadable", "ok", "ok"]
