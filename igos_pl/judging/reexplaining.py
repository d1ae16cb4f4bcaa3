"""Sensitivity: how much the saliency changes when the image hardly does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.batches import ImageBatch
from igos_pl.data.records import ImageRecord
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.judging.rows import Rows, seeded
from igos_pl.models import Classifier
from igos_pl.optional import imported

# The largest change of a value of the normalised image: Captum's default.
_RADIUS = 0.02


def sensitivity(rows: Rows) -> dict[str, Tensor]:
    """Captum's maximum sensitivity (Yeh et al., NeurIPS 2019), by explaining each image again.

    Raises:
        IgosError: if the masks were imported, the network is no classifier, or there are diverse starts.
    """
    captum = imported("captum.metrics", "evaluate", "sensitivity")
    network, explainer = rows.network, rows.explainer
    if explainer is None:
        raise IgosError(
            "sensitivity explains images again, but these masks were imported: igos_pl does not have their"
            " method. Leave sensitivity out"
        )
    if not isinstance(network, Classifier):
        raise IgosError(f"sensitivity needs a classifier, but {network.name} is none: leave sensitivity out")
    if (rows.problem.targets.start_cell >= 0).any():
        raise IgosError(
            "sensitivity needs plain starts, but the run has diverse starts: leave sensitivity out"
        )
    found = []
    for row in range(len(rows)):
        label = int(rows.problem.targets.label[row])
        place = int(rows.problem.targets.image[row])
        record, truth = rows.batch.records[place], rows.batch.truth[place]

        def explained(
            inputs: tuple[Tensor, ...],
            label: int = label,
            record: ImageRecord = record,
            truth: GroundTruth = truth,
        ) -> tuple[Tensor]:
            mean, std = (part.to(inputs[0]) for part in (network.pixel_mean, network.pixel_std))
            pixels = inputs[0].detach() * std + mean
            masks = [_mask(explainer, ImageBatch(image[None], [record], [truth]), label) for image in pixels]
            return (1 - torch.stack(masks).to(pixels),)

        image = rows.problem.images[place : place + 1]
        with seeded(rows.problem.keys[row]):
            value = captum.sensitivity_max(
                explained, image, perturb_radius=_RADIUS, n_perturb_samples=rows.samples
            )
        found.append(float(value))
    return {"sensitivity": rows.masks.new_tensor(found)}


def _mask(explainer: Explainer, batch: ImageBatch, label: int) -> Tensor:
    """The mask ``(s, s)`` of one image and label, with the random numbers of the run."""
    with _asked(explainer, label), torch.enable_grad():
        columns = explainer.explain_images(batch).explanations
    return torch.from_numpy(columns["masks"][0])


@contextmanager
def _asked(explainer: Explainer, label: int) -> Iterator[None]:
    """Let an explainer explain one label without measuring curves, in a context."""
    network = explainer.network
    assert isinstance(network, Classifier)
    before = network.targets, explainer.metrics
    network.targets, explainer.metrics = [label], False
    try:
        yield
    finally:
        network.targets, explainer.metrics = before
