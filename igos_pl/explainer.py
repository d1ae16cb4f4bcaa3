"""The LightningModule. Its ``predict_step`` optimises the masks of a batch as an ``nn.Parameter``."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule
from torch import Tensor, nn
from torch.optim import Adam

from igos_pl.callbacks import MaskWriter, RunCallback
from igos_pl.checks import check_arguments, check_at_least, check_choice
from igos_pl.data.batches import ImageBatch
from igos_pl.data.records import BatchResult, Columns
from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError, NetworkError, TargetError
from igos_pl.evaluation.columns import (
    explanation_columns,
    joined,
    joined_results,
    unrepeatable_scores,
    with_diversity,
)
from igos_pl.evaluation.deletion_insertion import (
    CURVE_STEPS,
    curve_cells,
    deletion_insertion_curves,
    removal_counts,
)
from igos_pl.models.base import ExplainableNetwork
from igos_pl.randomness import key_of
from igos_pl.run.progress import CURVES, OPTIMISING, BatchProgress
from igos_pl.run.run import Run
from igos_pl.settings import Attributes, Configurable, parameters_of
from igos_pl.solver.baselines import BASELINES, make_baselines
from igos_pl.solver.methods import method_named
from igos_pl.solver.micro_batches import MicroBatches, is_machine_error
from igos_pl.solver.objective import Objective, ObjectiveSettings, Problem
from igos_pl.solver.optimize import optimize
from igos_pl.solver.presets import OptimizerFactory, optimizer_facts, preset_settings
from igos_pl.solver.starts import Start

# Perturbed images per forward pass; halved when memory runs out. On CPUs, larger micro-batches are slower,
# because the allocator returns their large activation blocks to the system each time (docs/performance.md).
_MICRO_BATCH = {"cpu": 5}
_MICRO_BATCH_ACCELERATOR = 64

# The most mask pixels that are optimised together. This bounds the memory for images with many targets.
_PIXELS_AT_ONCE = 1 << 24

# The run ends when the network has raised exceptions at this many images in a row. The first limit holds
# until an image was explained, the second one afterwards.
_FAILURES_AT_FIRST = 4
_FAILURES_IN_A_ROW = 32

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


class Explainer(Configurable, LightningModule):
    """Explains every image of a data set by optimised masks, in ``Trainer.predict``.

    For each batch, it proposes targets, initialises a mask for each target, optimises the masks, scores them
    by deletion and insertion, and returns a `BatchResult`. The defaults are those of the preset ``fast``; see
    `from_preset` for other presets. A `MaskWriter` is added to a trainer that has no `RunCallback`.

    Args:
        network: the network to explain. It is frozen while a batch is explained, and restored afterwards.
        method: ``igos`` (I-GOS), ``igos+`` (iGOS+) or ``igos++`` (iGOS++).
        optimizer: makes the optimiser of the masks: ``NAG``, ``LineSearch``, or an elementwise one of
            ``torch.optim``; Adam with a step of 0.1 by default.
        mask_size: s, cells along the side of a mask.
        iterations: number of optimiser iterations.
        path_steps: K, positions on the integration path.
        path: ``scaled`` (as published) or ``threshold`` (it removes the lowest mask cells first); see
            `igos_pl.solver.integration_paths`.
        average: return the weighted mean of the masks of all iterations; later masks have larger weights.
        l1: weight of the removed area. The threshold path divides this area by the area that the deletion and
            insertion curves remove.
        l2: weight of the (bilateral) total variation.
        noise: standard deviation of the noise on perturbed images, in units of ImageNet-normalised images.
        baseline: ``blur``, ``black``, ``mean`` or ``noise``.
        start: the initial masks. A diverse start gives each target one explanation per cell.
        metrics: whether deletion and insertion curves are computed.
        seed: the random seed.
        micro_batch_size: perturbed images per forward pass; by default chosen for the device.

    Attributes:
        on_progress: called with the progress of a batch; None to disable it.
    """

    not_settings = frozenset({"micro_batch_size", "optimizer"})  # the optimiser is among the facts

    def __init__(
        self,
        network: ExplainableNetwork,
        method: str = "igos+",
        optimizer: OptimizerFactory = partial(Adam, lr=0.1),  # noqa: B008  a constant
        mask_size: int = 28,
        iterations: int = 20,
        path_steps: int = 2,
        path: str = "threshold",
        average: bool = True,
        l1: float = 10.0,
        l2: float = 80.0,
        noise: float = 0.0,
        baseline: Literal["blur", "black", "mean", "noise"] = "blur",
        start: Start = Start(),  # noqa: B008  frozen
        metrics: bool = True,
        seed: int = 63,
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, ExplainableNetwork):
            raise IgosError(
                f"network is a {type(network).__name__}: put it into an adapter, as in"
                " igos_pl.Classifier(network), or use igos_pl.explain(network, images)"
            )
        self.network = network
        self._method = method_named(method)
        self.method = self._method.name
        self.optimizer = optimizer
        check_at_least("mask_size", mask_size, 2)
        if mask_size > min(network.input_size):
            height, width = network.input_size
            raise IgosError(
                f"mask_size is {mask_size}, which is more than the network's input of {height} x {width}"
                " pixels"
            )
        check_at_least("iterations", iterations, 1)
        check_choice("baseline", baseline, BASELINES)
        if micro_batch_size is not None:
            check_at_least("micro_batch_size", micro_batch_size, 1)
        self._objective_settings = ObjectiveSettings(l1, l2, path_steps, noise, path)
        self.mask_size = mask_size
        self.iterations = iterations
        self.path_steps = path_steps
        self.path = path
        self.average = average
        self.l1, self.l2 = l1, l2
        self.noise = noise
        self.baseline = baseline
        self.start = start
        self.metrics = metrics
        self.seed = seed
        self.micro_batch_size = micro_batch_size
        self.on_progress: Callable[[BatchProgress], None] | None = None
        self._micro_batches: MicroBatches | None = None
        self._failures = _Failures()
        self._doubted = False
        self._optimizer_facts = optimizer_facts(optimizer)

    @classmethod
    def from_preset(cls, network: ExplainableNetwork, preset: str = "fast", **settings: Any) -> Explainer:
        """An explainer with the settings of a preset.

        Args:
            network: the network to explain.
            preset: ``fast``, ``published``, ...; see `igos_pl.solver.presets.preset_names`.
            **settings: arguments of the constructor; they override those of the preset.

        Raises:
            IgosError: if there is no such preset or argument. The message names all, or similar ones.
        """
        check_arguments(cls.__name__, settings, parameters_of(cls))
        return cls(network, **{**preset_settings(preset), **settings})

    def facts(self) -> Attributes:
        """The optimiser's name and settings, and the precision.

        Raises:
            IgosError: if the trainer's precision would cast images and masks themselves.
        """
        precision = "32-true" if self._trainer is None else str(self.trainer.precision)
        check_choice("trainer.precision", precision, PRECISIONS)
        return {**self._optimizer_facts, "precision": precision}

    def on_predict_start(self) -> None:
        """Reset the count of the network's failures."""
        run = Run.of(self.trainer)
        self._failures = _Failures(run.explained_before, min(_FAILURES_AT_FIRST, len(run.pending)))

    def configure_callbacks(self) -> list[Callback]:
        """A `MaskWriter`, unless the trainer already has a `RunCallback`."""
        present = any(isinstance(callback, RunCallback) for callback in vars(self.trainer)["callbacks"])
        return [] if present else [MaskWriter()]

    def predict_step(self, batch: ImageBatch, batch_idx: int = 0) -> BatchResult:
        """Explain the images of a batch.

        This works with any ``inference_mode`` of the trainer, because gradients are enabled here. If the
        network raises an exception, the images are explained one by one, and each image at which it raises
        again is recorded as failed.

        Raises:
            NetworkError: if the network raised exceptions at all of the first images, or at many in a row.
        """
        with self._working():
            result = self._explain_or_split(batch)
        return replace(result, images=[*result.images, *batch.failures], unread=batch.unread)

    def explain_batch(self, batch: ImageBatch) -> BatchResult:
        """Explain the images of a batch, without a trainer. Exceptions of the network are raised."""
        with self._working():
            return self._explain_images(batch)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Enable gradients and freeze the network in a context."""
        with torch.inference_mode(False), torch.enable_grad(), self.network.frozen():
            yield

    def _explain_or_split(self, batch: ImageBatch) -> BatchResult:
        """Explain a batch, or its images one by one if the network raises an exception."""
        if not batch.records:
            return BatchResult([])
        try:
            result = self._explain_images(batch)
        except TargetError as error:
            return self._without_bad_targets(batch, error)
        except IgosError:
            raise
        except Exception as error:
            if is_machine_error(error):
                raise
            if len(batch.records) > 1:
                return joined_results([self._explain_or_split(part) for part in batch.parts()])
            self._failures.note(error)
            return BatchResult([batch.records[0].failed(f"{type(error).__name__}: {error}")])
        self._failures.note(None)
        return result

    def _without_bad_targets(self, batch: ImageBatch, error: TargetError) -> BatchResult:
        """Explain the images of a batch whose targets can be explained, and record the others as failed.

        Raises:
            TargetError: if none of the run's first images can be explained. The labels of all images are
                probably missing then.
        """
        results = []
        for part in batch.parts() if len(batch.records) > 1 else ():
            try:
                results.append(self._explain_or_split(part))
            except TargetError as own:
                results.append(BatchResult([part.records[0].failed(str(own))]))
        self._failures.note_without_target(len(batch.records), error)
        return joined_results(results) if results else BatchResult([batch.records[0].failed(str(error))])

    def _explain_images(self, batch: ImageBatch) -> BatchResult:
        """Propose the targets of a batch, and explain them."""
        images = self.network.normalize(batch.images.clone())
        names = [record.sample_id for record in batch.records]
        made = make_baselines(self.baseline, batch.images.clone(), names, self.seed)
        baselines = self.network.normalize(made)
        # A clone, because some networks change their input.
        proposed = self.network.propose(images.clone(), batch.truth_in_input())
        targets = self.start.expand(proposed.targets)
        at_once = max(1, _PIXELS_AT_ONCE // (images.shape[-1] * images.shape[-2]))
        parts = []
        for start in range(0, len(targets), at_once):
            rows = targets.select(slice(start, start + at_once))
            tell = partial(self._tell, start / len(targets), len(rows) / len(targets))
            parts.append(self._explain(images, baselines, rows, batch, tell))
        columns = with_diversity(joined(parts))
        counts = torch.bincount(targets.image, minlength=len(names)).tolist()
        broken = set(columns["sample_id"][columns["status"] == "nan"]) if columns else set()
        doubts = unrepeatable_scores(columns) if self.network.proposes_its_scores else {}
        if doubts and not self._doubted:
            self._doubted = True
            warnings.warn(next(iter(doubts.values())), stacklevel=2)
        records = [
            record.explained(count, [note, doubts.get(record.sample_id, "")], record.sample_id in broken)
            for record, count, note in zip(batch.records, counts, proposed.notes, strict=True)
        ]
        return BatchResult(records, columns)

    def _explain(
        self,
        images: Tensor,
        baselines: Tensor,
        targets: Targets,
        batch: ImageBatch,
        tell: Callable[[str, int, int], None],
    ) -> Columns:
        """Optimise and score the masks of some targets; returns their rows."""
        began = time.perf_counter()
        size, count = (images.shape[-2], images.shape[-1]), self._method.masks
        cells = curve_cells(targets, self.mask_size, size)
        # Most scores need no instance masks. Copying them with every micro-batch would be a waste.
        scored = targets if self.network.scores_regions else replace(targets, instance_mask=None)
        problem = Problem(
            images,
            baselines,
            scored,
            self._keys(targets, batch),
            extent=cells / self.mask_size**2,
        )
        settings = replace(self._objective_settings, noise=self.noise * self.network.unit)
        micro_batches = self._sized_micro_batches(images.device)
        objective = Objective(self.network, problem, self._method, settings, micro_batches)
        # A local parameter: nothing of it stays on the module or affects another batch.
        masks = nn.Parameter(self.start.masks(targets, count, self.mask_size, size))
        optimizer = self.optimizer([masks])
        solution = optimize(
            objective, masks, optimizer, self.iterations, self.average, partial(tell, OPTIMISING)
        )
        counts = removal_counts(cells, CURVE_STEPS) if self.metrics else cells.new_zeros(len(cells), 1)
        curves = deletion_insertion_curves(
            self.network, problem, solution.masks, counts, micro_batches, partial(tell, CURVES)
        )
        return explanation_columns(
            targets,
            batch,
            solution,
            curves,
            objective,
            label_names=[self.network.label_name(label) for label in targets.label.tolist()],
            iterations=self.iterations,
            seconds=time.perf_counter() - began,
        )

    def _tell(self, before: float, size: float, phase: str, done: int, total: int) -> None:
        """Report the progress of the batch.

        Args:
            before: the share of the batch's rows that were explained before these.
            size: the share of these rows.
            phase: see `BatchProgress`.
            done: see `BatchProgress`.
            total: see `BatchProgress`.
        """
        if self.on_progress is None:
            return
        # Passes for each row. The trials of a line search are not counted, because their number is unknown.
        optimising = 2 * len(self._method.terms) * self.path_steps * self.iterations
        curves = 2 * (CURVE_STEPS + 1 if self.metrics else 1)
        passes = optimising * done / total if phase == OPTIMISING else optimising + curves * done / total
        share = before + size * passes / (optimising + curves)
        self.on_progress(BatchProgress(phase, done, total, share))

    def _keys(self, targets: Targets, batch: ImageBatch) -> list[int]:
        """The random key of each row. It depends only on the seed, the image and the target."""
        rows = zip(
            (batch.records[image].sample_id for image in targets.image.tolist()),
            targets.number.tolist(),
            targets.label.tolist(),
            targets.start_cell.tolist(),
            strict=True,
        )
        return [key_of(self.seed, *row) for row in rows]

    def _sized_micro_batches(self, device: torch.device) -> MicroBatches:
        """The micro-batches of this run. They keep a size that was reduced when memory ran out."""
        if self._micro_batches is None:
            default = _MICRO_BATCH.get(device.type, _MICRO_BATCH_ACCELERATOR)
            self._micro_batches = MicroBatches(self.micro_batch_size or default)
        return self._micro_batches


class _Failures:
    """Counts failures: exceptions of the network, and missing targets. It ends the run after too many."""

    def __init__(self, explained: bool = False, at_first: int = _FAILURES_AT_FIRST) -> None:
        self.explained = explained
        self._at_first = at_first
        self._in_a_row = 0
        self._without_target = 0

    def note_without_target(self, images: int, error: TargetError) -> None:
        """Note that no image of a batch can be explained, because of its target.

        Raises:
            TargetError: the given error, if no image was explained before a batch of several or the first
                single images.
        """
        self._without_target += images
        if not self.explained and (images > 1 or self._without_target >= self._at_first):
            raise error

    def note(self, error: Exception | None) -> None:
        """Note the exception that the network raised at an image, or None for a success.

        Raises:
            NetworkError: if the run is to end.
        """
        if error is None:
            self.explained, self._in_a_row = True, 0
            return
        self._in_a_row += 1
        if self._in_a_row < (_FAILURES_IN_A_ROW if self.explained else self._at_first):
            return
        raise NetworkError(
            f"The network raised an exception at {self._in_a_row} images in a row, so the run ends. The last"
            f" one: {type(error).__name__}: {error}"
        ) from error
