"""Adaptive deletion and insertion curves against all 51 points: passes, and errors of the areas.

Make the photos by `photos.py`, then ::

    python benchmarks/curves.py PHOTOS --results FOLDER
    python benchmarks/curves.py --detector --results FOLDER

explains the tuning photos (with ``--half test`` the test photos), or the detector's demo, and measures all
points of the curves of four masks: those of the preset ``fast``, of ``igospp`` with four iterations (which
cost the same), a smooth one (Grad-CAM; for detections the filled box), and random cells. The adaptive curves
then ask for the recorded scores only. What was recorded is kept in FOLDER, image by image: a second call goes
on where the first one stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.activations import grad_cam
from peers.registry import GRAD_CAM_LAYER
from photos import read_table, squashed
from quality import demo_network, filled_box, random_cells
from torch import Tensor

from igos_pl.data.batches import ImageBatch
from igos_pl.data.images import read_image
from igos_pl.demo.run import SHAPES_PICTURES, SHAPES_SEED
from igos_pl.demo.shapes import write_shapes_dataset
from igos_pl.evaluation.adaptive_curves import measured
from igos_pl.evaluation.deletion_insertion import (
    Curves,
    area_under_curve,
    curve_cells,
    deletion_insertion_curves,
    removal_counts,
)
from igos_pl.explainer import Explainer
from igos_pl.models import Classifier, ExplainableNetwork
from igos_pl.solver.baselines import make_baselines
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem
from igos_pl.solver.order import ranks

METHODS = ("fast", "igospp", "smooth", "random")
_CELLS, _SEED, _MICRO_BATCH = 28, 63, 5


class Recorded:
    """Gives the scores of curves whose points are all known, and counts how many are asked for.

    Args:
        masks: ``(R, s, s)``.
        counts: ``(R, P)`` cells removed at each point.
        curves: ``(R, 2, P)``, deletion and insertion.
    """

    def __init__(self, masks: Tensor, counts: Tensor, curves: Tensor) -> None:
        self.place = ranks(masks)
        self._counts, self._curves = counts, curves
        self.passes = torch.zeros(len(masks), dtype=torch.int64)

    def score(
        self, row: Tensor, inserts: Tensor, count: Tensor, on_images: Callable[[int], None] | None = None
    ) -> Tensor:
        """Look some scores up."""
        self.passes += torch.bincount(row, minlength=len(self.passes))
        point = torch.searchsorted(self._counts[row], count.unsqueeze(1)).squeeze(1)
        return self._curves[row, inserts.long(), point]


def masks_of(
    network: ExplainableNetwork, batch: ImageBatch, problem: Problem
) -> Iterator[tuple[str, Tensor]]:
    """The masks ``(R, s, s)`` of an image's targets, by method."""
    for preset, changed in (("fast", {}), ("igospp", {"iterations": 4})):
        explainer = Explainer.from_preset(network, preset, **changed, metrics=False)
        columns = explainer.predict_step(batch).explanations
        yield preset, torch.from_numpy(np.asarray(columns["masks"], np.float32))
    if isinstance(network, Classifier):
        mask = grad_cam(network, problem, GRAD_CAM_LAYER).mask
        yield "smooth", mask.reshape(1, _CELLS, _CELLS)
    else:
        yield "smooth", filled_box(problem.targets, _CELLS, network.input_size)
    yield "random", random_cells(problem.targets, _CELLS)


def record(network: ExplainableNetwork, path: Path, target: Path) -> None:
    """Explain an image, and measure all points of the curves."""
    batch = squashed([path.name], [read_image(path)], network.input_size)
    images = network.normalize(batch.images)
    baselines = network.normalize(make_baselines("blur", batch.images, [path.name], _SEED))
    targets = network.propose(images, batch.truth).targets
    found: dict[str, Any] = {}
    if len(targets):
        problem = Problem(images, baselines, targets, range(len(targets)))
        cells = curve_cells(targets, _CELLS, network.input_size)
        found["cells"] = cells.numpy()
        for name, masks in masks_of(network, batch, problem):
            curves = deletion_insertion_curves(
                network, problem, masks, removal_counts(cells), MicroBatches(_MICRO_BATCH)
            )
            found[name] = torch.stack((curves.deletion, curves.insertion), 1).numpy()
            found[f"mask_{name}"] = masks.numpy()
    part = target.with_suffix(".part")  # whole or not at all
    with part.open("wb") as file:
        np.savez_compressed(file, **found)
    part.replace(target)


def replayed(arrays: dict[str, Tensor], name: str) -> tuple[Curves, Tensor]:
    """The adaptive curves of a method's masks, and the passes of each row."""
    counts = removal_counts(arrays["cells"])
    recorded = Recorded(arrays[f"mask_{name}"], counts, arrays[name])
    return measured(recorded, counts), recorded.passes


def table(files: list[Path]) -> str:
    """A line for each method: rows, passes, and the absolute errors of both curves' areas."""
    lines = [f"{'masks':10}{'rows':>6}{'passes':>9}{'most':>6}{'mean error':>12}{'largest':>9}"]
    whole: list[tuple[Tensor, Tensor]] = []
    for name in METHODS:
        passes, errors = [], []
        for path in files:
            with np.load(path) as kept:
                arrays = {key: torch.from_numpy(kept[key]) for key in kept.files}
            if not arrays:
                continue
            curves, asked = replayed(arrays, name)
            passes.append(asked)
            for curve, all_points in zip(
                (curves.deletion, curves.insertion), arrays[name].unbind(1), strict=True
            ):
                errors.append((area_under_curve(curve) - area_under_curve(all_points)).abs())
        whole.append((torch.cat(passes), torch.cat(errors)))
        lines.append(_line(name, *whole[-1]))
    lines.append(_line("all", *(torch.cat(part) for part in zip(*whole, strict=True))))
    return "\n".join(lines)


def _line(name: str, passes: Tensor, errors: Tensor) -> str:
    return (
        f"{name:10}{len(passes):6}{float(passes.double().mean()):9.1f}{int(passes.max()):6}"
        f"{float(errors.mean()):12.4f}{float(errors.max()):9.4f}"
    )


def main() -> None:
    """Record what the folder does not hold yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="?", help="the folder of photos.py")
    parser.add_argument("--half", choices=("tuning", "test"), default="tuning")
    parser.add_argument("--detector", action="store_true", help="the detector's demo instead of photos")
    parser.add_argument("--results", type=Path, required=True, help="folder of what is recorded")
    parser.add_argument("--limit", type=int, help="take only the first images")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    if options.detector:
        shapes = options.results / "shapes"
        annotations = write_shapes_dataset(shapes, images=SHAPES_PICTURES, seed=SHAPES_SEED)
        paths = sorted((annotations.parent / "images").iterdir())
    elif options.photos:
        paths = [options.photos / f"{photo.id}.png" for photo in read_table(options.photos, options.half)]
    else:
        parser.error("give the folder of the photos, or --detector")
    network = demo_network("mask-rcnn" if options.detector else None)
    files = []
    for path in paths[: options.limit]:
        files.append(options.results / f"{path.stem}.npz")
        if not files[-1].exists():
            record(network, path, files[-1])
            print(f"{path.name} is recorded", file=sys.stderr, flush=True)
    print(table(files))


if __name__ == "__main__":
    main()
