"""Splits the items of a data set into the image and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.images import decode_image, upright_rgb
from igos_pl.data.labels import ClassLabels, checked_label
from igos_pl.data.wording import counted
from igos_pl.errors import IgosError

# Keys of labels in items that are dicts.
_LABELS = ("label", "labels", "target", "cls")

# What the last axis of an array has if the array is a picture: grey, RGB, RGB with transparency.
PICTURE_CHANNELS = (1, 3, 4)


class ItemReader:
    """Splits items into the image and what is known of it.

    An item is an image; a tuple of an image and what is known of it; or a dict with an image under any key.
    An image is what `image_of` takes. What is known is a label (a number), a class name, or objects as
    torchvision's detectors take them: ``{"boxes": (n, 4) x1 y1 x2 y2 in pixels of the image, "labels":
    (n,)}``.

    Args:
        classes: the network's classes.
        image_key: the image's key in dicts; needed only if a dict has several images.
        label_key: the label's key in dicts; ``label``, ``labels``, ``target`` or ``cls`` by default.
    """

    def __init__(
        self, classes: ClassLabels, image_key: str | None = None, label_key: str | None = None
    ) -> None:
        self.classes = classes
        self.image_key = image_key
        self.label_key = label_key

    def read(self, item: Any) -> tuple[Image.Image | Tensor, GroundTruth]:
        """The item's image, and what is known of it.

        Returns:
            Upright 8-bit RGB, or a tensor as it is.

        Raises:
            IgosError: if the item has no image, several, a label that the network does not have, or objects
                of another form.
        """
        image, known = self._parts(item)
        return image_of(image), self._truth(known)

    def example(self, item: Any) -> Image.Image | Tensor:
        """An image of this item's form, by which to find what is wrong with all items.

        Pictures are not decoded: a damaged one says nothing of the others.

        Raises:
            IgosError: if the item's form is wrong, or it has a class name and the network's are unknown.
        """
        image, known = self._parts(item)
        if isinstance(known, str) and not self.classes.names:
            self._truth(known)
        return Image.new("RGB", (64, 64)) if isinstance(image, Image.Image | bytes) else image_of(image)

    def unused(self, item: Any) -> str | None:
        """The type of what an item says of its image, if that is neither a label nor objects."""
        known = self._parts(item)[1]
        usable = known is None or _objects(known) or isinstance(known, str) or _number(known) is not None
        return None if usable else type(known).__name__

    def _parts(self, item: Any) -> tuple[Any, Any]:
        """The image, and what is known of it; None if nothing is."""
        if isinstance(item, Mapping):
            return self._entries(item)
        if isinstance(item, Sequence) and not isinstance(item, str | bytes):
            if not item:
                raise IgosError("the item is empty")
            return item[0], item[1] if len(item) > 1 else None
        return item, None

    def _entries(self, item: Mapping[Any, Any]) -> tuple[Any, Any]:
        images = [key for key, value in item.items() if _is_image(value)]
        key = self.image_key
        if key is None:
            if len(images) != 1:
                found = f"images under {', '.join(map(repr, images))}" if images else "no image"
                raise IgosError(
                    f"the item is a dict with {found} (its keys: {', '.join(map(repr, item))}): name the"
                    " image's key with image_key"
                )
            key = images[0]
        for wanted in (key, self.label_key):
            if wanted is not None and wanted not in item:
                raise IgosError(
                    f"the item is a dict without {wanted!r}; its keys: {', '.join(map(repr, item))}"
                )
        if self.label_key is not None:
            return item[key], item[self.label_key]
        if _objects(item):
            return item[key], item
        return item[key], next((item[name] for name in _LABELS if name in item and name != key), None)

    def _truth(self, known: Any) -> GroundTruth:
        if isinstance(known, str):
            return GroundTruth(self.classes.of(known))
        if _objects(known):
            boxes, labels = _boxes(known["boxes"]), _labels(known["labels"])
            if len(labels) != len(boxes):
                raise IgosError(
                    f"the item has {counted(len(boxes), 'box')}, but {counted(len(labels), 'label')}"
                )
            names = tuple(self._name(label) for label in labels)
            return GroundTruth(
                boxes=boxes, names=names, ids=tuple(range(len(boxes))), instance_masks=(None,) * len(boxes)
            )
        number = _number(known)
        return GroundTruth(-1 if number in (None, -1) else checked_label(number))

    def _name(self, label: str | int) -> str:
        if isinstance(label, str):
            return label
        return self.classes.names[label] if 0 <= label < len(self.classes.names) else str(label)


def _is_image(value: Any) -> bool:
    """Whether a dict's entry is an image, not a label, boxes or a mask."""
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim == 3 or (value.ndim == 2 and value.dtype in (np.uint8, torch.uint8))
    return isinstance(value, Image.Image | bytes)


def image_of(value: Any) -> Image.Image | Tensor:
    """An image that someone has in memory.

    Args:
        value: a PIL image; the bytes of a picture file; a tensor; or an array ``(H, W)``, ``(C, H, W)``, or
            ``(H, W, C)`` with 1, 3 or 4 channels.

    Returns:
        Upright 8-bit RGB for pictures: PIL images, bytes, and uint8 arrays ``(H, W)`` or with the channels
        last. Otherwise a tensor, with the channels first if it was an array.

    Raises:
        IgosError: if it is none of these, or cannot be decoded.
    """
    if isinstance(value, Image.Image):
        return upright_rgb(value)
    if isinstance(value, bytes):
        return decode_image(value)
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if not isinstance(value, np.ndarray):
        raise IgosError(
            f"the image is a {type(value).__name__}, but must be a tensor (C, H, W), a PIL image, a NumPy"
            " array or the bytes of a picture file"
        )
    pixels = value[..., None] if value.ndim == 2 else value
    if pixels.ndim != 3:
        raise IgosError(
            f"the image is an array of the shape {value.shape}, but must be (H, W), (H, W, C) or (C, H, W)"
        )
    if pixels.shape[2] not in PICTURE_CHANNELS:
        return torch.from_numpy(np.ascontiguousarray(pixels))
    if value.ndim == 3 and value.shape[0] in (1, 3):
        raise IgosError(
            f"the image is an array of the shape {value.shape}: its channels may come first or last. Give a"
            " tensor (C, H, W)"
        )
    if pixels.dtype != np.uint8:
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)))
    if pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return upright_rgb(Image.fromarray(np.ascontiguousarray(pixels)))


def _objects(known: Any) -> bool:
    return isinstance(known, Mapping) and "boxes" in known and "labels" in known


def _boxes(known: Any) -> NDArray[np.float32]:
    try:
        boxes = np.asarray(known, np.float32)
    except (TypeError, ValueError) as error:
        raise IgosError(f"boxes must be (n, 4) numbers x1 y1 x2 y2: {error}") from error
    if not boxes.size:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise IgosError(f"boxes must be (n, 4), x1 y1 x2 y2 of each, but are {boxes.shape}")
    return boxes


def _labels(known: Any) -> list[str | int]:
    try:
        labels = np.asarray(known).reshape(-1).tolist()
    except (TypeError, ValueError) as error:
        raise IgosError(f"labels of boxes must be (n,) whole numbers or class names: {error}") from error
    for label in labels:
        if not isinstance(label, int | str) or isinstance(label, bool):
            raise IgosError(f"labels of boxes must be whole numbers or class names, but one is {label!r}")
    return labels


def _number(known: Any) -> int | None:
    """A label as an int; None if it is not a number."""
    if isinstance(known, np.ndarray | np.generic | Tensor):
        values = known.reshape(-1).tolist()
        known = values[0] if len(values) == 1 else None
    return known if isinstance(known, int) and not isinstance(known, bool) else None
