"""What every test starts from, and what it must leave as it was."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# These are found by name, by the tests and by class paths in their command lines, wherever pytest starts.
for _name in ("tiny", "pages", "adapters", "dense_adapters", "results", "report_runs"):
    _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(f"{_name}.py"))
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules[_name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_name])


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to relative paths lands in the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with different pictures, which the test's module lists in ``NAMES``."""
    folder: Path = sys.modules["tiny"].write_pictures(tmp_path / "photos", request.module.NAMES)
    return folder


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    """One thread for tiny tensors: more of them only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
