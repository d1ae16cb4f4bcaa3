"""Other methods' saliency, and metrics, for images in memory and for runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from torch import Tensor, nn

from igos_pl.api.call import answer, question
from igos_pl.api.images import channels_last, check_one_for_each
from igos_pl.api.networks import Normalization
from igos_pl.api.result import Explanations
from igos_pl.callbacks import MaskProgressBar
from igos_pl.checks import check_arguments
from igos_pl.data.items import PICTURE_CHANNELS
from igos_pl.data.records import Columns
from igos_pl.datamodules.base import SampleDataModule
from igos_pl.errors import IgosError, without_options
from igos_pl.evaluation.columns import joined
from igos_pl.explainer import Explainer
from igos_pl.judging.evaluate import evaluate_run
from igos_pl.judging.importer import Importer
from igos_pl.judging.judge import EvaluationWriter, ExplainedInMemory, Judge
from igos_pl.judging.metrics import Asked, asked_for
from igos_pl.judging.saliency_files import MapsInMemory
from igos_pl.models import ExplainableNetwork
from igos_pl.predicting import MASK_SIZE
from igos_pl.store import MaskFile


@without_options()
def import_saliency(
    saliency: Any,
    network: nn.Module | str,
    images: Any,
    targets: Any = None,
    method: str = "imported",
    *,
    mask_size: int | None = None,
    negative: Literal["refuse", "zero", "absolute", "keep"] = "refuse",
    covers: Literal["input", "image"] = "input",
    baseline: Literal["blur", "black", "mean", "noise"] = "blur",
    metrics: bool = True,
    mean: Normalization = None,
    std: Normalization = None,
    normalized: bool = False,
    batch_size: int = 8,
    **bare: Any,
) -> Explanations:
    """Turn saliency of another method into explanations, with deletion and insertion.

    Args:
        saliency: of the N images, high is important: a tensor or array ``(N, h, w)``; ``(N, C, h, w)``, of
            which the channels are summed, as Captum's attributions are; or a list of N arrays, each
            ``(h, w)`` or ``(targets, h, w)``.
        network: see `igos_pl.explain`.
        images: see `igos_pl.explain`.
        targets: what the maps explain; see `igos_pl.explain`.
        method: the name of the method.
        mask_size: cells along the side of a mask, of which each gets the mean of the saliency in it; by
            default 28, or the resolution of the maps or of the network's input if that is less.
        negative: see `igos_pl.judging.importer.Importer`.
        covers: likewise.
        baseline: of the curves.
        metrics: whether deletion and insertion curves are computed.
        mean: see `igos_pl.explain`.
        std: see `igos_pl.explain`.
        normalized: see `igos_pl.explain`.
        batch_size: number of images that are scored together.
        **bare: ``input_size``, ``class_names``, ``output`` and ``top_k``; see `igos_pl.explain`.

    Returns:
        The explanations in the order of the images. ``masks`` are 1 minus the saliency, scaled so that its
        largest value is 1.

    Raises:
        IgosError: if the arguments do not fit together, or a map cannot be used.
    """
    _check_bare(import_saliency, bare)
    asked = question(network, images, targets, mean, std, normalized, batch_size, **bare)
    maps = _each(saliency, asked.inputs.images)
    names = [record.sample_id for record in asked.inputs.records]
    sides = (length for one in maps for length in one.shape[-2:])
    size = min(MASK_SIZE, *asked.network.input_size, *sides)
    importer = Importer(
        asked.network,
        MapsInMemory(dict(zip(names, maps, strict=True))),
        method,
        mask_size=mask_size or size,
        negative=negative,
        covers=covers,
        baseline=baseline,
        metrics=metrics,
    )
    importer.check_signs(names)
    return answer(importer, asked)


def _check_bare(function: Callable[..., Any], bare: Iterable[str]) -> None:
    """Raise if a function is called with an argument that it does not have."""
    named = [name for name in inspect.signature(function).parameters if name != "bare"]
    check_arguments(function.__name__, bare, [*named, "input_size", "class_names", "output", "top_k"])


def _each(saliency: Any, images: Tensor) -> list[NDArray[Any]]:
    """An array for each of the images ``(N, C, H, W)``."""
    if isinstance(saliency, Tensor | np.ndarray):
        whole = _array(saliency)
        if whole.ndim == 4:
            if _is_channels_last(whole.shape, images.shape[-2] / images.shape[-1]):
                raise channels_last("saliency", whole.shape)
            whole = whole.sum(1)
        if whole.ndim != 3:
            raise IgosError(
                f"saliency must have the shape (N, h, w) or (N, C, h, w), but has {tuple(saliency.shape)}"
            )
        each = list(whole)
    elif isinstance(saliency, list | tuple):
        each = [_array(one) for one in saliency]
    else:
        raise IgosError(
            f"saliency is of the type {type(saliency).__name__}, but must be a tensor, an array, or a list of"
            " these. For files, use igos-pl import"
        )
    check_one_for_each("saliency map", len(each), len(images), one_for_all=False)
    return each


def _is_channels_last(shape: Sequence[int], aspect: float) -> bool:
    """Whether maps have the images' height / width only if their last axis holds their channels."""
    _, first, second, last = shape
    return last in PICTURE_CHANNELS and first / second == aspect != second / last


def _array(values: Any) -> NDArray[Any]:
    if isinstance(values, Tensor):
        return values.detach().cpu().to(torch.promote_types(values.dtype, torch.float32)).numpy()
    return np.asarray(values)


@without_options()
def evaluate(
    explanations: Explanations | str | Path,
    metrics: str | Sequence[str],
    network: nn.Module | str,
    images: Any,
    targets: Any = None,
    *,
    cells: int | None = None,
    samples: int | None = None,
    explainer: Explainer | None = None,
    mean: Normalization = None,
    std: Normalization = None,
    normalized: bool | None = None,
    batch_size: int | None = None,
    **bare: Any,
) -> dict[str, NDArray[np.float32]]:
    """Judge explanations by metrics.

    Args:
        explanations: what `igos_pl.explain` or `import_saliency` returned; or the folder of a run.
        metrics: names, separated by commas or in a list, with a baseline after a colon where one is used:
            ``"deletion_insertion:black,road"``. See `igos_pl.judging.metrics.METRICS`.
        network: what was explained; see `igos_pl.explain`. For a run, an adapter such as
            `igos_pl.Classifier`.
        images: those that were explained; see `igos_pl.explain`. For a run, its data module.
        targets: as they were given to `igos_pl.explain`; not for a run.
        cells: N to judge all masks in N x N cells; by default, each is judged in its own.
        samples: how often metrics that sample do so for each explanation; by default, each has its own
            number.
        explainer: made the masks; needed for ``sensitivity`` alone. Its settings must be those of the run.
        mean: see `igos_pl.explain`; like all that follow, not for a run.
        std: see `igos_pl.explain`.
        normalized: see `igos_pl.explain`; false by default.
        batch_size: number of images that are judged together; 8 by default.
        **bare: ``input_size``, ``class_names``, ``output`` and ``top_k``; see `igos_pl.explain`.

    Returns:
        The figures by name, one for each explanation; NaN where a figure is unknown. Names contain the
        baseline, the cells and the samples: ``infidelity_mean_cells28_samples100``. Those of a run are
        also in ``evaluation.h5`` in its folder.

    Raises:
        IgosError: if the arguments do not fit together, or the network is not the one that was explained.
    """
    _check_bare(evaluate, bare)
    asked = asked_for(metrics, cells, samples)
    if isinstance(explanations, str | Path):
        given = {
            "targets": targets,
            "mean": mean,
            "std": std,
            "normalized": normalized,
            "batch_size": batch_size,
            **bare,
        }
        if unused := [name for name, value in given.items() if value is not None]:
            raise IgosError(
                f"For a run, leave {', '.join(unused)} out: its network and data module have them"
            )
        return _evaluate_run(Path(explanations), asked, network, images, explainer)
    if not isinstance(explanations, Explanations):
        raise IgosError(
            f"explanations is of the type {type(explanations).__name__}, but must be what explain or"
            " import_saliency returned, or the folder of a run"
        )
    normalized = False if normalized is None else normalized
    batch_size = 8 if batch_size is None else batch_size
    made = question(network, images, targets, mean, std, normalized, batch_size, **bare)
    rows = ExplainedInMemory(list(explanations), explanations.attributes)
    names = {record.sample_id for record in made.inputs.records}
    strange = [row.sample_id for row in explanations if row.sample_id not in names]
    if strange:
        raise IgosError(
            f"The explanations are of other images ({strange[0]}, for example): give the images that were"
            " explained, in the same order"
        )
    figures: Columns = {}
    for one in asked:
        judge = Judge(made.network, rows, one, explainer)
        tables = [judge.explain_batch(batch).explanations for batch in made.batches]
        found = joined([table for table in tables if table])
        figures.update({name: found[name] for name in one.columns})
    return figures


def _evaluate_run(
    path: Path, asked: Sequence[Asked], network: Any, data: Any, explainer: Explainer | None
) -> dict[str, NDArray[np.float32]]:
    if not isinstance(network, ExplainableNetwork):
        raise IgosError("For a run, network must be an adapter, as in igos_pl.Classifier(network)")
    if not isinstance(data, SampleDataModule):
        raise IgosError(
            "For a run, images must be its data module: igos_pl.ImageFolderDataModule(folder), ..."
        )

    def trainer_in(folder: Path, one: Asked) -> Trainer:
        return Trainer(
            default_root_dir=folder,
            callbacks=[EvaluationWriter(), MaskProgressBar()],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )

    evaluate_run(path, asked, network, data, trainer_in, explainer)
    with MaskFile(path) as masks:
        found, unknown = masks.evaluation, np.full(len(masks), np.nan, np.float32)
        return {name: found.get(name, unknown) for one in asked for name in one.columns}
