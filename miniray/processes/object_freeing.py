"""`free`: objects whose memory is given back though somebody holds refs to them. `get` then raises `ObjectFreedError`.

The owner frees; a borrower asks it to (`FreeObjects`), and the owner tells all its borrowers by the same message. A
large object's memory goes at once: views of it stay valid. A small one's place in a slab could be another's before
every borrower knows, so it goes with the last ref.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from miniray import exceptions
from miniray.messages import objects
from miniray.messages.objects import KIND_ERROR, Address, Location, Payload
from miniray.refs import ObjectRef
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.task_errors import to_wire

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker


class ObjectFreeing:
    """The objects of one core worker that were freed by hand."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._slots: dict[bytes, Location] = {}  #: places in slabs that are given back with the last ref
        core.add_handlers({objects.FreeObjects: self.on_free_objects})

    def free(self, refs: Sequence[ObjectRef[Any]], local_only: bool) -> None:
        """Give back the memory of these objects; those that are not ready stay as they are.

        Args:
            refs: of this session.
            local_only: forget what this process has got of the objects of others, and ask them nothing.
        """
        core = self._core
        plane = core.objects
        entries = [plane._check_ref(ref) for ref in refs]
        others: dict[bytes, tuple[Address, list[bytes]]] = {}
        with core.lock:
            for entry in entries:
                if entry.owner is None:
                    self._free(entry)
                elif local_only:
                    plane.counter.value_lost(entry)
                    entry.requested = False
                else:
                    others.setdefault(entry.owner.worker_id, (entry.owner, []))[1].append(entry.object_id)
                    if entry.payload is not None and entry.payload.kind != KIND_ERROR:
                        self._mark(entry)  # else the owner knows whether there is something to be freed
            for owner, ids in others.values():
                core.post(owner, objects.FreeObjects(ids), True)

    def on_free_objects(self, sender: bytes, message: objects.FreeObjects) -> None:
        """A borrower asks, or an owner tells."""
        for object_id in message.object_ids:
            entry = self._core.objects.entries.get(object_id)
            if entry is not None and entry.owner is None:
                self._free(entry)
            elif entry is not None:
                self._mark(entry)

    def forget(self, entry: ObjectEntry) -> None:
        """Nobody holds it any more (under the lock)."""
        if self._slots:
            location = self._slots.pop(entry.object_id, None)
            if location is not None:
                self._give_back(entry, location)

    def _free(self, entry: ObjectEntry) -> None:
        payload = entry.payload
        if payload is None or payload.kind == KIND_ERROR:
            return
        self._mark(entry)
        core = self._core
        for borrower in entry.borrowers or ():
            peer = core.peer(borrower)
            if peer is not None:
                core.post(peer, objects.FreeObjects([entry.object_id]), True)
        if payload.location is not None:
            from miniray.system.shared_memory import SLAB_OBJECT_LIMIT  # it is there where large objects are

            if payload.location.size > SLAB_OBJECT_LIMIT:
                self._give_back(entry, payload.location)
            else:
                self._slots[entry.object_id] = payload.location

    def _give_back(self, entry: ObjectEntry, location: Location) -> None:
        self._core.objects.memory.free(location, shared=entry.shared)

    def _mark(self, entry: ObjectEntry) -> None:
        """From now on `get` raises."""
        plane = self._core.objects
        plane.counter.value_lost(entry)
        owner, site = plane.address_of(entry.owner), plane.site_of(entry)
        error = exceptions.ObjectFreedError(entry.object_id.hex(), owner, site)
        plane.fulfil(entry, Payload(KIND_ERROR, to_wire(error)))
        entry.accessed = True  # an error that nobody looks at is not "unhandled" here
