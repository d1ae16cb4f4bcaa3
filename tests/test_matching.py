"""Which annotated object a detection has found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from igos_pl.data.annotations import GroundTruth, Rle
from igos_pl.data.matching import match_objects
from igos_pl.datamodules import COCODataModule
from igos_pl.demo.shapes import write_shapes_dataset

HEIGHT, WIDTH = 6, 10
DOG, CAT = [1, 1, 5, 5], [5, 0, 9, 4]
BOXES, NAMES = torch.tensor([DOG, CAT, CAT]).float(), ("dog", "dog", "cat")


def boxes_of(*boxes: Sequence[float]) -> torch.Tensor:
    return torch.tensor(boxes).float().reshape(-1, 4)


def some_mask(height: int, width: int) -> Rle:
    rle: Rle = coco_mask.encode(np.ones((height, width), np.uint8, order="F"))
    return rle


@pytest.mark.parametrize(
    ("name", "box", "expected"),
    [
        ("dog", CAT, 1),
        ("cat", DOG, -1),
        ("bird", DOG, -1),
        ("dog", [1, 1, 5, 3], 0),  # an IoU of exactly 0.5
        ("dog", [1, 1, 5, 2.9], -1),
        ("dog", [2, 2, 2, 2], -1),
        ("dog", [float("nan")] * 4, -1),
    ],
    ids=str,
)
def test_matching(name: str, box: list[float], expected: int) -> None:
    assert match_objects(BOXES, NAMES, boxes_of(box), [name]) == [expected]


def test_the_best_overlap_matches() -> None:
    objects = boxes_of([0, 0, 4, 4], [0, 0, 5, 4], [0, 0, 6, 4])
    assert match_objects(objects, ["dog"] * 3, boxes_of([0, 0, 5, 4]), ["dog"]) == [1]


def test_largest_overlaps_are_matched_first_and_once() -> None:
    boxes = boxes_of([0, 0, 10, 10], [0, 0, 10, 8])
    # The first object overlaps both detections, the second one only the first well enough.
    objects = boxes_of([0, 0, 10, 9], [0, 0, 10, 11], [0, 0, 0, 0], [50, 50, 40, 40])
    assert match_objects(objects, ["a"] * 4, boxes, ["a", "a"]) == [1, 0]
    assert match_objects(objects, ["a"] * 4, boxes, ["b", "a"]) == [-1, 0]
    assert match_objects(objects, ["a"] * 4, boxes[:0], []) == []
    assert match_objects(boxes_of([0, 0, 10, 5]), ["a"], boxes[:1], ["a"]) == [0]


def test_surplus_detections_of_an_object_match_none() -> None:
    boxes = boxes_of([1, 1, 5, 4.5], DOG, [1, 1, 5, 5.5])
    assert match_objects(BOXES[:1], ["dog"], boxes, ["dog"] * 3) == [-1, 0, -1]


def test_nothing_known() -> None:
    truth = GroundTruth()
    assert (
        match_objects(torch.from_numpy(truth.boxes), truth.names, boxes_of(DOG, CAT), ["a", "b"]) == [-1] * 2
    )


def test_nothing_is_changed() -> None:
    objects, boxes = BOXES.clone(), boxes_of(DOG, CAT)
    match_objects(objects, NAMES, boxes, ["dog", "cat"])
    assert torch.equal(objects, BOXES)
    assert torch.equal(boxes, boxes_of(DOG, CAT))


def test_generated_objects_find_themselves(tmp_path: Path) -> None:
    path = write_shapes_dataset(tmp_path, 3, seed=8)
    for sample in COCODataModule(str(tmp_path / "images"), str(path)).find_samples():
        boxes, names = torch.from_numpy(sample.truth.boxes), sample.truth.names
        assert len(boxes)
        assert match_objects(boxes, names, boxes, names) == list(range(len(boxes)))


# --- annotations of an image that is turned otherwise ---------------------------------------------------

MIXED = GroundTruth(
    label=3,
    boxes=np.array([DOG, CAT, DOG], np.float32),
    names=("dog", "cat", "bird"),
    ids=(101, 102, 103),
    instance_masks=(some_mask(HEIGHT, WIDTH), None, some_mask(HEIGHT + 1, WIDTH)),
)


def test_objects_of_another_size_are_dropped() -> None:
    found = MIXED.fitting(WIDTH, HEIGHT)
    assert found.names == ("dog", "cat")
    assert found.ids == (101, 102)
    assert found.boxes.tolist() == [DOG, CAT]
    assert found.boxes.dtype == np.float32
    assert found.instance_masks == MIXED.instance_masks[:2]
    assert found.label == 3
    assert len(MIXED.names) == 3


def test_objects_of_a_turned_image_are_dropped() -> None:
    found = MIXED.fitting(HEIGHT, WIDTH)
    assert found.names == ("cat",)  # nothing tells that its box does not fit
    assert match_objects(torch.from_numpy(found.boxes), found.names, boxes_of(DOG), ["dog"]) == [-1]
    alone = GroundTruth(1, MIXED.boxes[:1], ("dog",), (7,), (some_mask(HEIGHT, WIDTH),))
    found = alone.fitting(HEIGHT, WIDTH)
    assert found.boxes.shape == (0, 4)
    assert (found.label, len(found.names), len(found.ids), len(found.instance_masks)) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "truth", [GroundTruth(4), GroundTruth(-1, MIXED.boxes, MIXED.names, MIXED.ids)], ids=["label", "boxes"]
)
def test_without_masks_all_objects_fit(truth: GroundTruth) -> None:
    assert truth.fitting(HEIGHT, WIDTH) is truth
