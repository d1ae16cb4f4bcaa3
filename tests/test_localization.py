"""Pointing games with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from igos_pl.datamodules import COCODataModule
from igos_pl.demo.shapes import write_shapes_dataset
from igos_pl.errors import IgosError
from igos_pl.localization import box_region, energy_pointing_game, localize, mask_region, pointing_game
from igos_pl.truth import GroundTruth, Rle

HEIGHT, WIDTH = 6, 10
KEYS = {"object", "pointing_box", "energy_box", "pointing_mask", "energy_mask"}


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


# --- matching -------------------------------------------------------------------------------------------

DOG, CAT = [1, 1, 5, 5], [5, 0, 9, 4]
TRUTH = GroundTruth(
    boxes=np.array([DOG, CAT, CAT], np.float32),
    names=("dog", "dog", "cat"),
    ids=(101, 102, 103),
    masks=(encoded(region_at((1, 1), (2, 2))), None, None),
)


def test_localize() -> None:
    saliency = saliency_at((2, 2, 0.5), (1, 3, 0.25), (5, 9, 0.25))
    found = localize(saliency, TRUTH, "dog", np.array([1, 1, 5, 4.5], np.float32))
    assert found == {
        "object": 101,
        "pointing_box": 1.0,
        "energy_box": 0.75,
        "pointing_mask": 1.0,
        "energy_mask": 0.5,
    }


def test_a_miss() -> None:
    found = localize(saliency_at((1, 3, 0.75), (5, 9, 1)), TRUTH, "dog", np.array(DOG))
    assert (found["pointing_box"], found["pointing_mask"], found["energy_mask"]) == (0, 0, 0)
    assert found["energy_box"] == pytest.approx(0.75 / 1.75)


def test_object_without_mask() -> None:
    found = localize(saliency_at((2, 6, 1)), TRUTH, "cat", np.array(CAT))
    assert (found["object"], found["pointing_box"], found["energy_box"]) == (103, 1, 1)
    assert np.isnan([found["pointing_mask"], found["energy_mask"]]).all()


@pytest.mark.parametrize(
    ("name", "box", "expected"),
    [
        ("dog", CAT, 102),
        ("cat", DOG, -1),
        ("bird", DOG, -1),
        ("dog", [1, 1, 5, 3], 101),  # an IoU of exactly 0.5
        ("dog", [1, 1, 5, 2.9], -1),
        ("dog", [2, 2, 2, 2], -1),
        ("dog", [float("nan")] * 4, -1),
    ],
    ids=str,
)
def test_matching(name: str, box: list[float], expected: int) -> None:
    found = localize(saliency_at((2, 2, 1)), TRUTH, name, np.array(box))
    assert found.keys() == KEYS
    assert found["object"] == expected
    assert np.isnan(found["pointing_box"]) == (expected == -1)


def test_the_best_overlap_matches() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 5, 4], [0, 0, 6, 4]], np.float32)
    truth = GroundTruth(boxes=boxes, names=("dog",) * 3, ids=(1, 2, 3), masks=(None,) * 3)
    assert localize(saliency_at((0, 0, 1)), truth, "dog", np.array([0, 0, 5, 4]))["object"] == 2


def test_nothing_known() -> None:
    found = localize(saliency_at((0, 0, 1)), GroundTruth(), "dog", np.array(DOG))
    assert found["object"] == -1
    assert sum(np.isnan(value) for value in found.values()) == 4


def test_boxes_alone() -> None:
    truth = GroundTruth(boxes=np.array([DOG], np.float32), names=("dog",), ids=(4,))
    found = localize(saliency_at((2, 2, 1)), truth, "dog", np.array(DOG))
    assert (found["object"], found["pointing_box"]) == (4, 1)
    assert np.isnan(found["pointing_mask"])


def test_annotations_of_a_turned_image_do_not_match() -> None:
    found = localize(saliency_at((2, 2, 1)).T, TRUTH, "dog", np.array(DOG))
    assert found["object"] == -1


def test_saliency_that_is_not_finite() -> None:
    found = localize(saliency_at((2, 2, np.nan)), TRUTH, "dog", np.array(DOG))
    assert found["object"] == 101
    assert sum(np.isnan(value) for value in found.values()) == 4


def test_nothing_is_changed() -> None:
    saliency = saliency_at((2, 2, 1))
    before, boxes = saliency.copy(), TRUTH.boxes.copy()
    localize(saliency, TRUTH, "dog", np.array(DOG))
    np.testing.assert_array_equal(saliency, before)
    np.testing.assert_array_equal(TRUTH.boxes, boxes)


def test_generated_objects_find_themselves(tmp_path: Any) -> None:
    """Saliency that is an object's mask gets full marks for it, in non-square pictures."""
    path = write_shapes_dataset(tmp_path, 3, seed=8)
    for sample in COCODataModule(str(tmp_path / "images"), str(path)).find_samples():
        truth = sample.truth
        assert truth.ids
        for number, box, name, rle in zip(truth.ids, truth.boxes, truth.names, truth.masks, strict=True):
            assert rle is not None
            found = localize(mask_region(rle).astype(np.float32), truth, name, box)
            assert found["object"] == number
            assert found["pointing_mask"] == found["energy_mask"] == 1
            assert found["pointing_box"] == found["energy_box"] == 1
