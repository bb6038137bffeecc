"""What happened to tasks, for the timeline and the state API: a line for each task that has ended.

The worker that ran it writes the line after the reply has left: one tuple in a list. The owner writes it for tasks that
ended without a worker (cancelled before they were sent, the worker or the actor died). Lines are mailed to the head
when the worker is idle, when `BATCH` have piled up, and when somebody asks (`state_reports`). What a task is doing
*before* it ends is written down nowhere: whoever asks gets it from the tables that are there anyway.
"""

from __future__ import annotations

import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from miniray import exceptions
from miniray.messages import tasks
from miniray.messages.control import WorkerDied
from miniray.messages.state import EndedTasks, TaskEvents, TaskRow
from miniray.messages.tasks import TaskExtras, TaskPush
from miniray.state_machines.task_rows import FAILED

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.current import TaskContext

#: Events that are mailed at once.
BATCH = 1000

#: of an event: what its names and its settings depend on
_NAME, _SETTING = itemgetter(11, 3, 2), itemgetter(6, 2)

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
        self._functions: dict[Any, Any] = {}

    def executed(self, push: TaskPush, context: TaskContext, duration: float, status: int) -> None:
        """A task ran for `duration` seconds, until now. Only a tuple: names are looked up when it is mailed."""
        key = push.function_id or push.method
        if key not in self._functions:
            self._functions[key] = context.function
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
                key,
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
        if not extras.task_events:
            return
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
        failures, self._failures = self._failures, []
        if self._core.closed or self._core.head_lost:
            return
        functions = self._functions
        self._functions = {}
        core = self._core
        batch = EndedTasks(
            core.node_id,
            core.worker_id,
            core.pid,
            events,
            [
                [key, name, kind, *_names(core, kind, name, functions.get(key))]
                for key, name, kind in set(map(_NAME, events))
            ],
            [[options, kind, *_settings(core, kind, options)] for options, kind in set(map(_SETTING, events))],
            failures,
        )
        core.post(core.head, TaskEvents(len(events) + len(failures), msgspec.Raw(_encode(batch))), True)


def _names(core: CoreWorker, kind: int, name: str, function: Any) -> tuple[str, str, str]:
    try:
        return display_name(core, kind, name), function_name(kind, name, function), _title(kind, name, function)
    except Exception:  # a function whose attributes raise: user code
        return name, name, name


def _settings(core: CoreWorker, kind: int, options: bytes) -> tuple[dict[str, int] | None, str, bytes]:
    extras = extras_of(options)
    if kind == tasks.NORMAL_TASK or core.actor is None:
        return extras.resources, core.runtime_env, extras.placement_group_id
    return core.actor.resources, core.runtime_env, extras.placement_group_id


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
