"""``igos-pl evaluate``: judges the masks of a result, and prints the means."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path

from pytorch_lightning import Trainer
from rich.console import Console
from rich.table import Table

from igos_pl.cli.choosing import refuse_existing
from igos_pl.cli.console import say
from igos_pl.cli.messages import interrupts_explained, quieten_lightning, shortages_explained
from igos_pl.cli.parser import EvaluateCLI, parsed
from igos_pl.cli.presets import check_file
from igos_pl.cli.start_folder import paths_from_start
from igos_pl.data.wording import counted
from igos_pl.datamodules.base import SampleDataModule
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer
from igos_pl.judging.evaluate import Mean, evaluate_run, means_of
from igos_pl.judging.importer import IMPORTED, Importer
from igos_pl.judging.metrics import METRICS, Asked, asked_for
from igos_pl.run.run import Ending, Run
from igos_pl.run.signals import STOPPED
from igos_pl.store import MaskFile
from igos_pl.store.files import publishing

_GO_ON = "The values of finished images are kept: run the same command again to go on"


def evaluate(words: list[str]) -> int:
    """Judge a run as the command line says.

    Args:
        words: the arguments after ``evaluate``.

    Returns:
        The exit code: 0; 1 if some explanations could not be judged; 75 if a signal stopped the run.
    """
    quieten_lightning()
    sys.path.insert(0, str(Path.cwd()))  # users' own networks are there
    options, settings = _parsed(words)
    if options.metrics == "help":
        _print_metrics()
        return 0
    if options.run is None or options.metrics is None:
        raise IgosError(
            "RUN and --metrics are needed: igos-pl evaluate RUN --metrics road,sparseness"
            " (--metrics help lists all)"
        )
    if options.csv is not None:
        refuse_existing(options.csv, overwrite=True)
    asked = asked_for(options.metrics, options.cells, options.samples)
    path = options.run
    with MaskFile(path) as masks:
        imported = IMPORTED in masks.attributes
    config = path / "config.yaml"
    if config.is_file():
        check_file(str(config))
        settings = [f"--config={config}", *paths_from_start(config), *settings]
    cli = parsed(settings, EvaluateCLI, Importer if imported else Explainer)
    if cli.dry_run:
        raise IgosError("evaluate has no --dry_run: try it with --data.limit 10, and go on without the limit")
    trainers: list[Trainer] = []

    def trainer_in(folder: Path, one: Asked) -> Trainer:
        say(f"{one.name}: {one.metric.about}")
        trainers.append(cli.trainer_in(folder))
        return trainers[-1]

    if not isinstance(cli.datamodule, SampleDataModule):
        raise IgosError(f"evaluate needs a data module of igos_pl, not {type(cli.datamodule).__name__}")
    explainer = cli.model if isinstance(cli.model, Explainer) else None
    with interrupts_explained(lambda: _GO_ON), shortages_explained():
        ending = evaluate_run(path, asked, cli.model.network, cli.datamodule, trainer_in, explainer)
    if not trainers[-1].is_global_zero:
        return 0  # only the first rank reports
    failures = _report(path, asked, options.csv, trainers)
    if ending is Ending.STOPPED:
        print(f"Stopped by a signal. {_GO_ON}")
        return STOPPED
    return 1 if failures else 0


def _parsed(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own options, and the settings of network and data."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--metrics")
    parser.add_argument("--cells", type=int)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--csv", type=Path)
    try:
        options, others = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise IgosError(str(error)) from error
    options.run = None
    if others and not others[0].startswith("-"):
        options.run, others = Path(others[0]), others[1:]
    return options, others


def _print_metrics() -> None:
    print("metrics (docs/evaluation.md says what each one does not tell)\n")
    for metric in METRICS.values():
        library = f", by {metric.library}" if metric.library else ""
        print(f"{metric.name}: {metric.about}{library}")
        print("  figures    " + ", ".join(f"{name} ({good})" for name, good in metric.figures.items()))
        if metric.baselines:
            print(
                f"  baselines  {', '.join(metric.baselines)} [{metric.baseline}], as in {metric.name}:black"
            )
        if metric.samples:
            print(f"  samples    {metric.samples} (--samples)")


def _report(path: Path, asked: list[Asked], target: Path | None, trainers: list[Trainer]) -> int:
    """Print the means and the failures; returns the number of failed images."""
    wanted = {name: good for one in asked for name, good in one.columns.items()}
    with MaskFile(path) as masks:
        figures = {name: values for name, values in masks.evaluation.items() if name in wanted}
        means = means_of(figures, masks.column("sample_id"))
        method, rows = masks.attributes.get("method"), len(masks)
    console = Console()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("figure", "explanations", "mean", "standard error", ""):
        table.add_column(title, justify="left" if title in ("figure", "") else "right", no_wrap=True)
    for name, good in wanted.items():
        mean = means.get(name, Mean(0, float("nan"), float("nan")))
        table.add_row(name, f"{mean.number:,}", _text(mean.mean), _text(mean.error), good)
    console.print(f"{method}: means of {counted(rows, 'explanation')}", highlight=False, soft_wrap=True)
    console.print(table)
    failures = _print_failures(trainers)
    if target is not None:
        _write_csv(target, wanted, means)
    print(f"figures   {path / 'evaluation.h5'}\nnext      igos-pl info {path} --csv FILE")
    return failures


def _print_failures(trainers: list[Trainer]) -> int:
    """Print which images could not be judged, and why; returns their number."""
    failures = 0
    for trainer in trainers:
        folder = Run.of(trainer).folder
        statuses = folder.statuses() if folder.files() else {}
        failed = sorted(name for name, status in statuses.items() if status in ("failed", "unreadable"))
        failures += len(failed)
        if failed:
            reasons = _reasons(folder.path)
            print(f"{folder.path.name}: {counted(len(failed), 'image')} could not be judged")
            print(*(f"  {name}: {reasons.get(name, '')}" for name in failed[:_SHOWN]), sep="\n")
            print("  --data.retry_unreadable true tries them again")
    return failures


_SHOWN = 3


def _reasons(folder: Path) -> dict[str, str]:
    with MaskFile(folder) as file:
        return dict(zip(file.images["sample_id"].tolist(), file.images["message"].tolist(), strict=True))


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _write_csv(target: Path, wanted: dict[str, str], means: dict[str, Mean]) -> None:
    with publishing(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("figure", "explanations", "mean", "standard_error", "good"))
        for name, good in wanted.items():
            mean = means.get(name, Mean(0, float("nan"), float("nan")))
            writer.writerow((name, mean.number, mean.mean, mean.error, good.partition(" ")[0]))
