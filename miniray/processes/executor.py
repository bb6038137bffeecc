"""The worker's side of a task: receive, queue, run, answer.

Tasks run one after the other in the main thread, which leads the reactor while it has nothing to run. While a long
task runs, the standby thread leads: it answers control messages, hands back what waits behind a blocked task, and
interrupts the running one when it is cancelled.

Replies leave at once when nothing else is queued. Otherwise they are collected while the functions that follow are
known to be short; before a function of unknown or long duration everything collected is sent, so that no result waits
behind a long task.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from miniray.messages import control, tasks
from miniray.messages.objects import Address
from miniray.messages.tasks import TaskPush, TaskReply
from miniray.processes import current
from miniray.processes.actor_executor import ActorExecutor
from miniray.processes.deadlines import Deadlines
from miniray.processes.reactor import Waiter
from miniray.processes.task_environment import TaskEnvironment
from miniray.processes.task_runner import TaskRunner, WorkerExit, extras_of
from miniray.processes.worker_host import ProcessHost, WorkerHost
from miniray.state_machines.task_submission import UNKNOWN, FunctionStats
from miniray.system import user_log
from miniray.system.task_record import TaskRecord
from miniray.task_errors import cancelled

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.worker_output import WorkerOutput

#: A function estimated longer than this (seconds) does not start before earlier replies are sent.
SHORT = 0.001

#: Seconds that a call may hold up others before it is named in a warning.
STUCK = float(os.environ.get("MINIRAY_STUCK_CALL_WARNING_S", "60"))

_perf_counter = time.perf_counter


class Executor:
    """Runs the normal tasks that owners push to this worker.

    Args:
        core: the worker's.
        output: what relays the worker's output.
        host: what the worker lives in; a process of its own by default.
    """

    def __init__(self, core: CoreWorker, output: WorkerOutput, host: WorkerHost | None = None) -> None:
        self._core = core
        self.host = host if host is not None else ProcessHost()
        self._output = output
        self.queue: deque[tuple[Address, TaskPush]] = deque()
        self._work = Waiter()
        self.runner = TaskRunner(core)
        self.actor: ActorExecutor | None = None
        self._stats: dict[bytes, FunctionStats] = {}
        self._calls: dict[bytes, int] = {}
        self.running: TaskPush | None = None
        self._interruptible = b""  #: the task whose user code is on the main thread's stack now
        self._interrupting = b""  #: the task that is to be interrupted
        self._blocked = 0
        self._main_thread = threading.get_ident()
        self._exit_reason: str | None = None
        self.events = core.events
        self.deadlines = Deadlines(core, self)
        self._environment = TaskEnvironment()
        self._environment_set = False  #: it is not that of a plain one-CPU task
        self._draining: str | None = None
        self.began = 0.0
        self._told_stuck = b""
        self.context: current.TaskContext | None = None  #: of the task that runs in the main thread
        self._title = ""  #: the task named in the process title; "": idle
        self._record = TaskRecord(core.store_dir, core.worker_id)
        core.executor = self
        core.add_handlers(
            {
                tasks.FunctionExport: self.on_function_export,
                tasks.TaskPush: self.on_push,
                tasks.StealTasks: self.on_steal,
                tasks.CancelTask: self.on_cancel,
                tasks.AcknowledgeReplies: self.runner.on_acknowledge,
                tasks.SkipSequence: self.on_skip,
                control.ExitActor: self.on_exit_actor,
                control.Exit: self.on_exit,
            }
        )

    # -- the main loop ---------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Run tasks until told to leave; returns the reason."""
        core = self._core
        self.host.serve(self)
        while True:
            with core.lock:
                if self._exit_reason is not None:
                    return self._exit_reason
                if self.queue:
                    owner, push = self.queue.popleft()
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

    def close(self) -> None:
        """The worker is at its end, and its process is not."""
        self._record.close()

    def is_quiet(self) -> bool:
        """Whether the main thread has nothing to run."""
        return not self.queue and self.running is None

    def is_blocked(self) -> bool:
        """Whether the task that runs waits for others, and has lent its CPU."""
        return self._blocked > 0

    def relay_output(self, push: TaskPush) -> None:
        """Mail what a call has printed, before its reply (under the lock)."""
        if self._output.dirty:
            self._output.relay(push.name)

    def show_as(self, name: str) -> None:
        """What this process prints comes from an actor of that name."""
        self._output.actor = name

    def settle(self) -> None:
        """Before the leader blocks, and after what had piled up was sent (under the lock): relay what was printed."""
        if self._draining is not None and self._exit_reason is None and not self._core.owns_anything():
            self.leave(self._draining)
        self._output.relay()

    def idle(self) -> None:
        """Nothing has happened for some milliseconds (under the lock)."""
        self.events.flush()
        if self.running is None and self.actor is None:
            # What the last task has leased for its children: others may wait for it.
            self._core.tasks.submission.give_back_idle()
        if self._title and self.running is None:
            self._title = ""
            self.host.show(self.actor.class_name if self.actor is not None else "IDLE")

    # -- messages (under the lock) -------------------------------------------------------------------------------------

    def on_function_export(self, sender: bytes, message: tasks.FunctionExport) -> None:
        """A function or class that later pushes name."""
        self.runner.add_export(message)

    def on_push(self, sender: bytes, message: TaskPush) -> None:
        """A task to run."""
        owner = self._core.peer(sender)
        if owner is None:
            return
        if message.kind == tasks.ACTOR_TASK:
            if self.actor is None:
                reply = TaskReply(message.task_id, tasks.REFUSED, [], 0.0, error="This worker is no actor.")
                self._core.post(owner, reply, True)
            else:
                self.actor.arrived(owner, message)
            return
        if self._blocked:
            self._core.post(owner, tasks.TasksReturned([message.task_id], True), True)
            return
        self.enqueue(owner, message)

    def enqueue(self, owner: Address, push: TaskPush) -> None:
        """Let the main thread run this after what waits already (under the lock)."""
        self.queue.append((owner, push))
        self._work.finish()

    def on_skip(self, sender: bytes, message: tasks.SkipSequence) -> None:
        """A caller of the actor will not use that sequence number."""
        if self.actor is not None:
            self.actor.skipped(sender, message.sequence_number)

    def on_exit_actor(self, sender: bytes, message: control.ExitActor) -> None:
        """No handle is left: the actor ends once its queued calls have run."""
        if self.actor is not None and message.interrupt:
            self.actor.ended = True
            self.leave(message.reason)
            if self.running is not None:
                self.interrupt(self.running.task_id)
        elif self.actor is not None:
            self.actor.finish(message.reason)
        else:
            self.leave(message.reason)

    def on_steal(self, sender: bytes, message: tasks.StealTasks) -> None:
        """The owner wants back what has not begun, last ones first."""
        stolen: list[bytes] = []
        kept: deque[tuple[Address, TaskPush]] = deque()
        while self.queue:
            owner, push = self.queue.pop()
            if owner.worker_id == sender and len(stolen) < message.count:
                stolen.append(push.task_id)
            else:
                kept.appendleft((owner, push))
        self.queue = kept
        owner_address = self._core.peer(sender)
        if owner_address is not None:
            stolen.reverse()
            self._core.post(owner_address, tasks.TasksReturned(stolen, False), True)

    def on_cancel(self, sender: bytes, message: tasks.CancelTask) -> None:
        """The owner no longer wants this task."""
        for item in self.queue:
            owner, push = item
            if push.task_id == message.task_id:
                self.queue.remove(item)
                self._core.events.cancelled_in_queue(push, cancelled(push.task_id))
                self._core.post(owner, self.runner.cancelled(push), True)
                return
        if self.actor is not None and self.actor.cancel(sender, message):
            return
        running = self.running
        if running is None or running.task_id != message.task_id:
            return
        if not message.force and running.kind == tasks.NORMAL_TASK:
            # Before its children: it may wait for one, and the error is to be that of the task itself.
            self._interrupting = message.task_id
            self.host.interrupt()
        if message.recursive:
            self._core.tasks.cancel_children(message.task_id, message.force)
        if message.force:
            self._core.flush()
            self._output.relay()
            self._core.flush()
            self.host.die()

    def on_process_died(self, worker_id: bytes) -> None:
        """An owner is gone: its tasks and what we pinned for it are nobody's any more."""
        self.queue = deque(item for item in self.queue if item[0].worker_id != worker_id)
        self.runner.on_process_died(worker_id)
        if self.actor is not None:
            self.actor.caller_left(worker_id)

    def on_exit(self, sender: bytes, message: control.Exit) -> None:
        """The head wants this worker to leave."""
        if message.force:
            self.host.die()
        if message.drain:
            self.leave_when_free(message.reason)
        else:
            self.leave(message.reason)

    def leave_when_free(self, reason: str) -> None:
        """Leave once nobody needs what this worker owns: with the owner, the objects would be lost (under the lock)."""
        self._draining = reason
        if not self._core.owns_anything():
            self.leave(reason)

    def leave(self, reason: str) -> None:
        """End the main loop after the present task (under the lock)."""
        if self._exit_reason is None:
            self._exit_reason = reason or "exit"
            self._work.finish()
            self._core.reactor.wake_leader()  # from an actor's own thread: the main thread may lead, and block

    def check_stuck(self) -> None:
        """Name a queued call of a plain actor that waits behind one which does not end (under the lock, now and
        then).
        """
        running = self.running
        if running is None or self.actor is None or not self.queue or running.task_id == self._told_stuck:
            return
        seconds = _perf_counter() - self.began
        if seconds < STUCK:
            return
        self._told_stuck = running.task_id
        names = ", ".join(dict.fromkeys(push.name for _, push in self.queue))
        user_log.say(
            user_log.WARNING,
            f"{running.name} has been running for {seconds:.0f} s, and {len(self.queue)} calls wait behind it "
            f"({names}). A plain actor runs one call at a time: if this one never ends, they never run. Give the actor "
            "a concurrency group for calls that must always get through, or a timeout_s.",
        )

    # -- interrupting --------------------------------------------------------------------------------------------------

    def interrupt(self, task_id: bytes) -> None:
        """End the running task from outside (under the lock)."""
        running = self.running
        if running is not None and running.task_id == task_id:
            self._interrupting = task_id
            self.host.interrupt()
        elif self.actor is not None:
            self.actor.interrupt(task_id)

    def is_wanted(self) -> bool:
        """Whether an interrupt that comes now, in the main thread, is meant for the user code that runs there."""
        return self._interrupting != b"" and self._interrupting == self._interruptible

    def on_sigint(self, number: int, frame: Any) -> None:
        """SIGINT came, which is how a process is told to give up its task."""
        if self.is_wanted():
            self._core.reactor._on_sigint(number, frame)

    # -- blocking --------------------------------------------------------------------------------------------------

    def may_block(self) -> bool:
        """Whether this thread runs a task whose CPU could be lent while it waits."""
        return self.running is not None and threading.get_ident() == self._main_thread

    def block(self) -> None:
        """The running task waits: lend its CPU, and hand back what is queued behind it."""
        core = self._core
        with core.lock:
            self._blocked += 1
            if self._blocked > 1:
                return
            core.post(core.head, control.WorkerBlocked(True), True)
            by_owner: dict[bytes, tuple[Address, list[bytes]]] = {}
            kept: deque[tuple[Address, TaskPush]] = deque()
            for owner, push in self.queue:
                if push.kind == tasks.NORMAL_TASK:
                    by_owner.setdefault(owner.worker_id, (owner, []))[1].append(push.task_id)
                else:
                    kept.append((owner, push))
            self.queue = kept
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
        extras = extras_of(push)
        context = current.TaskContext(push.task_id, push.name, push.depth, attempt=push.attempt)
        context.resources = extras.resources
        context.accelerator_ids = extras.accelerator_ids
        if extras.placement_group_id:
            context.enter_group(extras.placement_group_id, extras.captures_children)
        if push.kind != tasks.NORMAL_TASK:
            context.actor_id = push.task_id[8:24]
            if self.actor is not None:
                context.resources = self.actor.resources
                context.accelerator_ids = self.actor.accelerator_ids
                self.actor.contexts[push.task_id] = context
                if self.actor.placement_group_id:
                    context.enter_group(self.actor.placement_group_id, self.actor.captures_children)
        if self.actor is None and (push.options or self._environment_set) and self.host.own_process:
            self._environment_set = extras.resources is not None or bool(extras.accelerator_ids)
            self._environment.enter(extras)
        self.context = context
        self.running = push
        self._record.begin(push.task_id, push.attempt)
        if push.name != self._title:
            self._title = push.name
            self.host.show(push.name)
        self._output.watch(push.name)
        if extras.timeout:
            self.deadlines.begin(owner, push, extras.timeout)
        observed = extras.task_events and (self.actor is None or self.actor.task_events)
        token = current.task_context.set(context)
        start = self.began = _perf_counter()
        try:
            reply = self._run(owner, push, context)
        except WorkerExit as leaving:
            with core.lock:
                self._output.relay(push.name)
                core.flush()
                self.leave(leaving.reason)
            if observed:
                self.events.executed(push, context, _perf_counter() - start, tasks.FINISHED)
            return
        finally:
            self._interruptible = b""
            self.running = None
            if extras.timeout:
                self.deadlines.end(push.task_id)
            current.task_context.reset(token)
            if self.actor is not None:
                self.actor.contexts.pop(push.task_id, None)
        core.reactor.drop_interrupt()
        self._interrupting = b""
        reply.duration = _perf_counter() - start
        if extras.max_calls:
            calls = self._calls[push.function_id] = self._calls.get(push.function_id, 0) + 1
            reply.worker_exiting = calls >= extras.max_calls
        if observed and reply.status == tasks.FAILED:
            # Before the reply: who gets the error may kill this process at once.
            self.events.executed(push, context, reply.duration, tasks.FAILED)
            observed = False
        with core.lock:
            if self._output.dirty:
                self._output.relay(push.name)
            keeps_refs = push.ref_arguments or (push.arguments is not None and push.arguments.contained)
            if not (keeps_refs and self.runner.note_kept(owner, push, reply)):
                core.post(owner, reply, not self.queue)
            if self.actor is not None:
                self.actor.check_finished()
            if reply.worker_exiting:
                self._hand_back_queue()
                self.leave_when_free("max_calls")
        # What nobody waits for comes after the reply.
        stats = self._stats.get(push.function_id)
        if stats is None:
            stats = self._stats[push.function_id] = FunctionStats()
        stats.observe(reply.duration)
        if observed:
            self.events.executed(push, context, reply.duration, reply.status)

    def _estimate(self, push: TaskPush) -> float:
        stats = self._stats.get(push.function_id)
        return UNKNOWN if stats is None else stats.estimate

    def _hand_back_queue(self) -> None:
        for owner, push in self.queue:
            self._core.post(owner, tasks.TasksReturned([push.task_id], False))
        self.queue.clear()

    def _run(self, owner: Address, push: TaskPush, context: current.TaskContext) -> TaskReply:
        runner = self.runner
        try:
            runner.enter_job(push)
            if push.kind == tasks.NORMAL_TASK:
                function = runner.load(push.function_id)
            elif push.kind == tasks.ACTOR_TASK:
                assert self.actor is not None
                function = self.actor.method(push)
            else:
                self.actor = ActorExecutor(self._core, self, push)
                function = self.actor.create
            context.function = function
            # From here to the result a cancellation interrupts.
            self._interruptible = push.task_id
            args, kwargs = runner.arguments(owner, push)
            result = function(*args, **kwargs)
            extras = extras_of(push)
            if extras.generator:
                return runner.generators.run(owner, push, extras, result)
            if type(result) is CoroutineType:  # an `async def` task, one of miniray's extensions
                result = _run_coroutine(result)
            self._interruptible = b""
            del args, kwargs
            if context.cancelled:
                return runner.cancelled(push)
            if self.actor is not None and self.actor.ended:
                raise WorkerExit(self._exit_reason or "exit_actor")
            return runner.succeeded(owner, push, result)
        except WorkerExit:
            raise
        except BaseException as error:
            self._interruptible = b""
            return runner.failed(push, extras_of(push), error)


def _run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio  # 40 ms: only who uses it pays

    return asyncio.run(coroutine)
