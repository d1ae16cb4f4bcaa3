"""COCO files, sound and broken, and the images that they name."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pytorch_lightning import LightningModule
from tiny import quiet_trainer, tiny_classifier

from igos_pl.data.batches import ImageBatch
from igos_pl.datamodules import COCODataModule
from igos_pl.datamodules.samples import check_samples
from igos_pl.demo.shapes import CATEGORY_IDS, write_shapes_dataset
from igos_pl.errors import IgosError
from igos_pl.evaluation.localization import box_region, mask_region
from igos_pl.run.run import Run
from igos_pl.settings import Configurable

WIDTH, HEIGHT = 40, 20
SQUARE = [5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]


class Collector(Configurable, LightningModule):
    """Hands back the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_classifier(input_size=16)

    def predict_step(self, batch: ImageBatch, batch_idx: int = 0) -> ImageBatch:
        return batch


def an_image(number: Any = 7, **changes: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} | changes


def an_object(number: Any = 1, **changes: Any) -> dict[str, Any]:
    entry = {"id": number, "image_id": 7, "category_id": 18, "bbox": [5.0, 5.0, 10.0, 10.0], "iscrowd": 0}
    return entry | changes


def content(*objects: Any, **changes: Any) -> dict[str, Any]:
    """An instances file's content: two images, of which one has the objects."""
    return {
        "images": [an_image(7), an_image(3)],
        "categories": [{"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}],
        "annotations": list(objects),
    } | changes


Writer = Callable[..., COCODataModule]


@pytest.fixture
def data_of(tmp_path: Path) -> Writer:
    """Write a file's content, and give the DataModule of it."""

    def write(written: Any, **arguments: Any) -> COCODataModule:
        path = tmp_path / "instances.json"
        path.write_text(written if isinstance(written, str) else json.dumps(written))
        return COCODataModule(str(tmp_path), str(path), **arguments)

    return write


def batches_of(data: COCODataModule, folder: Path) -> list[ImageBatch]:
    batches: Any = quiet_trainer(folder).predict(Collector(), data)
    return list(batches)


# --- what is read -----------------------------------------------------------------------------------------


def test_images_objects_and_ids(data_of: Writer, tmp_path: Path) -> None:
    objects = an_object(11), an_object(5, category_id=90, bbox=[0, 0, 1.5, 2])
    first, second = data_of(content(*objects)).find_samples()
    assert (first.id, first.path) == ("7", str(tmp_path / "7.png"))
    np.testing.assert_array_equal(first.truth.boxes, [[5, 5, 15, 15], [0, 0, 1.5, 2]])
    assert first.truth.boxes.dtype == np.float32
    assert first.truth.names == ("dog", "toothbrush")
    assert first.truth.ids == (11, 5)
    assert first.truth.instance_masks == (None, None)
    assert first.truth.label == -1
    assert second.id == "3"
    assert second.truth.boxes.shape == (0, 4)


def test_text_ids_and_subfolders(data_of: Writer, tmp_path: Path) -> None:
    written = content(an_object(image_id="a"), images=[an_image("a", file_name="deep/a.png")])
    (sample,) = data_of(written).find_samples()
    assert (sample.id, sample.path, sample.truth.ids) == ("a", str(tmp_path / "deep" / "a.png"), (1,))


def test_nothing_is_printed(data_of: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    data_of(content(an_object())).find_samples()
    assert capsys.readouterr() == ("", "")


def test_without_annotations_all_images_are_taken(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("below/a.png", "b.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / name)
    samples = COCODataModule(str(tmp_path)).find_samples()
    assert [sample.id for sample in samples] == ["b.png", "below/a.png"]
    assert all(len(sample.truth.boxes) == 0 for sample in samples)


def test_description_names_the_file(data_of: Writer, tmp_path: Path) -> None:
    described = data_of(content(), resize="crop").describe()
    assert described["resize"] == "crop"
    assert described["annotations"] == str((tmp_path / "instances.json").resolve())
    assert COCODataModule(str(tmp_path)).describe()["annotations"] == "none"
    trainer = quiet_trainer(tmp_path / "run")
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "7.png")
    trainer.predict(Collector(), data_of(content(), resize="crop"))
    configuration = Run.of(trainer).configuration
    assert configuration["data"] == "COCODataModule"
    assert {f"data.{key}": value for key, value in described.items()}.items() <= configuration.items()


# --- masks ------------------------------------------------------------------------------------------------

DRAWN = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
DRAWN[2:9, 30:38] = 1
COMPRESSED = coco_mask.encode(DRAWN)
COUNTS = [30 * HEIGHT + 2] + [7, 13] * 7 + [7, 2 * HEIGHT + 11]


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([SQUARE], box_region(np.array([5, 5, 15, 15]), HEIGHT, WIDTH)),
        ([SQUARE, [30, 2, 38, 2, 38, 9, 30, 9]], box_region(np.array([5, 5, 15, 15]), HEIGHT, WIDTH) | DRAWN),
        # Two points are no area; four numbers would be taken for a box.
        ([SQUARE, [1, 1, 30, 10]], box_region(np.array([5, 5, 15, 15]), HEIGHT, WIDTH)),
        ({"size": [HEIGHT, WIDTH], "counts": COMPRESSED["counts"].decode()}, DRAWN),
        ({"size": [HEIGHT, WIDTH], "counts": COUNTS}, DRAWN),
    ],
    ids=["polygon", "two polygons", "short polygon", "compressed RLE", "counts"],
)
def test_masks(data_of: Writer, segmentation: Any, expected: Any) -> None:
    (mask,) = data_of(content(an_object(segmentation=segmentation))).find_samples()[0].truth.instance_masks
    assert mask is not None
    assert mask["size"] == [HEIGHT, WIDTH]
    np.testing.assert_array_equal(mask_region(mask), expected)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 1, 30, 10]],
        [[float("nan")] * 6],
        [[1e9, 0, 5, 5, 0, 5]],
        [[50, 5, 60, 5, 60, 15]],
        SQUARE,
        [["a"] * 6],
        {"size": [WIDTH, HEIGHT], "counts": COUNTS},
        {"size": [HEIGHT, WIDTH], "counts": [1, 2, 3]},
        {"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]},
        {"size": [HEIGHT, WIDTH], "counts": []},
        {"size": [HEIGHT, WIDTH], "counts": "junk"},
        {"size": [HEIGHT, WIDTH], "counts": "o" * 33},  # without an end, which pycocotools runs past
        {"size": [HEIGHT, WIDTH], "counts": "\u00e9"},
        {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]},
        {"size": [HEIGHT, WIDTH]},
        "nothing",
        5,
    ],
    ids=str,
)
def test_bad_masks_leave_the_box(
    data_of: Writer, segmentation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    truth = data_of(content(an_object(segmentation=segmentation))).find_samples()[0].truth
    assert truth.instance_masks == (None,)
    assert len(truth.boxes) == 1
    assert "1 masks (not the boxes)" in caplog.text


@pytest.mark.parametrize("segmentation", [[], None])
def test_no_mask_is_no_mistake(data_of: Writer, segmentation: Any, caplog: pytest.LogCaptureFixture) -> None:
    truth = data_of(content(an_object(segmentation=segmentation))).find_samples()[0].truth
    assert truth.instance_masks == (None,)
    assert not caplog.records


# --- what is left out -------------------------------------------------------------------------------------


def test_boxes_are_clipped(data_of: Writer) -> None:
    objects = an_object(bbox=[-5, -3, 10, 10]), an_object(2, bbox=[35, 15, 100, 100])
    truth = data_of(content(*objects)).find_samples()[0].truth
    np.testing.assert_array_equal(truth.boxes, [[0, 0, 5, 7], [35, 15, WIDTH, HEIGHT]])


def test_left_out_objects_are_said_once(data_of: Writer, caplog: pytest.LogCaptureFixture) -> None:
    bad = [
        an_object(1, iscrowd=1, segmentation={"size": [HEIGHT, WIDTH], "counts": COUNTS}),
        an_object(2, bbox=[5, 5, 0, 10]),
        an_object(3, bbox=[5, 5, 10, -2]),
        an_object(4, bbox=[float("nan"), 5, 10, 10]),
        an_object(5, bbox=[5, 5, float("inf"), 10]),
        an_object(6, bbox=[WIDTH, 5, 10, 10]),
        an_object(7, bbox=[-20, 5, 20, 10]),
        an_object(8, bbox=[5, HEIGHT + 1, 10, 10]),
    ]
    data = data_of(content(*bad, an_object(9, segmentation=[SQUARE])))
    with caplog.at_level(logging.WARNING):
        truth = data.find_samples()[0].truth
    assert truth.ids == (9,)
    assert len(truth.boxes) == len(truth.names) == len(truth.instance_masks) == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{data.annotations}: left out 1 crowd regions, 4 boxes without width or height, or with a"
        " value that is not finite,"
        " 3 boxes outside of their images"
    )


def test_nothing_left_out_is_not_said(data_of: Writer, caplog: pytest.LogCaptureFixture) -> None:
    data_of(content(an_object())).find_samples()
    assert not caplog.records


# --- what stops ---------------------------------------------------------------------------------------------


def without(entry: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in keys}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('{\n"images": [\n}', r"instances\.json, line 3, column 1: not valid JSON"),
        ("", r"instances\.json, line 1, column 1: not valid JSON"),
        ("[1, 2]", r"no COCO instances file: it has no list 'images', 'categories', 'annotations'"),
        (
            {"images": []},
            r"it has no list 'categories', 'annotations'\. Set annotations \(--data\.annotations\) to one",
        ),
        (without(content(), "annotations"), r"it has no list 'annotations'"),
        (content(annotations={}), r"it has no list 'annotations'"),
        (content(images=[]), r"names no images"),
        (content(images=["7.png"]), r"images\[0\] lacks 'id', 'file_name', 'width', 'height'"),
        (content(images=[an_image(), without(an_image(), "file_name")]), r"images\[1\] lacks 'file_name':"),
        (content(images=[without(an_image(), "width")]), r"images\[0\] lacks 'width':"),
        (content(images=[an_image(file_name="")]), r"image 7: file_name must be the path of a picture"),
        (content(images=[an_image(file_name=None)]), r"image 7: file_name .* but is None"),
        (content(images=[an_image(height=0)]), r"image 7: height must be a number of pixels, but is 0"),
        (content(images=[an_image(width="40")]), r"image 7: width must be a number of pixels, but is '40'"),
        (content(images=[an_image(3), an_image(7), an_image(3)]), r"images\[2\]: the id 3 occurs twice"),
        (
            content(images=[an_image([3])]),
            r"images\[0\]: an id is a whole number or a text, but this is \[3\]",
        ),
        (content(categories=[{"id": 18}]), r"categories\[0\] lacks 'name'"),
        (content(categories=[{"id": 1, "name": "a"}] * 2), r"categories\[1\]: the id 1 occurs twice"),
        (content(an_object(), an_object(image_id=8)), r"annotations\[1\]: image_id is 8, .* 2 ids in images"),
        (content(an_object(category_id=5)), r"annotations\[0\]: category_id is 5, .* 2 ids in categories"),
        (content(an_object(category_id=[5])), r"annotations\[0\]: category_id is \[5\]"),
        (content(without(an_object(), "bbox")), r"annotations\[0\] lacks 'bbox'"),
        (content(5), r"annotations\[0\] lacks 'id', 'image_id', 'category_id', 'bbox'"),
        (content(an_object(bbox=[1, 2, 3])), r"annotations\[0\]: bbox must be four numbers"),
        (content(an_object(bbox=[1, 2, 3, "4"])), r"annotations\[0\]: bbox must be four numbers"),
        (content(an_object("one")), r"annotations\[0\]: id must be a whole number, but is 'one'"),
    ],
    ids=str,
)
def test_broken_files_are_named(data_of: Writer, written: Any, message: str) -> None:
    with pytest.raises(IgosError, match=message):
        data_of(written).find_samples()


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(
        IgosError, match=r"no annotations file .*nowhere\.json: correct annotations \(--data\.annotations\)"
    ):
        COCODataModule(str(tmp_path), str(tmp_path / "nowhere.json")).find_samples()
    with pytest.raises(IgosError, match=r"no folder .*nowhere.*--data\.root"):
        COCODataModule(str(tmp_path / "nowhere"), str(tmp_path / "nowhere.json")).find_samples()


def test_picture_instead_of_json(tmp_path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    with pytest.raises(IgosError, match=r"a\.png is not a JSON"):
        COCODataModule(str(tmp_path), str(tmp_path / "a.png")).find_samples()


# --- streaming ----------------------------------------------------------------------------------------------


def test_missing_pictures_do_not_stop_the_run(data_of: Writer, tmp_path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(tmp_path / "3.png")
    (batch,) = batches_of(data_of(content(an_object()), num_workers=0), tmp_path)
    assert [record.sample_id for record in batch.records] == ["3"]
    assert batch.images.shape == (1, 3, 16, 16)
    assert not batch.failures
    (unread,) = batch.unread  # it may be there the next time
    assert unread.sample_id == "7"
    assert "no such file" in unread.message.lower()
    assert unread.path == str(tmp_path / "7.png")


def test_a_folder_without_any_of_the_pictures_is_refused(data_of: Writer, tmp_path: Path) -> None:
    message = r"names 2 images, but none is in the folder .*7\.png, for example\): set root \(--data\.root\)"
    with pytest.raises(IgosError, match=message):
        batches_of(data_of(content(), num_workers=0), tmp_path)


def test_objects_of_a_turned_image_are_left_out(data_of: Writer, tmp_path: Path) -> None:
    """Their masks show it: they are of the stored pixels, which an EXIF tag turns by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "7.png", exif=exif)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "3.png")
    objects = an_object(1, segmentation=[SQUARE]), an_object(2, segmentation=[SQUARE]), an_object(3)
    upright = an_object(4, image_id=3, segmentation=[SQUARE])
    (batch,) = batches_of(data_of(content(*objects, upright), num_workers=0), tmp_path)
    found = {
        record.sample_id: (record, truth) for record, truth in zip(batch.records, batch.truth, strict=True)
    }
    record, truth = found["7"]
    assert (record.seen().width, record.seen().height) == (HEIGHT, WIDTH)
    assert (truth.ids, truth.instance_masks) == ((3,), (None,))
    assert record.message == "2 objects left out, because of masks of another size than the image"
    assert record.explained(0, ["no annotated object"]).message == f"{record.message}; no annotated object"
    record, truth = found["3"]
    assert (truth.ids, record.message) == ((4,), "")


def test_no_image_is_opened_at_the_start(
    data_of: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("an image was opened")

    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "7.png")
    monkeypatch.setattr(Image, "open", fail)
    assert len(data_of(content(an_object(segmentation=[SQUARE]))).find_samples()) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_generated_data_set(tmp_path: Path, workers: int) -> None:
    path = write_shapes_dataset(tmp_path, 5, seed=4)
    data = COCODataModule(str(tmp_path / "images"), str(path), batch_size=2, num_workers=workers)
    batches = batches_of(data, tmp_path / "run")
    assert [len(batch.images) for batch in batches] == [2, 2, 1]
    assert not any(batch.failures for batch in batches)
    records = [record for batch in batches for record in batch.records]
    truths = [truth for batch in batches for truth in batch.truth]

    coco = COCO(str(path))
    assert sorted(record.sample_id for record in records) == sorted(str(number) for number in coco.imgs)
    for record, truth in zip(records, truths, strict=True):
        annotations = coco.imgToAnns[int(record.sample_id)]
        assert list(truth.ids) == [item["id"] for item in annotations]
        assert [CATEGORY_IDS[name] for name in truth.names] == [item["category_id"] for item in annotations]
        frame = record.seen()
        assert frame.width != frame.height
        for item, box, mask in zip(annotations, truth.boxes, truth.instance_masks, strict=True):
            x, y, width, height = item["bbox"]
            np.testing.assert_allclose(box, [x, y, x + width, y + height])
            assert mask is not None
            np.testing.assert_array_equal(mask_region(mask), coco.annToMask(item))
            assert mask["size"] == [frame.height, frame.width]


def test_limit(tmp_path: Path) -> None:
    path = write_shapes_dataset(tmp_path, 3, seed=4)
    data = COCODataModule(str(tmp_path / "images"), str(path), limit=2, num_workers=0)
    assert sum(len(batch.images) for batch in batches_of(data, tmp_path / "run")) == 2


ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, -0.0, 1e308, float("nan"), float("inf"), 10**400, 2**53 + 1, 2**63,
    -(2**63), "", "0", "x" * 5000, "a\0b", "\ud800", "../../etc/passwd", "/dev/zero", [], [None], [[]],
    [1, 2, 3], [1, 2, 3, 4], [1e308] * 4, [10**400] * 4, [-5, -5, 1e9, 1e9], [["a"] * 6],
    [[float("nan")] * 6], [[1e300] * 6], [[1, 1, 9, 1, 1]], [[[1, 1]] * 6], {}, {"a": 1},
    {"size": [20, 40], "counts": [800]}, {"size": [20, 40], "counts": [10**400]},
    {"size": [20, 40], "counts": ["a"]}, {"size": [20, 40], "counts": 5},
    {"size": [20, 40], "counts": "\u00e9"}, {"size": [20, 40], "counts": "0"},
    {"size": [20, 40], "counts": []}, {"size": None, "counts": []},
    {"size": [2**40, 2**40], "counts": [2**80]}, {"size": [20, 40]},
]  # fmt: skip
MISSING = object()


@pytest.mark.filterwarnings("ignore")
def test_every_odd_value_is_accepted_left_out_or_refused(data_of: Writer, caplog: Any) -> None:
    """Each key of each kind of entry, replaced by each odd value, alone."""
    outcomes = {"accepted": 0, "told": 0, "refused": 0}
    whole = content(an_object(1, segmentation=[SQUARE], area=100.0), an_object(2, bbox=[1, 1, 5, 5]))
    places: list[tuple[Any, ...]] = [
        *((kind,) for kind in whole),
        *((kind, 0) for kind in whole),
        *((kind, 0, key) for kind, entries in whole.items() for key in entries[0]),
    ]
    for place in places:
        for value in [*ODD, MISSING]:
            changed = json.loads(json.dumps(whole))
            holder = changed
            for key in place[:-1]:
                holder = holder[key]
            if value is MISSING:
                del holder[place[-1]]
            else:
                holder[place[-1]] = value
            caplog.clear()
            try:
                samples = data_of(changed).find_samples()
                check_samples(samples)
            except IgosError as error:
                assert str(error)
                outcomes["refused"] += 1
                continue
            outcomes["told" if caplog.messages else "accepted"] += 1
            for sample in samples:
                truth = sample.truth
                count = len(truth.names)
                assert truth.boxes.shape == (count, 4)
                assert np.isfinite(truth.boxes).all()
                assert (truth.boxes[:, 2:] > truth.boxes[:, :2]).all()
                assert len(truth.ids) == len(truth.instance_masks) == count
                assert all(isinstance(number, int) for number in truth.ids)
                for mask in truth.instance_masks:
                    assert mask is None or coco_mask.decode(mask).any()
    assert min(outcomes.values()) > 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"images": [' + "9" * 5001 + "]}", "a number with too many digits"),
        ('{"images": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ],
    ids=["open", "digits", "closed"],
)
def test_json_beyond_python(data_of: Writer, text: str, message: str) -> None:
    with pytest.raises(IgosError, match=message):
        data_of(text).find_samples()


def test_annotation_ids_are_unique_and_whole(data_of: Writer) -> None:
    with pytest.raises(
        IgosError, match=r"annotations\[1\]: the id 5 occurs twice; ids of annotations must be"
    ):
        data_of(content(an_object(5), an_object(5))).find_samples()
    samples = data_of(content(an_object(2**60 + 1), an_object(2**60 + 2))).find_samples()
    assert samples[0].truth.ids == (2**60 + 1, 2**60 + 2)


@pytest.mark.parametrize("name", ["../7.png", "/etc/7.png", "a/../../7.png"])
def test_file_names_stay_in_the_root(data_of: Writer, name: str, tmp_path: Path) -> None:
    with pytest.raises(
        IgosError, match="image 7: .*7.png lies outside of .*: set root .--data.root. to a folder that"
    ):
        data_of(content(images=[an_image(7, file_name=name)])).find_samples()
    for inside in ("7.png", "a/../7.png", str(tmp_path / "7.png")):
        assert data_of(content(images=[an_image(7, file_name=inside)])).find_samples()
