"""The documentation is complete, and says what is true of the code."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pages
import pytest
import tiny

import igos_pl
from igos_pl import MaskFile
from igos_pl.cli.main import main
from igos_pl.explainer import Explainer
from igos_pl.store.schema import EXPLANATIONS, IMAGES, SCHEMA_VERSION

DOCS = pages.ROOT / "docs"
README = pages.ROOT / "README.md"

# Pages whose commands cannot run here, because they name networks and data that are not at hand.
PARSED = ("README", "start", "imagenet", "coco", "settings", "results", "cluster", "gallery")


def test_the_readme_fits_on_a_screen() -> None:
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 64
    assert text.count("![") == 1


def test_every_public_name_has_documentation_on_an_api_page() -> None:
    text = "\n".join(page.read_text("utf-8") for page in DOCS.glob("api*.md"))
    shown = re.findall(r"^::: igos_pl\.(\w+)$", text, re.MULTILINE)
    assert sorted(shown) == sorted(igos_pl.__all__)


def test_every_page_is_in_the_navigation() -> None:
    navigation = (pages.ROOT / "mkdocs.yml").read_text("utf-8")
    listed = set(re.findall(r"^ +- .*: (\S+\.md)$", navigation, re.MULTILINE))
    assert {page.name for page in DOCS.glob("*.md")} <= listed


def test_every_picture_of_the_pages_exists_and_is_used() -> None:
    text = "\n".join(page.read_text("utf-8") for page in (README, *DOCS.glob("*.md")))
    used = {name.removeprefix("docs/") for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)}
    found = {str(path.relative_to(DOCS)) for kind in ("png", "webp") for path in DOCS.rglob(f"*.{kind}")}
    assert used == found
    assert all((DOCS / name).stat().st_size < 600_000 for name in found)


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.stem)
def test_links_lead_somewhere_on_a_code_host(page: Path) -> None:
    for link in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", page.read_text("utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, link


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def table(columns: dict[str, Any], file_columns: dict[str, tuple[Any, tuple[int, ...]]], rows: str) -> str:
    """A table of the page about the file format.

    Args:
        columns: of the schema.
        file_columns: the type and the shape of each column in a real file.
        rows: the letter that stands for the number of rows.
    """
    letters = {28: "s", 51: "P"}
    lines = ["| dataset | type | shape | content |", "|---|---|---|---|"]
    for name, column in columns.items():
        dtype, shape = file_columns[name]
        kind = "text" if dtype.kind in "SO" else str(dtype)
        sides = [rows, *(str(letters.get(side, side)) for side in shape[1:])]
        lines.append(f"| `{name}` | {kind} | ({', '.join(sides)}) | {column.about} |")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two pictures, merged."""
    folder = tmp_path_factory.mktemp("format")
    tiny.write_pictures(folder / "photos", ["a.png", "b.png"])
    network = tiny.tiny_classifier(input_size=32)
    trainer = tiny.quiet_trainer(folder)
    explainer = Explainer(network, iterations=1, path_steps=1)
    trainer.predict(explainer, igos_pl.ImageFolderDataModule(str(folder / "photos"), num_workers=0))
    return folder / "masks.h5"


def test_the_tables_of_the_file_format_are_those_of_a_real_file(result: Path) -> None:
    import h5py

    text = (DOCS / "format.md").read_text("utf-8")
    assert f"**Schema version: {SCHEMA_VERSION}.**" in text
    with h5py.File(result) as file:
        assert file.attrs["schema_version"] == SCHEMA_VERSION
        for group, schema, letter in (("/", EXPLANATIONS, "R"), ("images", IMAGES, "N")):
            datasets = {
                name: found
                for name, found in file[group].items()
                if isinstance(found, h5py.Dataset) and not found.is_scale
            }
            assert set(datasets) == set(schema)
            assert {name: found.attrs["about"] for name, found in datasets.items()} == {
                name: column.about for name, column in schema.items()
            }
            expected = table(
                dict(schema), {name: (found.dtype, found.shape) for name, found in datasets.items()}, letter
            )
            assert expected in text, f"docs/format.md must have this table:\n{expected}"


def test_every_attribute_of_a_file_is_on_the_page(result: Path) -> None:
    text = (DOCS / "format.md").read_text("utf-8")
    section = text.split("## Attributes")[1].split("## ")[0]
    listed = set(re.findall(r"`([\w.]+)`", section))
    with MaskFile(result) as masks:
        found = set(masks.attributes)
    parts = ("network.", "data.", "optimizer.")
    assert {name for name in found if not name.startswith(parts)} <= listed
    first = "".join(line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`([\w.]+)`", first)) <= {*found, "preset", "search.NAME"}


def commands() -> list[str]:
    """The commands of the pages, each once."""
    found: dict[str, None] = {}
    for name in PARSED:
        text = (README if name == "README" else DOCS / f"{name}.md").read_text("utf-8")
        fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        lines = [
            line
            for language, block in fenced
            if language in ("", "console", "bash")
            for line in block.replace("\\\n", " ").splitlines()
        ]
        for line in [*lines, *re.findall(r"`(igos-pl predict [^`]+)`", text)]:
            command = re.search(r"(?<![\w/])igos-pl predict .*", line)
            if command and not line.endswith("--help"):
                found[re.sub(r"\s+", " ", command[0])] = None
    return list(found)


def test_all_commands_of_the_pages_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "configs").symlink_to(pages.ROOT / "configs")
    (tmp_path / "my_package.py").write_text(
        "from tiny import TinyNet\n\nclass MyNet(TinyNet):\n    def __init__(self, classes: int): ...\n"
    )
    (tmp_path / "mine.yaml").write_text(pages.blocks("docs/settings.md", "yaml")[0])
    demo = tmp_path / "runs" / "demo-detector" / "config.yaml"  # as `igos-pl demo --detector` leaves it
    demo.parent.mkdir(parents=True)
    demo.write_text("model: {network: {class_path: TorchvisionRCNNDetector}}\ndata: COCODataModule\n")
    found = commands()
    assert len(found) > 15
    for command in found:
        words = shlex.split(command.replace("$i", "0"))[1:]
        try:
            code = main([*words, "--print_config"])
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        assert code in (0, None), f"{command}\n{printed.err}"
        assert "iterations:" in printed.out


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    from igos_pl.demo.run import run_demo

    for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "home"))
    quick = ["--data.limit=3", "--model.iterations=1", "--model.path_steps=1", "--model.mask_size=7"]
    run_demo(tmp_path / "runs" / "demo", how=[*quick, "--data.num_workers=0", "--overlays.count=0"])
    notebook = nbformat.read(DOCS / "notebook.ipynb", 4)
    (tmp_path / "docs").mkdir()
    place = {"metadata": {"path": str(tmp_path / "docs")}}
    nbclient.NotebookClient(notebook, timeout=300, resources=place).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 3


def test_the_notebook_is_stored_with_its_outputs() -> None:
    path = DOCS / "notebook.ipynb"
    cells = json.loads(path.read_text("utf-8"))["cells"]
    *code, closing = (cell for cell in cells if cell["cell_type"] == "code")
    assert all(cell["outputs"] for cell in code)
    assert closing["source"] == ["masks.close()"]
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
    assert path.stat().st_size < 600_000
