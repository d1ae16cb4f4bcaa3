"""``igos-pl sanity``: whether masks depend on the network's weights and on the class that they explain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback
from pytorch_lightning.cli import LightningArgumentParser
from rich.console import Console

from igos_pl.callbacks import MaskProgressBar, RunCallback
from igos_pl.checks import check_count
from igos_pl.cli.messages import interrupts_explained, quieten_lightning, shortages_explained
from igos_pl.cli.parser import ExplainerCLI, parsed
from igos_pl.data.text import printable
from igos_pl.data.wording import counted, method_in_words
from igos_pl.datamodules.base import SampleDataModule
from igos_pl.errors import IgosError
from igos_pl.run.provenance import provenance
from igos_pl.run.run import Ending, Run
from igos_pl.run.signals import STOPPED
from igos_pl.sanity import SanityChecks
from igos_pl.sanity.report import summaries, table, write
from igos_pl.sanity.similarity import check_installed
from igos_pl.store import RunFolder
from igos_pl.store.files import cannot_write

_SHOWN = 5  # the number of images whose problems are listed
_NOTHING_KEPT = "Nothing is kept: run the same command again"


class Subset(RunCallback):
    """Begins and ends the run, and leaves only some images of the data set: from the first on, evenly spread.

    Args:
        images: how many.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        check_count("images", images, 1)
        self.images = images

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Choose the images before the data module makes its loader."""
        super().setup(trainer, pl_module, stage)
        run, data = Run.of(trainer), trainer.datamodule
        assert isinstance(data, SampleDataModule)
        count = len(data.pending)
        if count > self.images:
            data.pending = [data.pending[place * count // self.images] for place in range(self.images)]
            run.assigned = run.pending = [sample.id for sample in data.pending]


class SanityCLI(ExplainerCLI):
    """The command line of ``igos-pl sanity``."""

    command = "sanity"
    devices = 1

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the number of images and of steps."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--images", type=int, default=8, help="images, evenly spread over the data")
        parser.add_argument("--steps", type=int, default=8, help="steps from one random layer to all")

    def check_output(self) -> None:
        """Refuse a folder that cannot be written, or that has results already, before anything is loaded."""
        super().check_output()
        folder = RunFolder(self.config["output"])
        owner = "a run" if folder.claim_path.exists() or folder.files() else ""
        owner = "sanity checks" if any(folder.path.glob("sanity.*")) else owner
        if owner:
            raise IgosError(
                f"{folder.path} has the results of {owner} already: set --output to another folder"
            )

    def callbacks(self, trainer_settings: dict[str, Any]) -> list[Callback]:
        """The callbacks that choose the images and show the progress."""
        return [Subset(self.config["images"]), MaskProgressBar()]


def sanity(words: list[str]) -> int:
    """Check the masks of some images as the command line says.

    Args:
        words: the arguments after ``sanity``, as `with_preset` returns them.

    Returns:
        The exit code: 0; 1 if no image could be read; 75 if a signal stopped the run.

    Raises:
        IgosError: if a setting is wrong, or the folder has results already.
    """
    quieten_lightning()
    check_installed()
    sys.path.insert(0, str(Path.cwd()))  # users' own networks are there
    cli = parsed(words, SanityCLI)
    folder = Path(cli.trainer.default_root_dir)
    checks = SanityChecks(cli.model, cli.config["steps"])
    with interrupts_explained(lambda: _NOTHING_KEPT), shortages_explained():
        cli.trainer.predict(checks, cli.datamodule, return_predictions=False)
    if Run.of(cli.trainer).ending is Ending.STOPPED:
        print(f"Stopped by a signal. {_NOTHING_KEPT}")
        return STOPPED
    for record in checks.failures[:_SHOWN]:
        print(printable(f"left out {record.sample_id}: {record.status}: {record.message}"))
    if len(checks.failures) > _SHOWN:
        print(f"and {len(checks.failures) - _SHOWN:,} more")
    if not checks.checked:
        print("No image could be checked")
        return 1
    _report(checks, folder, cli.trainer.strategy.root_device)
    return 0


def _report(checks: SanityChecks, folder: Path, device: torch.device) -> None:
    """Print the table, and write the files."""
    described = checks.describe()
    attributes = {**described, **provenance(described, device)}
    images = counted(len({row.sample_id for row in checks.checked}), "image")
    title = f"{images}, {checks.network.name}, {method_in_words(attributes)}"
    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"{title}\n\nhow alike the network's own masks and others are")
    for line in table(summaries(checks.checked), console.width):
        say(printable(line))
    say("")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    for path in write(folder, checks.checked, attributes, title):
        say(f"{path.suffix[1:]:<9} {path}")
