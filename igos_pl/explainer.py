"""The LightningModule. Its ``predict_step`` optimises the masks of a batch as an ``nn.Parameter``."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from igos_pl.checks import check_arguments, check_choice, check_count, check_flag, check_whole, wrong_type
from igos_pl.data.batches import ImageBatch
from igos_pl.data.records import BatchResult, Columns
from igos_pl.data.regions import RegionSource
from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.evaluation.adaptive_curves import EXPECTED_PASSES
from igos_pl.evaluation.columns import (
    Passes,
    explanation_columns,
    joined,
    with_diversity,
)
from igos_pl.evaluation.curves import CURVE_KINDS, measured_curves
from igos_pl.evaluation.deletion_insertion import CURVE_STEPS, curve_cells
from igos_pl.models.base import ExplainableNetwork
from igos_pl.predicting import BatchPredictor, fitting_mask_size, row_keys
from igos_pl.run.progress import CURVES, OPTIMISING, BatchProgress
from igos_pl.run.run import Run
from igos_pl.settings import Attributes, nested, parameters_of, plain
from igos_pl.solver.baselines import BASELINES, make_baselines
from igos_pl.solver.methods import Method, method_named
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Objective, ObjectiveSettings, Problem
from igos_pl.solver.optimize import Solution, optimize
from igos_pl.solver.optimizers import OptimizerFactory
from igos_pl.solver.presets import optimizer_facts, preset_settings
from igos_pl.solver.regions import Regions
from igos_pl.solver.search import SEARCH_PASSES, SearchSettings, SubsetImages, search
from igos_pl.solver.starts import Start

# The most mask pixels that are optimised together. This bounds the memory for images with many targets.
_PIXELS_AT_ONCE = 1 << 24

# The most cells along a mask's side that a search takes; 20 x 20 cells already need some 4,000 passes.
_SEARCH_SIDE = 20

# What the optimised methods need and the search does not.
_OPTIMISATION = {"optimizer", "iterations", "average", "levels", *(f.name for f in fields(ObjectiveSettings))}


class Explainer(BatchPredictor):
    """Explains every image of a data set by optimised masks, in ``Trainer.predict``.

    For each batch, it proposes targets, initialises a mask for each target, optimises the masks, scores them
    by deletion and insertion, and returns a `BatchResult`. The defaults are those of the preset ``fast``; see
    `from_preset` for other presets. A `MaskWriter` is added to a trainer that has no `RunCallback`.

    Args:
        network: the network to explain. It is frozen while a batch is explained, and restored afterwards.
        method: ``igos`` (I-GOS), ``igos+`` (iGOS+), ``igos++`` (iGOS++), or ``search``: a greedy search for
            the order of few cells or of regions. It uses ``mask_size``, but no other setting from
            ``optimizer`` to ``noise``, and warns of values that are not the defaults; see
            `igos_pl.solver.search`.
        optimizer: makes the optimiser of the masks: ``NAG``, ``LineSearch``, or an elementwise one of
            ``torch.optim``; Adam with a step of 0.1 by default.
        mask_size: s, cells along the side of a mask; by default 28, or the shorter side of the network's
            input if that has fewer pixels.
        iterations: number of optimiser iterations.
        path_steps: K, positions on the integration path.
        path: ``scaled`` (as published) or ``threshold`` (it removes the lowest mask cells first); see
            `igos_pl.solver.integration_paths`.
        average: return the weighted mean of the masks of all iterations; later masks have larger weights.
        levels: masks are rounded to multiples of ``1 / levels`` after each iteration, so that the rounding
            errors of another device or thread count do not grow; 0 for no rounding.
        l1: weight of the removed area. The threshold path divides this area by the area that the deletion and
            insertion curves remove.
        l2: weight of the (bilateral) total variation.
        noise: standard deviation of the noise on perturbed images, in units of ImageNet-normalised images.
        baseline: ``blur``, ``black``, ``mean`` or ``noise``.
        start: the initial masks. A diverse start gives each target one explanation per cell.
        regions: parts of each image that masks remove as a whole, instead of single cells; see
            `igos_pl.data.regions`.
        metrics: whether deletion and insertion curves are computed.
        curves: ``adaptive`` measures a curve's 51 points where it bends, and draws straight lines between
            them: about 28 forward passes for both curves; see `igos_pl.evaluation.adaptive_curves`. ``full``
            measures all points (102 passes).
        seed: the random seed.
        micro_batch_size: perturbed images per forward pass; by default chosen for the device.

    Attributes:
        on_progress: called with the progress of a batch; None to disable it.
    """

    not_settings = frozenset({"optimizer"})  # the optimiser is among the facts

    def __init__(
        self,
        network: ExplainableNetwork,
        method: str = "igos+",
        optimizer: OptimizerFactory = partial(Adam, lr=0.1),  # noqa: B008  a constant
        mask_size: int | None = None,
        iterations: int = 20,
        path_steps: int = 2,
        path: str = "threshold",
        average: bool = True,
        levels: int = 32,
        l1: float = 10.0,
        l2: float = 80.0,
        noise: float = 0.0,
        baseline: Literal["blur", "black", "mean", "noise"] = "blur",
        start: Start = Start(),  # noqa: B008  frozen
        regions: RegionSource | None = None,
        metrics: bool = True,
        curves: Literal["adaptive", "full"] = "adaptive",
        seed: int = 63,
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__(network, micro_batch_size)
        self._method = method_named(method)
        self.method = self._method.name
        self.optimizer = optimizer
        mask_size = fitting_mask_size(mask_size, network.input_size)
        if not isinstance(self._method, Method) and regions is None and mask_size > _SEARCH_SIDE:
            raise IgosError(
                f"mask_size is {mask_size}, but the method {self.method} puts at most {_SEARCH_SIDE} x"
                f" {_SEARCH_SIDE} single cells into order, because each step asks the network: set mask_size"
                " to 7, as the preset search does, or set regions"
            )
        if not isinstance(start, Start):
            raise wrong_type("start", start, "a Start, as in igos_pl.Start(k=2, init_val=0.2)")
        if not isinstance(self._method, Method) and start != Start():
            raise IgosError(
                f"The method {self.method} has no diverse starts: leave start.k, start.cells and"
                " start.init_val out, or choose another method"
            )
        start.check_distinct()
        check_count("iterations", iterations, 1)
        check_count("levels", levels, 0)
        check_whole("seed", seed)
        check_flag("average", average)
        check_flag("metrics", metrics)
        check_choice("baseline", baseline, BASELINES)
        check_choice("curves", curves, CURVE_KINDS)
        self._objective_settings = ObjectiveSettings(l1, l2, path_steps, noise, path)
        self.mask_size = mask_size
        self.iterations = iterations
        self.path_steps = path_steps
        self.path = path
        self.average = average
        self.levels = levels
        self.l1, self.l2 = l1, l2
        self.noise = noise
        self.baseline = baseline
        self.start = start
        self.regions = regions
        self.metrics = metrics
        self.curves = curves
        self.seed = seed
        self._optimizer_facts = optimizer_facts(optimizer)
        if not isinstance(self._method, Method) and (in_vain := self._in_vain()):
            # Not refused: another preset's or run's settings may be in the file that a preset is added to.
            warnings.warn(
                f"The method {self.method} does not use {', '.join(in_vain)}: what is set there has no"
                " effect",
                stacklevel=2,
            )

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

    def _in_vain(self) -> list[str]:
        """The settings that only the optimised methods use, and that do not have their defaults."""
        defaults = {key: each.default for key, each in signature(Explainer).parameters.items()}
        # Factories of optimisers cannot be compared.
        optimizer = optimizer_facts(defaults.pop("optimizer")) != self._optimizer_facts
        others = [key for key in defaults if key in _OPTIMISATION and getattr(self, key) != defaults[key]]
        return ["optimizer"] * optimizer + others

    def facts(self) -> Attributes:
        """The optimiser's name and settings, and the precision. See `BatchPredictor.facts`."""
        return {**self._optimizer_facts, **super().facts()}

    def describe(self) -> Attributes:
        """See `igos_pl.settings.Configurable.describe`.

        A search has its own fixed settings as ``search.NAME``, and lacks the settings that it does not use.
        """
        described = super().describe()
        if isinstance(self._method, Method):
            return described
        used = {key: value for key, value in described.items() if key.partition(".")[0] not in _OPTIMISATION}
        fixed = {key: plain(value) for key, value in asdict(SearchSettings()).items()}
        return {**used, **nested("search", fixed)}

    def on_predict_start(self) -> None:
        """Check the regions of all images."""
        super().on_predict_start()
        if self.regions is not None:
            self.regions.check(Run.of(self.trainer).expected)

    def explain_images(self, batch: ImageBatch) -> BatchResult:
        """Propose the targets of a batch, and explain them."""
        images = self.network.normalize(batch.images.clone())
        names = [record.sample_id for record in batch.records]
        made = make_baselines(self.baseline, batch.images.clone(), names, self.seed)
        baselines = self.network.normalize(made)
        proposed = self.proposed(images, batch)
        targets = self.start.expand(proposed.targets)
        labels: Tensor | None = None
        notes: Sequence[str] = proposed.notes
        if self.regions is not None:
            labels, gone = self.regions.label_maps(batch, self.mask_size)
            notes = ["; ".join(filter(None, pair)) for pair in zip(notes, gone, strict=True)]
        at_once = max(1, _PIXELS_AT_ONCE // (images.shape[-1] * images.shape[-2]))
        parts = []
        for start in range(0, len(targets), at_once):
            rows = targets.select(slice(start, start + at_once))
            tell = partial(self._tell, start / len(targets), len(rows) / len(targets))
            parts.append(self._explain(images, baselines, rows, batch, tell, labels))
        columns = with_diversity(joined(parts))
        return self.result_of(batch, targets, notes, columns)

    def _explain(
        self,
        images: Tensor,
        baselines: Tensor,
        targets: Targets,
        batch: ImageBatch,
        tell: Callable[[str, int, int], None],
        labels: Tensor | None,
    ) -> Columns:
        """Optimise and score the masks of some targets; returns their rows.

        Args:
            images: of the batch, normalised.
            baselines: likewise.
            targets: R rows.
            batch: the images that they belong to.
            tell: see `_tell`.
            labels: ``(N, s, s)`` the region of each cell of the N images; None for single cells.
        """
        began = time.perf_counter()
        size = (images.shape[-2], images.shape[-1])
        cells = curve_cells(targets, self.mask_size, size)
        # Most scores need no instance masks. Copying them with every micro-batch would be a waste.
        scored = targets if self.network.scores_regions else replace(targets, instance_mask=None)
        problem = Problem(
            images,
            baselines,
            scored,
            row_keys(self.seed, targets, batch),
            extent=cells / self.mask_size**2,
            regions=None if labels is None else Regions.of(labels[targets.image]),
        )
        micro_batches = self.sized_micro_batches(images.device)
        told = partial(tell, OPTIMISING)
        if isinstance(self._method, Method):
            solution, passes = self._optimised(self._method, problem, targets, micro_batches, told)
            iterations = torch.full((len(targets),), self.iterations)
        else:
            passes = SubsetImages(self.network, problem, self.mask_size, micro_batches)
            searched = search(passes, on_step=told)
            solution, iterations = searched.solution, searched.steps
        kind = self.curves if self.metrics else None
        told = partial(tell, CURVES)
        curves = measured_curves(kind, self.network, problem, solution.masks, cells, micro_batches, told)
        return explanation_columns(
            targets,
            batch,
            solution,
            curves,
            passes,
            label_names=[self.network.label_name(label) for label in targets.label.tolist()],
            iterations=iterations,
            seconds=time.perf_counter() - began,
            regions=None if labels is None else labels[targets.image],
        )

    def _optimised(
        self,
        method: Method,
        problem: Problem,
        targets: Targets,
        micro_batches: MicroBatches,
        told: Callable[[int, int], None],
    ) -> tuple[Solution, Passes]:
        """Optimise the masks of some targets; returns what they cost, too.

        Args:
            method: what is optimised.
            problem: of R rows.
            targets: its targets, with their instance masks.
            micro_batches: cut the perturbed images into pieces.
            told: called after each iteration with the number done and the number in all.
        """
        settings = replace(self._objective_settings, noise=self.noise * self.network.unit)
        objective = Objective(self.network, problem, method, settings, micro_batches)
        # A local parameter: nothing of it stays on the module or affects another batch.
        size = (problem.images.shape[-2], problem.images.shape[-1])
        start = self.start.masks(targets, method.masks, self.mask_size, size)
        masks = nn.Parameter(start if problem.regions is None else problem.regions.means(start))
        solution = optimize(
            objective,
            masks,
            self.optimizer([masks]),
            self.iterations,
            self.average,
            told,
            problem.regions,
            self.levels,
        )
        return solution, objective

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
        if isinstance(self._method, Method):
            optimising = 2 * len(self._method.terms) * self.path_steps * self.iterations
        else:
            optimising = SEARCH_PASSES
        curves = EXPECTED_PASSES if self.curves == "adaptive" else 2 * (CURVE_STEPS + 1)
        curves = curves if self.metrics else 2
        passes = optimising * done / total if phase == OPTIMISING else optimising + curves * done / total
        share = before + size * passes / (optimising + curves)
        self.on_progress(BatchProgress(phase, done, total, share))
