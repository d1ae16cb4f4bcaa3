"""Insertion - deletion of the demo's explanations, beside masks that know nothing of the network.

Photos: EfficientNet-Lite0, explained by the presets ``igospp``, ``draft`` and ``fast``, beside a centred
Gaussian blob and random cells. With ``--detector``: the small Mask R-CNN's detections (``--detector
retinanet``: those of a detector of one stage) beside their filled boxes and random cells, and the
localisation figures, also of small objects and of crowded pictures. The same network, images and baselines
for all, and curves in 28 x 28 cells: finer masks are averaged. Run it by ``make bench``. The demo has few
detections; ``--pictures 40 --seed 777`` makes more.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import squashed
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from igos_pl.data.images import read_image
from igos_pl.data.targets import Targets
from igos_pl.demo.run import (
    CHECKPOINTS,
    SHAPES_INPUT,
    SHAPES_PICTURES,
    SHAPES_SEED,
    SHAPES_THRESHOLD,
    run_demo,
)
from igos_pl.demo.shapes_detectors import CATEGORIES, shapes_mask_rcnn, shapes_retinanet
from igos_pl.evaluation.deletion_insertion import (
    area_under_curve,
    curve_cells,
    deletion_insertion_curves,
    removal_counts,
)
from igos_pl.models import DenseDetector, EfficientNetLite0Classifier, ExplainableNetwork, RCNNDetector
from igos_pl.solver.baselines import make_baselines
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem
from igos_pl.store import MaskFile, RunFolder

# What is compared: settings as on the command line. Four iterations of igospp cost what fast does.
EXPLAINED: dict[str, tuple[str, ...]] = {
    "igospp": ("--preset", "igospp"),
    "igospp, 4 iterations": ("--preset", "igospp", "--model.iterations", "4"),
    "draft": ("--preset", "draft"),
    "fast": ("--preset", "fast"),
}
SIZE = 28  # cells along the side in which all masks are judged
# Objects are smaller than photos, so finer cells are compared for detections.
FINE = {"fast, 56 x 56 cells": ("--preset", "fast", "--model.mask_size", "56")}

# The localisation figures are also shown for objects whose detected box is below this share of the picture,
# and for objects in pictures with at least so many detections.
SMALL, CROWDED = 0.05, 5
LOCALIZATION = ("pointing_box", "pointing_mask", "energy_box", "energy_mask")

# Detectors of the generated pictures; how to choose them on the command line of the demo.
RETINANET = Path(__file__).parents[1] / "tests/checkpoints/shapes_retinanet.pth"
RETINANET_THRESHOLD = 0.4  # its scores are lower than the Mask R-CNN's
DETECTORS: dict[str, tuple[str, ...]] = {
    "mask-rcnn": (),  # the demo's own
    "retinanet": (
        *("--model.network", "DenseDetector"),
        *("--model.network.module", "igos_pl.demo.shapes_detectors.shapes_retinanet"),
        *("--model.network.weights", str(RETINANET)),
        *("--model.network.score_threshold", str(RETINANET_THRESHOLD)),
    ),
}


def demo_network(detector: str | None) -> ExplainableNetwork:
    """The network of the demo, or another detector of its pictures, frozen."""
    settings: dict[str, Any] = {"class_names": list(CATEGORIES), "input_size": SHAPES_INPUT}
    network: ExplainableNetwork
    if detector is None:
        network = EfficientNetLite0Classifier()
    elif detector == "mask-rcnn":
        weights = str(CHECKPOINTS / "shapes_maskrcnn.pth")
        network = RCNNDetector(
            shapes_mask_rcnn(), weights=weights, score_threshold=SHAPES_THRESHOLD, **settings
        )
    else:
        network = DenseDetector(
            shapes_retinanet(), weights=str(RETINANET), score_threshold=RETINANET_THRESHOLD, **settings
        )
    network.freeze()
    return network


def gaussian_blob(targets: Targets, size: int) -> Tensor:
    """Masks ``(R, s, s)`` that take cells from the centre outwards."""
    place = torch.linspace(-1, 1, size)
    blob = 1 - torch.exp(-(place[:, None].square() + place[None].square()))
    return blob.expand(len(targets), -1, -1)


def filled_box(targets: Targets, size: int, input_size: tuple[int, int]) -> Tensor:
    """Masks ``(R, s, s)`` that take the cells of the detection's box first."""
    rows, columns = ((torch.arange(size) + 0.5) * side / size for side in input_size)
    x1, y1, x2, y2 = targets.box.unbind(1)
    across = (columns >= x1[:, None]) & (columns < x2[:, None])
    down = (rows >= y1[:, None]) & (rows < y2[:, None])
    return 1 - (down[:, :, None] & across[:, None, :]).float()


def random_cells(targets: Targets, size: int) -> Tensor:
    """Masks ``(R, s, s)`` that take cells in random order."""
    return torch.rand(len(targets), size, size, generator=torch.Generator().manual_seed(0))


def problem_of(network: ExplainableNetwork, masks: MaskFile) -> Problem:
    """The images of a result and what is explained in them, in the result's order."""
    names = masks.images["sample_id"].tolist()
    pictures = [read_image(Path(path)) for path in masks.images["path"]]
    batch = squashed(names, pictures, network.input_size)
    images = network.normalize(batch.images)
    baselines = network.normalize(make_baselines("blur", batch.images, names, seed=63))
    targets = network.propose(images, batch.truth).targets
    assert [names[i] for i in targets.image.tolist()] == masks.column("sample_id").tolist()
    assert targets.label.tolist() == masks.column("label").tolist()
    return Problem(images, baselines, targets, range(len(targets)))


def judge(network: ExplainableNetwork, problem: Problem, masks: Tensor) -> Tensor:
    """Insertion - deletion ``(R,)`` of masks ``(R, s, s)``."""
    cells = curve_cells(problem.targets, masks.shape[-1], network.input_size)
    curves = deletion_insertion_curves(network, problem, masks, removal_counts(cells), MicroBatches(10))
    return area_under_curve(curves.insertion) - area_under_curve(curves.deletion)


def print_localization(masks: MaskFile) -> None:
    """The localisation figures of the matched objects, of small ones, and of those in crowded pictures.

    ``box share`` is the box's share of the picture, which saliency everywhere would get.
    """
    size = {name: row for row, name in enumerate(masks.images["sample_id"].tolist())}
    rows = [size[name] for name in masks.column("sample_id")]
    area = (masks.images["width"] * masks.images["height"])[rows]
    box = masks.column("box")
    share = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / area
    detections = np.bincount(rows)[rows]
    matched = masks.column("object") >= 0
    figures = {name: masks.column(name) for name in LOCALIZATION}
    figures["insertion - deletion"] = masks.column("insertion") - masks.column("deletion")
    figures["box share"] = share
    groups = {
        "all": matched,
        f"boxes below {SMALL:.0%}": matched & (share < SMALL),
        f"{CROWDED} detections or more": matched & (detections >= CROWDED),
    }
    print(f"{matched.sum()} of {len(matched)} detections match an annotated object; of these:")
    print(f"  {'':24}{'objects':>8}" + "".join(f"{name:>{len(name) + 2}}" for name in figures))
    for group, chosen in groups.items():
        if not chosen.any():
            continue
        means = (f"{np.nanmean(column[chosen]):{len(name) + 2}.3f}" for name, column in figures.items())
        print(f"  {group:24}{chosen.sum():8}" + "".join(means))


def main() -> None:
    """Run the demo with each of the settings that the folder has no result of, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--detector",
        nargs="?",
        const="mask-rcnn",
        choices=DETECTORS,
        help="the demo of detections, by default with its Mask R-CNN",
    )
    parser.add_argument("--pictures", type=int, default=SHAPES_PICTURES, help="generated for the detector")
    parser.add_argument("--seed", type=int, default=SHAPES_SEED, help="of the generated pictures")
    parser.add_argument("--output", type=Path, help="folder of the demo runs; a temporary one by default")
    options = parser.parse_args()
    if not options.detector and (options.pictures, options.seed) != (SHAPES_PICTURES, SHAPES_SEED):
        parser.error("--pictures and --seed are for --detector: the photos are always the same")
    network = demo_network(options.detector)
    which = DETECTORS[options.detector] if options.detector else ()
    with tempfile.TemporaryDirectory() as temporary:
        output = options.output or Path(temporary)
        rows: dict[str, Tensor] = {}
        for name, how in (EXPLAINED | FINE if options.detector else EXPLAINED).items():
            run_demo(output / name, bool(options.detector), (*which, *how), options.pictures, options.seed)
            with MaskFile(RunFolder(output / name).merged) as file:
                problem = problem_of(network, file)
                rows[name] = torch.from_numpy(file.column("masks"))
                if options.detector:
                    print(f"\n{name}:")
                    print_localization(file)
        targets = problem.targets
        if options.detector:
            rows["filled box"] = filled_box(targets, SIZE, network.input_size)
        else:
            rows["centred Gaussian blob"] = gaussian_blob(targets, SIZE)
        rows["random cells"] = random_cells(targets, SIZE)
        print(f"\ninsertion - deletion, mean over {len(targets)} explanations:")
        for name, masks in rows.items():
            pooled = adaptive_avg_pool2d(masks, SIZE)
            print(f"  {name:24}{float(judge(network, problem, pooled).mean()):8.3f}")


if __name__ == "__main__":
    main()
