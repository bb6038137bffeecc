"""What happened to tasks, for the timeline and the state API: a line for each task that has ended.

The worker that ran it writes the line after the reply has left: one tuple in a list. The owner writes it for tasks that
ended without a worker (cancelled before they were sent, the worker or the actor died). Lines are mailed to the head
when the worker is idle, when `BATCH` have piled up, and when somebody asks (`state_reports`). What a task is doing
*before* it ends is written down nowhere: whoever asks gets it from the tables that are there anyway.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from miniray import exceptions
from miniray.messages import tasks
from miniray.messages.control import WorkerDied
from miniray.messages.state import TaskEvents, TaskRow
from miniray.messages.tasks import TaskExtras, TaskPush

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.current import TaskContext

#: Events that are mailed at once.
BATCH = 1000

FINISHED, FAILED = "FINISHED", "FAILED"

_encode = msgspec.msgpack.Encoder().encode
_decode_extras = msgspec.msgpack.Decoder(TaskExtras).decode
_NO_EXTRAS = TaskExtras()

#: Ray's name for what ended a task that no worker answered; the first that fits.
_ERROR_TYPES: list[tuple[type[BaseException], str]] = [
    (exceptions.TaskCancelledError, "TASK_CANCELLED"),
    (exceptions.WorkerCrashedError, "WORKER_DIED"),
    (exceptions.NodeDiedError, "NODE_DIED"),
    (exceptions.OutOfMemoryError, "OUT_OF_MEMORY"),
    (exceptions.ActorDiedError, "ACTOR_DIED"),
    (exceptions.ActorUnavailableError, "ACTOR_UNAVAILABLE"),
    (exceptions.RuntimeEnvSetupError, "RUNTIME_ENV_SETUP_FAILED"),
    (exceptions.TaskUnschedulableError, "TASK_UNSCHEDULABLE_ERROR"),
    (exceptions.ActorUnschedulableError, "ACTOR_UNSCHEDULABLE_ERROR"),
    (exceptions.TaskPlacementGroupRemoved, "TASK_PLACEMENT_GROUP_REMOVED"),
    (exceptions.ActorPlacementGroupRemoved, "ACTOR_PLACEMENT_GROUP_REMOVED"),
    (exceptions.OwnerDiedError, "OWNER_DIED"),
    (exceptions.ObjectLostError, "OBJECT_LOST"),
    (exceptions.LocalRayletDiedError, "LOCAL_RAYLET_DIED"),
]


def error_type_of(error: BaseException) -> str:
    """Ray's name for the kind of error that a task has ended with."""
    for kind, name in _ERROR_TYPES:
        if isinstance(error, kind):
            return name
    return "TASK_EXECUTION_EXCEPTION"


def extras_of(options: bytes) -> TaskExtras:
    """The rarely used settings of a task."""
    return _decode_extras(options) if options else _NO_EXTRAS


class TaskEventBuffer:
    """The tasks that have ended here and of which the head does not know yet."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._events: list[tuple[Any, ...]] = []
        self._failures: list[TaskRow] = []

    def executed(self, push: TaskPush, context: TaskContext, duration: float, status: int) -> None:
        """A task ran for `duration` seconds, until now. Only a tuple: names are looked up when it is mailed."""
        self._events.append(
            (
                push.task_id,
                push.attempt,
                push.kind,
                push.name,
                push.job_id,
                push.parent_task_id,
                push.options,
                push.created,
                time.time(),
                duration,
                status,
                context.function,
                context.error,
            )
        )
        # What failed is mailed at once: the next task here may take the worker with it.
        if len(self._events) >= BATCH or status == tasks.FAILED:
            with self._core.lock:
                self.flush()

    def failed(
        self, push: TaskPush, error: BaseException, *, function: str, attempt: int, died: WorkerDied | None = None
    ) -> None:
        """A task of ours has ended without an answer (under the lock). `died`: with this worker."""
        now = time.time()
        error_type = error_type_of(error)
        extras = extras_of(push.options)
        self._failures.append(
            TaskRow(
                push.task_id,
                attempt,
                FAILED,
                push.kind,
                push.name,
                function or push.name,
                push.job_id,
                push.parent_task_id,
                push.created or now,
                0.0,
                now,
                error_type=error_type,
                error="" if error_type == "TASK_CANCELLED" and push.kind == tasks.NORMAL_TASK else str(error),
                worker_id=died.worker_id if died is not None else b"",
                node_id=died.node_id if died is not None else b"",
                resources=extras.resources,
                runtime_env=self._core.runtime_env,
                placement_group_id=extras.placement_group_id,
            )
        )
        if len(self._failures) >= BATCH:
            self.flush()

    def cancelled_in_queue(self, push: TaskPush, error: BaseException) -> None:
        """A task was cancelled here before it began (under the lock)."""
        self.failed(push, error, function="", attempt=push.attempt)

    def flush(self) -> None:
        """Mail what is there (under the lock)."""
        if not self._events and not self._failures:
            return
        events, self._events = self._events, []
        rows, self._failures = self._failures, []
        if self._core.closed or self._core.head_lost:
            return
        for event in events:
            try:
                rows.append(self._row(*event))
            except Exception:  # a function whose attributes raise: user code
                continue
        self._core.post(self._core.head, TaskEvents(len(rows), msgspec.Raw(_encode(rows))), True)

    def _row(
        self,
        task_id: bytes,
        attempt: int,
        kind: int,
        name: str,
        job_id: bytes,
        parent: bytes,
        options: bytes,
        created: float,
        ended: float,
        duration: float,
        status: int,
        function: Any,
        error: tuple[str, str] | None,
    ) -> TaskRow:
        core = self._core
        extras = extras_of(options)
        started = ended - duration
        error_type, text = error if error is not None else ("", "")
        if kind == tasks.NORMAL_TASK:
            resources = extras.resources
        else:
            resources = core.actor.resources
        return TaskRow(
            task_id,
            attempt,
            FAILED if status == tasks.FAILED else FINISHED,  # FINISHED also when it was interrupted, as in Ray
            kind,
            display_name(core, kind, name),
            function_name(kind, name, function),
            job_id,
            parent,
            created or started,
            started,
            ended,
            core.node_id,
            core.worker_id,
            core.pid,
            error_type if status == tasks.FAILED else "",
            text if status == tasks.FAILED else "",
            resources,
            core.runtime_env,
            extras.placement_group_id,
            _title(kind, name, function),
        )


def display_name(core: CoreWorker, kind: int, name: str) -> str:
    """The name of a task that runs in this worker; that of an actor's carries the actor's name or its repr."""
    actor = core.actor
    if actor is None:
        return name
    if kind == tasks.ACTOR_CREATION_TASK and actor.name:
        return f"{actor.name}:{name}"
    if kind == tasks.ACTOR_TASK and actor.repr_name and name.startswith(actor.class_name + "."):
        return f"{actor.repr_name}.{name.rpartition('.')[2]}"
    return name


def function_name(kind: int, name: str, function: Any) -> str:
    """The name of the function, or of the class and its method."""
    if kind == tasks.ACTOR_CREATION_TASK:
        return name
    qualified = getattr(function, "__qualname__", None)
    return str(qualified).rpartition("<locals>.")[2] if qualified else name


def _title(kind: int, name: str, function: Any) -> str:
    if kind != tasks.NORMAL_TASK:
        return name.rpartition(".")[2]
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', name)}"
