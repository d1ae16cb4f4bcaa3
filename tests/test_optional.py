"""Packages of the extras: a missing one is named, with the command that installs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from igos_pl.datamodules import LitDataDataModule, WebDatasetDataModule
from igos_pl.errors import IgosError
from igos_pl.optional import imported


def litdata(folder: Path) -> None:
    (folder / "index.json").write_text(json.dumps({"chunks": []}))
    LitDataDataModule(str(folder))


def webdataset(folder: Path) -> None:
    WebDatasetDataModule(str(folder / "*.tar")).find_samples()


@pytest.mark.parametrize(
    ("use", "module", "user"),
    [
        (litdata, "litdata", "LitDataDataModule"),
        (webdataset, "webdataset.shardlists", "WebDatasetDataModule"),
    ],
)
def test_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, use: Callable[[Path], Any], module: str, user: str
) -> None:
    package = module.partition(".")[0]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(IgosError, match=rf"{user} needs the package {package}, .*'igos_pl\[{package}\]'"):
        use(tmp_path)


def test_package_that_is_there_is_imported() -> None:
    assert imported("json", "extra", "this test") is json
