"""Catches signals from a cluster or a terminal that stop a run, from the start of the command on."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, ClassVar

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

# The exit code of a run that a signal stopped, and that is to be started again (EX_TEMPFAIL of sysexits.h).
STOPPED = 75

# The exit code that shells use for a command that was interrupted from the terminal.
INTERRUPTED = 130

GO_ON = "igos-pl: interrupted. Run the same command again to go on"

# A process that has not run the signal handler after this time is stuck, as in a rendezvous without peers.
_STUCK_SECONDS = 60.0

# A process that has noted the signal, but not begun its run after this time, waits for ranks in vain.
_START_SECONDS = 300.0

_SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl


# The variable with the first rank's process id, for the ranks that it starts.
_PARENT = "IGOS_PL_FIRST_RANK"


def die_with_parent() -> None:
    """Make sure that a rank dies with the first rank that started it, whatever kills that one.

    This must be called before the rank waits for others.
    """
    if is_first_of_node():
        os.environ[_PARENT] = str(os.getpid())
        return
    parent = int(os.environ.get(_PARENT, "0"))
    if sys.platform != "linux" or not parent:
        return  # srun or torchrun started it, and ends it
    if os.getppid() == parent:
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if not Path(f"/proc/{parent}").exists():
        os._exit(1)


class StopSignals:
    """A context that notes SIGTERM and SIGUSR1, which would otherwise kill the process.

    Signals belong to the whole process, so instances can be nested: an inner instance also knows the signals
    that an outer one has noted. The command line enters the outer one before it imports torch, the run enters
    the inner one later.

    During startup, an interrupt (Ctrl-C) ends the process at once, because there is nothing to save. Later
    it raises a ``KeyboardInterrupt`` as usual.

    Args:
        starting: whether the process is starting up. This ends when an inner instance is entered.

    Attributes:
        heard: whether SIGTERM or SIGUSR1 came.
    """

    _entered: ClassVar[list[StopSignals]] = []

    def __init__(self, starting: bool = False) -> None:
        self.heard = False
        self.starting = starting
        self._previous: dict[signal.Signals, Any] = {}
        self._guard: _Guard | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may handle signals
        self.heard = self.heard or any(outer.heard for outer in self._entered)
        self._entered.append(self)
        if len(self._entered) == 1:
            self._guard = _Guard(self)
        self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        if self.starting and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, _leave_to_guard)
        elif signal.getsignal(signal.SIGINT) is _leave_to_guard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for outer in self._entered[:-1]:
            outer.starting = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self not in self._entered:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._entered.remove(self)
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        # It only sets flags, because a handler may interrupt anything, even a write.
        for listening in self._entered:
            listening.heard = True


def _leave_to_guard(number: int, frame: FrameType | None) -> None:
    """Ignore an interrupt during startup, because `_Guard` ends the process."""


def is_first_of_node() -> bool:
    """Whether this is a node's first rank, or the only process: it reports how a command ended."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


class _Guard:
    """Ends the process if a signal is not noted in time, or at an interrupt during startup.

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
                if heard[0] == signal.SIGINT and self._signals.starting:
                    if is_first_of_node():
                        os.write(2, f"{GO_ON}\n".encode())
                    os._exit(INTERRUPTED)
                if heard[0] in _SIGNALS:
                    self._closed.wait(_STUCK_SECONDS)
                    if self._signals.heard:
                        self._closed.wait(_START_SECONDS)
                    if self._is_stuck():
                        os.write(2, b"igos-pl: stopped by a signal while waiting for others\n")
                        os._exit(STOPPED)

    def _is_stuck(self) -> bool:
        return not self._closed.is_set() and (not self._signals.heard or self._signals.starting)


def _forget_in_child() -> None:
    """Stop a forked process from waking up its parent's guard."""
    with suppress(ValueError):  # another thread forked the process
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_in_child)
