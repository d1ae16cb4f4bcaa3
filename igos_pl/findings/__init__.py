"""What a network looks at over a whole data set, which no single mask shows."""

from igos_pl.findings.results import Cluster, Confusion, Finding, Findings
from igos_pl.findings.search import find

__all__ = ["Cluster", "Confusion", "Finding", "Findings", "find"]
