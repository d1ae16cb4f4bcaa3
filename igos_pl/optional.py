"""Libraries of igos_pl's extras, which are imported only where they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from igos_pl.errors import IgosError


def imported(module: str, extra: str, needed_by: str) -> Any:
    """A module of an optional library.

    Args:
        module: its full name.
        extra: the extra of igos_pl that installs it.
        needed_by: who needs it, in messages.

    Raises:
        IgosError: if it is missing; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise IgosError(
            f"{needed_by} needs the package {missing.partition('.')[0]}, which cannot be imported ({error}):"
            f" pip install 'igos_pl[{extra}]'"
        ) from error
