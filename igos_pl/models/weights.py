"""Reads weight files. Runs no code that they contain, and refuses those that belong to another network."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from igos_pl.errors import IgosError
from igos_pl.models.checkpoints import read_tensors, stripped
from igos_pl.settings import digest

_COUNTER = ".num_batches_tracked"

# The endings of files that `load_weights` reads.
WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")

# torch.hub's convention, which torchvision follows: the name ends in the first digits of the SHA-256.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")


def load_weights(module: nn.Module, path: str | Path, architecture: str, by_order: bool = False) -> str:
    """Load a weight file into a module, strictly.

    The names of the file's tensors may have a prefix in common (``model.``, ``module.``, ...), as those of a
    LightningModule's checkpoint have. The tensors that lie beside such a part are left out, and a line of
    logging says so.

    Args:
        module: what to fill.
        path: a file of tensors: a state dict, a dict whose ``model`` or ``state_dict`` is one (a Lightning
            checkpoint), or a safetensors file.
        architecture: what messages call the module.
        by_order: match the tensors by their order, whatever their names.

    Returns:
        The file's SHA-256.

    Raises:
        IgosError: if the file is missing, damaged, holds code, or belongs to another architecture.
    """
    path = Path(path)
    sha256 = file_sha256(path)
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
    """The SHA-256 of a module's tensors, for one that came with its weights instead of a file."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


# What every module has, whatever its settings.
_COMMON_TO_MODULES = frozenset(vars(nn.Module()))

# What torchvision's detectors store during a forward pass; see also `_is_setting`.
_STORED_IN_FORWARD = {"MultiScaleRoIAlign": ("scales", "map_levels")}

# What transformers' networks know of their files and of their warnings.
_NO_SETTINGS = frozenset({"name_or_path", "warnings_issued"})


def layer_settings(module: nn.Module) -> dict[str, Any]:
    """Every plain value that a module's layers hold, by its dotted name: strides, thresholds, eps, sizes.

    Values are text, numbers, None, functions, and lists, tuples and dicts of them. Tensors are left out:
    `module_sha256` covers those of the state dict. Values that a forward pass stores are left out.
    """
    return {
        f"{prefix}.{key}" if prefix else key: value
        for prefix, layer in module.named_modules()
        for key, value in vars(layer).items()
        if _is_setting(layer, key, value)
    }


def _is_setting(layer: nn.Module, key: str, value: Any) -> bool:
    if (
        key in _COMMON_TO_MODULES | _NO_SETTINGS
        or "cache" in key
        or key in _STORED_IN_FORWARD.get(type(layer).__name__, ())
    ):
        return False
    # Private attributes of a library's own layers come and go with its versions and with forward passes.
    private = key.startswith("_") and type(layer).__module__.startswith(("torch.", "transformers."))
    return not private and _is_plain(value)


def layers_digest(module: nn.Module) -> str:
    """A digest of the classes of a module's layers and of their settings."""
    classes = {name: type(layer).__qualname__ for name, layer in module.named_modules()}
    return digest(json.dumps([classes, layer_settings(module)], sort_keys=True, default=_qualified))


def _qualified(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    function = isinstance(value, FunctionType | BuiltinFunctionType)  # of an activation, say
    return value is None or function or isinstance(value, bool | int | float | str)


def fetch_weights(url: str, folder: Path) -> str:
    """The file of a URL in a folder, downloaded if it is not there yet.

    Raises:
        IgosError: if the download fails; says which file to put where by hand.
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
    """The SHA-256 of a weight file, checked against its name where that carries one.

    Raises:
        IgosError: if the file is missing or is not what its name says.
    """
    if not path.is_file():
        raise IgosError(
            f"No weight file at {path}. Put it there (weight/README.md says where to get it),"
            " or name another with --model.network.weights"
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
            raise IgosError(
                f"{path} holds more than tensors and was refused, since loading it could run code: save the"
                " state dict alone, torch.save(module.state_dict(), path)"
            ) from error
        raise IgosError(
            f"{path} cannot be read as a weight file, or is cut off ({path.stat().st_size:,} bytes): fetch it"
            " again"
        ) from error


def _is_torch_file(path: Path) -> bool:
    """Whether a file begins like what ``torch.save`` writes, a zip archive or a pickle."""
    with path.open("rb") as file:
        return file.read(1) == b"\x80" or zipfile.is_zipfile(path)


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise IgosError(f"{path} holds no state dict: a dict from parameter names to tensors is expected")
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
        f"{len(names)} {what} ({_some(names)})"
        for what, names in (
            ("missing", missing),
            ("not known to it", unexpected),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise IgosError(
            f"{path} does not fit {architecture}: of its {len(wanted)} tensors, {'; '.join(problems)}."
            " Is it the weight file of another architecture?"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
