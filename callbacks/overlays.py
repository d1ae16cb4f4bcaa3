"""Writes pictures of some explanations, to see early whether a run is worth its time."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer

from igos_pl.checks import check_count
from igos_pl.data.batches import ImageBatch
from igos_pl.data.explanation import Explanation, explanations_of
from igos_pl.data.labels import ClassLabels
from igos_pl.data.run_files import OVERLAYS
from igos_pl.data.wording import counted, has_or_have
from igos_pl.errors import DiskFullError, IgosError
from igos_pl.figures import draw, save
from igos_pl.figures.names import stem_of
from igos_pl.figures.subjects import input_on_original
from igos_pl.run.run import Ending, Run
from igos_pl.solver.presets import preset_of
from igos_pl.store import MaskFile
from igos_pl.store.files import publishing
from igos_pl.store.selection import random_order

_KEYWORD = "Explanation"  # the key of a PNG's metadata that names the explanation

# The image's id, the target and the cell of its start.
Key = tuple[str, int, int]


class OverlayWriter(Callback):
    """Saves overlays as PNG in ``overlays/`` of the trainer's ``default_root_dir``.

    Results come before pictures: no picture is drawn once the disk was full, and those of this run are
    removed to make room for results. The files have the images' names. The metadata of each file identify its
    explanation, so that a later run with a larger count adds the missing ones from the results.

    Args:
        count: the number of explanations that the first rank draws; 0 for none.
        label_names: draw only explanations of these classes; of all classes by default. Case does not matter,
            and any one of a class's names is enough. If several classes have a name, all of them are drawn.
            Numbers are refused, unless the network's class names are unknown.
        seed: draw explanations at random, of as many images as possible; by default those that are finished
            first. The same seed chooses the same images.
    """

    def __init__(
        self, count: int = 16, label_names: list[str] | None = None, seed: int | None = None
    ) -> None:
        check_count("count", count, 0)
        self.count = count
        self.label_names = label_names
        self.seed = seed
        self._classes: list[str] | None = None
        self._drawn: set[Key] = set()
        self._failed: set[Key] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out which pictures there are.

        Raises:
            IgosError: if the network has no class of a given name.
        """
        self._classes = self._known_as(getattr(getattr(pl_module, "network", None), "class_names", ()))
        self._folder = Run.of(trainer).folder.path / OVERLAYS
        self._drawn = _pictures(self._folder) if trainer.is_global_zero and self.count else set()
        self._failed = set()
        self._images: set[str] | None = None

    def _known_as(self, classes: Sequence[str]) -> list[str] | None:
        """The given classes by the network's names for them; None for all classes.

        Args:
            classes: the network's class names; if they are unknown, labels are shown as numbers.
        """
        if self.label_names is None or not classes:
            return self.label_names
        labels = ClassLabels(classes)
        try:
            return [classes[label] for name in self.label_names for label in labels.all_of(name)]
        except IgosError as error:
            raise IgosError(f"label_names (--overlays.label_names): {error}") from error

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the batch's explanations until there are ``count`` pictures."""
        run = Run.of(trainer)
        if trainer.is_global_zero and len(self._drawn) < self.count and not run.disk_full:
            attributes = {**run.configuration, "preset": preset_of(run.configuration)}
            rows = explanations_of(outputs, attributes)
            rows = [row for row in rows if self._classes is None or row.label_name in self._classes]
            if self.seed is not None:
                rows = self._lucky(rows, run)
            if rows:
                self._draw(run, rows, batch)

    def _lucky(self, rows: Sequence[Explanation], run: Run) -> list[Explanation]:
        """One explanation of each image that the random choice begins with."""
        assert self.seed is not None
        if self._images is None:
            names = list(run.expected)
            self._images = {names[place] for place in random_order(names, self.seed)[: self.count]}
        found: dict[str, Explanation] = {}
        for place in random_order([row.sample_id for row in rows], self.seed):
            if rows[place].sample_id in self._images:
                found.setdefault(rows[place].sample_id, rows[place])
        return list(found.values())

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Draw missing pictures from results on the disk: earlier runs may have had a smaller ``count``."""
        run = Run.of(trainer)
        stopped = run.ending in (Ending.STOPPED, Ending.FAILED) or run.disk_full
        if trainer.is_global_zero and not stopped and len(self._drawn) < self.count and run.folder.files():
            self._draw_missing(run)
        if len(self._failed) > 1:
            failed = counted(len(self._failed), "explanation")
            verb = has_or_have(len(self._failed))
            warnings.warn(f"{failed} {verb} no overlay; the first warning says why", stacklevel=1)

    def _draw_missing(self, run: Run) -> None:
        with MaskFile(run.folder.path) as masks:
            names = ("sample_id", "target", "start_cell", "label_name")
            keys = list(zip(*(masks.column(name).tolist() for name in names), strict=True))
            order: Sequence[int] = range(len(keys))
            if self.seed is not None:
                order = random_order([key[0] for key in keys], self.seed).tolist()
            tried = self._drawn | self._failed
            rows = [
                row
                for row in order
                if keys[row][:3] not in tried and (self._classes is None or keys[row][3] in self._classes)
            ][: self.count - len(self._drawn)]
            if not rows and not self._drawn and self._classes is not None:
                names_given = ", ".join(self.label_names or ())
                warnings.warn(f"No overlays: no explanation is of the classes {names_given}", stacklevel=1)
            files = [
                row
                for row, explanation in zip(rows, masks[rows], strict=True)
                if Path(explanation.image["path"]).is_file()
            ]
            if len(files) < len(rows):
                lost = next(row for row in rows if row not in files)
                number = counted(len(rows) - len(files), "earlier explanation")
                warnings.warn(
                    f"No overlays of {number}: their images are not in files, or not any more"
                    f" ({masks[lost].image['path']}, for example)",
                    stacklevel=1,
                )
            if files:
                print(f"drawing {counted(len(files), 'more picture')} in {self._folder} ...", file=sys.stderr)
                self._draw(run, masks[files])

    def _draw(self, run: Run, explanations: Iterable[Explanation], batch: ImageBatch | None = None) -> None:
        """Draw explanations that have no picture, until there are ``count`` pictures or the disk is full.

        Args:
            run: its ``pictures`` gets the new files.
            explanations: their images are files, or in the batch.
            batch: the network's input for these images.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warnings.warn(f"No overlays in {self._folder}: {error.strerror}", stacklevel=1)
            return
        for explanation in explanations:
            key = (str(explanation.sample_id), int(explanation.target), int(explanation.start_cell))
            if run.disk_full or len(self._drawn) >= self.count:
                return
            if key in self._drawn:
                continue
            path = _free_name(self._folder, explanation)
            try:
                with publishing(path) as temporary:
                    image = None if batch is None else _original(explanation, batch)
                    save(draw([explanation], images=[image]), temporary, "png", {_KEYWORD: json.dumps(key)})
            except DiskFullError as error:
                run.disk_full = True
                warnings.warn(f"No more overlays: {error}", stacklevel=1)
                return
            except (IgosError, OSError) as error:  # a failed picture must not end the run
                if not self._failed:  # the others are counted at the end
                    warnings.warn(f"No overlay of {explanation.sample_id}: {error}", stacklevel=1)
                self._failed.add(key)
            else:
                self._drawn.add(key)
                run.pictures.append(path)


def _pictures(folder: Path) -> set[Key]:
    """The explanations that the pictures of a folder show, from their metadata."""
    found: set[Key] = set()
    for path in folder.glob("*.png"):
        try:
            with Image.open(path) as picture:
                name, target, cell = json.loads(picture.info[_KEYWORD])
        except (OSError, KeyError, ValueError):
            continue  # not a picture of this class
        found.add((name, target, cell))
    return found


def _free_name(folder: Path, explanation: Explanation) -> Path:
    """``cat.png`` for the first picture of ``cat.jpg``, ``cat-2.png`` for the next."""
    stem = stem_of(str(explanation.sample_id))
    free, number = folder / f"{stem}.png", 1
    while free.exists():
        number += 1
        free = folder / f"{stem}-{number}.png"
    return free


def _original(explanation: Explanation, batch: ImageBatch) -> Image.Image | None:
    """The image as the network saw it; None if it is a file, which is drawn instead."""
    if Path(explanation.image["path"]).is_file():
        return None
    place = [record.sample_id for record in batch.records].index(explanation.sample_id)
    return input_on_original(batch.images[place].cpu().numpy(), explanation.frame)
