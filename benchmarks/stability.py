"""How much masks change with rounding, with the seed, and with a little noise in the image.

    python benchmarks/stability.py --presets fast igospp --set mask_size=14
    python benchmarks/stability.py --photos FOLDER --limit 20

explains the demo's photos, or tuning photos of `photos.py`, and compares each preset's masks with those of
runs that differ in one thing:

rounding
    the number of threads, the size of the micro-batches, the order of tensors in memory, and the device if
    there is a GPU
seed
    other seeds
noise
    Gaussian noise on the pixels, on the photos whose prediction it does not change

For each, the table has Pearson's correlation of the masks and the largest change of a cell, as the mean and
the worst over the photos; and insertion - deletion: its mean, the change of this mean, and the largest change
for a photo.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from photos import demo_batch, read_table, squashed
from torch import Tensor

from igos_pl.data.batches import ImageBatch
from igos_pl.data.images import read_image
from igos_pl.data.targets import Targets
from igos_pl.errors import IgosError
from igos_pl.evaluation.columns import joined
from igos_pl.explainer import Explainer
from igos_pl.models import Classifier, EfficientNetLite0Classifier
from igos_pl.randomness import generator_of
from igos_pl.solver.presets import preset_names

_DEMO_PHOTOS = 8
_AT_ONCE = 8  # photos that are explained together
_SEED, _OTHER_SEEDS = 63, (64, 65)
_THREADS, _OTHER_THREADS = 1, 2
_MICRO_BATCH, _OTHER_MICRO_BATCH = 5, 3
_NOISES = (0.5, 2.0)  # standard deviations, of 255


class RowMajorClassifier(Classifier):
    """A classifier whose tensors are in memory as ``(N, C, H, W)``, not with the channels last."""

    def freeze(self) -> None:
        """See `ExplainableNetwork.freeze`."""
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.contiguous_format)

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        """See `Classifier.score`."""
        return super().score(images.contiguous(), targets)


@dataclass(frozen=True)
class Found:
    """The explanations of some photos: N rows.

    Attributes:
        masks: ``(N, s, s)``.
        quality: ``(N,)`` insertion - deletion.
        label: ``(N,)`` the predicted classes.
    """

    masks: NDArray[np.float64]
    quality: NDArray[np.float64]
    label: NDArray[np.int64]


@dataclass(frozen=True)
class Change:
    """How much the masks of some photos differ from the reference's: one value for each photo.

    Attributes:
        correlation: of the masks' cells, by Pearson.
        cell: the largest change of a cell.
        quality: insertion - deletion.
        gain: its change.
    """

    correlation: NDArray[np.float64]
    cell: NDArray[np.float64]
    quality: NDArray[np.float64]
    gain: NDArray[np.float64]


def change(reference: Found, other: Found) -> Change:
    """Compare two runs on the photos for which both explain the same class."""
    same = reference.label == other.label
    before, after = (found.masks.reshape(len(same), -1)[same] for found in (reference, other))
    quality = other.quality[same]
    return Change(
        np.array([correlation(*pair) for pair in zip(before, after, strict=True)]),
        np.abs(after - before).max(1, initial=0),
        quality,
        quality - reference.quality[same],
    )


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Pearson's correlation. A mask whose cells are all alike correlates with nothing but itself."""
    if one.std() == 0 or other.std() == 0:
        return float(np.array_equal(one, other))
    return float(np.corrcoef(one, other)[0, 1])


def pooled(changes: Sequence[Change]) -> Change:
    """Several comparisons as one."""
    names = ("correlation", "cell", "quality", "gain")
    return Change(*(np.concatenate([getattr(each, name) for each in changes]) for name in names))


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with a number of threads; a process that is started with this number computes the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def explain(network: Classifier, batches: Sequence[ImageBatch], preset: str, **settings: Any) -> Found:
    """Explain the predicted class of each photo."""
    given = {"seed": _SEED, "micro_batch_size": _MICRO_BATCH, **settings}
    explainer = Explainer.from_preset(network, preset, **given)
    columns = joined([explainer.explain_batch(batch).explanations for batch in batches])
    quality = columns["insertion"].astype(float) - columns["deletion"]
    return Found(columns["masks"].astype(float), quality, columns["label"])


def noisy(batches: Sequence[ImageBatch], sd: float) -> list[ImageBatch]:
    """The photos with Gaussian noise of a standard deviation in units of 1/255."""
    cpu = torch.device("cpu")

    def noise(batch: ImageBatch) -> Tensor:
        generators = [generator_of(cpu, "noise", str(sd), record.sample_id) for record in batch.records]
        return torch.stack([torch.randn(batch.images.shape[1:], generator=each) for each in generators])

    return [replace(batch, images=(batch.images + noise(batch) * sd / 255).clamp(0, 1)) for batch in batches]


def runs(
    network: Classifier, batches: Sequence[ImageBatch], preset: str, settings: dict[str, Any]
) -> dict[str, dict[str, Callable[[], Found]]]:
    """What is compared with the reference: for each kind, the runs by their names."""

    def run(with_network: Classifier = network, on: Sequence[ImageBatch] = batches, **changed: Any) -> Found:
        return explain(with_network, on, preset, **settings, **changed)

    def other_threads() -> Found:
        with threads(_OTHER_THREADS):
            return run()

    def run_with_noise(sd: float) -> Found:
        return run(on=noisy(batches, sd))

    rounding: dict[str, Callable[[], Found]] = {
        f"{_OTHER_THREADS} threads, not {_THREADS}": other_threads,
        f"micro-batches of {_OTHER_MICRO_BATCH}, not {_MICRO_BATCH}": lambda: run(
            micro_batch_size=_OTHER_MICRO_BATCH
        ),
        "channels first, not last": lambda: run(
            RowMajorClassifier(
                network.module, input_size=network.input_size, mean=network.mean, std=network.std
            )
        ),
    }
    if torch.cuda.is_available():
        rounding["on the GPU, not the CPU"] = lambda: on_gpu(network, batches, run)
    return {
        "rounding": rounding,
        "seed": {f"seed {seed}, not {_SEED}": partial(run, seed=seed) for seed in _OTHER_SEEDS},
        "noise": {f"noise of {sd:g}/255": partial(run_with_noise, sd) for sd in _NOISES},
    }


def on_gpu(network: Classifier, batches: Sequence[ImageBatch], run: Callable[..., Found]) -> Found:
    """Run on the GPU, and bring the network back."""
    gpu = torch.device("cuda")
    try:
        return run(network.to(gpu), [batch.to(gpu) for batch in batches])
    finally:
        network.cpu()


def row(name: str, found: Change) -> str:
    """A line of the table."""
    if not len(found.gain):
        return f"  {name:32}{0:7}"
    return (
        f"  {name:32}{len(found.gain):7}{found.correlation.mean():9.3f}{found.correlation.min():8.3f}"
        f"{found.cell.mean():9.3f}{found.cell.max():8.3f}{found.quality.mean():9.3f}"
        f"{found.gain.mean():+9.4f}{np.abs(found.gain).max():8.3f}"
    )


HEADER = (
    f"  {'':32}{'':7}{'correlation':>17}{'cell':>17}{'insertion - deletion':>26}\n"
    f"  {'differs by':32}{'pairs':>7}{'mean':>9}{'worst':>8}{'mean':>9}{'worst':>8}"
    f"{'mean':>9}{'change':>9}{'worst':>8}"
)


def compare(
    network: Classifier, batches: Sequence[ImageBatch], preset: str, settings: dict[str, Any]
) -> None:
    """Print the table of one preset, line by line."""
    reference = explain(network, batches, preset, **settings)
    changed = "".join(f", {name} {value}" for name, value in settings.items())
    print(
        f"\n{preset}{changed}: {len(reference.label)} photos, insertion - deletion"
        f" {reference.quality.mean():.3f}\n{HEADER}",
        flush=True,
    )
    for kind, others in runs(network, batches, preset, settings).items():
        changes = []
        for name, run in others.items():
            changes.append(change(reference, run()))
            print(row(name, changes[-1]), flush=True)
        if kind != "noise":
            print(row(f"{kind}, all", pooled(changes)), flush=True)


def read_batches(folder: Path | None, limit: int | None, size: tuple[int, int]) -> list[ImageBatch]:
    """The photos, with float pixels in [0, 1], so that noise is not rounded."""
    if folder is None:
        whole = demo_batch(min(limit or _DEMO_PHOTOS, _DEMO_PHOTOS), size)
    else:
        names = [photo.id for photo in read_table(folder, "tuning")][:limit]
        whole = squashed(names, [read_image(folder / f"{name}.png") for name in names], size)
    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(whole.records), _AT_ONCE)]
    return [ImageBatch(whole.images[part] / 255, whole.records[part], whole.truth[part]) for part in parts]


def setting(text: str) -> tuple[str, Any]:
    """``name=value`` of the command line."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, yaml.safe_load(value)


def main(args: Sequence[str] | None = None) -> None:
    """Print a table for each preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["fast"], choices=preset_names(), metavar="PRESET")
    parser.add_argument("--photos", type=Path, help="folder made by photos.py; the demo's photos by default")
    parser.add_argument("--limit", type=int, help="at most so many photos")
    parser.add_argument(
        "--set", nargs="+", type=setting, default=[], metavar="NAME=VALUE", help="settings of the explainer"
    )
    options = parser.parse_args(args)
    network = EfficientNetLite0Classifier()
    batches = read_batches(options.photos, options.limit, network.input_size)
    with threads(_THREADS):
        for preset in options.presets:
            compare(network, batches, preset, dict(options.set))


if __name__ == "__main__":
    try:
        main()
    except IgosError as error:
        sys.exit(str(error))
