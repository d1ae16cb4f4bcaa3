"""Insertion - deletion of saliency methods beside what they cost.

Make the photos by `photos.py`, then ::

    python benchmarks/evaluations.py PHOTOS --half test --results FOLDER --methods fast,greedy@7,ig@100

explains the photos of which the network is sure, judges the masks, and prints a table for each judge. With
``--network shapes`` a small detector's detections in generated pictures are explained.

A method's name is its family and, after an ``@``, its amount: iterations of one of our presets
(``igospp@20``; ``published@10x10`` sets the positions on the path, too, and ``fast@20x2x56`` the cells along
the mask's side), steps of integrated gradients (``ig@100``), random masks (``rise@2000``), cells along the
side (``greedy@7``, and ours: ``search@7``) or superpixels (``greedy-slic@49``, ``search-slic@49``) of a
search. ``--list`` names all. A judge's name is a partition and a baseline, as in ``28/mean``, see
`comparison.judges`.

Masks and figures are kept in FOLDER, one by one: an interrupted run goes on where it stopped. They are made
anew where a picture, the network or a setting has changed, but not where only the code has: take another
folder then.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from comparison.figure import draw
from comparison.judges import judge_named
from comparison.methods import OURS, check_kind, describe, label_of, split_name
from comparison.results import Results, run
from comparison.samples import KINDS, NETWORKS, read_samples
from comparison.tables import table
from peers.registry import PEERS

from igos_pl.errors import IgosError

METHODS = "fast,fast@2,fast@5,fast@10,fast@40,igospp,grad-cam,layer-cam,ig@10,ig@100,gradient-shap@100"
JUDGES = "own,own/mean,28,16"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("photos", type=Path, help="folder made by photos.py, or for pictures of shapes")
    made.add_argument("--half", choices=("tuning", "test", "all"), default="test")
    made.add_argument("--results", type=Path, required=True, help="folder of masks and figures")
    made.add_argument("--methods", default=METHODS, help="the first is what others are compared to")
    made.add_argument("--limit", type=int, help="at most so many pictures")
    made.add_argument("--network", choices=list(NETWORKS), default="lite0")
    made.add_argument("--judges", default=JUDGES, help=f"by default {JUDGES}")
    made.add_argument("--show", action="store_true", help="print what there is, run nothing")
    made.add_argument("--figure", type=Path, help="picture to draw, by the first judge")
    made.add_argument("--list", action=_ListMethods, nargs=0, help="print all methods and stop")
    return made


class _ListMethods(argparse.Action):
    """Print all methods."""

    def __call__(self, *_: object) -> None:
        for family in OURS:
            print(f"{family:24}{label_of(family)}, ours")
        for peer in PEERS.values():
            print(f"{peer.example:24}{peer.label}, for {' and '.join(peer.kinds)}")
        sys.exit(0)


def main(args: Sequence[str] | None = None) -> None:
    """Run what is missing, print a table for each judge, draw the figure."""
    options = parser().parse_args(args)
    methods, judges = options.methods.split(","), options.judges.split(",")
    kind = KINDS[options.network]
    for method in methods:
        split_name(method)
        check_kind(method, kind)
    for name in judges:
        judge_named(name)
    network = NETWORKS[options.network]()
    network.freeze()
    samples = read_samples(network, kind, options.photos, options.half, options.limit)
    limited = f" (at most {options.limit} pictures)" if options.limit else ""
    cases = sum(len(sample.targets) for sample in samples)
    print(f"{options.network} explains {cases} {kind} of the {options.half} half{limited}")
    kept = {
        method: Results(options.results / options.network, method, describe(network, method))
        for method in methods
    }
    for method, results in kept.items():
        if not options.show:
            run(network, method, samples, judges, results)
    for name in judges:
        found = {
            method: {
                sample.case(row): figures
                for sample in samples
                for row in range(len(sample.targets))
                if (figures := results.figures(sample, row, name))
            }
            for method, results in kept.items()
        }
        print(f"\njudged by: {name}\n\n{table(found)}")
        if options.figure and name == judges[0]:
            draw(found, options.figure, name)


if __name__ == "__main__":
    try:
        main()
    except IgosError as error:
        sys.exit(str(error))
