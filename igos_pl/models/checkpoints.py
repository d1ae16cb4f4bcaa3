"""Reads the tensors of checkpoints without running code, and finds them under a common prefix."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igos_pl.data.text import first_few
from igos_pl.errors import IgosError
from igos_pl.optional import imported


def read_tensors(path: Path) -> Any:
    """The content of a weight file. Everything but plain data and tensors is replaced by `Omitted`.

    Checkpoints often hold hyperparameters and other objects of classes that only the training program knows.
    None of these classes is imported or called.

    Args:
        path: a file that ``torch.save`` wrote, or a safetensors file.

    Raises:
        pickle.UnpicklingError: if it cannot be read without running code.
        Exception: of nearly any type, if the file is damaged.
    """
    if path.suffix == ".safetensors":
        return imported("safetensors.torch", "huggingface", path.name).load_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unknown = _unknown_classes(path)
        if not unknown:
            raise
        replaced = [(type("Omitted", (Omitted,), {}), name) for name in unknown]
        with torch.serialization.safe_globals(replaced):  # type: ignore[arg-type]
            content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise error
        logging.getLogger(__name__).warning(
            "%s: left out everything but tensors and plain data (%s)", path, first_few(unknown)
        )
        return content


def _unknown_classes(path: Path) -> list[str]:
    """The classes and functions that a file names and torch does not allow; none for damaged or old files."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # the first error says what is wrong
        return []


class Omitted:
    """Takes the place of an object in a checkpoint. It keeps nothing of what a pickle gives it."""

    def __new__(cls, *_: Any, **__: Any) -> Omitted:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


def stripped(state: dict[str, Tensor], wanted: Sequence[str], path: Path) -> tuple[dict[str, Tensor], str]:
    """The part of a state dict whose names are the wanted ones after a common prefix.

    Args:
        state: the file's state dict.
        wanted: the names of the module's tensors, without its batch counters.
        path: the file, for messages.

    Returns:
        The part without the prefix, and a remark that says so. The whole state and no remark if there is no
        such part, or if the names fit as they are.

    Raises:
        IgosError: if there are several such parts, and they differ.
    """
    if not wanted or all(key in state for key in wanted):
        return state, ""
    first = wanted[0]
    prefixes = [key.removesuffix(first) for key in state if key.endswith(f".{first}")]
    parts = {}
    for prefix in prefixes:
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        counters = {key for key in part if key.endswith(".num_batches_tracked")}
        if set(part) - counters == set(wanted):
            parts[prefix] = part
    if not parts:
        return state, ""
    prefix, part = next(iter(parts.items()))
    if any(not _equal(part, other) for other in parts.values()):
        raise IgosError(
            f"{path} holds several networks that fit ({', '.join(map(repr, parts))}): save the state dict of"
            " the right one alone"
        )
    beside = len(state) - len(part)
    remark = f"took the tensors whose names begin with {prefix!r}"
    return part, f"{remark}, and left out {beside} other{'s' * (beside > 1)}" if beside else remark


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.items() if key in other)
