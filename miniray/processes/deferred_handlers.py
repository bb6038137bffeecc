"""Signal handlers of the program run between our critical sections, never inside one.

Python runs a handler in the main thread between any two bytecodes, so also while that thread holds the core worker's
lock, or has a frame in its hand that it has not handled yet. A handler that then calls `get` would change tables under
the feet of the code that it interrupts, or wait for the very message that this code holds. And one that raises (a
timeout by `signal.alarm`) would tear a half-done change. Masking signals does not help: the kernel gives them to
another thread, and Python brings them back to this one.

So `adopt` puts a `DeferredHandler` around each Python handler it finds, whenever the main thread begins to wait or
submits something (half a microsecond, a twentieth of what a task costs its driver). In a critical section, or while the
main thread waits, it only notes the signal; the handler proper runs at the next point where nothing is half-done.
`restore` takes the wrappers off again.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miniray.processes.reactor import Reactor

_NAMES = ("SIGALRM", "SIGVTALRM", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGHUP", "SIGCHLD")
#: Signals for which programs have handlers. SIGINT has its own rules, in the reactor.
DEFERRABLE = tuple(int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name))

_getsignal = _signal.getsignal


class DeferredHandler:
    """A handler of the program's that waits for the end of a critical section."""

    __slots__ = ("handler", "reactor")

    def __init__(self, handler: Any, reactor: Reactor) -> None:
        self.handler = handler
        self.reactor = reactor

    def __call__(self, number: int, frame: Any) -> None:
        if not self.reactor.defer(self.handler, number):
            self.handler(number, frame)

    def __eq__(self, other: object) -> bool:
        return bool(self.handler == (other.handler if isinstance(other, DeferredHandler) else other))

    def __hash__(self) -> int:
        return hash(self.handler)


def adopt(reactor: Reactor) -> None:
    """Wrap the handlers that the program has installed (main thread only)."""
    for number in DEFERRABLE:
        handler = _getsignal(number)
        kind = type(handler)
        if kind is int or handler is None:
            continue
        if kind is not DeferredHandler:
            _signal.signal(number, DeferredHandler(handler, reactor))
        elif handler.reactor is not reactor:
            handler.reactor = reactor


def restore(reactor: Reactor) -> None:
    """Put the program's own handlers back (main thread only)."""
    for number in DEFERRABLE:
        handler = _getsignal(number)
        if isinstance(handler, DeferredHandler) and handler.reactor is reactor:
            _signal.signal(number, handler.handler)
