"""Who still needs an object: ownership and reference counting.

The rules
---------
The process that submits a task or calls `put` **owns** the object. Everybody else who holds a ref is a **borrower**,
and is known to the owner by name. An object lives while one of these holds it *somewhere*:

* a local ref (a Python `ObjectRef`),
* a pending task that has it among its arguments (`submitted`),
* an object that contains it (`inner`),
* a borrower, in which the same four reasons are counted again.

**Hand-over.** Whoever hands a ref to another process keeps it alive until the receiver has dropped it or is
registered with the owner:

* *Arguments*: the caller pins them until the reply. The worker looks at the end of the task which refs it still holds
  (`kept`), registers those with their owners, and replies. When the owner is the caller itself, the registration
  comes before the reply on the same connection, and nothing waits. Otherwise the caller keeps its pin until
  `ReleasePins`.
* *Results* that contain refs: the worker pins them until the caller has registered as a borrower and says so
  (`AcknowledgeReplies`).
* *A copy* of an object pins the refs inside it, in the process that holds the copy; while their registration is under
  way the copy's own borrow is not given up (`pending_acks`).

A borrower's death releases all it held. An owner's death makes its objects unreachable: `OwnerDiedError`.

This is a simplification of Ray's protocol (there, borrowers report trees of borrowers to the caller in the reply):
one uniform rule, at the price of one more message when a ref is kept by a third process. Ray's is in
`reference_counter.cc`, and in "Ownership: a distributed futures system for fine-grained tasks" (Wang et al., NSDI
2021).

The machine is called directly, under the core worker's lock; effects go to a port object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from miniray.messages.objects import Address, Handover, Payload
from miniray.state_machines.lineage import Lineage, Link


class ObjectEntry:
    """What this process knows about one object."""

    __slots__ = (
        "accessed",
        "borrowers",
        "contained",
        "inner",
        "lineage",
        "local",
        "object_id",
        "owner",
        "payload",
        "pending_acks",
        "producer",
        "registered",
        "requested",
        "shared",
        "site",
        "submitted",
        "waiters",
    )

    def __init__(self, object_id: bytes, owner: Address | None) -> None:
        self.object_id = object_id
        self.owner = owner  #: None: this process
        self.local = 0
        self.submitted = 0
        self.inner = 0
        self.pending_acks = 0
        self.borrowers: set[bytes] | None = None
        self.payload: Payload | None = None
        self.contained: list[ObjectEntry] | None = None
        self.waiters: list[Callable[[ObjectEntry], None]] | None = None
        self.producer: Any = None  #: the pending task that makes it
        self.registered = False  #: (borrowed) the owner knows that we hold it
        self.requested = False  #: (borrowed) the value was asked for
        self.accessed = False  #: somebody has looked at the value: its error, if it is one, is not "unhandled"
        self.lineage: Link | None = None  #: (owned) how it can be made again, and what is made from it
        self.shared = False  #: its location left this process: somebody may view it when it is freed

    site: str  #: where the ref was made; not set when that is not recorded

    def in_use(self) -> bool:
        """Whether anything in this process, or any borrower, holds it."""
        return bool(self.local or self.submitted or self.inner or self.pending_acks or self.borrowers)

    def __repr__(self) -> str:
        role = "owned" if self.owner is None else "borrowed"
        return (
            f"<ObjectEntry {self.object_id.hex()[-12:]} {role} local={self.local} submitted={self.submitted} "
            f"inner={self.inner} acks={self.pending_acks} borrowers={len(self.borrowers or ())} "
            f"{'ready' if self.payload is not None else 'pending'}>"
        )


class ReferencePort(Protocol):
    """The effects of the machine."""

    def free_value(self, entry: ObjectEntry) -> None:
        """Nobody holds this owned object any more: give back its memory, and stop caring for its task."""

    def free_copy(self, entry: ObjectEntry) -> bool:
        """Only lineage needs this owned object: give back its shared memory. False: it lies elsewhere, and stays."""

    def remove_borrower(self, owner: Address, object_id: bytes) -> None:
        """Tell the owner that this process no longer borrows."""

    def add_borrowers(self, owner: Address, object_ids: list[bytes], ack: int) -> None:
        """Tell the owner that this process borrows; `ack` > 0 asks for an answer."""

    def watch(self, worker_id: bytes) -> None:
        """Ask to be told when that process dies."""

    def release_pins(self, ticket: Any) -> None:
        """All registrations that `ticket` waited for are acknowledged: tell whoever pins in the meantime."""

    def owner_lost(self, entry: ObjectEntry) -> None:
        """The owner of this borrowed object is gone (or freed it): whoever waits for it gets an error."""


class ReferenceCounter:
    """The table of all objects that this process owns or borrows."""

    def __init__(self, worker_id: bytes, port: ReferencePort) -> None:
        self.worker_id = worker_id
        self.port = port
        self.objects: dict[bytes, ObjectEntry] = {}
        self.lineage = Lineage()
        self._next_ack = 1
        #: ack number -> (entries whose registration is awaited, entry of the copy that contains them or None)
        self._acks: dict[int, tuple[list[ObjectEntry], ObjectEntry | None]] = {}
        #: ack number -> the tickets that wait for it, each with all the numbers that it waits for
        self._tickets: dict[int, list[tuple[set[int], Any]]] = {}
        self._borrowed_by: dict[bytes, set[bytes]] = {}  #: borrower -> object ids
        self._borrowed_from: dict[bytes, set[bytes]] = {}  #: owner -> object ids

    # -- making entries --------------------------------------------------------------------------------------------

    def own(self, object_id: bytes) -> ObjectEntry:
        """A new object of this process."""
        entry = self.objects[object_id] = ObjectEntry(object_id, None)
        return entry

    def borrow(self, object_id: bytes, owner: Address) -> ObjectEntry:
        """The entry of a ref that came from elsewhere; new ones are not registered with the owner yet."""
        entry = self.objects.get(object_id)
        if entry is None:
            mine = owner.worker_id == self.worker_id
            entry = self.objects[object_id] = ObjectEntry(object_id, None if mine else owner)
            if mine:
                # A ref to an object of ours that we have freed already: only a ref pickled out of band can do that.
                self.port.owner_lost(entry)
            else:
                watched = self._borrowed_from.get(owner.worker_id)
                if watched is None:
                    self._borrowed_from[owner.worker_id] = {object_id}
                    self.port.watch(owner.worker_id)
                else:
                    watched.add(object_id)
        return entry

    # -- counts ----------------------------------------------------------------------------------------------------

    def release_local(self, entry: ObjectEntry) -> None:
        """A local ref is gone."""
        entry.local -= 1
        if entry.local == 0:
            self.collect(entry)

    def release_submitted(self, entries: Iterable[ObjectEntry]) -> None:
        """A pending task that had these among its arguments is done."""
        for entry in entries:
            entry.submitted -= 1
            if entry.submitted == 0:
                self.collect(entry)

    def collect(self, entry: ObjectEntry) -> None:
        """Free the entry if nothing holds it. Calling it too often does no harm."""
        work = [entry]
        while work:
            entry = work.pop()
            if entry.in_use() or self.objects.get(entry.object_id) is not entry:
                continue
            link = entry.lineage
            if link is not None and link.needed_by:
                # What cannot be made again stays, for what is made from it.
                if link.made_by is not None and entry.payload is not None and self.port.free_copy(entry):
                    link.lost = True
                    work += self._let_go(entry)
                continue
            del self.objects[entry.object_id]
            if entry.owner is None:
                self.port.free_value(entry)
                if link is not None:
                    work += self.lineage.left(entry)
            else:
                lent = self._borrowed_from.get(entry.owner.worker_id)
                if lent is not None:
                    lent.discard(entry.object_id)
                if entry.registered:
                    self.port.remove_borrower(entry.owner, entry.object_id)
            if entry.contained:
                work += self._let_go(entry)

    def _let_go(self, entry: ObjectEntry) -> list[ObjectEntry]:
        """The value of an entry is gone, and holds nothing any more. Returns what may be free now."""
        contained, entry.contained = entry.contained or [], None
        for inner in contained:
            inner.inner -= 1
        return [inner for inner in contained if not inner.inner]

    def value_lost(self, entry: ObjectEntry) -> None:
        """The value of an entry is gone: there will be another, or an error."""
        entry.payload = None
        for inner in self._let_go(entry):
            self.collect(inner)

    # -- lineage ---------------------------------------------------------------------------------------------------

    def collect_all(self, entries: Iterable[ObjectEntry]) -> None:
        """Free those that nothing holds."""
        for entry in entries:
            self.collect(entry)

    # -- values that contain refs ------------------------------------------------------------------------------------

    def contain_local(self, outer: ObjectEntry, inner: list[ObjectEntry]) -> None:
        """A value made here, with refs in it, becomes the value of `outer`."""
        for entry in inner:
            entry.inner += 1
        outer.contained = inner

    def contain_copy(self, outer: ObjectEntry, contained: list[Handover], ticket: Any = None) -> bool:
        """A value that came from elsewhere, with refs in it, becomes the value of `outer`.

        Registers this process as a borrower of them; once that is acknowledged, the effect `release_pins(ticket)`.
        True: nothing had to be registered, so the ticket can be released at once.
        """
        entries = [self.borrow(item.object_id, item.owner) for item in contained]
        self.contain_local(outer, entries)
        return self.register(entries, outer, ticket)

    def register(self, entries: Iterable[ObjectEntry], copy: ObjectEntry | None = None, ticket: Any = None) -> bool:
        """Register as a borrower of those that are not registered yet. True: there were none."""
        by_owner: dict[bytes, tuple[Address, list[ObjectEntry]]] = {}
        for entry in entries:
            if entry.owner is not None and not entry.registered:
                entry.registered = True
                by_owner.setdefault(entry.owner.worker_id, (entry.owner, []))[1].append(entry)
        if not by_owner:
            return True
        numbers = []
        for owner, group in by_owner.values():
            ack = self._next_ack
            self._next_ack += 1
            numbers.append(ack)
            for entry in group:
                entry.pending_acks += 1
            if copy is not None:
                copy.pending_acks += 1
            self._acks[ack] = (group, copy)
            self.port.add_borrowers(owner, [entry.object_id for entry in group], ack)
        if ticket is not None:
            self._release_after(numbers, ticket)
        return False

    def confirm(self, ticket: Any) -> bool:
        """Effect `release_pins(ticket)` once all registrations that are under way are acknowledged. True: none is."""
        self._release_after(self._acks, ticket)
        return not self._acks

    def _release_after(self, numbers: Iterable[int], ticket: Any) -> None:
        awaited = set(numbers)
        for number in awaited:
            self._tickets.setdefault(number, []).append((awaited, ticket))

    def registered_with(self, entries: Iterable[ObjectEntry], owner_id: bytes) -> None:
        """Note a registration that needs no acknowledgement: the owner is the caller, and hears it before the reply."""
        ids = []
        owner: Address | None = None
        for entry in entries:
            if entry.owner is not None and not entry.registered and entry.owner.worker_id == owner_id:
                entry.registered = True
                owner = entry.owner
                ids.append(entry.object_id)
        if owner is not None:
            self.port.add_borrowers(owner, ids, 0)

    def borrowers_added(self, ack: int, unknown: list[bytes]) -> None:
        """An owner has answered a registration; `unknown` lists objects which it had freed already."""
        record = self._acks.pop(ack, None)
        if record is None:
            return
        group, copy = record
        gone = set(unknown)
        for entry in group:
            entry.pending_acks -= 1
            if entry.object_id in gone:
                entry.registered = False
                self.port.owner_lost(entry)
            self.collect(entry)
        if copy is not None:
            copy.pending_acks -= 1
            self.collect(copy)
        for awaited, ticket in self._tickets.pop(ack, ()):
            awaited.remove(ack)
            if not awaited:
                self.port.release_pins(ticket)

    # -- the owner's side ------------------------------------------------------------------------------------------

    def add_borrowers(self, borrower: bytes, object_ids: list[bytes]) -> list[bytes]:
        """Another process holds refs to objects of ours. Returns those we no longer have."""
        unknown = []
        known = self._borrowed_by.get(borrower)
        if known is None:
            known = self._borrowed_by[borrower] = set()
            self.port.watch(borrower)
        for object_id in object_ids:
            entry = self.objects.get(object_id)
            if entry is None or entry.owner is not None:
                unknown.append(object_id)
                continue
            if entry.borrowers is None:
                entry.borrowers = set()
            entry.borrowers.add(borrower)
            known.add(object_id)
        return unknown

    def remove_borrowers(self, borrower: bytes, object_ids: Iterable[bytes]) -> None:
        """Another process holds these no more."""
        known = self._borrowed_by.get(borrower)
        for object_id in object_ids:
            if known is not None:
                known.discard(object_id)
            entry = self.objects.get(object_id)
            if entry is not None and entry.borrowers and borrower in entry.borrowers:
                entry.borrowers.discard(borrower)
                self.collect(entry)

    def process_died(self, worker_id: bytes) -> None:
        """A process is gone: it borrows nothing any more, and what it owned is lost."""
        held = self._borrowed_by.pop(worker_id, None)
        if held:
            self.remove_borrowers(worker_id, held)
        owned = self._borrowed_from.pop(worker_id, None)
        for object_id in owned or ():
            entry = self.objects.get(object_id)
            if entry is not None and entry.owner is not None:
                self.port.owner_lost(entry)
        for ack, (group, _copy) in list(self._acks.items()):
            owner = group[0].owner
            if owner is not None and owner.worker_id == worker_id:
                self.borrowers_added(ack, [])
