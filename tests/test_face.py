"""What ``import igos_pl`` offers, and what it costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import igos_pl
from igos_pl.cli.main import main

ROOT = Path(igos_pl.__file__).resolve().parents[1]


def modules_after(code: str, *words: str) -> set[str]:
    """What a new process has imported after some code."""
    program = f"import sys\n{code}\nprint('imported', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("name", igos_pl.__all__)
def test_every_name_is_there(name: str) -> None:
    found = getattr(igos_pl, name)
    assert found.__name__ == name
    assert name in dir(igos_pl)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(igos_pl.__file__).read_text("utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    names = {alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(names) == sorted(igos_pl.__all__)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="igos_pl has no 'Explaner'; it has: .*Explainer"):
        igos_pl.Explaner  # noqa: B018


def test_importing_it_is_free() -> None:
    heavy = {"torch", "pytorch_lightning", "numpy", "h5py", "matplotlib"}
    assert not heavy & modules_after("import igos_pl")
    assert "torch" in modules_after("from igos_pl import Explainer")
    assert "torch" not in modules_after("from igos_pl import MaskFile")
    assert "torch" not in modules_after("import igos_pl.compare.agreement")


@pytest.mark.filterwarnings("ignore")
def test_looking_into_a_result_imports_no_torch(tmp_path: Path) -> None:
    photos = tiny.write_pictures(tmp_path / "photos", ["a.png"])
    settings = {
        "data.root": photos, "output": tmp_path / "run", "model.network": "Classifier",
        "model.network.module": "tiny.TinyNet", "model.network.input_size": tiny.SIZE, "model.mask_size": 6,
        "model.iterations": 1, "trainer.accelerator": "cpu", "data.num_workers": 0,
    }  # fmt: skip
    words = ["predict", *(f"--{key}={value}" for key, value in settings.items())]
    assert main(words) == 0
    for command in ("info", "status", "verify", "merge"):
        code = "from igos_pl.cli.main import main\nassert main(sys.argv[1:]) == 0"
        found = modules_after(code, command, str(tmp_path / "run"))
        assert "h5py" in found
        assert not {"torch", "pytorch_lightning", "torchvision"} & found, command
