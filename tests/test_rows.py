"""Boxes between the network's input and the upright original, through every resize."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from igos_pl.data.geometry import RESIZE_MODES, Frame
from igos_pl.data.records import ImageRecord
from igos_pl.evaluation.columns import original_boxes

WIDE, TALL = (640, 320), (100, 400)


def record_of(size: tuple[int, int], resize: str, side: int = 224) -> ImageRecord:
    return ImageRecord("a", "a.jpg", Frame.of(*size, (side, side), resize))


def test_squashed_boxes_are_stretched_back() -> None:
    boxes = torch.tensor([[0.0, 0.0, 224.0, 224.0], [56.0, 112.0, 112.0, 224.0]])
    found = original_boxes(boxes, [record_of(WIDE, "squash"), record_of(TALL, "squash")])
    assert found.tolist() == [[0, 0, 640, 320], [25, 200, 50, 400]]


def test_cropped_boxes_are_shifted_back() -> None:
    # The crop is the central square of 7/8 of the shorter side: 280 pixels from (180, 20), and 87.5 pixels
    # from (6.25, 156.25).
    boxes = torch.tensor([[0.0, 0.0, 224.0, 224.0], [0.0, 112.0, 112.0, 224.0]])
    found = original_boxes(boxes, [record_of(WIDE, "crop"), record_of(TALL, "crop")])
    assert found.tolist() == [[180, 20, 460, 300], [6.25, 200, 50, 243.75]]


@pytest.mark.parametrize("resize", RESIZE_MODES)
@pytest.mark.parametrize("size", [WIDE, TALL])
def test_there_and_back(size: tuple[int, int], resize: str) -> None:
    boxes = np.array([[10.0, 20.0, 60.0, 300.0], [0.0, 0.0, 100.0, 320.0]], np.float32)
    record = record_of(size, resize, side=800)
    inside = record.seen().boxes_to_input(boxes)
    back = original_boxes(torch.from_numpy(inside), [record] * 2)
    np.testing.assert_allclose(back, boxes, atol=1e-3)


def test_input_of_unequal_sides() -> None:
    frame = Frame.of(640, 320, (160, 64), "squash")  # ten times as wide, twice as high
    boxes = np.array([[10.0, 20.0, 60.0, 300.0]], np.float32)
    assert frame.boxes_to_input(boxes).tolist() == [[1, 10, 6, 150]]
    assert frame.boxes_to_original(np.array([[1, 10, 6, 150]])).tolist() == boxes.tolist()


def test_classifiers_have_no_box() -> None:
    boxes, record = torch.full((1, 4), torch.nan), record_of(WIDE, "crop")
    assert np.isnan(original_boxes(boxes, [record])).all()
    assert original_boxes(torch.zeros(0, 4), []).shape == (0, 4)
    assert record.seen().boxes_to_input(np.zeros((0, 4), np.float32)).shape == (0, 4)
