"""Judges a whole run by several metrics, one after the other, and joins their figures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Trainer

from igos_pl.data.run_files import FIGURES
from igos_pl.data.text import first_few
from igos_pl.data.wording import counted
from igos_pl.datamodules.base import SampleDataModule
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.judging.judge import ExplainedRun, Judge, check_network
from igos_pl.judging.metrics import Asked
from igos_pl.models import ExplainableNetwork
from igos_pl.run.run import Ending, Run
from igos_pl.store import MaskFile
from igos_pl.store.evaluations import write_evaluation
from igos_pl.store.schema import KEYS


def evaluate_run(
    path: Path,
    asked: Sequence[Asked],
    network: ExplainableNetwork,
    data: SampleDataModule,
    trainer_in: Callable[[Path, Asked], Trainer],
    explainer: Explainer | None = None,
) -> Ending:
    """Judge the masks of a run.

    The figures of each metric are published in a folder ``evaluation/METRIC`` of the run while it goes on,
    and joined in ``evaluation.h5`` at the end. A second call goes on where the first one ended.

    Args:
        path: the run's folder.
        asked: the metrics.
        network: the network that was explained.
        data: the images.
        trainer_in: a trainer that writes to a folder.
        explainer: made the masks; needed for sensitivity alone.

    Returns:
        How the last pass over the data ended. ``STOPPED`` if a signal stopped one.

    Raises:
        IgosError: if the network or the data are not those of the run.
    """
    if not path.is_dir():
        raise IgosError(f"{path} is not the output folder of a run")
    with MaskFile(path) as masks:
        run = ExplainedRun(masks)
        check_network(network, run.attributes)
        judges = [Judge(network, run, each, explainer) for each in asked]
        names = run.images()
        before, data.only = data.only, names
        try:
            return _pass_by_pass(path, judges, data, names, trainer_in)
        finally:
            data.only = before


def _pass_by_pass(
    path: Path,
    judges: Sequence[Judge],
    data: SampleDataModule,
    names: set[str],
    trainer_in: Callable[[Path, Asked], Trainer],
) -> Ending:
    """A pass over the data for each metric, until a signal stops one."""
    ending, first = Ending.FINISHED, False
    try:
        for judge in judges:
            trainer = trainer_in(path / FIGURES / judge.asked.name, judge.asked)
            trainer.predict(judge, data, return_predictions=False)
            ending, first = Run.of(trainer).ending, trainer.is_global_zero
            if first:
                _tell_missing(names, Run.of(trainer).expected)
            if ending is Ending.STOPPED:
                break
    finally:
        if first:  # also if a later metric cannot be computed
            _join_figures(path)
    return ending


def _join_figures(path: Path) -> None:
    """Write ``evaluation.h5`` of a run's folder anew."""
    with MaskFile(path) as masks:
        write_evaluation(path, [masks.column(name) for name in KEYS], masks.attributes)


def _tell_missing(names: set[str], found: Sequence[str]) -> None:
    missing = sorted(names - set(found))
    if missing:
        logging.getLogger(__name__).warning(
            "not in the data, and not judged: %s of the run (%s)",
            counted(len(missing), "image"),
            first_few(missing),
        )


@dataclass(frozen=True)
class Mean:
    """The mean of a figure.

    Attributes:
        number: of the rows whose figure is known.
        mean: their mean; NaN if there are none.
        error: its standard error, where the rows of one image count together; NaN for a single image.
    """

    number: int
    mean: float
    error: float


def means_of(figures: Mapping[str, NDArray[Any]], images: NDArray[Any]) -> dict[str, Mean]:
    """The mean of each figure.

    Args:
        figures: ``(R,)`` each; NaN is left out.
        images: ``(R,)`` the image of each row.
    """
    return {name: _mean(values.astype(np.float64), images) for name, values in figures.items()}


def _mean(values: NDArray[np.float64], images: NDArray[Any]) -> Mean:
    known = np.isfinite(values)
    values, images = values[known], images[known]
    if not len(values):
        return Mean(0, float("nan"), float("nan"))
    mean = float(values.mean())
    _, number = np.unique(images, return_inverse=True)
    clusters = int(number.max()) + 1
    sums = np.bincount(number, values - mean)
    if clusters < 2:
        return Mean(len(values), mean, float("nan"))
    # Errors of one image's rows are not independent: the sums of the images are.
    error = float(np.sqrt((sums**2).sum() * clusters / (clusters - 1)) / len(values))
    return Mean(len(values), mean, error)
