"""Folders that ``litdata.optimize`` wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from igos_pl.datamodules.base import absolute
from igos_pl.datamodules.dataset import DatasetDataModule
from igos_pl.errors import IgosError
from igos_pl.optional import imported


class LitDataFolder(Dataset[Any]):
    """The items of a folder of LitData by their numbers, the same in every process.

    LitData's own ``StreamingDataset`` has another length in each process of a run, and keeps files open that
    forked processes must not share.

    Args:
        folder: the folder with the chunks and their ``index.json``.

    Raises:
        IgosError: if it is not such a folder, or litdata is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._length = _length(folder)
        self._stream: Any = None
        self._process = 0
        _streaming_dataset()  # raises now if the package is missing

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        if self._process != os.getpid():
            self._stream, self._process = _streaming_dataset()(str(self.folder)), os.getpid()
        return self._stream[index]


class LitDataDataModule(DatasetDataModule):
    """A folder that ``litdata.optimize`` wrote.

    Args:
        root: the folder, on a file system that all processes see.
        **data: see `DatasetDataModule`.
    """

    def __init__(self, root: str, **data: Any) -> None:
        folder = absolute(root)
        super().__init__(LitDataFolder(folder), **data)
        self.root = folder


def _length(folder: Path) -> int:
    index = folder / "index.json"
    try:
        chunks = json.loads(index.read_bytes())["chunks"]
        return sum(int(chunk["chunk_size"]) for chunk in chunks)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IgosError(
            f"{folder} is not a folder that litdata.optimize wrote: cannot read {index.name}"
            f" ({type(error).__name__}: {error}). Set root (--data.root) to the folder with the chunks"
        ) from error


def _streaming_dataset() -> Any:
    # LitData asks the package index for a newer version; compute nodes without internet would wait for it.
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    return imported("litdata", "litdata", "LitDataDataModule").StreamingDataset
