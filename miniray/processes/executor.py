"""The worker's side of a task: receive, queue, run, answer.

Tasks run one after the other in the main thread, which leads the reactor while it has nothing to run. While a long task runs, the
standby thread leads: it answers control messages, hands back what waits behind a blocked task, and interrupts the running one
when it is cancelled.

Replies leave at once when nothing else is queued. Otherwise they are collected while the functions that follow are known to be short;
before a function of unknown or long duration everything collected is sent, so that no result waits behind a long task.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from miniray import exceptions
from miniray.messages import control, tasks
from miniray.messages.objects import KIND_ERROR, Address, Handover, Payload
from miniray.messages.tasks import FunctionExport, TaskExtras, TaskPush, TaskReply
from miniray.processes import current
from miniray.processes.reactor import Waiter
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.state_machines.task_submission import UNKNOWN, FunctionStats
from miniray.system import process_title
from miniray.system.serialization import deserialize, serialize
from miniray.task_errors import from_wire, make_dependency_error, make_task_error, to_wire

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.worker_output import WorkerOutput

#: A function estimated longer than this (seconds) does not start before earlier replies are sent.
SHORT = 0.001

_NO_EXTRAS = TaskExtras()
_decode_extras = msgspec.msgpack.Decoder(TaskExtras).decode
_perf_counter = time.perf_counter


class Executor:
    """Runs the normal tasks that owners push to this worker."""

    def __init__(self, core: CoreWorker, output: WorkerOutput) -> None:
        self._core = core
        self._output = output
        self._queue: deque[tuple[Address, TaskPush]] = deque()
        self._work = Waiter()
        self._functions: dict[bytes, Callable[..., Any]] = {}
        self._exports: dict[bytes, FunctionExport] = {}
        self._stats: dict[bytes, FunctionStats] = {}
        self._calls: dict[bytes, int] = {}
        self._running: TaskPush | None = None
        self._running_for: Address | None = None
        self._interruptible = b""  #: the task whose user code is on the main thread's stack now
        self._interrupting = b""  #: the task that is to be interrupted
        self._blocked = 0
        self._return_pins: dict[bytes, tuple[bytes, list[ObjectEntry]]] = {}
        self._main_thread = threading.get_ident()
        self._exit_reason: str | None = None
        self._known_job = b""
        self._title = ""  #: the task named in the process title; "": idle
        self.adopt_job: Callable[[bytes], None] = lambda job_id: None
        core.executor = self
        core.add_handlers(
            {
                tasks.FunctionExport: self.on_function_export,
                tasks.TaskPush: self.on_push,
                tasks.StealTasks: self.on_steal,
                tasks.CancelTask: self.on_cancel,
                tasks.AcknowledgeReplies: self.on_acknowledge,
                control.Exit: self.on_exit,
            }
        )

    # -- the main loop ---------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Run tasks until told to leave; returns the reason."""
        core = self._core
        signal.signal(signal.SIGINT, self._on_sigint)
        while True:
            with core.lock:
                if self._exit_reason is not None:
                    return self._exit_reason
                if self._queue:
                    owner, push = self._queue.popleft()
                    waiter = None
                else:
                    waiter = self._work = Waiter()
            if waiter is None:
                self.execute(owner, push)
                continue
            try:
                core.reactor.wait(waiter)
            except KeyboardInterrupt:
                pass  # a cancellation that came too late
            if core.closed:
                return "closed"

    def settle(self) -> None:
        """Before the leader blocks, and after what had piled up was sent (under the lock): relay what was printed."""
        self._output.relay()

    def idle(self) -> None:
        """Nothing has happened for some milliseconds (under the lock)."""
        if self._title and self._running is None:
            self._title = ""
            process_title.set_title("ray::IDLE")

    # -- messages (under the lock) -------------------------------------------------------------------------------------

    def on_function_export(self, sender: bytes, message: FunctionExport) -> None:
        """A function that later pushes name."""
        self._exports.setdefault(message.function_id, message)
        self._core.tasks.note_export(message)

    def on_push(self, sender: bytes, message: TaskPush) -> None:
        """A task to run."""
        owner = self._core.peer(sender)
        if owner is None:
            return
        if self._blocked:
            self._core.post(owner, tasks.TasksReturned([message.task_id], True), True)
            return
        self._queue.append((owner, message))
        self._work.finish()

    def on_steal(self, sender: bytes, message: tasks.StealTasks) -> None:
        """The owner wants back what has not begun, last ones first."""
        stolen: list[bytes] = []
        kept: deque[tuple[Address, TaskPush]] = deque()
        while self._queue:
            owner, push = self._queue.pop()
            if owner.worker_id == sender and len(stolen) < message.count:
                stolen.append(push.task_id)
            else:
                kept.appendleft((owner, push))
        self._queue = kept
        owner_address = self._core.peer(sender)
        if owner_address is not None:
            stolen.reverse()
            self._core.post(owner_address, tasks.TasksReturned(stolen, False), True)

    def on_cancel(self, sender: bytes, message: tasks.CancelTask) -> None:
        """The owner no longer wants this task."""
        for item in self._queue:
            owner, push = item
            if push.task_id == message.task_id:
                self._queue.remove(item)
                reply = TaskReply(push.task_id, tasks.CANCELLED, [], 0.0, attempt=push.attempt)
                self._core.post(owner, reply, True)
                return
        running = self._running
        if running is None or running.task_id != message.task_id:
            return
        if message.recursive:
            self._core.tasks.cancel_children(message.task_id, message.force)
        if message.force:
            self._core.flush()
            self._output.relay()
            self._core.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self._interrupting = message.task_id
        self._interrupt_main_thread()

    def on_acknowledge(self, sender: bytes, message: tasks.AcknowledgeReplies) -> None:
        """The caller has registered the refs inside our returns."""
        for task_id in message.task_ids:
            pinned = self._return_pins.pop(task_id, None)
            if pinned is not None:
                self._core.objects.counter.release_submitted(pinned[1])

    def on_process_died(self, worker_id: bytes) -> None:
        """An owner is gone: its tasks and what we pinned for it are nobody's any more."""
        self._queue = deque(item for item in self._queue if item[0].worker_id != worker_id)
        for task_id, (owner, pinned) in list(self._return_pins.items()):
            if owner == worker_id:
                del self._return_pins[task_id]
                self._core.objects.counter.release_submitted(pinned)

    def on_exit(self, sender: bytes, message: control.Exit) -> None:
        """The head wants this worker to leave."""
        if message.force:
            os.kill(os.getpid(), signal.SIGKILL)
        self.leave(message.reason)

    def leave(self, reason: str) -> None:
        """End the main loop after the present task (under the lock)."""
        if self._exit_reason is None:
            self._exit_reason = reason or "exit"
            self._work.finish()

    # -- interrupting --------------------------------------------------------------------------------------------------

    def _interrupt_main_thread(self) -> None:
        # `interrupt_main` sets a flag that a sleeping system call does not see; a real signal ends the sleep.
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(self._main_thread, signal.SIGINT)
        else:
            import _thread

            _thread.interrupt_main()

    def _on_sigint(self, number: int, frame: Any) -> None:
        if self._interrupting and self._interrupting == self._interruptible:
            self._core.reactor._on_sigint(number, frame)

    # -- blocking --------------------------------------------------------------------------------------------------

    def may_block(self) -> bool:
        """Whether this thread runs a task whose CPU could be lent while it waits."""
        return self._running is not None and threading.get_ident() == self._main_thread

    def block(self) -> None:
        """The running task waits: lend its CPU, and hand back what is queued behind it."""
        core = self._core
        with core.lock:
            self._blocked += 1
            if self._blocked > 1:
                return
            core.post(core.head, control.WorkerBlocked(True), True)
            by_owner: dict[bytes, tuple[Address, list[bytes]]] = {}
            for owner, push in self._queue:
                by_owner.setdefault(owner.worker_id, (owner, []))[1].append(push.task_id)
            self._queue.clear()
            for owner, ids in by_owner.values():
                core.post(owner, tasks.TasksReturned(ids, True), True)

    def unblock(self) -> None:
        """The running task goes on."""
        core = self._core
        with core.lock:
            self._blocked -= 1
            if self._blocked == 0 and not core.closed:
                core.post(core.head, control.WorkerBlocked(False), True)

    # -- running ---------------------------------------------------------------------------------------------------

    def execute(self, owner: Address, push: TaskPush) -> None:
        """Run one task and mail the answer."""
        core = self._core
        if core._dirty and self._estimate(push) > SHORT:
            with core.lock:
                core.flush()
        extras = _decode_extras(push.options) if push.options else _NO_EXTRAS
        context = current.TaskContext(push.task_id, push.name, push.depth, attempt=push.attempt)
        context.resources = extras.resources
        self._running = push
        if push.name != self._title:
            self._title = push.name
            process_title.set_title("ray::" + push.name)
        self._output.watch(push.name)
        token = current.task_context.set(context)
        start = _perf_counter()
        try:
            reply = self._run(owner, push, extras, context)
        except _WorkerExit as leaving:
            with core.lock:
                self._output.relay(push.name)
                core.flush()
                self.leave(leaving.reason)
            return
        finally:
            self._interruptible = b""
            self._running = None
            current.task_context.reset(token)
        core.reactor.interrupt_pending = False
        self._interrupting = b""
        reply.duration = _perf_counter() - start
        reply.attempt = push.attempt
        if extras.max_calls:
            calls = self._calls[push.function_id] = self._calls.get(push.function_id, 0) + 1
            reply.worker_exiting = calls >= extras.max_calls
        with core.lock:
            if self._output.dirty:
                self._output.relay(push.name)
            if push.ref_arguments or (push.arguments is not None and push.arguments.contained):
                self._note_kept(owner, push, reply)
            core.post(owner, reply, not self._queue)
            if reply.worker_exiting:
                self._hand_back_queue()
                self.leave("max_calls")
        # What nobody waits for comes after the reply.
        stats = self._stats.get(push.function_id)
        if stats is None:
            stats = self._stats[push.function_id] = FunctionStats()
        stats.observe(reply.duration)

    def _estimate(self, push: TaskPush) -> float:
        stats = self._stats.get(push.function_id)
        return UNKNOWN if stats is None else stats.estimate

    def _hand_back_queue(self) -> None:
        for owner, push in self._queue:
            self._core.post(owner, tasks.TasksReturned([push.task_id], False))
        self._queue.clear()

    def _run(self, owner: Address, push: TaskPush, extras: TaskExtras, context: current.TaskContext) -> TaskReply:
        core = self._core
        result: Any = None
        args: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        try:
            if push.job_id != self._known_job:
                self.adopt_job(push.job_id)
                self._known_job = push.job_id
            function = self._function(push.function_id)
            context.function = function
            self._interruptible = push.task_id
            args, kwargs = self._arguments(push)
            result = function(*args, **kwargs)
            self._interruptible = b""
            del args, kwargs
            values = _split_returns(result, push)
            del result
            return self._reply(owner, push, values)
        except KeyboardInterrupt:
            return TaskReply(push.task_id, tasks.CANCELLED, [], 0.0)
        except SystemExit as error:
            raise _WorkerExit(f"exit code {error.code}") from None
        except _ArgumentFailed as failed:
            error_ = make_dependency_error(push.name, failed.error, pid=core.pid, ip=core.node_ip)
            return self._failure(push, error_, False)
        except BaseException as error:
            self._interruptible = b""
            retryable = _may_retry(error, extras)
            # The task's variables stay alive in the traceback; the error that travels holds none of them.
            task_error = make_task_error(push.name, error, pid=core.pid, ip=core.node_ip, proctitle="ray::" + push.name)
            error.with_traceback(None)  # not by assignment: a frozen dataclass refuses that
            return self._failure(push, task_error, retryable)

    def _failure(self, push: TaskPush, error: BaseException, retryable: bool) -> TaskReply:
        payload = Payload(KIND_ERROR, to_wire(error))
        returns = [payload] * push.num_returns
        return TaskReply(push.task_id, tasks.FAILED, returns, 0.0, retryable)

    def _function(self, function_id: bytes) -> Callable[..., Any]:
        function = self._functions.get(function_id)
        if function is None:
            export = self._exports.get(function_id)
            if export is None:
                raise exceptions.RaySystemError(f"The function {function_id.hex()} did not reach this worker.")
            for entry in export.sys_path:
                if entry not in sys.path:
                    sys.path.append(entry)
            payload = export.payload
            pickled = payload.data if payload.data is not None else self._core.objects.decode(payload)
            try:
                function = pickle.loads(pickled)
            except Exception as error:
                function = _failing(error)
            self._functions[function_id] = function
        return function

    def _arguments(self, push: TaskPush) -> tuple[tuple[Any, ...], dict[str, Any]]:
        payload = push.arguments
        if payload is None:
            return (), {}
        args, kwargs = (
            deserialize(payload.kind, payload.data) if payload.data is not None else self._core.objects.decode(payload)
        )
        if push.ref_arguments:
            listed = list(args)
            values: dict[bytes, Any] = {}
            for argument in push.ref_arguments:
                if argument.object_id in values:
                    value = values[argument.object_id]
                elif argument.payload.kind == KIND_ERROR:
                    assert argument.payload.data is not None
                    raise _ArgumentFailed(from_wire(argument.payload.data))
                else:
                    value = values[argument.object_id] = self._core.objects.decode(argument.payload)
                if isinstance(argument.key, int):
                    listed[argument.key] = value
                else:
                    kwargs[argument.key] = value
            args = tuple(listed)
        return args, kwargs

    def _reply(self, owner: Address, push: TaskPush, values: list[Any]) -> TaskReply:
        returns: list[Payload] = []
        pinned: list[ObjectEntry] = []
        try:
            for value in values:
                serialized = serialize(value)
                payload, inner = self._core.objects.to_payload(serialized)
                returns.append(payload)
                if inner:
                    pinned += inner
        except BaseException:
            with self._core.lock:
                for payload in returns:
                    self._core.objects.discard(payload)
            raise
        reply = TaskReply(push.task_id, tasks.FINISHED, returns, 0.0)
        if pinned:
            reply.unacknowledged = True
            with self._core.lock:
                for entry in pinned:
                    entry.submitted += 1
                self._return_pins[push.task_id] = (owner.worker_id, pinned)
        return reply

    def _note_kept(self, owner: Address, push: TaskPush, reply: TaskReply) -> None:
        """Which refs from the arguments are still held here: register them, and tell the owner what to keep pinned."""
        contained: list[Handover] = []
        if push.arguments is not None and push.arguments.contained:
            contained += push.arguments.contained
        for argument in push.ref_arguments or ():
            if argument.payload.contained:
                contained += argument.payload.contained
        if not contained:
            return
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
            if others:
                reply.kept = [entry.object_id for entry in others]
                counter.register(others, None, (owner, tasks.ReleasePins(push.task_id)))


class _ArgumentFailed(Exception):
    """An argument of the task holds an error: the task does not run."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _WorkerExit(BaseException):
    """User code asked the process to exit."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _failing(error: Exception) -> Callable[..., Any]:
    """Stands for a function that cannot be loaded: every call raises why."""

    def function(*args: Any, **kwargs: Any) -> Any:
        raise error

    return function


def _split_returns(result: Any, push: TaskPush) -> list[Any]:
    count = push.num_returns
    if count == 1:
        return [result]
    if count == 0:
        if result is not None:
            import logging

            logging.getLogger("miniray").warning(
                "Task with num_returns=0 returned a value of type %s, which is dropped.", type(result).__name__
            )
        return []
    try:
        values = list(result)
    except TypeError:
        raise ValueError(
            f"Functions with @ray.remote(num_returns={count}) must return a list or tuple of {count} values, "
            f"not {type(result).__name__}."
        ) from None
    if len(values) != count:
        raise ValueError(f"Task returned {len(values)} objects, but num_returns={count}.")
    return values


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
