"""The house's order: imports point down only, and the wheel holds igos_pl alone."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import igos_pl

ROOT = Path(igos_pl.__file__).resolve().parents[1]

# From the bottom up. A module imports from layers below its own, and from its own package without cycles;
# packages stand for all that is in them.
LAYERS: list[set[str]] = [
    {"errors", "randomness"},
    {"checks", "optional", "settings"},
    {"data"},
    {"models", "solver", "store"},
    {"evaluation", "figures", "run"},
    {"findings"},
    {"report"},
    {"callbacks", "compare", "datamodules", "export"},
    {"predicting"},
    {"explainer"},
    {"judging", "sanity"},
    {"api"},
    {"training"},
    {"__main__", "cli", "demo"},
]
COMMANDS = LAYERS[-1]  # which may call each other
LINKED = {"callbacks", "datamodules"}
KNOW_LIGHTNING = {
    "run", "callbacks", "datamodules", "predicting", "explainer", "judging", "api", "sanity", "training",
    "cli",
}  # fmt: skip


def parsed() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package by its name, those of the linked folders under theirs."""
    for folder in ("igos_pl", "callbacks", "datamodules"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if folder == "igos_pl":
                parts = parts[1:]
                if parts[0] in LINKED:  # the links, where a version of Python follows them
                    continue
            yield ".".join(part for part in parts if part != "__init__"), ast.parse(path.read_text("utf-8"))


def names_in(tree: ast.AST) -> set[str]:
    """What a tree imports, in full; for ``from a import b`` both ``a`` and ``a.b``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            assert node.module is not None
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


IMPORTS = {name: names_in(tree) for name, tree in parsed()}
MODULES = set(IMPORTS)


def ours(name: str) -> set[str]:
    """The modules of the package that a module imports, without the ``igos_pl.``."""
    found = {full.removeprefix("igos_pl.") for full in IMPORTS[name] if full.startswith("igos_pl.")}
    return {module for module in found if module in MODULES} - {name}


def layer(module: str) -> int:
    top = module.partition(".")[0]
    places = [number for number, names in enumerate(LAYERS) if top in names]
    assert len(places) == 1, f"give {top} a layer in this test"
    return places[0]


def test_the_scan_sees_the_house() -> None:
    assert {"callbacks.writer", "datamodules.base", "store.merge", "models.base", "cli.main"} <= MODULES
    assert ours("solver.optimize") == {"checks", "solver.objective", "solver.regions"}
    assert "datamodules.folder" in ours("datamodules")


@pytest.mark.parametrize("module", sorted(MODULES - {""}))
def test_imports_point_down_only(module: str) -> None:
    for other in ours(module):
        assert layer(other) <= layer(module), f"{module} imports {other}, which is above it"
        tops = {module.partition(".")[0], other.partition(".")[0]}
        assert layer(other) < layer(module) or len(tops) == 1 or tops <= COMMANDS, f"{module} imports {other}"


def test_no_module_imports_itself_over_others() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join((*path, module))}"
        if module not in done:
            for other in sorted(ours(module)):
                visit(other, (*path, module))
            done.add(module)

    for module in sorted(MODULES):
        visit(module, ())


def test_the_parts_know_no_lightning() -> None:
    knowing = {
        module
        for module, names in IMPORTS.items()
        if any(
            name.partition(".")[0] in ("pytorch_lightning", "lightning", "lightning_fabric") for name in names
        )
    }
    assert {"predicting", "cli.parser", "callbacks.writer", "datamodules.base"} <= knowing
    strangers = {module for module in knowing if module.partition(".")[0] not in KNOW_LIGHTNING}
    assert strangers == set()


def test_nobody_imports_the_bare_folders() -> None:
    files = [
        path
        for folder in ("igos_pl", "callbacks", "datamodules", "tests", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > 30
    for path in files:
        bare = {name.partition(".")[0] for name in names_in(ast.parse(path.read_text("utf-8")))} & LINKED
        assert not bare, f"{path} imports {bare}: the names are igos_pl.callbacks and igos_pl.datamodules"


def test_linked_folders_are_one_with_their_names() -> None:
    import igos_pl.callbacks
    import igos_pl.datamodules

    for module in (igos_pl.callbacks, igos_pl.datamodules):
        assert module.__file__ is not None
        assert Path(module.__file__).resolve().parent == ROOT / module.__name__.rpartition(".")[2]


@pytest.fixture(scope="module", params=["checkout", "sdist"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in a wheel that is built from a copy, directly or by way of an sdist."""
    if importlib.util.find_spec("pip") is None or importlib.util.find_spec("setuptools") is None:
        pytest.skip("pip and setuptools are needed to build a wheel")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "copy"
    unwanted = shutil.ignore_patterns(".*", "runs", "weight", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=unwanted)
    if request.param == "sdist":
        call(
            [sys.executable, "-c", f"import setuptools.build_meta as api; api.build_sdist({str(folder)!r})"],
            source,
        )
        (source,) = folder.glob("*.tar.gz")
    quiet = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--disable-pip-version-check"]
    call([sys.executable, "-m", "pip", "wheel", *quiet, "-w", str(folder), str(source)], folder)
    (path,) = folder.glob("*.whl")
    assert path.name.startswith(f"igos_pl-{igos_pl.__version__}-py3-none-any")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def call(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_wheel_holds_the_package_alone(wheel: list[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel}
    assert tops == {"igos_pl", f"igos_pl-{igos_pl.__version__}.dist-info"}
    assert not [name for name in wheel if "test" in name.lower()]


def test_wheel_holds_all_of_the_package(wheel: list[str]) -> None:
    for folder in ("igos_pl", "callbacks", "datamodules"):
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            assert (name if folder == "igos_pl" else f"igos_pl/{name}") in wheel
    for name in (
        "py.typed", "data/imagenet_classes.tsv", "demo/checkpoints/shapes_maskrcnn.pth",
        "callbacks/writer.py", "datamodules/base.py",
        "compare/page.html", "report/templates/index.html.j2", "report/static/uplot/uPlot.min.css",
        *(f"presets/{path.name}" for path in (ROOT / "configs" / "presets").iterdir()),
    ):  # fmt: skip
        assert f"igos_pl/{name}" in wheel
    assert [name for name in wheel if name.endswith("licenses/LICENSE")]
