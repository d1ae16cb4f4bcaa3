r"""Train the small shapes detectors on generated pictures; half an hour on one CPU core.

The checkpoints in igos_pl/demo/checkpoints and tests/checkpoints came from these commands, in this order:

    train=examples/train_shapes_detectors.py
    python $train --model maskrcnn --output first
    python $train --model retinanet --epochs 4 --init first/shapes_maskrcnn.pth \
        --output tests/checkpoints
    python $train --model maskrcnn --epochs 4 --lr 6e-4 --seed 1 \
        --init first/shapes_maskrcnn.pth
    python $train --model fasterrcnn --epochs 1 --lr 2e-4 --seed 1 --images 1600 \
        --init igos_pl/demo/checkpoints/shapes_maskrcnn.pth --output tests/checkpoints

Writes shapes_<model>.pth, a dict of `model` (the state dict) and `log` (figures), and the
log with its epochs as shapes_<model>.log.json beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from igos_pl.demo.shapes import CATEGORY_IDS, write_shapes_dataset
from igos_pl.demo.shapes_detectors import (
    CATEGORIES,
    shapes_faster_rcnn,
    shapes_mask_rcnn,
    shapes_retinanet,
)

Sample = tuple[Tensor, dict[str, Tensor]]

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "maskrcnn": shapes_mask_rcnn,
    "fasterrcnn": shapes_faster_rcnn,
    "retinanet": shapes_retinanet,
}
LABELS = {CATEGORY_IDS[name]: label for label, name in enumerate(CATEGORIES) if label > 0}
IDS = {label: number for number, label in LABELS.items()}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--model", choices=sorted(BUILDERS), default="maskrcnn")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=2400, help="training pictures")
    parser.add_argument("--val-images", type=int, default=200, help="held-out pictures")
    parser.add_argument("--seed", type=int, default=0, help="the held-out set has seed + 10000")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--init", type=Path, help="checkpoint whose shared weights to start from")
    parser.add_argument("--output", type=Path, default=Path("igos_pl/demo/checkpoints"))
    return parser.parse_args()


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the line breaks of the description and show default values."""


def generate(folder: Path, images: int, seed: int) -> tuple[COCO, list[Sample]]:
    """Write a set and read it back: (3, H, W) uint8 pictures with torchvision's targets."""
    path = write_shapes_dataset(folder, images, seed)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    samples: list[Sample] = []
    for image_id in coco.getImgIds():
        file_name = coco.loadImgs(image_id)[0]["file_name"]
        with Image.open(folder / "images" / file_name) as opened:
            picture = torch.from_numpy(np.array(opened)).permute(2, 0, 1).contiguous()
        objects = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        boxes = torch.tensor([item["bbox"] for item in objects])
        boxes[:, 2:] += boxes[:, :2]
        target = {
            "image_id": torch.tensor(image_id),
            "boxes": boxes,
            "labels": torch.tensor([LABELS[item["category_id"]] for item in objects]),
            "masks": torch.from_numpy(np.stack([coco.annToMask(item) for item in objects])),
        }
        samples.append((picture, target))
    return coco, samples


def augment(sample: Sample, wide: bool, rng: np.random.Generator) -> Sample:
    """Flip, turn and recolour a sample at random; `wide` tells the wanted orientation."""
    picture, target = sample
    image = picture[torch.from_numpy(rng.permutation(3))].float() / 255
    image = (image * float(rng.uniform(0.8, 1.2))).clamp(0, 1)
    boxes, masks = target["boxes"].clone(), target["masks"]
    if (image.shape[-1] > image.shape[-2]) != wide:
        image, masks = image.transpose(-1, -2), masks.transpose(-1, -2)
        boxes = boxes[:, [1, 0, 3, 2]]
    for axis in (0, 1):
        if rng.random() < 0.5:
            size = image.shape[-1 - axis]
            image, masks = image.flip(-1 - axis), masks.flip(-1 - axis)
            boxes[:, [axis, axis + 2]] = size - boxes[:, [axis + 2, axis]]
    return image, {"boxes": boxes, "labels": target["labels"], "masks": masks}


def batches(
    samples: list[Sample], size: int, rng: np.random.Generator
) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
    """Yield one epoch of shuffled batches, each of one orientation to save padding."""
    order = rng.permutation(len(samples))
    for start in range(0, len(order) - size + 1, size):
        wide = bool(rng.random() < 0.5)
        chosen = [augment(samples[i], wide, rng) for i in order[start : start + size]]
        yield [image for image, _ in chosen], [target for _, target in chosen]


def train(model: nn.Module, samples: list[Sample], args: argparse.Namespace) -> list[float]:
    """Train `model` in place; return the mean loss of every epoch."""
    rng = np.random.default_rng(args.seed)
    model.train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=1e-2)
    steps: int = args.epochs * (len(samples) // args.batch_size)
    warm_up = min(150, steps // 10 + 1)

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        share = (step - warm_up) / max(steps - warm_up, 1)
        return 0.01 + 0.495 * (1 + math.cos(math.pi * share))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    history: list[float] = []
    for epoch in range(args.epochs):
        start, values = time.perf_counter(), []
        for images, targets in batches(samples, args.batch_size, rng):
            loss = torch.stack(list(model(images, targets).values())).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()
            schedule.step()
            values.append(loss.item())
        history.append(round(float(np.mean(values)), 4))
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: loss {history[-1]:.4f}, {seconds:.0f} s", flush=True)
    return history


@torch.no_grad()
def evaluate(model: nn.Module, coco: COCO, samples: list[Sample]) -> dict[str, float]:
    """Return COCO's AP50 and AP of boxes (and masks, if found) and seconds an image."""
    model.eval()
    results: list[dict[str, Any]] = []
    seconds = 0.0
    for picture, target in samples:
        image = picture.float() / 255
        start = time.perf_counter()
        found = model([image])[0]
        seconds += time.perf_counter() - start
        for index in range(len(found["boxes"])):
            left, top, right, bottom = found["boxes"][index].tolist()
            result: dict[str, Any] = {
                "image_id": int(target["image_id"]),
                "category_id": IDS[int(found["labels"][index])],
                "bbox": [left, top, right - left, bottom - top],
                "score": float(found["scores"][index]),
            }
            if "masks" in found:
                mask = (found["masks"][index, 0] > 0.5).numpy().astype(np.uint8)
                result["segmentation"] = coco_mask.encode(np.asfortranarray(mask))
            results.append(result)
    figures = {"seconds_per_image": round(seconds / len(samples), 4)}
    if not results:
        return figures | {"ap50_box": 0.0}
    kinds = {"box": "bbox", "mask": "segm"}
    if "segmentation" not in results[0]:
        del kinds["mask"]
    with contextlib.redirect_stdout(io.StringIO()):
        answers = coco.loadRes(results)
        for name, kind in kinds.items():
            scored = COCOeval(coco, answers, kind)
            scored.evaluate()
            scored.accumulate()
            scored.summarize()
            figures[f"ap50_{name}"] = round(float(scored.stats[1]), 4)
            figures[f"ap_{name}"] = round(float(scored.stats[0]), 4)
    return figures


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    build = BUILDERS[args.model]
    # Batch statistics while training; the packaged model has the same ones frozen.
    model = build(norm=nn.BatchNorm2d)
    first: dict[str, Any] = {}
    if args.init:
        first = torch.load(args.init, weights_only=True)
        weights = first["model"]
        own = model.state_dict()
        shared = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
        model.load_state_dict(shared, strict=False)
        print(f"{len(shared)} of {len(own)} tensors from {args.init}")
    with tempfile.TemporaryDirectory() as folder:
        _, samples = generate(Path(folder) / "train", args.images, args.seed)
        coco, held_out = generate(Path(folder) / "val", args.val_images, args.seed + 10_000)
    print(f"{len(samples)} training pictures, {len(held_out)} held out", flush=True)

    start = time.perf_counter()
    losses = train(model, samples, args)
    seconds = time.perf_counter() - start
    final = build()
    final.load_state_dict(model.state_dict())
    log: dict[str, Any] = {
        **evaluate(final, coco, held_out),
        "model": args.model,
        "init": args.init.name if args.init else "random",
        "training_images": args.images,
        "held_out_images": args.val_images,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "lr": args.lr,
        "seed": args.seed,
        "seconds": round(seconds, 1),
        "losses": losses,
    }
    if first:
        log["init_log"] = first["log"]
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"shapes_{args.model}.pth"
    state = {name: value.contiguous() for name, value in final.state_dict().items()}
    torch.save({"model": state, "log": log}, path)
    path.with_suffix(".log.json").write_text(json.dumps(log, indent=2) + "\n")
    print(json.dumps(log, indent=2))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
