"""Where the explanations of an epoch go: to the trainer's loggers, and into files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import Trainer

from igos_pl.errors import IgosError


@dataclass(frozen=True)
class Picture:
    """A figure for a logger.

    Attributes:
        pixels: ``(h, w, 3)``.
        caption: what it shows.
    """

    pixels: NDArray[np.uint8]
    caption: str

    @classmethod
    def of(cls, figure: Figure, caption: str) -> Picture:
        """A figure as pixels."""
        file = BytesIO()
        figure.savefig(file, dpi=_DPI, format="png")
        return cls(np.asarray(Image.open(file).convert("RGB")), caption)


_DPI = 80

Metrics = Mapping[str, float]


def log(trainer: Trainer, metrics: Metrics, pictures: Mapping[str, Picture], step: int) -> bool:
    """Pass metrics and pictures to all loggers of a trainer.

    Args:
        trainer: its loggers are used.
        metrics: numbers by their names.
        pictures: pictures by their names.
        step: the step at which the loggers show them.

    Returns:
        Whether any of the loggers takes pictures.
    """
    taken = False
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=step)
        taken = _log_pictures(logger, pictures, step) or taken
    return taken


def _log_pictures(logger: Any, pictures: Mapping[str, Picture], step: int) -> bool:
    """Pass pictures to a logger, and say whether it takes any.

    Loggers are told apart by their methods, because those of ``lightning.pytorch`` have other classes.
    """
    if hasattr(logger, "log_image"):  # Weights & Biases
        for name, picture in pictures.items():
            logger.log_image(key=name, images=[picture.pixels], step=step, caption=[picture.caption])
        return True
    if hasattr(logger.experiment, "add_image"):  # TensorBoard
        for name, picture in pictures.items():
            logger.experiment.add_image(name, picture.pixels, global_step=step, dataformats="HWC")
        return True
    return False


def folder_of(trainer: Trainer) -> Path:
    """The folder of a training's explanations, beside the one in which Lightning keeps checkpoints.

    Raises:
        IgosError: if the trainer or its logger saves to a URL.
    """
    root, parts = str(trainer.default_root_dir), []
    if trainer.loggers:
        logger = trainer.loggers[0]
        root = str(root if logger.save_dir is None else logger.save_dir)
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        parts = [str(logger.name), version]
    if "://" in root:
        raise IgosError(
            f"Masks are not saved, because {root} is not a folder of a file system: set default_root_dir or"
            " the logger's save_dir to one"
        )
    return Path(root, *parts, "explanations")


def write_pictures(folder: Path, pictures: Mapping[str, Picture]) -> None:
    """Write pictures as PNG files, named by the last part of their names."""
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture.pixels).save(folder / f"{name.rsplit('/', 1)[-1]}.png")


def append_row(path: Path, columns: Sequence[str], row: Mapping[str, float | int | str]) -> None:
    """Add a row to a CSV file, which gets a header if it is new."""
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
