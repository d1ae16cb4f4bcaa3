"""Which detections are explained: thresholds, categories, annotations, and none at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.models import Detections, Detector
from igos_pl.models.detector import label_scores, select_rows
from igos_pl.models.torchvision_detection import scale_boxes

NAMES = ["__background__", "person", "dog", "cat"]
PERSON, DOG, CAT = 1, 2, 3
SIZE = 20


def found(rows: Sequence[tuple[int, float, Sequence[float]]], masks: bool = False) -> Detections:
    """Detections from (label, score, box)."""
    return Detections(
        boxes=torch.tensor([box for _, _, box in rows]).reshape(-1, 4).float(),
        labels=torch.tensor([label for label, _, _ in rows], dtype=torch.int64),
        scores=torch.tensor([score for _, score, _ in rows]).float(),
        prediction_rows=torch.arange(len(rows)) + 100,
        instance_masks=torch.ones(len(rows), SIZE, SIZE, dtype=torch.bool) if masks else None,
    )


class Prepared(Detector):
    """Finds what it is told to; the images' brightness numbers them."""

    def __init__(self, detections: list[Detections], **options: Any) -> None:
        super().__init__(nn.Identity(), class_names=NAMES, input_size=SIZE, name="prepared", **options)
        self.detections = detections

    def detect(self, images: Tensor) -> list[Detections]:
        return [self.detections[int(image.max())] for image in images]

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        raise NotImplementedError


def images_of(count: int) -> Tensor:
    return torch.arange(count).reshape(-1, 1, 1, 1).expand(count, 3, SIZE, SIZE).float()


def proposed(detector: Prepared, truth: list[GroundTruth] | None = None) -> tuple[Targets, Sequence[str]]:
    count = len(detector.detections)
    proposals = detector.propose(images_of(count), truth or [GroundTruth()] * count)
    return proposals.targets, proposals.notes


def objects(rows: Sequence[tuple[str, int, Sequence[float]]]) -> GroundTruth:
    """Annotations from (name, id, box)."""
    boxes = np.array([box for _, _, box in rows], np.float32).reshape(-1, 4)
    return GroundTruth(boxes=boxes, names=[name for name, _, _ in rows], ids=[i for _, i, _ in rows])


BOX, OTHER, THIRD = (1, 1, 9, 7), (10, 2, 18, 19), (0, 12, 5, 20)


def test_best_first_above_the_threshold() -> None:
    some = found([(DOG, 0.3, BOX), (PERSON, 0.19, OTHER), (CAT, 0.9, THIRD), (DOG, 0.2, OTHER)])
    one = found([(PERSON, 0.5, BOX)])
    targets, notes = proposed(Prepared([some, found([]), one], score_threshold=0.2))
    assert targets.image.tolist() == [0, 0, 0, 2]
    assert targets.number.tolist() == [0, 1, 2, 0]
    assert targets.label.tolist() == [CAT, DOG, DOG, PERSON]
    assert targets.prediction_row.tolist() == [102, 100, 103, 100]
    assert targets.box[0].tolist() == list(THIRD)
    assert targets.instance_mask is None
    assert list(notes) == ["", "", ""]


@pytest.mark.parametrize("masks", [False, True])
def test_no_detection_at_all(masks: bool) -> None:
    targets, notes = proposed(Prepared([found([], masks)] * 2))
    assert len(targets) == 0
    assert targets.box.shape == (0, 4)
    for name in ("image", "number", "label", "prediction_row", "object", "start_cell"):
        column = getattr(targets, name)
        assert column.shape == (0,)
        assert column.dtype == torch.int64
    assert targets.score.dtype == targets.box.dtype == torch.float32
    if masks:
        assert targets.instance_mask is not None
        assert targets.instance_mask.shape == (0, SIZE, SIZE)
        assert targets.instance_mask.dtype == torch.bool
    assert list(notes) == ["", ""]


def test_300_detections_and_at_most_so_many() -> None:
    many = found([(DOG, 0.3 + i / 1000, BOX) for i in range(300)], masks=True)
    targets, notes = proposed(Prepared([many], max_per_image=1000))
    assert len(targets) == 300
    assert targets.score.diff().lt(0).all()
    assert list(notes) == [""]
    targets, notes = proposed(Prepared([many]))
    assert len(targets) == 100
    assert targets.score.min() > 0.49
    assert targets.instance_mask is not None
    assert len(targets.instance_mask) == 100
    assert list(notes) == [
        "200 of 300 detections left out: max_per_image (--model.network.max_per_image) is 100"
    ]


def test_nan_and_empty_boxes_are_left_out_and_a_pixel_is_not() -> None:
    nan, pixel = float("nan"), (3, 3, 4, 4)
    rows = [(DOG, nan, BOX), (DOG, 0.9, (nan, 1, 2, 3)), (DOG, 0.8, (5, 5, 5, 9)), (DOG, 0.7, pixel)]
    targets, _ = proposed(Prepared([found(rows)], score_threshold=0))
    assert targets.box.tolist() == [list(pixel)]


def test_categories() -> None:
    some = found([(DOG, 0.3, BOX), (PERSON, 0.9, OTHER), (CAT, 0.9, THIRD)])
    targets, _ = proposed(Prepared([some], categories=["dog", "cat"]))
    assert targets.label.tolist() == [CAT, DOG]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categories": ["dogg"]}, "'dogg', but prepared has no such class: did you mean dog"),
        ({"categories": []}, "categories is an empty list"),
        ({"targets": "all"}, "targets is 'all', but must be one of: detected, ground_truth"),
        ({"score_threshold": 20}, "score_threshold is 20, but must be between 0 and 1"),
        ({"max_per_image": 0}, "max_per_image is 0, but must be at least 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IgosError, match=re.escape(message)):
        Prepared([], **options)


def test_annotated_objects_and_what_was_missed() -> None:
    detector = Prepared(
        [found([(PERSON, 0.9, BOX), (DOG, 0.8, OTHER), (DOG, 0.7, (11, 2, 18, 19)), (CAT, 0.6, BOX)])],
        targets="ground_truth",
    )
    truth = objects(
        [
            ("dog", 7, THIRD),  # missed
            ("dog", 8, OTHER),
            ("person", 123, (13, 13, 20, 20)),  # elsewhere
            ("person", 124, (1, 1, 9, 8)),
            ("unicorn", 9, BOX),
        ]
    )
    targets, notes = proposed(detector, [truth])
    assert targets.label.tolist() == [PERSON, DOG]
    assert targets.box[1].tolist() == list(OTHER)
    assert notes[0] == (
        "2 of 5 objects not detected: dog (id 7), person (id 123);"
        " 1 of 5 objects of a class unknown to prepared: unicorn (id 9)"
    )


def test_annotations_within_categories() -> None:
    detector = Prepared(
        [found([(DOG, 0.8, OTHER), (CAT, 0.6, BOX)])] * 3, targets="ground_truth", categories=["cat"]
    )
    truth = [objects([("dog", 1, OTHER), ("cat", 2, BOX)]), objects([("dog", 1, OTHER)]), GroundTruth()]
    targets, notes = proposed(detector, truth)
    assert targets.image.tolist() == [0]
    assert targets.label.tolist() == [CAT]
    assert list(notes) == ["", "no object of the categories", "no object of the categories"]


def test_images_without_annotations() -> None:
    targets, notes = proposed(Prepared([found([(DOG, 0.8, OTHER)])], targets="ground_truth"))
    assert len(targets) == 0
    assert list(notes) == ["no annotated object"]


@pytest.mark.parametrize("choice", ["detected", "ground_truth"])
def test_two_overlapping_dogs_are_two_objects(choice: Any) -> None:
    """Both detections overlap the first dog most, but each dog is found once."""
    exact, between = (1, 1, 11, 11), (1.5, 1, 11.5, 11)
    truth = objects([("dog", 7, (3, 1, 13, 11)), ("cat", 8, exact), ("dog", 9, exact)])
    detector = Prepared([found([(DOG, 0.9, between), (DOG, 0.8, exact)])], targets=choice)
    targets, notes = proposed(detector, [truth])
    assert targets.box.tolist() == [list(between), list(exact)]
    assert targets.object.tolist() == [0, 2]
    assert list(notes) == ["" if choice == "detected" else "1 of 3 objects not detected: cat (id 8)"]


def test_objects_go_with_their_detections() -> None:
    """Also where some detections are left out, and others found nothing."""
    rows = [(CAT, 0.3, OTHER), (DOG, 0.9, THIRD), (PERSON, 0.8, BOX), (DOG, 0.7, OTHER)]
    truth = [objects([("dog", 1, OTHER), ("unicorn", 2, BOX), ("person", 3, BOX)]), GroundTruth()]
    targets, _ = proposed(Prepared([found(rows)] * 2), truth)
    assert targets.label.tolist() == [DOG, PERSON, DOG, CAT] * 2
    assert targets.object.tolist() == [-1, 2, 0, -1, -1, -1, -1, -1]
    targets, _ = proposed(Prepared([found(rows)] * 2, categories=["person"]), truth)
    assert targets.object.tolist() == [2, -1]
    targets, _ = proposed(Prepared([found(rows)] * 2, targets="ground_truth"), truth)
    assert (targets.label.tolist(), targets.object.tolist()) == ([PERSON, DOG], [2, 0])
    targets, _ = proposed(Prepared([found(rows)] * 2, max_per_image=2), truth)
    assert targets.object.tolist() == [-1, 2, -1, -1]


def test_label_outside_the_head() -> None:
    with pytest.raises(IgosError, match="Label 4 is outside of the 4 classes of it"):
        label_scores(torch.rand(2, 4), torch.tensor([3, 4]), "it")
    with pytest.raises(RuntimeError, match="Size"):  # an error of another kind is told as it is
        label_scores(torch.rand(2, 4), torch.tensor([3, 2, 1]), "it")


def test_prediction_row_outside_the_head() -> None:
    predictions = torch.arange(12.0).reshape(2, 3, 2)
    assert select_rows(predictions, torch.tensor([2, 0]), "it").tolist() == [[4, 5], [6, 7]]
    for row in (-1, 3):
        with pytest.raises(IgosError, match=f"Prediction row {row} is outside of the 3 rows of it"):
            select_rows(predictions, torch.tensor([0, row]), "it")


def test_scores_and_boxes_are_found_without_asking_the_device() -> None:
    meta = torch.empty(2, 3, 4, device="meta")
    rows = torch.zeros(2, dtype=torch.long, device="meta")
    assert label_scores(select_rows(meta, rows, "it"), rows, "it").shape == (2,)
    assert scale_boxes(meta[:, 0], (2, 3), (4, 9)).shape == (2, 4)


def test_boxes_scale_by_each_side_of_their_own() -> None:
    boxes = torch.tensor([[1.0, 2, 3, 4], [0, 1, 2, torch.nan]])
    expected = torch.tensor([[3.0, 4, 9, 8], [0, 2, 6, torch.nan]])
    torch.testing.assert_close(scale_boxes(boxes, (10, 10), (20, 30)), expected, equal_nan=True)


def test_describe_has_the_selection() -> None:
    described = Prepared([], categories=["dog", "cat"], score_threshold=0.4, max_per_image=7).describe()
    assert described["categories"] == '["dog", "cat"]'
    assert described["score_threshold"] == 0.4
    assert described["max_per_image"] == 7
    assert described["targets"] == "detected"
    assert described["name"] == "prepared"
    assert Prepared([]).describe()["categories"] == "none"


def test_images_stay_in_0_1() -> None:
    detector = Prepared([])
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 3, 2, 2)
    assert detector.normalize(images)[:, 0, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert detector.unit == pytest.approx(0.226)
