"""Every snippet of docs/networks.md runs as it stands there, from Python and on the command line."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import adapters
import pages
import pytest
import tiny
import torch
import torchvision

import igos_pl
from igos_pl import MaskFile
from igos_pl.cli.main import main

PAGE = "docs/networks.md"
# mask_size is left out, so that the pages test the default on small inputs.
QUICK = {"iterations": 1, "metrics": False}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photos, weights and models that the page names."""
    folder = tmp_path_factory.mktemp("networks")
    photos = tiny.real_photos()
    (folder / "photos").mkdir()
    photos["square"].save(folder / "photos" / "cup.jpg")
    photos["wide"].save(folder / "photos" / "roof.jpg")
    state = tiny.TinyNet(seed=1).state_dict()
    torch.save(state, folder / "mynet.pth")
    checkpoint = {f"model.{key}": value for key, value in state.items()} | {"loss.weight": torch.ones(5)}
    torch.save({"state_dict": checkpoint, "hyper_parameters": {"lr": 0.1}}, folder / "last.ckpt")
    with torch.random.fork_rng(devices=[]):
        torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "squeezenet.pth")
        torch.save(torchvision.models.squeezenet1_1(num_classes=7).state_dict(), folder / "seven.pth")
    (folder / "my_package.py").write_text("from tiny import TinyNet as MyNet\n")
    adapters.timm_weights(folder)
    adapters.vit_folder(folder / "my_vit")
    adapters.clip_folder(folder / "my_clip")
    adapters.open_clip_model(folder / "my_open_clip")
    return folder


@pytest.mark.filterwarnings("ignore")
def test_python(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(igos_pl, "explain", partial(igos_pl.explain, **QUICK), raising=False)
    names: dict[str, Any] = {"module": tiny.TinyNet()}
    kinds = []
    for block in pages.blocks(PAGE):
        names.pop("result", None)
        exec(block, names)
        kinds.append(type(names["network"]).__name__)
        if "explain(" in block:
            assert names["result"].saliency.shape[-1] == min(28, *names["network"].input_size)
            assert float(names["result"].score[0]) > 0
    for kind in ("Torchvision", "Timm", "HuggingFace", "ZeroShot", "OpenCLIP"):
        assert f"{kind}Classifier" in kinds


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", pages.blocks(PAGE, "console"), ids=lambda text: text.split()[5])
def test_command_line(command: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "path", [str(workplace), *sys.path])
    monkeypatch.delitem(sys.modules, "my_package", raising=False)  # of the other page
    program, *words = shlex.split(command.replace("\\\n", " "))
    assert program == "igos-pl"
    quick = [f"--model.{key}={value}" for key, value in QUICK.items()]
    quick += ["--trainer.accelerator=cpu", "--data.num_workers=0", "--overlays.count=0"]
    assert main([*words, *quick]) == 0
    run = Path(words[words.index("--output") + 1])
    with MaskFile(run / "masks.h5") as masks:
        assert {row.sample_id for row in masks} == {"cup.jpg", "roof.jpg"}
