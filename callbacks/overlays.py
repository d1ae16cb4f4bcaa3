"""Writes pictures of the first explanations, to see early whether a run is worth its time."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer

from igos_pl.checks import check_at_least
from igos_pl.data.batches import ImageBatch
from igos_pl.data.explanation import Explanation, explanations_of
from igos_pl.errors import IgosError
from igos_pl.figures.overlay import input_on_original, write_overlay
from igos_pl.randomness import key_of
from igos_pl.run.run import Run
from igos_pl.store.files import publishing

_LONGEST_NAME = 150  # of a file, in bytes; file systems allow 255


class OverlayWriter(Callback):
    """Saves overlays as PNG in ``overlays/`` of the trainer's ``default_root_dir``.

    Args:
        count: how many explanations are drawn, on the first rank; 0 for none.
    """

    def __init__(self, count: int = 16) -> None:
        check_at_least("count", count, 0)
        self.count = count

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the batch's explanations while the number is not reached."""
        run = Run.of(trainer)
        folder = run.folder.path / "overlays"
        wanted = self.count - (len(list(folder.glob("*.png"))) if folder.exists() else 0)
        if wanted <= 0 or not trainer.is_global_zero:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warnings.warn(f"No overlays in {folder}: {error.strerror}", stacklevel=1)
            return
        for explanation in explanations_of(outputs, run.configuration)[:wanted]:
            name = quote(explanation.sample_id, safe="")  # ids may hold slashes, and stay distinct
            if len(name) > _LONGEST_NAME:
                name = f"{name[:_LONGEST_NAME]}-{key_of(name):x}"
            cell = f"-{explanation.start_cell}" if explanation.start_cell >= 0 else ""
            try:
                with publishing(folder / f"{name}-{explanation.target}{cell}.png") as temporary:
                    write_overlay(explanation, temporary, image=_original(explanation, batch))
            except (IgosError, OSError) as error:  # a picture is not worth a run
                warnings.warn(f"No overlay of {explanation.sample_id}: {error}", stacklevel=1)


def _original(explanation: Explanation, batch: ImageBatch) -> Image.Image | None:
    """The image of an explanation as the network saw it; None if it is a file, which shows more."""
    if Path(explanation.image["path"]).is_file():
        return None
    place = [record.sample_id for record in batch.records].index(explanation.sample_id)
    return input_on_original(batch.images[place].cpu().numpy(), explanation.frame)
