"""How much of an explanation's time is the network's, where the rest goes, and what other settings cost.

``ratio``: the time that the bare network needs for the same passes, at its best batch size and memory format,
divided by the time of the explanation. ``breakdown``: the time of each part of the explanation.
``run``: that of each part of a whole run on the demo's photos, with loader and writer. ``precision``: time
and masks by memory format, precision and compiler. ``loader``: images per second that one process reads. CPU
times are the process's own, so that other work on the machine counts little.

    python benchmarks/throughput.py ratio --network resnet50 --iterations 2
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torchvision
from photos import demo_batch
from PIL import Image
from pytorch_lightning import Trainer
from quality import judge
from torch import Tensor, nn

from igos_pl import explainer as explainer_module
from igos_pl.callbacks import MaskWriter, OverlayWriter
from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import Frame
from igos_pl.data.images import read_image, to_input
from igos_pl.data.inputs import NetworkInput
from igos_pl.data.preprocessing import Resize
from igos_pl.data.targets import Targets
from igos_pl.datamodules import ImageFolderDataModule
from igos_pl.datamodules.samples import ImageDataset, Sample
from igos_pl.demo.run import copy_photos
from igos_pl.evaluation import columns as columns_module
from igos_pl.explainer import Explainer
from igos_pl.models import Classifier, EfficientNetLite0Classifier, ExplainableNetwork, RCNNDetector
from igos_pl.solver import objective as objective_module
from igos_pl.solver.baselines import make_baselines
from igos_pl.solver.objective import Problem
from igos_pl.solver.presets import preset_names

BATCH_SIZES = {"cpu": (1, 2, 5, 10, 16), "cuda": (16, 32, 64, 128, 256)}
FORMATS = {"channels_last": torch.channels_last, "NCHW": torch.contiguous_format}


def network_named(name: str) -> ExplainableNetwork:
    """EfficientNet-Lite0 with its packaged weights; torchvision's networks with random ones."""
    if name == "lite0":
        return EfficientNetLite0Classifier()
    torch.manual_seed(0)
    if "rcnn" in name:
        # Random weights detect nothing well: one detection with whatever score is explained.
        module = torchvision.models.get_model(name, weights=None, weights_backbone=None, box_score_thresh=0.0)
        return RCNNDetector(module, score_threshold=0.0, max_per_image=1, name=name)
    return Classifier(torchvision.models.get_model(name, weights=None), name=name)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long some work takes."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    synchronize(device)
    began = clock()
    work()
    synchronize(device)
    return clock() - began


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def score_and_gradient(network: ExplainableNetwork, images: Tensor, targets: Targets) -> None:
    """A bare forward and backward pass to the images."""
    leaf = images.detach().requires_grad_()
    torch.autograd.grad(network.score(leaf, targets).sum(), leaf)


@torch.no_grad()
def score(network: ExplainableNetwork, images: Tensor, targets: Targets) -> None:
    """A bare forward pass."""
    network.score(images, targets)


@dataclass(frozen=True)
class Setting:
    """A way to run the bare network, and how long it takes for an image."""

    batch: int
    layout: str
    seconds: float


class Bare:
    """The bare network at the best of a few batch sizes and memory formats.

    Args:
        network: in channels_last.
        images: ``(N, 3, H, W)``, normalised.
        targets: what is scored, at least one row.
    """

    def __init__(self, network: ExplainableNetwork, images: Tensor, targets: Targets) -> None:
        plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
        self.networks = {"channels_last": network, "NCHW": plain}
        self.images = images
        self.targets = targets.select(slice(1))
        self.backward = self._best(score_and_gradient)
        self.forward = self._best(score)

    def run(self, kind: Callable[..., None], setting: Setting, number: int) -> None:
        """Pass ``number`` images through the network."""
        for start in range(0, number, setting.batch):
            size = min(setting.batch, number - start)
            kind(self.networks[setting.layout], *self._input(setting.layout, size))

    def passes(self, backward: int, forward: int) -> None:
        """So many passes of either kind, each in its best setting."""
        self.run(score_and_gradient, self.backward, backward)
        self.run(score, self.forward, forward)

    def _best(self, kind: Callable[..., None]) -> Setting:
        sizes = BATCH_SIZES[self.images.device.type]
        times: dict[tuple[str, int], list[float]] = defaultdict(list)
        for _ in range(4):  # in turns, so that a slow moment of the machine meets all; the first ones warm up
            for layout in FORMATS:
                for batch in sizes:
                    work = partial(self.run, kind, Setting(batch, layout, 0.0), batch)
                    times[layout, batch].append(seconds(work, self.images.device) / batch)
        found = [Setting(batch, layout, min(took[1:])) for (layout, batch), took in times.items()]
        for setting in found:
            print(f"  {kind.__name__:20}{setting.layout:15}{setting.batch:4}{1e3 * setting.seconds:9.2f} ms")
        return min(found, key=lambda setting: setting.seconds)

    def _input(self, layout: str, size: int) -> tuple[Tensor, Targets]:
        rows = torch.zeros(size, dtype=torch.long, device=self.images.device)
        images = self.images[rows].contiguous(memory_format=FORMATS[layout])
        return images, self.targets.select(rows)


@contextmanager
def counted_passes(network: ExplainableNetwork) -> Iterator[dict[bool, int]]:
    """Counts the images that a network scores, by whether their gradient is wanted."""
    counts = {True: 0, False: 0}
    original = network.score

    def counting(images: Tensor, targets: Targets) -> Tensor:
        counts[images.requires_grad] += len(images)
        return original(images, targets)

    network.score = counting  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        del network.score  # the class's own shows again


def ratio(options: argparse.Namespace, explainer: Explainer, batch: ImageBatch) -> None:
    """Print the share of an explanation that the bare network would need for the same passes."""
    network, device = explainer.network, batch.images.device
    with counted_passes(network) as counts:
        explainer.predict_step(batch)
    images = network.normalize(batch.images)
    bare = Bare(network, images, network.propose(images, batch.truth).targets)
    print(f"passes for {len(images)} images: {counts[True]} forward+backward, {counts[False]} forward")
    whole, alone = [], []
    for _ in range(options.repeats):
        whole.append(seconds(lambda: explainer.predict_step(batch), device))
        alone.append(seconds(lambda: bare.passes(counts[True], counts[False]), device))
        print(f"  explanation {whole[-1]:8.2f} s   bare network {alone[-1]:8.2f} s")
    print(f"best bare settings: {bare.backward}, {bare.forward}")
    print(f"ratio of the best: {min(alone) / min(whole):.3f}, of the medians:", end=" ")
    print(f"{statistics.median(alone) / statistics.median(whole):.3f}")


# Where a function is looked up, its name there, and what it does.
Parts = tuple[tuple[Any, str, str], ...]

# What is timed in a breakdown, beside the network.
PARTS: Parts = (
    (explainer_module, "make_baselines", "baselines"),
    (explainer_module, "explanation_columns", "rows"),
    (explainer_module, "measured_curves", "curves: cells, upsampling, blending"),
    (explainer_module, "optimize", "path, blending, gradient of the maps"),
    (explainer_module, "search", "search: choosing, blending"),
    (columns_module, "localization_columns", "localisation"),
    (objective_module, "upsample", "upsampling"),
    (objective_module, "bilateral_total_variation", "regulariser"),
    (objective_module, "edge_weights", "edges of the images"),
    (Tensor, "normal_", "noise"),
)


class Stopwatch(ExitStack):
    """Times calls by name, without what is spent in other timed calls inside.

    At the end of a ``with`` statement, all functions are as before.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does the same, and is timed."""

        def run(*arguments: Any, **more: Any) -> Any:
            result = None

            def work() -> None:
                nonlocal result
                result = function(*arguments, **more)

            self._inside.append(0.0)
            took = seconds(work, self.device)
            self.seconds[name] += took - self._inside.pop()
            if self._inside:
                self._inside[-1] += took
            return result

        return run

    def watch(self, parts: Parts) -> None:
        """Time some functions from now on."""
        for owner, name, label in parts:
            self.enter_context(mock.patch.object(owner, name, self.timed(label, getattr(owner, name))))

    def attach(self, explainer: Explainer) -> None:
        """Time the parts of an explanation from now on."""
        network, gradient = explainer.network, torch.autograd.grad
        own = ("score", "network: forward"), ("propose", "network: targets"), ("normalize", "normalising")
        self.watch((*PARTS, *((network, name, label) for name, label in own)))

        def attributed(outputs: Any, *arguments: Any, **more: Any) -> Any:
            # The stream differentiates a score, the objective its upsampled masks and its regulariser.
            label = "network: backward" if isinstance(outputs, Tensor) else "upsampling, penalty: backward"
            return self.timed(label, gradient)(outputs, *arguments, **more)

        self.enter_context(mock.patch.object(torch.autograd, "grad", attributed))

    def report(self, images: int) -> None:
        """Print what was timed, the longest first."""
        total = sum(self.seconds.values())
        print(f"{images} images, {total:.2f} s")
        for label, took in sorted(self.seconds.items(), key=lambda part: -part[1]):
            print(f"  {label:40}{1e3 * took:10.1f} ms{100 * took / total:8.2f} %")


def breakdown(options: argparse.Namespace, explainer: Explainer, batch: ImageBatch) -> None:
    """Print how long each part of an explanation takes."""
    explainer.predict_step(batch)  # warm
    with Stopwatch(batch.images.device) as watch:
        watch.attach(explainer)
        watch.timed("everything else", explainer.predict_step)(batch)
    watch.report(len(batch.records))


# What is timed in a run.
RUN_PARTS: Parts = (
    (ImageDataset, "__getitem__", "run: decoding and scaling"),
    (MaskWriter, "on_predict_batch_end", "run: publishing"),
    (MaskWriter, "on_predict_end", "run: publishing"),
    (MaskWriter, "teardown", "run: merging"),
    (OverlayWriter, "on_predict_batch_end", "run: overlays"),
    (Explainer, "predict_step", "explaining"),
)


def run(options: argparse.Namespace, explainer: Explainer, batch: ImageBatch) -> None:
    """Print how long each part of a whole run on the demo's photos takes, with loader and writer."""
    with Stopwatch(batch.images.device) as watch, tempfile.TemporaryDirectory() as folder:
        watch.watch(RUN_PARTS)
        photos = Path(folder) / "photos"
        copy_photos(photos)
        trainer = Trainer(
            accelerator="gpu" if options.device == "cuda" else "cpu",
            devices=1,
            precision=options.precision,
            default_root_dir=folder,
            callbacks=[MaskWriter(), OverlayWriter()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        data = ImageFolderDataModule(str(photos), num_workers=0, limit=options.images)
        whole = watch.timed("run: starting and Lightning", trainer.predict)
        whole(explainer, data, return_predictions=False)
    watch.report(options.images)


class InPlanes(nn.Module):
    """A network in PyTorch's default memory format, whatever the format of its input."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of images ``(B, 3, H, W)``."""
        logits: Tensor = self.module(images.contiguous())
        return logits


def precision(options: argparse.Namespace, explainer: Explainer, batch: ImageBatch) -> None:
    """Print time and masks by memory format, precision and compiler; all masks are judged in float32."""
    network = explainer.network
    assert isinstance(network, Classifier)
    module, device = network.module, batch.images.device
    images = network.normalize(batch.images)
    names = [record.sample_id for record in batch.records]
    baselines = network.normalize(make_baselines("blur", batch.images, names, explainer.seed))
    problem = Problem(images, baselines, network.propose(images, batch.truth).targets, range(len(names)))
    first = demo_batch(1, network.input_size).to(device)
    variants: dict[str, tuple[Callable[[], Any], bool]] = {
        "float32, channels_last": (lambda: module, False),
        "float32, NCHW": (lambda: InPlanes(copy.deepcopy(module)), False),
        "bf16-mixed": (lambda: module, True),
        "float32, compiled": (lambda: torch.compile(copy.deepcopy(module), dynamic=True), False),
    }
    reference: Tensor | None = None
    print(f"{'':24}{'s per image':>12}{'insertion - deletion':>22}{'change of masks':>18}")
    for name, (make, halved) in variants.items():
        network.module = make()
        with torch.autocast(device.type, torch.bfloat16, enabled=halved):
            explainer.predict_step(first)  # warm
            found: list[Any] = []
            took = seconds(lambda: found.append(explainer.predict_step(batch)), device) / len(names)  # noqa: B023
        masks = torch.from_numpy(found[0].explanations["masks"]).to(device)
        network.module = module
        reference = masks if reference is None else reference
        quality = float(judge(network, problem, masks).mean())
        print(f"{name:24}{took:12.2f}{quality:22.4f}{float((masks - reference).abs().mean()):18.5f}")


def loader(options: argparse.Namespace, explainer: Explainer, batch: ImageBatch) -> None:
    """Print how many small JPEGs one process decodes and scales in a second."""
    network = explainer.network
    size = network.input_size
    with tempfile.TemporaryDirectory() as folder:
        copy_photos(Path(folder))
        samples = []
        for path in sorted(Path(folder).iterdir()):
            small = path.with_suffix(".small.jpg")
            read_image(path).resize((500, 375), Image.Resampling.LANCZOS).save(small, quality=90)
            samples.append(Sample(small.name, small))
        dataset = ImageDataset(samples, NetworkInput(Resize(size), size, network.mean, network.std))
        photos = [read_image(Path(sample.path)) for sample in samples]
        frame = Frame.of(*photos[0].size, size, "squash")  # all photos have one size
        cpu, times = torch.device("cpu"), 20 * options.repeats
        for name, work in (
            ("decode", lambda: [read_image(Path(sample.path)) for sample in samples]),
            (f"scale to {size[0]} x {size[1]}", lambda: [to_input(photo, frame) for photo in photos]),
            ("both, as a batch", lambda: dataset[range(len(samples))]),
        ):
            took = min(seconds(work, cpu) for _ in range(times)) / len(samples)
            print(f"  {name:20}{1e3 * took:8.2f} ms per image{1 / took:8.0f} images/s per core")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["ratio", "breakdown", "run", "precision", "loader"])
    parser.add_argument("--network", default="lite0", help="lite0, or torchvision's name")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--preset", choices=preset_names(), default="igospp", help="the explainer's settings")
    parser.add_argument("--iterations", type=int, help="instead of the preset's")
    parser.add_argument("--noise", type=float, help="likewise")
    parser.add_argument("--micro_batch", type=int, help="perturbed images at once; the device's default")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    changed = {"iterations": options.iterations, "noise": options.noise}
    changed = {name: value for name, value in changed.items() if value is not None}
    network = network_named(options.network).to(device)
    network.freeze()  # as an explanation does; a network in training mode would take longer
    explainer = Explainer.from_preset(
        network, options.preset, **changed, micro_batch_size=options.micro_batch
    )
    batch = demo_batch(options.images, network.input_size).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16-mixed"):
        work = {"ratio": ratio, "breakdown": breakdown, "precision": precision, "loader": loader, "run": run}
        work[options.what](options, explainer, batch)


if __name__ == "__main__":
    main()
