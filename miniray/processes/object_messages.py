"""What owners and borrowers say to each other about objects: values asked for and sent, borrowers that come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from miniray import exceptions
from miniray.messages import objects
from miniray.messages.objects import KIND_ERROR, Address, Payload
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.task_errors import to_wire

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.object_plane import ObjectPlane


class ObjectMessages:
    """Handles them, under the core worker's lock."""

    def __init__(self, core: CoreWorker, plane: ObjectPlane) -> None:
        self._core = core
        self._plane = plane
        core.add_handlers(
            {
                objects.GetObjects: self.on_get_objects,
                objects.ObjectReady: self.on_object_ready,
                objects.AddBorrowers: self.on_add_borrowers,
                objects.BorrowersAdded: self.on_borrowers_added,
                objects.RemoveBorrowers: self.on_remove_borrowers,
                objects.FreeSegments: self.on_free_segments,
            }
        )

    def on_get_objects(self, sender: bytes, message: objects.GetObjects) -> None:
        """A borrower wants values of ours."""
        peer = self._core.peer(sender)
        if peer is None:
            return
        for object_id in message.object_ids:
            entry = self._plane.entries.get(object_id)
            if entry is None or entry.owner is not None:
                lost = exceptions.ReferenceCountingAssertionError(object_id.hex(), None, "")
                self._core.post(peer, objects.ObjectReady(object_id, Payload(KIND_ERROR, to_wire(lost))))
            elif entry.payload is not None:
                self.send_value(peer, entry)
            else:
                self._plane.recovery.wanted([entry])
                if entry.payload is not None:  # given up
                    self.send_value(peer, entry)
                    continue
                waiter = _RemoteWaiter(self, peer)
                if entry.waiters is None:
                    entry.waiters = [waiter]
                else:
                    entry.waiters.append(waiter)

    def send_value(self, peer: Address, entry: ObjectEntry) -> None:
        assert entry.payload is not None
        entry.accessed = True
        if entry.payload.location is not None:
            entry.shared = True
        self._core.post(peer, objects.ObjectReady(entry.object_id, entry.payload))

    def on_object_ready(self, sender: bytes, message: objects.ObjectReady) -> None:
        """A value that we borrow has come."""
        entry = self._plane.entries.get(message.object_id)
        if entry is None or entry.payload is not None:
            return
        if self._plane.recovery.dead_nodes and self._plane.recovery.is_stale(entry, message.payload):
            return
        if message.payload.contained:
            self._plane.counter.contain_copy(entry, message.payload.contained)
        self._plane.fulfil(entry, message.payload)

    def on_add_borrowers(self, sender: bytes, message: objects.AddBorrowers) -> None:
        """Another process holds refs to objects of ours."""
        if sender in self._core.dead:
            return  # its last words come after its burial: it borrows nothing
        unknown = self._plane.counter.add_borrowers(sender, message.object_ids)
        if message.ack:
            peer = self._core.peer(sender)
            if peer is not None:
                self._core.post(peer, objects.BorrowersAdded(message.ack, unknown), True)

    def on_borrowers_added(self, sender: bytes, message: objects.BorrowersAdded) -> None:
        """An owner has answered our registration."""
        self._plane.counter.borrowers_added(message.ack, message.unknown)

    def on_remove_borrowers(self, sender: bytes, message: objects.RemoveBorrowers) -> None:
        """Another process holds these no more."""
        self._plane.counter.remove_borrowers(sender, message.object_ids)

    def on_free_segments(self, sender: bytes, message: objects.FreeSegments) -> None:
        """The owner of values that we wrote needs them no more."""
        for location in message.locations:
            self._plane.memory.store.free(location.segment, location.offset, location.size, shared=True)
        self._plane.memory.idle.wake()


class _RemoteWaiter:
    """A borrower that waits for an object of ours."""

    __slots__ = ("_messages", "peer")

    def __init__(self, messages: ObjectMessages, peer: Address) -> None:
        self._messages = messages
        self.peer = peer

    def __call__(self, entry: ObjectEntry) -> None:
        self._messages.send_value(self.peer, entry)
