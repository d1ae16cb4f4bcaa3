"""``igos-pl predict``: Lightning's command line around the explainer."""

from __future__ import annotations

import argparse
import inspect
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from igos_pl.callbacks import DryRun, MaskProgressBar, MaskWriter, OverlayWriter, PreemptionHandler
from igos_pl.checks import check_choice
from igos_pl.datamodules import COCODataModule, ImageFolderDataModule, ImageNetDataModule  # noqa: F401
from igos_pl.datamodules.base import ImageDataModule
from igos_pl.errors import IgosError, RunError
from igos_pl.explainer import Explainer
from igos_pl.micro_batches import is_out_of_memory
from igos_pl.models import ExplainableNetwork
from igos_pl.optimizers import MaskOptimizer
from igos_pl.signals import StopSignals
from igos_pl.store import RunFolder
from igos_pl.store.segments import publishing

# The exit code of a run that was told to stop and is to be started again (EX_TEMPFAIL of sysexits.h).
STOPPED = 75

# Settings that belong together, by name: configs/presets/ of the repository.
PRESETS = Path(__file__).parent / "presets"

_SHOWN = 20

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


class PredictCLI(LightningCLI):
    """Explainer, data and trainer from YAML files and the command line."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The output folder, the callbacks, and what is assumed where nothing is said."""
        parser.add_argument("--output", type=str, default="runs/predict", help="folder of the results")
        parser.add_argument("--dry_run", type=bool, default=False, help="explain one batch, write nothing")
        parser.link_arguments("output", "trainer.default_root_dir")
        parser.add_lightning_class_args(MaskWriter, "writer")
        parser.add_lightning_class_args(OverlayWriter, "overlays")
        parser.set_defaults(
            {
                "model.network": {"class_path": "igos_pl.models.EfficientNetLite0"},
                "data": {"class_path": "igos_pl.datamodules.ImageFolderDataModule"},
            }
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Leave requeueing to the job's script: Lightning's own would write a checkpoint of a mask."""
        if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
            own = self._get(self.config_init, "trainer").get("plugins") or []
            own = own if isinstance(own, list) else [own]
            kwargs["plugins"] = [*own, SLURMEnvironment(auto_requeue=False)]
        return super().instantiate_trainer(**kwargs)


class SaveConfig(Callback):
    """Writes the resolved settings beside the results, once these are known to fit.

    Without the shard: so all jobs of an array write the same, and the file describes their common result.
    """

    def __init__(self, cli: PredictCLI) -> None:
        config = cli.config.clone()
        if "data.init_args.shard" in config:
            config["data.init_args.shard"] = None
        self.yaml: str = cli.parser.dump(config, skip_link_targets=False)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``config.yaml``."""
        if trainer.is_global_zero:
            with publishing(RunFolder(trainer.default_root_dir).path / "config.yaml") as temporary:
                temporary.write_text(self.yaml, encoding="utf-8")


def predict(words: list[str], signals: StopSignals | None = None) -> int:
    """Explain a data set as the command line says.

    Args:
        words: those after ``predict``.
        signals: where the signals to stop are noted; by default, only once the run is set up.

    Returns:
        The exit code: 0; 1 if images are missing from the result at the end; 75 if a signal stopped the run.
    """
    _quieten_lightning()
    sys.path.insert(0, str(Path.cwd()))  # where people's own networks lie
    cli = _parsed(_with_preset(words))
    preemption = PreemptionHandler(signals)
    trainer, data = cli.trainer, cli.datamodule
    if cli.config["dry_run"]:
        trainer.callbacks[:] = [DryRun(), preemption]  # type: ignore[attr-defined]
        trainer.limit_predict_batches = 1
    else:
        trainer.callbacks.extend([SaveConfig(cli), preemption])  # type: ignore[attr-defined]
    with _shortages_explained():
        trainer.predict(cli.model, data, return_predictions=False)
    if not trainer.is_global_zero:
        return 0  # the first rank speaks for all: Lightning's launcher would kill it if this one failed
    if cli.config["dry_run"]:
        if not data.pending:
            print(f"All {len(data.assigned)} images are done: there is nothing left to do")
        return STOPPED if preemption.stopped else 0
    if preemption.stopped:
        left = len(RunFolder(trainer.default_root_dir).missing())
        print(f"Stopped by a signal with {left} images left: run the same command again to go on")
        return STOPPED
    return _report(trainer, data)


def _with_preset(words: list[str]) -> list[str]:
    """The words in the order in which they win: files, the preset's file, all others.

    Raises:
        IgosError: on a preset that there is not, or on two of them.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--preset", action="append", default=[])
    try:
        options, others = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise IgosError(f"{error}; presets are {', '.join(presets())}") from error
    if len(options.preset) > 1:
        raise IgosError(f"There can be one --preset, but these are {', '.join(options.preset)}")
    files = options.config
    if options.preset:
        check_choice("preset", options.preset[0], presets())
        files.append(str(PRESETS / f"{options.preset[0]}.yaml"))
    return [*(f"--config={file}" for file in files), *others]


def presets() -> list[str]:
    """The names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _parsed(words: list[str]) -> PredictCLI:
    """Explainer, data and trainer, as the command line says.

    Raises:
        IgosError: if it says what cannot be.
    """
    try:
        return PredictCLI(
            Explainer,
            LightningDataModule,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=False,
            auto_configure_optimizers=False,
            trainer_defaults={
                "logger": False,
                "enable_checkpointing": False,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
                "callbacks": [MaskProgressBar()],
            },
            parser_kwargs={"prog": "igos-pl predict", "exit_on_error": False, "allow_abbrev": False},
            args=words,
            run=False,
        )
    except MisconfigurationException as error:  # Lightning's word for a trainer that cannot be
        raise IgosError(str(error)) from error
    except ArgumentError as error:
        raise IgosError(_explained(str(error))) from error
    except ValueError as error:
        if own := _own_error(error):
            raise own from error
        if "Union subtypes" in str(error):  # older parsers keep the words alone
            raise IgosError(_explained(str(error))) from error
        raise


@contextmanager
def _shortages_explained() -> Iterator[None]:
    """Say in words what torch has a traceback for."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            # The network's own share halves by itself; this is for images, baselines and masks.
            raise RunError(
                f"Out of memory beside the network ({(str(error) or 'MemoryError').splitlines()[0]}). Lower"
                " --data.batch_size. All that was finished is safe: run the same command again to go on"
            ) from error
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise RunError(
            f"A process that reads images died ({error}). Mostly the memory is too small: lower"
            " --data.num_workers or --data.batch_size, or ask for more. All that was finished is safe: run"
            " the same command again to go on"
        ) from error


def _own_error(error: BaseException | None) -> IgosError | None:
    """What a class of ours said of its settings, however deep the parser has wrapped it."""
    while error is not None and not isinstance(error, IgosError):
        error = error.__cause__ or error.__context__
    return error


def _explained(message: str) -> str:
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


def _report(trainer: Any, data: Any) -> int:
    """Compare what was written with what was asked for."""
    run = RunFolder(trainer.default_root_dir)
    done = run.done()
    missing = [sample.id for sample in data.assigned if sample.id not in done]
    if missing:
        shown = "\n  ".join(missing[:_SHOWN])
        print(f"{len(missing)} of {len(data.assigned)} images are missing from {run.path}:\n  {shown}")
        return 1
    where = run.merged if run.is_merged(done) else run.segments_path
    print(f"{len(data.assigned)} images are in {where}")
    return 0


def _quieten_lightning() -> None:
    """Lightning speaks of training; what matters here is said by the callbacks."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*predict_dataloader.*")
    warnings.filterwarnings("ignore", message=".*LightningCLI.s args parameter.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # checked at set-up
    warnings.filterwarnings("ignore", message=".*across ranks is zero.*")
    warnings.filterwarnings("ignore", message=".*custom batch sampler `QueueBatchSampler`.*")
