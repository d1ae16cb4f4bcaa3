"""The benchmark of stability: what it varies, what it compares, and its table."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tiny import SIZE, TinyNet, batch_of, pictures, tiny_classifier
from torch import Tensor, nn

from igos_pl.data.batches import ImageBatch
from igos_pl.data.targets import class_targets

SETTINGS = {"iterations": 2, "mask_size": 6}


@pytest.fixture
def stability(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script that imports others by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("stability")


def photos(number: int = 2) -> list[ImageBatch]:
    return [batch_of(pictures(number).float() / 255)]


def test_change_is_as_computed_by_hand(stability: ModuleType) -> None:
    def found(masks: list[list[float]], quality: list[float], label: list[int]) -> object:
        return stability.Found(np.array(masks), np.array(quality), np.array(label))

    reference = found([[0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 0, 0]], [0.5, 0.25, 0.1], [3, 4, 5])
    other = found([[0.5, 1, 0.5, 1], [1, 1, 0, 0], [0, 1, 0, 0]], [0.75, 0.0, 0.9], [3, 4, 6])
    change = stability.change(reference, other)  # the third photo has another prediction
    assert change.correlation == pytest.approx([1, -1])
    assert change.cell.tolist() == [0.5, 1]
    assert change.quality.tolist() == [0.75, 0]
    assert change.gain.tolist() == [0.25, -0.25]
    assert len(stability.pooled([change, change]).gain) == 4


def test_mask_without_contrast_correlates_with_itself_only(stability: ModuleType) -> None:
    flat, other = np.ones(4), np.array([1.0, 0, 1, 1])
    assert stability.correlation(flat, flat) == 1
    assert stability.correlation(flat, other) == 0


def test_noise_has_its_size_and_is_the_same_each_time(stability: ModuleType) -> None:
    grey = [batch_of(torch.full((2, 3, SIZE, SIZE), 0.5))]
    (once,), (again,) = stability.noisy(grey, 2.0), stability.noisy(grey, 2.0)
    assert torch.equal(once.images, again.images)
    assert not torch.equal(once.images[0], once.images[1])
    assert float((once.images - 0.5).std() * 255) == pytest.approx(2, rel=0.05)


def test_row_major_tensors_reach_the_network(stability: ModuleType) -> None:
    seen: list[Tensor] = []

    class Noting(TinyNet):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().forward(images)

    module = Noting()
    network = stability.RowMajorClassifier(module, input_size=SIZE)
    images = network.normalize(pictures(2))
    assert not images.is_contiguous()
    with network.frozen():
        network.score(images, class_targets(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.ones(2)))
        assert module.first.weight.is_contiguous()
    assert seen[-1].is_contiguous()


def test_runs_differ_only_by_what_their_kind_says(stability: ModuleType) -> None:
    network, batches = tiny_classifier(), photos()
    reference = stability.explain(network, batches, "fast", **SETTINGS)
    same = stability.change(reference, stability.explain(network, batches, "fast", **SETTINGS))
    assert same.cell.max() == 0
    kinds = stability.runs(network, batches, "fast", SETTINGS)
    assert list(kinds) == ["rounding", "seed", "noise"]
    before = torch.get_num_threads()
    for run in kinds["rounding"].values():
        assert stability.change(reference, run()).cell.max() < 1e-3
    assert torch.get_num_threads() == before
    for run in kinds["seed"].values():  # nothing of fast is random
        assert stability.change(reference, run()).cell.max() == 0
    noisy = {**SETTINGS, "noise": 0.2}
    reference = stability.explain(network, batches, "fast", **noisy)
    one, other = (run() for run in stability.runs(network, batches, "fast", noisy)["seed"].values())
    for first, second in ((reference, one), (reference, other), (one, other)):
        assert stability.change(first, second).cell.max() > 1e-3


def test_table_of_a_preset(stability: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    stability.compare(tiny_classifier(), photos(), "fast", SETTINGS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("fast, iterations 2, mask_size 6: 2 photos, insertion - deletion")
    rows = {line[:34].strip(): line[34:].split() for line in lines[4:]}
    assert rows["rounding, all"][:3] == [str(2 * (len(rows) - 6)), "1.000", "1.000"]
    assert {"seed 64, not 63", "seed, all", "noise of 0.5/255"} <= set(rows)
    assert all(len(row) == 8 for row in rows.values())


def test_photo_with_another_prediction_is_left_out_of_the_table(
    stability: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    class Nervous(nn.Module):
        """Its prediction depends on whether the image has noise."""

        def forward(self, images: Tensor) -> Tensor:
            level = images.diff(dim=3).abs().mean((1, 2, 3)) * 1000 - 1
            return torch.stack((level, -level), 1)

    grey = [batch_of(torch.full((2, 3, SIZE, SIZE), 0.5))]
    stability.compare(tiny_classifier(Nervous()), grey, "fast", SETTINGS)
    noise = [line for line in capsys.readouterr().out.splitlines() if "noise" in line]
    assert [line.split()[-1] for line in noise] == ["0", "0"]


def test_settings_of_the_command_line(stability: ModuleType) -> None:
    assert stability.setting("l1=0.5") == ("l1", 0.5)
    assert stability.setting("path=scaled") == ("path", "scaled")
    with pytest.raises(argparse.ArgumentTypeError, match="not NAME=VALUE"):
        stability.setting("l1")
