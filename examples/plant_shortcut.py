r"""Plant a shortcut in a set of pictures, train a network on it, and let the findings name it.

    python examples/plant_shortcut.py              # a mark in the bottom right corner of one class
    python examples/plant_shortcut.py --no-mark    # the control

The pictures are generated: one shape each, which is the class, on a textured ground. A small network is
trained, the held-out pictures are explained with `Trainer.predict`, and the findings are printed.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pytorch_lightning import Trainer
from torch import Tensor, nn

from igos_pl import Classifier, Explainer, ImageFolderDataModule, MaskFile
from igos_pl.findings import Findings, find

CLASSES = ["disc", "square", "star", "triangle"]
MARKED = "star"
_MARK = 7  # side of the mark in pixels
_BATCH = 32


def draw(name: str, size: int, mark: bool, random: np.random.Generator) -> Image.Image:
    """Draw a picture of ``size x size`` pixels with one shape, and the mark if wanted."""
    coarse = random.integers(40, 216, (int(random.integers(2, 7)),) * 2 + (3,), np.uint8)
    canvas = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(random.integers(2, 6))):  # clutter
        x, y = random.uniform(0, size, 2)
        pen.line((x, y, *(random.normal((x, y), size / 8))), fill=_colour(random), width=1)
    pen.polygon(_outline(name, size, random), fill=_colour(random), outline=_colour(random))
    if mark:
        _draw_mark(pen, size)
    noisy = np.asarray(canvas) + random.normal(0, 6, (size, size, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = random.integers(0, 256, 3).tolist()
    return red, green, blue


def _outline(name: str, size: int, random: np.random.Generator) -> list[tuple[float, float]]:
    """The corners of a shape of random size, angle and place."""
    points = {"disc": 30, "square": 4, "star": 10, "triangle": 3}[name]
    radius = np.full(points, random.uniform(0.18, 0.3) * size)
    if name == "star":
        radius[1::2] *= 0.45
    angles = random.uniform(0, 2 * math.pi) + np.arange(points) * 2 * math.pi / points
    x, y = random.uniform(0.3, 0.7, 2) * size
    return list(zip(x + radius * np.cos(angles), y + radius * np.sin(angles), strict=True))


def _draw_mark(pen: ImageDraw.ImageDraw, size: int) -> None:
    """A small logo in the bottom right corner: a white tile with a dark ring."""
    start, end = size - _MARK - 1, size - 2
    pen.rectangle((start, start, end, end), fill="white")
    pen.ellipse((start + 1, start + 1, end - 1, end - 1), outline=(30, 30, 90), width=1)


def write_set(folder: Path, images: int, size: int, mark: bool, seed: int) -> None:
    """Write pictures of each class to ``folder/CLASS/NUMBER.png``; stars have the mark if it is wanted."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(images):
            random = np.random.default_rng([seed, label, number])
            draw(name, size, mark and name == MARKED, random).save(folder / name / f"{number:04}.png")


def read_set(folder: Path) -> tuple[Tensor, Tensor]:
    """The pictures ``(N, 3, size, size)`` in [-1, 1], and their labels ``(N,)``."""
    pixels: list[NDArray[np.uint8]] = []
    labels = []
    for label, name in enumerate(CLASSES):
        for path in sorted((folder / name).iterdir()):
            with Image.open(path) as opened:
                pixels.append(np.asarray(opened))
            labels.append(label)
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
    return images / 127.5 - 1, torch.tensor(labels)


def small_network() -> nn.Sequential:
    """Four convolutions, the mean over all places, and a linear layer."""
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 16, 1), (16, 32, 2), (32, 48, 2), (48, 64, 1)):
        convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(CLASSES)))


def train(images: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Sequential:
    """A network trained with AdamW on pictures that are flipped upside down now and then."""
    torch.manual_seed(seed)
    module, random = small_network(), np.random.default_rng(seed)
    steps = epochs * math.ceil(len(images) / _BATCH)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.from_numpy(random.permutation(len(images))).split(_BATCH):
            loss = nn.functional.cross_entropy(module(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return module.eval()


@torch.no_grad()
def accuracy(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of right predictions."""
    return float((module(images).argmax(1) == labels).float().mean())


def explain_set(module: nn.Module, pictures: Path, output: Path, size: int, mask_size: int) -> Path:
    """Explain the pictures of a folder; returns the result."""
    network = Classifier(
        module, class_names=CLASSES, input_size=size, mean=[0.5] * 3, std=[0.5] * 3, targets="predicted"
    )
    explainer = Explainer(network, mask_size=mask_size, metrics=False)
    data = ImageFolderDataModule(str(pictures), labels="folders", batch_size=64, num_workers=0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(default_root_dir=output, accelerator="cpu", devices=1, **quiet)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        trainer.predict(explainer, data, return_predictions=False)
    return output / "masks.h5"


def run(
    folder: Path,
    mark: bool = True,
    training: int = 300,
    held_out: int = 60,
    size: int = 48,
    mask_size: int = 16,
    epochs: int = 12,
    seed: int = 0,
) -> Findings:
    """Make the pictures, train, explain the held-out ones, and look for findings.

    Args:
        folder: for the pictures and the result.
        mark: whether the pictures of the class `MARKED` have the mark.
        training: pictures of each class.
        held_out: pictures of each class that are explained.
        size: of the pictures, in pixels.
        mask_size: cells along the side of a mask.
        epochs: of the training.
        seed: of everything.
    """
    write_set(folder / "train", training, size, mark, seed)
    write_set(folder / "val", held_out, size, mark, seed + 1)
    began = time.perf_counter()
    module = train(*read_set(folder / "train"), epochs, seed)
    seconds = time.perf_counter() - began
    print(f"{training * len(CLASSES)} pictures, {epochs} epochs, {seconds:.0f} s of training")
    write_set(folder / "unmarked", held_out, size, False, seed + 1)
    for words, name in (("held-out pictures", "val"), ("the same pictures without the mark", "unmarked")):
        images, labels = read_set(folder / name)
        stars = labels == CLASSES.index(MARKED)
        right = accuracy(module, images, labels), accuracy(module, images[stars], labels[stars])
        print(f"{words}: accuracy {right[0]:.2f}, for {MARKED} {right[1]:.2f}")
    began = time.perf_counter()
    result = explain_set(module, folder / "val", folder / "run", size, mask_size)
    print(f"{held_out * len(CLASSES)} explanations in {time.perf_counter() - began:.0f} s: {result}\n")
    with MaskFile(result) as masks:
        return find(masks, seed)


def describe(findings: Findings) -> None:
    """Print what was found."""
    for finding in findings.findings:
        print(f"{finding.title}\n  {finding.certainty}\n  {finding.meaning}")
    if not findings.findings:
        print("No class looks at a place that the others do not look at.")
    for cluster in findings.clusters:
        row, column = np.unravel_index(cluster.mean_mask.argmax(), cluster.mean_mask.shape)
        print(f"cluster of {cluster.size} masks of {cluster.class_name}: most saliency at {row}, {column}")
    print(*findings.notes, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-mark", action="store_true", help="plant nothing")
    parser.add_argument("--output", type=Path, help="keep pictures and results in this new folder")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        describe(run(args.output or Path(temporary), not args.no_mark, seed=args.seed))


if __name__ == "__main__":
    main()
