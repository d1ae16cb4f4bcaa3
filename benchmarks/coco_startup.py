"""Seconds until COCODataModule knows its samples, on a generated file of the size of COCO's val2017.

No picture is needed: none is opened at the start.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from igos_pl.datamodules import COCODataModule

HEIGHT, WIDTH = 480, 640
CATEGORIES = 80


def polygon(rng: np.random.Generator) -> list[float]:
    """A star-shaped outline x0, y0, x1, y1, ...; on average, points and area are about COCO's."""
    points = int(rng.integers(10, 60))
    radius = np.exp(rng.normal(3.5, 0.9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    reach = radius * rng.uniform(0.6, 1, points)
    centre = rng.uniform(0, [WIDTH, HEIGHT])
    outline = centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    outline = outline.clip(0, [WIDTH, HEIGHT]).round(2)
    return [float(value) for value in outline.reshape(-1)]


def annotation(rng: np.random.Generator, number: int, images: int) -> dict[str, Any]:
    """An object in one of the images."""
    outline = polygon(rng)
    xs, ys = outline[::2], outline[1::2]
    return {
        "id": number,
        "image_id": int(rng.integers(images)),
        "category_id": int(rng.integers(CATEGORIES)),
        "segmentation": [outline],
        "bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
        "area": 1.0,
        "iscrowd": 0,
    }


def write_instances(path: Path, images: int, annotations: int) -> None:
    """Write an instances file."""
    rng = np.random.default_rng(0)
    content = {
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in range(images)
        ],
        "annotations": [annotation(rng, number, images) for number in range(annotations)],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(CATEGORIES)],
    }
    path.write_text(json.dumps(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--annotations", type=int, default=36000)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        write_instances(path, options.images, options.annotations)
        start = time.perf_counter()
        samples = COCODataModule(folder, str(path)).find_samples()
        seconds = time.perf_counter() - start
        objects = sum(len(sample.truth.ids) for sample in samples)
        size = path.stat().st_size / 1e6
    print(f"{len(samples)} images, {objects} objects, {size:.0f} MB: {seconds:.1f} s")


if __name__ == "__main__":
    main()
