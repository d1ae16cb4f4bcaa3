"""Generated pictures of simple shapes, written in the COCO instances format.

The pictures are cluttered on purpose: colours and textures are drawn from the same
distributions for objects and background, so only an outline tells what an object is.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as coco_mask

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

# Ids have gaps as in COCO, so that code which takes ids for label indices fails early.
CATEGORY_IDS: dict[str, int] = {"disc": 1, "square": 3, "triangle": 7, "star": 11, "ring": 13}

MIN_SIDE, MAX_SIDE = 160, 256  # picture sides, pixels
MIN_OBJECT, MAX_OBJECT = 28, 110  # diameters of circumscribed circles, pixels
MIN_VISIBLE = 0.55  # at least this share of each object's area stays visible behind other objects
MIN_CONTRAST = 60.0  # wanted distance of an object's mean RGB (0 to 255) from its surroundings; see `_paint`


@dataclass(frozen=True)
class ShapeObject:
    """One drawn object: its name, its visible mask (H, W) and its COCO segmentation.

    The segmentation is a list of polygons where the outline is whole, else an RLE.
    """

    name: str
    mask: Mask
    segmentation: list[list[float]] | dict[str, Any]


def draw_shapes(
    seed: int, index: int, *, min_objects: int = 1, max_objects: int = 6
) -> tuple[Image.Image, list[ShapeObject]]:
    """Draw picture `index` of the set `seed`: an RGB picture and its objects, back to front."""
    rng = np.random.default_rng([seed, index])
    height, width = _picture_size(rng)
    canvas = _texture(rng, height, width)
    _draw_clutter(rng, canvas)

    # Distinct names first, then any: crowded pictures show most categories.
    count = int(rng.integers(min_objects, max_objects + 1))
    names = [str(name) for name in rng.permutation(list(CATEGORY_IDS))]
    names += [str(name) for name in rng.choice(names, size=max(0, count - len(names)))]

    placed: list[tuple[str, Mask, list[list[float]], float]] = []
    visible: list[Mask] = []
    for name in names[:count]:
        for _ in range(30):
            outlines = _outlines(rng, name, height, width)
            mask = _rasterise(outlines, height, width)
            if _fits(mask, visible, [area for *_, area in placed]):
                break
        else:
            if placed:
                continue  # The picture is full; fewer objects are fine.
        _paint(rng, canvas, mask)
        visible = [other & ~mask for other in visible] + [mask]
        placed.append((name, mask, outlines, float(mask.sum())))

    objects = []
    for (name, mask, outlines, _), seen in zip(placed, visible, strict=True):
        whole = len(outlines) == 1 and bool((mask == seen).all())
        objects.append(ShapeObject(name, seen, outlines if whole else _to_rle(seen)))
    return _finish(rng, canvas), objects


def write_shapes_dataset(
    folder: str | Path,
    images: int,
    seed: int,
    *,
    min_objects: int = 1,
    max_objects: int = 6,
    image_format: str = "jpg",
) -> Path:
    """Write `images/*.jpg` and `instances.json` under `folder`; return the latter's path.

    Picture `i` depends on (`seed`, `i`) alone. `image_format` is "jpg" or "png".
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    image_records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(images):
        picture, objects = draw_shapes(
            seed,
            index,
            min_objects=min_objects,
            max_objects=max_objects,
        )
        image_id = 3 * index + 101  # Not the index either, as in COCO.
        file_name = f"{image_id:012d}.{image_format}"
        # PNG ignores `quality`; 92 keeps thin outlines and textures.
        picture.save(folder / "images" / file_name, quality=92)
        image_records.append(
            {
                "id": image_id,
                "file_name": file_name,
                "width": picture.width,
                "height": picture.height,
                "license": 1,
                "coco_url": "",
                "flickr_url": "",
                "date_captured": "2024-01-01 00:00:00",
            }
        )
        for item in objects:
            rle = coco_mask.encode(np.asfortranarray(item.mask, dtype=np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": CATEGORY_IDS[item.name],
                    "segmentation": item.segmentation,
                    "bbox": [float(value) for value in coco_mask.toBbox(rle)],
                    "area": float(coco_mask.area(rle)),
                    "iscrowd": 0,
                }
            )
    categories = [
        {
            "id": number,
            "name": name,
            "supercategory": "shape",
        }
        for name, number in CATEGORY_IDS.items()
    ]
    content = {
        "info": {
            "description": "Generated shapes",
            "url": "",
            "version": "1.0",
            "year": 2024,
            "contributor": "igos_pl",
            "date_created": "2024/01/01",
        },
        "licenses": [{"id": 1, "name": "Apache-2.0", "url": ""}],
        "images": image_records,
        "annotations": annotations,
        "categories": categories,
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


# --- geometry ---------------------------------------------------------------------------


def _picture_size(rng: np.random.Generator) -> tuple[int, int]:
    """Return (height, width), never equal."""
    short = int(rng.integers(MIN_SIDE, 209))
    long = int(rng.integers(short + 16, MAX_SIDE + 1))
    return (short, long) if rng.random() < 0.5 else (long, short)


def _unit_outlines(rng: np.random.Generator, name: str) -> list[Array]:
    """Return closed outlines (N, 2) inside the unit circle; a second one is a hole."""
    circle = _circle(40)
    if name == "disc":
        return [circle]
    if name == "ring":
        return [circle, circle * rng.uniform(0.45, 0.65)]
    if name == "square":
        return [_circle(4)]
    if name == "triangle":
        return [_circle(3)]
    star = _circle(10)
    star[1::2] *= rng.uniform(0.4, 0.5)
    return [star]


def _circle(points: int) -> Array:
    angles = np.arange(points) * (2 * math.pi / points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _outlines(rng: np.random.Generator, name: str, height: int, width: int) -> list[list[float]]:
    """Return an object's outlines as flat lists x0, y0, x1, y1, ... in pixels."""
    # Uniform in the logarithm: as many small objects as large ones.
    low, high = math.log(MIN_OBJECT), math.log(min(MAX_OBJECT, 0.65 * min(height, width)))
    radius = math.exp(rng.uniform(low, high)) / 2
    angle = rng.uniform(0, 2 * math.pi)
    stretch = rng.uniform(0.85, 1.0)
    # A margin below the radius lets the frame cut objects now and then.
    margin = 0.85 * radius
    centre = np.array([rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    result = []
    for outline in _unit_outlines(rng, name):
        points = (outline * np.array([radius, radius * stretch])) @ turn + centre
        points = points.clip(0, [width, height])
        result.append([round(float(value), 2) for value in points.reshape(-1)])
    return result


def _rasterise(outlines: list[list[float]], height: int, width: int) -> Mask:
    """Return the mask (H, W) of the first outline without the second.

    COCO's own rasteriser, so that a polygon in the file gives back exactly this mask.
    """
    masks: list[Mask] = [
        coco_mask.decode(coco_mask.frPyObjects([outline], height, width))[:, :, 0].astype(bool)
        for outline in outlines
    ]
    return masks[0] & ~masks[1] if len(masks) == 2 else masks[0]


def _fits(mask: Mask, visible: list[Mask], areas: list[float]) -> bool:
    """Tell whether a new front object leaves enough of every other to be seen."""
    pairs = zip(visible, areas, strict=True)
    return all((other & ~mask).sum() >= MIN_VISIBLE * area for other, area in pairs)


def _to_rle(mask: Mask) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


# --- paint ------------------------------------------------------------------------------


def _colour(rng: np.random.Generator) -> Array:
    return rng.uniform(20, 235, size=3)


def _noise(rng: np.random.Generator, height: int, width: int, cell: int) -> Array:
    """Return a smooth random field (H, W) in 0..1 whose blobs are about `cell` pixels wide."""
    small = rng.uniform(0, 1, size=(height // cell + 2, width // cell + 2)).astype(np.float32)
    field = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(field).clip(0, 1)


def _texture(rng: np.random.Generator, height: int, width: int, spread: float = 70.0) -> Array:
    """Return a random texture (H, W, 3), float 0..255, between two colours `spread` apart."""
    base = _colour(rng)
    other = (base + rng.normal(0, spread, size=3)).clip(0, 255)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, math.pi)
    along = math.cos(angle) * columns + math.sin(angle) * rows
    kind = rng.integers(5)
    if kind == 0:
        blend = np.zeros((height, width))
    elif kind == 1:
        blend = (along - along.min()) / max(float(np.ptp(along)), 1.0)
    elif kind == 2:
        blend = 0.5 + 0.5 * np.sin(along * (2 * math.pi / rng.uniform(6, 24)))
    elif kind == 3:
        across = math.cos(angle) * rows - math.sin(angle) * columns
        period = rng.uniform(6, 20)
        blend = ((np.floor(along / period) + np.floor(across / period)) % 2).astype(float)
    else:
        blend = _noise(rng, height, width, int(rng.integers(3, 24)))
    grain = rng.normal(0, rng.uniform(2, 14), size=(height, width, 1))
    texture: Array = base + blend[..., None] * (other - base) + grain
    return texture


def _draw_clutter(rng: np.random.Generator, canvas: Array) -> None:
    """Add unlabelled patches, blobs, scribbles and crumbs to `canvas` (H, W, 3), in place."""
    height, width = canvas.shape[:2]
    for _ in range(int(rng.integers(0, 3))):  # Soft-edged changes of the ground.
        weight = _noise(rng, height, width, int(rng.integers(24, 64)))
        weight = (4 * (weight - 0.5)).clip(0, 1)[..., None]
        canvas += weight * (_texture(rng, height, width) - canvas)

    for _ in range(int(rng.integers(0, 3))):  # Wobbly blobs: hard edges but no known outline.
        layer = Image.new("L", (width, height))
        angles = np.sort(rng.uniform(0, 2 * math.pi, size=9))
        reach = rng.uniform(0.3, 1.0, size=9) * rng.uniform(10, 32)
        centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
        points = centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        ImageDraw.Draw(layer).polygon([(float(x), float(y)) for x, y in points], fill=255)
        canvas += _soft(layer) * (_texture(rng, height, width) - canvas)

    picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(2, 9))):  # Scribbles: short random walks.
        steps = rng.normal(0, 9, size=(int(rng.integers(3, 8)), 2))
        steps[0] = rng.uniform(0, [width, height])
        line = [(float(x), float(y)) for x, y in np.cumsum(steps, axis=0)]
        pen.line(line, fill=_rgb(_colour(rng)), width=int(rng.integers(1, 4)))
    for _ in range(int(rng.integers(0, 13))):  # Crumbs, well below the smallest object.
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        wide, high = rng.uniform(2, 9, size=2)
        draw = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        draw((x, y, x + wide, y + high), fill=_rgb(_colour(rng)))
    canvas[:] = np.asarray(picture)


def _paint(rng: np.random.Generator, canvas: Array, mask: Mask) -> None:
    """Fill `mask` (H, W) on `canvas` (H, W, 3) with a texture unlike what lies around."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # Only the object's box and 6 pixels around it change; the rest is left alone for speed.
    top, left = max(int(rows[0]) - 6, 0), max(int(columns[0]) - 6, 0)
    window = canvas[top : int(rows[-1]) + 7, left : int(columns[-1]) + 7]
    inside = mask[top : int(rows[-1]) + 7, left : int(columns[-1]) + 7]
    layer = Image.fromarray(inside.astype(np.uint8) * 255)
    around = np.asarray(layer.filter(ImageFilter.MaxFilter(9))).astype(bool) & ~inside
    ground = window[around].mean(axis=0)
    height, width = inside.shape
    best, best_contrast = window, -1.0
    for _ in range(8):
        texture = _texture(rng, height, width, spread=45.0)
        contrast = float(np.linalg.norm(texture[inside].mean(axis=0) - ground))
        if contrast > best_contrast:
            best, best_contrast = texture, contrast
        if contrast >= MIN_CONTRAST:
            break
    window += _soft(layer) * (best - window)


def _soft(layer: Image.Image) -> Array:
    """Return a 0..255 mask picture as weights (H, W, 1) with slightly blurred edges."""
    blurred = layer.filter(ImageFilter.GaussianBlur(0.6))
    return np.asarray(blurred, dtype=np.float32)[..., None] / 255


def _rgb(colour: Array) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in colour)
    return red, green, blue


def _finish(rng: np.random.Generator, canvas: Array) -> Image.Image:
    """Return the canvas as an RGB picture with random light and camera noise."""
    lit = canvas * rng.uniform(0.75, 1.15) + rng.normal(0, 4, size=canvas.shape)
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8))
