"""Waiting for objects: `get` and `wait`.

Waiting costs one callback per object that is not ready yet, and no event object per ref: a `get` of 10,000 refs
counts down.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from miniray import exceptions
from miniray.messages.objects import KIND_ERROR
from miniray.processes.object_recovery import CopyGone
from miniray.processes.reactor import Waiter
from miniray.refs import ObjectRef, RefGenerator
from miniray.state_machines.reference_counter import ObjectEntry

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.object_plane import ObjectPlane

_core_of = attrgetter("_core")


class _Countdown(Waiter):
    """Waits until so many of the objects it was attached to are ready, or (`eager`) one of them is an error."""

    __slots__ = ("eager", "remaining")

    def __init__(self, remaining: int, eager: bool) -> None:
        super().__init__()
        self.remaining = remaining
        self.eager = eager

    def on_ready(self, entry: ObjectEntry) -> None:
        self.remaining -= 1
        if self.remaining <= 0 or (self.eager and entry.payload is not None and entry.payload.kind == KIND_ERROR):
            self.finish()


class ObjectWaiting:
    """`get` and `wait` of one core worker."""

    def __init__(self, core: CoreWorker, plane: ObjectPlane) -> None:
        self._core = core
        self._plane = plane

    def get_one(self, ref: ObjectRef[Any], timeout: float | None) -> Any:
        """The value of one ref; see `get`."""
        plane = self._plane
        entry = ref._entry if ref._core is plane else plane._check_ref(ref)
        deadline = None if timeout is None else time.monotonic() + timeout
        if entry.payload is not None or self._await_entries([entry], 1, deadline, True):
            try:
                return plane.load(entry)
            except CopyGone as gone:
                return self._get_again(entry, gone, deadline)
        raise _get_timeout(timeout)

    def _get_again(self, entry: ObjectEntry, gone: CopyGone, deadline: float | None) -> Any:
        """The value of an entry whose copy is gone: wait until it is made again, as often as it takes."""
        while True:
            self._plane.recovery.copy_gone(entry, gone.location)
            if not self._await_entries([entry], 1, deadline, True):
                raise _get_timeout(deadline)
            try:
                return self._plane.load(entry)
            except CopyGone as again:
                gone = again

    def await_one(self, entry: ObjectEntry) -> None:
        """Wait until an entry is ready (again).

        Raises:
            RaySystemError: the session was lost.
        """
        while entry.payload is None:
            if not self._await_entries([entry], 1, None, True):
                raise exceptions.RaySystemError(self._core.head_lost or "The session was shut down.")

    def load(self, entry: ObjectEntry) -> Any:
        """The value of a ready entry; waits if it has to be made again. Not for threads that must not block."""
        try:
            return self._plane.load(entry)
        except CopyGone as gone:
            return self._get_again(entry, gone, None)

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """The values of these refs, in order.

        Args:
            timeout: seconds; None waits for ever, 0 takes what is there.

        Raises:
            GetTimeoutError: not all were ready in time.
            the error of the first ref that holds one, as soon as any does.
        """
        plane = self._plane
        entries = [ref._entry if ref._core is plane else plane._check_ref(ref) for ref in refs]
        deadline = None if timeout is None else time.monotonic() + timeout
        pending = {}
        for entry in entries:
            payload = entry.payload
            if payload is None:
                pending[id(entry)] = entry
            elif payload.kind == KIND_ERROR:
                plane.load(entry)  # raises at once, whatever else is not ready
        if pending:
            done = self._await_entries(list(pending.values()), len(pending), deadline, True)
            for entry in entries:
                if entry.payload is not None and entry.payload.kind == KIND_ERROR:
                    plane.load(entry)
            if not done:
                raise _get_timeout(timeout)
        values = []
        for entry in entries:
            try:
                values.append(plane.load(entry))
            except CopyGone as gone:
                values.append(self._get_again(entry, gone, deadline))
        return values

    def wait(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout: float | None, only_refs: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """Split refs into (at most `num_returns` that are ready, the rest), both in the order given.

        Args:
            timeout: seconds; None waits for ever, 0 looks only.
            only_refs: there is no generator among them.
        """
        if not only_refs and any(isinstance(ref, RefGenerator) for ref in refs):
            return self._wait_mixed(refs, num_returns, timeout)
        if [*map(_core_of, refs)].count(self._plane) != len(refs):
            for ref in refs:
                self._plane._check_ref(ref)
        found = _first_ready(refs, num_returns)
        if len(found) < num_returns:
            pending = [ref._entry for ref in refs if ref._entry.payload is None]
            missing = num_returns - (len(refs) - len(pending))
            if missing > 0:
                deadline = None if timeout is None else time.monotonic() + timeout
                self._await_entries(pending, missing, deadline, False)
            found = _first_ready(refs, num_returns)
        for index in found:
            refs[index]._entry.accessed = True
        if len(found) == 1:  # the usual loop over a thousand refs, one by one
            rest = list(refs)
            return [rest.pop(found[0])], rest
        taken = set(found)
        return [refs[index] for index in found], [ref for index, ref in enumerate(refs) if index not in taken]

    def _wait_mixed(
        self, refs: Sequence[Any], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """`wait` when generators are among the refs: one is ready when its next item is there, or it has ended."""
        core = self._core
        waiter = _Countdown(num_returns, False)

        def counted(_entry: Any = None) -> None:
            waiter.remaining -= 1
            if waiter.remaining <= 0:
                waiter.finish()

        entries = []
        with core.lock:
            for ref in refs:
                if isinstance(ref, RefGenerator):
                    if ref._stream.ready():
                        counted()
                    else:
                        ref._stream.waiters.append(counted)
                    continue
                entry = self._plane._check_ref(ref)
                entries.append(entry)
                if entry.payload is not None:
                    counted()
                else:
                    entry.waiters = [*(entry.waiters or []), counted]
            self._plane.request_values(entries)
        if not waiter.done:
            core.tasks.wait_in_task(waiter, None if timeout is None else time.monotonic() + timeout)
        with core.lock:
            for ref in refs:
                waiters = ref._stream.waiters if isinstance(ref, RefGenerator) else ref._entry.waiters
                if waiters and counted in waiters:
                    waiters.remove(counted)
            done = [
                ref._stream.ready() if isinstance(ref, RefGenerator) else ref._entry.payload is not None for ref in refs
            ]
        return _split(refs, done, num_returns)

    def _await_entries(self, entries: list[ObjectEntry], number: int, deadline: float | None, eager: bool) -> bool:
        """Wait until so many of these are ready, or (`eager`) one is an error. False: not in time, or never."""
        core = self._core
        waiter = _Countdown(number, eager)
        callback = waiter.on_ready
        with core.lock:
            if self._plane._released:
                self._plane.drain()
            for entry in entries:
                if entry.payload is not None:
                    callback(entry)
                elif entry.waiters is None:
                    entry.waiters = [callback]
                else:
                    entry.waiters.append(callback)
            if core.head_lost:
                waiter.finish()
            self._plane.request_values(entries)
        try:
            if not waiter.done:
                if core.wait_watch is not None and deadline is None:
                    self._wait_watched(entries, number, waiter)
                else:
                    core.tasks.wait_in_task(waiter, deadline)
        finally:
            if not waiter.done or len(entries) > 1:
                with core.lock:
                    for entry in entries:
                        if entry.payload is None and entry.waiters and callback in entry.waiters:
                            entry.waiters.remove(callback)
        if core.closed and not waiter.done:
            raise exceptions.RaySystemError("The session was shut down while this call waited for an object.")
        return waiter.remaining <= 0 or (waiter.done and not core.head_lost)

    def _wait_watched(self, entries: list[ObjectEntry], number: int, waiter: _Countdown) -> None:
        watch = self._core.wait_watch
        record = watch.begin(self._core, entries, number, waiter)
        try:
            self._core.tasks.wait_in_task(waiter, None)
        finally:
            watch.finish(record)


def _first_ready(refs: Sequence[ObjectRef[Any]], number: int) -> list[int]:
    """Where the first `number` refs that have a value stand."""
    found: list[int] = []
    for index, ref in enumerate(refs):
        if ref._entry.payload is not None:
            found.append(index)
            if len(found) == number:
                break
    return found


def _split(
    refs: Sequence[ObjectRef[Any]], done: Sequence[bool], number: int
) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
    """The first `number` refs that are done, and the rest."""
    ready: list[ObjectRef[Any]] = []
    rest: list[ObjectRef[Any]] = []
    for ref, is_done in zip(refs, done, strict=True):
        if is_done and len(ready) < number:
            ready.append(ref)
            if isinstance(ref, ObjectRef):
                ref._entry.accessed = True
        else:
            rest.append(ref)
    return ready, rest


def _get_timeout(timeout: float | None) -> exceptions.GetTimeoutError:
    return exceptions.GetTimeoutError(
        "Get timed out: some object(s) not ready." if timeout is not None else "Get failed: the session was lost."
    )
