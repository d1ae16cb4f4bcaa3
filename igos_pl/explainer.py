"""The LightningModule: every batch's masks are its trainable parameter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from igos_pl.baselines import BASELINES, make_baselines
from igos_pl.batches import ImageBatch
from igos_pl.checks import check_at_least, check_choice
from igos_pl.errors import IgosError
from igos_pl.initialization import Start
from igos_pl.methods import method_named
from igos_pl.metrics import CURVE_STEPS, curve_cells, deletion_insertion_curves, removal_counts
from igos_pl.micro_batches import MicroBatches
from igos_pl.models.base import Attributes, ExplainableNetwork
from igos_pl.objective import Objective, Problem, Weights
from igos_pl.optimizers import NAG
from igos_pl.randomness import key_of
from igos_pl.rows import (
    explanation_columns,
    input_boxes,
    joined,
    original_boxes,
    text,
    with_diversity,
    with_localization,
)
from igos_pl.solver import optimize
from igos_pl.store.schema import BatchResult, Columns
from igos_pl.targets import Targets

OptimizerFactory = Callable[[Iterable[Tensor]], Optimizer]

# Perturbed images that the network sees at once; halved when memory runs out. On CPUs larger ones are slower:
# their activations are blocks so large that the allocator returns each to the system (docs/performance.md).
_MICRO_BATCH = {"cpu": 5}
_MICRO_BATCH_ACCELERATOR = 64

# Pixels of masks that are optimised together; bounds the memory for images with very many targets.
_PIXELS_AT_ONCE = 1 << 24


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


class Explainer(LightningModule):
    """Explains every image of a data set by optimised masks, in ``Trainer.predict``.

    For each batch: propose targets, start a mask for each, optimise the masks, judge them by deletion and
    insertion, return all of it as a `BatchResult` for the writer.

    Args:
        network: what is explained; it is frozen.
        method: ``igos`` (I-GOS), ``igos+`` (iGOS+) or ``igos++`` (iGOS++).
        optimizer: ``NAG`` or ``LineSearch``, or any elementwise optimiser of ``torch.optim``.
        mask_size: s, cells along the side of a mask.
        iterations: of the optimiser.
        path_steps: K, positions on the integration path.
        path: ``scaled``, as published, or ``threshold``, by the order of the mask's cells (`igos_pl.paths`).
        average: take the mean of the masks over the iterations, later ones weighing more, for the mask.
        l1: weight of the removed area; on the threshold path, of its share of what the curves remove.
        l2: weight of the (bilateral) total variation.
        noise: standard deviation of noise on perturbed images, in units of ImageNet-normalised images.
        baseline: ``blur``, ``black``, ``mean`` or ``noise``.
        start: where masks start; several cells of a diverse start give a target several explanations.
        metrics: whether deletion and insertion curves are computed.
        seed: of everything random.
        micro_batch_size: perturbed images at once; chosen for the device by default.
    """

    def __init__(
        self,
        network: ExplainableNetwork,
        method: str = "igos++",
        optimizer: OptimizerFactory = NAG,
        mask_size: int = 28,
        iterations: int = 10,
        path_steps: int = 5,
        path: str = "scaled",
        average: bool = False,
        l1: float = 1.0,
        l2: float = 20.0,
        noise: float = 0.0,
        baseline: str = "blur",
        start: Start = Start(),  # noqa: B008  it is frozen
        metrics: bool = True,
        seed: int = 63,
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.method = method_named(method)
        self.optimizer_factory = optimizer
        check_at_least("mask_size", mask_size, 2)
        if mask_size > network.input_size:
            raise IgosError(
                f"mask_size is {mask_size}, which is more than the network's input of"
                f" {network.input_size} pixels"
            )
        check_at_least("iterations", iterations, 1)
        check_choice("baseline", baseline, BASELINES)
        if micro_batch_size is not None:
            check_at_least("micro_batch_size", micro_batch_size, 1)
        self.mask_size = mask_size
        self.iterations = iterations
        self.average = average
        self.weights = Weights(l1, l2, path_steps, noise, path)
        self.baseline = baseline
        self.start = start
        self.metrics = metrics
        self.seed = seed
        self.micro_batch_size = micro_batch_size
        self.on_iteration: Callable[[int, int], None] | None = None
        self._micro_batches: MicroBatches | None = None
        self._optimizer_attributes = _describe_optimizer(optimizer)

    def setup(self, stage: str) -> None:
        """Refuse precisions that would cast images and masks themselves."""
        check_choice("trainer.precision", str(self.trainer.precision), PRECISIONS)

    def describe(self) -> Attributes:
        """Everything that decides the masks: the attributes of the results."""
        weights = self.weights
        return {
            "method": self.method.name,
            **self._optimizer_attributes,
            "mask_size": self.mask_size,
            "iterations": self.iterations,
            "path_steps": weights.path_steps,
            "path": weights.path,
            "average": int(self.average),
            "l1": weights.l1,
            "l2": weights.l2,
            "noise": weights.noise,
            "baseline": self.baseline,
            "start.k": self.start.k,
            "start.cells": ",".join(map(str, self.start.cells or ())) or "all",
            "start.init_val": self.start.init_val,
            "metrics": int(self.metrics),
            "seed": self.seed,
            "precision": str(self.trainer.precision) if self._trainer is not None else "32-true",
            **self.network.describe(),
        }

    def predict_step(self, batch: ImageBatch, batch_idx: int = 0) -> BatchResult:
        """Explain the images of a batch.

        Works whatever the trainer's ``inference_mode`` says: gradients are switched on here, for tensors that
        are made here.
        """
        if not batch.records:
            return BatchResult(batch.failures)
        with torch.inference_mode(False), torch.enable_grad():
            images = self.network.normalize(batch.images.clone())
            names = [record.sample_id for record in batch.records]
            blurred = make_baselines(self.baseline, batch.images.clone(), names, self.seed)
            baselines = self.network.normalize(blurred)
            size = images.shape[-1]
            truth = [
                replace(known, boxes=input_boxes(known.boxes, record, size, batch.resize))
                for known, record in zip(batch.truth, batch.records, strict=True)
            ]
            proposals = self.network.propose(images, truth)
            targets = self.start.expand(proposals.targets)
            at_once = max(1, _PIXELS_AT_ONCE // size**2)
            parts = [
                self._explain(images, baselines, targets.select(slice(start, start + at_once)), batch)
                for start in range(0, len(targets), at_once)
            ]
        counts = torch.bincount(targets.image, minlength=len(names)).tolist()
        records = [
            replace(record, targets=count, status="ok" if count else "no detection", message=note)
            for record, count, note in zip(batch.records, counts, proposals.notes, strict=True)
        ]
        result = BatchResult([*records, *batch.failures], with_diversity(joined(parts)))
        return with_localization(result, dict(zip(names, batch.truth, strict=True)), size, batch.resize)

    def _explain(self, images: Tensor, baselines: Tensor, targets: Targets, batch: ImageBatch) -> Columns:
        """Optimise and judge the masks of some targets; returns their rows."""
        began = time.perf_counter()
        records = [batch.records[image] for image in targets.image.tolist()]
        labels = targets.label.tolist()
        places = zip(records, targets.number.tolist(), labels, targets.cell.tolist(), strict=True)
        keys = [key_of(self.seed, record.sample_id, *place) for record, *place in places]
        size, count = images.shape[-1], self.method.masks
        cells = curve_cells(targets, self.mask_size, size)
        extent = cells / self.mask_size**2
        problem = Problem(images, baselines, replace(targets, region=None), keys, extent)  # no score needs it
        weights = replace(self.weights, noise=self.weights.noise * self.network.unit)
        micro_batches = self._sized_micro_batches(images.device)
        objective = Objective(self.network, problem, self.method, weights, micro_batches)
        # The parameter is this call's own: nothing of it stays on the module, or reaches another batch.
        masks = nn.Parameter(self.start.masks(targets, count, self.mask_size, size))
        optimizer = self.optimizer_factory([masks])
        solution = optimize(objective, masks, optimizer, self.iterations, self.average, self.on_iteration)
        counts = removal_counts(cells, CURVE_STEPS) if self.metrics else cells.new_zeros(len(cells), 1)
        curves = deletion_insertion_curves(self.network, problem, solution.masks, counts, micro_batches)
        columns = explanation_columns(targets, solution, curves, objective)
        rows = len(targets)
        columns.update(
            sample_id=text(record.sample_id for record in records),
            label_name=text(self.network.label_name(label) for label in labels),
            box=original_boxes(targets.box, records, size, batch.resize),
            iterations=np.full(rows, self.iterations),
            seconds=np.full(rows, (time.perf_counter() - began) / rows),
        )
        return columns

    def _sized_micro_batches(self, device: torch.device) -> MicroBatches:
        """The micro-batches of this run, which remember a size that memory forced upon them."""
        if self._micro_batches is None:
            default = _MICRO_BATCH.get(device.type, _MICRO_BATCH_ACCELERATOR)
            self._micro_batches = MicroBatches(self.micro_batch_size or default)
        return self._micro_batches


def _describe_optimizer(factory: OptimizerFactory) -> Attributes:
    """An optimiser's name and settings, read off one that is made for a mask of one cell."""
    optimizer = factory([nn.Parameter(torch.ones(1, 1, 1, 1))])
    return {
        "optimizer": type(optimizer).__name__,
        **{
            f"optimizer.{key}": value if isinstance(value, (int, float)) else str(value)
            for key, value in optimizer.defaults.items()
            if value is not None
        },
    }
