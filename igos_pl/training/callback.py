"""The callback that explains a few images after each epoch."""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from igos_pl.api import Explanations, explain
from igos_pl.api.images import check_one_for_each
from igos_pl.api.networks import Normalization, adapter_of
from igos_pl.api.regions import as_regions, has_map_of_each
from igos_pl.checks import check_choice, check_count
from igos_pl.data.explanation import Explanation
from igos_pl.data.run_files import EPOCH
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.figures import draw
from igos_pl.models import Classifier, Detector, ExplainableNetwork
from igos_pl.predicting import PRECISIONS
from igos_pl.training.loggers import Picture, append_row, folder_of, log, write_pictures
from igos_pl.training.samples import Samples

# The prefix of all names in the loggers.
_GROUP = "explanations"

# The values of ``targets`` that are text.
_OWN = ("predicted", "label")

# The largest side of an input in pixels, which no mask exceeds.
_LARGE = 1 << 14

# Settings of the check before the first epoch: a quick explanation. All methods ask the network for the same
# scores and gradients, and a search cannot be made shorter.
_CHECK: dict[str, Any] = {"method": "igos+", "iterations": 1, "metrics": False}

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
            ``label`` the image's label. Anything else is for `igos_pl.explain`: a class or a function of the
            output for all images, or a list with one for each.
        network: the network inside of the LightningModule, as in ``lambda module: module.backbone``, or an
            `ExplainableNetwork` around it; the LightningModule itself by default.
        mean: the mean that the samples are normalised with, for values in [0, 1]: one number for each
            channel, or one for all. Samples are explained as they are. With mean and std, pictures have
            natural colours, and baselines and noise are exact. Without them, pictures are stretched to the
            image's range of values.
        std: the standard deviation, given as ``mean``.
        class_names: names of the classes in label order; ``imagenet`` for the 1000 ImageNet classes.
        output: whether scores are the softmax (default) or the sigmoid of the logits.
        preset: see `igos_pl.explain`.
        **settings: arguments of `Explainer`; they override those of the preset.

    Raises:
        IgosError: if a setting cannot work.
    """

    def __init__(
        self,
        samples: int | Tensor | tuple[Tensor, Tensor | Sequence[int]] = 8,
        every_n_epochs: int = 1,
        targets: Literal["predicted", "label"] | Any = "predicted",
        network: Callable[[Any], nn.Module] | None = None,
        mean: Normalization = None,
        std: Normalization = None,
        class_names: list[str] | Literal["imagenet"] | None = None,
        output: Literal["softmax", "sigmoid"] | None = None,
        preset: str = "fast",
        **settings: Any,
    ) -> None:
        check_count("every_n_epochs", every_n_epochs, 1)
        if isinstance(network, nn.Module) or not (network is None or callable(network)):
            raise IgosError(
                f"network is a {type(network).__name__}, but must be a function that finds the network in the"
                " LightningModule, as in lambda module: module.backbone"
            )
        if isinstance(targets, str):
            check_choice("targets", targets, _OWN)
        if (mean is None) != (std is None):
            raise IgosError("mean and std belong together: give both, or none")
        self.every_n_epochs = every_n_epochs
        self.targets = targets
        self.network = network
        self.mean, self.std = mean, std
        self.class_names = class_names
        self.output = output
        self.preset = preset
        self.settings = settings
        self._given: Samples | None = None
        if isinstance(samples, int):
            check_count("samples", samples, 1)
            self._count = samples
        else:
            self._given = _given(samples)
            self._count = len(self._given)
            self._check_labels(self._given)
        if isinstance(targets, list | tuple):
            check_one_for_each("target", len(targets), self._count)
        if isinstance(settings.get("regions"), str):
            as_regions(settings["regions"], [])
        self._has_map_of_each = has_map_of_each(settings.get("regions"), self._count)
        # Checks the settings; the size of the images is not known yet.
        like = Classifier(nn.Identity(), class_names, output or "softmax", input_size=_LARGE)
        Explainer.from_preset(like, preset, **settings)
        self._begin()

    def _begin(self) -> None:
        self._samples = self._given
        self._told: set[str] = set()
        self._written = 0

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
        """Collect the images again if there are too few: the sanity check has only a few batches."""
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
            self._check_labels(more)
            taken = more if self._samples is None else self._samples.and_more(more)
            self._samples = taken.first(self._count)
        except IgosError as error:
            if trainer.sanity_checking:
                raise
            self._tell(str(error))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if the validation has too few images."""
        if self._is_short(trainer) and not trainer.sanity_checking and self._samples is not None:
            self._tell(f"samples is {self._count}, but the validation has only {len(self._samples)} images")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """If images are known already, check before the first epoch that the network can be explained."""
        if self._samples is None:
            return
        with isolate_rng(include_cuda=pl_module.device.type == "cuda"):
            self._explained(trainer, self._network(pl_module, self._samples), self._samples, **_CHECK)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Explain the samples on the first rank if this epoch is due."""
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 or _is_trial(trainer)
        if not due or not trainer.is_global_zero:
            return
        began = time.perf_counter()
        with isolate_rng(include_cuda=pl_module.device.type == "cuda"):
            try:
                self._explain(trainer, pl_module)
            except Exception as error:  # a failed explanation must not end the training
                if _is_trial(trainer):
                    raise
                self._tell(str(error) if isinstance(error, IgosError) else f"{type(error).__name__}: {error}")
        logging.getLogger(__name__).debug(
            "epoch %d: explanations took %.1f s", trainer.current_epoch, time.perf_counter() - began
        )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log where the explanations are, at level INFO by Lightning's logger."""
        if self._written:
            rank_zero_info(f"Explanations of {self._written} epochs are in {folder_of(trainer)}")

    def _is_short(self, trainer: Trainer) -> bool:
        """Whether a training still takes images from its validation."""
        few = self._samples is None or len(self._samples) < self._count
        return few and trainer.state.fn == "fit"

    def _check_labels(self, samples: Samples) -> None:
        if isinstance(self.targets, str) and self.targets == "label" and min(samples.labels) < 0:
            raise IgosError(
                "targets is 'label', but the samples have no labels: pass samples=(images, labels) to"
                " ExplainCallback"
            )

    def _network(self, module: LightningModule, samples: Samples) -> ExplainableNetwork:
        """What is explained, with its normalisation."""
        chosen = module if self.network is None else self.network(module)
        bare = {"class_names": self.class_names, "output": self.output}
        return adapter_of(chosen, samples.images, self.mean, self.std, **bare)

    def _explained(
        self, trainer: Trainer, network: ExplainableNetwork, samples: Samples, **more: Any
    ) -> Explanations:
        """Explain the samples as the network is now."""
        targets = self.targets[: len(samples)] if isinstance(self.targets, list | tuple) else self.targets
        if isinstance(targets, str):
            targets = samples.labels if targets == "label" else None
        settings = {**self.settings, **more}
        if self._has_map_of_each:
            settings["regions"] = settings["regions"][: len(samples)]
        with (
            _eager(),
            _unlogged(network),
            trainer.precision_plugin.forward_context(),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", module="igos_pl")  # the records below repeat them
            result = explain(
                network,
                samples.images,
                targets,
                self.preset,
                normalized=not isinstance(network, Detector),  # detectors normalise by themselves
                **settings,
            )
        for record in result.images:
            if record.message:
                self._tell(record.message, f" ({record.sample_id})")
        return result

    def _explain(self, trainer: Trainer, module: LightningModule) -> None:
        """Explain the samples, and log and write the results."""
        if self._samples is None:
            raise IgosError("No validation has run yet, so there are no images to explain")
        network = self._network(module, self._samples)
        result = self._explained(trainer, network, self._samples)
        # As Lightning does for an epoch's own metrics: the last step of the epoch, not the next one.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
        progress = {"epoch": trainer.current_epoch, "step": step}
        result.attributes.update(progress, precision=str(trainer.precision))
        rows = [row for row, best in enumerate(result.best) if best] if len(result) else []
        metrics = _means([result[row] for row in rows])
        pictures = dict(_drawn(result, row, self._samples.labels, network) for row in rows)
        taken = log(trainer, {"epoch": trainer.current_epoch, **metrics}, pictures, step)
        if _is_trial(trainer):
            return
        folder, name = folder_of(trainer), f"{EPOCH}{trainer.current_epoch:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        masks = folder / f"{name}.h5"
        masks.unlink(missing_ok=True)  # left by an earlier training
        result.save(masks)
        self._written += 1
        if not taken:
            write_pictures(folder / name, pictures)
        if not trainer.loggers:
            append_row(folder / "metrics.csv", [*progress, *_METRICS], {**progress, **metrics})

    def _tell(self, reason: str, where: str = "") -> None:
        """Warn of something, once for each reason whatever its numbers are."""
        kind = re.sub(r"[\d.]+", "", reason)
        if kind not in self._told:
            self._told.add(kind)
            warnings.warn(f"ExplainCallback: {reason}{where}", stacklevel=2)


def _is_trial(trainer: Trainer) -> bool:
    """Whether this is ``fast_dev_run``: everything is tried once, nothing is written, and errors end it."""
    return bool(vars(trainer)["fast_dev_run"])


_METRICS = tuple(f"{_GROUP}/{name}" for name in ("deletion", "insertion", "insertion_minus_deletion"))


def _given(samples: Any) -> Samples:
    """Images that were given to the constructor, with their labels if there are any."""
    if isinstance(samples, tuple | list) and len(samples) == 2:
        try:
            images, labels = samples[0], torch.as_tensor(samples[1])
        except (TypeError, ValueError, RuntimeError) as error:
            raise IgosError(
                f"samples has images, but {type(samples[1]).__name__} as labels: there must be one integer"
                " for each image"
            ) from error
        found = Samples.of((images, labels))
        if labels.shape != (len(found),) or min(found.labels) < 0:
            raise IgosError(
                f"samples has {len(found)} images, but labels of the shape {tuple(labels.shape)} and"
                f" {labels.dtype}: there must be one integer for each image"
            )
        return found
    return Samples.of(samples)


def _means(rows: Sequence[Explanation]) -> dict[str, float]:
    """The mean scores; none where metrics are off or nothing was explained."""
    scored = [row for row in rows if not np.isnan(row.deletion)]
    if not scored:
        return {}
    deletion = float(np.mean([row.deletion for row in scored]))
    insertion = float(np.mean([row.insertion for row in scored]))
    return dict(zip(_METRICS, (deletion, insertion, insertion - deletion), strict=True))


def _drawn(
    result: Explanations, row: int, labels: Sequence[int], network: ExplainableNetwork
) -> tuple[str, Picture]:
    """The name and the picture of an explanation. The caption adds the image's label if it differs."""
    explanation, number = result[row], int(result.image_index[row])
    label, truth = explanation.label_name, labels[number]
    if truth not in (-1, explanation.label) and isinstance(network, Classifier):
        label = f"{label}, labelled {network.label_name(truth)}"
    shown = replace(explanation, values={**explanation.values, "label_name": label})
    name = f"{_GROUP}/{number}" if explanation.target == 0 else f"{_GROUP}/{number}-{explanation.target}"
    figure = draw([shown])
    return name, Picture.of(figure, f"{label} ({explanation.score:.2f})")


@contextmanager
def _unlogged(network: nn.Module) -> Iterator[None]:
    """Turn off ``self.log`` in a network: its values would be mixed with those of the training."""
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
    """Run compiled layers uncompiled: new sizes would be compiled and use up the allowed recompilations."""
    return torch.compiler.set_stance("force_eager")
