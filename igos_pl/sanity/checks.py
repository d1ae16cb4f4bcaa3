"""The LightningModule of ``igos-pl sanity``: explains each image under the network and under random ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule
from torch import Tensor

from igos_pl.checks import check_choice, check_count
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.batches import ImageBatch
from igos_pl.data.records import BatchResult, ImageRecord
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.models import Classifier
from igos_pl.predicting import PRECISIONS
from igos_pl.randomness import key_of
from igos_pl.run.progress import BatchProgress
from igos_pl.sanity.randomisation import Layer, cascade, layers_of, randomise, restored
from igos_pl.sanity.similarity import canny_edges, entropy, sobel_edges, spearman, ssim
from igos_pl.settings import Attributes, Configurable

# The checks, in the order of a report.
CONTROLS, LOGITS, CASCADE, INDEPENDENT = "controls", "another class", "cascade", "independent"

SEED, NEIGHBOUR, SOBEL, CANNY = "another seed", "another image's mask", "Sobel edges", "Canny edges"
SECOND, RANDOM = "the second class", "a random class"


@dataclass(frozen=True)
class Checked:
    """The comparison of an image's mask with another map.

    Attributes:
        check: `CONTROLS`, `LOGITS`, `CASCADE` or `INDEPENDENT`.
        state: what the other map is: the mask of another class, of a network with some random layers, ...
        layers: how many layers are random.
        sample_id: the image.
        label: the class whose mask it is compared with; the network's own mask explains this class.
        spearman: the rank correlation of the cells; NaN if all cells of a map are equal.
        ssim: the structural similarity of the maps, each divided by its maximum.
        entropy_rise: the rise of the entropy relative to that of the network's own mask; efficient MPRT for a
            network whose layers are all random.
        contrast: the largest minus the smallest saliency of the other map.
        score: of the class that the other map explains, on the whole image; NaN for an edge detector.
    """

    check: str
    state: str
    layers: int
    sample_id: str
    label: int
    spearman: float
    ssim: float
    entropy_rise: float
    contrast: float
    score: float


class _Found(NamedTuple):
    """Maps ``(N, s, s)`` of a batch's images, high = important, and the scores ``(N,)`` of their classes."""

    saliency: NDArray[np.float64]
    score: NDArray[np.float64]


class SanityChecks(Configurable, LightningModule):
    """Compares masks with those that do not explain the network's decision, in ``Trainer.predict``.

    The class that an image's mask explains is the first that the network proposes. The same class is
    explained under networks with random weights: in a cascade, which makes more and more layers random from
    the output on (MPRT, Adebayo et al. 2018), and with the cascade's groups of layers random one at a time.
    Masks of other classes, of another seed and of another image, and edge detectors are compared as well.
    Afterwards, the network's weights are the old ones, bit for bit.

    The trainer needs a `RunCallback`. It writes nothing; `checked` grows with each batch.

    Args:
        explainer: explains the images.
        steps: the number of steps from one random layer to all.

    Attributes:
        checked: the comparisons.
        failures: the records of images that could not be read.
        layers: the network's layers, from input to output.
        on_progress: called with the progress of a batch; None to disable it.

    Raises:
        IgosError: if the network is not a classifier, or the explainer has several starts.
    """

    def __init__(self, explainer: Explainer, steps: int = 8) -> None:
        super().__init__()
        check_count("steps", steps, 1)
        network = explainer.network
        if not isinstance(network, Classifier):
            raise IgosError(
                f"igos-pl sanity explains the same class under random weights, so it needs a classifier, and"
                f" {type(network).__name__} is none: with random weights, a detector finds no objects"
            )
        start = explainer.start
        if len(start.cells or range(start.k**2)) > 1:
            raise IgosError(
                "igos-pl sanity compares one mask of each image and class, but the start has several cells:"
                " leave start.k out, or name one cell (--model.start.cells '[0]')"
            )
        self.steps = steps
        self.network = network
        self.layers: list[Layer] = layers_of(network.module)
        self._described = {**explainer.describe(), "sanity.steps": steps}
        self.explainer = explainer
        explainer.metrics = False
        asked = copy.copy(network)  # shares its layers with the network
        asked.targets = "ground_truth"
        explainer.network = asked
        self.checked: list[Checked] = []
        self.failures: list[ImageRecord] = []
        self.on_progress: Callable[[BatchProgress], None] | None = None
        self._changed = False

    def describe(self) -> Attributes:
        """The explainer's settings and facts."""
        return self._described

    def on_predict_start(self) -> None:
        """Refuse what would give wrong results.

        Raises:
            IgosError: if there are several processes, or the precision is not supported.
        """
        if self.trainer.world_size > 1:
            raise IgosError(
                "igos-pl sanity works in one process: set devices of the trainer (--trainer.devices) to 1"
            )
        check_choice("trainer.precision", str(self.trainer.precision), PRECISIONS)

    def predict_step(self, batch: ImageBatch, batch_idx: int = 0) -> BatchResult:
        """Check the images of a batch."""
        if batch.records:
            self.checked += self._check(batch)
        self.failures += [*batch.failures, *batch.unread]
        return BatchResult([*batch.records, *batch.failures], unread=batch.unread)

    def _check(self, batch: ImageBatch) -> list[Checked]:
        first, second, other = self._classes(batch)
        own = self._explained(batch, first)
        rows: list[Checked] = []

        def compare(check: str, state: str, found: _Found, layers: int = 0) -> None:
            maps = zip(batch.records, first, own.saliency, found.saliency, found.score, strict=True)
            for record, label, mine, theirs, score in maps:
                rise = entropy(theirs) / entropy(mine) - 1 if entropy(mine) else np.nan
                rows.append(
                    Checked(
                        check,
                        state,
                        layers,
                        record.sample_id,
                        label,
                        spearman(mine, theirs),
                        ssim(mine, theirs),
                        rise,
                        float(np.ptp(theirs)),
                        float(score),
                    )
                )

        groups = list(self._groups())
        runs = 3 + len(groups) + len(groups[1:])
        done = iter(range(1, runs + 1))

        def tell() -> None:
            number = next(done)
            if self.on_progress is not None:
                self.on_progress(BatchProgress("networks", number, runs, number / runs))

        with self._other_seed():
            compare(CONTROLS, SEED, self._explained(batch, first))
        tell()
        for state, found in self._controls(batch, own).items():
            compare(CONTROLS, state, found)
        for state, labels in ((SECOND, second), (RANDOM, other)):
            compare(LOGITS, state, self._explained(batch, labels))
            tell()
        with restored(self.network.module):
            for number, group in enumerate(groups):
                randomise(group.layers, self.explainer.seed)
                found = self._explained(batch, first)
                compare(CASCADE, group.cascade, found, group.number)
                if not number:  # only these layers are random, as in the independent check
                    compare(INDEPENDENT, group.independent, found, len(group.layers))
                tell()
            self._changed |= bool((found.score != own.score).any())
        for group in groups[1:]:
            with restored(self.network.module):
                randomise(group.layers, self.explainer.seed)
                compare(INDEPENDENT, group.independent, self._explained(batch, first), len(group.layers))
            tell()
        return rows

    def on_predict_end(self) -> None:
        """Refuse a result that says nothing.

        Raises:
            IgosError: if random weights did not change the network's output.
        """
        if self.checked and not self._changed:
            raise IgosError(
                f"Random weights in all {len(self.layers)} layers of {self.network.name} do not change its"
                " scores: its forward does not use the weights of its layers"
            )

    def _groups(self) -> Iterator[_Group]:
        """The groups of layers that become random one after another, from the output on."""
        count, before = len(self.layers), 0
        for number in cascade(count, self.steps):
            chosen = self.layers[count - number : count - before]
            names = f"{chosen[0].name} to {chosen[-1].name}" if len(chosen) > 1 else chosen[0].name
            places = f"{count - number + 1} to {count - before}" if len(chosen) > 1 else f"{count - before}"
            yield _Group(chosen, number, f"the last {number} of {count}", f"{places} of {count}: {names}")
            before = number

    @contextmanager
    def _other_seed(self) -> Iterator[None]:
        self.explainer.seed += 1
        try:
            yield
        finally:
            self.explainer.seed -= 1

    def _controls(self, batch: ImageBatch, own: _Found) -> dict[str, _Found]:
        """Maps that do not depend on the image's class, or not on the network."""
        size, unknown = own.saliency.shape[-1], np.full_like(own.score, np.nan)
        edges = {
            name: _Found(np.stack([detect(image, size) for image in batch.images]), unknown)
            for name, detect in ((SOBEL, sobel_edges), (CANNY, canny_edges))
        }
        if len(batch.records) == 1:
            return edges
        return {NEIGHBOUR: _Found(np.roll(own.saliency, 1, axis=0), np.roll(own.score, 1)), **edges}

    def _explained(self, batch: ImageBatch, labels: Sequence[int]) -> _Found:
        """The masks of given classes, one for each image."""
        truth = [GroundTruth(label) for label in labels]
        columns = self.explainer.explain_batch(replace(batch, truth=truth)).explanations
        return _Found(1 - columns["masks"].astype(np.float64), columns["score"].astype(np.float64))

    @torch.no_grad()
    def _classes(self, batch: ImageBatch) -> tuple[list[int], list[int], list[int]]:
        """For each image: the explained class, the best other one, and a random other one."""
        with torch.inference_mode(False), self.network.frozen():
            images = self.network.normalize(batch.images.clone())
            targets = self.network.propose(images.clone(), batch.truth_in_input()).targets
            scores: Tensor = self.network.probabilities(images)
        first = targets.label[targets.number == 0]
        classes = scores.shape[1]
        if classes == 1:
            raise IgosError(
                f"{self.network.name} has one class, but igos-pl sanity compares two: use another network"
            )
        second = scores.scatter(1, first.unsqueeze(1), -1.0).argmax(1)
        steps = [
            1 + key_of(self.explainer.seed, "other class", record.sample_id) % (classes - 1)
            for record in batch.records
        ]
        other = [(label + step) % classes for label, step in zip(first.tolist(), steps, strict=True)]
        return first.tolist(), second.tolist(), other


class _Group(NamedTuple):
    """Layers that become random together.

    Attributes:
        layers: these layers.
        number: how many are random in the cascade with them.
        cascade: what is random in the cascade, in words.
        independent: what is random without the cascade, in words.
    """

    layers: list[Layer]
    number: int
    cascade: str
    independent: str
