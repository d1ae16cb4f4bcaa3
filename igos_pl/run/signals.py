"""Catches the signals with which a cluster stops a job, from the start of the command."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, ClassVar

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

# The exit code of a run that was told to stop and is to be started again (EX_TEMPFAIL of sysexits.h).
STOPPED = 75

# A process that has not run the signal handler by then is stuck, for example in a rendezvous without peers.
_STUCK_SECONDS = 60.0

_SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl


def die_with_parent() -> None:
    """Make sure that a rank started by the first rank dies with it, whatever the cause of death.

    Call this before anything else, so that the rank is not yet waiting for others.
    """
    if sys.platform != "linux" or os.environ.get("LOCAL_RANK", "0") == "0":
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() == 1:  # it was dead already
        os._exit(1)


class StopSignals:
    """Notes SIGTERM and SIGUSR1 while it is entered; the process would otherwise die of them.

    Signals belong to the whole process, so instances can be nested: an inner instance also knows the signals
    that an outer one has noted. The command line enters the outer one before it imports torch, the run enters
    the inner one later.

    Attributes:
        heard: whether a signal came.
    """

    _entered: ClassVar[list[StopSignals]] = []

    def __init__(self) -> None:
        self.heard = False
        self._previous: dict[signal.Signals, Any] = {}
        self._guard: _Guard | None = None

    def __enter__(self) -> StopSignals:
        self.heard = self.heard or any(outer.heard for outer in self._entered)
        self._entered.append(self)
        if len(self._entered) == 1:
            self._guard = _Guard(self)
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
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Only flags: a handler may interrupt anything, even a write.
        for listening in self._entered:
            listening.heard = True


class _Guard:
    """Ends the process if a signal is not noted in time.

    Python runs signal handlers only between bytecode instructions. But its C code writes a byte to the wakeup
    file descriptor at once, and a thread reads it from there.
    """

    def __init__(self, signals: StopSignals) -> None:
        self._signals = signals
        self._ears, mouth = socket.socketpair()
        mouth.setblocking(False)
        self._mouth = mouth
        self._previous = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
        self._closed = threading.Event()
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        signal.set_wakeup_fd(self._previous)
        self._closed.set()
        self._mouth.close()

    def _listen(self) -> None:
        with self._ears:
            while heard := self._ears.recv(1):
                if heard[0] in _SIGNALS:
                    self._closed.wait(_STUCK_SECONDS)
                    if not self._signals.heard and not self._closed.is_set():
                        os.write(2, b"igos-pl: stopped by a signal while waiting for others\n")
                        os._exit(STOPPED)
