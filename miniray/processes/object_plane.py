"""Objects as a process sees them: put, get, wait, and the messages with owners and borrowers.

Small values (up to `INLINE_LIMIT` bytes) stay in the owner's memory and travel inside messages; `put` of one touches
no socket. Large ones are written once into shared memory and mapped by every reader. Who still needs an object is
decided by `state_machines.reference_counter`; this file is its port.

`object_waiting` holds `get` and `wait`, `object_memory` what has to do with shared memory, `object_futures` what runs
in a thread of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from miniray import exceptions
from miniray.messages import control, objects
from miniray.messages.objects import KIND_ERROR, Address, Handover, Location, Payload
from miniray.processes import current, ref_sites
from miniray.processes.actor_plane import HANDLES, OwnedActor
from miniray.processes.object_freeing import ObjectFreeing
from miniray.processes.object_futures import ObjectFutures
from miniray.processes.object_memory import ObjectMemory
from miniray.processes.object_messages import ObjectMessages
from miniray.processes.object_recovery import CopyGone, ObjectRecovery
from miniray.processes.object_waiting import ObjectWaiting
from miniray.processes.ref_pickling import (
    HeldEntries,
    not_allowed_out_of_band,
    out_of_band_allowed,
    rebuild_out_of_band,
    unknown_argument,
    unknown_object,
)
from miniray.refs import ObjectRef
from miniray.state_machines.reference_counter import ObjectEntry, ReferenceCounter
from miniray.system.serialization import SerializedObject, deserialize, serialize
from miniray.task_errors import from_wire, to_wire

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

#: Bytes up to which a value travels inside messages (Ray's `max_direct_call_object_size`).
INLINE_LIMIT = 100 * 1024

_new_ref = ObjectRef.__new__


class ObjectPlane:
    """The objects of one core worker: the runtime behind its `ObjectRef`s, and the port of its reference counter."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self.counter = ReferenceCounter(core.worker_id, self)
        self.entries = self.counter.objects
        self._released: deque[Any] = deque()
        self.memory = ObjectMemory(core)
        self.waiting = ObjectWaiting(core, self)
        self.futures = ObjectFutures(core, self)
        self.messages: ObjectMessages
        self.recovery: ObjectRecovery
        self.freeing: ObjectFreeing
        self.record_sites = ref_sites.enabled()
        self._freed_callbacks: dict[bytes, Callable[[], None]] = {}
        self._strays: WeakKeyDictionary[ObjectRef[Any], ObjectRef[Any]] | None = None

    # -- refs ------------------------------------------------------------------------------------------------------

    def make_ref(self, entry: ObjectEntry) -> ObjectRef[Any]:
        """A new local ref to an entry (under the lock)."""
        entry.local += 1
        ref = _new_ref(ObjectRef)
        ref._id = entry.object_id
        ref._entry = entry
        ref._core = self
        return ref

    def released(self, entry: Any) -> None:
        """A ref (or a generator: then `entry` is its stream) was garbage collected. Runs inside ``__del__``: appends
        to a deque, and nothing else.
        """
        self._released.append(entry)
        reactor = self._core.reactor
        if reactor.deep:
            reactor.wake_for_release()

    def _view_released(self) -> None:
        """The last view of an object is gone. Runs inside a finaliser, like ``released``."""
        reactor = self._core.reactor
        if reactor.deep:
            reactor.wake_for_release()

    def drain(self) -> bool:
        """Count the refs that were released (under the lock). Returns whether there were any."""
        memory = self.memory
        store = memory.opened
        if store is not None:
            if store.gone:
                store.collect()
            if memory.quota.has_surplus:
                memory.quota.return_surplus()
        released = self._released
        if not released:
            return False
        release_local = self.counter.release_local
        while True:
            try:
                entry = released.popleft()
            except IndexError:
                return True
            if type(entry) is ObjectEntry:
                release_local(entry)
            else:
                self._core.generators.drop(entry)

    def owner_of(self, entry: ObjectEntry) -> Address:
        """Where the owner of an entry is."""
        return entry.owner if entry.owner is not None else self._core.address

    def handover(self, ref: ObjectRef[Any]) -> tuple[bytes, str]:
        """The owner of a ref, for its pickle."""
        self._check_ref(ref)
        if self._core.closed:
            raise ValueError(unknown_argument(ref))
        owner = self.owner_of(ref._entry)
        return owner.worker_id, owner.endpoint

    def restore(self, object_id: bytes, owner: Address) -> ObjectRef[Any]:
        """A ref that came inside a value (its hand-over is the business of whoever handed over the value)."""
        with self._core.lock:
            entry = self.counter.borrow(object_id, owner)
            if self.record_sites and not self.site_of(entry):
                entry.site = ref_sites.received()
            return self.make_ref(entry)

    def restore_out_of_band(self, object_id: bytes, owner: Address) -> ObjectRef[Any]:
        """A ref that came by way of a pickle of the user's own: register it at once."""
        with self._core.lock:
            entry = self.counter.borrow(object_id, owner)
            ref = self.make_ref(entry)
            self.counter.register([entry])
            return ref

    def reduce_out_of_band(self, ref: ObjectRef[Any]) -> tuple[Any, ...]:
        """Pickling outside of arguments, results and puts: the object is kept for as long as this process lives."""
        if self._core.closed:
            return ObjectRef, (ref.binary(),)  # nothing to keep alive, and the id is as good as before
        self._check_ref(ref)
        self.check_out_of_band([ref])
        with self._core.lock:
            ref._entry.local += 1
        return rebuild_out_of_band, (ref.binary(), *self.handover(ref))

    def check_out_of_band(self, found: list[Any]) -> None:
        """Whether refs may travel outside of arguments, results and puts (say, in a closure).

        Raises:
            OufOfBandObjectRefSerializationException: the environment says that they may not.
        """
        refs = [ref for ref in found if isinstance(ref, ObjectRef)]
        if refs and not out_of_band_allowed():
            raise not_allowed_out_of_band(refs[0])

    def owner_bytes(self, ref: ObjectRef[Any]) -> bytes:
        """The owner's address as opaque bytes."""
        owner = self.owner_of(ref._entry)
        return owner.worker_id + owner.endpoint.encode()

    def call_site(self, ref: ObjectRef[Any]) -> str:
        """Where this ref was made."""
        return self.site_of(ref._entry)

    def site_of(self, entry: ObjectEntry) -> str:
        """Where a ref was made; an empty string when that is not recorded."""
        return getattr(entry, "site", "")

    def address_of(self, owner: Address | None) -> exceptions.OwnerAddress:
        """An owner's address as errors name it; None: this process."""
        core = self._core
        if owner is None:
            return exceptions.OwnerAddress(core.node_id, core.worker_id, core.node_ip)
        dead = core.dead.get(owner.worker_id)
        return exceptions.OwnerAddress(dead.node_id if dead is not None else b"", owner.worker_id, core.node_ip)

    def _check_ref(self, ref: Any, argument: bool = False) -> ObjectEntry:
        if ref._core is not self:
            if ref._core is None:
                return self._adopt(ref, argument)
            if isinstance(ref._core, ObjectPlane) and current.are_neighbours(self._core, ref._core._core):
                return self._borrow_from_neighbour(ref)
            raise ValueError(unknown_argument(ref) if argument else unknown_object(ref))
        entry: ObjectEntry = ref._entry
        return entry

    def _borrow_from_neighbour(self, ref: ObjectRef[Any]) -> ObjectEntry:
        """A ref of another core worker in this process came without a pickle (local mode: by a global variable)."""
        if self._strays is None:
            self._strays = WeakKeyDictionary()
        mine = self._strays.get(ref)
        if mine is None:
            mine = self._strays[ref] = self.restore_out_of_band(ref._id, ref._core.owner_of(ref._entry))  # type: ignore[union-attr]
        return mine._entry  # type: ignore[no-any-return]

    def _adopt(self, ref: ObjectRef[Any], argument: bool) -> ObjectEntry:
        """A ref that the user made from an id: as good as any other when the object is known here."""
        with self._core.lock:
            entry = self.entries.get(ref._id)
            if entry is None:
                raise ValueError(unknown_argument(ref) if argument else unknown_object(ref))
            entry.local += 1
            ref._entry, ref._core = entry, self
            return entry

    # -- put -------------------------------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef[Any]:
        """Store a value; this process owns it.

        Raises:
            TypeError: it cannot be serialized.
            OutOfDiskError: there is no room, neither in memory nor on disk.
        """
        serialized = serialize(value, what=lambda: f"the put value {value!r}")
        reactor = self._core.reactor
        reactor.shield()
        ref = self.own(*self.to_payload(serialized))
        if reactor.interrupt_pending:
            reactor._raise_interrupt()
        return ref

    def own(self, payload: Payload, inner: list[ObjectEntry] | None) -> ObjectRef[Any]:
        """A ref to a new object of this process with this value, which contains refs to `inner`."""
        core = self._core
        context = current.task_context.get() or core.main_context
        object_id = context.task_id + next(context.put_numbers).to_bytes(4, "little")
        with core.lock:
            if self._released:
                self.drain()
            entry = self.counter.own(object_id)
            entry.payload = payload
            if self.record_sites:
                entry.site = ref_sites.made_by("put object")
            if inner:
                self.counter.contain_local(entry, list(inner))
            return self.make_ref(entry)

    def to_payload(self, serialized: SerializedObject, owned: bool = True) -> tuple[Payload, list[ObjectEntry] | None]:
        """Inline bytes or a place in shared memory; and the entries of the refs inside. Call it outside the lock.

        `owned`: by this process; its end is the end of the object.
        """
        contained = None
        inner = None
        if serialized.contained:
            inner = HeldEntries(serialized.contained)
            contained = [Handover(entry.object_id, self.owner_of(entry)) for entry in inner]
        if serialized.total_size <= INLINE_LIMIT:
            return Payload(serialized.kind, serialized.to_bytes(), None, contained), inner
        if self._released:
            # What was released a moment ago may be the warm memory that this value needs (800 MB: 20 GB/s against 2).
            with self._core.lock:
                self.drain()
        try:
            buffer = self.memory.store.create(serialized.total_size, owned)
        except FileNotFoundError as error:
            raise exceptions.RaySystemError(
                self._core.head_lost or f"The directory of this session's objects is gone: {error.filename}"
            ) from error
        try:
            buffer.write(serialized)
        except BaseException:
            buffer.abort()
            raise
        buffer.seal()
        location = Location(self._core.node_id, buffer.segment, buffer.offset, buffer.size, self._core.worker_id)
        return Payload(serialized.kind, None, location, contained), inner

    # -- values ----------------------------------------------------------------------------------------------------

    def request_values(self, entries: list[ObjectEntry]) -> None:
        """Ask the owners for borrowed objects that are not here and were not asked for yet (under the lock)."""
        by_owner: dict[bytes, tuple[Address, list[bytes]]] | None = None
        for entry in entries:
            owner = entry.owner
            if entry.lineage is not None and entry.lineage.lost:
                self.recovery.wanted([entry])
            elif owner is not None and entry.payload is None and not entry.requested:
                entry.requested = True
                if owner.worker_id in self._core.dead:
                    self.owner_lost(entry)
                    continue
                if by_owner is None:
                    by_owner = {}
                by_owner.setdefault(owner.worker_id, (owner, []))[1].append(entry.object_id)
        if by_owner:
            for owner, ids in by_owner.values():
                self._core.post(owner, objects.GetObjects(ids), True)

    def load(self, entry: ObjectEntry) -> Any:
        """The value of a ready entry; raises it when it is an error. Runs user code: never under the lock.

        Raises:
            CopyGone: its segment is not there.
        """
        entry.accessed = True
        payload = entry.payload
        if payload is None:  # lost just now
            raise CopyGone(entry.object_id.hex(), None)
        if payload.kind == KIND_ERROR:
            assert payload.data is not None
            value = from_wire(payload.data)
        else:
            value = self.decode(payload, entry)
            if not isinstance(value, exceptions.RayError):
                return value
            # An error that was put, or returned, is an error all the same.
        try:
            raise _raisable(value)
        finally:
            # Its traceback holds this frame: a cycle would keep alive what the frames above hold, refs among it.
            del value

    def decode(self, payload: Payload, entry: ObjectEntry | None = None) -> Any:
        """The value of a payload that is no error."""
        data = payload.data
        if data is not None:
            try:
                return deserialize(payload.kind, data)
            except Exception as error:
                raise _not_loaded(error) from error
        location = payload.location
        assert location is not None
        try:
            view = self.memory.store.open_tracked(location.segment, location.offset, location.size, self._view_released)
        except FileNotFoundError:
            raise CopyGone(entry.object_id.hex() if entry is not None else "", location) from None
        try:
            return deserialize(payload.kind, view)
        except Exception as error:
            raise _not_loaded(error) from error

    # -- becoming ready ----------------------------------------------------------------------------------------------

    def fulfil(self, entry: ObjectEntry, payload: Payload) -> None:
        """The value or error of an owned object has come (under the lock)."""
        entry.payload = payload
        entry.producer = None
        waiters = entry.waiters
        if waiters is not None:
            entry.waiters = None
            for waiter in waiters:
                waiter(entry)

    def fail(self, entry: ObjectEntry, error: BaseException) -> None:
        """An entry will never have a value (under the lock; `error` is one of ours, so pickling it runs no user
        code).
        """
        if entry.payload is None:
            self.fulfil(entry, Payload(KIND_ERROR, to_wire(error)))

    def discard(self, payload: Payload) -> None:
        """A value came that nobody wants any more."""
        if payload.location is not None:
            self.memory.free(payload.location, shared=True)
        elif payload.kind == KIND_ERROR:
            self.futures.report_unhandled(payload)

    # -- port of the reference counter ---------------------------------------------------------------------------------

    def free_value(self, entry: ObjectEntry) -> None:
        """Effect: nobody holds this owned object any more."""
        if self._freed_callbacks:
            callback = self._freed_callbacks.pop(entry.object_id, None)
            if callback is not None:
                callback()
        self.freeing.forget(entry)
        if self.recovery.items:
            self.recovery.item_freed(entry.object_id)
        payload = entry.payload
        if payload is not None:
            if payload.location is not None:
                self.memory.free(payload.location, shared=entry.shared)
            elif payload.kind == KIND_ERROR and not entry.accessed:
                self.futures.report_unhandled(payload)
        elif isinstance(entry.producer, OwnedActor):
            self._core.actors.out_of_scope(entry.producer)

    def free_copy(self, entry: ObjectEntry) -> bool:
        """Effect: only lineage needs this owned object."""
        payload = entry.payload
        if payload is None or payload.location is None:
            return False
        entry.payload = None
        self.memory.free(payload.location, shared=entry.shared)
        entry.shared = False
        return True

    def remove_borrower(self, owner: Address, object_id: bytes) -> None:
        """Effect: this process no longer borrows that object."""
        self._core.post(owner, objects.RemoveBorrowers([object_id]))
        if object_id.startswith(HANDLES):
            self._core.actors.retire(object_id[len(HANDLES) : len(HANDLES) + 16])

    def add_borrowers(self, owner: Address, object_ids: list[bytes], ack: int) -> None:
        """Effect: register with the owner."""
        if owner.worker_id in self._core.dead:
            self._core.reactor.call_later(0.0, lambda: self.counter.borrowers_added(ack, object_ids))
            return
        self._core.post(owner, objects.AddBorrowers(object_ids, ack), ack > 0)

    def watch(self, worker_id: bytes) -> None:
        """Effect: we depend on that process's life."""
        self._core.watch(worker_id)

    def release_pins(self, ticket: Any) -> None:
        """Effect: all registrations for `ticket` (peer, message) are acknowledged."""
        peer, message = ticket
        self._core.post(peer, message, True)

    def owner_lost(self, entry: ObjectEntry) -> None:
        """Effect: the owner is gone, or has freed the object."""
        if entry.payload is not None:
            return
        owner = entry.owner
        error: exceptions.RayError
        if owner is not None and owner.worker_id in self._core.dead:
            error = exceptions.OwnerDiedError(entry.object_id.hex(), self.address_of(owner), "")
        else:
            error = exceptions.ReferenceCountingAssertionError(entry.object_id.hex(), None, "")
        self.fail(entry, error)

    def on_process_died(self, message: control.WorkerDied) -> None:
        """A process is gone: as a borrower, and as an owner."""
        self.counter.process_died(message.worker_id)

    def fail_all(self, reason: str) -> None:
        """The session is lost: nothing that is pending will ever come."""
        for entry in list(self.entries.values()):
            if entry.payload is None:
                self.fail(entry, exceptions.RaySystemError(reason))

    def when_freed(self, ref: ObjectRef[Any], callback: Callable[[], None]) -> None:
        """Call `callback` once nobody anywhere holds this object of ours: no ref, no value that contains one, no
        process. It is called under the lock, and must not block.
        """
        with self._core.lock:
            self._freed_callbacks[self._check_ref(ref).object_id] = callback

    # -- what refs ask for -------------------------------------------------------------------------------------------

    def on_ready(self, ref: ObjectRef[Any], callback: Callable[[Any], None]) -> None:
        """Call `callback(value or error)` once the object is ready."""
        self.futures.on_ready(ref, callback)

    def future_of(self, ref: ObjectRef[Any]) -> Any:
        """A `concurrent.futures.Future` of the object."""
        return self.futures.future_of(ref)

    def asyncio_future_of(self, ref: ObjectRef[Any]) -> Any:
        """An `asyncio.Future` of the object, in the running loop."""
        return self.futures.asyncio_future_of(ref)

    def close(self) -> None:
        """The process leaves the session."""
        self.futures.close()
        if self.memory.opened is not None:
            self.memory.opened.close()


def _raisable(error: BaseException) -> BaseException:
    """What `get` raises for an error: for a task's, one that is an instance of the cause's type, too."""
    return error.as_instanceof_cause() if isinstance(error, exceptions.RayTaskError) else error


def _not_loaded(error: Exception) -> exceptions.RaySystemError:
    """The error of a value whose unpickling raised."""
    import traceback  # only then

    return exceptions.RaySystemError(error, "".join(traceback.format_exception(error)))
