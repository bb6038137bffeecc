"""Generators as their owner sees them: items that arrive while the task runs.

The task's own return (index 1) becomes ready when the generator has ended; item number n is the object with the index
n + 2. The worker mails each item as it is yielded (`GeneratorItem`), then one that says how many there were, then the
task's reply. An exception is the last item. When the worker dies, the error becomes the next item, and the stream
ends; when the task is run again, items that were there already are not delivered twice.

Back-pressure: the worker may be `limit` items ahead of what was consumed; `GeneratorCredit` tells it. Dropping the
generator object lifts the limit, and lets the items go that nobody has taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from miniray.messages import tasks
from miniray.messages.objects import KIND_ERROR, Payload
from miniray.processes.reactor import Waiter
from miniray.refs import ObjectRef
from miniray.state_machines.reference_counter import ObjectEntry

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker


class Stream:
    """What the owner knows of one generator task."""

    __slots__ = ("collected", "dropped", "items", "limited", "position", "task_id", "total", "waiters", "worker")

    def __init__(self, task_id: bytes, limited: bool) -> None:
        self.task_id = task_id
        self.items: dict[int, ObjectEntry] = {}  #: arrived, and not taken yet
        self.position = 0  #: the number of the next item to be taken
        self.total = -1  #: how many there are; -1: not known yet
        self.limited = limited
        self.dropped = False
        self.collected = False  #: nobody takes items: the task's own return is a collection of their refs ("dynamic")
        self.worker: bytes = b""
        self.waiters: list[Callable[[], None]] = []

    def ready(self) -> bool:
        """Whether `next` would not wait."""
        return self.position in self.items or 0 <= self.total <= self.position


class GeneratorPlane:
    """The generator tasks of one owner."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._streams: dict[bytes, Stream] = {}
        core.add_handlers({tasks.GeneratorItem: self.on_item})

    def open(self, task_id: bytes, kind: int) -> Stream:
        """A generator task was submitted (under the lock); `kind` as in `task_plane.TaskBinding.generator`."""
        stream = self._streams[task_id] = Stream(task_id, kind == 2)
        stream.collected = kind == 3
        return stream

    def answered(self, task_id: bytes) -> None:
        """The task was answered well (under the lock)."""
        stream = self._streams.get(task_id)
        if stream is not None and stream.collected:
            self.drop(stream)  # its return holds the items now

    def stream(self, ref: ObjectRef[Any]) -> Stream:
        """The stream of the task whose own return this is."""
        return self._streams[ref.binary()[:24]]

    def _entry(self, stream: Stream, index: int, payload: Payload) -> None:
        objects = self._core.objects
        entry = objects.counter.own(stream.task_id + (index + 2).to_bytes(4, "little"))
        entry.inner += 1  # the stream holds it until it is taken
        if payload.contained:
            objects.counter.contain_copy(entry, payload.contained)
        entry.payload = payload
        if payload.location is not None:
            objects.recovery.item_made(stream.task_id, entry)
        stream.items[index] = entry

    def on_item(self, sender: bytes, message: tasks.GeneratorItem) -> None:
        """An item came, or the end."""
        if message.payload is not None and self._replaces_lost(message.task_id, message.index, message.payload):
            return
        stream = self._streams.get(message.task_id)
        if stream is None or (stream.dropped and message.total < 0):
            if message.payload is not None:
                self._core.objects.discard(message.payload)
            return
        stream.worker = sender
        if message.payload is not None:
            if message.index < stream.position or message.index in stream.items:
                self._core.objects.discard(message.payload)  # delivered by an earlier attempt
                if stream.limited and message.total < 0:
                    self._give_credit(stream)
            else:
                self._entry(stream, message.index, message.payload)
        if message.total >= 0:
            stream.total = message.total
        self._wake(stream)

    def _replaces_lost(self, task_id: bytes, index: int, payload: Payload) -> bool:
        """Whether this item of a repeated task takes the place of one that was lost."""
        objects = self._core.objects
        if not objects.recovery.remembers:
            return False
        entry = objects.entries.get(task_id + (index + 2).to_bytes(4, "little"))
        if entry is None or entry.payload is not None:
            return False
        if payload.contained:
            objects.counter.contain_copy(entry, payload.contained)
        objects.fulfil(entry, payload)
        if payload.location is not None:
            objects.recovery.item_made(task_id, entry)
        return True

    def _wake(self, stream: Stream) -> None:
        if stream.waiters and stream.ready():
            waiters, stream.waiters = stream.waiters, []
            for waiter in waiters:
                waiter()
        if stream.dropped and stream.total >= 0:
            self._streams.pop(stream.task_id, None)

    def ended(self, task_id: bytes, error: Payload | None) -> None:
        """The task is done (under the lock); an `error` that its worker could not tell as an item becomes the last
        one.
        """
        stream = self._streams.get(task_id)
        if stream is None or stream.total >= 0:
            return
        index = stream.position
        while index in stream.items:
            index += 1
        if error is not None and error.kind == KIND_ERROR and not stream.dropped:
            self._entry(stream, index, error)
            index += 1
        stream.total = index
        self._wake(stream)

    def take(self, stream: Stream) -> ObjectRef[Any] | None:
        """The ref of the next item; None when there is none (the end, or not arrived)."""
        core = self._core
        with core.lock:
            entry = stream.items.pop(stream.position, None)
            if entry is None:
                return None
            stream.position += 1
            ref = core.objects.make_ref(entry)
            entry.inner -= 1
            if stream.limited and stream.worker and stream.total < 0:
                self._give_credit(stream)
            return ref

    def _give_credit(self, stream: Stream) -> None:
        """Tell the worker how far the items were taken."""
        peer = self._core.peer(stream.worker)
        if peer is not None:
            self._core.post(peer, tasks.GeneratorCredit(stream.task_id, stream.position), True)

    def wait(self, stream: Stream, deadline: float | None) -> None:
        """Wait until `next` would not wait, or the deadline."""
        core = self._core
        waiter = Waiter()
        with core.lock:
            if stream.ready() or core.head_lost:
                return
            stream.waiters.append(waiter.finish)
        try:
            core.tasks.wait_in_task(waiter, deadline)
        finally:
            with core.lock:
                if waiter.finish in stream.waiters:
                    stream.waiters.remove(waiter.finish)

    def when_ready(self, stream: Stream, callback: Callable[[], None]) -> None:
        """Call back (under the lock) once `next` would not wait."""
        with self._core.lock:
            if stream.ready():
                callback()
                return
            stream.waiters.append(callback)
        self._core.reactor.lead_at_once()

    def drop(self, stream: Stream) -> None:
        """Nobody will ask for more items (under the lock)."""
        stream.dropped = True
        counter = self._core.objects.counter
        items, stream.items = stream.items, {}
        for entry in items.values():
            entry.inner -= 1
            counter.collect(entry)
        if stream.limited and stream.worker:
            peer = self._core.peer(stream.worker)
            if peer is not None:
                self._core.post(peer, tasks.GeneratorCredit(stream.task_id, -1), True)
        if stream.total >= 0:
            self._streams.pop(stream.task_id, None)
