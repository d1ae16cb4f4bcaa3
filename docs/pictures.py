"""Draws the pictures of the documentation: ``python docs/pictures.py [NAME ...]`` or ``make pictures``.

Every picture is made from the demos' photos and generated pictures with the packaged networks, so everything
that is shown was measured. The demos' runs are made in ``runs/`` if they are missing. All pictures take about
ten minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from igos_pl import EfficientNetLite0Classifier, Explanations, MaskFile, RCNNDetector, Start, explain
from igos_pl.data.explanation import Explanation
from igos_pl.data.geometry import upsample
from igos_pl.data.targets import class_targets
from igos_pl.demo.run import CHECKPOINTS, SHAPES_INPUT, SHAPES_THRESHOLD, run_demo
from igos_pl.demo.shapes_detectors import CATEGORIES, shapes_mask_rcnn
from igos_pl.evaluation.deletion_insertion import (
    area_under_curve,
    deletion_insertion_curves,
    removal_counts,
)
from igos_pl.solver.baselines import BASELINES, make_baselines
from igos_pl.solver.integration_paths import scaled, threshold
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Problem
from igos_pl.solver.order import ranks

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"

PHOTO, LINES = "webp", "png"
SHARE = 0.2  # of the cells, where a picture shows or hides the most important ones
COLORS = colormaps["inferno"]
DELETION, INSERTION = COLORS(0.35), COLORS(0.72)

Pixels = NDArray[np.float32]  # (H, W, 3) in [0, 1]


@cache
def network() -> EfficientNetLite0Classifier:
    """The demo's network, frozen."""
    made = EfficientNetLite0Classifier()
    made.freeze()
    return made


@cache
def run(detector: bool = False) -> Path:
    """The folder of a demo's run; the run is made, or completed, if it has to be."""
    folder = ROOT / "runs" / ("demo-detector" if detector else "demo")
    if not (folder / "masks.h5").exists():
        run_demo(folder, detector)
    return folder


def explanations(detector: bool = False) -> list[Explanation]:
    """The demo's explanations."""
    with MaskFile(run(detector)) as file:
        return list(file)


def explained(name: str) -> Explanation:
    """The demo's explanation of a photo."""
    return next(row for row in explanations() if row.sample_id.startswith(name))


@cache
def squashed(path: str) -> Tensor:
    """A photo as the network gets it: ``(1, 3, 224, 224)`` uint8."""
    height, width = network().input_size
    photo = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None]


def baseline_of(images: Tensor, kind: str = "blur") -> Tensor:
    """The baseline of one image, ``(1, 3, H, W)`` uint8."""
    return make_baselines(kind, images, ["photo"], seed=63)


def blended(images: Tensor, baselines: Tensor, coverage: Tensor) -> Tensor:
    """The image where the coverage ``(H, W)`` is 1 and the baseline where it is 0: ``(1, 3, H, W)`` uint8."""
    return torch.lerp(baselines.float(), images.float(), coverage).round().to(torch.uint8)


@torch.no_grad()
def score(images: Tensor, label: int) -> float:
    """The score of a class on an image ``(1, 3, H, W)`` uint8."""
    targets = class_targets(torch.tensor([0]), torch.tensor([label]), torch.tensor([0.0]))
    return float(network().score(network().normalize(images), targets))


def pixels(images: Tensor, aspect: float = 1.0) -> Pixels:
    """An image ``(1, 3, H, W)`` uint8 to draw, with its original aspect ratio width / height."""
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    height = picture.height
    return np.asarray(picture.resize((round(height * aspect), height)), np.float32) / 255


def heat(photo: Pixels, saliency: NDArray[np.float32], opacity: float = 0.65) -> Pixels:
    """Saliency ``(s, s)`` over a photo. The colours span the saliency's range, but at least 0.1."""
    height, width = photo.shape[:2]
    grid = upsample(torch.from_numpy(saliency)[None, None], (height, width))[0, 0].numpy()
    low = float(grid.min())
    colors = COLORS((grid - low) / max(float(grid.max()) - low, 0.1))[..., :3]
    return np.asarray((1 - opacity) * photo + opacity * colors, np.float32)


def grid(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure with axes for pictures; width and height in inches for each of them."""
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr]
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def show(axes: Axes, picture: Pixels, title: str = "", size: float = 9) -> None:
    """A picture without axes."""
    axes.imshow(picture, aspect="equal")
    axes.set_title(title, fontsize=size, pad=3)
    axes.set_anchor("N")
    axes.set_axis_off()


def save(figure: Figure, name: str, kind: str = PHOTO, dpi: int = 110) -> None:
    """Write a picture."""
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"{name}.{kind}"
    options = {"quality": 82} if kind == PHOTO else None
    figure.savefig(path, dpi=dpi, bbox_inches="tight", pad_inches=0.03, pil_kwargs=options)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} kB")


def cells_shown(row: Explanation, share: float, size: tuple[int, int]) -> Tensor:
    """Coverage ``(H, W)`` that shows the most important share of the cells."""
    place = ranks(torch.from_numpy(row.mask)[None])
    shown = (place < round(share * place.numel())).float()
    return upsample(shown[None], size)[0, 0]


def hero() -> None:
    """Photos, their saliency, and what the network says of the most important fifth and of the rest."""
    names = ("coffee", "chelsea", "motorcycle", "china")
    figure, axes = grid(4, len(names), 2.6, 1.98)
    for column, name in zip(axes.T, names, strict=True):
        row = explained(name)
        images = squashed(row.image["path"])
        baselines, aspect = baseline_of(images), row.image["width"] / row.image["height"]
        inside = cells_shown(row, SHARE, network().input_size)
        alone, rest = (blended(images, baselines, part) for part in (inside, 1 - inside))
        show(column[0], pixels(images, aspect), f"{row.label_name}: {row.score:.2f}", 11)
        show(column[1], heat(pixels(images, aspect), row.saliency), "saliency", 11)
        show(column[2], pixels(alone, aspect), f"this fifth alone: {score(alone, row.label):.2f}", 11)
        show(column[3], pixels(rest, aspect), f"without it: {score(rest, row.label):.2f}", 11)
    save(figure, "hero", dpi=100)


def curves() -> None:
    """What deletion and insertion show the network, and both curves with their areas."""
    row = explained("coffee")
    images = squashed(row.image["path"])
    baselines, aspect = baseline_of(images), row.image["width"] / row.image["height"]
    fractions = (0.0, 0.1, 0.2, 0.5, 1.0)
    figure = Figure(figsize=(11, 3.1), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(1.9, 1))
    for number, (kind, line) in enumerate(zip(("deletion", "insertion"), left.subplots(2, 5), strict=True)):
        for axes, fraction in zip(line, fractions, strict=True):
            inside = cells_shown(row, fraction, network().input_size)
            picture = blended(images, baselines, 1 - inside if number == 0 else inside)
            said = score(picture, row.label)
            show(axes, pixels(picture, aspect), f"{kind} {fraction:.0%}\nscore {said:.2f}")
    panel = right.subplots()
    for name, color in (("deletion", DELETION), ("insertion", INSERTION)):
        curve = getattr(row, f"{name}_curve")
        places = np.linspace(0, 1, len(curve))
        panel.plot(places, curve, color=color, label=f"{name}: area {getattr(row, name):.2f}")
        panel.fill_between(places, curve, color=color, alpha=0.15)
    panel.set(xlim=(0, 1), ylim=(0, 1), xlabel="share of the cells, most important first", ylabel="score")
    panel.legend(loc="center right")
    save(figure, "curves")


def baselines() -> None:
    """The baselines of a photo, and the network's score of them."""
    row = explained("coffee")
    images, aspect = squashed(row.image["path"]), row.image["width"] / row.image["height"]
    figure, axes = grid(1, 1 + len(BASELINES), 2.1, 1.75)
    show(axes[0, 0], pixels(images, aspect), f"image: {row.score:.2f}")
    for panel, kind in zip(axes[0, 1:], BASELINES, strict=True):
        picture = baseline_of(images, kind)
        show(panel, pixels(picture, aspect), f"{kind}: {score(picture, row.label):.2f}")
    save(figure, "baselines")


def _coverage(path: Callable[..., Any], row: Explanation, steps: int) -> Tensor:
    """Coverage ``(K, H, W)`` of an explanation's mask along a path, its positions evenly spaced."""
    mask = torch.from_numpy(row.mask)
    found = path(mask.reshape(1, 1, -1), torch.ones(1), 0, steps)
    maps = upsample(mask[None, None], network().input_size)[0].expand(steps, -1, -1)
    return found.flat(torch.arange(steps)).cover(maps)[0]


def paths() -> None:
    """What the two paths show the network for one mask."""
    row, steps = explained("coffee"), 5
    images = squashed(row.image["path"])
    end, aspect = baseline_of(images), row.image["width"] / row.image["height"]
    figure, axes = grid(2, steps, 2.1, 1.8)
    for line, (name, path) in zip(axes, {"scaled": scaled, "threshold": threshold}.items(), strict=True):
        covers = _coverage(path, row, steps)
        # The scaled path begins at the baseline, the threshold path at the image: both from most to least.
        for axes_, cover in zip(line, covers.flip(0) if path is scaled else covers, strict=True):
            picture = blended(images, end, cover)
            show(axes_, pixels(picture, aspect), f"{name}: score {score(picture, row.label):.2f}")
    save(figure, "paths")


def coverage() -> None:
    """Coverage as a function of a cell's value, on both paths, and where the cells of a mask lie."""
    row, steps = explained("coffee"), 5
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    values = torch.linspace(0, 1, 201)
    mask = torch.from_numpy(row.mask).reshape(1, 1, -1)
    for axes, (name, path) in zip(
        figure.subplots(1, 2, sharey=True), {"scaled": scaled, "threshold": threshold}.items(), strict=True
    ):
        found = path(mask, torch.ones(1), 0, steps)
        for place in range(steps):
            cover = found.flat(torch.tensor([place])).cover(values[None, None])[0].flatten()
            axes.plot(values, cover, color=COLORS(0.15 + 0.15 * place), label=f"position {place + 1}")
        twin = axes.twinx()
        twin.hist(row.mask.flatten(), bins=40, range=(0, 1), color="grey", alpha=0.3)
        twin.set_yticks([])
        axes.set(title=f"path: {name}", xlabel="value m of a cell (grey: how many cells have it)")
        axes.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    figure.axes[0].set_ylabel("coverage: share of the image shown")
    figure.axes[0].legend(fontsize=8)
    save(figure, "coverage", LINES)


def positions() -> None:
    """Where the threshold path is sampled in twenty iterations of two positions."""
    iterations, steps = 20, 2
    cells = torch.linspace(0, 1, 1001).reshape(1, 1, -1)  # so that the quantile a is a itself
    figure = Figure(figsize=(9, 1.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for iteration in range(iterations):
        found = threshold(cells, torch.ones(1), iteration, steps)
        quantile = (0.5 - found.shift) / found.slope
        axes.plot(quantile.flatten(), [iteration + 1] * steps, "o", color=DELETION, markersize=4)
        axes.plot(quantile.flatten(), [0] * steps, "|", color=DELETION, markersize=9)
    axes.set(xlim=(0, 1), ylim=(iterations + 1, -1), xlabel="position a on the path", ylabel="iteration")
    save(figure, "positions", LINES)


def averaging() -> None:
    """The last mask of an optimisation and the mean over the iterations, and their quality."""
    figure, axes = grid(2, 4, 2.4, 1.95)
    for line, name in zip(axes, ("coffee", "chelsea"), strict=True):
        row = explained(name)
        path = row.image["path"]
        photo = pixels(squashed(path), row.image["width"] / row.image["height"])
        show(line[0], photo, f"{row.label_name}: {row.score:.2f}")
        last = explain(network(), path, average=False)[0]
        for column, (title, found) in enumerate({"last mask": last, "mean": row}.items(), 1):
            bound = float(((found.mask == 0) | (found.mask == 1)).mean())
            quality = found.insertion - found.deletion
            show(line[column], heat(photo, found.saliency), f"{title}: ins - del {quality:.2f}")
            line[column].text(
                0.02, 0.03, f"{bound:.0%} of the cells at 0 or 1", color="white", fontsize=8,
                transform=line[column].transAxes,
            )  # fmt: skip
        for found, label, color in ((last, "last mask", "grey"), (row, "mean", INSERTION)):
            line[3].plot(np.sort(found.mask.flatten()), color=color, label=label)
        line[3].set_title("its cells, sorted", fontsize=9, pad=3)
        line[3].tick_params(labelsize=7)
        line[3].legend(fontsize=7)
    save(figure, "averaging")


def _judged(masks: Tensor, rows: Sequence[Explanation], kind: str) -> Tensor:
    """Insertion - deletion ``(R,)`` of masks ``(R, s, s)`` under a baseline."""
    images = torch.cat([squashed(row.image["path"]) for row in rows])
    made = make_baselines(kind, images, [row.sample_id for row in rows], seed=63)
    labels = torch.tensor([row.label for row in rows])
    targets = class_targets(torch.arange(len(rows)), labels, torch.zeros(len(rows)))
    problem = Problem(network().normalize(images), network().normalize(made), targets, keys=range(len(rows)))
    counts = removal_counts(torch.full((len(rows),), masks[0].numel()))
    found = deletion_insertion_curves(network(), problem, masks, counts, MicroBatches(5))
    return area_under_curve(found.insertion) - area_under_curve(found.deletion)


def judges() -> None:
    """The same masks under four baselines: of two presets, a centred blob, and random cells."""
    rows = explanations()
    place = torch.linspace(-1, 1, 28)
    blob = (1 - torch.exp(-(place[:, None].square() + place[None].square()))).expand(len(rows), -1, -1)
    noise = torch.rand(len(rows), 28, 28, generator=torch.Generator().manual_seed(0))
    other = explain(network(), [row.image["path"] for row in rows], preset="igospp", metrics=False)
    masks = {
        "fast": torch.from_numpy(np.stack([row.mask for row in rows])),
        "igospp": torch.from_numpy(other.masks),
        "centred blob": blob,
        "random cells": noise,
    }
    figure = Figure(figsize=(8.5, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (name, found) in enumerate(masks.items()):
        means = [float(_judged(found, rows, kind).mean()) for kind in BASELINES]
        print(f"{name:14}", *(f"{kind} {mean:.3f}" for kind, mean in zip(BASELINES, means, strict=True)))
        bars = axes.bar(
            np.arange(4) + 0.2 * number, means, 0.19, color=COLORS(0.25 + 0.2 * number), label=name
        )
        axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=1)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(ylabel="insertion - deletion", ylim=(None, 1))
    axes.set_xticks(np.arange(4) + 0.3, [f"judged with {kind}" for kind in BASELINES])
    axes.legend(ncol=4, fontsize=8, loc="upper left")
    save(figure, "judges", LINES)


def gallery_photos() -> None:
    """All photos of the demo with their saliency."""
    rows = explanations()
    figure, axes = grid(4, 4, 2.3, 1.95)
    for number, row in enumerate(rows):
        photo = pixels(squashed(row.image["path"]), row.image["width"] / row.image["height"])
        line, column = number // 4 * 2, number % 4
        show(axes[line, column], photo, f"{row.label_name}: {row.score:.2f}")
        quality = f"deletion {row.deletion:.2f}, insertion {row.insertion:.2f}"
        show(axes[line + 1, column], heat(photo, row.saliency), quality, 8)
    save(figure, "gallery-photos")


def _beside(name: str, settings: dict[str, dict[str, Any]], rows: Sequence[str]) -> None:
    """Photos explained with several settings, side by side; without settings, the demo's explanation."""
    figure, axes = grid(len(rows), 1 + len(settings), 2.2, 1.85)
    for line, photo_name in zip(axes, rows, strict=True):
        row = explained(photo_name)
        photo = pixels(squashed(row.image["path"]), row.image["width"] / row.image["height"])
        show(line[0], photo, f"{row.label_name}: {row.score:.2f}")
        for panel, (title, options) in zip(line[1:], settings.items(), strict=True):
            found = explain(network(), row.image["path"], **options)[0] if options else row
            quality = found.insertion - found.deletion
            show(panel, heat(photo, found.saliency), f"{title}: ins - del {quality:.2f}", 8)
    save(figure, name)


def gallery_presets() -> None:
    """Photos explained by several presets."""
    settings = {
        "fast": {},
        "igospp": {"preset": "igospp"},
        "I-GOS": {"preset": "igospp", "method": "igos", "iterations": 20},
    }
    _beside("gallery-presets", settings, ("coffee", "chelsea", "motorcycle"))


def gallery_sizes() -> None:
    """Masks of several sizes."""
    settings: dict[str, dict[str, Any]] = {f"{s} x {s}": {"mask_size": s} for s in (7, 14, 28, 56)}
    settings["28 x 28"] = {}  # as in the demo
    _beside("gallery-sizes", settings, ("coffee", "motorcycle"))


def gallery_classes() -> None:
    """The three best classes of a photo, each with its own explanation."""
    path = explained("motorcycle").image["path"]
    found = explain(EfficientNetLite0Classifier(top_k=3), path)
    figure, axes = grid(1, 4, 2.5, 1.9)
    photo = pixels(squashed(path), found[0].image["width"] / found[0].image["height"])
    show(axes[0, 0], photo)
    for panel, row in zip(axes[0, 1:], found, strict=True):
        show(panel, heat(photo, row.saliency), f"{row.label_name}: {row.score:.2f}")
    save(figure, "gallery-classes")


def _detection(axes: Axes, row: Explanation, saliency: bool, title: str) -> None:
    """A detection with its box."""
    photo = np.asarray(Image.open(row.image["path"]).convert("RGB"), np.float32) / 255
    show(axes, heat(photo, row.saliency) if saliency else photo, title, 8)
    x1, y1, x2, y2 = row.box
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="cyan", linewidth=1.5))


def gallery_detections() -> None:
    """Detections of the small Mask R-CNN."""
    rows = sorted(explanations(detector=True), key=lambda row: -row.score)
    chosen = [row for row in rows if row.score > 0.9][::4][:6]
    figure, axes = grid(2, len(chosen), 1.75, 1.95)
    for column, row in zip(axes.T, chosen, strict=True):
        _detection(column[0], row, False, f"{row.label_name}: {row.score:.2f}")
        _detection(column[1], row, True, f"ins - del {row.insertion - row.deletion:.2f}")
    save(figure, "gallery-detections")


def gallery_starts() -> None:
    """One detection, explained from the four cells of a 2 x 2 grid over its box."""
    detector = RCNNDetector(
        shapes_mask_rcnn(),
        weights=str(CHECKPOINTS / "shapes_maskrcnn.pth"),
        class_names=list(CATEGORIES),
        input_size=SHAPES_INPUT,
        score_threshold=SHAPES_THRESHOLD,
    )
    rows = sorted(explanations(detector=True), key=lambda row: -float(np.prod(row.box[2:] - row.box[:2])))
    path = rows[0].image["path"]
    start = Start(k=2, init_val=0.2)
    found: Explanations = explain(detector, path, targets=rows[0].box[None], start=start)
    figure, axes = grid(1, 1 + len(found), 1.9, 2.1)
    _detection(axes[0, 0], rows[0], False, f"{rows[0].label_name}: {rows[0].score:.2f}")
    for panel, row in zip(axes[0, 1:], found, strict=True):
        quality = row.insertion - row.deletion
        _detection(panel, row, True, f"start in cell {row.start_cell}: ins - del {quality:.2f}")
    save(figure, "gallery-starts")


DRAWN = {
    "hero": hero,
    "curves": curves,
    "baselines": baselines,
    "paths": paths,
    "coverage": coverage,
    "positions": positions,
    "averaging": averaging,
    "judges": judges,
    "gallery-photos": gallery_photos,
    "gallery-presets": gallery_presets,
    "gallery-sizes": gallery_sizes,
    "gallery-classes": gallery_classes,
    "gallery-detections": gallery_detections,
    "gallery-starts": gallery_starts,
}


def main() -> None:
    """Draw the named pictures, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DRAWN)}; all by default")
    for name in parser.parse_args().names or DRAWN:
        DRAWN[name]()


if __name__ == "__main__":
    main()
