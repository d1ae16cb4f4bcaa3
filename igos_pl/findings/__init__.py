"""What a network looks at over a whole data set, which no single mask shows."""

from igos_pl.findings.find import find
from igos_pl.findings.results import Cluster, Confusion, Finding, Findings

__all__ = ["Cluster", "Confusion", "Finding", "Findings", "find"]
