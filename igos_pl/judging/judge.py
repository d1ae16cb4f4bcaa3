"""Judges the masks of a run by one metric, streaming over its images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igos_pl.callbacks import MaskWriter
from igos_pl.data.batches import ImageBatch
from igos_pl.data.explanation import Explanation
from igos_pl.data.records import BatchResult, Columns
from igos_pl.data.targets import Targets, class_targets
from igos_pl.errors import IgosError, TargetError
from igos_pl.evaluation.columns import array, text
from igos_pl.explainer import Explainer
from igos_pl.judging.cells import in_equal_cells
from igos_pl.judging.importer import IMPORTED
from igos_pl.judging.metrics import Asked
from igos_pl.judging.removal import INPAINT
from igos_pl.judging.rows import Rows
from igos_pl.models import Classifier, ExplainableNetwork
from igos_pl.predicting import BatchPredictor, row_keys
from igos_pl.settings import Attributes, nested, plain
from igos_pl.solver.baselines import make_baselines
from igos_pl.solver.objective import Problem
from igos_pl.solver.regions import Regions
from igos_pl.store import MaskFile
from igos_pl.store.evaluations import run_digest
from igos_pl.store.index import find
from igos_pl.store.schema import configuration_of

# Changes with the meaning of the metrics. 2: cells are the pixels around their centres, regions stay whole.
_RULES = 2

# The largest allowed difference between the score that the run recorded and the score now.
_SAME_SCORE = 0.05

# The smallest overlap of a recorded box with the box of the same detection now.
_SAME_BOX = 0.9


class EvaluationWriter(MaskWriter):
    """Publishes figures as segments. `igos_pl.store.evaluations` joins those of all metrics."""

    merges = False


class Explained(ABC):
    """The explanations that are judged.

    Attributes:
        attributes: the settings of their run.
    """

    attributes: Mapping[str, Any]

    @abstractmethod
    def of(self, sample_id: str) -> list[Explanation]:
        """The explanations of an image."""


class ExplainedRun(Explained):
    """The explanations of a run.

    Args:
        masks: the result of the run; open while the explanations are read.

    Raises:
        IgosError: if it has no explanations.
    """

    def __init__(self, masks: MaskFile) -> None:
        self.masks = masks
        self.attributes = masks.attributes
        if not len(masks):
            raise IgosError(f"{masks.path} has no explanations: there is nothing to judge")
        ids = masks.table.read_bytes("sample_id", np.arange(len(masks)))
        self._order = np.argsort(ids, kind="stable")
        self._ids = ids[self._order]

    def of(self, sample_id: str) -> list[Explanation]:
        """See `Explained.of`."""
        name = np.array([sample_id.encode()])
        first = int(find(self._ids, name)[0])
        if first < 0:
            return []
        last = int(np.searchsorted(self._ids, name[0], side="right"))
        return list(self.masks[np.sort(self._order[first:last])])

    def images(self) -> set[str]:
        """The names of the images that have explanations."""
        images = self.masks.images
        return set(images["sample_id"][images["targets"] > 0].tolist())


class ExplainedInMemory(Explained):
    """Explanations in memory.

    Args:
        rows: the explanations.
        attributes: their settings.
    """

    def __init__(self, rows: Sequence[Explanation], attributes: Mapping[str, Any]) -> None:
        self.attributes = attributes
        self._rows: dict[str, list[Explanation]] = {}
        for row in rows:
            self._rows.setdefault(str(row.sample_id), []).append(row)

    def of(self, sample_id: str) -> list[Explanation]:
        """See `Explained.of`."""
        return self._rows.get(sample_id, [])


class Judge(BatchPredictor):
    """Judges the masks of a run, of ours or imported, by one metric, in ``Trainer.predict``.

    Each row of the result has a row's key and its figures; `igos_pl.store.evaluations` joins them with the
    run. The masks themselves are never changed.

    Args:
        network: the network that was explained.
        run: the explanations.
        asked: the metric.
        explainer: made the masks; needed for `sensitivity` alone, and None for imported masks.
        seed: the random seed.
        micro_batch_size: perturbed images per forward pass; by default chosen for the device.
    """

    verb = "judge"
    not_settings = frozenset({"run", "asked", "explainer"})  # `facts` describes them

    def __init__(
        self,
        network: ExplainableNetwork,
        run: Explained,
        asked: Asked,
        explainer: Explainer | None = None,
        seed: int = 63,
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__(network, micro_batch_size)
        if asked.cells is not None and asked.cells > min(network.input_size):
            height, width = network.input_size
            raise IgosError(
                f"cells is {asked.cells}, which is more than the network's input of {height} x {width}"
                f" pixels: set cells (--cells) to {min(height, width)} or less"
            )
        self.run = run
        self.asked = asked
        self.seed = seed
        # In a list, so that it is not registered as a submodule.
        self._explainer = [explainer]
        if asked.metric.name == "sensitivity":
            if explainer is None or IMPORTED in self.run.attributes:
                raise IgosError(cannot_explain_again(self.run.attributes))
            check_explainer(explainer, self.run.attributes)

    def facts(self) -> Attributes:
        """A digest of all settings of the run, and the metric with its settings."""
        asked, attributes = self.asked, self.run.attributes
        return {
            **super().facts(),
            "run": run_digest(attributes),
            "method": str(attributes.get("method", "")),
            "metric": asked.metric.name,
            "rules": _RULES,
            "baseline": plain(asked.baseline),
            "cells": plain(asked.cells),
            "samples": asked.samples,
        }

    def explain_images(self, batch: ImageBatch) -> BatchResult:
        """The figures of all rows of the images.

        Raises:
            TargetError: if the network does not propose or score a target as it did in the run.
        """
        found = [self.run.of(record.sample_id) for record in batch.records]
        images = self.network.normalize(batch.images.clone())
        targets = self._targets(images, batch, found)
        explanations = [explanation for rows in found for explanation in rows]
        records = [record.explained(len(rows), []) for record, rows in zip(batch.records, found, strict=True)]
        if not explanations:
            return BatchResult(records)
        rows = self._rows(images, batch, targets, explanations)
        self._check_scores(rows, explanations)
        figures = self.asked.compute(rows)
        columns: Columns = {
            "sample_id": text(str(row.sample_id) for row in explanations),
            "target": np.array([row.target for row in explanations], np.int32),
            "start_cell": np.array([row.start_cell for row in explanations], np.int32),
            **{self.asked.column(name): array(values.float()) for name, values in figures.items()},
        }
        return BatchResult(records, columns)

    def _rows(
        self, images: Tensor, batch: ImageBatch, targets: Targets, explanations: Sequence[Explanation]
    ) -> Rows:
        asked, names = self.asked, [record.sample_id for record in batch.records]
        kind = asked.baseline if asked.baseline not in (None, INPAINT) else None
        baselines = images
        if kind is not None:
            made = make_baselines(kind, batch.images.clone(), names, self.seed)
            baselines = self.network.normalize(made)
        masks = torch.from_numpy(np.stack([row.mask for row in explanations])).to(images.device)
        regions = None
        labels = [row.regions for row in explanations if "regions" in row.values]
        if labels and asked.cells is None:  # curves then remove whole regions, as in the run
            regions = Regions.of(torch.from_numpy(np.stack(labels)).to(images.device))
        return Rows(
            self.network,
            Problem(images, baselines, targets, row_keys(self.seed, targets, batch), regions=regions),
            in_equal_cells(masks, asked.cells, (images.shape[-2], images.shape[-1])),
            batch,
            self.sized_micro_batches(images.device),
            asked.samples,
            self._explainer[0],
        )

    def _check_scores(self, rows: Rows, explanations: Sequence[Explanation]) -> None:
        """Raise if the network scores a target in another way than in the run."""
        if not self.network.proposes_its_scores:
            return
        everything = torch.arange(len(rows), device=rows.masks.device)
        now = rows.score_shown(torch.ones_like(rows.masks), everything).tolist()
        for explanation, score in zip(explanations, now, strict=True):
            if abs(score - explanation.score) > _SAME_SCORE:
                raise TargetError(
                    f"{explanation.sample_id}: the recorded score of {explanation.label_name} is"
                    f" {explanation.score:.2f}, but the network gives {score:.2f}: is it the same network,"
                    " with the same weights, and the same image?"
                )

    def _targets(self, images: Tensor, batch: ImageBatch, found: Sequence[Sequence[Explanation]]) -> Targets:
        """The targets of the recorded rows."""
        if isinstance(self.network, Classifier):
            return self._classes(images, found)
        return self._proposed(images, batch, found)

    def _classes(self, images: Tensor, found: Sequence[Sequence[Explanation]]) -> Targets:
        """A classifier's targets, which their labels describe."""
        rows = [(place, row) for place, rows in enumerate(found) for row in rows]
        image = torch.tensor([place for place, _ in rows], dtype=torch.long, device=images.device)
        label = torch.tensor([int(row.label) for _, row in rows], dtype=torch.long, device=images.device)
        score = torch.tensor([float(row.score) for _, row in rows], device=images.device)
        targets = class_targets(image, label, score)
        return _numbered(targets, [row for _, row in rows])

    def _proposed(self, images: Tensor, batch: ImageBatch, found: Sequence[Sequence[Explanation]]) -> Targets:
        """The targets that the network proposes again, in the order of the recorded rows."""
        proposed = self.network.propose(images.clone(), batch.truth_in_input()).targets
        places = []
        for image, rows in enumerate(found):
            own = (proposed.image == image).nonzero().squeeze(1).tolist()
            boxes = batch.records[image].seen().boxes_to_original(array(proposed.box[own]))
            for row in rows:
                fitting = [
                    place
                    for place, box in zip(own, boxes, strict=True)
                    if int(proposed.label[place]) == row.label and _same_box(box, row.box)
                ]
                if not fitting:
                    raise TargetError(
                        f"the network does not find {row.label_name} any more, which the run explained: is"
                        " it the same network, with the same weights and settings, and the same image?"
                    )
                same_number = [place for place in fitting if int(proposed.number[place]) == row.target]
                places.append((same_number or fitting)[0])
        chosen = proposed.select(torch.tensor(places, dtype=torch.long, device=images.device))
        return _numbered(chosen, [row for rows in found for row in rows])


def cannot_explain_again(attributes: Mapping[str, Any]) -> str:
    """Why images cannot be explained again."""
    if IMPORTED in attributes:
        return (
            f"sensitivity explains images again, but the masks of {attributes.get('method')} were imported,"
            " and igos_pl does not have the method: leave sensitivity out"
        )
    return "sensitivity explains images again: pass the explainer that made the masks as explainer"


def check_network(network: ExplainableNetwork, attributes: Mapping[str, Any]) -> None:
    """Raise unless a network is the one that a run explained.

    Raises:
        IgosError: the message names what differs.
    """
    recorded = {key: value for key, value in attributes.items() if key.startswith("network.")}
    if differing := _differing(recorded, nested("network", network.describe()), _CHOICES):
        raise IgosError(
            f"The run explained another network ({differing}): give the network that it explained"
        )


def check_explainer(explainer: Explainer, attributes: Mapping[str, Any]) -> None:
    """Raise unless an explainer makes the masks of a run.

    Raises:
        IgosError: the message names what differs.
    """
    configuration = configuration_of(attributes)
    recorded = {key: value for key, value in configuration.items() if key.partition(".")[0] != "data"}
    if differing := _differing(recorded, explainer.describe(), (*_CHOICES, *_NOT_IN_MASKS)):
        raise IgosError(
            "sensitivity explains images again, but the run's masks were made with other settings"
            f" ({differing}): give the explainer that made them"
        )


def _differing(recorded: Mapping[str, Any], now: Mapping[str, Any], left_out: Container[str]) -> str:
    """The first settings that differ, in words."""
    differing = [
        f"{key}: there {recorded.get(key)!r}, now {now.get(key)!r}"
        for key in sorted({*now, *recorded})
        if now.get(key) != recorded.get(key) and key not in left_out
    ]
    return "; ".join(differing[:4])


# Settings of a network that choose its targets. The targets of a run are in its rows.
_CHOICES = ("network.targets", "network.top_k", "network.class_names")

# Settings of an explainer that do not change its masks; and the precision, which is among a judge's facts.
_NOT_IN_MASKS = ("metrics", "curves", "precision")


def _numbered(targets: Targets, rows: Sequence[Explanation]) -> Targets:
    """The targets with the recorded numbers and start cells, from which random keys are made."""
    device = targets.image.device
    return replace(
        targets,
        number=torch.tensor([int(row.target) for row in rows], dtype=torch.long, device=device),
        start_cell=torch.tensor([int(row.start_cell) for row in rows], dtype=torch.long, device=device),
    )


def _same_box(box: NDArray[np.float32], recorded: NDArray[np.float32]) -> bool:
    if np.isnan(recorded).all():
        return bool(np.isnan(box).all())
    corners = np.concatenate([np.maximum(box[:2], recorded[:2]), np.minimum(box[2:], recorded[2:])])
    inside = np.prod(np.clip(corners[2:] - corners[:2], 0, None))
    areas = [np.prod(each[2:] - each[:2]) for each in (box, recorded)]
    return bool(inside >= _SAME_BOX * (sum(areas) - inside))
