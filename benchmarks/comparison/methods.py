"""All methods by name, ours and the peers: what decides their masks, and the masks of a sample."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peers.explanation import Explanation
from peers.partitions import Grid
from peers.registry import PEERS, Picture

from comparison.passes import Passes, counted_passes
from comparison.samples import SEED, Sample
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.models import ExplainableNetwork
from igos_pl.solver.presets import preset_names

# Ours: a preset, and what is changed. The published iGOS+ has the settings of the published iGOS++.
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in preset_names()},
    "published_igos+": ("published", {"method": "igos+"}),
}

# What tables and figures call our presets; others go by their names.
_LABELS = {
    "fast": "iGOS+, fast preset",
    "igospp": "iGOS++, igospp preset",
    "published": "iGOS++, as published",
    "published_igos": "I-GOS, as published",
    "published_igos+": "iGOS+, as published",
}


def label_of(family: str) -> str:
    """What figures call a family of methods."""
    return PEERS[family].label if family in PEERS else _LABELS.get(family, family)


def split_name(method: str) -> tuple[str, tuple[int, ...]]:
    """The family and the amounts of a method's name: ``published@10x5`` gives ``published`` and (10, 5).

    Raises:
        IgosError: on an unknown family, or amounts that it does not take.
    """
    family, _, amount = method.partition("@")
    if family not in (*OURS, *PEERS):
        raise IgosError(f"There is no method {family!r}, but {', '.join([*OURS, *PEERS])}")
    parts = amount.split("x") if amount else []
    possible = (0, 1, 2, 3) if family in OURS else (int(PEERS[family].has_amount),)
    if len(parts) not in possible or not all(part.isdigit() and int(part) > 0 for part in parts):
        example = PEERS[family].example if family in PEERS else f"{family}@20x5"
        raise IgosError(f"{method!r} is no method's name: for example, {example} is")
    return family, tuple(int(part) for part in parts)


def check_kind(method: str, kind: str) -> None:
    """Raise if a peer cannot explain photos, or detections."""
    family, _ = split_name(method)
    if family in PEERS and kind not in PEERS[family].kinds:
        raise IgosError(f"{family} does not explain {kind}, but {' and '.join(PEERS[family].kinds)}")


def explainer_of(network: ExplainableNetwork, method: str) -> Explainer:
    """One of our methods; it does not judge its masks itself."""
    family, amounts = split_name(method)
    preset, changed = OURS[family]
    named = dict(zip(("iterations", "path_steps", "mask_size"), amounts, strict=False))
    return Explainer.from_preset(network, preset, **{**changed, **named}, metrics=False, seed=SEED)


def describe(network: ExplainableNetwork, method: str) -> str:
    """Everything that decides a method's masks, but the sample and the code."""
    family, _ = split_name(method)
    if family in OURS:
        return json.dumps(explainer_of(network, method).describe(), sort_keys=True)
    return json.dumps([method, PEERS[family].setting, network.describe()], sort_keys=True)


@dataclass(frozen=True)
class Explained:
    """An explanation and its passes through the network."""

    explanation: Explanation
    passes: Passes


def explain(network: ExplainableNetwork, method: str, sample: Sample) -> Sequence[Explained]:
    """The masks of all targets of a sample."""
    if split_name(method)[0] in OURS:
        return _ours(network, method, sample)
    return [_peers(network, method, sample, row) for row in range(len(sample.targets))]


def _ours(network: ExplainableNetwork, method: str, sample: Sample) -> Sequence[Explained]:
    columns = explainer_of(network, method).explain_batch(sample.batch).explanations
    counts = zip(columns["evaluations"].tolist(), columns["forwards"].tolist(), strict=True)
    found = []
    for mask, (evaluations, forwards) in zip(columns["masks"], counts, strict=True):
        values = torch.from_numpy(np.asarray(mask, np.float32)).flatten()
        grid = Grid(len(mask), network.input_size)
        # The curves' two ends, which cost a pass each, are no part of the mask.
        found.append(Explained(Explanation(grid, values), Passes(evaluations, forwards)))
    return found


def _peers(network: ExplainableNetwork, method: str, sample: Sample, row: int) -> Explained:
    family, amounts = split_name(method)
    problem = sample.problem(network, row, "blur")
    with counted_passes(network) as passes:
        picture = Picture(network, problem, sample.pixels)
        explanation = PEERS[family].explain(picture, *(amounts or (0,)))
    return Explained(explanation, passes)
