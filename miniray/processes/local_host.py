"""Local mode: a worker that is a thread, and how such a thread is interrupted or killed.

A thread gets no signals. What takes their place is Python's asynchronous exception, which comes at the next bytecode:
fatal in the middle of our own tables, and unnoticed while the thread sleeps. So:

* in user code, the thread gets the exception;
* inside a call of miniray's (a frame of this package is above the user's), the wish is only noted: a wait ends at once
  with KeyboardInterrupt, any other call when it is over, and a timer looks again;
* `time.sleep` is one of those calls: in local mode it waits at the worker's reactor.

What no exception reaches is a thread inside a C call of its own (a lock, a socket, a subprocess): it is interrupted, or
killed, when that returns. Then nobody listens to it any more: a killed worker's transport is closed at once.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from miniray.processes import current
from miniray.processes.reactor import Waiter

if TYPE_CHECKING:
    from miniray.processes.executor import Executor

#: Seconds between two attempts to interrupt a thread.
AGAIN = 0.01
#: The functions that call the user's: module and name.
_CALLERS = {
    ("executor", "_run"),
    ("executor", "_run_coroutine"),
    ("actor_executor", "create"),
    ("actor_executor", "construct"),
    ("actor_executor", "_call_function"),
    ("generator_runner", "run"),
}
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_real_sleep: Callable[[Any], None] = time.sleep


class WorkerKilled(BaseException):
    """Ends the thread of a worker that was killed."""


def raise_in_thread(ident: int, kind: type[BaseException]) -> None:
    """Let a thread raise this at its next bytecode. It must live long enough for that: up to Python 3.11 one that is
    left over slows all threads down, and with a trace function may stop them.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(kind))


class ThreadHost:
    """A thread of this process that runs a worker's tasks.

    Args:
        killed: called (under the core worker's lock) when the worker is to end at once.
    """

    own_process = False

    def __init__(self, killed: Callable[[], None]) -> None:
        self.ident = threading.get_ident()
        self._killed = killed
        self._executor: Executor | None = None

    def serve(self, executor: Executor) -> None:
        self._executor = executor
        executor._core.reactor.serve_thread(self.ident)

    def interrupt(self) -> None:
        executor = self._executor
        assert executor is not None
        reactor = executor._core.reactor
        if not executor.is_wanted() or reactor.closed:
            return
        if _in_user_code(sys._current_frames().get(self.ident)):
            reactor.drop_interrupt()
            executor._interrupting = b""
            raise_in_thread(self.ident, KeyboardInterrupt)
        else:
            reactor.interrupt_thread()
            reactor.call_later(AGAIN, self._look_again)

    def _look_again(self) -> None:
        assert self._executor is not None
        if self._executor._core.reactor.interrupt_pending:
            self.interrupt()

    def die(self) -> None:
        self._killed()

    def show(self, name: str) -> None:
        pass


def _in_user_code(frame: FrameType | None) -> bool:
    """Whether the innermost frames are the user's, or those of a library that the user has called."""
    innermost = True
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_PACKAGE):
            module = os.path.splitext(os.path.basename(path))[0]
            return not innermost and (module, frame.f_code.co_name) in _CALLERS
        innermost = False
        frame = frame.f_back
    return False


# ---- sleeping ----


def _sleep(seconds: Any) -> None:
    """`time.sleep`; in a worker of local mode, one that a cancellation ends."""
    core = current.core_override.get()
    if core is None or core.executor is None or not core.executor.may_block():
        _real_sleep(seconds)
        return
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    core.reactor.wait(Waiter(), time.monotonic() + seconds)
    if core.closed:
        raise WorkerKilled


_sleepers = 0


def replace_sleep() -> None:
    """Local mode begins. A `time.sleep` of the user's own (a test's, say) stays: it holds in tasks, too."""
    global _sleepers, _real_sleep
    _sleepers += 1
    if getattr(time.sleep, "__module__", "") == "time":
        _real_sleep = time.sleep
        time.sleep = _sleep


def restore_sleep() -> None:
    """It is over."""
    global _sleepers
    _sleepers -= 1
    if _sleepers == 0 and time.sleep is _sleep:
        time.sleep = _real_sleep
