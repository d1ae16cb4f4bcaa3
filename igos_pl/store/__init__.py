"""Results on disk: immutable HDF5 segments, the merged `masks.h5`, and their reader.

Nothing here imports torch at the top, so that looking into a file is quick.
"""

from igos_pl.store.merge import merge
from igos_pl.store.reader import Explanation, MaskFile, explanations_of
from igos_pl.store.schema import SCHEMA_VERSION, BatchResult, ImageRecord
from igos_pl.store.segments import RunFolder

__all__ = [
    "SCHEMA_VERSION",
    "BatchResult",
    "Explanation",
    "ImageRecord",
    "MaskFile",
    "RunFolder",
    "explanations_of",
    "merge",
]
