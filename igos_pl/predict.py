"""``igos-pl predict``: Lightning's command line around the explainer."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

import igos_pl.models  # noqa: F401  short class names are found among what is imported
from igos_pl.callbacks import MaskProgressBar, MaskWriter, OverlayWriter
from igos_pl.datamodules import ImageFolderDataModule, ImageNetDataModule  # noqa: F401
from igos_pl.explainer import Explainer
from igos_pl.optimizers import NAG, LineSearch  # noqa: F401
from igos_pl.store import RunFolder


class PredictCLI(LightningCLI):
    """Explainer, data and trainer from YAML files and the command line."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The output folder, the callbacks, and what is assumed where nothing is said."""
        parser.add_argument("--output", type=str, default="runs/predict", help="folder of the results")
        parser.link_arguments("output", "trainer.default_root_dir")
        parser.add_lightning_class_args(MaskWriter, "writer")
        parser.add_lightning_class_args(OverlayWriter, "overlays")
        parser.set_defaults(
            {
                "model.network": {"class_path": "igos_pl.models.EfficientNetLite0"},
                "data": {"class_path": "igos_pl.datamodules.ImageFolderDataModule"},
            }
        )


class SaveConfig(Callback):
    """Writes the resolved settings beside the results, once these are known to fit."""

    def __init__(self, yaml: str) -> None:
        self.yaml = yaml

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``config.yaml``."""
        if trainer.is_global_zero:
            (RunFolder(trainer.default_root_dir).path / "config.yaml").write_text(self.yaml)


def predict(words: list[str]) -> int:
    """Explain a data set as the command line says.

    Args:
        words: those after ``predict``.

    Returns:
        The exit code: 0, or 1 if images are missing from the result at the end.
    """
    _quieten_lightning()
    cli = PredictCLI(
        Explainer,
        LightningDataModule,
        subclass_mode_data=True,
        save_config_callback=None,
        seed_everything_default=False,
        trainer_defaults={
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "callbacks": [MaskProgressBar()],
        },
        parser_kwargs={"prog": "igos-pl predict"},
        args=words,
        run=False,
    )
    trainer, data = cli.trainer, cli.datamodule
    yaml = cli.parser.dump(cli.config, skip_link_targets=False)
    trainer.callbacks.append(SaveConfig(yaml))  # type: ignore[attr-defined]
    trainer.predict(cli.model, data, return_predictions=False)
    return _report(trainer, data)


def _report(trainer: Any, data: Any) -> int:
    """Compare what was written with what was asked for."""
    if not trainer.is_global_zero:
        return 0
    run = RunFolder(trainer.default_root_dir)
    missing = [sample.id for sample in data.samples if sample.id not in run.done()]
    if missing:
        shown = "\n  ".join(missing[:20])
        print(f"{len(missing)} of {len(data.samples)} images are missing from {run.path}:\n  {shown}")
        return 1
    print(f"{len(data.samples)} images are in {run.merged}")
    return 0


def _quieten_lightning() -> None:
    """Lightning speaks of training; what matters here is said by the callbacks."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*predict_dataloader.*")
    warnings.filterwarnings("ignore", message=".*LightningCLI.s args parameter.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", message=".*across ranks is zero.*")
