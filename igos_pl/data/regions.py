"""Where regions come from: superpixels, label maps in files, or label maps in memory."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igos_pl.checks import check_count
from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import Frame
from igos_pl.data.images import open_picture, picture_endings
from igos_pl.data.records import ImageRecord
from igos_pl.errors import IgosError, TargetError
from igos_pl.optional import imported
from igos_pl.settings import Attributes, Configurable

_SUFFIXES = (".png", ".npy", ".tif")

_LARGEST = 2**31 - 1


class RegionSource(Configurable, ABC):
    """Gives each image a label map: pixels with equal labels are a region, which masks remove as a whole."""

    @abstractmethod
    def labels_of(self, image: Tensor, record: ImageRecord) -> tuple[NDArray[Any], Frame]:
        """The label map of an image.

        Args:
            image: ``(C, H, W)``, the network's input before it is normalised: uint8, or float in which 1
                stands for 255.
            record: the image's record.

        Returns:
            Labels ``(h, w)``, and where the network's input lies in them.

        Raises:
            TargetError: if the image has no label map, or a wrong one.
        """

    def check(self, sample_ids: Sequence[str]) -> None:
        """Raise now for what is wrong with a whole data set. By default, nothing is checked.

        Args:
            sample_ids: the ids of all images.

        Raises:
            IgosError: if two images would share a label map.
        """

    def label_maps(self, batch: ImageBatch, size: int) -> tuple[Tensor, list[str]]:
        """The regions of a batch at the resolution of the masks.

        A cell of a mask gets the label of the pixel at its place (nearest neighbour).

        Args:
            batch: N images.
            size: s, cells along the side of a mask.

        Returns:
            Labels ``(N, s, s)`` on the device of the images, and a note for each image: how many of its
            regions are so small that no cell lies in them, and whether only one is left; empty otherwise.

        Raises:
            TargetError: if an image has no label map, or a wrong one.
        """
        maps, notes = [], []
        for image, record in zip(batch.images, batch.records, strict=True):
            labels, frame = self.labels_of(image, record)
            cells = _at_cells(labels, frame, size)
            whole, kept = len(np.unique(labels)), len(np.unique(cells))
            if whole > size**2:
                raise TargetError(
                    f"{record.sample_id}: it has {whole} regions, but a mask has only {size} x {size} ="
                    f" {size**2} cells: use fewer regions, or a larger mask_size"
                )
            maps.append(torch.from_numpy(cells))
            lost = _LOST.format(lost=whole - kept, whole=whole, size=size) if kept < whole else ""
            notes.append("; ".join(filter(None, (lost, _ALONE if kept == 1 else ""))))
        return torch.stack(maps).to(batch.images.device), notes


_LOST = (
    "{lost} of {whole} regions lie outside of the network's input or between the {size} x {size} cells of the"
    " mask: a larger mask_size keeps small ones"
)
_ALONE = "the mask has only one region, so it cannot tell which part of the image matters: use other regions"


class Slic(RegionSource):
    """Superpixels of the network's input by scikit-image's SLIC (Achanta et al., TPAMI 2012).

    Args:
        count: about how many regions an image gets.
        compactness: large values make compact, nearly square regions; small values make regions that follow
            the colours.
    """

    def __init__(self, count: int = 50, compactness: float = 10.0) -> None:
        check_count("regions.count", count, 2)
        if not compactness > 0:
            raise IgosError(f"regions.compactness is {compactness}, but must be above 0")
        self.count = count
        self.compactness = compactness
        self._slic = imported("skimage.segmentation", "regions", "Slic").slic

    def label_maps(self, batch: ImageBatch, size: int) -> tuple[Tensor, list[str]]:
        """See `RegionSource.label_maps`.

        Raises:
            IgosError: if there are more regions than cells.
        """
        if self.count > size**2:
            raise IgosError(
                f"regions.count is {self.count}, but a mask has only {size} x {size} = {size**2} cells: use"
                " fewer regions, or a larger mask_size"
            )
        return super().label_maps(batch, size)

    def labels_of(self, image: Tensor, record: ImageRecord) -> tuple[NDArray[Any], Frame]:
        """See `RegionSource.labels_of`."""
        pixels = image.permute(1, 2, 0).cpu().numpy()
        pixels = pixels / 255 if image.dtype == torch.uint8 else pixels
        labels: NDArray[Any] = self._slic(
            np.asarray(pixels, np.float64),
            n_segments=self.count,
            compactness=self.compactness,
            channel_axis=-1,
            convert2lab=pixels.shape[2] == 3,
            start_label=0,
        )
        height, width = labels.shape
        return labels, Frame.of(width, height, (height, width), "squash")


class LabelMaps(RegionSource):
    """Label maps in files: the segments of a detector, or regions drawn by hand.

    The map of ``birds/a.jpg`` is ``birds/a.jpg.png`` (or ``.npy``, ``.tif``) in the folder, or else
    ``birds/a.png``, of the size of the upright image. A picture must be grey or have a palette; its values,
    or the numbers of its colours, are the labels.

    Args:
        root: the folder.
    """

    def __init__(self, root: str) -> None:
        if not Path(root).is_dir():
            raise IgosError(f"regions.root is {root!r}, which is not a folder")
        self.root = root

    def labels_of(self, image: Tensor, record: ImageRecord) -> tuple[NDArray[Any], Frame]:
        """See `RegionSource.labels_of`."""
        if ".." in Path(record.sample_id).parts:
            raise TargetError(
                f"{record.sample_id}: its name leads out of the folder {self.root}, so it has no label map"
                " there"
            )
        path = self._path_of(record.sample_id)
        if path is None:
            missing = f"{Path(self.root, _names_of(record.sample_id)[-1])}.png"
            raise TargetError(
                f"{record.sample_id}: it has no label map: there is no {missing}, nor .npy or .tif"
            )
        return _checked(_read(path, record), record, str(path)), record.seen()

    def check(self, sample_ids: Sequence[str]) -> None:
        """See `RegionSource.check`."""
        uses = Counter(name for sample_id in sample_ids for name in _names_of(sample_id))
        images: dict[Path, str] = {}
        for sample_id in sample_ids:
            if all(uses[name] == 1 for name in _names_of(sample_id)):
                continue  # the disk is slow, and there may be millions of images
            path = self._path_of(sample_id)
            if path is not None and images.setdefault(path, sample_id) != sample_id:
                raise IgosError(
                    f"{path} could be the label map of {images[path]} and of {sample_id}: name each map after"
                    f" the whole image name, as in {sample_id}.png"
                )

    def _path_of(self, sample_id: str) -> Path | None:
        """The label map of an image; None if it has none."""
        paths = (Path(self.root, name + suffix) for name in _names_of(sample_id) for suffix in _SUFFIXES)
        return next((path for path in paths if path.is_file()), None)


def _names_of(sample_id: str) -> list[str]:
    """The names that an image's label map may have: the whole name, or without the ending of a picture."""
    name = sample_id.lstrip("/")  # `igos_pl.explain` names images by their absolute paths
    shorter, ending = os.path.splitext(name)
    return [name, shorter] if ending.lower() in picture_endings() else [name]


class GivenLabelMaps(RegionSource):
    """Label maps in memory, as `igos_pl.explain` takes them.

    Args:
        maps: an integer array ``(h, w)`` for each sample id, of the size of the upright image.
    """

    not_settings = frozenset({"maps"})  # their digest is among the facts

    def __init__(self, maps: Mapping[str, NDArray[Any]]) -> None:
        self.maps = maps

    def facts(self) -> Attributes:
        """A digest of the maps."""
        content = hashlib.blake2b(digest_size=8)
        for name, labels in sorted(self.maps.items()):
            content.update(f"{name} {labels.shape} ".encode() + labels.astype(np.int64).tobytes())
        return {"maps": content.hexdigest()}

    def labels_of(self, image: Tensor, record: ImageRecord) -> tuple[NDArray[Any], Frame]:
        """See `RegionSource.labels_of`."""
        if record.sample_id not in self.maps:
            raise TargetError(f"{record.sample_id}: it has no label map")
        return _checked(self.maps[record.sample_id], record, "its label map"), record.seen()


def segments_label_map(masks: NDArray[np.bool_] | Tensor) -> NDArray[np.int32]:
    """One label map of the segments of a detector, which may overlap.

    Args:
        masks: ``(n, h, w)`` bool.

    Returns:
        ``(h, w)``: 0 for pixels outside of all segments, k + 1 for those of the k-th. Where segments overlap,
        the smallest one counts.
    """
    segments = np.asarray(masks.cpu() if isinstance(masks, Tensor) else masks, np.bool_)
    if segments.ndim != 3:
        raise IgosError(f"masks must have the shape (n, h, w), but have the shape {segments.shape}")
    labels = np.zeros(segments.shape[1:], np.int32)
    for number in np.argsort(-segments.sum((1, 2)), kind="stable").tolist():
        labels[segments[number]] = number + 1
    return labels


def _at_cells(labels: NDArray[Any], frame: Frame, size: int) -> NDArray[np.int64]:
    """The labels at the cells of a mask, ``(s, s)``; beyond the image, that of the nearest pixel."""
    left, top, right, bottom = frame.box
    places = []
    for begin, end, pixels, length in (
        (top, bottom, frame.input_size[0], labels.shape[0]),
        (left, right, frame.input_size[1], labels.shape[1]),
    ):
        # The outer cells of a mask lie on the outer pixels of the input (`igos_pl.data.geometry.upsample`).
        place = (np.linspace(0, pixels - 1, size) + 0.5) / pixels
        places.append(np.floor(begin + place * (end - begin)).astype(np.int64).clip(0, length - 1))
    return np.asarray(labels[np.ix_(*places)], np.int64)


def _checked(labels: NDArray[Any], record: ImageRecord, where: str) -> NDArray[Any]:
    """A label map that fits its image.

    Raises:
        TargetError: if it does not.
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise TargetError(
            f"{record.sample_id}: {where} must be whole numbers of the shape (height, width), but is"
            f" {labels.dtype} of {labels.shape}"
        )
    _check_size(labels.shape[1], labels.shape[0], record, where)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > _LARGEST:
        raise TargetError(
            f"{record.sample_id}: {where} has the label {low if low < 0 else high}, but labels are 0 to"
            " 2**31 - 1"
        )
    return labels


def _check_size(width: int, height: int, record: ImageRecord, where: str) -> None:
    """Raise unless a label map has the size of its image."""
    frame = record.seen()
    if (width, height) != (frame.width, frame.height):
        raise TargetError(
            f"{record.sample_id}: {where} has {width} x {height} pixels, but the image has {frame.width} x"
            f" {frame.height}"
        )


def _read(path: Path, record: ImageRecord) -> NDArray[Any]:
    """A label map from a file.

    Raises:
        TargetError: if it cannot be read, has colours, or is a picture of another size than its image.
    """
    try:
        if path.suffix == ".npy":
            # Mapped into memory: a wrong shape is found before the rest is read.
            found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            return found
        with open_picture(path, formats=("PNG", "TIFF")) as picture:
            _check_size(*picture.size, record, str(path))
            if len(picture.getbands()) != 1:
                raise TargetError(
                    f"{path} has colours ({picture.mode}): a label map is grey or has a palette, one number"
                    " for each pixel"
                )
            return np.asarray(picture)
    except IgosError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise TargetError(f"{path} cannot be read as a label map: {error}") from error
