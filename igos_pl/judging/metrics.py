"""The metrics by their names, and what a person asks for: ``deletion_insertion:mean,road,sparseness``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from igos_pl.checks import check_count, closest
from igos_pl.errors import IgosError
from igos_pl.judging import maps, reexplaining, removal, sampling
from igos_pl.judging.removal import INPAINT
from igos_pl.judging.rows import Rows
from igos_pl.solver.baselines import BASELINES

Compute = Callable[[Rows], dict[str, Tensor]]

HIGH, LOW = "high is good", "low is good"


@dataclass(frozen=True)
class Metric:
    """A way to judge masks.

    Attributes:
        name: as it is asked for.
        about: what it measures, in one line.
        figures: the names of its figures, and which values are good.
        compute: the figures ``(R,)`` of R rows.
        baseline: what removed cells are replaced by unless one is named; None if no baseline is used.
        inpainted: the same metric with removed cells painted in; None if it cannot.
        samples: how often it samples for each row by default; 0 if it does not sample.
        library: whose code it is; empty for our own.
    """

    name: str
    about: str
    figures: Mapping[str, str]
    compute: Compute
    baseline: str | None = None
    inpainted: Compute | None = None
    samples: int = 0
    library: str = ""

    @property
    def baselines(self) -> tuple[str, ...]:
        """The baselines that can be named."""
        if self.baseline is None:
            return ()
        return (*BASELINES, *((INPAINT,) if self.inpainted else ()))


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "deletion_insertion",
            "areas under the deletion and insertion curves",
            {"deletion": LOW, "insertion": HIGH, "difference": HIGH},
            removal.deletion_insertion,
            "mean",
            removal.inpainted_deletion_insertion,
        ),
        Metric(
            "morf_lerf",
            "most and least relevant cells first, hard borders; AOPC",
            {"morf": LOW, "lerf": HIGH, "lerf_morf": HIGH, "aopc": HIGH},
            removal.morf_lerf,
            "mean",
            removal.inpainted_morf_lerf,
        ),
        Metric(
            "road",
            "half of LeRF - MoRF, pixels filled by noisy linear imputation",
            {"road": HIGH},
            removal.road,
            library="grad-cam",
        ),
        Metric(
            "infidelity",
            "squared error when the saliency predicts the score's fall",
            {"infidelity": LOW},
            sampling.infidelity,
            "mean",
            samples=50,
            library="captum",
        ),
        Metric(
            "mufidelity",
            "correlation of the saliency of random cells with the score's fall",
            {"mufidelity": HIGH},
            sampling.mufidelity,
            "mean",
            samples=50,
            library="quantus",
        ),
        Metric(
            "sensitivity",
            "largest relative change of the saliency under small noise; explains again",
            {"sensitivity": LOW},
            reexplaining.sensitivity,
            samples=3,
            library="captum",
        ),
        Metric(
            "sparseness",
            "Gini index of the cells",
            {"sparseness": HIGH},
            maps.sparseness,
            library="quantus",
        ),
        Metric(
            "complexity",
            "entropy of the cells' shares of the saliency",
            {"complexity": LOW},
            maps.complexity,
            library="quantus",
        ),
        Metric(
            "pointing_game",
            "whether the peak lies in the annotated object",
            {"pointing_game_box": HIGH, "pointing_game_mask": HIGH},
            maps.pointing,
        ),
        Metric(
            "energy_game",
            "share of the saliency in the annotated object",
            {"energy_game_box": HIGH, "energy_game_mask": HIGH},
            maps.energy,
        ),
    )
}


@dataclass(frozen=True)
class Asked:
    """A metric with everything that its figures depend on.

    Attributes:
        metric: the metric.
        baseline: what removed cells are replaced by; None if no baseline is used.
        cells: N if masks are judged in N x N cells; None for their own cells.
        samples: how often it samples for each row; 0 if it does not sample.
    """

    metric: Metric
    baseline: str | None = None
    cells: int | None = None
    samples: int = 0

    @property
    def compute(self) -> Compute:
        """What computes the figures."""
        inpainted = self.metric.inpainted
        return inpainted if self.baseline == INPAINT and inpainted else self.metric.compute

    @property
    def name(self) -> str:
        """The name of its folder: ``morf_lerf-black-cells28``."""
        return "-".join((self.metric.name, *self._settings()))

    def column(self, figure: str) -> str:
        """The name of a figure's column: ``aopc_black_cells28``."""
        return "_".join((figure, *self._settings()))

    def _settings(self) -> list[str]:
        """The settings that names contain: not the default number of samples."""
        baseline = [self.baseline] if self.baseline else []
        cells = [f"cells{self.cells}"] if self.cells else []
        samples = [f"samples{self.samples}"] if self.samples != self.metric.samples else []
        return baseline + cells + samples

    @property
    def columns(self) -> dict[str, str]:
        """The names of its columns, and which values are good."""
        return {self.column(figure): good for figure, good in self.metric.figures.items()}


def asked_for(
    names: str | Sequence[str], cells: int | None = None, samples: int | None = None
) -> list[Asked]:
    """The metrics that a person asks for.

    Args:
        names: metrics or figures, with a baseline after a colon where one is used; a text separated by
            commas, or a list.
        cells: judge all in N x N cells.
        samples: how often metrics that sample do so; by default, each has its own number.

    Raises:
        IgosError: if there is no such metric or baseline, or none is named.
    """
    if not isinstance(names, str | list | tuple):
        raise IgosError(
            f"metrics is of the type {type(names).__name__}, but must be names, in a text or a list"
        )
    words = [word.strip() for word in (names.split(",") if isinstance(names, str) else names)]
    words = [word for word in words if word]
    if not words:
        raise IgosError(f"No metric is named: choose some of {', '.join(METRICS)}")
    if cells is not None:
        check_count("cells", cells, 2)
    if samples is not None:
        check_count("samples", samples, 2)
    found = {}
    for word in words:
        one = _one(word, cells, samples)
        found[one.name] = one
    return list(found.values())


def _one(word: str, cells: int | None, samples: int | None) -> Asked:
    name, colon, baseline = word.partition(":")
    metric = METRICS.get(name) or next((each for each in METRICS.values() if name in each.figures), None)
    if metric is None:
        known = [*METRICS, *(figure for each in METRICS.values() for figure in each.figures)]
        close = closest(name, known)
        advice = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(METRICS)}."
        raise IgosError(f"There is no metric {name!r}: {advice} igos-pl evaluate --metrics help lists all")
    if colon and baseline not in metric.baselines:
        choices = f"choose one of {', '.join(metric.baselines)}" if metric.baselines else "it uses none"
        raise IgosError(f"{word!r}: {metric.name} has no baseline {baseline!r}: {choices}")
    return Asked(
        metric, baseline or metric.baseline, cells, (samples or metric.samples) if metric.samples else 0
    )
