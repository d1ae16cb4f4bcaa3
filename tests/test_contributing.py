"""What CONTRIBUTING.md shows how to add works as it stands there."""

from __future__ import annotations

from typing import Any

import pages
import pytest
import tiny

import igos_pl
from igos_pl.explainer import Explainer
from igos_pl.judging.metrics import METRICS
from igos_pl.solver.integration_paths import PATHS
from igos_pl.solver.methods import METHODS

BLOCKS = pages.blocks("CONTRIBUTING.md")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the five examples define."""
    for registry in (METHODS, PATHS, METRICS):
        for name in ("insertion", "middle", "peak"):
            monkeypatch.setitem(registry, name, None)  # type: ignore[arg-type]
            monkeypatch.delitem(registry, name)
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, names)
    return names


def test_five_things_can_be_added_in_few_lines() -> None:
    assert len(BLOCKS) == 5
    assert max(len(block.splitlines()) for block in BLOCKS) <= 12


def test_they_work_together(shown: dict[str, Any]) -> None:
    network = shown["Regressor"](tiny.TinyNet(), input_size=tiny.SIZE)
    added: dict[str, Any] = {"method": "insertion", "path": "middle", "optimizer": shown["SignDescent"]}
    explainer = Explainer(network, **added, mask_size=6, iterations=3, l1=0.1)
    described = explainer.describe()
    assert (described["method"], described["path"]) == ("insertion only", "middle")
    assert (described["optimizer"], described["optimizer.step_size"]) == ("SignDescent", 0.05)
    assert described["network"] == "Regressor"
    rows = explainer.predict_step(tiny.batch_of(tiny.pictures(2))).explanations
    assert rows["masks"].shape == (2, 6, 6)
    assert rows["masks"].min() < 0.99
    assert (rows["evaluations"] == 3 * 2).all()


def test_the_metric_judges(shown: dict[str, Any]) -> None:
    network, images = tiny.tiny_classifier(), tiny.pictures(2).float() / 255
    result = igos_pl.explain(network, images, mask_size=6, iterations=1, metrics=False)
    figures = igos_pl.evaluate(result, "peak", network, images)
    assert figures["peak"].tolist() == result.saliency.max((1, 2)).tolist()


def test_what_is_missing_is_named(shown: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="abstract.*score"):
        type("Half", (shown["Regressor"].__base__,), {"propose": lambda *_: None})(tiny.TinyNet())
