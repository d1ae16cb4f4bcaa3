"""Turns saliency maps of any method into a result, with the curves of all other results."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from igos_pl.checks import check_choice
from igos_pl.data.batches import ImageBatch
from igos_pl.data.labels import ClassLabels
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.data.targets import ProposedTargets, Targets, class_targets
from igos_pl.data.text import first_few
from igos_pl.data.wording import counted
from igos_pl.errors import IgosError, TargetError
from igos_pl.evaluation.columns import explanation_columns, joined_results, with_diversity
from igos_pl.evaluation.curves import measured_curves
from igos_pl.evaluation.deletion_insertion import curve_cells
from igos_pl.judging.cells import COVERS, MEANINGS, NEGATIVE, Cells, saliency_cells, seen_part
from igos_pl.judging.saliency_files import Maps, SaliencyMaps, open_maps
from igos_pl.models import Classifier, ExplainableNetwork
from igos_pl.predicting import BatchPredictor, fitting_mask_size, row_keys
from igos_pl.run.run import Run
from igos_pl.settings import Attributes
from igos_pl.solver.baselines import BASELINES, make_baselines
from igos_pl.solver.objective import Problem
from igos_pl.solver.optimize import Solution

# The setting by which the results of imported saliency are recognised.
IMPORTED = "saliency"

# The number of images whose maps are checked before the first image, evenly spread over the data set.
_LOOKED_AT = 32


class Importer(BatchPredictor):
    """Imports saliency maps for the images of a data set, in ``Trainer.predict``.

    The result has the format of an explainer's result. Each map becomes a mask: it is averaged in the mask's
    cells, scaled so that its largest value is 1, and subtracted from 1, because masks are low where a cell is
    important. Deletion and insertion are measured as for our own masks.

    An image without a map, or with one that cannot be used, is recorded as failed with the reason.

    Args:
        network: the network that was explained. It proposes the targets, unless the maps have labels.
        saliency: a folder with a ``.npy``, ``.npz`` or grey ``.png`` file for each image; an ``.npz`` or
            ``.h5`` file with an entry for each image; or maps from `igos_pl.judging.saliency_files`. Each
            entry has the image's name, with or without its ending. It is ``(h, w)``; ``(targets, h, w)`` in
            the order in which the network proposes the targets; ``(targets, channels, h, w)``, of which the
            channels are summed; or, for classifiers, an archive of arrays named by their labels.
        method: the name of the method that made the maps.
        mask_size: s, cells along the side of a mask; at most the resolution of the maps. By default 28, or
            the shorter side of the network's input if that has fewer pixels.
        negative: what negative values mean: ``refuse`` (raise an error), ``zero`` (unimportant),
            ``absolute`` (as important as positive ones) or ``keep`` (less important than 0).
        covers: whether a map shows the network's ``input`` or the whole ``image``. This matters only where
            the network's preprocessing crops or pads images.
        baseline: of the curves: ``blur``, ``black``, ``mean`` or ``noise``.
        metrics: whether deletion and insertion curves are computed.
        seed: the random seed of the baseline ``noise``.
        micro_batch_size: perturbed images per forward pass; by default chosen for the device.
    """

    verb = "import"
    not_settings = frozenset({IMPORTED})  # the maps' own facts describe them

    def __init__(
        self,
        network: ExplainableNetwork,
        saliency: str | SaliencyMaps,
        method: str = "imported",
        mask_size: int | None = None,
        negative: Literal["refuse", "zero", "absolute", "keep"] = "refuse",
        covers: Literal["input", "image"] = "input",
        baseline: Literal["blur", "black", "mean", "noise"] = "blur",
        metrics: bool = True,
        seed: int = 63,
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__(network, micro_batch_size)
        if not method:
            raise IgosError("method is empty: name the method that made the saliency maps, as in grad-cam")
        check_choice("negative", negative, NEGATIVE)
        check_choice("covers", covers, COVERS)
        check_choice("baseline", baseline, BASELINES)
        self.saliency = saliency
        self.method = method
        self.mask_size = fitting_mask_size(mask_size, network.input_size)
        self.negative = negative
        self.covers = covers
        self.baseline = baseline
        self.metrics = metrics
        self.seed = seed
        self._opened: SaliencyMaps | None = None

    @property
    def maps(self) -> SaliencyMaps:
        """The maps, which are opened when they are first needed."""
        if self._opened is None:
            given = self.saliency
            self._opened = given if isinstance(given, SaliencyMaps) else open_maps(given)
        return self._opened

    def facts(self) -> Attributes:
        """What identifies the maps, and the precision."""
        return {**self.maps.facts(), **super().facts()}

    def on_predict_start(self) -> None:
        """Compare the names of the images with those of the maps, and look at some maps.

        Raises:
            IgosError: if no image has a map, two images share one, or maps have negative values that are
                refused.
        """
        super().on_predict_start()
        names = list(Run.of(self.trainer).expected)  # of all shards
        missing, unused = self.maps.check(names)
        self.check_signs(names[:: math.ceil(len(names) / _LOOKED_AT) or 1])
        if not self.trainer.is_global_zero:
            return
        log = logging.getLogger(__name__)
        if missing:
            log.warning("without a saliency map: %s (%s)", counted(len(missing), "image"), first_few(missing))
        if unused:
            maps = counted(len(unused), "saliency map")
            log.warning("without an image in this run: %s (%s)", maps, first_few(unused))

    def check_signs(self, sample_ids: Sequence[str]) -> None:
        """Raise if maps have negative values, and these are refused.

        Args:
            sample_ids: the images whose maps are read. Maps that cannot be read are left to `explain_images`.

        Raises:
            IgosError: saying how many they are.
        """
        if self.negative != "refuse":
            return
        lowest: dict[str, float] = {}
        for name in sample_ids:
            with suppress(TargetError):
                maps = self.maps.of(name)
                if maps is not None:
                    lowest[name] = float(maps.values.min())
        negative = [name for name, value in lowest.items() if value < 0]
        if negative:
            name = min(negative, key=lowest.__getitem__)
            raise IgosError(
                f"Negative values, whose meaning is not known, are in the saliency of {len(negative)} of the"
                f" {counted(len(lowest), 'image')} checked (down to {lowest[name]:.3g}, in {name}):"
                f" {MEANINGS}"
            )

    def explain_images(self, batch: ImageBatch) -> BatchResult:
        """Import the maps of a batch. Images without a map are recorded as failed.

        Raises:
            TargetError: if the maps of an image cannot be used.
        """
        found = [self.maps.of(record.sample_id) for record in batch.records]
        here = [place for place, maps in enumerate(found) if maps is not None]
        missing = [
            record.failed(f"{self.maps.name} has no saliency map of this image")
            for record, maps in zip(batch.records, found, strict=True)
            if maps is None
        ]
        if not here:
            return BatchResult(missing)
        part = replace(
            batch,
            images=batch.images[here],
            records=[batch.records[place] for place in here],
            truth=[batch.truth[place] for place in here],
        )
        imported = self._import(part, [maps for maps in found if maps is not None])
        return joined_results([imported, BatchResult(missing)])

    def _import(self, batch: ImageBatch, maps: Sequence[Maps]) -> BatchResult:
        began = time.perf_counter()
        images = self.network.normalize(batch.images.clone())
        names = [record.sample_id for record in batch.records]
        made = make_baselines(self.baseline, batch.images.clone(), names, self.seed)
        proposed = self.proposed(images, batch)
        targets = self._targets(images, proposed, batch, maps)
        cells = [self._cells(each, record) for each, record in zip(maps, batch.records, strict=True)]
        masks = 1 - torch.cat([each.saliency for each in cells]).to(images.device)
        notes = [
            "; ".join(part for part in (note, each.note) if part)
            for note, each in zip(proposed.notes, cells, strict=True)
        ]
        rows, size = len(targets), (images.shape[-2], images.shape[-1])
        problem = Problem(images, self.network.normalize(made), targets, row_keys(self.seed, targets, batch))
        removed = curve_cells(targets, self.mask_size, size)
        kind: Literal["full"] | None = "full" if self.metrics else None
        micro_batches = self.sized_micro_batches(images.device)
        curves = measured_curves(kind, self.network, problem, masks, removed, micro_batches)
        unknown = masks.new_full((rows,), torch.nan)
        columns = explanation_columns(
            targets,
            batch,
            Solution(masks, unknown, torch.zeros(rows, dtype=torch.bool)),
            curves,
            _NoPasses(torch.zeros(rows, dtype=torch.int64)),
            label_names=[self.network.label_name(label) for label in targets.label.tolist()],
            iterations=torch.zeros(rows, dtype=torch.int64),
            seconds=time.perf_counter() - began,
        )
        return self.result_of(batch, targets, notes, with_diversity(columns))

    def _cells(self, maps: Maps, record: ImageRecord) -> Cells:
        """The cells of an image's maps.

        Raises:
            TargetError: if the maps cannot be used. The message names the image.
        """
        values = maps.values
        if self.covers == "image":
            values = seen_part(values, record.seen())
        try:
            return saliency_cells(values, self.mask_size, record.seen().input_size, self.negative)
        except TargetError as error:
            raise TargetError(f"{record.sample_id}: {error}") from error

    def _targets(
        self, images: Tensor, proposed: ProposedTargets, batch: ImageBatch, maps: Sequence[Maps]
    ) -> Targets:
        """A row for each map."""
        counts = torch.bincount(proposed.targets.image, minlength=len(maps)).tolist()
        for record, each, count in zip(batch.records, maps, counts, strict=True):
            if each.labels is None and len(each.values) != count:
                raise TargetError(f"{record.sample_id}: {_wrong_number(len(each.values), count)}")
        if all(each.labels is None for each in maps):
            return proposed.targets
        if not isinstance(self.network, Classifier):
            raise IgosError(
                f"The saliency maps have labels, but {self.network.name} is not a classifier: give the maps"
                " of each image as one array, in the order of its detections"
            )
        classes = ClassLabels(self.network.class_names)
        image: list[int] = []
        label: list[int] = []
        for place, each in enumerate(maps):
            own = proposed.targets.label[proposed.targets.image == place].tolist()
            labels = own if each.labels is None else [_label(classes, text) for text in each.labels]
            image += [place] * len(labels)
            label += labels
        number = torch.tensor(image, device=images.device)
        classified = torch.tensor(label, device=images.device)
        with torch.no_grad():
            whole = self.network.probabilities(images.clone())
        if not 0 <= min(label) <= max(label) < whole.shape[1]:
            raise TargetError(
                f"a saliency map has the label {max(label)}, but the network has {whole.shape[1]} classes"
            )
        return class_targets(number, classified, whole[number, classified])


@dataclass(frozen=True)
class _NoPasses:
    """What imported maps cost is not known; it is recorded as 0."""

    evaluations: Tensor

    @property
    def forwards(self) -> Tensor:
        return self.evaluations


def _label(classes: ClassLabels, text: str) -> int:
    try:
        return int(text) if text.isdecimal() else classes.of(text)
    except IgosError as error:
        raise TargetError(f"a saliency map is named {text!r}: {error}") from error


def _wrong_number(maps: int, targets: int) -> str:
    text = f"it has {counted(maps, 'saliency map')}, but the network proposes {counted(targets, 'target')}"
    if targets == 1:
        return (
            f"{text}: for several classes, set top_k (--model.network.top_k), or name each map in its file by"
            " its label (an .npz, or a group in HDF5). Channels of one map must have the shape (1, channels,"
            " h, w)"
        )
    return f"{text}: give one map for each, in their order"
