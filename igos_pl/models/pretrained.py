"""Loads networks of Hugging Face's transformers from a folder or the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from igos_pl.data.text import first_few
from igos_pl.data.wording import counted
from igos_pl.errors import IgosError
from igos_pl.optional import imported
from igos_pl.settings import digest

_T = TypeVar("_T")


def transformers_for(needed_by: str) -> Any:
    """The package transformers.

    Raises:
        IgosError: if it is missing.
    """
    return imported("transformers", "huggingface", needed_by)


def pretrained_model(auto_class: Any, name: str) -> Any:
    """Load a network of transformers in float32, with weights for every tensor.

    The folder's own code is never run. Weights are read from safetensors if the folder has them, otherwise
    with torch's loader for tensors alone.

    Args:
        auto_class: ``transformers.AutoModelFor...``.
        name: a folder, or a name on the hub.

    Raises:
        IgosError: if it cannot be loaded, or if the folder lacks weights for this task.
    """
    model, info = _fetched(
        lambda: auto_class.from_pretrained(
            name, trust_remote_code=False, output_loading_info=True, dtype=torch.float32
        ),
        name,
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise IgosError(
            f"{name} has no weights for {counted(len(missing), 'tensor')} of {type(model).__name__}"
            f" ({first_few(missing)}), which would be random: name a model that was trained for this task"
        )
    return model


def pretrained_part(auto_class: Any, name: str) -> Any:
    """Load an image processor, a tokenizer or a configuration.

    Args:
        auto_class: ``transformers.AutoImageProcessor``, ...
        name: a folder, or a name on the hub.

    Raises:
        IgosError: if it cannot be loaded.
    """
    return _fetched(lambda: auto_class.from_pretrained(name, trust_remote_code=False), name)


def config_digest(config: Any) -> str:
    """A digest of the settings in a model's configuration, without its folder and the library's version."""
    told = config.to_dict()
    for name in ("_name_or_path", "transformers_version", "dtype", "torch_dtype"):
        told.pop(name, None)
    return digest(json.dumps(told, sort_keys=True, default=str))


def shown_name(name: str) -> str:
    """A network's name in results: the folder's own name, or the name on the hub."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def _fetched(load: Callable[[], _T], name: str) -> _T:
    """The result of a ``from_pretrained``.

    Raises:
        IgosError: if it raises; the message says what to do.
    """
    try:
        return load()
    except Exception as error:  # transformers and the HTTP clients below it raise nearly anything
        reason = " ".join(str(error).split())[:300]
        if "trust_remote_code" in str(error):
            hint = (
                "It needs Python code of its own, which is never run here: use a model of transformers itself"
            )
        elif Path(name).is_dir():
            hint = f"Does the folder {name} hold all files that save_pretrained writes?"
        else:
            hint = (
                f"{name} is not a folder, so it was looked for on the Hugging Face hub. Without internet:"
                f" download https://huggingface.co/{name} into a folder elsewhere (hf download {name}"
                " --local-dir FOLDER), copy it here, and set name to the folder"
            )
        raise IgosError(f"{name} cannot be loaded ({type(error).__name__}: {reason}). {hint}") from error


class ChannelsReversed(nn.Module):
    """Reverses the channels for a network that was trained on blue, green, red.

    Args:
        network: the network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """The network's output for images ``(B, 3, H, W)`` of red, green, blue."""
        return self.network(images.flip(1))
