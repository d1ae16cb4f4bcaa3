"""The callback that explains a few images after each epoch."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from igos_pl.checks import check_at_least, check_choice
from igos_pl.data.batches import ImageBatch
from igos_pl.data.explanation import Explanation, explanations_of
from igos_pl.data.records import BatchResult
from igos_pl.errors import IgosError
from igos_pl.explainer import PRECISIONS, Explainer
from igos_pl.figures.overlay import figure_of
from igos_pl.models import Classifier
from igos_pl.models.base import ExplainableNetwork
from igos_pl.settings import Attributes
from igos_pl.store.segments import segment_bytes
from igos_pl.training import loggers
from igos_pl.training.samples import Samples, picture_of

# The prefix of all names in the loggers.
_GROUP = "explanations"

# A mask's cells have about this many pixels along a side, and there are not more of them than the default.
_PIXELS_PER_CELL, _MOST_CELLS = 4, 28

# The statuses of images without an explanation that deserve a warning. Detectors may find nothing.
_FAILED = ("failed", "nan")

# Strategies that split the weights between processes, so that no process can work alone.
_SHARDING = ("FSDPStrategy", "ModelParallelStrategy")


class ExplainCallback(Callback):
    """Explains a few fixed images after each epoch of a training, and logs pictures and scores.

    It works with any LightningModule whose ``forward`` returns logits::

        trainer = Trainer(callbacks=[ExplainCallback()])

    Each image has a picture ``explanations/0``, ``explanations/1``, ... The means over the images are
    ``explanations/deletion``, ``explanations/insertion`` and ``explanations/insertion_minus_deletion``. The
    masks go to ``explanations/epoch=000.h5``, ... beside the folder of Lightning's checkpoints, for
    `igos_pl.MaskFile`. If no logger takes pictures, they become PNG files there; without a logger, the
    numbers go to ``metrics.csv`` there.

    The training is not changed: weights, gradients, random numbers and modes are the same as without the
    callback. Under DDP the first process explains. If an explanation fails, a warning says why and the
    training goes on. Settings that cannot work are refused before the first epoch.

    Args:
        samples: what is explained: images ``(N, C, H, W)``, as the validation's loader gives them; or a tuple
            of images and labels ``(N,)``; or the number of images that are taken from the validation's first
            batches (of the first process and the first loader).
        every_n_epochs: explain after every n-th epoch.
        targets: ``predicted`` explains the class that the network predicts for an image at that time,
            ``label`` the image's label; a number is the class for all images, and a list has one for each.
        network: the network inside of the LightningModule, as in ``lambda module: module.backbone``, or an
            `ExplainableNetwork` around it; the LightningModule itself by default. It is asked once, when the
            training starts.
        mean: that images are normalised with, for values in [0, 1]; for each channel, or one for all. Images
            are explained as they are. Mean and std make pictures look natural, and baselines and noise have
            their exact meaning. Without them, pictures are stretched to the image's range.
        std: likewise.
        class_names: in label order.
        preset: see `Explainer.from_preset`.
        **settings: of `Explainer`; they win over the preset's. ``mask_size`` is a quarter of the images'
            shorter side by default, and at most 28.

    Raises:
        IgosError: if a setting cannot work.
    """

    def __init__(
        self,
        samples: int | Tensor | tuple[Tensor, Tensor | Sequence[int]] = 8,
        every_n_epochs: int = 1,
        targets: Literal["predicted", "label"] | int | Sequence[int] = "predicted",
        network: Callable[[Any], nn.Module] | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        class_names: list[str] | Literal["imagenet"] | None = None,
        preset: str = "fast",
        **settings: Any,
    ) -> None:
        check_at_least("every_n_epochs", every_n_epochs, 1)
        if isinstance(targets, str):
            check_choice("targets", targets, ("predicted", "label"))
        if (mean is None) != (std is None):
            raise IgosError("mean and std belong together: give both, or none")
        self.every_n_epochs = every_n_epochs
        self.targets = targets
        self.network = network
        self.mean, self.std = mean, std
        self.class_names = class_names
        self.preset = preset
        self.settings = settings
        self._given: Samples | None = None
        self._count = samples if isinstance(samples, int) else 0
        if isinstance(samples, int):
            check_at_least("samples", samples, 1)
        else:
            self._given = _given(samples)
            self._count = len(self._given)
            if targets == "label" and min(self._given.labels) < 0:
                raise IgosError("targets is 'label', but samples has no labels: pass (images, labels)")
        if isinstance(targets, Sequence) and not isinstance(targets, str) and len(targets) != self._count:
            raise IgosError(f"There are {len(targets)} targets for {self._count} samples: give one for each")
        largest = max(_MOST_CELLS, settings.get("mask_size", 0))  # the true size is not known yet
        self._explainer_of(Classifier(nn.Identity(), input_size=largest), largest)
        self._begin()

    def _begin(self) -> None:
        self._samples = self._given
        self._explainer: Explainer | None = None
        self._told: set[str] = set()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse trainings in which nothing could be explained."""
        self._begin()
        check_choice("trainer.precision", str(trainer.precision), PRECISIONS)
        strategy = type(trainer.strategy).__name__
        if strategy in _SHARDING or getattr(trainer.strategy, "zero_stage_3", False):
            raise IgosError(
                f"ExplainCallback needs the whole network in one process, but {strategy} splits its weights:"
                " use DDP, or leave the callback out"
            )
        if self._samples is None and not trainer.enable_validation:
            raise IgosError(
                f"samples is {self._count}, the number of images to take from the validation, but this"
                " training has no validation: pass samples=images or samples=(images, labels)"
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the images anew while there are too few: the sanity check has a few batches only."""
        if self._is_short(trainer):
            self._samples = None

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first images, as they arrive at the network. No loader is read for this."""
        if dataloader_idx or not self._is_short(trainer):
            return
        try:
            more = Samples.of(batch)
            if self.targets == "label" and min(more.labels) < 0:
                raise IgosError(
                    "targets is 'label', but the validation's batches have no labels: pass"
                    " samples=(images, labels) to ExplainCallback"
                )
            taken = more if self._samples is None else self._samples.and_more(more)
            self._samples = taken.first(self._count)
        except IgosError as error:
            if trainer.sanity_checking:
                raise
            self._tell(str(error))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say if the validation has too few images."""
        if self._is_short(trainer) and not trainer.sanity_checking and self._samples is not None:
            self._tell(f"samples is {self._count}, but the validation has only {len(self._samples)} images")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out before the first epoch whether the network can be explained, where images are known."""
        if self._samples is None:
            return
        with isolate_rng(include_cuda=pl_module.device.type == "cuda"):
            self._explainer = self._prepared(pl_module, self._samples)
            network = self._explainer.network
            batch = self._batch(network, self._samples).to(pl_module.device)
            with _eager(), _unlogged(network), trainer.precision_plugin.forward_context(), network.frozen():
                network.propose(network.normalize(batch.images), batch.truth_in_input())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Explain the samples if it is time. The other ranks go on."""
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 or _is_trial(trainer)
        if not due or not trainer.is_global_zero:
            return
        began = time.perf_counter()
        with isolate_rng(include_cuda=pl_module.device.type == "cuda"):
            try:
                self._explain(trainer, pl_module)
            except Exception as error:  # an explanation is not worth a training
                if _is_trial(trainer):
                    raise
                self._tell(str(error) if isinstance(error, IgosError) else f"{type(error).__name__}: {error}")
        logging.getLogger(__name__).debug(
            "epoch %d: explanations took %.1f s", trainer.current_epoch, time.perf_counter() - began
        )

    def _is_short(self, trainer: Trainer) -> bool:
        """Whether a training still takes images from its validation."""
        few = self._samples is None or len(self._samples) < self._count
        return few and trainer.state.fn == "fit"

    def _prepared(self, module: LightningModule, samples: Samples) -> Explainer:
        """The explainer of a training, once the size of its images is known."""
        chosen = module if self.network is None else self.network(module)
        adapter = self._adapter(chosen, samples)
        size = (samples.images.shape[-2], samples.images.shape[-1])
        if (adapter.channels, *adapter.input_size) != (samples.images.shape[1], *size):
            raise IgosError(
                f"The samples have the shape {tuple(samples.images.shape[1:])}, but {adapter.name} takes"
                f" {(adapter.channels, *adapter.input_size)}: set its input_size, mean and std"
            )
        adapter.pixel_mean = adapter.pixel_mean.to(module.device)
        adapter.pixel_std = adapter.pixel_std.to(module.device)
        return self._explainer_of(adapter, min(size))

    def _adapter(self, chosen: object, samples: Samples) -> ExplainableNetwork:
        if isinstance(chosen, ExplainableNetwork):
            own = {"mean": self.mean, "std": self.std, "class_names": self.class_names}
            given = [name for name, value in own.items() if value is not None]
            given += ["targets"] if self.targets != "predicted" else []
            if given:
                raise IgosError(f"{chosen.name} has its own {', '.join(given)}: set them there")
            return chosen
        if not isinstance(chosen, nn.Module):
            raise IgosError(f"network must return a torch.nn.Module, but returned a {type(chosen).__name__}")
        channels = samples.images.shape[1]
        family = _AsGiven if self.mean is None else Classifier
        return family(
            chosen,
            input_size=(samples.images.shape[-2], samples.images.shape[-1]),
            mean=_for_each(0.0 if self.mean is None else self.mean, channels),
            std=_for_each(1.0 if self.std is None else self.std, channels),
            class_names=self.class_names,
            targets="predicted" if self.targets == "predicted" else "ground_truth",
        )

    def _explainer_of(self, network: ExplainableNetwork, side: int) -> Explainer:
        """An explainer for images with this shorter side."""
        mask_size = max(2, min(_MOST_CELLS, side // _PIXELS_PER_CELL))
        return Explainer.from_preset(network, self.preset, **{"mask_size": mask_size, **self.settings})

    def _batch(self, network: ExplainableNetwork, samples: Samples) -> ImageBatch:
        """The samples for the explainer, with the labels that are to be explained."""
        targets = samples.labels if isinstance(self.targets, str) else _for_each(self.targets, self._count)
        return samples.batch(network, targets[: len(samples)])

    def _explain(self, trainer: Trainer, module: LightningModule) -> None:
        """Explain the samples, and log and write the results."""
        if self._samples is None:
            self._tell("There was no validation so far from which images could be taken")
            return
        if self._explainer is None:
            self._explainer = self._prepared(module, self._samples)
        explainer = self._explainer
        network = explainer.network
        batch = self._batch(network, self._samples)
        with _eager(), _unlogged(network), trainer.precision_plugin.forward_context():
            result = explainer.predict_step(batch.to(module.device))
        failed = {record.message: record.sample_id for record in result.images if record.status in _FAILED}
        for reason, image in failed.items():
            self._tell(reason, f" (image {image})")
        # As Lightning does for an epoch's own metrics: the last step of the epoch, not the next one.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
        attributes = self._attributes(trainer, explainer, step)
        rows = [row for row in explanations_of(result, attributes) if row.best and row.status == "ok"]
        metrics, pictures = _means(rows), dict(_drawn(row, batch, network) for row in rows)
        taken = loggers.log(trainer, {"epoch": trainer.current_epoch, **metrics}, pictures, step)
        if not _is_trial(trainer):
            self._write(trainer, result, attributes, {} if taken else pictures, metrics)

    def _attributes(self, trainer: Trainer, explainer: Explainer, step: int) -> Attributes:
        """What the file of masks says of their making."""
        vars(explainer.network).pop("weights_sha256", None)  # they have changed since the last epoch
        return {
            **explainer.describe(),
            "precision": str(trainer.precision),
            "preset": self.preset,
            "epoch": trainer.current_epoch,
            "step": step,
        }

    def _write(
        self,
        trainer: Trainer,
        result: BatchResult,
        attributes: Attributes,
        pictures: dict[str, loggers.Picture],
        metrics: dict[str, float],
    ) -> None:
        folder, name = loggers.folder_of(trainer), f"epoch={trainer.current_epoch:03d}"
        loggers.write_masks(folder / f"{name}.h5", segment_bytes([result], attributes))
        if pictures:
            loggers.write_pictures(folder / name, pictures)
        if not trainer.loggers:
            row = {"epoch": trainer.current_epoch, "step": attributes["step"], **metrics}
            loggers.append_row(folder / "metrics.csv", ["epoch", "step", *_METRICS], row)

    def _tell(self, reason: str, where: str = "") -> None:
        """Warn of something that is missing, once for each reason."""
        if reason not in self._told:
            self._told.add(reason)
            warnings.warn(f"ExplainCallback: {reason}{where}", stacklevel=2)


def _is_trial(trainer: Trainer) -> bool:
    """Whether this is ``fast_dev_run``: everything is tried once, nothing is written, and errors end it."""
    return bool(vars(trainer)["fast_dev_run"])


class _AsGiven(Classifier):
    """A classifier whose images are normalised already, by values that nobody has told."""

    unit = 1.0


_METRICS = tuple(f"{_GROUP}/{name}" for name in ("deletion", "insertion", "insertion_minus_deletion"))


def _given(samples: Any) -> Samples:
    """Images that were given to the constructor, with their labels if there are any."""
    if isinstance(samples, tuple | list) and len(samples) == 2:
        images, labels = samples[0], torch.as_tensor(samples[1])
        found = Samples.of((images, labels))
        if labels.shape != (len(found),) or min(found.labels) < 0:
            raise IgosError(
                f"samples has {len(found)} images, but labels of the shape {tuple(labels.shape)} and"
                f" {labels.dtype}: there must be one integer for each image"
            )
        return found
    return Samples.of(samples)


def _for_each(value: Any, count: int) -> list[Any]:
    """A value for each, where there may be one for all."""
    return list(value) if isinstance(value, Sequence) else [value] * count


def _means(rows: Sequence[Explanation]) -> dict[str, float]:
    """The mean scores; none where metrics are off or nothing was explained."""
    scored = [row for row in rows if not np.isnan(row.deletion)]
    if not scored:
        return {}
    deletion = float(np.mean([row.deletion for row in scored]))
    insertion = float(np.mean([row.insertion for row in scored]))
    return dict(zip(_METRICS, (deletion, insertion, insertion - deletion), strict=True))


def _drawn(row: Explanation, batch: ImageBatch, network: ExplainableNetwork) -> tuple[str, loggers.Picture]:
    """The name and the picture of an explanation. It also says the image's label if that is another one."""
    number, truth = int(row.sample_id), int(row.image["ground_truth"])
    label = row.label_name
    if truth not in (-1, row.label):
        label = f"{label}, labelled {network.label_name(truth)}"
    shown = Explanation({**row.values, "label_name": label}, row.image, row.attributes)
    name = f"{_GROUP}/{number}" if row.target == 0 else f"{_GROUP}/{number}-{row.target}"
    figure = figure_of(shown, picture_of(batch.images[number]))
    return name, loggers.Picture.of(figure, f"{label} ({row.score:.2f})")


@contextmanager
def _unlogged(network: nn.Module) -> Iterator[None]:
    """A forward pass that logs by ``self.log`` logs nothing: that would be mixed with the training's."""
    logging_modules = [module for module in network.modules() if hasattr(module, "log_dict")]
    for module in logging_modules:
        vars(module).update(log=_nothing, log_dict=_nothing)
    try:
        yield
    finally:
        for module in logging_modules:
            del vars(module)["log"], vars(module)["log_dict"]


def _nothing(*_: Any, **__: Any) -> None:
    """Takes the place of ``LightningModule.log``."""


def _eager() -> Any:
    """Compiled layers run uncompiled: new sizes would be compiled and use up the allowed recompilations."""
    return torch.compiler.set_stance("force_eager")
