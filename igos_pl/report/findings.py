"""What the network looks at over the whole set. This is the only place that imports `igos_pl.findings`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from igos_pl.errors import IgosError
from igos_pl.findings import Cluster, Confusion, Finding, find
from igos_pl.store import MaskFile


@dataclass(frozen=True)
class Seen:
    """The findings of a run, as `igos_pl.findings.Findings` has them.

    Attributes:
        findings: statements about classes.
        clusters: masks of a class that are alike.
        confusions: wrong predictions.
        notes: what was sampled or left out.
        nothing: what it means if there are no findings; empty if nobody looked for them.
    """

    findings: list[Finding] = field(default_factory=list)
    clusters: list[Cluster] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    nothing: str = ""

    def rows(self) -> list[int]:
        """The rows that show the findings: the clearest examples of each, in turns."""
        groups = [finding.rows[:EXAMPLES] for finding in self.findings]
        groups += [cluster.rows[:EXAMPLES] for cluster in self.clusters]
        groups += [[pair.predicted_row, pair.true_row] for pair in self.confusions]
        longest = max(map(len, groups), default=0)
        ordered = [group[turn] for turn in range(longest) for group in groups if turn < len(group)]
        return list(dict.fromkeys(int(row) for row in ordered))


EXAMPLES = 6  # explanations that are shown for a finding or a cluster
_MOST = {"findings": 40, "clusters": 60, "confusions": 24}  # so many are shown


def look(masks: MaskFile) -> Seen:
    """Look for what the network looks at over the whole set.

    Args:
        masks: the result.
    """
    if not len(masks):
        return Seen()
    try:
        found = find(masks)
        found = replace(found, clusters=by_class(found.clusters))
    except IgosError as error:  # scikit-learn is missing: the rest of the report can be made
        return Seen(notes=[str(error)])
    notes = list(found.notes)
    for name, most in _MOST.items():
        if (left := len(getattr(found, name)) - most) > 0:
            notes.append(f"{left:,} more {name} are not shown here.")
    findings, clusters, confusions = (list(getattr(found, name)[:most]) for name, most in _MOST.items())
    return Seen(findings, clusters, confusions, notes, found.nothing)


def by_class(clusters: Sequence[Cluster]) -> list[Cluster]:
    """Clusters by class: those with the most masks first, then by name. Within a class, the order stays."""
    sizes: Counter[str] = Counter()
    for cluster in clusters:
        sizes[cluster.class_name] += cluster.size
    return sorted(clusters, key=lambda one: (-sizes[one.class_name], one.class_name.casefold()))
