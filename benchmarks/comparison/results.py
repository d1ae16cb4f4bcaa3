"""Masks and figures in a folder, kept one by one, so that an interrupted comparison goes on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.explanation import Explanation
from peers.partitions import Grid, Regions

from comparison.judges import judge, judge_named
from comparison.methods import Explained, explain
from comparison.passes import Passes
from comparison.samples import Sample
from igos_pl.models import ExplainableNetwork
from igos_pl.randomness import key_of


@dataclass(frozen=True)
class Figures:
    """What is known of one explanation; areas under the curves, and CPU seconds of one target."""

    deletion: float
    insertion: float
    evaluations: int
    forwards: int
    seconds: float

    @property
    def difference(self) -> float:
        """Insertion - deletion, higher is better."""
        return self.insertion - self.deletion

    @property
    def cost(self) -> float:
        """All passes, in forward passes."""
        return Passes(self.evaluations, self.forwards).cost


class Results:
    """A method's masks and figures in a folder.

    Args:
        folder: of one network's results.
        method: the method's name.
        description: what decides the masks; what was kept for another one is passed over.
    """

    def __init__(self, folder: Path, method: str, description: str) -> None:
        self.lines = folder / f"{method}.jsonl"
        self.masks = folder / "masks" / method
        self.masks.mkdir(parents=True, exist_ok=True)
        self.description = description
        self._figures = self._read()

    def figures(self, sample: Sample, row: int, judge: str) -> Figures | None:
        """What was kept of a target."""
        return self._figures.get((self._key(sample), row, judge))

    def add(self, sample: Sample, row: int, judge: str, figures: Figures) -> None:
        """Keep the figures of a target by a judge."""
        key = self._key(sample)
        named = {"case": sample.case(row), "key": key, "row": row, "judge": judge}
        with self.lines.open("a") as file:
            file.write(json.dumps({**named, **asdict(figures)}) + "\n")
        self._figures[key, row, judge] = figures

    def explained(self, sample: Sample) -> tuple[list[Explained], float] | None:
        """The masks that were kept of a sample's targets, and the CPU seconds that each took."""
        path = self._mask_path(sample)
        if not path.exists():
            return None
        size = (sample.pixels.shape[-2], sample.pixels.shape[-1])
        with np.load(path) as kept:
            found = [
                Explained(_explanation(kept, row, size), Passes(*kept[f"passes{row}"].tolist()))
                for row in range(len(sample.targets))
            ]
            return found, float(kept["seconds"])

    def add_explained(self, sample: Sample, explained: Sequence[Explained], seconds: float) -> None:
        """Keep the masks of a sample's targets."""
        arrays: dict[str, Any] = {"seconds": seconds}
        for row, each in enumerate(explained):
            partition = each.explanation.partition
            arrays[f"mask{row}"] = each.explanation.mask.numpy()
            arrays[f"passes{row}"] = np.array([each.passes.evaluations, each.passes.forwards])
            if isinstance(partition, Regions):
                arrays[f"labels{row}"] = partition.labels.numpy()
        path = self._mask_path(sample)
        part = path.with_suffix(".part")  # whole or not at all
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)
        part.replace(path)

    def _key(self, sample: Sample) -> str:
        """What a sample's entries are marked by."""
        return f"{key_of(self.description, sample.digest):016x}"

    def _mask_path(self, sample: Sample) -> Path:
        return self.masks / f"{sample.id}-{self._key(sample)}.npz"

    def _read(self) -> dict[tuple[str, int, str], Figures]:
        """All figures; a last line that was cut off is removed."""
        if not self.lines.exists():
            return {}
        text = self.lines.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.lines.write_text(whole)
        entries = [json.loads(line) for line in whole.splitlines()]
        names = Figures.__dataclass_fields__
        return {
            (entry["key"], entry["row"], entry["judge"]): Figures(**{name: entry[name] for name in names})
            for entry in entries
        }


def _explanation(kept: Any, row: int, size: tuple[int, int]) -> Explanation:
    mask = torch.from_numpy(kept[f"mask{row}"])
    if f"labels{row}" in kept:
        return Explanation(Regions(torch.from_numpy(kept[f"labels{row}"])), mask)
    return Explanation(Grid(round(len(mask) ** 0.5), size), mask)


def run(
    network: ExplainableNetwork,
    method: str,
    samples: Sequence[Sample],
    judges: Sequence[str],
    results: Results,
) -> None:
    """Explain and judge what is not in the results yet."""
    for number, sample in enumerate(samples, 1):
        missing = [
            (row, name)
            for row in range(len(sample.targets))
            for name in judges
            if results.figures(sample, row, name) is None
        ]
        if not missing:
            continue
        explained, seconds = results.explained(sample) or _timed(network, method, sample, results)
        for row, name in missing:
            each = explained[row]
            areas = judge(network, sample, row, each.explanation, judge_named(name))
            passes = each.passes.evaluations, each.passes.forwards
            results.add(sample, row, name, Figures(*areas, *passes, seconds))
        told = f"{method}: {number} of {len(samples)} pictures, {seconds:.1f} CPU s an explanation"
        print(told, file=sys.stderr, flush=True)


def _timed(
    network: ExplainableNetwork, method: str, sample: Sample, results: Results
) -> tuple[Sequence[Explained], float]:
    began = time.process_time()
    explained = explain(network, method, sample)
    seconds = (time.process_time() - began) / len(explained)
    results.add_explained(sample, explained, seconds)
    return explained, seconds
