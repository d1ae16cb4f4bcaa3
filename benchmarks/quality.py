"""Mean (insertion - deletion) of the demo's photos: iGOS++ beside a centred blob and random cells.

The same network, photos, baseline and curves for all three; run it by ``make bench``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from igos_pl.baselines import make_baselines
from igos_pl.demo.run import copy_photos, run_demo
from igos_pl.images import find_images, read_image, to_input
from igos_pl.metrics import area_under_curve, deletion_insertion_curves, removal_counts
from igos_pl.micro_batches import MicroBatches
from igos_pl.models import EfficientNetLite0
from igos_pl.objective import Problem
from igos_pl.store import MaskFile, RunFolder
from igos_pl.truth import GroundTruth


def gaussian_blob(size: int) -> Tensor:
    """A mask ``(s, s)`` that takes cells from the centre outwards."""
    place = torch.linspace(-1, 1, size)
    return 1 - torch.exp(-(place[:, None].square() + place[None].square()))


def random_cells(count: int, size: int) -> Tensor:
    """Masks ``(count, s, s)`` that take cells in random order."""
    return torch.rand(count, size, size, generator=torch.Generator().manual_seed(0))


def judge(masks: Tensor, photos: Path) -> Tensor:
    """Insertion - deletion ``(R,)`` of masks ``(R, s, s)`` of the folder's R photos."""
    network = EfficientNetLite0()
    paths = find_images(photos)
    inputs = torch.stack(
        [
            torch.from_numpy(to_input(read_image(photos / path), network.input_size, "squash"))
            for path in paths
        ]
    )
    images = network.normalize(inputs)
    baselines = network.normalize(make_baselines("blur", inputs, [str(path) for path in paths], seed=63))
    targets = network.propose(images, [GroundTruth()] * len(paths)).targets
    cells = torch.full((len(paths),), masks[0].numel())
    curves = deletion_insertion_curves(
        network,
        Problem(images, baselines, targets, range(len(paths))),
        masks,
        removal_counts(cells),
        MicroBatches(10),
    )
    return area_under_curve(curves.insertion) - area_under_curve(curves.deletion)


def main() -> None:
    """Explain the photos, unless the folder has their masks already, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder of a demo run; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        output = options.output or Path(temporary)
        run_demo(output)
        copy_photos(output / "photos")
        with MaskFile(RunFolder(output).merged) as file:
            ours = torch.from_numpy(file.column("masks"))
            names = file.column("sample_id")
        rows = {
            "iGOS++": judge(ours, output / "photos"),
            "centred Gaussian blob": judge(gaussian_blob(ours.shape[-1]).expand_as(ours), output / "photos"),
            "random cells": judge(random_cells(len(ours), ours.shape[-1]), output / "photos"),
        }
    print(f"{'insertion - deletion':24}" + "".join(f"{name[:12]:>14}" for name in [*names, "mean"]))
    for name, values in rows.items():
        print(f"{name:24}" + "".join(f"{value:14.3f}" for value in [*values.tolist(), float(values.mean())]))


if __name__ == "__main__":
    main()
