"""Every snippet of docs/networks-detectors.md runs as it stands there, in Python and on the command line."""

from __future__ import annotations

import re
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import dense_adapters
import pages
import pytest
import torch
import torchvision
from torch import Tensor, nn

import igos_pl
from igos_pl.cli.main import main

PAGE = "docs/networks-detectors.md"
PYTHON = pages.blocks(PAGE)
CONSOLE = pages.blocks(PAGE, "console")
QUICK = {"iterations": 1, "metrics": False}


class TinySegments(nn.Conv2d):
    """Three classes."""

    def __init__(self) -> None:
        super().__init__(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": super().forward(images)}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photos, weights and models that the page names; the libraries stay offline."""
    folder = tmp_path_factory.mktemp("detectors")
    ultralytics = dense_adapters.ultralytics_library(folder)
    (folder / "photos").mkdir()
    for name in dense_adapters.PHOTOS:
        dense_adapters.photo(name).save(folder / "photos" / name)
    segments = dense_adapters.lively(TinySegments())
    with torch.no_grad():
        assert isinstance(segments, TinySegments)
        segments.bias.copy_(torch.tensor([-9.0, 0.0, 0.0]))
    torch.save(segments.state_dict(), folder / "mysegments.pth")
    (folder / "my_package.py").write_text(
        "from test_networks_detectors_page import TinySegments as MySegments\n"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, file, options in (
            ("ssdlite320_mobilenet_v3_large", "ssdlite.pth", {"num_classes": 91, "weights_backbone": None}),
            ("lraspp_mobilenet_v3_large", "lraspp.pth", {"num_classes": 21, "weights_backbone": None}),
        ):
            made = torchvision.models.get_model(name, weights=None, **options)
            torch.save(dense_adapters.lively(made).state_dict(), folder / file)
        dense_adapters.rtdetr_folder(folder / "my_rtdetr")
        dense_adapters.segformer_folder(folder / "my_segformer")
        yolo = ultralytics.YOLO("yolov8n.yaml")
        for branch in yolo.model.model[-1].cv3:
            branch[-1].bias.data.fill_(-1)
        yolo.model.names = {label: f"thing {label}" for label in range(80)}
        yolo.save(folder / "mine.pt")
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", PYTHON[1:], ids=lambda text: text.split()[3])
def test_python(block: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(igos_pl, "Explainer", partial(igos_pl.Explainer, **QUICK), raising=False)
    module = TinySegments()
    names: dict[str, Any] = {"module": module}
    exec(PYTHON[0], names)
    exec(block, names)
    (run,) = re.findall(r'explain_photos\(network, "(.*)"\)', block)
    assert_explained(run)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", CONSOLE, ids=lambda text: text.split()[7])
def test_command_line(command: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "path", [str(workplace), *sys.path])
    monkeypatch.delitem(sys.modules, "my_package", raising=False)  # of the other page
    monkeypatch.setitem(sys.modules, "test_networks_detectors_page", sys.modules[__name__])
    program, *words = shlex.split(command.replace("\\\n", " "))
    assert program == "igos-pl"
    quick = [f"--model.{key}={value}" for key, value in QUICK.items()]
    quick += ["--trainer.accelerator=cpu", "--data.num_workers=0", "--overlays.count=0"]
    assert main([*words, *quick]) == 0
    assert_explained(words[words.index("--output") + 1])


def assert_explained(run: str) -> None:
    with igos_pl.MaskFile(Path(run) / "masks.h5") as masks:
        assert {row.sample_id for row in masks} == set(dense_adapters.PHOTOS)
        assert all(not row.label_name.isdigit() for row in masks)
