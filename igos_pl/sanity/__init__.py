"""Sanity checks: whether masks depend on the network's weights and on the class that they explain."""

from igos_pl.sanity.checks import Checked, SanityChecks

__all__ = ["Checked", "SanityChecks"]
