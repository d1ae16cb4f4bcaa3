"""Pointing games with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from igos_pl.data.annotations import GroundTruth, Rle
from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import Frame
from igos_pl.data.records import ImageRecord
from igos_pl.data.targets import Targets
from igos_pl.datamodules import COCODataModule
from igos_pl.demo.shapes import write_shapes_dataset
from igos_pl.errors import IgosError
from igos_pl.evaluation.columns import localization_columns
from igos_pl.evaluation.localization import (
    box_region,
    energy_pointing_game,
    localize,
    mask_region,
    nothing_to_localize,
    pointing_game,
)

HEIGHT, WIDTH = 6, 10
KEYS = {"pointing_box", "energy_box", "pointing_mask", "energy_mask"}


def saliency_at(*pixels: tuple[int, int, float]) -> Any:
    saliency = np.zeros((HEIGHT, WIDTH), np.float32)
    for row, column, value in pixels:
        saliency[row, column] = value
    return saliency


def region_at(*pixels: tuple[int, int]) -> Any:
    return saliency_at(*((row, column, 1) for row, column in pixels)).astype(bool)


def encoded(region: Any) -> Rle:
    rle: Rle = coco_mask.encode(np.asfortranarray(region, dtype=np.uint8))
    return rle


# --- the games ------------------------------------------------------------------------------------------


def test_pointing_game() -> None:
    saliency = saliency_at((1, 8, 0.9), (4, 2, 0.8))
    assert pointing_game(saliency, region_at((1, 8)))
    assert not pointing_game(saliency, region_at((4, 2)))
    assert not pointing_game(saliency, region_at())


def test_first_of_equal_maxima_counts() -> None:
    saliency = saliency_at((4, 1, 1), (1, 8, 1))
    assert pointing_game(saliency, region_at((1, 8)))
    assert not pointing_game(saliency, region_at((4, 1)))


def test_energy_pointing_game() -> None:
    saliency = saliency_at((1, 8, 0.75), (4, 2, 0.25))
    assert energy_pointing_game(saliency, region_at((1, 8), (0, 0))) == 0.75
    assert energy_pointing_game(saliency, region_at()) == 0
    assert energy_pointing_game(saliency, np.ones_like(saliency, bool)) == 1


def test_constant_saliency_gets_the_share_of_the_region() -> None:
    region = box_region(np.array([1, 1, 4, 3]), HEIGHT, WIDTH)
    assert energy_pointing_game(np.full((HEIGHT, WIDTH), 0.3), region) == pytest.approx(6 / 60)


def test_no_saliency_has_no_energy() -> None:
    assert np.isnan(energy_pointing_game(saliency_at(), region_at((1, 8))))


@pytest.mark.parametrize("game", [pointing_game, energy_pointing_game])
def test_sizes_must_agree(game: Any) -> None:
    with pytest.raises(IgosError, match=r"\(h, w\), but have \(10, 6\) and \(6, 10\)"):
        game(saliency_at().T, region_at())


# --- regions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ([2, 1, 5, 3], slice(1, 3), slice(2, 5)),
        ([1.6, 0.5, 4.5, 2.4], slice(0, 2), slice(2, 4)),
        ([0, 0, WIDTH, HEIGHT], slice(None), slice(None)),
        ([-5, -5, 2, 2], slice(0, 2), slice(0, 2)),
        ([8, 4, 50, 50], slice(4, None), slice(8, None)),
        ([3.6, 2.7, 3.9, 2.9], slice(2, 3), slice(3, 4)),  # smaller than a pixel
        ([9.7, 5.8, 10, 6], slice(5, 6), slice(9, 10)),
        ([0, 0, 0.2, 0.2], slice(0, 1), slice(0, 1)),
        ([12, 1, 15, 3], slice(0, 0), slice(0, 0)),
        ([4, 1, 4, 3], slice(0, 0), slice(0, 0)),
        ([float("nan")] * 4, slice(0, 0), slice(0, 0)),
    ],
    ids=str,
)
def test_box_region(box: list[float], rows: slice, columns: slice) -> None:
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[rows, columns] = True
    np.testing.assert_array_equal(box_region(np.array(box), HEIGHT, WIDTH), expected)


def test_mask_region() -> None:
    region = region_at((0, 9), (5, 0), (2, 3))
    found = mask_region(encoded(region))
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, region)


@pytest.mark.parametrize("rle", [{"size": [6, 10], "counts": [60]}, {"size": [6, 10], "counts": b"a"}, {}])
def test_bad_mask(rle: Any) -> None:
    with pytest.raises(IgosError, match="cannot be decoded"):
        mask_region(rle)


# --- an object that was detected ------------------------------------------------------------------------

DOG, CAT = [1, 1, 5, 5], [5, 0, 9, 4]
TRUTH = GroundTruth(
    boxes=np.array([DOG, CAT, CAT], np.float32),
    names=("dog", "dog", "cat"),
    ids=(101, 102, 103),
    instance_masks=(encoded(region_at((1, 1), (2, 2))), None, None),
)


def test_localize() -> None:
    saliency = saliency_at((2, 2, 0.5), (1, 3, 0.25), (5, 9, 0.25))
    assert localize(saliency, TRUTH, 0) == {
        "pointing_box": 1.0,
        "energy_box": 0.75,
        "pointing_mask": 1.0,
        "energy_mask": 0.5,
    }


def test_a_miss() -> None:
    found = localize(saliency_at((1, 3, 0.75), (5, 9, 1)), TRUTH, 0)
    assert (found["pointing_box"], found["pointing_mask"], found["energy_mask"]) == (0, 0, 0)
    assert found["energy_box"] == pytest.approx(0.75 / 1.75)


def test_object_without_mask() -> None:
    found = localize(saliency_at((2, 6, 1)), TRUTH, 2)
    assert (found["pointing_box"], found["energy_box"]) == (1, 1)
    assert np.isnan([found["pointing_mask"], found["energy_mask"]]).all()


def test_boxes_alone() -> None:
    truth = GroundTruth(boxes=np.array([DOG], np.float32), names=("dog",), ids=(4,))
    found = localize(saliency_at((2, 2, 1)), truth, 0)
    assert found["pointing_box"] == 1
    assert np.isnan(found["pointing_mask"])


def test_nothing_detected() -> None:
    figures = nothing_to_localize()
    assert figures.keys() == KEYS
    assert np.isnan(list(figures.values())).all()


def test_saliency_that_is_not_finite() -> None:
    found = localize(saliency_at((2, 2, np.nan)), TRUTH, 0)
    assert found.keys() == KEYS
    assert np.isnan(list(found.values())).all()


def test_nothing_is_changed() -> None:
    saliency = saliency_at((2, 2, 1))
    before, boxes = saliency.copy(), TRUTH.boxes.copy()
    localize(saliency, TRUTH, 0)
    np.testing.assert_array_equal(saliency, before)
    np.testing.assert_array_equal(TRUTH.boxes, boxes)


def test_generated_objects_get_full_marks(tmp_path: Any) -> None:
    """Saliency that is an object's mask, in non-square pictures."""
    path = write_shapes_dataset(tmp_path, 3, seed=8)
    for sample in COCODataModule(str(tmp_path / "images"), str(path)).find_samples():
        truth = sample.truth
        assert truth.ids
        for place, rle in enumerate(truth.instance_masks):
            assert rle is not None
            found = localize(mask_region(rle).astype(np.float32), truth, place)
            assert set(found.values()) == {1.0}


# --- the columns ----------------------------------------------------------------------------------------


def rows_of(images: list[int], objects: list[int], boxes: list[list[float]]) -> Targets:
    image, place = torch.tensor(images), torch.tensor(objects)
    score = torch.ones(len(images))
    return Targets(image, image, image, score, torch.tensor(boxes).float(), -image, place, -image)


def test_columns_are_of_the_object_that_the_target_names() -> None:
    """Not of the one that the row's box overlaps: who has found what was decided with the targets."""
    frame = Frame.of(WIDTH, HEIGHT, (20, 20), "squash")
    records = [ImageRecord(name, f"{name}.png", frame) for name in "ab"]
    batch = ImageBatch(torch.zeros(2, 3, 20, 20, dtype=torch.uint8), records, [GroundTruth(), TRUTH])
    on_dog = np.pad([[0.0]], ((1, 2), (1, 2)), constant_values=1)  # a cell at a third of width and height
    box = frame.boxes_to_input(np.array([DOG], np.float32))[0].tolist()
    targets = rows_of([0, 1, 1, 1, 1], [-1, 0, 1, 2, -1], [box] * 5)
    columns = localization_columns(np.stack([on_dog] * 5), targets, batch)
    assert columns["object"].tolist() == [-1, 101, 102, 103, -1]
    assert columns["object"].dtype == np.int64
    saliency = frame.saliency_on_original(1 - on_dog.astype(np.float32))
    for row, place in enumerate([-1, 0, 1, 2, -1]):
        expected = nothing_to_localize() if place < 0 else localize(saliency, TRUTH, place)
        np.testing.assert_equal({name: columns[name][row] for name in KEYS}, expected)
    assert columns["pointing_box"][1:4].tolist() == [1, 0, 0]


def test_ids_of_objects_may_be_long() -> None:
    """COCO's have 12 digits and more: they must not pass through a float."""
    truth = GroundTruth(boxes=np.array([DOG], np.float32), names=("dog",), ids=(2**60 + 1,))
    record = ImageRecord("a", "a.png", Frame.of(WIDTH, HEIGHT, (20, 20), "squash"))
    batch = ImageBatch(torch.zeros(1, 3, 20, 20, dtype=torch.uint8), [record], [truth])
    columns = localization_columns(np.zeros((1, 4, 4)), rows_of([0], [0], [[0, 0, 9, 9]]), batch)
    assert columns["object"].tolist() == [2**60 + 1]
