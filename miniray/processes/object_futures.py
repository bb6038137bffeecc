"""Futures of objects, callbacks, and errors that nobody looked at: whatever needs a thread that is not the user's.

User code (callbacks, unpickling) never runs in the thread that leads the reactor: it runs in one callback thread,
which starts with the first future.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from miniray import exceptions
from miniray.messages.objects import KIND_ERROR, Payload
from miniray.processes import current
from miniray.processes.object_recovery import CopyGone
from miniray.refs import ObjectRef
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.system import user_log
from miniray.task_errors import from_wire

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.object_plane import ObjectPlane


class ObjectFutures:
    """The futures and callbacks of one core worker."""

    def __init__(self, core: CoreWorker, plane: ObjectPlane) -> None:
        self._core = core
        self._plane = plane
        self._callbacks: _CallbackThread | None = None

    def when_ready(self, entry: ObjectEntry, callback: Callable[[], None]) -> None:
        """Call `callback` in the callback thread once the entry is ready."""
        with self._core.lock:
            thread = self._callback_thread()
            entry.accessed = True
            if entry.payload is not None:
                thread.submit(callback)
                return
            submit = thread.submit

            def ready(_entry: ObjectEntry) -> None:
                submit(callback)

            if entry.waiters is None:
                entry.waiters = [ready]
            else:
                entry.waiters.append(ready)
            self._plane.request_values([entry])
        self._core.reactor.lead_at_once()

    def result_of(self, ref: ObjectRef[Any]) -> Any:
        """The value of a ready ref, or its error as a value (a task's error as it is, not as its cause's type)."""
        payload = ref._entry.payload
        ref._entry.accessed = True
        if payload.kind == KIND_ERROR:
            return from_wire(payload.data)
        try:
            return self._plane.waiting.load(ref._entry)
        except BaseException as error:
            return error

    def on_ready(self, ref: ObjectRef[Any], callback: Callable[[Any], None]) -> None:
        """Call `callback(value or error)` once the object is ready."""
        entry = self._plane._check_ref(ref)
        self.when_ready(entry, lambda: callback(self.result_of(ref)))

    def future_of(self, ref: ObjectRef[Any]) -> Any:
        """A `concurrent.futures.Future` of the object."""
        from concurrent.futures import Future  # 8 ms with logging; only who wants futures pays

        entry = self._plane._check_ref(ref)
        future: Future[Any] = Future()

        def complete() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                value = self._plane.waiting.load(ref._entry)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        self.when_ready(entry, complete)
        return future

    def asyncio_future_of(self, ref: ObjectRef[Any]) -> Any:
        """An `asyncio.Future` of the object, in the running loop."""
        import asyncio  # the caller has imported it already

        entry = self._plane._check_ref(ref)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def complete() -> None:
            if future.cancelled():
                return
            try:
                value = self._plane.load(ref._entry)
            except CopyGone as gone:  # the loop must not block
                self._plane.recovery.copy_gone(entry, gone.location)
                self._attach(entry, ready)
                self._core.reactor.lead_at_once()
            except BaseException as error:
                if isinstance(error, StopIteration):
                    error = RuntimeError(f"{error!r} cannot be raised into a Future")
                future.set_exception(error)
            else:
                future.set_result(value)

        def ready(_entry: ObjectEntry) -> None:
            try:
                loop.call_soon_threadsafe(complete)
            except RuntimeError:
                pass  # the loop was closed: nobody waits any more

        if entry.payload is not None:
            complete()
            return future
        if self._core.wait_watch is not None:
            self._core.wait_watch.begin_await(self._core, entry, future)
        self._attach(entry, ready)
        self._core.reactor.lead_at_once()
        return future

    def _attach(self, entry: ObjectEntry, waiter: Callable[[ObjectEntry], None]) -> None:
        """Call `waiter` (under the lock, maybe at once) when the entry is ready."""
        with self._core.lock:
            if entry.payload is not None:
                waiter(entry)
                return
            if entry.waiters is None:
                entry.waiters = [waiter]
            else:
                entry.waiters.append(waiter)
            self._plane.request_values([entry])

    def report_unhandled(self, payload: Payload) -> None:
        """Nobody ever looked at the error of a task: say so (in the thread of callbacks). As in Ray, the deaths of
        actors and cancellations are not meant, nor anything at the end of the session.
        """
        core = self._core
        if core.closed or core.leaving is not None or core.head_lost or unhandled_ignored():
            return

        def report() -> None:
            assert payload.data is not None
            error = from_wire(payload.data)
            failed = isinstance(error, (exceptions.RayTaskError, exceptions.WorkerCrashedError))
            if failed and not isinstance(error, exceptions.TaskCancelledError):
                text = f"Unhandled error (suppress with 'RAY_IGNORE_UNHANDLED_ERRORS=1'): {error}"
                user_log.say(user_log.ERROR, text)

        self._callback_thread().submit(report)

    def _callback_thread(self) -> _CallbackThread:
        thread = self._callbacks
        if thread is None:
            thread = self._callbacks = _CallbackThread(self._core)
        return thread

    def close(self) -> None:
        """The process leaves the session."""
        if self._callbacks is not None:
            self._callbacks.stop()


class _CallbackThread:
    """Runs the callbacks of futures: user code never runs in the thread that leads."""

    def __init__(self, core: CoreWorker) -> None:
        import queue  # only with the first future

        self._core = core
        self._queue: Any = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="miniray-callbacks", daemon=True)
        self._thread.start()

    def submit(self, callback: Callable[[], None]) -> None:
        self._queue.put(callback)

    def _run(self) -> None:
        current.enter(self._core)
        while True:
            callback = self._queue.get()
            if callback is None:
                return
            try:
                callback()
            except BaseException:
                import traceback

                traceback.print_exc()
            del callback

    def stop(self) -> None:
        self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)


def unhandled_ignored() -> bool:
    return os.environ.get("RAY_IGNORE_UNHANDLED_ERRORS", "") not in ("", "0")
