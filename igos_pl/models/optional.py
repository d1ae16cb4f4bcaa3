"""Libraries that are imported only when a network needs them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from igos_pl.errors import IgosError


def imported(module: str, extra: str, needed_by: str) -> Any:
    """A module of an optional library.

    Args:
        module: its full name.
        extra: the extra of igos_pl that installs it.
        needed_by: what messages say needs it.

    Raises:
        IgosError: saying how to install it, if it is missing.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise IgosError(
            f"{needed_by} needs the package {missing.partition('.')[0]}, which cannot be imported ({error}):"
            f" pip install 'igos_pl[{extra}]'"
        ) from error
