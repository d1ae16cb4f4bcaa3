"""What other libraries' errors mean for a person at the command line."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from igos_pl.datamodules.base import ImageDataModule
from igos_pl.errors import IgosError, RunError
from igos_pl.models import ExplainableNetwork
from igos_pl.solver.micro_batches import is_out_of_memory
from igos_pl.solver.optimizers import MaskOptimizer

# How a parser's lines begin that tell of its workings.
_NOISE = (
    "Given value", "Subtypes:", "Errors:", "Does not validate", "Expected a <class 'NoneType'>",
    "Expected a path but", "Type collections",
)  # fmt: skip

_CLASSES = {
    "model.network": ExplainableNetwork,
    "model.optimizer": MaskOptimizer,
    "data": ImageDataModule,
}


@contextmanager
def shortages_explained() -> Iterator[None]:
    """Say in words what torch has a traceback for.

    Raises:
        RunError: if memory ran out outside of the network, or a process that reads images died.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            # Micro-batches of the network shrink by themselves; this is for images, baselines and masks.
            raise RunError(
                f"Out of memory outside of the network ({(str(error) or 'MemoryError').splitlines()[0]})."
                " Lower --data.batch_size. All finished images are safe: run the same command again to go on"
            ) from error
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise RunError(
            f"A process that reads images died ({error}). Mostly the memory is too small: lower"
            " --data.num_workers or --data.batch_size, or ask for more. All finished images are safe: run"
            " the same command again to go on"
        ) from error


def own_error(error: BaseException | None) -> IgosError | None:
    """What a class of ours said of its settings, however deep the parser has wrapped it."""
    while error is not None and not isinstance(error, IgosError):
        error = error.__cause__ or error.__context__
    return error


def explained(message: str) -> str:
    """An argument parser's message, with the classes that would have been right where one is wrong."""
    if "required: root" in message:
        return "Name the folder with the images by --data.root"
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    lines = [line for line in lines if not line.startswith(_NOISE)]
    if foreign := re.search(r"Option '(\w+)' is not accepted.*class_path='([\w.]+)'", message):
        lines.append(f"{foreign[2]} has no setting '{foreign[1]}'")
    for key, base in _CLASSES.items():
        if f'"{key}"' in message and not foreign:
            lines.append(f"Known are {', '.join(_names(base))}; name your own by its import path")
    return "\n  ".join([*lines, "igos-pl predict --help lists the settings"])


def _names(base: type) -> list[str]:
    """The public classes of this package that derive from ``base`` and can be made."""
    found = [base]
    for cls in found:
        found.extend(cls.__subclasses__())
    ours = {cls for cls in found if cls.__module__.startswith("igos_pl.")}
    return sorted(cls.__name__ for cls in ours if not inspect.isabstract(cls) and cls is not base)


def quieten_lightning() -> None:
    """Lightning speaks of training; what matters here is said by the callbacks."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*predict_dataloader.*",
        ".*LightningCLI.s args parameter.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*`srun` command is available.*",  # checked at set-up
        ".*across ranks is zero.*",
    ):
        warnings.filterwarnings("ignore", message=message)
