"""The parser of ``igos-pl predict``: makes explainer, data and trainer from files and options."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from jsonargparse import ActionYesNo, ArgumentError, Namespace
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

import igos_pl.datamodules  # noqa: F401  so that the parser knows its classes by their short names
from igos_pl.callbacks import DryRun, MaskProgressBar, MaskWriter, OverlayWriter
from igos_pl.cli.choosing import check_output_folder
from igos_pl.cli.console import say
from igos_pl.cli.messages import explained, own_error, refused
from igos_pl.cli.presets import WITH_PRESET
from igos_pl.cli.start_folder import with_start_folder
from igos_pl.data.regions import LabelMaps, Slic  # noqa: F401
from igos_pl.data.wording import counted
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.judging.judge import EvaluationWriter
from igos_pl.predicting import BatchPredictor
from igos_pl.run.run import Run
from igos_pl.solver.optimizers import LineSearch, MaskOptimizer  # noqa: F401
from igos_pl.store.files import publishing


class ExplainerCLI(LightningCLI, ABC):
    """Explainer, data and trainer from YAML files and the command line.

    Attributes:
        command: the command's name.
        devices: how many processes work, unless the command line says otherwise.
    """

    command: ClassVar[str]
    devices: ClassVar[int | str] = "auto"

    @abstractmethod
    def callbacks(self, trainer_settings: dict[str, Any]) -> list[Callback]:
        """The command's own callbacks. They may change the settings of the trainer."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the output folder and the default classes."""
        folder = f"runs/{self.command}"
        parser.add_argument("--output", type=str, default=folder, help="folder of the results")
        parser.link_arguments("output", "trainer.default_root_dir")
        defaults: dict[str, Any] = {
            "model.network": {"class_path": "igos_pl.models.EfficientNetLite0Classifier"},
            "data": {"class_path": "igos_pl.datamodules.ImageFolderDataModule"},
        }
        if self.model_class is Explainer:
            defaults["model.optimizer"] = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}}
        parser.set_defaults(defaults)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line. The error for an unknown option names the closest ones."""
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            if own := own_error(error):
                raise own from error
            options = [
                option for action in parser._actions for option in action.option_strings if option[-1] != "+"
            ]
            options += ["--preset"] * (self.command in WITH_PRESET)
            raise IgosError(explained(str(error), self.command, options, args or ())) from error

    def instantiate_classes(self) -> None:
        """Say what is loaded, because a large network takes a while, and make the objects."""
        self.check_output()
        network = self.config["model"]["network"]
        settings = network.get("init_args") or {}
        given = [settings.get(name) for name in ("module", "name", "weights")]
        given = [value.get("class_path") if isinstance(value, Namespace) else value for value in given]
        names = [str(value) for value in given if value]
        data = (self.config["data"].get("init_args") or {}).get("root")
        say(f"loading the network {' '.join([network['class_path'].rpartition('.')[2], *names])}")
        super().instantiate_classes()
        if data:
            say(f"looking for the images of {data}")

    def check_output(self) -> None:
        """Refuse an output folder that cannot be one, before anything is loaded."""
        check_output_folder(self.config["output"])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the command's callbacks."""
        settings = self._get(self.config_init, "trainer")
        own = _as_list(settings.get("callbacks"))
        callbacks = self.callbacks(kwargs)
        if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
            # The job script does the requeueing. Lightning's auto-requeue would write a checkpoint of a mask.
            kwargs["plugins"] = [*_as_list(settings.get("plugins")), SLURMEnvironment(auto_requeue=False)]
        trainer = super().instantiate_trainer(callbacks=[*own, *callbacks], **kwargs)
        if type(trainer.strategy.launcher).__name__ == "_MultiProcessingLauncher":
            raise IgosError("trainer.strategy must be ddp for several devices, not one that spawns or forks")
        _warn_of_few_cores(trainer)
        return trainer


class PredictCLI(ExplainerCLI):
    """The command line of ``igos-pl predict``."""

    command = "predict"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks and the dry run."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--dry_run", action=ActionYesNo, nargs="?", default=False, help="explain one batch, write nothing"
        )
        parser.add_class_arguments(MaskWriter, "writer")
        parser.add_class_arguments(OverlayWriter, "overlays")

    @property
    def dry_run(self) -> bool:
        """Whether one batch is explained and nothing is written."""
        return bool(self.config["dry_run"])

    def callbacks(self, trainer_settings: dict[str, Any]) -> list[Callback]:
        """The callbacks of a real run, or of a dry run."""
        if self.dry_run:
            trainer_settings["limit_predict_batches"] = 1
            return [DryRun(), MaskProgressBar()]
        return self.run_callbacks()

    def run_callbacks(self) -> list[Callback]:
        """The callbacks of a run that writes its results."""
        writer, overlays = (self._get(self.config_init, name) for name in ("writer", "overlays"))
        return [writer, MaskProgressBar(), overlays, SaveConfig(with_start_folder(self._yaml()))]

    def _yaml(self) -> str:
        """The settings without the shard, so that all jobs of an array write the same file."""
        config = self.config.clone()
        if "data.init_args.shard" in config:
            config["data.init_args.shard"] = None
        text: str = self.parser.dump(config, skip_link_targets=False)
        return text


class ImportCLI(PredictCLI):
    """The command line of ``igos-pl import``."""

    command = "import"


class EvaluateCLI(PredictCLI):
    """The network, the data and the trainers that judge a run, from the settings of the run."""

    command = "evaluate"

    def check_output(self) -> None:
        """Do nothing: the run's folder exists, and ``output`` may have been relative to another folder."""

    def run_callbacks(self) -> list[Callback]:
        """The callbacks of a pass over the data that publishes figures."""
        settings = self.config["writer"]
        writer = EvaluationWriter(settings["images_per_segment"], settings["seconds_per_segment"])
        return [writer, MaskProgressBar()]

    def trainer_in(self, folder: Path) -> Trainer:
        """A trainer that writes to a folder."""
        return self.instantiate_trainer(default_root_dir=str(folder))


class SaveConfig(Callback):
    """Writes the resolved settings next to the results, after the folder has accepted the configuration.

    Args:
        yaml: the settings.
    """

    def __init__(self, yaml: str) -> None:
        self.yaml = yaml

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``config.yaml``."""
        if trainer.is_global_zero:
            with publishing(Run.of(trainer).folder.path / "config.yaml") as temporary:
                temporary.write_text(self.yaml, encoding="utf-8")


_CLI = TypeVar("_CLI", bound=ExplainerCLI)


def parsed(words: list[str], cls: type[_CLI], model: type[BatchPredictor] = Explainer) -> _CLI:
    """Make explainer, data and trainer from the command line.

    Args:
        words: the arguments after the command.
        cls: the command.
        model: what goes through the data.

    Raises:
        IgosError: if a setting is wrong.
    """
    try:
        return cls(
            model,
            LightningDataModule,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=False,
            auto_configure_optimizers=False,
            trainer_defaults={
                "devices": cls.devices,
                "logger": False,
                "enable_checkpointing": False,
                "enable_model_summary": False,
            },
            parser_kwargs={"prog": f"igos-pl {cls.command}", "exit_on_error": False, "allow_abbrev": False},
            args=words,
            run=False,
        )
    except (ArgumentError, ValueError) as error:
        if own := own_error(error):
            raise own from error
        if isinstance(error, ArgumentError) or "Union subtypes" in str(
            error
        ):  # older parsers raise ValueError for a wrong value
            raise IgosError(explained(str(error), cls.command)) from error
        raise refused(error) from error
    except Exception as error:  # Lightning, torch and users' own classes raise nearly anything
        raise refused(error) from error


def _warn_of_few_cores(trainer: Trainer) -> None:
    """Say if more processes than CPU cores are to compute on the CPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > cores:
        say(
            f"{trainer.num_devices} processes share {counted(cores, 'CPU core')}, which makes them slower:"
            f" set --trainer.devices to {cores} or less"
        )


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
