"""``igos-pl predict``: explains a data set, and prints a summary at the end."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

from igos_pl.cli.messages import interrupts_explained, quieten_lightning, shortages_explained
from igos_pl.cli.parser import PredictCLI, parsed
from igos_pl.cli.summary import means, remarks, statuses_in_words
from igos_pl.data.records import FAILED
from igos_pl.data.run_files import OVERLAYS
from igos_pl.data.text import printable
from igos_pl.data.wording import counted, is_or_are, method_in_words
from igos_pl.run.run import Ending, Run
from igos_pl.run.signals import STOPPED
from igos_pl.store import MaskFile

_SHOWN = 5  # the number of images whose problems the summary lists


def predict(words: list[str]) -> int:
    """Explain a data set as the command line says.

    Args:
        words: the arguments after ``predict``, as `with_preset` returns them.

    Returns:
        The exit code: 0; 1 if images are missing from the result at the end, or if none of a complete result
        could be explained; 75 if a signal stopped the run.

    Raises:
        IgosError: if a setting is wrong.
    """
    quieten_lightning()
    sys.path.insert(0, str(Path.cwd()))  # users' own networks are there
    return go_through(parsed(words, PredictCLI))


def go_through(cli: PredictCLI) -> int:
    """Go through the data as the command line says, and print a summary; returns the exit code."""
    with interrupts_explained(lambda: _kept(cli)), shortages_explained():
        cli.trainer.predict(cli.model, cli.datamodule, return_predictions=False)
    if not cli.trainer.is_global_zero:
        return 0  # only the first rank reports: the launcher kills it if another rank exits with an error
    run = Run.of(cli.trainer)
    if run.ending is Ending.STOPPED:
        if not cli.dry_run:
            left = counted(len(run.folder.missing()), "image")
            print(f"Stopped by a signal with {left} left: run the same command again to go on")
        return STOPPED
    if run.assigned and not run.pending:
        print("There is nothing to do: all images of this run have results")
    return 0 if cli.dry_run else _report(run)


def _kept(cli: PredictCLI) -> str:
    """What an interrupted run has kept, and how to go on."""
    run = Run.find(cli.trainer)
    if cli.dry_run or run is None:
        return "This command wrote nothing"
    total, left = len(run.assigned), len(run.missing())
    if not left:
        return "All images are explained: run the same command again to merge the results"
    if left == total:
        return (
            "No image was finished yet, so nothing is kept. Run the same command again to start over; a"
            " smaller --data.batch_size finishes the first images sooner"
        )
    return (
        f"The results of {total - left:,} of {counted(total, 'image')} are kept in {run.folder.path};"
        f" unfinished images are not. Run the same command again to go on with the other {left:,}"
    )


def _differences(run: Run, statuses: Collection[str]) -> str:
    """How the folder's images differ from those of this run and of the data set, in words."""
    others = len(set(statuses) - set(run.assigned))
    gone = len(set(statuses) - set(run.expected))
    left = sum(name not in statuses for name in run.expected)
    remarks = [f"; this run was to explain {len(run.assigned)} of them"] if others else []
    remarks += [f"; {gone} no longer in the data set"] if gone else []
    remarks += [f"; {left} still missing"] if left else []
    return "".join(remarks)


def _report(run: Run) -> int:
    """Print the results, the problems, the output paths and what is missing; returns the exit code."""
    statuses = (run.published or run.folder.published()).statuses_by_id()
    missing = run.missing(statuses)
    code = _print_results(run, statuses, bool(missing)) if statuses or not missing else 0
    if missing:
        shown = [f"{name}: {run.unread[name]}" if name in run.unread else name for name in missing[:_SHOWN]]
        more = [f"and {len(missing) - _SHOWN:,} more"] if len(missing) > _SHOWN else []
        whole, verb = counted(len(run.assigned), "image"), is_or_are(len(missing))
        told = f"{len(missing):,} of {whole} {verb} missing from {run.folder.path}:"
        print(told, *map(printable, shown), *more, sep="\n  ")
        print("Run the same command again to go on with them")
    return 1 if missing else code


def _print_results(run: Run, statuses: dict[str, str], incomplete: bool) -> int:
    """Print the results, the problems and the output paths; returns the exit code.

    Args:
        run: a run that came to its end.
        statuses: of the images in its folder, by their ids.
        incomplete: whether images of this run are missing.
    """
    merged = run.folder.is_merged()
    where = run.folder.merged if merged else run.folder.segments_path
    verb = is_or_are(len(statuses))
    kinds = f": {statuses_in_words(statuses.values())}" if statuses else ""
    print(f"{counted(len(statuses), 'image')} {verb} in {where}{kinds}{_differences(run, statuses)}")
    if not statuses:  # an empty shard of an array
        return 0
    failed = any(statuses.get(name) in FAILED for name in run.assigned)
    # Other shards may still explain images.
    in_vain = statuses.keys() >= set(run.expected) and set(statuses.values()).issubset(FAILED)
    with MaskFile(where if merged else run.folder.path) as masks:
        print(f"{counted(len(masks), 'explanation')}: {method_in_words(masks.attributes)}")
        threshold = masks.attributes.get("network.score_threshold")
        # With other choices, there may be detections that are not wanted.
        everything = [masks.attributes.get(f"network.{name}") for name in ("targets", "categories")]
        if not len(masks) and "no detection" in statuses.values() and everything == ["detected", "none"]:
            print(
                f"No detection has a score of {threshold} or more: try a lower"
                " --model.network.score_threshold, and another --output"
            )
        # Of many shards that are not merged yet, each would read the segments of all.
        shown = means(masks) if merged or incomplete else []
        print(*shown, sep="\n", end="\n" if shown else "")
        if failed:
            print("without an explanation", *remarks(masks, _SHOWN, failures_only=True), sep="\n  ")
            if not in_vain:
                print("  --data.retry_unreadable true tries unreadable and failed images again")
    _print_places(run, merged)
    if in_vain:
        print(
            f"No image could be explained: igos-pl info {run.folder.path} lists the reasons. When the images"
            " are corrected, add --data.retry_unreadable true"
        )
        return 1
    return 0


def _print_places(run: Run, merged: bool) -> None:
    """Print the output paths, and the next command."""
    folder = run.folder.path
    pictures = folder / OVERLAYS
    number = len(list(pictures.glob("*.png"))) if pictures.is_dir() else 0
    left = len(run.expected) - len(run.assigned)
    places = {
        "masks": run.folder.merged if merged else "",
        "pictures": f"{pictures} ({number})" if number else "",
        "settings": folder / "config.yaml",
        "next": f"igos-pl info {folder}" if merged or not left else f"igos-pl status {folder}",
    }
    print(*(f"{name:<9} {place}" for name, place in places.items() if place), sep="\n")
