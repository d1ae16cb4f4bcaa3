"""The generated shapes set is valid COCO, and the small detectors find its objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from torch import nn
from torchvision.ops import box_iou

from igos_pl.demo.run import CHECKPOINTS
from igos_pl.demo.shapes import CATEGORY_IDS, write_shapes_dataset
from igos_pl.demo.shapes_detectors import (
    CATEGORIES,
    shapes_faster_rcnn,
    shapes_mask_rcnn,
    shapes_retinanet,
)

FOR_TESTS = Path(__file__).parents[1] / "checkpoints"
DETECTORS: dict[Path, Callable[[], nn.Module]] = {
    CHECKPOINTS / "shapes_maskrcnn.pth": shapes_mask_rcnn,
    FOR_TESTS / "shapes_fasterrcnn.pth": shapes_faster_rcnn,
    FOR_TESTS / "shapes_retinanet.pth": shapes_retinanet,
}
IMAGES = 12
FRESH_SEED = 987_654  # far from the training script's seeds


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes_dataset(tmp_path_factory.mktemp("shapes"), IMAGES, FRESH_SEED)


@pytest.fixture(scope="module")
def coco(dataset: Path) -> COCO:
    return COCO(str(dataset))


def test_file_has_the_fields_of_coco_instances(dataset: Path) -> None:
    content: dict[str, Any] = json.loads(dataset.read_text())
    assert {"info", "licenses", "images", "annotations", "categories"} == set(content)
    for image in content["images"]:
        assert {"id", "file_name", "width", "height"} <= set(image)
    for item in content["annotations"]:
        assert {
            "id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd",
        } == set(item)  # fmt: skip
    ids = [item["id"] for item in content["annotations"]]
    assert len(set(ids)) == len(ids)
    assert {item["name"]: item["id"] for item in content["categories"]} == CATEGORY_IDS
    assert sorted(CATEGORY_IDS.values()) != list(range(1, len(CATEGORY_IDS) + 1))
    assert CATEGORIES[1:] == tuple(CATEGORY_IDS)


def test_pictures_are_not_square_and_have_the_stated_size(dataset: Path, coco: COCO) -> None:
    sizes = set()
    for record in coco.loadImgs(coco.getImgIds()):
        with Image.open(dataset.parent / "images" / record["file_name"]) as picture:
            assert picture.mode == "RGB"
            assert picture.size == (record["width"], record["height"])
            sizes.add(picture.size)
        assert record["width"] != record["height"]
    assert len(sizes) > IMAGES // 2
    assert any(width > height for width, height in sizes)
    assert any(width < height for width, height in sizes)


def test_masks_match_boxes_and_areas_and_do_not_overlap(coco: COCO) -> None:
    kinds, counts = set(), []
    for image_id in coco.getImgIds():
        record = coco.loadImgs(image_id)[0]
        objects = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        covered = np.zeros((record["height"], record["width"]), dtype=int)
        counts.append(len(objects))
        for item in objects:
            kinds.add(type(item["segmentation"]))
            mask = coco.annToMask(item)
            covered += mask
            rows, columns = np.nonzero(mask)
            left, top = columns.min(), rows.min()
            right, bottom = columns.max() + 1, rows.max() + 1
            assert item["bbox"] == [left, top, right - left, bottom - top]
            assert item["area"] == mask.sum() == coco_mask.area(coco.annToRLE(item))
            assert right <= record["width"]
            assert bottom <= record["height"]
        # Only visible parts are masked, so no pixel belongs to two objects.
        assert covered.max() == 1
    assert kinds == {list, dict}  # polygons and RLEs
    assert min(counts) >= 1
    assert max(counts) >= 4


def test_pictures_depend_on_seed_and_index_only(dataset: Path, tmp_path: Path) -> None:
    again = write_shapes_dataset(tmp_path / "again", 3, FRESH_SEED)
    names = sorted(path.name for path in (again.parent / "images").iterdir())
    assert len(names) == 3
    for name in names:
        first = (dataset.parent / "images" / name).read_bytes()
        assert (again.parent / "images" / name).read_bytes() == first
    some = json.loads(again.read_text())["annotations"]
    assert json.loads(dataset.read_text())["annotations"][: len(some)] == some

    other = write_shapes_dataset(tmp_path / "other", 3, FRESH_SEED + 1)
    for name in names:
        second = (again.parent / "images" / name).read_bytes()
        assert (other.parent / "images" / name).read_bytes() != second


def test_png_and_object_numbers_can_be_chosen(tmp_path: Path) -> None:
    path = write_shapes_dataset(tmp_path, 4, 5, min_objects=2, max_objects=2, image_format="png")
    content = json.loads(path.read_text())
    assert all(item["file_name"].endswith(".png") for item in content["images"])
    assert all((tmp_path / "images" / item["file_name"]).exists() for item in content["images"])
    owners = [item["image_id"] for item in content["annotations"]]
    assert max(owners.count(owner) for owner in owners) == 2


@pytest.mark.parametrize("path", DETECTORS, ids=lambda path: path.stem)
def test_detector_finds_fresh_objects(path: Path, dataset: Path, coco: COCO) -> None:
    assert path.stat().st_size < 5_000_000
    checkpoint = torch.load(path, weights_only=True)
    model = DETECTORS[path]()
    model.load_state_dict(checkpoint["model"])
    model.eval()
    assert checkpoint["log"]["ap50_box"] > 0.8

    labels = {number: CATEGORIES.index(key) for key, number in CATEGORY_IDS.items()}
    found = total = claimed = 0
    for image_id in coco.getImgIds():
        record = coco.loadImgs(image_id)[0]
        with Image.open(dataset.parent / "images" / record["file_name"]) as picture:
            image = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            result = model([image])[0]
        # About where misses and false alarms balance; focal loss gives low scores.
        sure = result["scores"] > 0.3
        claimed += int(sure.sum())
        if "masks" in result:
            assert result["masks"].shape[1:] == (1, record["height"], record["width"])
        for item in coco.loadAnns(coco.getAnnIds(imgIds=image_id)):
            box = torch.tensor([item["bbox"]])
            box[:, 2:] += box[:, :2]
            alike = sure & (result["labels"] == labels[item["category_id"]])
            total += 1
            found += bool((box_iou(box, result["boxes"][alike]) >= 0.5).any())
    assert total > 2 * IMAGES
    assert found / total >= 0.7
    assert claimed < 2.5 * total  # recall by claiming everything would not count
