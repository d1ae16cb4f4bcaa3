"""What all modules share that go through a data set in ``Trainer.predict``, batch by batch."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import torch
from pytorch_lightning import Callback, LightningModule
from torch import Tensor

from igos_pl.callbacks import MaskWriter, RunCallback
from igos_pl.checks import check_choice, check_count
from igos_pl.data.batches import ImageBatch
from igos_pl.data.records import BatchResult, Columns, ImageRecord
from igos_pl.data.targets import ProposedTargets, Targets
from igos_pl.errors import IgosError, NetworkError, TargetError
from igos_pl.evaluation.columns import joined_results, unrepeatable_scores
from igos_pl.models.base import ExplainableNetwork
from igos_pl.randomness import key_of
from igos_pl.run.progress import BatchProgress
from igos_pl.run.run import Run
from igos_pl.settings import Attributes, Configurable
from igos_pl.solver.micro_batches import MicroBatches, is_machine_error

# The cells along a mask's side by default; fewer if the network's input has fewer pixels.
MASK_SIZE = 28

# Perturbed images per forward pass; halved when memory runs out. On CPUs, larger micro-batches are slower,
# because the allocator returns their large activation blocks to the system each time (docs/performance.md).
_MICRO_BATCH = {"cpu": 5}
_MICRO_BATCH_ACCELERATOR = 64

# The run ends when the network has raised exceptions at this many images in a row. The first limit holds
# until an image was explained, the second one afterwards.
_FAILURES_AT_FIRST = 4
_FAILURES_IN_A_ROW = 32

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


class BatchPredictor(Configurable, LightningModule, ABC):
    """A module that works on the images of a data set with a frozen network.

    A subclass implements `explain_images`. This class handles exceptions of the network and shrinks
    micro-batches when memory runs out. A `MaskWriter` is added to a trainer that has no `RunCallback`.

    Args:
        network: the network. It is frozen while a batch is worked on, and restored afterwards.
        micro_batch_size: perturbed images per forward pass; by default chosen for the device.

    Attributes:
        on_progress: called with the progress of a batch; None to disable it.
    """

    not_settings = frozenset({"micro_batch_size"})
    verb: ClassVar[str] = "explain"  # what it does with images, for messages

    def __init__(self, network: ExplainableNetwork, micro_batch_size: int | None = None) -> None:
        super().__init__()
        if not isinstance(network, ExplainableNetwork):
            raise IgosError(
                f"network is a {type(network).__name__}: put it into an adapter, as in"
                " igos_pl.Classifier(network), or use igos_pl.explain(network, images)"
            )
        if micro_batch_size is not None:
            check_count("micro_batch_size", micro_batch_size, 1)
        self.network = network
        self.micro_batch_size = micro_batch_size
        self.on_progress: Callable[[BatchProgress], None] | None = None
        self._micro_batches: MicroBatches | None = None
        self._failures = _Failures()
        self._doubted = False

    @abstractmethod
    def explain_images(self, batch: ImageBatch) -> BatchResult:
        """The result of the readable images of a batch.

        Raises:
            TargetError: if targets cannot be explained. The images are then tried one by one.
        """

    def facts(self) -> Attributes:
        """The precision.

        Raises:
            IgosError: if the trainer's precision would cast images and masks themselves.
        """
        precision = "32-true" if self._trainer is None else str(self.trainer.precision)
        check_choice("trainer.precision", precision, PRECISIONS)
        return {"precision": precision}

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
        with self.working():
            result = self._explain_or_split(batch)
        return replace(result, images=[*result.images, *batch.failures], unread=batch.unread)

    def explain_batch(self, batch: ImageBatch) -> BatchResult:
        """Explain the images of a batch, without a trainer. Exceptions of the network are raised."""
        with self.working():
            return self.explain_images(batch)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Enable gradients and freeze the network in a context."""
        with torch.inference_mode(False), torch.enable_grad(), self.network.frozen():
            yield

    def _explain_or_split(self, batch: ImageBatch) -> BatchResult:
        """Explain a batch, or its images one by one if the network raises an exception."""
        if not batch.records:
            return BatchResult([])
        try:
            result = self.explain_images(batch)
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
                results.append(BatchResult([_failed(part.records[0], own)]))
        self._failures.note_without_target(len(batch.records), error)
        return joined_results(results) if results else BatchResult([_failed(batch.records[0], error)])

    def proposed(self, images: Tensor, batch: ImageBatch) -> ProposedTargets:
        """What the network proposes to explain in a batch.

        Args:
            images: ``(B, C, H, W)`` of the batch, normalised. They are not changed.
            batch: the images with their records.

        Raises:
            TargetError: if targets cannot be explained. The message names the image that is to blame.
        """
        try:
            # A clone, because some networks change their input.
            return self.network.propose(images.clone(), batch.truth_in_input())
        except TargetError as error:
            if error.image is None:
                raise
            raise TargetError(f"{batch.records[error.image].sample_id}: {error}") from error

    def result_of(
        self, batch: ImageBatch, targets: Targets, notes: Sequence[str], columns: Columns
    ) -> BatchResult:
        """The columns of a batch's rows, with the records of its images.

        Args:
            batch: the images.
            targets: the rows.
            notes: for each image, what a person should know of the choice of its targets.
            columns: of the rows; see `igos_pl.store.schema.EXPLANATIONS`.
        """
        counts = torch.bincount(targets.image, minlength=len(batch.records)).tolist()
        broken = set(columns["sample_id"][columns["status"] == "nan"]) if columns else set()
        doubts = unrepeatable_scores(columns) if self.network.proposes_its_scores else {}
        if doubts and not self._doubted:
            self._doubted = True
            warnings.warn(next(iter(doubts.values())), stacklevel=2)
        records = [
            record.explained(count, [note, doubts.get(record.sample_id, "")], record.sample_id in broken)
            for record, count, note in zip(batch.records, counts, notes, strict=True)
        ]
        return BatchResult(records, columns)

    def sized_micro_batches(self, device: torch.device) -> MicroBatches:
        """The micro-batches of this run. They keep a size that was reduced when memory ran out."""
        if self._micro_batches is None:
            default = _MICRO_BATCH.get(device.type, _MICRO_BATCH_ACCELERATOR)
            self._micro_batches = MicroBatches(self.micro_batch_size or default)
        return self._micro_batches


def row_keys(seed: int, targets: Targets, batch: ImageBatch) -> list[int]:
    """The random key of each row. It depends only on the seed, the image and the target."""
    rows = zip(
        (batch.records[image].sample_id for image in targets.image.tolist()),
        targets.number.tolist(),
        targets.label.tolist(),
        targets.start_cell.tolist(),
        strict=True,
    )
    return [key_of(seed, *row) for row in rows]


def _failed(record: ImageRecord, error: TargetError) -> ImageRecord:
    """The record of an image that cannot be explained. It has the name, so the message does not repeat it."""
    return record.failed(str(error).removeprefix(f"{record.sample_id}: "))


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


def fitting_mask_size(mask_size: int | None, input_size: tuple[int, int]) -> int:
    """The cells along the side of a mask for an input of so many pixels; None for the default.

    Raises:
        IgosError: if the input has fewer pixels than cells were asked for.
    """
    most = min(input_size)
    pixels = f"the network's input of {input_size[0]} x {input_size[1]} pixels"
    if mask_size is None:
        mask_size = min(MASK_SIZE, most)
        if mask_size < MASK_SIZE:
            warnings.warn(f"mask_size is {most} instead of {MASK_SIZE}, because of {pixels}", stacklevel=3)
    check_count("mask_size", mask_size, 2)
    if mask_size > most:
        raise IgosError(
            f"mask_size is {mask_size}, which is more than {pixels}: set mask_size to {most} or less"
            f" (--model.mask_size {most})"
        )
    return mask_size
