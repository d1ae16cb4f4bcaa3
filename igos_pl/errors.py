"""Exceptions for problems that the user can fix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

# An option of the command line in a message. It stands in parentheses behind the name of the argument.
_OPTION = re.compile(r" \(--[^()]*\)")


class IgosError(ValueError):
    """Bad input. The message says what is wrong, where, and what to do.

    The command line prints only the message. Any other exception is a bug and keeps its traceback.

    Attributes:
        exit_code: the exit code of the command line for this error.
    """

    exit_code = 2


class UnreadError(IgosError):
    """A file could not be read for a temporary reason (lost network storage, no memory). Try again."""


class TargetError(IgosError):
    """The targets of some images cannot be explained: a label is missing, or outside of the classes.

    Attributes:
        image: the place of the image that is to blame, in its batch or among those that are checked; None if
            the message names it, or if there is no such image.
    """

    def __init__(self, message: str, image: int | None = None) -> None:
        super().__init__(message)
        self.image = image


class RunError(IgosError):
    """The input is right, but the run could not go on: a full disk, a dead rank. Run it again."""

    exit_code = 1


class DiskFullError(RunError):
    """A disk, or the user's share of it, has no room for a file."""


class NetworkError(RunError):
    """The network raised an exception at many images in a row, so single images are not the cause."""


@contextmanager
def without_options() -> Iterator[None]:
    """Leave the options of the command line out of the messages of errors: the caller is in Python."""
    try:
        yield
    except IgosError as error:
        error.args = (_OPTION.sub("", str(error)),)
        raise
