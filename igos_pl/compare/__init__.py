"""Two or more results of the same images: paired differences, and the agreement of the masks."""

from igos_pl.compare.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
