"""Reads the settings of a class from its constructor. Settings that affect results identify a run."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from igos_pl.errors import IgosError

Attributes = dict[str, str | int | float]

_LONGEST_TEXT = 200  # characters; HDF5 has room for 64 kB of attributes
_INT64 = 1 << 63


class Configurable:
    """A class that can say everything that decides its results.

    Every parameter of the constructor, own or inherited, is a setting and is kept as an attribute of the same
    name. A subclass lists the parameters that do not change results in `not_settings`. It returns everything
    else that changes results (the hash of the weights, the sizes that it found) from `facts`.

    Attributes:
        not_settings: parameters that results do not depend on, in addition to those of the base classes.
    """

    not_settings: ClassVar[frozenset[str]] = frozenset()

    def facts(self) -> Attributes:
        """Values that affect the results but are not constructor parameters."""
        return {}

    def describe(self) -> Attributes:
        """The settings and the facts: equal descriptions mean equal results.

        Raises:
            IgosError: if a parameter is neither kept as an attribute nor listed in `not_settings`.
        """
        return {**settings_of(self), **self.facts()}


def settings_of(configured: Configurable) -> Attributes:
    """The values of all constructor parameters that are settings, as text and numbers.

    Raises:
        IgosError: if a parameter is neither kept as an attribute nor listed in `not_settings`, or has a value
            that cannot be written as text.
    """
    cls = type(configured)
    skipped = {name for base in cls.__mro__ for name in vars(base).get("not_settings", ())}
    found: Attributes = {}
    for name in parameters_of(cls):
        if name in skipped:
            continue
        if not hasattr(configured, name):
            raise IgosError(
                f"{cls.__name__} does not keep its parameter {name!r}: set self.{name} in the constructor, or"
                " list it in not_settings if results do not depend on it"
            )
        found.update(_flattened(name, getattr(configured, name), cls))
    return found


def parameters_of(cls: type) -> list[str]:
    """The names of a class's constructor parameters, inherited ones first, each once."""
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, Configurable) and "__init__" in vars(base):
            parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            named = (p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
            names.update(dict.fromkeys(named))
    return list(names)


def nested(name: str, attributes: Mapping[str, str | int | float]) -> Attributes:
    """A part's attributes under its name, as in ``network.input_size``."""
    return {f"{name}.{key}": value for key, value in attributes.items()}


def _flattened(name: str, value: Any, cls: type) -> Attributes:
    if isinstance(value, Configurable):
        return {name: type(value).__name__, **nested(name, value.describe())}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {
            key: found
            for field, below in fields.items()
            for key, found in _flattened(f"{name}.{field}", below, cls).items()
        }
    try:
        return {name: plain(value)}
    except TypeError as error:
        raise IgosError(
            f"{cls.__name__} keeps {name!r} as a {type(value).__name__}, which cannot be written as text:"
            " list it in not_settings, and return the parts of it that affect the results from facts()"
        ) from error


def plain(value: Any) -> str | int | float:
    """A value as HDF5 can hold it: a number, or text in which long values are replaced by their digest.

    Raises:
        TypeError: if it is made of anything but text, numbers, paths, None, lists and dicts.
    """
    if not isinstance(value, list | tuple | dict) and getattr(value, "ndim", None) == 0:
        value = value.item()  # of NumPy or torch
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) or (isinstance(value, int) and -_INT64 <= value < _INT64):
        return value
    if isinstance(value, Path):
        value = str(value.resolve())
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    text = storable(text)
    if value is None:
        return "none"
    return text if len(text) <= _LONGEST_TEXT else f"{text[:40]}... ({digest(text)})"


def storable(text: str) -> str:
    """Text as any file can hold it: without zero bytes and lone surrogates."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def digest(text: str) -> str:
    """16 hexadecimal digits that stand for a text; the same on every machine."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
