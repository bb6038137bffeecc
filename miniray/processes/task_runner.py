"""How one task is run, wherever it runs: load the function, decode the arguments, call, encode the answer.

The executors decide *where* and *when* (main thread, thread pool, event loop) and call these steps; each of them may
run user code (unpickling, the call itself, pickling), so none is called under the core worker's lock.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import msgspec

from miniray import exceptions
from miniray.ids import TaskID
from miniray.messages import tasks
from miniray.messages.objects import KIND_ERROR, Address, Handover, Payload
from miniray.messages.tasks import FunctionExport, RefArgument, TaskExtras, TaskPush, TaskReply
from miniray.processes import current
from miniray.processes.generator_runner import GeneratorRunner
from miniray.processes.object_recovery import CopyGone
from miniray.processes.task_events import error_type_of
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.system.serialization import serialize
from miniray.task_errors import (
    cancelled,
    format_task_traceback,
    from_wire,
    make_dependency_error,
    make_task_error,
    to_wire,
)

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

_NO_EXTRAS = TaskExtras()
_decode_extras = msgspec.msgpack.Decoder(TaskExtras).decode


def extras_of(push: TaskPush) -> TaskExtras:
    """The rarely used settings of a task."""
    return _decode_extras(push.options) if push.options else _NO_EXTRAS


class ArgumentFailed(Exception):
    """An argument of the task holds an error: the task does not run."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class WorkerExit(BaseException):
    """User code asked the process to exit."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class TaskRunner:
    """The steps of running a task in this worker."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._functions: dict[bytes, Any] = {}
        self._exports: dict[bytes, FunctionExport] = {}
        self._return_pins: dict[bytes, tuple[bytes, list[ObjectEntry]]] = {}
        self._known_job = b""
        self.adopt_job: Callable[[bytes], None] = lambda job_id: None
        self.actor_repr: Callable[[], str | None] = lambda: None
        self.follows_driver = True  #: import what the driver can import; not in a working directory of its own
        self.actor_id_hex: str | None = None
        self.generators = GeneratorRunner(core, self)

    # -- functions -------------------------------------------------------------------------------------------------

    def add_export(self, message: FunctionExport) -> None:
        """A function or class that later pushes name (under the lock)."""
        self._exports.setdefault(message.function_id, message)
        self._core.exports.note(message)

    def enter_job(self, push: TaskPush) -> None:
        """Become a worker of the task's job, if this is its first task."""
        if push.job_id != self._known_job:
            self.adopt_job(push.job_id)
            self._known_job = push.job_id

    def load(self, function_id: bytes) -> Any:
        """The function or class with this id; unpickled once. One that cannot be loaded raises why, at each call."""
        function = self._functions.get(function_id)
        if function is None:
            export = self._exports.get(function_id)
            if export is None:
                raise exceptions.RaySystemError(f"The function {function_id.hex()} did not reach this worker.")
            for entry in export.sys_path if self.follows_driver else ():
                if entry not in sys.path:
                    sys.path.append(entry)
            payload = export.payload
            pickled = payload.data if payload.data is not None else self._core.objects.decode(payload)
            try:
                function = pickle.loads(pickled)
            except Exception as error:
                function = _failing(error, export.actor_class)
            self._functions[function_id] = function
        return function

    # -- arguments -------------------------------------------------------------------------------------------------

    def arguments(self, owner: Address, push: TaskPush) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call.

        Raises:
            ArgumentFailed: one of them is the result of a task that failed.
            whatever unpickling raises.
        """
        payload = push.arguments
        if payload is None:
            return (), {}
        args, kwargs = self._argument(payload)
        if push.ref_arguments:
            listed = list(args)
            values: dict[bytes, Any] = {}
            for argument in push.ref_arguments:
                if argument.object_id in values:
                    value = values[argument.object_id]
                elif argument.payload.kind == KIND_ERROR:
                    assert argument.payload.data is not None
                    raise ArgumentFailed(from_wire(argument.payload.data))
                else:
                    value = values[argument.object_id] = self._ref_argument(argument, owner)
                if isinstance(argument.key, int):
                    listed[argument.key] = value
                else:
                    kwargs[argument.key] = value
            args = tuple(listed)
        return args, kwargs

    def _ref_argument(self, argument: RefArgument, owner: Address) -> Any:
        while True:
            try:
                return self._argument(argument.payload)
            except ArgumentFailed as failed:
                if not isinstance(failed.error, CopyGone):
                    raise
            payload = self._core.objects.recovery.fetch_argument(argument, owner)
            if payload.kind == KIND_ERROR:
                assert payload.data is not None
                raise ArgumentFailed(from_wire(payload.data))
            argument.payload = payload

    def _argument(self, payload: Payload) -> Any:
        try:
            value = self._core.objects.decode(payload)
        except exceptions.RayError as error:
            raise ArgumentFailed(error) from error
        if isinstance(value, exceptions.RayError):
            raise ArgumentFailed(value)
        return value

    # -- answers ---------------------------------------------------------------------------------------------------

    def succeeded(self, owner: Address, push: TaskPush, result: Any) -> TaskReply:
        """The answer of a task that returned `result`.

        Raises:
            ValueError: not as many values as `num_returns`.
            whatever pickling raises.
        """
        values, missing = split_returns(result, push.num_returns)
        returns: list[Payload] = []
        inside: list[list[ObjectEntry]] = []
        for value in values:
            try:
                payload, inner = self._core.objects.to_payload(serialize(value), owned=False)
            except Exception as error:
                if len(values) == 1:
                    raise
                # The others are as good as ever.
                payload, inner = self.failed(push, _NO_EXTRAS, error).returns[0], None
            returns.append(payload)
            if inner:
                inside.append(inner)  # as it is: it holds the refs
        if missing is not None:
            failure = self.failed(push, _NO_EXTRAS, missing).returns[0]
            returns += [failure] * (push.num_returns - len(values))
        reply = TaskReply(push.task_id, tasks.FINISHED, returns, 0.0, attempt=push.attempt)
        if inside:
            pinned = [entry for inner in inside for entry in inner]
            with self._core.lock:
                self.add_return_pins(push.task_id, owner, pinned)
        reply.unacknowledged = push.task_id in self._return_pins
        return reply

    def add_return_pins(self, task_id: bytes, owner: Address, pinned: list[ObjectEntry]) -> None:
        """Refs inside what a task returned or yielded: pinned until the owner acknowledges its reply (under the
        lock). It may die before it does.
        """
        if owner.worker_id in self._core.dead:
            return
        self._core.watch(owner.worker_id)
        for entry in pinned:
            entry.submitted += 1
        held = self._return_pins.get(task_id)
        if held is None:
            self._return_pins[task_id] = (owner.worker_id, pinned)
        else:
            held[1].extend(pinned)

    def failed(self, push: TaskPush, extras: TaskExtras, error: BaseException) -> TaskReply:
        """The answer of a task that raised `error`.

        Raises:
            WorkerExit: the error was SystemExit.
        """
        core = self._core
        deadlines = core.executor.deadlines
        if deadlines.expired(push.task_id):
            late: TaskReply = deadlines.reply(push, extras.timeout)
            late.unacknowledged = push.task_id in self._return_pins
            return late
        if isinstance(error, KeyboardInterrupt) and core.actor is not None and core.actor.ended:
            raise WorkerExit("exit_actor: interrupted")
        if isinstance(error, KeyboardInterrupt):
            return self.interrupted(push, error)
        if isinstance(error, SystemExit):
            raise WorkerExit(f"exit code {error.code}")
        retryable = False
        if isinstance(error, ArgumentFailed):
            answer = make_dependency_error(
                push.name,
                error.error,
                pid=core.pid,
                ip=core.node_ip,
                proctitle="ray::" + push.name,
                actor_repr=self.actor_repr(),
                actor_id=self.actor_id_hex,
            )
        else:
            retryable = _may_retry(error, extras)
            answer = self._task_error(push, error)
        return self._all_returns(push, answer, tasks.FAILED, retryable)

    def _task_error(self, push: TaskPush, error: BaseException) -> exceptions.RayTaskError:
        answer = make_task_error(
            push.name,
            error,
            pid=self._core.pid,
            ip=self._core.node_ip,
            proctitle="ray::" + push.name,
            actor_repr=self.actor_repr(),
            actor_id=self.actor_id_hex,
        )
        # The task's variables live in the traceback; the error that travels holds none of them.
        error.with_traceback(None)
        return answer

    def interrupted(self, push: TaskPush, error: BaseException) -> TaskReply:
        """The answer of a task that was cancelled while it ran, by `error`."""
        cancelled = exceptions.TaskCancelledError(TaskID(push.task_id)).with_traceback(error.__traceback__)
        return self._all_returns(push, self._task_error(push, cancelled), tasks.CANCELLED, False)

    def cancelled(self, push: TaskPush, received: bool = True) -> TaskReply:
        """The answer of a task that was cancelled, and has not begun or has not noticed; see `task_errors`."""
        error = cancelled(push.task_id, of_actor=push.kind == tasks.ACTOR_TASK, received=received)
        return self._all_returns(push, error, tasks.CANCELLED, False)

    def _all_returns(self, push: TaskPush, error: BaseException, status: int, retryable: bool) -> TaskReply:
        context = current.task_context.get()
        if context is not None and context.task_id == push.task_id:
            context.error = _named(push, error)
        payload = Payload(KIND_ERROR, to_wire(error))
        reply = TaskReply(
            push.task_id, status, [payload] * max(1, push.num_returns), 0.0, retryable, attempt=push.attempt
        )
        reply.unacknowledged = push.task_id in self._return_pins  # of a generator that has yielded refs
        return reply

    # -- refs that stay --------------------------------------------------------------------------------------------

    def note_kept(self, owner: Address, push: TaskPush, reply: TaskReply) -> bool:
        """Which refs from the arguments are still held here: register them, and tell the owner what to keep pinned.

        Under the lock, just before the reply is mailed. The creation of an actor was pushed by the head, which pins
        nothing; the actor's owner lets go of the arguments when it hears that the actor is alive. So that reply leaves
        only when all are registered: then this returns True, and nothing is to be mailed.
        """
        contained: list[Handover] = []
        if push.arguments is not None and push.arguments.contained:
            contained += push.arguments.contained
        for argument in push.ref_arguments or ():
            if argument.payload.contained:
                contained += argument.payload.contained
        if not contained:
            return False
        core = self._core
        core.objects.drain()
        counter = core.objects.counter
        held: dict[bytes, ObjectEntry] = {}
        for item in contained:
            entry = counter.objects.get(item.object_id)
            if entry is not None and entry.owner is not None and not entry.registered and entry.in_use():
                held[item.object_id] = entry
        if held:
            counter.registered_with(held.values(), owner.worker_id)
            others = [entry for entry in held.values() if not entry.registered]
            if others and push.kind == tasks.ACTOR_CREATION_TASK:
                counter.register(others, None, (owner, reply))
                return True
            if others:
                reply.kept = [entry.object_id for entry in others]
                counter.register(others, None, (owner, tasks.ReleasePins(push.task_id)))
        return False

    def on_acknowledge(self, sender: bytes, message: tasks.AcknowledgeReplies) -> None:
        """The caller has registered the refs inside our returns."""
        for task_id in message.task_ids:
            pinned = self._return_pins.pop(task_id, None)
            if pinned is not None:
                self._core.objects.counter.release_submitted(pinned[1])

    def on_process_died(self, worker_id: bytes) -> None:
        """A caller is gone: what was pinned for it is nobody's any more."""
        for task_id, (owner, pinned) in list(self._return_pins.items()):
            if owner == worker_id:
                del self._return_pins[task_id]
                self._core.objects.counter.release_submitted(pinned)


def _failing(error: Exception, what: str) -> Callable[..., Any]:
    """Stands for a function or class that cannot be loaded: every call raises why, once and without a retry."""
    trace = format_task_traceback(error)
    if what:
        text = (
            f"The actor with name {what} failed to import on the worker. This may be because needed library "
            f"dependencies are not installed in the worker environment:\n\n{trace}"
        )
    else:
        text = (
            "The remote function failed to import on the worker. This may be because needed library dependencies are "
            f"not installed in the worker environment or cannot be found from sys.path {sys.path}:\n\n{trace}"
        )

    def function(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(text)

    function.load_error = RuntimeError(text)  # type: ignore[attr-defined]
    return function


def split_returns(result: Any, count: int) -> tuple[list[Any], Exception | None]:
    """The values of a call that was to return `count` of them; those of a generator, and why there are not enough.

    Raises:
        ValueError, TypeError: it returned something else.
    """
    if count == 0:
        return [], None
    if type(result) is GeneratorType:
        return _first_of(result, count)
    if count == 1:
        return [result], None
    if len(result) != count:
        raise ValueError(f"Task returned {len(result)} objects, but num_returns={count}.")
    return list(result), None


def _first_of(items: Iterator[Any], count: int) -> tuple[list[Any], Exception | None]:
    """Up to `count` items, which are as good as ever if the next one fails; without any, the failure is raised."""
    values: list[Any] = []
    try:
        for value in islice(items, count):
            values.append(value)
        if len(values) < count:
            raise ValueError(f"Task returned {len(values)} objects, but num_returns={count}.")
    except Exception as error:
        if not values:
            raise
        return values, error
    return values, None


def _named(push: TaskPush, error: BaseException) -> tuple[str, str]:
    """Ray's name for the error that a task ends with, and the text that the state API shows."""
    error_type = error_type_of(error)
    if error_type == "TASK_CANCELLED" or not isinstance(error, exceptions.RayTaskError):
        return error_type, str(error)
    text = f"User exception:\n{error}"
    return error_type, "CreationTaskError: " + text if push.kind == tasks.ACTOR_CREATION_TASK else text


def _may_retry(error: BaseException, extras: TaskExtras) -> bool:
    if not extras.retry_exceptions:
        return False
    if not extras.retry_exception_types:
        return True
    try:
        kinds = pickle.loads(extras.retry_exception_types)
    except Exception:
        return False
    return isinstance(error, kinds)
