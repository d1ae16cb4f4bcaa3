"""Results on disk: immutable HDF5 segments, the merged `masks.h5`, and their reader.

Nothing here imports torch, so that looking into a file is quick.
"""

from igos_pl.store.folder import RunFolder, unfinished
from igos_pl.store.merge import merge
from igos_pl.store.reader import MaskFile
from igos_pl.store.schema import SCHEMA_VERSION

__all__ = [
    "SCHEMA_VERSION",
    "MaskFile",
    "RunFolder",
    "merge",
    "unfinished",
]
