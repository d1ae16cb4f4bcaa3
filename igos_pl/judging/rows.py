"""What a metric judges: the masks of some targets, with their images and the network."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import upsample
from igos_pl.explainer import Explainer
from igos_pl.models import ExplainableNetwork
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem
from igos_pl.solver.perturbation import perturbed


@dataclass(frozen=True)
class Rows:
    """R rows: masks of targets in some images.

    Attributes:
        network: scores the perturbed images.
        problem: the images and baselines, normalised, and the R targets with their random keys.
        masks: ``(R, s, s)`` in [0, 1], low is important.
        batch: the images before they are normalised, and their annotations.
        micro_batches: cuts the perturbed images into pieces.
        samples: how often a metric that samples does so for each row.
        explainer: made the masks; None if they were imported.
    """

    network: ExplainableNetwork
    problem: Problem
    masks: Tensor
    batch: ImageBatch
    micro_batches: MicroBatches
    samples: int = 0
    explainer: Explainer | None = None

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.problem.images.shape[-2], self.problem.images.shape[-1]

    @property
    def saliency(self) -> Tensor:
        """``(R, s, s)`` in [0, 1], high is important."""
        return 1 - self.masks

    @torch.no_grad()
    def score(self, images: Tensor, row: Tensor) -> Tensor:
        """The scores ``(B,)`` of images ``(B, C, H, W)`` for the targets of the rows ``(B,)``."""
        scores = images.new_empty(len(images))

        def work(start: int, stop: int) -> None:
            targets = self.problem.targets.select(row[start:stop])
            # Copies, because some networks change their input.
            some = images[start:stop].clone(memory_format=torch.channels_last)
            scores[start:stop] = self.network.score(some, targets).to(scores.dtype)

        self.micro_batches.run(len(images), work)
        return scores

    @torch.no_grad()
    def score_shown(self, shown: Tensor, row: Tensor) -> Tensor:
        """The scores of images that are blended with their baselines by cells.

        Args:
            shown: ``(B, s, s)``: 1 where the image is shown, 0 where its baseline is.
            row: ``(B,)``.
        """
        scores = self.masks.new_empty(len(shown))
        images, baselines = self.problem.images.contiguous(), self.problem.baselines.contiguous()

        def work(start: int, stop: int) -> None:
            targets = self.problem.targets.select(row[start:stop])
            large = upsample(shown[start:stop].to(images.dtype).unsqueeze(1), self.input_size)
            blended = perturbed(images, baselines, targets.image, large)
            scores[start:stop] = self.network.score(blended, targets).to(scores.dtype)

        self.micro_batches.run(len(shown), work)
        return scores


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch, which libraries use, and restore them."""
    with isolate_rng():
        random.seed(key)
        np.random.seed(key % (1 << 32))  # noqa: NPY002  Quantus draws from this generator
        torch.manual_seed(key)
        yield
