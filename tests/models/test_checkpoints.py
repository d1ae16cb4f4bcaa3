"""Checkpoints of Lightning and of wrapped modules load, say so in a line, and run no code."""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from tiny import TinyNet, batch_of, pictures, quiet_trainer, tiny_classifier
from torch import Tensor, nn

from igos_pl.errors import IgosError
from igos_pl.models.weights import load_weights


class Hyper:
    """A class that only the training program knows."""

    def __init__(self, **values: Any) -> None:
        self.values = values


class Training(pytorch_lightning.LightningModule):
    """An ordinary module of a user: a network, class weights of its loss, hyperparameters of all kinds."""

    def __init__(self, hyper: Any, folder: Path, activation: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = TinyNet(seed=7)
        self.register_buffer("class_weights", torch.ones(5))
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(5))

    def training_step(self, batch: Tensor) -> Tensor:
        loss: Tensor = self.loss(self.model(batch), torch.zeros(len(batch), dtype=torch.long))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.0)


def assert_loaded(module: nn.Module) -> None:
    for value, expected in zip(module.parameters(), TinyNet(seed=7).parameters(), strict=True):
        assert torch.equal(value, expected)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What Lightning's own trainer writes."""
    module = Training(
        Hyper(depth=[1, 2]), tmp_path, functools.partial(torch.nn.functional.relu, inplace=True)
    )
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, torch.utils.data.DataLoader(torch.rand(2, 3, 24, 24)))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


@pytest.mark.filterwarnings("ignore")
def test_lightnings_own_checkpoint(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Exception, match="[Uu]nsupported"):
        torch.load(checkpoint, weights_only=True)
    with caplog.at_level(logging.WARNING, "igos_pl"):
        network = tiny_classifier(weights=str(checkpoint))
    assert_loaded(network.module)
    assert network.propose(pictures(1) / 255, batch_of(pictures(1)).truth_in_input()).notes == [""]
    objects, names = (record.getMessage() for record in caplog.records)
    assert "last.ckpt: left out everything but tensors and plain data (" in objects
    assert "last.ckpt: took the tensors whose names begin with 'model.', and left out 2 others" in names


def saved(path: Path, state: dict[str, Any]) -> Path:
    torch.save(state, path)
    return path


def prefixed(prefix: str, seed: int = 7) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in TinyNet(seed=seed).state_dict().items()}


@pytest.mark.parametrize(
    "prefix", ["model.", "module.", "_orig_mod.", "net.", "backbone.", "a.b._orig_mod.module."]
)
def test_common_prefixes(prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = TinyNet()
    load_weights(module, saved(tmp_path / "tiny.pth", {"state_dict": prefixed(prefix)}), "TinyNet")
    assert_loaded(module)
    (line,) = caplog.messages
    assert line.endswith(f"tiny.pth: took the tensors whose names begin with {prefix!r}")


def test_names_that_fit_are_taken_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = TinyNet()
    load_weights(module, saved(tmp_path / "tiny.pth", prefixed("")), "TinyNet")
    assert_loaded(module)
    assert not caplog.messages


def test_batch_counters_do_not_matter(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    state = {f"net.{key}": value + 1 for key, value in module.state_dict().items()}
    for number, kept in enumerate(
        (state, {key: value for key, value in state.items() if "num_b" not in key})
    ):
        module[1].running_mean.zero_()  # type: ignore[union-attr, operator]
        load_weights(module, saved(tmp_path / f"{number}.pth", kept), "it")
        assert torch.equal(module[1].running_mean, torch.ones(4))  # type: ignore[arg-type]


def test_a_deeper_network_is_not_cut_down(tmp_path: Path) -> None:
    deeper = {**prefixed("model."), "model.third.weight": torch.ones(2)}
    for number, state in enumerate((deeper, {key.removeprefix("model."): v for key, v in deeper.items()})):
        with pytest.raises(IgosError, match="does not fit TinyNet"):
            load_weights(TinyNet(), saved(tmp_path / f"{number}.pth", state), "TinyNet")


def test_shapes_are_still_compared(tmp_path: Path) -> None:
    path = saved(tmp_path / "tiny.pth", {f"model.{k}": v for k, v in TinyNet(classes=9).state_dict().items()})
    with pytest.raises(
        IgosError,
        match=r"not fit TinyNet.*2 of another shape \(last\.weight is \(9, 8\).*9 classes instead of 5",
    ):
        load_weights(TinyNet(), path, "TinyNet")


def test_two_networks_that_fit(tmp_path: Path) -> None:
    both = saved(tmp_path / "both.pth", {**prefixed("model."), **prefixed("ema.", seed=8)})
    with pytest.raises(
        IgosError, match=r"several networks that fit \('model\.', 'ema\.'\): save the state dict"
    ):
        load_weights(TinyNet(), both, "TinyNet")
    module = TinyNet()
    load_weights(module, saved(tmp_path / "same.pth", {**prefixed("model."), **prefixed("ema.")}), "TinyNet")
    assert_loaded(module)


def test_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path, module = tmp_path / "tiny.safetensors", TinyNet()
    safetensors.save_file(prefixed("model."), path)
    load_weights(module, path, "TinyNet")
    assert_loaded(module)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(IgosError, match="cannot be read as a weight file, or is cut off"):
        load_weights(TinyNet(), path, "TinyNet")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(IgosError, match=r"tiny\.safetensors needs the package safetensors"):
        load_weights(TinyNet(), path, "TinyNet")


class Evil:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_code_beside_the_tensors_does_not_run(tmp_path: Path) -> None:
    pwned = tmp_path / "pwned"
    evil = [Evil(exec, f"open({str(pwned)!r}, 'w')"), Evil(getattr, pwned, "touch"), [Evil(eval, "1 / 0")]]
    for number, each in enumerate(evil):
        path = saved(
            tmp_path / f"{number}.ckpt", {"state_dict": prefixed("model."), "hyper_parameters": each}
        )
        module = TinyNet()
        load_weights(module, path, "TinyNet")
        assert_loaded(module)
    assert not pwned.exists()
    torch.load(tmp_path / "0.ckpt", weights_only=False)
    assert pwned.exists(), "the files were harmless: nothing is shown"


def test_tensors_made_by_unknown_code_are_not_used(tmp_path: Path) -> None:
    state = {**TinyNet().state_dict(), "last.bias": Evil(functools.partial, torch.ones, 5)}
    with pytest.raises(IgosError, match="holds more than tensors and was refused"):
        load_weights(TinyNet(), saved(tmp_path / "tiny.pth", state), "TinyNet")


def test_plain_namespaces_and_nothing_else(tmp_path: Path) -> None:
    content = {"state_dict": prefixed(""), "args": argparse.Namespace(lr=0.1), "hyper": Hyper(a=1)}
    module = TinyNet()
    load_weights(module, saved(tmp_path / "tiny.pth", content), "TinyNet")
    assert_loaded(module)
