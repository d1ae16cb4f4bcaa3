"""Turns the errors of other libraries into messages for the command line."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from igos_pl.datamodules.base import SampleDataModule
from igos_pl.errors import IgosError, RunError
from igos_pl.models import ExplainableNetwork
from igos_pl.solver.micro_batches import is_dead_loader, is_out_of_memory
from igos_pl.solver.optimizers import MaskOptimizer

# Lines of the parser's message that start like this describe its internals, and are dropped.
_NOISE = (
    "Given value", "Subtypes:", "Errors:", "Does not validate", "Expected a <class 'NoneType'>",
    "Expected a path but", "Type collections",
)  # fmt: skip

_CLASSES = {
    "model.network": ExplainableNetwork,
    "model.optimizer": MaskOptimizer,
    "data": SampleDataModule,
}

# What a data module cannot do without.
_NEEDED = {
    "root": "the folder with the images",
    "dataset": "the import path of a map-style data set, such as torchvision.datasets.CIFAR10",
    "urls": "the tar files, such as 'shards/{000..099}.tar'",
}


@contextmanager
def shortages_explained() -> Iterator[None]:
    """Turn torch's errors about missing memory and dead workers into readable messages.

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
        if not is_dead_loader(error):
            raise
        raise RunError(
            f"A process that reads images died ({error}). The usual cause is too little memory: lower"
            " --data.num_workers or --data.batch_size, or request more memory. All finished images are safe:"
            " run the same command again to go on"
        ) from error


def own_error(error: BaseException | None) -> IgosError | None:
    """The `IgosError` that the parser has wrapped in its own exceptions; None if there is none."""
    while error is not None and not isinstance(error, IgosError):
        error = error.__cause__ or error.__context__
    return error


def explained(message: str) -> str:
    """An argument parser's message, shortened; for a wrong class, it lists the available classes."""
    missing = re.search(r"required: (\w+)$", message, re.MULTILINE)
    if missing and missing[1] in _NEEDED:
        return f"--data.{missing[1]} is missing: set it to {_NEEDED[missing[1]]}"
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    lines = [line for line in lines if not line.startswith(_NOISE)]
    if foreign := re.search(r"Option '(\w+)' is not accepted.*class_path='([\w.]+)'", message):
        lines.append(f"{foreign[2]} has no setting '{foreign[1]}'")
    for key, base in _CLASSES.items():
        if f'"{key}"' in message and not foreign:
            lines.append(f"Available: {', '.join(_names(base))}; give the import path for your own class")
    return "\n  ".join([*lines, "igos-pl predict --help lists the settings"])


def _names(base: type) -> list[str]:
    """The public classes of this package that derive from ``base`` and can be made."""
    found = [base]
    for cls in found:
        found.extend(cls.__subclasses__())
    ours = {cls for cls in found if cls.__module__.startswith("igos_pl.")}
    return sorted(cls.__name__ for cls in ours if not inspect.isabstract(cls) and cls is not base)


def quieten_lightning() -> None:
    """Silence Lightning's messages, which are about training. The callbacks report what matters here."""
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
