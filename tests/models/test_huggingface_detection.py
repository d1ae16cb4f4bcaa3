"""Hugging Face's detectors: their own detections, queries that keep their identity, exact gradients."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense_adapters import (
    DECODER,
    DETECTOR_CLASSES,
    DETECTOR_SIZE,
    ENCODER,
    PHOTOS,
    QUERIES,
    assert_scores_are_the_proposals,
    explained,
    photo,
    rtdetr_config,
    save_detector,
    seen_by,
    slopes,
    targets_of,
)

from igos_pl.errors import IgosError
from igos_pl.models import HuggingFaceDetector

transformers = pytest.importorskip("transformers")

SIZE = DETECTOR_SIZE
CLASSES = DETECTOR_CLASSES


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def resnet() -> Any:
    return transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )


def hgnet() -> Any:
    return transformers.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 16, 24],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[16, 16, 24, 32],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        hidden_sizes=[16, 16, 24, 32],
        depths=[1, 1, 1, 1],
        embedding_size=8,
        out_features=["stage2", "stage3", "stage4"],
    )


def configuration(family: str) -> Any:
    if family == "detr":
        return transformers.DetrConfig(
            backbone_config=resnet(), num_queries=QUERIES, use_timm_backbone=False, **DECODER, **ENCODER
        )
    if family == "conditional_detr":
        return transformers.ConditionalDetrConfig(
            backbone_config=resnet(), num_queries=QUERIES, use_timm_backbone=False, **DECODER, **ENCODER
        )
    if family.startswith("deformable_detr"):
        two_stage = family.endswith("two_stage")
        return transformers.DeformableDetrConfig(
            backbone_config=resnet(),
            num_queries=QUERIES,
            two_stage=two_stage,
            two_stage_num_proposals=QUERIES,
            with_box_refine=two_stage,
            num_feature_levels=3,
            use_timm_backbone=False,
            **DECODER,
            **ENCODER,
        )
    if family == "yolos":
        return transformers.YolosConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=32,
            image_size=list(SIZE),
            num_detection_tokens=QUERIES,
        )
    if family == "d_fine":
        return rtdetr_config(transformers.DFineConfig, hgnet(), head_dim=8)
    kind = {"rt_detr": transformers.RTDetrConfig, "rt_detr_v2": transformers.RTDetrV2Config}[family]
    return rtdetr_config(kind)


PROCESSORS = {
    "detr": "DetrImageProcessor",
    "conditional_detr": "ConditionalDetrImageProcessor",
    "deformable_detr": "DeformableDetrImageProcessor",
    "deformable_detr_two_stage": "DeformableDetrImageProcessor",
    "yolos": "YolosImageProcessor",
    "rt_detr": "RTDetrImageProcessor",
    "rt_detr_v2": "RTDetrImageProcessor",
    "d_fine": "RTDetrImageProcessor",
}
TWO_STAGE = ("deformable_detr_two_stage", "rt_detr", "rt_detr_v2", "d_fine")


def saved(family: str, folder: Path) -> Path:
    """A folder with a seeded network of a family, as ``save_pretrained`` writes it."""
    path = folder / f"tiny-{family}"
    save_detector(configuration(family), PROCESSORS[family], path)
    return path


def detector_of(family: str, folder: Path, **options: Any) -> HuggingFaceDetector:
    return HuggingFaceDetector(str(saved(family, folder)), **{"score_threshold": 0.1, **options})


@pytest.mark.parametrize("family", PROCESSORS)
def test_detections_are_the_librarys(family: str, tmp_path: Path) -> None:
    detector = detector_of(family, tmp_path)
    module = transformers.AutoModelForObjectDetection.from_pretrained(tmp_path / f"tiny-{family}").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / f"tiny-{family}")
    for name in PHOTOS:
        picture = photo(name)
        inputs = processor(images=picture, return_tensors="pt")
        with torch.no_grad():
            outputs = module(**inputs)
        sizes = [(picture.height, picture.width)]
        (theirs,) = processor.post_process_object_detection(outputs, threshold=0.1, target_sizes=sizes)
        _, frame = detector.preprocessing(picture)
        with detector.frozen():
            (found,) = detector.detect(seen_by(detector, name))
        assert len(found) > 3
        assert found.labels.tolist() == theirs["labels"].tolist()
        torch.testing.assert_close(found.scores, theirs["scores"], atol=1e-4, rtol=0)
        end = torch.tensor([picture.width, picture.height] * 2)
        inside = torch.minimum(theirs["boxes"].clamp(min=0), end)
        np.testing.assert_allclose(frame.boxes_to_original(found.boxes.numpy()), inside, atol=0.05)


@pytest.mark.parametrize("family", PROCESSORS)
def test_a_query_is_scored_by_itself(family: str, tmp_path: Path) -> None:
    detector = detector_of(family, tmp_path)
    with detector.frozen():
        images = torch.cat([seen_by(detector, name) for name in PHOTOS])
        targets = targets_of(detector, images)
        assert targets.image.unique().tolist() == [0, 1]
        assert_scores_are_the_proposals(detector, images, targets)
        few = targets.select(torch.tensor([0, len(targets) - 1]))
        # The two-stage one embeds the places of its queries in float32, in which small steps are lost.
        single = family == "deformable_detr_two_stage"
        by_autograd, by_difference = slopes(detector, images[few.image], few, 1e-6 if single else 1e-7)
        torch.testing.assert_close(by_autograd, by_difference, rtol=0.05 if single else 1e-3, atol=1e-12)


def places_of(detector: HuggingFaceDetector, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        places = detector._forward(images, None)[1]
    assert places is not None
    return places


@pytest.mark.parametrize("family", TWO_STAGE)
def test_a_place_keeps_its_query_when_the_image_changes(family: str, tmp_path: Path) -> None:
    """The network itself may choose other places: what is scored is still at the target's own."""
    detector = detector_of(family, tmp_path)
    with detector.frozen():
        images = seen_by(detector)
        targets = targets_of(detector, images)
        other = images.flip(3)
        gone = 0
        for row in range(0, len(targets), 3):
            one = targets.select(slice(row, row + 1))
            place, number = divmod(int(one.prediction_row), QUERIES)
            assert places_of(detector, images)[0, number] == place
            chosen = places_of(detector, other)[0].tolist()
            with torch.no_grad():
                outputs, kept = detector._forward(other, one.prediction_row)
                score = detector.score(other, one)
            assert kept is not None
            assert kept[0, number] == place
            assert score.item() == pytest.approx(outputs.logits[0, number, one.label].sigmoid().item())
            # All other queries are the network's own choice, in its own order.
            rest = [query for query in kept[0].tolist() if query != place]
            assert rest == [query for query in chosen if query != place][: QUERIES - 1]
            gone += place not in chosen
        assert gone > 0  # or this test would show nothing


def test_a_run(tmp_path: Path) -> None:
    detector = detector_of("rt_detr", tmp_path, max_per_image=2)
    described = detector.describe()
    result = explained(detector)
    assert len(result.explanations["score"]) == 2
    assert set(result.explanations["label_name"]) <= set(CLASSES.values())
    assert detector.describe() == described
    assert described["name"] == "tiny-rt_detr"
    assert described["preprocessing"] == "ImageProcessorTransform"
    assert described["preprocessing.processor"].startswith("RTDetrImageProcessor")
    assert described["input_size"] == "[96, 128]"


def test_settings_identify_a_run(tmp_path: Path) -> None:
    first = detector_of("detr", tmp_path / "a")
    again = detector_of("detr", tmp_path / "b")
    assert first.describe() == again.describe()
    changed = HuggingFaceDetector(str(tmp_path / "a" / "tiny-detr"), input_size=64)
    with torch.no_grad():
        next(changed.module.parameters()).add_(1)
    assert changed.describe()["input_size"] != first.describe()["input_size"]
    assert changed.describe()["weights_sha256"] != first.describe()["weights_sha256"]


def test_input_size_of_processors_that_keep_the_aspect_ratio(tmp_path: Path) -> None:
    path = saved("detr", tmp_path)
    transformers.DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 100}).save_pretrained(path)
    detector = HuggingFaceDetector(str(path))
    assert detector.input_size == (64, 64)
    assert detector.preprocessing(photo())[0].shape == (3, 64, 64)


def test_query_outside_the_head(tmp_path: Path) -> None:
    detector = detector_of("detr", tmp_path)
    images = seen_by(detector)
    targets = targets_of(detector, images).select(slice(1))
    with pytest.raises(IgosError, match="Prediction row 99 is outside of the 12 rows"):
        detector.score(images, replace(targets, prediction_row=torch.tensor([99])))


def test_what_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IgosError, match="cannot be loaded"):
        HuggingFaceDetector(str(tmp_path / "nowhere"))
    path = saved("yolos", tmp_path)
    with pytest.raises(IgosError, match="categories names 'dog'"):
        HuggingFaceDetector(str(path), categories=["dog"])
    monkeypatch.setattr("igos_pl.models.huggingface_detection._SOFTMAX", ())
    with pytest.raises(IgosError, match="is a yolos, which is not supported"):
        HuggingFaceDetector(str(path))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(IgosError, match=r"pip install 'igos_pl\[huggingface\]'"):
        HuggingFaceDetector(str(path))
