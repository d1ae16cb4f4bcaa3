"""Boxes between the network's input and the upright original, through every resize."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from igos_pl.images import RESIZE_MODES
from igos_pl.rows import input_boxes, original_boxes
from igos_pl.store import ImageRecord

WIDE = ImageRecord("wide", "wide.jpg", width=640, height=320)
TALL = ImageRecord("tall", "tall.jpg", width=100, height=400)


def test_squashed_boxes_are_stretched_back() -> None:
    boxes = torch.tensor([[0.0, 0.0, 224.0, 224.0], [56.0, 112.0, 112.0, 224.0]])
    found = original_boxes(boxes, [WIDE, TALL], 224, "squash")
    assert found.tolist() == [[0, 0, 640, 320], [25, 200, 50, 400]]


def test_cropped_boxes_are_shifted_back() -> None:
    # The crop is the central square of 7/8 of the shorter side: 280 pixels from (180, 20), and 87.5 pixels
    # from (6.25, 156.25).
    boxes = torch.tensor([[0.0, 0.0, 224.0, 224.0], [0.0, 112.0, 112.0, 224.0]])
    found = original_boxes(boxes, [WIDE, TALL], 224, "crop")
    assert found.tolist() == [[180, 20, 460, 300], [6.25, 200, 50, 243.75]]


@pytest.mark.parametrize("resize", RESIZE_MODES)
@pytest.mark.parametrize("record", [WIDE, TALL])
def test_there_and_back(record: ImageRecord, resize: str) -> None:
    boxes = np.array([[10.0, 20.0, 60.0, 300.0], [0.0, 0.0, 100.0, 320.0]], np.float32)
    inside = input_boxes(boxes, record, 800, resize)
    back = original_boxes(torch.from_numpy(inside), [record] * 2, 800, resize)
    np.testing.assert_allclose(back, boxes, atol=1e-3)


def test_classifiers_have_no_box() -> None:
    boxes = torch.full((1, 4), torch.nan)
    assert np.isnan(original_boxes(boxes, [WIDE], 224, "crop")).all()
    assert input_boxes(np.zeros((0, 4), np.float32), WIDE, 224, "crop").shape == (0, 4)
