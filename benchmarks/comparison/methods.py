"""All methods by name, ours and the peers: what decides their masks, and the masks of a sample."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers.explanation import Explanation, of_order
from peers.partitions import Grid, Partition, Regions, slic
from peers.registry import PEERS, Picture
from torch import Tensor

from comparison.passes import Passes, counted_passes
from comparison.samples import SEED, Sample
from igos_pl.data.geometry import Frame
from igos_pl.data.records import ImageRecord
from igos_pl.data.regions import RegionSource
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.models import ExplainableNetwork
from igos_pl.solver.methods import SEARCH
from igos_pl.solver.presets import preset_names

# Ours: a preset, and what is changed. The published iGOS+ has the settings of the published iGOS++.
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in preset_names()},
    "published_igos+": ("published", {"method": "igos+"}),
    "search-slic": ("search", {}),
}

# The settings that the numbers after the @ of a name set, in order.
_AMOUNTS = ("iterations", "path_steps", "mask_size")
_AMOUNTS_OF = {"search": ("mask_size",), "search-slic": ("superpixels",)}

# What tables and figures call our presets; others go by their names.
_LABELS = {
    "draft": "iGOS+, draft preset",
    "fast": "iGOS+, fast preset",
    "igospp": "iGOS++, igospp preset",
    "published": "iGOS++, as published",
    "published_igos": "I-GOS, as published",
    "published_igos+": "iGOS+, as published",
    "search": "search, cells",
    "search-slic": "search, superpixels",
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
    fewest, most = _amounts_of(family)
    if not (fewest <= len(parts) <= most and all(part.isdigit() and int(part) > 0 for part in parts)):
        example = _example(family)
        raise IgosError(f"{method!r} is no method's name: for example, {example} is")
    return family, tuple(int(part) for part in parts)


def _amounts_of(family: str) -> tuple[int, int]:
    """The smallest and the largest count of numbers after the @."""
    if family in PEERS:
        return (int(PEERS[family].has_amount),) * 2
    settings = _AMOUNTS_OF.get(family, _AMOUNTS)
    return int("superpixels" in settings), len(settings)


def _example(family: str) -> str:
    """A name of a family."""
    if family in PEERS:
        return PEERS[family].example
    return f"{family}@{'20x5' if family not in _AMOUNTS_OF else 49 if family == 'search-slic' else 7}"


def check_kind(method: str, kind: str) -> None:
    """Raise if a peer cannot explain photos, or detections."""
    family, _ = split_name(method)
    if family in PEERS and kind not in PEERS[family].kinds:
        raise IgosError(f"{family} does not explain {kind}, but {' and '.join(PEERS[family].kinds)}")


def explainer_of(network: ExplainableNetwork, method: str) -> Explainer:
    """One of our methods; it does not judge its masks itself."""
    family, amounts = split_name(method)
    preset, changed = OURS[family]
    named: dict[str, Any] = dict(zip(_AMOUNTS_OF.get(family, _AMOUNTS), amounts, strict=False))
    if "superpixels" in named:  # whose borders are those of pixels
        named = {"regions": Superpixels(named["superpixels"]), "mask_size": min(network.input_size)}
    return Explainer.from_preset(network, preset, **{**changed, **named}, metrics=False, seed=SEED)


class Superpixels(RegionSource):
    """The superpixels of the peers.

    Args:
        count: about how many.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def labels_of(self, image: Tensor, record: ImageRecord) -> tuple[NDArray[Any], Frame]:
        """See `RegionSource.labels_of`."""
        height, width = image.shape[-2:]
        return slic(image, self.count).labels.numpy(), Frame.of(width, height, (height, width), "squash")


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
    explainer = explainer_of(network, method)
    columns = explainer.explain_batch(sample.batch).explanations
    counts = zip(columns["evaluations"].tolist(), columns["forwards"].tolist(), strict=True)
    found = []
    for row, (evaluations, forwards) in enumerate(counts):
        mask = torch.from_numpy(np.asarray(columns["masks"][row], np.float32))
        partition: Partition = Grid(len(mask), network.input_size)
        values = mask.flatten()
        if "regions" in columns:
            partition = Regions(torch.from_numpy(columns["regions"][row]).long())
            values = partition.means(mask)
        explanation = Explanation(partition, values)
        if explainer.method == SEARCH.name:  # judged as the peers' searches are: by the order alone
            explanation = of_order(explanation.mask.argsort(stable=True), partition)
        # The curves' two ends, which cost a pass each, are no part of the mask.
        found.append(Explained(explanation, Passes(evaluations, forwards)))
    return found


def _peers(network: ExplainableNetwork, method: str, sample: Sample, row: int) -> Explained:
    family, amounts = split_name(method)
    problem = sample.problem(network, row, "blur")
    with counted_passes(network) as passes:
        picture = Picture(network, problem, sample.pixels)
        explanation = PEERS[family].explain(picture, *(amounts or (0,)))
    return Explained(explanation, passes)
