"""Checks of shapes and ranges that all public functions share, so that their messages look alike."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING

from igos_pl.errors import IgosError

if TYPE_CHECKING:  # looking into a result imports this module, and must not import torch
    from torch import Tensor


# A message lists at most so many names.
_SHOWN = 10

# A name is suggested only if its similarity (0 to 1) is within this of the most similar one.
_MUCH_CLOSER = 0.1


def check_shape(name: str, tensor: Tensor, expected: tuple[int | str, ...]) -> None:
    """Raise unless ``tensor`` has the expected shape.

    Args:
        name: the tensor's name in the message.
        tensor: the tensor to check.
        expected: a number for a fixed length, a letter for a free one, e.g. ``("B", 3, "H", "W")``.

    Raises:
        IgosError: the message names the expected and the actual shape.
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
        IgosError: the message names the value and the choices.
    """
    if not isinstance(value, str) or value not in choices:
        close = closest(value, choices) if isinstance(value, str) else []
        meant = f"; did you mean {close[0]}?" if close else ""
        raise IgosError(f"{name} is {value!r}, but must be one of: {', '.join(choices)}{meant}")


def closest(name: str, known: Collection[str], most: int = 3) -> list[str]:
    """The known names that are similar to an unknown one, best first.

    Case does not matter. A name that begins with the given one counts as close, whatever its length.

    Args:
        name: the unknown name.
        known: all known names.
        most: the largest number of names to return.
    """
    by_case: dict[str, list[str]] = {}
    for each in dict.fromkeys(known):
        by_case.setdefault(each.lower(), []).append(each)
    wanted = name.lower()
    found = difflib.get_close_matches(wanted, by_case, most, cutoff=0.6)
    ratios = [difflib.SequenceMatcher(None, each, wanted).ratio() for each in found]
    found = [each for each, ratio in zip(found, ratios, strict=True) if ratio >= ratios[0] - _MUCH_CLOSER]
    if len(wanted) > 2:
        found += sorted((each for each in by_case if each.startswith(wanted)), key=len)
    return [each for one in dict.fromkeys(found) for each in by_case[one]][:most]


def suggestion(name: str, known: Collection[str]) -> str:
    """Advice for an unknown name: the closest known names, or the first ones if none is close."""
    close = closest(name, known)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not known:
        return "there is none"
    shown = list(known)[:_SHOWN]
    more = f", ... ({len(known)} in all)" if len(known) > len(shown) else ""
    return f"there are {', '.join(shown)}{more}"


def check_arguments(owner: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise if an argument is given that there is not.

    Args:
        owner: the class or function, as the message names it.
        given: the names of the arguments.
        known: those that there are.

    Raises:
        IgosError: naming the closest ones.
    """
    for name in given:
        if name not in known:
            raise IgosError(f"{owner} has no argument {name!r}: {suggestion(name, known)}")


def check_number(name: str, value: object) -> None:
    """Raise unless ``value`` is a number.

    Raises:
        IgosError: the message names the value and its type.
    """
    if not isinstance(value, Real):
        raise wrong_type(name, value, "a number")


def check_whole(name: str, value: object) -> None:
    """Raise unless ``value`` is a whole number.

    Raises:
        IgosError: the message names the value and its type.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise wrong_type(name, value, "a whole number")


def check_flag(name: str, value: object) -> None:
    """Raise unless ``value`` is true or false.

    Raises:
        IgosError: the message names the value and its type.
    """
    if not isinstance(value, bool):
        raise wrong_type(name, value, "true or false")


def wrong_type(name: str, value: object, wanted: str) -> IgosError:
    """The error for a value of a wrong type; the message names the value, its type and what is wanted."""
    return IgosError(f"{name} is {value!r} (of the type {type(value).__name__}), but must be {wanted}")


def check_share(name: str, value: float) -> None:
    """Raise unless ``value`` is a number from 0 to 1.

    Raises:
        IgosError: the message names the value and the bounds.
    """
    check_number(name, value)
    if not 0 <= value <= 1:
        raise IgosError(f"{name} is {value}, but must be between 0 and 1")


def check_at_least(name: str, value: float, lowest: float) -> None:
    """Raise unless ``value`` is a finite number of at least ``lowest``.

    Raises:
        IgosError: the message names the value and the bound.
    """
    check_number(name, value)
    if not value >= lowest:
        raise IgosError(f"{name} is {value}, but must be at least {lowest}")
    if value == math.inf:
        raise IgosError(f"{name} is {value}, but must be a finite number")


def check_count(name: str, value: float, lowest: int) -> None:
    """Raise unless ``value`` is a whole number of at least ``lowest``.

    Raises:
        IgosError: the message names the value and the bound.
    """
    check_whole(name, value)
    check_at_least(name, value, lowest)
