"""Compares results: means, paired differences with confidence intervals, and the agreement of the masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from igos_pl.compare.agreement import TOP, agreement
from igos_pl.compare.pairing import Pairing, pair
from igos_pl.errors import IgosError
from igos_pl.settings import Attributes
from igos_pl.store import MaskFile, unfinished
from igos_pl.store.schema import configuration_of, differing_keys

Numbers = NDArray[np.float64]

METRICS = {
    "deletion": "low is good",
    "insertion": "high is good",
    "difference": "insertion - deletion, high is good",
    "score": "of the network",
    "energy_box": "saliency in the object's box",
    "energy_mask": "saliency in its instance mask",
    "pointing_box": "peak in the object's box",
    "pointing_mask": "peak in its instance mask",
}
AGREEMENTS = ("rank correlation", *(f"overlap of the top {share:.0%}" for share in TOP))

_RESAMPLES, _LEVEL, _SEED = 2000, 0.95, 0
_BLOCK_VALUES = 1 << 22  # numbers that the bootstrap draws at once
_BLOCK_ROWS = 256  # explanations whose masks are in memory at once
_NAMED = 4  # images without a complete result that are named


@dataclass(frozen=True)
class Difference:
    """A paired difference of a metric between two results.

    Attributes:
        mean: over the shared explanations for which both know the metric.
        low: the lower end of the 95% confidence interval; NaN for a single image.
        high: the upper end.
        count: the number of these explanations.
    """

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Comparison:
    """What a comparison found. The first result is the reference of all differences.

    Attributes:
        names: of the results.
        pairing: the explanations that they share.
        images: ``(n,)`` the image's id of each shared explanation.
        metrics: by metric, ``(n, runs)``; NaN where a value is not known.
        agreements: for each pair of results, ``(n, 3)``: see `AGREEMENTS`.
        settings: the settings that differ, with their value in each result; ``-`` where a result has none.
        only_in: for each group of results (their places), the settings that only this group has, with their
            common value.
        remarks: what a reader must know before believing the numbers.
        unfinished: for each unfinished result, by its name: a sentence that says so.
        incomplete: by the name of a result, the number of its images whose status is not ok, and the first
            of them with their statuses.
    """

    names: Sequence[str]
    pairing: Pairing
    images: NDArray[np.object_]
    metrics: dict[str, Numbers]
    agreements: dict[tuple[int, int], Numbers]
    settings: dict[str, list[str]]
    only_in: dict[tuple[int, ...], dict[str, str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    unfinished: dict[str, str] = field(default_factory=dict)
    incomplete: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)

    def mean(self, metric: str, run: int) -> float:
        """The mean of a metric over the explanations for which all results know it."""
        values = self.metrics[metric]
        known = ~np.isnan(values).any(1)
        return float(values[known, run].mean()) if known.any() else np.nan

    def difference(self, metric: str, run: int) -> Difference:
        """A result's metric minus that of the first."""
        values = self.metrics[metric]
        return paired_difference(values[:, run] - values[:, 0], self.images)


def compare(
    results: Sequence[MaskFile],
    names: Sequence[str],
    on_progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare results of the same images.

    Args:
        results: at least two; the first is the reference.
        names: of the results.
        on_progress: called with the number of explanations compared so far, and the number of all.

    Raises:
        IgosError: if the results share no explanation.
    """
    if len(results) < 2:
        raise IgosError("A comparison needs two results or more")
    pairing = pair(results)
    rows = pairing.rows
    if not len(rows):
        raise IgosError(_nothing_shared(results, names, pairing))
    columns = [_metrics(result, rows[:, run]) for run, result in enumerate(results)]
    metrics = {name: np.stack([one[name] for one in columns], 1) for name in METRICS}
    pairs = list(combinations(range(len(results)), 2))
    agreements = {both: np.full((len(rows), len(AGREEMENTS)), np.nan) for both in pairs}
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = [list(result[rows[start : start + _BLOCK_ROWS, run]]) for run, result in enumerate(results)]
        for place, shown in enumerate(zip(*block, strict=True), start):
            for one, other in pairs:
                agreements[one, other][place] = agreement(shown[one], shown[other])
        if on_progress is not None:
            on_progress(min(start + _BLOCK_ROWS, len(rows)), len(rows))
    configurations = [_settings(result) for result in results]
    differing = _differing(configurations)
    only_in = _only_in(configurations, differing)
    in_some = {key for keys in only_in.values() for key in keys}
    settings = {key: values for key, values in differing.items() if key not in in_some}
    images = results[0][rows[:, 0]].column("sample_id")
    told = (unfinished(result.path, "igos-pl compare", result.published) for result in results)
    unfinished_runs = {name: text for name, text in zip(names, told, strict=True) if text}
    incomplete = {
        name: found for name, result in zip(names, results, strict=True) if (found := _not_ok(result))[0]
    }
    remarks = _remarks(differing)
    return Comparison(
        names, pairing, images, metrics, agreements, settings, only_in, remarks, unfinished_runs, incomplete
    )


def paired_difference(differences: Numbers, images: NDArray[np.object_]) -> Difference:
    """The mean of some differences, with a 95% confidence interval by the bootstrap.

    Whole images are drawn, because the explanations of one image depend on each other.

    Args:
        differences: ``(n,)``; NaN where they are not known.
        images: ``(n,)`` the image of each.
    """
    known = ~np.isnan(differences)
    values = differences[known]
    if not len(values):
        return Difference(np.nan, np.nan, np.nan, 0)
    _, group = np.unique(images[known].astype(str), return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    if len(sums) < 2:
        return Difference(float(values.mean()), np.nan, np.nan, len(values))
    random = np.random.default_rng(_SEED)
    at_once = max(1, _BLOCK_VALUES // len(sums))
    means: list[Numbers] = []
    for start in range(0, _RESAMPLES, at_once):
        drawn = random.integers(len(sums), size=(min(at_once, _RESAMPLES - start), len(sums)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return Difference(float(values.mean()), float(low), float(high), len(values))


def _metrics(result: MaskFile, rows: NDArray[np.int64]) -> dict[str, Numbers]:
    found = {
        name: np.asarray(result.read(name, rows), np.float64) for name in METRICS if name != "difference"
    }
    return {**found, "difference": found["insertion"] - found["deletion"]}


def _not_ok(result: MaskFile) -> tuple[int, dict[str, str]]:
    """How many images of a result do not have the status ok, and the statuses of the first by their ids."""
    statuses = result.images["status"].astype(str)
    told = np.flatnonzero(statuses != "ok")
    first = told[:_NAMED]
    ids = result.image_table.read("sample_id", first).tolist()
    return len(told), dict(zip(ids, statuses[first].tolist(), strict=True))


def _settings(result: MaskFile) -> Attributes:
    """The settings of a result, and the preset from which they came, if that is known."""
    preset = result.attributes.get("preset")
    return {**({"preset": str(preset)} if preset else {}), **configuration_of(result.attributes)}


def _differing(configurations: Sequence[Attributes]) -> dict[str, list[str]]:
    """The settings that differ, the preset first, with their value in each result."""
    keys = {key for other in configurations[1:] for key in differing_keys(configurations[0], other)}
    ordered = sorted(keys, key=lambda key: (key != "preset", key))
    return {key: [str(one.get(key, "-")) for one in configurations] for key in ordered}


def _only_in(
    configurations: Sequence[Attributes], differing: Iterable[str]
) -> dict[tuple[int, ...], dict[str, str]]:
    """Of the differing settings, those that some results do not have and on which the others agree."""
    found: dict[tuple[int, ...], dict[str, str]] = {}
    for key in differing:
        places = tuple(place for place, one in enumerate(configurations) if key in one)
        if len({configurations[place][key] for place in places}) == 1 and len(places) < len(configurations):
            found.setdefault(places, {})[key] = str(configurations[places[0]][key])
    return found


def _remarks(settings: dict[str, list[str]]) -> list[str]:
    """Remarks on settings that change deletion and insertion by themselves."""
    remarks = []
    if any(key in settings for key in settings if key == "network" or key.startswith("network.")):
        remarks.append(
            "The results have different networks, or one network with different settings. This changes"
            " scores, deletion and insertion, too"
        )
    if "baseline" in settings:
        kinds = ", ".join(settings["baseline"])
        remarks.append(f"Deletion and insertion were measured with different baselines ({kinds})")
    if "data.resize" in settings:
        remarks.append("The networks saw different parts of the images (data.resize)")
    return remarks


def _nothing_shared(results: Sequence[MaskFile], names: Sequence[str], pairing: Pairing) -> str:
    counts = ", ".join(f"{name}: {len(result)}" for name, result in zip(names, results, strict=True))
    alone = [found[0] for found in pairing.images_alone if found]
    example = f". Images that only one result has are, for example, {', '.join(alone)}" if alone else ""
    images = [set(result.images["sample_id"]) for result in results]
    if not set.intersection(*images):
        return f"The results have no image in common (explanations of {counts}){example}"
    return (
        f"The results share no explanation of the same image and class (explanations of {counts}){example}."
        " To explain the same classes, set targets of the network (--model.network.targets)"
    )
