"""Reads weight files. Runs no code that they contain, and refuses those that belong to another network."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from igos_pl.data.text import first_few
from igos_pl.errors import IgosError
from igos_pl.models.checkpoints import Omitted, read_tensors, stripped
from igos_pl.settings import digest

_COUNTER = ".num_batches_tracked"

# The endings of files that `load_weights` reads.
WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")

# torch.hub's convention, which torchvision follows: the name ends in the first digits of the SHA-256.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")


def load_weights(module: nn.Module, path: str | Path, architecture: str, by_order: bool = False) -> str:
    """Load a weight file into a module, strictly.

    The names of the file's tensors may have a common prefix (``model.``, ``module.``, ...), as in a
    LightningModule's checkpoint. Tensors without this prefix are left out, and a warning is logged.

    Args:
        module: the module to fill.
        path: a file of tensors: a state dict, a dict whose ``model`` or ``state_dict`` is one (a Lightning
            checkpoint), or a safetensors file.
        architecture: the module's name in messages.
        by_order: match the tensors by their order, whatever their names.

    Returns:
        The file's SHA-256.

    Raises:
        IgosError: if the file is missing, damaged, holds code, or belongs to another architecture.
    """
    path = Path(path)
    sha256 = file_sha256(path)
    _check_archive(path)
    state = _state_dict(_read(path), path)
    if by_order and len(state) == len(module.state_dict()):
        state = dict(zip(module.state_dict(), state.values(), strict=True))
    else:
        state, remark = stripped(
            state, [key for key in module.state_dict() if not key.endswith(_COUNTER)], path
        )
        if remark:
            logging.getLogger(__name__).warning("%s: %s", path, remark)
    state = _with_counters_of(module, state)
    _check_fit(module.state_dict(), state, path, architecture)
    module.load_state_dict(state)
    return sha256


def module_sha256(module: nn.Module) -> str:
    """The SHA-256 of a module's state dict, for a module whose weights are not from a file."""
    return _tensors_sha256(module.state_dict())


def _tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of the names, types, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_tensors(module: nn.Module, name: str) -> None:
    """Raise if a tensor of a module has no values, is sparse or quantised, or is closed to autograd.

    Raises:
        IgosError: the message names the first such tensor.
    """
    for key, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor) and not _is_dense(tensor):
            raise IgosError(
                f"{name}: {key} is {_kind(tensor)}, but must be dense and in memory: build the network on the"
                " CPU and load its weights"
            )
        if isinstance(tensor, Tensor) and tensor.is_inference():
            raise IgosError(
                f"{name}: {key} was made in torch.inference_mode, so gradients cannot pass it: build the"
                " network outside of it"
            )


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized


def _kind(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "on the meta device, without values"
    return "quantized" if tensor.is_quantized else f"sparse ({tensor.layout})"


# Attributes that every module has, whatever its settings.
_COMMON_TO_MODULES = frozenset(vars(nn.Module()))

# What detectors of torchvision and ultralytics store during a forward pass; see also `_is_setting`.
_ANCHORS = ("anchors", "strides")
_STORED_IN_FORWARD = {
    "MultiScaleRoIAlign": ("scales", "map_levels"),
    "Detect": _ANCHORS,
    "v10Detect": _ANCHORS,
}

# Attributes of transformers' networks about their files and warnings.
_NO_SETTINGS = frozenset({"name_or_path", "warnings_issued"})


def layer_settings(module: nn.Module) -> dict[str, Any]:
    """Every plain value that a module's layers hold, by its dotted name: strides, thresholds, eps, sizes.

    Values are text, numbers, None, functions, and lists, tuples and dicts of them. Tensors are left out, see
    `layers_digest`. Values that a forward pass stores are left out.
    """
    return {
        f"{prefix}.{key}" if prefix else key: value
        for prefix, layer in module.named_modules()
        for key, value in vars(layer).items()
        if _is_setting(layer, key, value)
    }


def _is_setting(layer: nn.Module, key: str, value: Any) -> bool:
    if key in _COMMON_TO_MODULES | _NO_SETTINGS or _is_stored_in_forward(layer, key):
        return False
    # Private attributes of a library's own layers come and go with its versions and with forward passes.
    private = key.startswith("_") and type(layer).__module__.startswith(("torch.", "transformers."))
    try:
        return not private and _is_plain(value)
    except RecursionError:  # a list that holds itself
        return False


def _is_stored_in_forward(layer: nn.Module, key: str) -> bool:
    return "cache" in key or key in _STORED_IN_FORWARD.get(type(layer).__name__, ())


def _unsaved_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module's layers that are not in its state dict, by their dotted names.

    They are the buffers with ``persistent=False``, and tensors that are plain attributes, also in lists and
    dicts. Tensors that a forward pass stores are left out.
    """
    saved = set(module.state_dict())
    found: dict[str, Tensor] = {}
    for prefix, layer in module.named_modules():
        plain = {key: value for key, value in vars(layer).items() if key not in _COMMON_TO_MODULES}
        for key, value in {**plain, **layer._buffers}.items():
            name = f"{prefix}.{key}" if prefix else key
            if name not in saved and not _is_stored_in_forward(layer, key):
                found.update(_tensors_in(name, value))
    return found


def _tensors_in(name: str, value: Any) -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {name: value} if _is_dense(value) else {}
    items: Iterable[tuple[Any, Any]] = enumerate(value) if isinstance(value, list | tuple) else ()
    items = value.items() if isinstance(value, dict) else items
    return {f"{name}.{key}": one for key, one in items if isinstance(one, Tensor) and _is_dense(one)}


def layers_digest(module: nn.Module) -> str:
    """A digest of the classes of a module's layers, of their settings, and of tensors that are not saved.

    Tensors that are not in the state dict affect results just as weights do.
    """
    classes = {name: type(layer).__qualname__ for name, layer in module.named_modules()}
    parts: list[Any] = [classes, layer_settings(module)]
    if unsaved := _unsaved_tensors(module):
        parts.append(_tensors_sha256(unsaved))
    return digest(json.dumps(parts, sort_keys=True, default=_qualified))


def _qualified(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    function = isinstance(value, FunctionType | BuiltinFunctionType)  # such as an activation
    return value is None or function or isinstance(value, bool | int | float | str)


def fetch_weights(url: str, folder: Path) -> str:
    """The file of a URL in a folder. It is downloaded if it is missing.

    Raises:
        IgosError: if the download fails; the message says which file to put where by hand.
    """
    path = folder / url.rsplit("/", 1)[1]
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path))
        except OSError as error:  # urllib's errors are all of this kind
            raise IgosError(
                f"No weight file at {path}, and {url} could not be downloaded ({error}): put it there by hand"
            ) from error
    return str(path)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a weight file. If the file's name contains a hash, the two are compared.

    Raises:
        IgosError: if the file is missing, or its hash is not the one in its name.
    """
    if not path.is_file():
        # The folder of published weights, as the settings in configs/ name it.
        hint = " (weight/README.md says where to get it)" if path.parent.name == "weight" else ""
        raise IgosError(
            f"No weight file at {path}. Put it there{hint}, or name another with weights"
            " (--model.network.weights)"
        )
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    sha256 = digest.hexdigest()
    promised = _HASH_IN_NAME.search(path.name)
    if promised and not sha256.startswith(promised[1]):
        raise IgosError(
            f"{path} is not the file that its name says: its SHA-256 begins with {sha256[:8]}, not with"
            f" {promised[1]}. It may be cut off ({path.stat().st_size:,} bytes): fetch it again,"
            " or rename it if it is meant to differ"
        )
    return sha256


def _read(path: Path) -> object:
    try:
        return read_tensors(path)
    except IgosError:
        raise
    except Exception as error:  # damaged files make torch.load raise nearly anything
        if isinstance(error, pickle.UnpicklingError) and _is_torch_file(path):
            raise _refused(path) from error
        raise IgosError(
            f"{path} cannot be read as a weight file, or is cut off ({path.stat().st_size:,} bytes): fetch it"
            " again"
        ) from error


def _refused(path: Path) -> IgosError:
    return IgosError(
        f"{path} holds more than tensors and was refused, since loading it could run code: save the state"
        " dict alone, torch.save(module.state_dict(), path)"
    )


_FOLDER = 0x10  # the bit of a zip entry's attributes that marks a folder


def _check_archive(path: Path) -> None:
    """Raise if an entry of torch's zip format has a wrong checksum. Torch itself does not check this.

    Files that were written without checksums (``torch.serialization.set_crc32_options``) are accepted.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if not any(part.CRC for part in parts):
                return
            # torch does not read an entry that is marked as a folder, and leaves its tensor uninitialised.
            folders = (part.filename for part in parts if part.external_attr & _FOLDER)
            damaged = next(folders, None) or archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, zlib.error, RuntimeError):
        damaged = "its table of contents"
    if damaged:
        raise IgosError(f"{path} is damaged: the checksum of {damaged} is wrong. Fetch the file again")


def _is_torch_file(path: Path) -> bool:
    """Whether a file begins like those of ``torch.save``: as a zip archive or a pickle."""
    with path.open("rb") as file:
        return file.read(1) == b"\x80" or zipfile.is_zipfile(path)


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        if isinstance(content, dict) and any(isinstance(value, Omitted) for value in content.values()):
            raise _refused(path)
        raise IgosError(f"{path} holds no state dict: it must be a dict from parameter names to tensors")
    for key, tensor in content.items():
        if not _is_dense(tensor) or tensor.is_complex():
            kind = "complex" if tensor.is_complex() else _kind(tensor)
            raise IgosError(
                f"{path}: {key} is {kind}, but must be dense, real and have values: save it like that"
            )
    return content


def _with_counters_of(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with exactly the batch counters (``num_batches_tracked``) that the module has.

    The counters have no effect in evaluation mode, and some weight files omit them.
    """
    counters = {key: value for key, value in module.state_dict().items() if key.endswith(_COUNTER)}
    return {key: value for key, value in state.items() if not key.endswith(_COUNTER)} | counters


def _check_fit(wanted: dict[str, Tensor], found: dict[str, Tensor], path: Path, architecture: str) -> None:
    """Raise with the first few differences; `load_state_dict` alone would print hundreds of lines."""
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [
        f"{key} is {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    problems = [
        f"{len(names)} {what} ({first_few(names)})"
        for what, names in (
            ("missing", missing),
            ("not known to it", unexpected),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        advice = "Is it the weight file of another architecture?"
        if misshapen and not missing and not unexpected:
            advice = _classes_advice([(found[key].shape, wanted[key].shape) for key in wanted]) or advice
        raise IgosError(
            f"{path} does not fit {architecture}: of its {len(wanted)} tensors, {'; '.join(problems)}."
            f" {advice}"
        )


def _classes_advice(shapes: Iterable[tuple[torch.Size, torch.Size]]) -> str:
    """What to do if only the number of classes differs; empty if there are other differences.

    Args:
        shapes: of each tensor in the file and in the module.
    """
    different = [pair for pair in shapes if pair[0] != pair[1]]
    if any(theirs[1:] != ours[1:] or not theirs or not ours for theirs, ours in different):
        return ""
    counts = {(theirs[0], ours[0]) for theirs, ours in different}
    if len(counts) != 1:
        return ""
    ((theirs, ours),) = counts
    return (
        f"The file is of a network with {theirs} classes instead of {ours}: give a module with {theirs}"
        f" classes, or set num_classes to {theirs} (--model.network.num_classes {theirs}). A network of"
        f" igos_pl without num_classes takes the number from class_names: give {theirs} names"
    )
