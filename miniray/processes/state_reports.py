"""What this process knows of tasks, objects and actors, told when the head asks (`ReportState`).

Nothing is kept for this: the answer is read from the tables that are there anyway, under the lock, at most `limit` rows
of them. Before that, the lines of the tasks that have ended here are mailed, so that the head has everything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from miniray.messages import control, tasks
from miniray.messages.objects import KIND_ERROR
from miniray.messages.state import ObjectRow, ReportState, StateReport, TaskRow
from miniray.messages.tasks import TaskPush
from miniray.processes.task_events import display_name, extras_of, function_name
from miniray.state_machines.actor_submission import ActorCall
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.state_machines.task_submission import PUSHED, WAITING, PendingTask

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

_encode = msgspec.msgpack.Encoder().encode

PENDING_ARGS_AVAIL = "PENDING_ARGS_AVAIL"
PENDING_NODE_ASSIGNMENT = "PENDING_NODE_ASSIGNMENT"
SUBMITTED_TO_WORKER = "SUBMITTED_TO_WORKER"
PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY = "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"
RUNNING = "RUNNING"


class StateReports:
    """Answers the head's questions about this process."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core

    def on_report_state(self, sender: bytes, message: ReportState) -> None:
        """The head wants to know."""
        core = self._core
        rows: Iterator[Any]
        if message.what == "tasks":
            core.events.flush()
            total = len(core.tasks.pending) + len(core.actors.calls)
            rows = (row for row in self._tasks() if row is not None)
        elif message.what == "objects":
            core.objects.drain()
            total = len(core.objects.entries)
            rows = map(self._object, core.objects.entries.values())
        else:
            rows = self._actors()
            total = 1 + len(core.actors.owned)
        told = list(islice(rows, message.limit))
        # Fewer than were allowed are all that there are, whatever was left out on purpose.
        total = max(total, len(told)) if len(told) == message.limit else len(told)
        core.post(core.head, StateReport(message.number, msgspec.Raw(_encode(told)), total), True)

    # -- tasks -----------------------------------------------------------------------------------------------------

    def _tasks(self) -> Iterator[TaskRow | None]:
        core = self._core
        # What runs here comes first: it is little, and it is what nobody else knows.
        if core.executor is not None:
            yield from self._executing(core.executor)
        yield from self._creations()
        for call in core.actors.calls.values():
            yield self._call(call)
        for task in core.tasks.pending.values():
            yield self._pending(task) if extras_of(task.push.options).task_events else None

    def _row(self, push: TaskPush, state: str, function: str, attempt: int) -> TaskRow:
        extras = extras_of(push.options)
        return TaskRow(
            push.task_id,
            attempt,
            state,
            push.kind,
            push.name,
            function,
            push.job_id,
            push.parent_task_id,
            push.created,
            resources=extras.resources,
            runtime_env=self._core.runtime_env,
            placement_group_id=extras.placement_group_id,
        )

    def _pending(self, task: PendingTask) -> TaskRow:
        state = PENDING_NODE_ASSIGNMENT
        if task.state == WAITING:
            state = PENDING_ARGS_AVAIL
        elif task.state == PUSHED:
            state = SUBMITTED_TO_WORKER
        row = self._row(task.push, state, task.export.name or task.push.name, task.attempt)
        row.runtime_env = task.scheduling_class.spec.runtime_env
        if task.lease is not None:
            row.worker_id, row.node_id = task.lease.worker.address.worker_id, task.lease.worker.node_id
        return row

    def _call(self, call: ActorCall) -> TaskRow:
        state = PENDING_NODE_ASSIGNMENT
        if call.unready:
            state = PENDING_ARGS_AVAIL
        elif call.sent:
            state = SUBMITTED_TO_WORKER
        row = self._row(call.push, state, call.push.name, call.attempt)
        client = call.client
        if call.sent and client.address is not None:
            row.worker_id, row.node_id = client.address.worker_id, client.node_id
        return row

    def _creations(self) -> Iterator[TaskRow]:
        actors = self._core.actors
        for actor_id, owned in actors.owned.items():
            client = actors.clients.get(actor_id)
            if client is None or client.error is not None:
                continue
            push = owned.spec.creation
            if not extras_of(push.options).task_events:
                continue
            if client.incarnation >= 0:
                state = "FINISHED"  # its worker, which has told more about it, may have been killed before it did
            elif client.state != control.PENDING_CREATION:
                continue
            else:
                state = PENDING_ARGS_AVAIL if owned.unready else PENDING_NODE_ASSIGNMENT
            row = self._row(push, state, push.name, push.attempt)
            if owned.spec.name:
                row.name = f"{owned.spec.name}:{push.name}"
            row.resources = owned.spec.resources
            yield row

    def _executing(self, executor: Any) -> Iterator[TaskRow]:
        core = self._core
        now, counter = time.time(), time.perf_counter()
        running = executor.running
        actor = core.actor
        if actor is not None and not actor.task_events:
            return
        if running is not None and extras_of(running.options).task_events:
            context = executor.context
            yield self._here(running, RUNNING, context.function if context is not None else None, now, executor.began)
        if actor is not None:
            for context in list(actor.contexts.values()):
                if context.push is not None:
                    started = now - (counter - context.started)
                    yield self._here(context.push, RUNNING, context.function, started, None)
        waiting = list(executor.queue) + (list(actor.queued.values()) if actor is not None else [])
        for _, push in waiting:
            if push.kind == tasks.ACTOR_TASK:
                yield self._here(push, PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY, None, 0.0, None)

    def _here(self, push: TaskPush, state: str, function: Any, started: float, began: float | None) -> TaskRow:
        core = self._core
        if began is not None:
            started -= time.perf_counter() - began
        row = self._row(push, state, function_name(push.kind, push.name, function), push.attempt)
        row.name = display_name(core, push.kind, push.name)
        row.started = started
        row.node_id, row.worker_id, row.pid = core.node_id, core.worker_id, core.pid
        if push.kind != tasks.NORMAL_TASK and core.actor is not None:
            row.resources = core.actor.resources
        return row

    # -- actors ----------------------------------------------------------------------------------------------------

    def _actors(self) -> Iterator[dict[str, Any]]:
        """What the head does not know of actors: the `repr` of the one here, and those that wait for arguments."""
        actor, actors = self._core.actor, self._core.actors
        if actor is not None:
            yield {"actor_id": actor.actor_id.hex(), "repr_name": actor.repr_name, "clients": actor.positions()}
        for owned in actors.owned.values():
            if owned.unready:
                spec = owned.spec
                yield {
                    "actor_id": spec.actor_id.hex(),
                    "class_name": spec.qualified_name or spec.class_name,
                    "state": control.DEPENDENCIES_UNREADY,
                    "job_id": spec.job_id.hex(),
                    "name": spec.name,
                    "ray_namespace": spec.namespace,
                    "is_detached": spec.detached,
                    "serialized_runtime_env": spec.placement.runtime_env or "{}",
                }

    # -- objects ---------------------------------------------------------------------------------------------------

    def _object(self, entry: ObjectEntry) -> ObjectRow:
        payload = entry.payload
        size, node_id = -1, b""
        if payload is not None and payload.kind != KIND_ERROR:
            if payload.location is not None:
                size, node_id = payload.location.size, payload.location.node_id
            elif payload.data is not None:
                size = len(payload.data)
        owner = entry.owner.worker_id if entry.owner is not None else self._core.worker_id
        return ObjectRow(
            entry.object_id,
            owner,
            size,
            reference_type(entry, self._core.objects.memory.is_viewed(entry)),
            self._status(entry),
            getattr(entry.producer, "attempt", 0),
            entry.local,
            entry.submitted,
            entry.inner,
            len(entry.borrowers or ()),
            self._core.objects.site_of(entry),
            node_id,
        )

    def _status(self, entry: ObjectEntry) -> str:
        producer = entry.producer
        if entry.owner is not None or is_handle(entry.object_id):
            return "NIL"
        if isinstance(producer, PendingTask) and entry.payload is None:
            return self._pending(producer).state
        if isinstance(producer, ActorCall) and entry.payload is None:
            return self._call(producer).state
        return "FINISHED" if entry.payload is not None else "NIL"


def is_handle(object_id: bytes) -> bool:
    """Whether refs to this object are the handles of an actor."""
    # The driver's own task is all ones up to its job, and so are the objects that it puts.
    return object_id.startswith(b"\xff" * 8) and not object_id.startswith(b"\xff" * 20)


def reference_type(entry: ObjectEntry, pinned: bool) -> str:
    """Why an object is held, in Ray's words; `pinned`: something in this process views its value."""
    if is_handle(entry.object_id):
        return "ACTOR_HANDLE"
    if pinned:
        return "PINNED_IN_MEMORY"
    if entry.submitted:
        return "USED_BY_PENDING_TASK"
    if entry.local:
        return "LOCAL_REFERENCE"
    if entry.inner:
        return "CAPTURED_IN_OBJECT"
    return "UNKNOWN_STATUS"
