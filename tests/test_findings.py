"""What is found in the masks of a whole run: planted patterns are, and noise is not."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from igos_pl.data.geometry import Frame, upsample
from igos_pl.data.records import BatchResult, Columns, ImageRecord
from igos_pl.errors import IgosError
from igos_pl.findings import Findings, find
from igos_pl.findings.clusters import clusters_of
from igos_pl.findings.places import AREA, PLACES, Shares, box_coverage, shares_of
from igos_pl.findings.reading import SIDE, Block, Units, blocks, pooling, units_of
from igos_pl.findings.shortcuts import LEVEL, shortcuts
from igos_pl.store import MaskFile
from igos_pl.store.schema import EXPLANATIONS
from igos_pl.store.segments import segment_bytes

for _needed in ("scipy.stats", "sklearn.cluster"):
    pytest.importorskip(_needed)

ROOT = Path(__file__).parents[1]
CELLS = 28
FRAME = Frame.of(200, 100, (24, 24), "squash")
Masks = NDArray[np.float32]
NAMES = ("ant", "bee", "cat", "dog", "eel")


def spots(
    random: np.random.Generator,
    number: int,
    centre: tuple[float, float],
    spread: float = 0.0,
    width: float = 0.08,
) -> Masks:
    """Saliency ``(number, 28, 28)`` of one round spot each, of random strength, on noise.

    Args:
        random: draws places, strengths and noise.
        number: of masks.
        centre: of the spots, down and across, in shares of the image.
        spread: standard deviation of the places.
        width: of the spots.
    """
    line = np.linspace(0, 1, CELLS)
    places = np.clip(np.array(centre) + random.normal(0, spread, (number, 2)), 0, 1)
    down, across = (np.exp(-(((line - place[:, None]) / width) ** 2) / 2) for place in places.T)
    strength = random.uniform(0.3, 1, (number, 1, 1))
    noise = random.uniform(0, 0.005, (number, CELLS, CELLS))
    return np.asarray(np.clip(strength * down[:, :, None] * across[:, None] + noise, 0, 1), np.float32)


def write_result(
    path: Path,
    saliency: Masks,
    labels: Sequence[int] | NDArray[Any],
    ids: Sequence[str] | None = None,
    truth: dict[str, int] | None = None,
    attributes: dict[str, Any] | None = None,
    **columns: Any,
) -> Path:
    """Write a result of these masks as igos-pl does; other columns are given or have a usual value."""
    rows = len(saliency)
    ids = list(ids or (f"image{row:05}" for row in range(rows)))
    usual: Columns = {
        name: np.zeros((rows, *{"deletion_curve": (51,), "insertion_curve": (51,)}.get(name, ())), np.float32)
        for name in EXPLANATIONS
    }
    usual |= {
        "masks": 1 - saliency,
        "sample_id": np.array(ids, object),
        "label": np.asarray(labels),
        "label_name": np.array([NAMES[label] for label in labels], object),
        "box": np.full((rows, 4), np.nan, np.float32),
        "best": np.ones(rows, np.int8),
        "status": np.array(["ok"] * rows, object),
        **{name: np.asarray(column) for name, column in columns.items()},
    }
    known = truth or {}
    records = [
        ImageRecord(name, f"/{name}.png", FRAME, known.get(name, -1), targets=count)
        for name, count in Counter(ids).items()
    ]
    settings = {"network.targets": "predicted", **(attributes or {})}
    path.write_bytes(segment_bytes([BatchResult(records, usual if rows else {})], settings))
    return path


def found_in(path: Path, seed: int = 0) -> Findings:
    with MaskFile(path) as masks:
        return find(masks, seed)


def test_a_watermark_in_a_third_of_a_class_is_found(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 60)
    saliency = spots(random, len(labels), (0.5, 0.5), 0.1)
    marked = np.flatnonzero(labels == 2)[::3]
    saliency[marked] = 0.1 * saliency[marked] + 0.9 * spots(random, len(marked), (0.95, 0.95), 0.01, 0.06)
    result = found_in(write_result(tmp_path / "a.h5", saliency, labels))
    (finding,) = result.findings
    assert (finding.kind, finding.class_name) == ("corner", "cat")
    assert finding.title == "cat: the saliency gathers in the bottom right corner in 33% of the images"
    assert set(finding.rows) == set(marked.tolist())
    assert finding.value == pytest.approx(1 / 3)
    assert finding.certainty.startswith("20 of 60 images of the class (95% interval 23% to 46%); 0.0% of 240")
    assert "watermark" in finding.meaning


@pytest.mark.parametrize(("place", "kind"), [((0.5, 0.0), "left edge"), ((1.0, 0.5), "bottom edge")])
def test_edges_have_their_names(tmp_path: Path, place: tuple[float, float], kind: str) -> None:
    random = np.random.default_rng(1)
    labels = np.repeat(np.arange(2), 40)
    saliency = spots(random, 80, (0.5, 0.5), 0.1)
    saliency[labels == 1] = spots(random, 40, place, 0.02, 0.05)
    (finding,) = found_in(write_result(tmp_path / "a.h5", saliency, labels)).findings
    assert finding.kind == "edge"
    assert f"bee: the saliency gathers in the {kind} in 100%" in finding.title


def test_marks_in_different_corners_are_one_finding(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    labels = np.repeat(np.arange(5), 80)
    saliency = spots(random, len(labels), (0.5, 0.5), 0.12)
    for number, (down, across) in enumerate(
        [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0.5), (1, 0.5), (0.5, 0), (0.5, 1)]
    ):
        rows = np.flatnonzero(labels == 4)[number::16][:5]  # 6% of the class
        saliency[rows] = spots(random, len(rows), (down, across), 0.01, 0.06)
    (finding,) = found_in(write_result(tmp_path / "a.h5", saliency, labels)).findings
    assert (finding.kind, finding.class_name) == ("border", "eel")


def test_a_mark_in_every_class_is_none(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    labels = np.repeat(np.arange(4), 40)
    saliency = spots(random, len(labels), (0.95, 0.05), 0.02)
    assert found_in(write_result(tmp_path / "a.h5", saliency, labels)).findings == []


def random_shares(random: np.random.Generator, units: int) -> Shares:
    """Shares as of objects anywhere: most are small, one in twenty is large."""
    places = random.beta(0.2, 6, (units, len(PLACES)))
    return Shares(places.astype(np.float32), np.exp(random.normal(0.5, 0.5, units)).astype(np.float32))


def test_noise_is_found_at_most_as_often_as_stated() -> None:
    """Classes that do not differ: a finding in any of them is a false one."""
    random = np.random.default_rng(4)
    runs, wrong = 300, 0
    for _ in range(runs):
        sizes = random.integers(8, 60, 10)
        classes = np.repeat(np.arange(10), sizes)
        units = Units(np.arange(len(classes)), classes, [str(name) for name in range(10)], 0, 0)
        wrong += bool(shortcuts(units, random_shares(random, len(classes))))
    assert wrong <= LEVEL * runs


def test_power_of_the_test() -> None:
    """A corner in 30% of 50 images of one class among ten is found nearly always."""
    random = np.random.default_rng(5)
    classes = np.repeat(np.arange(10), 50)
    units = Units(np.arange(500), classes, [str(name) for name in range(10)], 0, 0)
    hits = 0
    for _ in range(100):
        shares = random_shares(random, 500)
        chosen = random.permutation(50)[:15] + 150
        shares.places[chosen, 3] = 0.4
        found = shortcuts(units, shares)
        hits += any(one.class_name == "3" and "bottom right corner" in one.title for one in found)
    assert hits >= 90


def test_pooling_is_the_mean_of_the_scaled_mask() -> None:
    mask = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    whole = upsample(mask, (1600, 1600))[0, 0].reshape(SIDE, 100, SIDE, 100).mean((1, 3))
    matrix = pooling(7)
    np.testing.assert_allclose(matrix @ mask[0, 0].numpy() @ matrix.T, whole, atol=2e-3)
    np.testing.assert_allclose(pooling(40).sum(1), 1, atol=1e-6)


def test_places_have_the_same_area_and_do_not_overlap() -> None:
    covered = np.zeros((SIDE, SIDE))
    for rows, columns in PLACES.values():
        covered[rows, columns] += 1
        assert covered[rows, columns].size == AREA * SIDE**2
    assert covered.max() == 1


def test_coverage_of_a_box() -> None:
    # Enlarged by a cell, the box reaches over columns 3 to 8.5 and rows 7 to 9.
    (covered,) = box_coverage(np.array([[4 / SIDE, 8 / SIDE, 7.5 / SIDE, 8 / SIDE]]))
    expected = np.zeros((SIDE, SIDE))
    expected[7:9, 3:8] = 1
    expected[7:9, 8] = 0.5
    np.testing.assert_allclose(covered, expected, atol=1e-6)
    assert not box_coverage(np.full((1, 4), np.nan)).any()


def test_saliency_in_the_box_is_no_corner() -> None:
    """An object that lies in the corner explains the saliency there."""
    pooled = np.zeros((2, SIDE, SIDE), np.float32)
    pooled[:, 13:15, 13:15] = 1
    boxes = np.array([[np.nan] * 4, [0.7, 0.7, 1, 1]])
    found = shares_of(Block(slice(0, 2), pooled, pooled.max((1, 2)), boxes))
    corner = list(PLACES).index("bottom right corner")
    assert found.places[:, corner].tolist() == [1, 0]
    assert np.isnan(found.lift[0])
    assert found.lift[1] == pytest.approx(1 / (1 - 0.7 + 1 / SIDE) ** 2, rel=1e-5)


def test_objects_that_the_saliency_misses(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    labels = np.repeat(np.arange(3), 30)
    saliency = spots(random, 90, (0.5, 0.25), 0.03)
    box = np.tile(np.array([20, 30, 80, 70], np.float32), (90, 1))  # around the spots
    box[labels == 1] += [100, 0, 100, 0]  # but not of this class
    path = write_result(tmp_path / "a.h5", saliency, labels, box=box)
    result = found_in(path)
    assert [(one.kind, one.class_name, one.value) for one in result.findings] == [("off object", "bee", 1.0)]
    assert not any("no boxes" in note for note in result.notes)
    box[labels != 1] += [100, 0, 100, 0]  # nor of the others: no class differs
    with MaskFile(write_result(tmp_path / "b.h5", saliency, labels, box=box)) as masks:
        (block,) = blocks(masks, units_of(masks))
        (whole,) = find(masks).findings
    assert (whole.kind, whole.class_name, whole.value) == ("off object", None, 1.0)
    np.testing.assert_allclose(block.boxes[0], [0.6, 0.3, 0.9, 0.7], atol=1e-6)


def test_each_image_counts_once_for_a_class(tmp_path: Path) -> None:
    ids = ["a", "a", "a", "a", "b", "b"]
    path = write_result(
        tmp_path / "a.h5",
        np.ones((6, CELLS, CELLS), np.float32),
        [1, 1, 1, 2, 1, 1],
        ids,
        target=[0, 0, 1, 2, 0, 1],
        best=[0, 1, 1, 1, 1, 1],
        status=np.array(["ok", "ok", "ok", "ok", "nan", "ok"], object),
    )
    with MaskFile(path) as masks:
        units = units_of(masks)
    # The best start of the first target; not the broken row.
    assert units.rows.tolist() == [1, 3, 5]
    assert [units.names[place] for place in units.classes] == ["bee", "cat", "bee"]
    assert (units.left_out, units.failed) == (2, 1)


def clusters_in(saliency: Masks, seed: int = 0) -> list[Any]:
    matrix = pooling(CELLS)
    return clusters_of("cat", np.arange(len(saliency)) * 10, matrix @ saliency @ matrix.T, seed)


def test_two_strategies_are_two_clusters() -> None:
    random = np.random.default_rng(7)
    saliency = np.concatenate(
        [spots(random, 70, (0.5, 0.5), 0.12), spots(random, 30, (0.95, 0.05), 0.02, 0.06)]
    )
    large, small = clusters_in(saliency)
    assert set(large.rows) == set(range(0, 700, 10))
    assert set(small.rows) == set(range(700, 1000, 10))
    assert (large.size, small.size, small.class_name) == (70, 30, "cat")
    assert small.mean_mask.shape == (SIDE, SIDE)
    assert small.mean_mask.sum() == pytest.approx(1, abs=1e-4)
    assert small.mean_mask[-4:, :4].sum() > 0.6


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("number", [50, 150])
def test_one_strategy_is_no_cluster(spread: float, number: int) -> None:
    """Objects in varying places are no strategies."""
    random = np.random.default_rng(8)
    wrong = sum(bool(clusters_in(spots(random, number, (0.5, 0.5), spread, 0.1))) for _ in range(10))
    assert wrong == 0


def test_noise_and_few_masks_are_no_clusters() -> None:
    random = np.random.default_rng(9)
    assert clusters_in(random.random((100, CELLS, CELLS)).astype(np.float32)) == []
    assert clusters_in(np.full((60, CELLS, CELLS), 0.5, np.float32)) == []
    few = np.concatenate([spots(random, 14, (0, 0)), spots(random, 14, (1, 1))])
    assert clusters_in(few) == []


def test_large_classes_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("igos_pl.findings.search._MOST_OF_CLASS", 60)
    random = np.random.default_rng(10)
    places = [(0.5, 0.5), (0.95, 0.05)]
    saliency = np.concatenate([spots(random, 100, place, 0.05) for place in places])
    path = write_result(tmp_path / "a.h5", saliency, np.zeros(200, int))
    result = found_in(path)
    assert sum(cluster.size for cluster in result.clusters) == 60
    assert len(result.clusters) == 2
    assert any("a random sample of 60 of 200 masks" in note for note in result.notes)
    again, other = found_in(path), found_in(path, seed=1)
    assert [one.rows for one in again.clusters] == [one.rows for one in result.clusters]
    assert {row for one in other.clusters for row in one.rows} != {
        row for one in result.clusters for row in one.rows
    }


def test_blocks_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(11)
    labels = random.integers(0, 3, 150)
    saliency = spots(random, 150, (0.5, 0.5), 0.2)
    saliency[labels == 1] = spots(random, int((labels == 1).sum()), (0, 0), 0.02)
    path = write_result(tmp_path / "a.h5", saliency, labels)
    whole = found_in(path)
    monkeypatch.setattr("igos_pl.findings.reading._BLOCK_CELLS", 7 * CELLS**2)
    parts = found_in(path)
    assert whole.findings
    assert parts.findings == whole.findings
    assert parts.notes == whole.notes


def test_wrong_predictions_are_paired(tmp_path: Path) -> None:
    random = np.random.default_rng(12)
    path = write_result(
        tmp_path / "a.h5",
        spots(random, 7, (0.5, 0.5)),
        labels=[0, 1, 2, 0, 0, 3, 1],
        ids=["a", "a", "b", "c", "d", "d", "e"],
        target=[0, 1, 0, 0, 0, 1, 0],
        score=[0.6, 0.3, 0.9, 0.8, 0.7, 0.2, 0.5],
        truth={"a": 1, "b": 2, "c": 4, "d": 3},
        attributes={"network.targets": "both"},
    )
    result = found_in(path)
    pairs = [(one.sample_id, one.predicted_row, one.true_row) for one in result.confusions]
    assert pairs == [("d", 4, 5), ("a", 0, 1)]
    (note,) = (note for note in result.notes if "Wrong predictions" in note)
    assert note.startswith("Wrong predictions without an explanation of the true class: 1 of 3.")


@pytest.mark.parametrize("targets", ["ground_truth", "[1, 2]", "detected"])
def test_other_targets_are_no_predictions(tmp_path: Path, targets: str) -> None:
    saliency = np.ones((2, CELLS, CELLS), np.float32)
    settings = {"network.targets": targets}
    path = write_result(tmp_path / "a.h5", saliency, [1, 2], ["a", "a"], {"a": 2}, settings, target=[0, 1])
    assert found_in(path).confusions == []


def test_notes_say_what_cannot_be_said(tmp_path: Path) -> None:
    saliency = np.ones((6, CELLS, CELLS), np.float32)
    saliency[:2] = 0.001
    status = np.array(["ok"] * 5 + ["nan"], object)
    notes = found_in(write_result(tmp_path / "a.h5", saliency, [0] * 6, status=status)).notes
    text = "\n".join(notes)
    assert "left out because their objective was not finite: 1." in text
    assert "left out because their masks are nearly empty: 2." in text
    assert "All explanations are of one class" in text
    assert "no boxes" in text
    assert "have no labels" in text


def test_nothing_was_explained(tmp_path: Path) -> None:
    path = write_result(tmp_path / "a.h5", np.empty((0, CELLS, CELLS), np.float32), [])
    assert found_in(path) == Findings([], [], [], ["Nothing was explained."])


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_result(tmp_path / "a.h5", np.ones((2, CELLS, CELLS), np.float32), [0, 1])
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        IgosError, match=r"The search for findings needs the package sklearn.*igos_pl\[report\]"
    ):
        found_in(path)
