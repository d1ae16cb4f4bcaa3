"""Signals by which a cluster wants its machines back, noted from a command's first moment on."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, ClassVar

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """Notes SIGTERM and SIGUSR1 while it is entered; the process would otherwise die of them.

    Signals belong to the whole process. What one instance has noted, those that are entered inside of it know
    as well: the command line listens while it still imports torch, the run listens later.

    Attributes:
        heard: whether a signal came.
    """

    _entered: ClassVar[list[StopSignals]] = []

    def __init__(self) -> None:
        self.heard = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self.heard = self.heard or any(outer.heard for outer in self._entered)
        self._entered.append(self)
        self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._entered.remove(self)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Only flags: a handler may interrupt anything, even a write.
        for listening in self._entered:
            listening.heard = True
