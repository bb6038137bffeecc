"""The actor's side of its calls: one instance, and the threads that its methods run in.

Three kinds, as in Ray:

* a **plain** actor runs its calls one after the other in the worker's main thread, which has no event loop, so that
  `asyncio.run` works in it;
* a **threaded** actor (`max_concurrency` > 1, or concurrency groups) has a pool of threads per group, which live as
  long as it;
* an **async** actor (any `async def` method) has one event loop thread per group; its plain methods run there, too.

Calls of one caller begin in the order of their numbers (`state_machines.task_ordering`); only a plain actor promises
order. The reply of an async call leaves from its loop's thread, all those of one turn of the loop together.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from miniray.exceptions import AsyncioActorExit
from miniray.messages import tasks
from miniray.messages.objects import Address
from miniray.messages.tasks import TaskPush, TaskReply
from miniray.options import strict_mode
from miniray.processes import current
from miniray.processes.concurrency_groups import EventLoopGroup, Group, ThreadGroup
from miniray.processes.task_runner import WorkerExit, extras_of
from miniray.state_machines.task_ordering import CallerStream
from miniray.system import user_log
from miniray.task_errors import cancelled

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.executor import Executor

DEFAULT_GROUP = "_default"
SYSTEM_GROUP = "_ray_system"
#: Concurrent calls of an async actor that says nothing else.
ASYNC_CONCURRENCY = 1000

_BLOCKING = {
    "get": "Using blocking ray.get inside async actor. This blocks the event loop. Please use `await` on object ref "
    "with asyncio.gather if you want to yield execution to the event loop instead.",
    "wait": "Using blocking ray.wait inside async method. This blocks the event loop. Please use `await` on object ref "
    "with asyncio.wait. ",
}

Call = tuple[Address, TaskPush]


class ActorExecutor:
    """The actor that lives in this worker."""

    def __init__(self, core: CoreWorker, executor: Executor, creation: TaskPush) -> None:
        self._core = core
        self._executor = executor
        self._creation = creation
        extras = extras_of(creation)
        self.actor_id = creation.task_id[8:24]
        self.class_name = creation.name.rpartition(".")[0]
        self.repr_name = ""  #: its `repr`, if its class has one of its own
        self.name = extras.actor_name
        self.task_events = extras.task_events
        self.resources = extras.resources
        self.accelerator_ids = extras.accelerator_ids
        self.placement_group_id = extras.placement_group_id
        self.captures_children = extras.captures_children
        self.restarted = creation.attempt > 0
        self.instance: Any = None
        self._constructed = False
        self.is_async = False
        self.ended = False
        self._exiting: dict[bytes, str] = {}  #: coroutine calls that asked for the end, and why
        self._ordered = not extras.out_of_order
        self._max_concurrency = extras.max_concurrency
        self._group_sizes = dict(extras.concurrency_groups)
        self._method_groups: dict[str, str] = {}
        self._coroutines: set[str] = set()  #: methods that are `async def`
        self._groups: dict[str, Group] = {}
        self._streams: dict[bytes, CallerStream[Call]] = {}
        self.queued: dict[bytes, Call] = {}  #: accepted and not begun
        self.contexts: dict[bytes, current.TaskContext] = {}  #: running
        self._threads: dict[bytes, int] = {}  #: of running calls that have a deadline
        self._warned: set[str] = set()
        self._finishing: str | None = None
        core.actor = self
        executor.show_as(self.class_name)
        runner = executor.runner
        runner.actor_id_hex = self.actor_id.hex()
        runner.actor_repr = self.safe_repr

    # -- creation ----------------------------------------------------------------------------------------------------

    def create(self, *args: Any, **kwargs: Any) -> None:
        """Make the instance (in the main thread; an async actor's constructor runs on its event loop)."""
        cls = self._executor.runner.load(self._creation.function_id)
        error = getattr(cls, "load_error", None)
        if error is not None:
            raise error
        self.is_async = has_async_methods(cls)
        for name in dir(cls):
            method = inspect.getattr_static(cls, name, None)
            group = getattr(method, "__ray_concurrency_group__", None)
            if group is not None:
                self._method_groups[name] = group
            if inspect.iscoroutinefunction(getattr(method, "__func__", method)):
                self._coroutines.add(name)
        self._start_groups()

        def construct() -> None:
            self.instance = cls.__new__(cls)
            self.instance.__init__(*args, **kwargs)

        if self.is_async:
            loop_group = self._groups[DEFAULT_GROUP]
            assert isinstance(loop_group, EventLoopGroup)
            loop_group.run_and_wait(construct, current.task_context.get())
        else:
            construct()
        if cls.__repr__ is not object.__repr__:
            self.repr_name = self.safe_repr() or ""
            self._executor.show_as(self.repr_name or self.class_name)
        self._constructed = True

    @property
    def is_created(self) -> bool:
        """Whether `__init__` has returned, and the head was told so (as far as that is known here)."""
        return self._constructed and self._executor.running is not self._creation

    @property
    def is_present(self) -> bool:
        """Whether there is an actor, or is going to be: not after `__init__` raised."""
        return self._constructed or self._executor.running is self._creation

    def _start_groups(self) -> None:
        size = self._max_concurrency
        if self.is_async:
            self._add_loop(DEFAULT_GROUP, size or ASYNC_CONCURRENCY)
            for name, group_size in self._group_sizes.items():
                self._add_loop(name, group_size)
        elif size > 1 or self._group_sizes:
            self._groups[DEFAULT_GROUP] = ThreadGroup(self._core, DEFAULT_GROUP, size or 1, self._run_in_thread)
            for name, group_size in self._group_sizes.items():
                self._groups[name] = ThreadGroup(self._core, name, group_size, self._run_in_thread)
        self._ordered = self._ordered and not self._groups

    def _add_loop(self, name: str, size: int) -> None:
        self._groups[name] = EventLoopGroup(self._core, name, size, self._run_in_loop, self._flush_from_loop)

    def safe_repr(self) -> str | None:
        """The instance's `repr`, for error texts."""
        if self.instance is None:
            return None
        try:
            return repr(self.instance)
        except Exception:
            return f"<{self.class_name}>"

    # -- calls in (under the lock) -------------------------------------------------------------------------------------

    def arrived(self, owner: Address, push: TaskPush) -> None:
        """A call came."""
        stream = self._streams.get(owner.worker_id)
        if stream is None:
            stream = self._streams[owner.worker_id] = CallerStream(self._ordered)
        stream.client_processed_up_to = push.client_processed_up_to
        for call in stream.arrive(push.sequence_number, (owner, push)):
            self._begin(call)

    def caller_left(self, worker_id: bytes) -> None:
        """This process will not call any more, and all its calls have come."""
        self._streams.pop(worker_id, None)

    def positions(self) -> dict[str, dict[str, int]]:
        """Where each of its callers is: calls begun, calls that came before their turn, answers that the caller had."""
        return {
            caller.hex(): {
                "sequence_number": stream.expected,
                "waiting": stream.waiting(),
                "client_processed_up_to": stream.client_processed_up_to,
            }
            for caller, stream in self._streams.items()
        }

    def skipped(self, sender: bytes, number: int) -> None:
        """A caller will not use that number."""
        stream = self._streams.get(sender)
        if stream is None:
            stream = self._streams[sender] = CallerStream(self._ordered)
        for call in stream.skip(number):
            self._begin(call)

    def _begin(self, call: Call) -> None:
        owner, push = call
        if not self._groups:
            self._executor.enqueue(owner, push)
            return
        self.queued[push.task_id] = call
        self._group_of(push).submit(call)

    def _group_of(self, push: TaskPush) -> Group:
        name = extras_of(push).concurrency_group or self._method_groups.get(push.method, DEFAULT_GROUP)
        group = self._groups.get(name)
        if group is None and name == SYSTEM_GROUP:
            group = self._groups[name] = ThreadGroup(self._core, name, 1, self._run_in_thread)
        return group if group is not None else self._groups[DEFAULT_GROUP]

    def finish(self, reason: str) -> None:
        """No handle is left: leave once what was accepted has run (under the lock)."""
        self._finishing = reason
        self.check_finished()

    def check_finished(self) -> None:
        """Leave if nothing is left to be done (under the lock)."""
        if self._finishing is None or self.queued or self.contexts:
            return
        if self._executor.is_quiet():
            self._executor.leave(self._finishing)

    # -- methods -----------------------------------------------------------------------------------------------------

    def method(self, push: TaskPush) -> Callable[..., Any]:
        """The callable of a call."""
        name = push.method
        if name == "__ray_ready__":
            return _ready
        if name == "__ray_call__":
            return self._call_function
        if name == "__ray_terminate__":
            return self._terminate
        method: Callable[..., Any] = getattr(self.instance, name)
        return method

    def _call_function(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(self.instance, *args, **kwargs)

    def _terminate(self) -> None:
        self.exit("exit_actor: __ray_terminate__")

    def exit(self, reason: str) -> None:
        """End the actor in good order, now; a coroutine that asks for it may go to its end first, as in Ray."""
        context = current.task_context.get()
        with self._core.lock:
            if self.is_async and context is not None and context.task_id in self.contexts:
                self._exiting[context.task_id] = reason
            else:
                self.ended = True
                self._executor.leave(reason)
        if self.is_async:
            raise AsyncioActorExit
        raise SystemExit(0)

    # -- running in threads --------------------------------------------------------------------------------------------

    def _context(self, push: TaskPush, function: Any) -> current.TaskContext:
        context = current.TaskContext(push.task_id, push.name, push.depth, attempt=push.attempt)
        context.actor_id = self.actor_id
        context.resources = self.resources
        context.accelerator_ids = self.accelerator_ids
        if self.placement_group_id:
            context.enter_group(self.placement_group_id, self.captures_children)
        context.function = function
        return context

    def _take(self, call: Call) -> bool:
        """Begin a queued call. False: it was cancelled meanwhile."""
        return self.queued.pop(call[1].task_id, None) is not None

    def _enter(self, owner: Address, push: TaskPush) -> current.TaskContext:
        """A call of a concurrent actor begins in this thread."""
        context = self.contexts[push.task_id] = self._context(push, None)
        context.push, context.started = push, time.perf_counter()
        timeout = extras_of(push).timeout
        if timeout:
            self._threads[push.task_id] = threading.get_ident()
            self._executor.deadlines.begin(owner, push, timeout)
        return context

    def _exit(self, push: TaskPush) -> None:
        """It has ended."""
        self.contexts.pop(push.task_id, None)
        if self._threads.pop(push.task_id, None) is not None:
            self._executor.deadlines.end(push.task_id)

    def _run_in_thread(self, call: Call) -> None:
        """One call of a threaded actor (in a thread of its group)."""
        owner, push = call
        if not self._take(call):
            return
        start = time.perf_counter()
        context = self._enter(owner, push)
        token = current.task_context.set(context)
        runner = self._executor.runner
        try:
            try:
                context.function = function = self.method(push)
                args, kwargs = runner.arguments(owner, push)
                result = function(*args, **kwargs)
                del args, kwargs
                extras = extras_of(push)
                if extras.generator:
                    reply = runner.generators.run(owner, push, extras, result)
                elif context.cancelled:
                    reply = runner.cancelled(push)
                else:
                    reply = runner.succeeded(owner, push, result)
                del result
            except BaseException as error:
                reply = runner.failed(push, extras_of(push), error)
        except WorkerExit as leaving:
            self._leave(leaving.reason)
            return
        finally:
            current.task_context.reset(token)
            self._exit(push)
        reply.duration = time.perf_counter() - start
        self._answer(owner, context, reply, True)

    def _answer(self, owner: Address, context: current.TaskContext, reply: TaskReply, urgent: bool) -> None:
        core, push = self._core, context.push
        observed = self.task_events
        if observed and reply.status == tasks.FAILED:
            # Before the reply: who gets the error may kill this process at once.
            self._executor.events.executed(push, context, reply.duration, tasks.FAILED)
            observed = False
        with core.lock:
            self._executor.relay_output(push)
            if push.ref_arguments or (push.arguments is not None and push.arguments.contained):
                self._executor.runner.note_kept(owner, push, reply)
            core.post(owner, reply, urgent)
            if self._finishing is not None:
                self.check_finished()
        if observed:
            self._executor.events.executed(push, context, reply.duration, reply.status)

    def _leave(self, reason: str) -> None:
        with self._core.lock:
            if not self.ended:
                self.ended = True
                self._executor.leave(reason)

    # -- running on event loops ----------------------------------------------------------------------------------------

    async def _run_in_loop(self, call: Call, group: EventLoopGroup) -> None:
        """One call of an async actor (a task of its group's loop)."""
        import asyncio  # loaded with the loop

        owner, push = call
        if not self._take(call):
            return
        start = time.perf_counter()
        context = self._enter(owner, push)
        current.task_context.set(context)
        runner = self._executor.runner
        try:
            try:
                context.function = function = self.method(push)
                args, kwargs = runner.arguments(owner, push)
                result = function(*args, **kwargs)
                del args, kwargs
                extras = extras_of(push)
                if extras.generator and hasattr(result, "__anext__"):
                    reply = await runner.generators.run_async(owner, push, extras, result)
                elif extras.generator:
                    reply = runner.generators.run(owner, push, extras, result)
                else:
                    if inspect.isawaitable(result) and (push.method in self._coroutines or not strict_mode()):
                        result = await result
                    if context.cancelled:  # and it went on
                        raise asyncio.CancelledError
                    reply = runner.succeeded(owner, push, result)
                del result
            except BaseException as error:
                if push.task_id in self._exiting:
                    raise WorkerExit(self._exiting.pop(push.task_id)) from None
                if not self._executor.deadlines.expired(push.task_id) and (
                    context.cancelled or isinstance(error, asyncio.CancelledError)
                ):
                    reply = runner.interrupted(push, error)
                else:
                    reply = runner.failed(push, extras_of(push), error)
            if push.task_id in self._exiting:
                raise WorkerExit(self._exiting.pop(push.task_id))
        except WorkerExit as leaving:
            self._leave(leaving.reason)
            return
        finally:
            self._exit(push)
        reply.duration = time.perf_counter() - start
        self._answer(owner, context, reply, group.alone())

    def _flush_from_loop(self) -> None:
        with self._core.lock:
            self._core.flush()

    # -- cancelling ----------------------------------------------------------------------------------------------------

    def cancel(self, sender: bytes, message: tasks.CancelTask) -> bool:
        """Cancel a call that is queued here or runs here (under the lock). False: there is no such call."""
        call = self.queued.pop(message.task_id, None)
        if call is not None:
            owner, push = call
            self._core.events.cancelled_in_queue(push, cancelled(push.task_id, of_actor=True, received=False))
            self._core.post(owner, self._executor.runner.cancelled(push, False), True)
            return True
        context = self.contexts.get(message.task_id)
        if context is None:
            return False
        if message.recursive:
            self._core.tasks.cancel_children(message.task_id, False)
        context.cancelled = True
        if self.is_async:
            for group in self._groups.values():
                if isinstance(group, EventLoopGroup):
                    group.cancel(message.task_id)
        return True

    def interrupt(self, task_id: bytes) -> None:
        """End a running call of a concurrent actor from outside (under the lock)."""
        if self.is_async:
            for group in self._groups.values():
                if isinstance(group, EventLoopGroup):
                    group.cancel(task_id)
            return
        thread = self._threads.get(task_id)
        if thread is not None:
            import ctypes  # only then

            # It comes at the next bytecode of that thread; one that sits in a system call goes on sitting.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))

    def warn_of_blocking(self, what: str) -> None:
        """Say once that a blocking `get` or `wait` holds up the event loop that it is called on."""
        if not self.is_async or what in self._warned:
            return
        import asyncio  # loaded with the loop

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        self._warned.add(what)
        user_log.say(user_log.WARNING, _BLOCKING[what])

    # -- the end -----------------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Before an orderly exit: the user's `__ray_shutdown__`, whose errors are ignored."""
        hook = getattr(self.instance, "__ray_shutdown__", None)
        if hook is not None:
            try:
                hook()
            except Exception:
                pass

    def stop_groups(self) -> None:
        """End the threads of a concurrent actor, whose process lives on."""
        for group in self._groups.values():
            group.stop()


def _ready() -> bool:
    return True


def has_async_methods(cls: type) -> bool:
    """Whether any method is `async def` (a coroutine function or an async generator)."""
    for name in dir(cls):
        method = inspect.getattr_static(cls, name, None)
        if isinstance(method, (staticmethod, classmethod)):
            method = method.__func__
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            return True
    return False
