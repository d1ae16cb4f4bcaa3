"""What a figure shows of one explanation: its image and its saliency, at the size at which they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from igos_pl.data.explanation import Explanation
from igos_pl.data.geometry import Frame, has_few_cells
from igos_pl.data.images import displayed, read_image
from igos_pl.data.wording import counted
from igos_pl.errors import IgosError
from igos_pl.solver.baselines import BASELINES, make_baselines
from igos_pl.solver.order import most_important

Picture = Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Subject:
    """An explanation and its image.

    Attributes:
        explanation: the explanation.
        frame: of the image at the size at which it is drawn, ``height x width`` pixels.
        picture: the image at this size, 8-bit RGB; None if the style does not need it.
    """

    explanation: Explanation
    frame: Frame
    picture: Image.Image | None

    @classmethod
    def of(cls, explanation: Explanation, picture: Picture | None, most: int, needed: bool) -> Subject:
        """Scale an image down to the pixels that can be seen.

        Args:
            explanation: the explanation.
            picture: the upright original, RGB or grey; by default, its file is read again.
            most: pixels of the longer side.
            needed: whether the style shows the image. If not, it is not read.

        Raises:
            IgosError: if the image's file cannot be read any more, or has another size now.
        """
        whole = explanation.frame
        share = min(1, most / max(whole.width, whole.height))
        width, height = max(1, round(whole.width * share)), max(1, round(whole.height * share))
        frame = whole.scaled(width, height)
        if not needed:
            return cls(explanation, frame, None)
        image = _original(explanation, picture)
        return cls(explanation, frame, image.resize((width, height), Image.Resampling.BOX, reducing_gap=2))

    @property
    def aspect(self) -> float:
        """Width / height of the original."""
        whole = self.explanation.frame
        return whole.width / whole.height

    @property
    def pixels(self) -> NDArray[np.float64]:
        """The image, ``(height, width, 3)`` in [0, 1]."""
        assert self.picture is not None
        return np.asarray(self.picture) / 255

    @cached_property
    def saliency(self) -> NDArray[np.float32]:
        """The saliency of every pixel, ``(height, width)`` in [0, 1]; few cells have sharp borders."""
        cells = self.explanation.saliency
        if has_few_cells(len(cells)):
            return self.frame.cells_on_original(cells)
        return self.frame.saliency_on_original(cells)

    @property
    def box(self) -> NDArray[np.float64] | None:
        """x1 y1 x2 y2 of the detected object in these pixels; None for a classifier."""
        box = np.asarray(self.explanation.box, np.float64)
        whole = self.explanation.frame
        across, down = self.frame.width / whole.width, self.frame.height / whole.height
        return None if np.isnan(box).any() else box * (across, down, across, down)

    def seen(self, size: tuple[int, int]) -> Image.Image:
        """The part of the image that the network sees, black where its input is padded.

        Args:
            size: height and width of the result.
        """
        assert self.picture is not None
        left, top, right, bottom = map(round, self.frame.box)
        part = self.picture.crop((left, top, max(left + 1, right), max(top + 1, bottom)))
        return part.resize(size[::-1], Image.Resampling.BILINEAR)

    def most_important(self, fraction: float) -> NDArray[np.bool_]:
        """The most important cells, ``(s, s)``, as the curves take them: regions as a whole.

        Args:
            fraction: of the cells.
        """
        return most_important(self.explanation.mask, fraction, self.explanation.values.get("regions"))

    def revealed(self, fraction: float) -> NDArray[np.float64]:
        """The image with its most important cells or regions alone, ``(height, width, 3)`` in [0, 1].

        The insertion curve shows the network such images: the rest is replaced by the baseline, and the
        borders are smooth.

        Args:
            fraction: of the cells.
        """
        shown = self.most_important(fraction).astype(np.float32)
        weights = self.frame.saliency_on_original(shown)[..., None]
        return weights * self.pixels + (1 - weights) * self._baseline()

    def regions_in_words(self, fraction: float) -> str:
        """``9 of 47 regions``: how many `revealed` shows; empty for masks of single cells."""
        if "regions" not in self.explanation.values:
            return ""
        labels = np.asarray(self.explanation.regions)
        shown = np.unique(labels[self.most_important(fraction)])
        return f"{len(shown)} of {counted(len(np.unique(labels)), 'region')}"

    def _baseline(self) -> NDArray[np.float64]:
        """The run's baseline for the image. It is made at the resolution of the network's input."""
        assert self.picture is not None
        left, top, right, bottom = self.frame.box
        height, width = self.frame.input_size
        size = (
            max(1, round(self.frame.width * width / (right - left))),
            max(1, round(self.frame.height * height / (bottom - top))),
        )
        small = torch.from_numpy(np.array(self.picture.resize(size))).permute(2, 0, 1)[None]
        seed = int(self.explanation.attributes.get("seed", 0))
        made = make_baselines(
            baseline_of(self.explanation.attributes), small, [self.explanation.sample_id], seed
        )
        return np.asarray(Image.fromarray(made[0].permute(1, 2, 0).numpy()).resize(self.picture.size)) / 255


def moved(explanation: Explanation, folder: Path | None) -> Explanation:
    """An explanation whose image is read from another folder.

    Args:
        explanation: the explanation.
        folder: where the data set's images are now, under their ids; None if they are where they were.

    Raises:
        IgosError: if there is no such folder, or the id leads out of it.
    """
    if folder is None:
        return explanation
    if not folder.is_dir():
        raise IgosError(f"There is no folder {folder}: give the folder that holds the images (--images)")
    name = PurePosixPath(explanation.sample_id)
    if name.is_absolute() or ".." in name.parts:
        raise IgosError(f"{explanation.sample_id} is no path in {folder}")
    return replace(explanation, image={**explanation.image, "path": str(folder / name)})


def baseline_of(settings: Mapping[str, Any]) -> str:
    """The kind of baseline of a run; the blurred image where its settings name no known one."""
    kind = str(settings.get("baseline"))
    return kind if kind in BASELINES else "blur"


def _original(explanation: Explanation, picture: Picture | None) -> Image.Image:
    """The upright original as 8-bit RGB."""
    if picture is None:
        picture = explanation.original
    if picture is None:
        image = _read_again(explanation)
    else:
        image = (
            Image.fromarray(np.asarray(picture)) if not isinstance(picture, Image.Image) else picture
        ).convert("RGB")
    width, height = (int(explanation.image[side]) for side in ("width", "height"))
    if image.size != (width, height):
        raise IgosError(
            f"The image of {explanation.sample_id} has {image.width} x {image.height} pixels, but the"
            f" explained one had {width} x {height}"
        )
    return image


_ADVICE = (
    "pass the image to plot or draw, or its folder to the command (--images FOLDER). The style heatmap needs"
    " no image"
)


def _read_again(explanation: Explanation) -> Image.Image:
    """The original from its file."""
    path, image = explanation.image["path"], f"The image of {explanation.sample_id} cannot be shown"
    if not path:
        raise IgosError(
            f"{image}, because it was explained in memory, and files of results have no images: {_ADVICE}"
        )
    where = Path(path)
    if not where.is_absolute() or any(parent.is_file() for parent in where.parents):  # a data set, a tar file
        raise IgosError(f"{image}, because {path}, from which it was read, is not a file: {_ADVICE}")
    try:
        return read_image(where)
    except IgosError as error:
        raise IgosError(f"{image}. {path}: {error}. If the images have moved, {_ADVICE}") from error


def input_on_original(pixels: NDArray[Any], frame: Frame) -> Image.Image:
    """The network's input at its place in the original, with white around it.

    It replaces an original that is not in a file.

    Args:
        pixels: see `igos_pl.data.images.displayed`.
        frame: where the input lies in the original.
    """
    left, top, right, bottom = map(round, frame.box)
    size = (max(1, right - left), max(1, bottom - top))
    whole = Image.new("RGB", (frame.width, frame.height), "white")
    whole.paste(Image.fromarray(displayed(pixels)).resize(size), (left, top))
    return whole
