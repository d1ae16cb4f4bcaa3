"""Checks of shapes and ranges that every public entry uses, so that all messages read alike."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from igos_pl.errors import IgosError

if TYPE_CHECKING:  # looking into a result imports this module, and must not import torch
    from torch import Tensor


def check_shape(name: str, tensor: Tensor, expected: tuple[int | str, ...]) -> None:
    """Raise unless ``tensor`` has the expected shape.

    Args:
        name: what the message calls the tensor.
        tensor: the tensor to look at.
        expected: a number for a fixed length, a letter for a free one, e.g. ``("B", 3, "H", "W")``.

    Raises:
        IgosError: naming the expected and the actual shape.
    """
    actual = tuple(tensor.shape)
    fits = len(actual) == len(expected) and all(
        isinstance(want, str) or want == have for want, have in zip(expected, actual, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(length) for length in expected)
        raise IgosError(f"{name} must have the shape ({wanted}), but has {actual}")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise unless ``value`` is one of ``choices``.

    Raises:
        IgosError: naming the value and the choices.
    """
    if value not in choices:
        raise IgosError(f"{name} is {value!r}, but must be one of: {', '.join(choices)}")


def check_share(name: str, value: float) -> None:
    """Raise unless ``value`` is a number from 0 to 1.

    Raises:
        IgosError: naming the value and the bounds.
    """
    if not 0 <= value <= 1:
        raise IgosError(f"{name} is {value}, but must be between 0 and 1")


def check_at_least(name: str, value: float, lowest: float) -> None:
    """Raise unless ``value`` is a number of at least ``lowest``.

    Raises:
        IgosError: naming the value and the bound.
    """
    if not value >= lowest:
        raise IgosError(f"{name} is {value}, but must be at least {lowest}")
