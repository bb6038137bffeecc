"""Objects whose copies were lost: who notices, and how they come back.

A copy is lost when its node is removed (the head tells everybody, `NodeDied`), or when its segment is not there any
more. Whoever finds that out first says so: the owner to itself, a borrower or a worker with an argument to the owner
(`ReportLost`), and then waits for the value as for any other that is not ready. The owner runs the task again that
made the object, or gives the object up. What is to be run is decided by `state_machines.lineage`.

On the death of a node its owner makes all objects again at once, without being asked, as Ray does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from miniray import exceptions
from miniray.messages import control, objects, tasks
from miniray.messages.objects import KIND_ERROR, Address, Location, Payload
from miniray.processes.actor_plane import OwnedActor
from miniray.state_machines.actor_submission import ActorCall
from miniray.state_machines.lineage import LIMIT, Effect, Record, Rerun
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.state_machines.task_submission import PendingTask
from miniray.task_errors import to_wire

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker


class CopyGone(exceptions.ObjectLostError):
    """The segment of a value is not there. Whoever can wait has the object made again; for others it is lost."""

    def __init__(self, object_ref_hex: str, location: Location | None) -> None:
        super().__init__(object_ref_hex, None, "")
        self.location = location


class ObjectRecovery:
    """The lost objects of one core worker."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self.dead_nodes: set[bytes] = set()
        #: items of generator tasks that are not done: those in shared memory, and those that were lost again
        self.items: dict[bytes, dict[bytes, ObjectEntry]] = {}
        self.missing: dict[bytes, list[ObjectEntry]] = {}
        self.records = core.objects.counter.lineage.records
        limit = os.environ.get("RAY_max_lineage_bytes")  # noqa: SIM112 - Ray's name
        core.objects.counter.lineage.limit = int(limit) if limit else LIMIT
        core.add_handlers({control.NodeDied: self.on_node_died, objects.ReportLost: self.on_report_lost})

    # -- remembering (under the lock) --------------------------------------------------------------------------------

    def item_made(self, task_id: bytes, entry: ObjectEntry) -> None:
        """A generator task that is not done has yielded something large."""
        self.items.setdefault(task_id, {})[entry.object_id] = entry

    def item_freed(self, object_id: bytes) -> None:
        """An object has left the table; it may be such an item."""
        made = self.items.get(object_id[:24])
        if made is not None:
            made.pop(object_id, None)

    @property
    def remembers(self) -> bool:
        """Whether there is anything that the end of a task may concern."""
        return bool(self.items or self.missing or self.records)

    def settled(self, task: PendingTask | ActorCall, shared: list[ObjectEntry], error: Payload | None) -> None:
        """A task was answered; these of its returns lie in shared memory. Its arguments are still pinned."""
        if task.push.options and self.items:
            shared = [*shared, *self.items.pop(task.push.task_id, {}).values()]
        if shared:
            self._keep(task, [entry for entry in shared if entry.payload is not None])
        self._ended(task, error)
        if shared and self.dead_nodes:
            # Not before the pins of this run are released: the task may run again at once, with pins of its own.
            self._core.after_batch[tuple(shared)] = self.lose_stale

    def failed(self, task: PendingTask | ActorCall, error: BaseException) -> None:
        """A task will not run (again)."""
        if self.remembers:
            self.items.pop(task.push.task_id, None)
            self._ended(task, Payload(KIND_ERROR, to_wire(error)))

    def _keep(self, task: PendingTask | ActorCall, shared: list[ObjectEntry]) -> None:
        push = task.push
        task_id = push.task_id
        counter = self._core.objects.counter
        inputs: list[ObjectEntry] = []
        again: list[Any] = []
        size = len(push.arguments.data) if push.arguments is not None and push.arguments.data is not None else 0
        if task.dependencies and task_id not in counter.lineage.records:
            again = list(task.arguments or ())
            small = set()
            for _, entry in again:
                payload = entry.payload
                if payload is not None and payload.data is not None and not payload.contained:
                    small.add(entry.object_id)  # it travels inside the push
                    size += len(payload.data)
            inputs = [
                entry
                for entry in task.dependencies
                # The handle of an actor makes no value; lineage does not keep the actor alive.
                if entry.owner is None and entry.object_id not in small and not isinstance(entry.producer, OwnedActor)
            ]
        counter.collect_all(
            counter.lineage.keep(task_id, task, shared, inputs, (again, task.dependencies), size, task.attempt)
        )

    def _ended(self, task: PendingTask | ActorCall, error: Payload | None) -> None:
        """What a task was to make again and did not make is given up."""
        task_id = task.push.task_id
        counter = self._core.objects.counter
        awaited, free = counter.lineage.ended(task_id)
        if self.missing:
            awaited = awaited + self.missing.pop(task_id, [])
        for entry in awaited:
            if entry.payload is None and self._core.objects.entries.get(entry.object_id) is entry:
                if error is not None:
                    self._core.objects.fulfil(entry, error)
                else:
                    self._give_up(entry, "REF_NOT_FOUND")
        counter.collect_all(free)

    # -- losing ------------------------------------------------------------------------------------------------------

    def on_node_died(self, sender: bytes, message: control.NodeDied) -> None:
        """A node is gone, and every copy that lay there."""
        node_id = message.node_id
        self.dead_nodes.add(node_id)
        core = self._core
        core.tasks.submission.node_left(node_id)
        entries = core.objects.entries.values()
        self.lose([entry for entry in entries if entry.payload is not None and _node_of(entry.payload) == node_id])

    def lose_stale(self, entries: Iterable[ObjectEntry]) -> None:
        """Of objects that became ready just now, lose those whose node is gone already: their news came late."""
        dead = self.dead_nodes
        stale = [entry for entry in entries if entry.payload is not None and _node_of(entry.payload) in dead]
        if stale:
            self.lose(stale)

    def is_stale(self, entry: ObjectEntry, payload: Payload) -> bool:
        """Whether a borrowed value came from a node that is gone: then its owner is told, and sends another."""
        if _node_of(payload) not in self.dead_nodes:
            return False
        assert payload.location is not None
        self._report(entry, payload.location)
        return True

    def lose(self, entries: Iterable[ObjectEntry]) -> None:
        """The copies of these objects are gone (under the lock)."""
        core = self._core
        counter = core.objects.counter
        owned = []
        for entry in entries:
            counter.value_lost(entry)
            if entry.owner is not None:
                entry.requested = False
                if entry.waiters:
                    core.objects.request_values([entry])
            elif core.tasks.pending.get(entry.object_id[:24]) or core.actors.calls.get(entry.object_id[:24]):
                # An item of a generator that has not ended, or is repeated already.
                self.missing.setdefault(entry.object_id[:24], []).append(entry)
            elif entry.in_use():
                owned.append(entry)
            elif entry.lineage is not None:  # only lineage needs it: made again when that is needed
                entry.lineage.lost = True
        if owned:
            self._carry_out(counter.lineage.lost(owned))

    def wanted(self, entries: Iterable[ObjectEntry]) -> None:
        """Somebody waits for objects of ours of which there may be no copy."""
        lost = [entry for entry in entries if entry.lineage is not None and entry.lineage.lost]
        if lost:
            self._carry_out(self._core.objects.counter.lineage.lost(lost))

    def copy_gone(self, entry: ObjectEntry, location: Location | None) -> None:
        """The segment of a value was not found here (takes the lock): have the object made again, and be told."""
        core = self._core
        with core.lock:
            payload = entry.payload
            if payload is None or location is None or payload.location != location:
                return  # it is known
            if entry.owner is None:
                self.lose([entry])
            else:
                core.objects.counter.value_lost(entry)
                self._report(entry, location)

    def _report(self, entry: ObjectEntry, location: Location) -> None:
        core = self._core
        assert entry.owner is not None
        entry.requested = True
        if entry.owner.worker_id in core.dead:
            core.objects.owner_lost(entry)
        else:
            core.post(entry.owner, objects.ReportLost(entry.object_id, location), True)

    def on_report_lost(self, sender: bytes, message: objects.ReportLost) -> None:
        """A borrower did not find the segment of an object of ours: it waits for another."""
        core = self._core
        entry = core.objects.entries.get(message.object_id)
        if entry is not None and entry.payload is not None and entry.payload.location == message.location:
            self.lose([entry])
        core.objects.messages.on_get_objects(sender, objects.GetObjects([message.object_id]))

    # -- making again ------------------------------------------------------------------------------------------------

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, Rerun):
                self._give_up(effect.entry, effect.reason)
            elif isinstance(effect.record.task, PendingTask):
                self._run_task(effect.record)
            else:
                self._run_call(effect.record)

    def _give_up(self, entry: ObjectEntry, reason: str) -> None:
        plane = self._core.objects
        code = exceptions.ErrorType[f"OBJECT_UNRECONSTRUCTABLE_{reason}"]
        plane.fail(
            entry,
            exceptions.ObjectReconstructionFailedError(
                entry.object_id.hex(), code, None, plane.address_of(None), plane.site_of(entry)
            ),
        )

    def _prepare(self, record: Record, task: PendingTask | ActorCall) -> list[ObjectEntry]:
        """The arguments' entries, as they are now: those of others may have been given back meanwhile."""
        plane = self._core.objects
        again, dependencies = record.arguments
        now: dict[int, ObjectEntry] = {}
        for entry in dependencies or ():
            known = plane.entries.get(entry.object_id)
            if known is not entry and entry.owner is not None:
                entry = plane.counter.borrow(entry.object_id, entry.owner)
                plane.counter.register([entry])
            now[id(entry)] = entry
        arguments = []
        settled = []
        for key, entry in again:
            known = plane.entries.get(entry.object_id)
            if known is None:
                settled.append(key)  # its value is in the push
            else:
                arguments.append((key, known))
        old = task.push.ref_arguments or []
        task.push.ref_arguments = [argument for argument in old if argument.key in settled] or None
        task.arguments = arguments
        task.dependencies = [entry for entry in now.values() if plane.entries.get(entry.object_id) is entry]
        for entry in task.dependencies:
            entry.submitted += 1
        for entry in record.awaited:
            entry.producer = task
        return task.dependencies

    def _run_task(self, record: Record) -> None:
        task: PendingTask = record.task
        self._prepare(record, task)
        self._lift_back_pressure(task)
        self._core.tasks.run_again(task)

    def _run_call(self, record: Record) -> None:
        call: ActorCall = record.task
        self._prepare(record, call)
        self._lift_back_pressure(call)
        self._core.actors.run_again(call, self.dead_nodes)

    def _lift_back_pressure(self, task: PendingTask | ActorCall) -> None:
        """Nobody takes the items of a generator that runs again: they have their refs."""
        push = task.push
        if push.options:
            from miniray.processes.task_plane import encode_extras, extras_of  # it imports what imports this

            extras = extras_of(push)
            if extras.generator and extras.generator_backpressure > 0:
                extras.generator_backpressure = -1
                push.options = encode_extras(extras)

    # -- arguments in a worker -----------------------------------------------------------------------------------------

    def fetch_argument(self, argument: tasks.RefArgument, owner: Address) -> Payload:
        """The value of an argument whose segment is not there: wait until its owner has made it again.

        Raises:
            KeyboardInterrupt: the task was cancelled meanwhile.
        """
        core = self._core
        location = argument.payload.location
        assert location is not None
        with core.lock:
            entry = core.objects.counter.borrow(argument.object_id, argument.owner or owner)
            ref = core.objects.make_ref(entry)
            if entry.owner is None:
                if entry.payload is not None and entry.payload.location == location:
                    self.lose([entry])
            elif entry.payload is None or entry.payload.location == location:
                if entry.payload is not None:
                    core.objects.counter.value_lost(entry)
                self._report(entry, location)
        core.objects.waiting.await_one(entry)
        payload = entry.payload
        del ref
        assert payload is not None
        return payload


def _node_of(payload: Payload) -> bytes | None:
    return payload.location.node_id if payload.location is not None else None
