"""The reactor: whoever waits drives the inbox.

`wait` blocks the calling thread until its waiter is done. While it blocks, it reads and handles this process's
messages, unless another thread does so already. The rules stand in `state_machines.leadership`; here are the locks,
the threads and the clock.

One lock (the core worker's) guards the leadership and all protocol state. It is held while a message is handled, never
while blocking, and no user code runs under it: no unpickling, no callback, no repr.

**Ctrl-C.** While the main thread is inside `wait`, SIGINT is only noted and the wait woken; KeyboardInterrupt leaves
from the end of `wait`, when the lead is given up and every frame handled. Inside a section under the lock it is noted
too. A finalizer would swallow it (a loop that drops refs is often in one), so there it is sent again a moment later.

**Other signals.** A handler runs in the main thread between any two bytecodes, and may wait itself. Those of the usual
signals are kept out of waits and critical sections likewise (`deferred_handlers`): the wait is woken, gives up the
lead, runs the handler, and goes on. A handler of another signal may interrupt a wait anywhere. When the frame below it
leads, it leads in its place. When the frame below it follows, that one stands back: named leader, it could not act.
After the inner wait the outer one looks at everything again.
"""

from __future__ import annotations

import _thread
import heapq
import signal
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from miniray.messages.envelope import Envelope
from miniray.processes import deferred_handlers
from miniray.state_machines import leadership
from miniray.system.sockets import Transport

#: How long nobody must have led before the standby thread takes over, in seconds.
TICK = 0.005
#: How often a leading standby looks for released refs after there were some, in seconds.
RELEASE_INTERVAL = 0.05
#: How many envelopes a wait whose time is up still takes from the inbox, so that a timeout of 0 sees what is there.
LAST_LOOKS = 100
#: How long `close` waits for a leader in another thread, in seconds.
CLOSE_TIMEOUT = 5.0
#: What is called when something is garbage collected, and how many frames such a call has at most.
_FINALIZERS = ("__del__", "_view_released")
_FINALIZER_DEPTH = 12
#: When a signal that met a finalizer comes again, in seconds.
_AGAIN = 0.001

_monotonic = time.monotonic


def _keyboard_interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _is_in_finalizer(frame: Any) -> bool:
    """Whether a finalizer of miniray's is running, which swallows what is raised in it."""
    for _ in range(_FINALIZER_DEPTH):
        if frame is None:
            return False
        if frame.f_code.co_name in _FINALIZERS:
            return bool(frame.f_globals.get("__name__", "").startswith("miniray."))
        frame = frame.f_back
    return False


def _signal_again(number: int) -> None:
    time.sleep(_AGAIN)
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)
    else:
        _thread.interrupt_main(signal.Signals(number))


class Waiter:
    """Something a thread waits for: `finish` makes it true."""

    __slots__ = ("done", "promoted", "sleeping")

    def __init__(self) -> None:
        self.done = False
        self.promoted = False
        self.sleeping: _thread.LockType | None = None

    def finish(self) -> None:
        """The wish came true (called under the reactor's lock)."""
        if not self.done:
            self.done = True
            self._rouse()

    def promote(self) -> None:
        """It has become the leader (called under the reactor's lock)."""
        self.promoted = True
        self._rouse()

    def _rouse(self) -> None:
        sleeping = self.sleeping
        if sleeping is not None:
            self.sleeping = None
            try:
                sleeping.release()
            except RuntimeError:
                pass  # a signal handler was quicker


class Timer:
    """A call in the future, made under the lock by whoever leads then."""

    __slots__ = ("callback", "cancelled", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False


class Reactor:
    """Reads the inbox in whichever thread waits.

    Args:
        transport: where envelopes come from.
        lock: the core worker's lock.
        handle: called with each envelope, under the lock.
        settle: called under the lock before the leader blocks: send what piled up, process released refs. Returns True
            when refs were released lately, so that a leading standby looks again soon.
    """

    def __init__(
        self,
        transport: Transport,
        lock: threading.RLock,
        handle: Callable[[Envelope], None],
        settle: Callable[[], bool],
    ) -> None:
        self.transport = transport
        self.lock: Any = lock
        self._handle = handle
        self._settle = settle
        self._leadership = leadership.Leadership()
        self._leader_thread = 0
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_numbers = count()
        self.deep = False  #: the leader blocks, or is about to: a released ref must wake it
        self._blocking = False
        self.interrupt_pending = False  #: handlers were deferred: call `_raise_interrupt` where nothing is half-done
        self._deferred: list[tuple[Callable[[int, Any], None], int]] = []
        self.closed = False
        #: Called by the standby, under the lock, once a leader has led without a break for a whole tick.
        self.on_idle: Callable[[], None] | None = None
        self._urgent = False
        self._standby_lock = _thread.allocate_lock()
        self._standby_lock.acquire()
        self._standby_waiter = Waiter()
        self._standby_thread: threading.Thread | None = None
        self._previous_sigint: Any = None
        #: The thread that can be interrupted: the main one, or (local mode) the one that runs a worker's tasks.
        self._main_thread = threading.main_thread().ident
        self._gets_signals = True
        self._main_waiter: Waiter | None = None  #: what the main thread waits for now
        self._vacated: _thread.LockType | None = None

    # -- waiting ---------------------------------------------------------------------------------------------------

    def wait(self, waiter: Waiter, deadline: float | None = None) -> bool:
        """Block until `waiter` is done or `deadline` (a `time.monotonic` value) has passed. Returns whether it is done.

        Raises:
            KeyboardInterrupt: Ctrl-C, in the main thread.
        """
        if waiter.done:
            return True
        me = _thread.get_ident()
        if me != self._main_thread:
            return self._wait(waiter, deadline, me)
        if self._gets_signals:
            deferred_handlers.adopt(self)
        outer = self._main_waiter
        while True:
            self._main_waiter = waiter  # from here on signals are noted, and handled below
            try:
                if outer is None:
                    self._wait(waiter, deadline, me)
                else:
                    self._wait_inside(outer, waiter, deadline, me)
            finally:
                self._main_waiter = outer
            if not self.interrupt_pending:
                return waiter.done
            self._raise_interrupt()
            if waiter.done or self.closed or (deadline is not None and _monotonic() >= deadline):
                return waiter.done

    def _wait_inside(self, outer: Waiter, waiter: Waiter, deadline: float | None, me: int) -> None:
        """A signal handler waits, and has interrupted a wait of the same thread."""
        with self.lock:
            leads = self._leader_thread == me or self._leadership.leader is outer
            suspended = not leads and outer in self._leadership.followers
            if suspended:
                self._leadership.withdraw(outer)
        try:
            if leads:
                self._leader_thread = me
                self._lead(waiter, deadline)
            else:
                self._wait(waiter, deadline, me)
        finally:
            if suspended:
                self._resume(outer)
            elif leads:
                self.transport.wake()

    def _resume(self, outer: Waiter) -> None:
        with self.lock:
            if outer.done or self.closed:
                outer._rouse()
                return
            verdict = self._leadership.enter(outer)
            if verdict == leadership.LEAD:
                outer.promote()
            elif verdict == leadership.FOLLOW_AND_RECALL:
                self._recall_standby()

    def _wait(self, waiter: Waiter, deadline: float | None, me: int) -> bool:
        lock = self.lock
        leader = False
        try:
            with lock:
                if waiter.done or self.closed:
                    return waiter.done
                verdict = self._leadership.enter(waiter)
                if verdict == leadership.LEAD:
                    leader = True
                    self._leader_thread = me
                else:
                    sleeping = _thread.allocate_lock()
                    sleeping.acquire()
                    waiter.sleeping = sleeping
                    if verdict == leadership.FOLLOW_AND_RECALL:
                        self._recall_standby()
            if not leader:
                if self.interrupt_pending and me == self._main_thread:
                    pass
                elif deadline is None:
                    sleeping.acquire()
                else:
                    sleeping.acquire(timeout=max(0.0, deadline - _monotonic()))
                with lock:
                    waiter.sleeping = None
                    if waiter.promoted:
                        leader = True
                        self._leader_thread = me
                    else:
                        self._leadership.withdraw(waiter)
                        return waiter.done
            self._lead(waiter, deadline)
            return waiter.done
        finally:
            self._leave(waiter, me)

    def _leave(self, waiter: Waiter, me: int) -> None:
        with self.lock:
            waiter.promoted = False
            if self._leadership.leader is not waiter:
                self._leadership.withdraw(waiter)
                return
            if self._leader_thread == me:
                self._leader_thread = 0
            successor, rouse = self._leadership.leave(waiter)
            if successor is not None:
                successor.promote()
            elif self.closed:
                if self._vacated is not None:
                    self._vacated.release()
                    self._vacated = None
            elif rouse:
                self._rouse_standby()

    def _lead(self, waiter: Waiter, deadline: float | None) -> None:
        receive = self.transport.receive
        lock = self.lock
        main = _thread.get_ident() == self._main_thread
        overtime = 0
        while not waiter.done and not self.closed:
            with lock:
                # Before refs are looked at: one that is released from now on wakes.
                self.deep = True
                lately = self._settle()
                if waiter.done or (main and self.interrupt_pending):
                    self.deep = False
                    return
                until = deadline
                if self._timers:
                    due = self._timers[0][0]
                    if until is None or due < until:
                        until = due
                if lately and waiter is self._standby_waiter:
                    self.deep = False
                    soon = _monotonic() + RELEASE_INTERVAL
                    if until is None or soon < until:
                        until = soon
                self._blocking = True
            if until is None:
                envelope = receive(None)
            else:
                timeout = until - _monotonic()
                envelope = receive(timeout if timeout > 0.0 else 0.0)
            with lock:
                self.deep = self._blocking = False
                if envelope is not None:
                    self._handle(envelope)
                if self._timers:
                    self._run_timers()
            if deadline is not None and _monotonic() >= deadline:
                overtime += 1
                if overtime > LAST_LOOKS or (envelope is None and not self.transport.pending()):
                    return

    def pump(self) -> None:
        """Handle what has arrived, without blocking; does nothing while somebody else leads."""
        waiter = Waiter()
        self.wait(waiter, _monotonic())

    def wake_for_release(self) -> None:
        """A ref was released, or mail was put off, while the leader blocks for long. Callable from ``__del__``: takes
        no lock.
        """
        if self.deep:
            self.deep = False
            self.transport.wake()

    def wake_leader(self) -> None:
        """Make a blocking leader look at its timers and flags again."""
        if self._blocking and self._leader_thread != _thread.get_ident():
            self.transport.wake()

    # -- timers ----------------------------------------------------------------------------------------------------

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` under the lock after `delay` seconds, in whichever thread leads then."""
        timer = Timer(_monotonic() + delay, callback)
        with self.lock:
            heapq.heappush(self._timers, (timer.when, next(self._timer_numbers), timer))
            if self._timers[0][2] is timer:
                self.wake_leader()
        return timer

    def _run_timers(self) -> None:
        now = _monotonic()
        timers = self._timers
        while timers and (timers[0][2].cancelled or timers[0][0] <= now):
            timer = heapq.heappop(timers)[2]
            if not timer.cancelled:
                timer.callback()

    # -- the standby thread ----------------------------------------------------------------------------------------

    def start_standby(self, enter: Callable[[], None] | None = None) -> None:
        """Start the thread that serves the inbox while nobody waits; it calls `enter` first."""
        self._standby_thread = threading.Thread(
            target=self._stand_by, args=(enter,), name="miniray-standby", daemon=True
        )
        self._standby_thread.start()

    def _rouse_standby(self) -> None:
        try:
            self._standby_lock.release()
        except RuntimeError:
            pass  # it is awake already

    def _recall_standby(self) -> None:
        self._standby_waiter.done = True
        self.transport.wake()

    def lead_at_once(self) -> None:
        """Somebody waits without a thread of his own (an event loop): let the standby lead now."""
        with self.lock:
            if self._leadership.leader is None:
                self._urgent = True
                self._rouse_standby()

    def _stand_by(self, enter: Callable[[], None] | None) -> None:
        if enter is not None:
            enter()
        if hasattr(signal, "pthread_sigmask"):
            # Signals belong to the main thread: a system call interrupted here would only delay them.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGSEGV, signal.SIGPROF})
        asleep = self._standby_lock
        while not self.closed:
            if not self._urgent:
                asleep.acquire(timeout=TICK)
            with self.lock:
                if self.closed:
                    return
                if self._urgent and self._leadership.take_at_once(self._standby_waiter):
                    verdict = leadership.TAKE_LEAD
                else:
                    verdict = self._leadership.tick(self._standby_waiter)
                self._urgent = False
                if verdict == leadership.TAKE_LEAD:
                    self._standby_waiter.done = False
                    self._leader_thread = _thread.get_ident()
            if verdict == leadership.SLEEP_DEEP:
                on_idle = self.on_idle
                if on_idle is not None:
                    with self.lock:
                        on_idle()
                asleep.acquire()
                # Roused: the next tick decides, after a full interval without a leader.
            elif verdict == leadership.TAKE_LEAD:
                try:
                    self._lead(self._standby_waiter, None)
                except Exception:
                    # A message could not be handled, which is a bug: say so, and go on with the next one.
                    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
                finally:
                    self._leave(self._standby_waiter, _thread.get_ident())

    # -- signals ---------------------------------------------------------------------------------------------------

    def serve_thread(self, ident: int) -> None:
        """Not the main thread is the one that is interrupted here, but this one, and not by signals."""
        self._main_thread = ident
        self._gets_signals = False

    def interrupt_thread(self) -> None:
        """Let that thread get KeyboardInterrupt at the end of what it does here: of its wait, at once (under the
        lock).
        """
        if not self.interrupt_pending:
            self._deferred.append((_keyboard_interrupt, signal.SIGINT))
            self.interrupt_pending = True
        waiter = self._main_waiter
        if waiter is not None:
            waiter._rouse()
            self.transport.wake()

    def defer_sigint(self) -> None:
        """Install a SIGINT handler that raises KeyboardInterrupt outside critical sections only.

        No effect outside of the main thread, or when the program has a handler of its own.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous_sigint = signal.default_int_handler
            signal.signal(signal.SIGINT, self._on_sigint)

    def restore_sigint(self) -> None:
        """Put Python's own handler back, if ours is still there."""
        if self._previous_sigint is not None and threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) == self._on_sigint:
                signal.signal(signal.SIGINT, self._previous_sigint)
            self._previous_sigint = None

        if threading.current_thread() is threading.main_thread():
            deferred_handlers.restore(self)

    def defer(self, handler: Callable[[int, Any], None], number: int) -> bool:
        """A signal came, in the main thread: note it if something is half-done there. False: handle it at once."""
        waiter = self._main_waiter
        if waiter is None and not self.lock._is_owned():
            return False
        if (handler, number) not in self._deferred:
            self._deferred.append((handler, number))
        self.interrupt_pending = True
        if waiter is not None:
            waiter._rouse()
            if self._leader_thread == self._main_thread:
                self.transport.wake()
        return True

    def shield(self) -> None:
        """The main thread is about to enter a critical section: handlers that the program has installed since the last
        wait are kept out of it, too.
        """
        if self._gets_signals and _thread.get_ident() == self._main_thread:
            deferred_handlers.adopt(self)

    def _on_sigint(self, number: int, frame: Any) -> None:
        if self.defer(_keyboard_interrupt, number):
            return
        if _is_in_finalizer(frame):
            _thread.start_new_thread(_signal_again, (number,))
            return
        raise KeyboardInterrupt

    def _raise_interrupt(self) -> None:
        """Run the handlers that were deferred; the one of Ctrl-C raises KeyboardInterrupt."""
        if _thread.get_ident() != self._main_thread:
            return
        try:
            while self._deferred:
                handler, number = self._deferred.pop(0)
                handler(number, sys._getframe(1))
        finally:
            self.interrupt_pending = bool(self._deferred)

    def drop_interrupt(self) -> None:
        """A Ctrl-C that was noted is meant for what is over by now."""
        if self.interrupt_pending:
            self._deferred = [item for item in self._deferred if item[0] is not _keyboard_interrupt]
            self.interrupt_pending = bool(self._deferred)

    # -- the end ---------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Stop, without waiting for anybody: this thread has nothing to do with those that wait here."""
        with self.lock:
            self.closed = True
            for waiter in list(self._leadership.followers):
                waiter._rouse()
            if self._main_waiter is not None:
                self._main_waiter._rouse()
            self._rouse_standby()
            self._standby_waiter.done = True
        self.transport.wake()

    def close(self) -> None:
        """Stop: everybody who waits returns, the standby ends. Only a frame below this one may still read the inbox."""
        vacated = None
        with self.lock:
            self.closed = True
            for waiter in list(self._leadership.followers):
                waiter._rouse()
            self._rouse_standby()
            self._standby_waiter.done = True
            leader = self._leadership.leader
            me = _thread.get_ident()
            mine = self._leader_thread == me or (me == self._main_thread and leader is self._main_waiter)
            if leader is not None and not mine:
                vacated = self._vacated = _thread.allocate_lock()
                vacated.acquire()
        self.transport.wake()
        if vacated is not None:
            # Not for ever: the main thread may be in a signal handler of the user's above its wait.
            vacated.acquire(timeout=CLOSE_TIMEOUT)
        thread = self._standby_thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._standby_thread = None
