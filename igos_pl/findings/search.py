"""Looks for patterns over all explanations of a result."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from igos_pl.data.overlay import EMPTY
from igos_pl.findings.clusters import FEWEST_MASKS, clusters_of
from igos_pl.findings.confusions import confusions_of
from igos_pl.findings.places import PLACES, Shares, shares_of
from igos_pl.findings.reading import SIDE, Units, blocks, units_of
from igos_pl.findings.results import Cluster, Findings
from igos_pl.findings.shortcuts import FEWEST_IMAGES, nothing_found, shortcuts
from igos_pl.optional import imported
from igos_pl.store import MaskFile

# The most masks that are clustered: of a class, and of all classes. They are kept in memory.
_MOST_OF_CLASS, _MOST = 300, 100_000


def find(masks: MaskFile, seed: int = 0) -> Findings:
    """Look for shortcuts, clusters and confusions in the explanations of a run.

    Args:
        masks: the result. It is read in blocks, so a million rows need little memory.
        seed: of the sample that is clustered.

    Raises:
        IgosError: if scikit-learn is not installed, or the masks are not square grids.
    """
    imported("sklearn", "report", "The search for findings")
    if not len(masks):
        return Findings([], [], [], ["Nothing was explained."])
    units = units_of(masks)
    sample = _sample(units, seed)
    shares, pooled, faint = _measured(masks, units, sample)
    confusions, told = confusions_of(masks)
    usable = ~faint[sample]
    clusters = list(_clusters(units, sample[usable], pooled[usable], seed))
    notes = [*_notes(units, shares, sample, int(faint.sum())), *told]
    found = shortcuts(units, shares)
    nothing = "" if found else nothing_found(units, shares)
    return Findings(found, clusters, confusions, notes, nothing)


def _sample(units: Units, seed: int) -> NDArray[np.int64]:
    """The places of the units that are clustered, ascending."""
    random = np.random.default_rng(seed)
    counts = np.bincount(units.classes, minlength=len(units.names))
    large = int(np.count_nonzero(counts >= FEWEST_MASKS))
    most = int(np.clip(_MOST // max(1, large), FEWEST_MASKS, _MOST_OF_CLASS))
    order = np.argsort(units.classes, kind="stable")
    chosen = [
        random.choice(places, most, replace=False) if len(places) > most else places
        for places in np.split(order, np.cumsum(counts)[:-1])
        if len(places) >= FEWEST_MASKS
    ]
    return np.sort(np.concatenate([np.empty(0, np.int64), *chosen]))


def _measured(
    masks: MaskFile, units: Units, sample: NDArray[np.int64]
) -> tuple[Shares, NDArray[np.float32], NDArray[np.bool_]]:
    """Read all masks once.

    Returns:
        Where the saliency of all units lies; the pooled saliency of the sample; which units have a mask that
        removes next to nothing.
    """
    shares = Shares(
        np.full((len(units), len(PLACES)), np.nan, np.float32), np.full(len(units), np.nan, np.float32)
    )
    faint = np.zeros(len(units), bool)
    pooled = np.empty((len(sample), SIDE, SIDE), np.float32)
    for block in blocks(masks, units):
        faint[block.units] = block.peak < EMPTY
        clear = ~faint[block.units]
        found = shares_of(block)
        shares.places[block.units][clear] = found.places[clear]
        shares.lift[block.units][clear] = found.lift[clear]
        low, high = np.searchsorted(sample, (block.units.start, block.units.stop))
        pooled[low:high] = block.pooled[sample[low:high] - block.units.start]
    return shares, pooled, faint


def _clusters(
    units: Units, sample: NDArray[np.int64], pooled: NDArray[np.float32], seed: int
) -> Iterator[Cluster]:
    """The clusters of all classes."""
    order = np.argsort(units.classes[sample], kind="stable")
    classes = units.classes[sample][order]
    for places in np.split(order, np.flatnonzero(np.diff(classes)) + 1) if len(order) else ():
        name = units.names[units.classes[sample[places[0]]]]
        yield from clusters_of(name, units.rows[sample[places]], pooled[places], seed)


def _notes(units: Units, shares: Shares, sample: NDArray[np.int64], faint: int) -> list[str]:
    """What was sampled or left out, and what cannot be said."""
    counts = np.bincount(units.classes, minlength=len(units.names))
    notes = []
    if units.failed:
        notes.append(f"Explanations left out because their objective was not finite: {units.failed:,}.")
    if faint:
        notes.append(f"Explanations left out because their masks are nearly empty: {faint:,}.")
    if units.left_out:
        notes.append(
            "Explanations left out because their image has another one of the same class:"
            f" {units.left_out:,}. Only the best start of the first object counts."
        )
    if len(units.names) == 1:
        notes.append("All explanations are of one class, so there are no others to compare its places with.")
    elif few := int(np.count_nonzero(counts < FEWEST_IMAGES)):
        notes.append(
            f"Classes with fewer than {FEWEST_IMAGES} images, too few to say anything about them: {few:,} of"
            f" {len(units.names):,}."
        )
    if len(units) and np.isnan(shares.lift).all():
        notes.append(
            "The result has no boxes of objects, so it is not known whether the saliency lies on the objects."
        )
    in_large = int(counts[counts >= FEWEST_MASKS].sum())
    if len(sample) < in_large:
        notes.append(
            f"Clusters come from a random sample of {len(sample):,} of {in_large:,} masks. Their"
            " sizes count the masks of the sample."
        )
    if in_large < len(units):
        notes.append(f"Classes with fewer than {FEWEST_MASKS} images are not clustered.")
    return notes
