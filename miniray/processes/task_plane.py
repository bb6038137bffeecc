"""Normal tasks as their owner sees them: submit, push, answer, retry, cancel.

The decisions (which worker, how many ahead, when to give a lease back) are made by `state_machines.task_submission`;
this file is its port, and knows messages and refs. The path of one task: `submit` has the arguments serialized
(`call_arguments`) and makes the returns' entries; once all ref arguments are ready the machine gets the task; `push`
mails it to a leased worker, after the function if it is new there (`function_exports`); `on_reply` fulfils the entries.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

from miniray import death_causes, exceptions
from miniray.ids import TaskIdGenerator
from miniray.messages import control, tasks
from miniray.messages.objects import Payload
from miniray.messages.tasks import TaskExtras, TaskPush
from miniray.processes import current, ref_sites
from miniray.processes.function_exports import Export
from miniray.refs import ObjectRef
from miniray.state_machines.actor_submission import ActorCall
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.state_machines.scheduling_classes import SchedulingClass
from miniray.state_machines.task_submission import (
    DONE,
    PUSHED,
    WAITING,
    Lease,
    PendingTask,
    TaskSubmission,
)
from miniray.system import task_record
from miniray.task_errors import cancelled

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.reactor import Waiter

#: Seconds between two looks at idle and stuck leases.
SWEEP_INTERVAL = 0.05
#: Seconds that a task may wait in `get` before its CPU is lent to others.
BLOCK_GRACE = 0.001

_time = time.time
encode_extras = msgspec.msgpack.Encoder().encode
_decode_extras = msgspec.msgpack.Decoder(TaskExtras).decode


def extras_of(push: TaskPush) -> TaskExtras:
    """The rarely used settings of a task, to be changed."""
    return _decode_extras(push.options) if push.options else TaskExtras()


class TaskBinding:
    """A remote function with its options, bound to one session: all of a call that does not change between calls."""

    __slots__ = ("export", "extras", "generator", "max_retries", "name", "num_returns", "scheduling_class", "what")

    def __init__(
        self,
        export: Export,
        name: str,
        what: str,
        num_returns: int,
        max_retries: int,
        scheduling_class: SchedulingClass,
        extras: bytes,
        generator: int = 0,
    ) -> None:
        self.generator = generator  #: 0: none; 1: streaming; 2: the same with back-pressure; 3: dynamic
        self.export = export
        self.name = name
        self.what = what  #: "module.function", for error texts
        self.num_returns = num_returns
        self.max_retries = max_retries
        self.scheduling_class = scheduling_class
        self.extras = extras


class TaskPlane:
    """The normal tasks of one owner: the port of its submission machine."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self.submission = TaskSubmission(self)
        self.pending: dict[bytes, PendingTask] = {}
        self.next_task_id = TaskIdGenerator(core.job_id, os.urandom(16))

    def use_job(self, job_id: bytes) -> None:
        """The job is known now: task ids carry it."""
        self.next_task_id = TaskIdGenerator(job_id, os.urandom(16))
        self._core.actors.use_job(job_id)

    # -- submitting ------------------------------------------------------------------------------------------------

    def submit(self, binding: TaskBinding, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[ObjectRef[Any]]:
        """Submit a call; returns the refs of its returns (none for num_returns=0).

        Raises:
            TypeError: an argument cannot be serialized.
            RaySystemError: the session is lost.
        """
        core = self._core
        context = current.task_context.get() or core.main_context
        refs: list[tuple[int | str, ObjectRef[Any]]] | None = None
        inner: list[ObjectEntry] | None = None
        arguments: Payload | None = None
        if args or kwargs:
            refs, args, kwargs = core.arguments.split_refs(args, kwargs)
            arguments, inner = core.arguments.encode(args, kwargs, binding.what)
        push = TaskPush(
            self.next_task_id(),
            tasks.NORMAL_TASK,
            binding.export.message.function_id,
            core.job_id,
            arguments,
            binding.num_returns,
            binding.name,
            depth=context.depth + 1,
            parent_task_id=context.task_id,
            options=binding.extras,
            created=_time(),
        )
        task = PendingTask(push, binding.scheduling_class, binding.export.stats, binding.max_retries)
        task.export = binding.export
        core.reactor.shield()
        with core.lock:
            if core.head_lost:
                raise exceptions.RaySystemError(core.head_lost)
            objects = core.objects
            if objects._released:
                objects.drain()
            self.pending[push.task_id] = task
            if binding.generator:
                core.generators.open(push.task_id, binding.generator)
            # Sent first: what follows is done while the worker begins. The reply waits for the lock.
            if not refs and inner is None:
                self.submission.ready(task)
            else:
                core.arguments.pin(task, refs or [], inner or [], self._arguments_ready)
                if not task.unready:
                    self._arguments_ready(task)
            returns = task.returns
            site = ref_sites.made_by("task call") if objects.record_sites else ""
            result = []
            for index in range(1, binding.num_returns + 1):
                entry = objects.counter.own(push.task_id + index.to_bytes(4, "little"))
                entry.producer = task
                if site:
                    entry.site = site
                returns.append(entry)
                result.append(objects.make_ref(entry))
        if core.reactor.interrupt_pending:
            core.reactor._raise_interrupt()
        return result

    def _arguments_ready(self, task: PendingTask) -> None:
        if task.state != WAITING:
            return
        node_id = self._core.arguments.fill(task)
        if node_id or task.scheduling_class.near:
            task.scheduling_class = self.submission.class_near(task.scheduling_class, node_id)
        self.submission.ready(task)

    def run_again(self, task: PendingTask) -> None:
        """A finished task runs once more, since what it had made was lost; its arguments are pinned already."""
        task.attempt += 1
        task.state = WAITING
        task.lease = None
        self.pending[task.push.task_id] = task
        self._core.arguments.wait_again(task, self._arguments_ready)
        if not task.unready:
            self._arguments_ready(task)

    # -- port of the machine ---------------------------------------------------------------------------------------

    def push(self, lease: Lease, task: PendingTask, urgent: bool) -> None:
        """Effect: mail the task to the worker, after the function if the worker has not got it."""
        peer = lease.worker.address
        if peer.worker_id not in task.export.sent_to:
            self._core.exports.send(task.export, peer)
        task.push.attempt = task.attempt
        if lease.accelerator_ids:
            extras = extras_of(task.push)
            extras.accelerator_ids = lease.accelerator_ids
            task.push.options = encode_extras(extras)
        self._core.post(peer, task.push, urgent)

    def demand(self, scheduling_class: SchedulingClass, count: int) -> None:
        """Effect: tell the head how many more leases are wanted."""
        self._core.post(self._core.head, self._demand(scheduling_class, count), True)

    def _demand(self, scheduling_class: SchedulingClass, count: int) -> control.LeaseDemand:
        spec = None if scheduling_class.spec_sent else scheduling_class.spec
        scheduling_class.spec_sent = True
        depth = scheduling_class.queue[0].push.depth if scheduling_class.queue else 0
        near = scheduling_class.near or self._core.node_id
        return control.LeaseDemand(scheduling_class.class_id, spec, count, depth, near)

    def forget(self, scheduling_class: SchedulingClass) -> None:
        """Effect: the head need not know of this class any more."""
        if scheduling_class.spec_sent:
            scheduling_class.spec_sent = False
            self._core.post(self._core.head, control.LeaseDemand(scheduling_class.class_id, None, 0, forget=True))

    def told_again(self) -> list[control.LeaseDemand]:
        """What a new head has to be told: what is wanted, and of which kind (under the lock)."""
        messages = []
        for scheduling_class in self.submission.classes.values():
            scheduling_class.spec_sent = False
            if scheduling_class.demanded:
                messages.append(self._demand(scheduling_class, scheduling_class.demanded))
        return messages

    def return_lease(self, lease: Lease) -> None:
        """Effect: give the worker back."""
        self._core.post(self._core.head, control.ReturnLease(lease.lease_id), True)

    def steal(self, lease: Lease, count: int) -> None:
        """Effect: ask the worker for tasks that have not begun."""
        self._core.post(lease.worker.address, tasks.StealTasks(count), True)

    def sweep_later(self) -> None:
        """Effect: look at the leases again in a while."""
        self._core.reactor.call_later(SWEEP_INTERVAL, self.submission.sweep)

    # -- messages --------------------------------------------------------------------------------------------------

    def on_lease_granted(self, sender: bytes, message: control.LeaseGranted) -> None:
        """The head has given us a worker."""
        self._core.watch(message.worker.address.worker_id)
        self.submission.granted(message.class_id, message.lease_id, message.worker, message.accelerator_ids)

    def on_lease_refused(self, sender: bytes, message: control.LeaseRefused) -> None:
        """The head can never serve this class."""
        from miniray.processes.head_client import error_named

        error = error_named(message.error, message.message)
        for task in self.submission.refused(message.class_id):
            self.fail_task(task, error)

    def on_revoke_lease(self, sender: bytes, message: control.RevokeLease) -> None:
        """Others wait for a worker of ours."""
        self.submission.revoked(message.lease_id)

    def on_reply(self, sender: bytes, message: tasks.TaskReply) -> None:
        """A pushed task is done."""
        task = self.pending.get(message.task_id)
        core = self._core
        if task is None:
            core.actors.on_reply(sender, message)
            return
        if task.state != PUSHED or task.attempt != message.attempt:
            return
        self.submission.finished(task, message.duration)
        core.after_batch[task.scheduling_class] = self.submission.dispatch
        if message.worker_exiting:
            for lost in self.submission.worker_leaving(sender):
                self.fail_task(lost, cancelled_error(lost))
        if message.status == tasks.FAILED and message.retryable and self._retry(task):
            return
        del self.pending[message.task_id]
        self.settle_reply(sender, task, message)
        dependencies = task.dependencies
        if dependencies:
            task.dependencies = None
            task.arguments = None
            self._core.arguments.release(message.task_id, dependencies, sender, message.kept)

    def settle_reply(self, sender: bytes, task: PendingTask | ActorCall, message: tasks.TaskReply) -> None:
        """Give the returns of a task, or of an actor's call, what the reply says."""
        objects = self._core.objects
        if message.status == tasks.REFUSED:
            self.settle_failure(task, exceptions.RaySystemError(message.error))
        else:
            entries = objects.entries
            shared: list[ObjectEntry] = []
            fresh: list[tuple[ObjectEntry, Payload]] | None = [] if message.unacknowledged else None
            for wanted, payload in zip(task.returns, message.returns, strict=False):
                if entries.get(wanted.object_id) is wanted and wanted.payload is None:
                    objects.fulfil(wanted, payload)
                    if payload.location is not None:
                        shared.append(wanted)
                    if fresh is not None and payload.contained:
                        fresh.append((wanted, payload))
                else:
                    objects.discard(payload)
            if fresh is not None:
                self._acknowledge(sender, task, fresh)
            recovery = objects.recovery
            if shared or recovery.records or recovery.items or recovery.missing:
                recovery.settled(task, shared, message.returns[0] if message.status != tasks.FINISHED else None)
        if message.returns and message.status != tasks.FINISHED:
            self._core.generators.ended(task.push.task_id, message.returns[0])
        elif task.push.options:
            self._core.generators.answered(task.push.task_id)

    def _retry(self, task: PendingTask) -> bool:
        if task.cancelled or task.retries_left == 0:
            return False
        if task.retries_left > 0:
            task.retries_left -= 1
            task.alone = task.alone or task.retries_left == 0
        self.submission.requeue(task)
        return True

    def _acknowledge(
        self, sender: bytes, task: PendingTask | ActorCall, returns: list[tuple[ObjectEntry, Payload]]
    ) -> None:
        """These returns hold refs which the worker pins: register as their borrower, then let it unpin them."""
        counter = self._core.objects.counter
        peer = self._core.peer(sender)
        register: list[ObjectEntry] = []
        for entry, payload in returns:
            inner = [counter.borrow(item.object_id, item.owner) for item in payload.contained or ()]
            counter.contain_local(entry, inner)
            register += inner
        if peer is None:
            counter.register(register)
            return
        ticket = (peer, tasks.AcknowledgeReplies([task.push.task_id]))
        if extras_of(task.push).generator:
            # The refs in its items came before, and may be on the way to their owners still.
            counter.register(register)
            registered = counter.confirm(ticket)
        else:
            registered = counter.register(register, None, ticket)
        if registered:
            self._core.post(peer, ticket[1])

    def on_tasks_returned(self, sender: bytes, message: tasks.TasksReturned) -> None:
        """A worker gives tasks back that have not begun."""
        for task in self.submission.returned(message.task_ids, sender, message.blocked):
            self.fail_task(task, cancelled_error(task))

    # -- failures --------------------------------------------------------------------------------------------------

    def fail_task(self, task: PendingTask, error: BaseException, died: control.WorkerDied | None = None) -> None:
        """A task will never run (again): its returns hold the error. `died`: with this worker."""
        self.pending.pop(task.push.task_id, None)
        self.submission.drop(task)
        self.settle_failure(task, error, died)
        if task.dependencies:
            self._core.arguments.release(task.push.task_id, task.dependencies, b"")
            task.dependencies = None
            task.arguments = None

    def settle_failure(
        self, task: PendingTask | ActorCall, error: BaseException, died: control.WorkerDied | None = None
    ) -> None:
        """Give the returns of a task, or of an actor's call, this error."""
        self._core.events.failed(
            task.push,
            error,
            function=task.export.name if isinstance(task, PendingTask) else "",
            attempt=task.attempt,
            died=died,
        )
        for entry in task.returns:
            self._core.objects.fail(entry, error)
        self._core.objects.recovery.failed(task, error)
        if task.returns and task.returns[0].payload is not None:
            self._core.generators.ended(task.push.task_id, task.returns[0].payload)

    def on_worker_died(self, message: control.WorkerDied) -> None:
        """A process is gone: what was in flight there runs again elsewhere, or fails."""
        self._core.exports.worker_died(message.worker_id)
        lost = self.submission.worker_left(message.worker_id)
        if message.last_begun:
            entries = [task_record.entry(task.push.task_id, task.attempt) for task in lost]
            running = entries.index(message.last_begun) if message.last_begun in entries else -1
        else:
            running = 0
        if message.out_of_memory and running < 0:
            running = 0  # one that was killed before it began would else go on for ever, while memory stays short
        classes: dict[SchedulingClass, None] = {}
        for position, task in reversed(list(enumerate(lost))):
            if task.cancelled:
                self.fail_task(task, cancelled_error(task))
                continue
            if position == running:
                if not self._may_run_again(task, message):
                    self.fail_task(task, self._death_error(message), message)
                    continue
                self._core.events.failed(
                    task.push,
                    self._death_error(message),
                    function=task.export.name,
                    attempt=task.attempt,
                    died=message,
                )
            # The others had not begun, or their replies were lost: they run again, and it costs them no retry. What has
            # run already is from now on alone at its worker, so that it does not run once more because of others.
            task.alone = task.alone or position <= running
            task.attempt += 1
            task.scheduling_class.queue.appendleft(task)
            classes[task.scheduling_class] = None
        for scheduling_class in classes:
            self.submission.dispatch(scheduling_class)

    def _may_run_again(self, task: PendingTask, message: control.WorkerDied) -> bool:
        """Charge the task with the death of its worker; whether it can afford it.

        Deaths for want of memory have an account of their own.
        """
        if message.out_of_memory:
            allowed = self._core.session.get("task_oom_retries", -1)
            if task.oom_failures < 0 or 0 <= allowed <= task.oom_failures:
                return False
            task.oom_failures += 1
        elif task.retries_left == 0:
            return False
        elif task.retries_left > 0:
            task.retries_left -= 1
        return True

    def _death_error(self, message: control.WorkerDied) -> BaseException:
        if message.out_of_memory:
            return exceptions.OutOfMemoryError(message.detail)
        if message.node_died:
            return exceptions.NodeDiedError(death_causes.task_node_died(message.node_id, self._core.node_ip))
        return exceptions.WorkerCrashedError()

    def fail_all(self, reason: str) -> None:
        """The session is lost: nothing that is pending will ever be answered."""
        for task in list(self.pending.values()):
            self.fail_task(task, exceptions.RaySystemError(reason))

    # -- cancelling ------------------------------------------------------------------------------------------------

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        """Cancel the task that makes this object; no effect when it is done."""
        core = self._core
        if ref._core is None and ref._id not in core.objects.entries:
            raise TypeError("No owner found for object.")  # Ray's type and text
        entry = core.objects._check_ref(ref)
        with core.lock:
            if entry.owner is not None:
                core.post(entry.owner, tasks.RequestCancel(entry.object_id, force, recursive), True)
            elif isinstance(entry.producer, ActorCall):
                if force:
                    raise ValueError("force=True is not supported for actor tasks.")
                core.actors.cancel_call(entry.producer, recursive)
            elif isinstance(entry.producer, PendingTask):
                self.cancel_task(entry.producer, force, recursive)

    def on_request_cancel(self, sender: bytes, message: tasks.RequestCancel) -> None:
        """A borrower cancels a task of ours."""
        entry = self._core.objects.entries.get(message.object_id)
        if entry is None:
            return
        if isinstance(entry.producer, ActorCall):
            self._core.actors.cancel_call(entry.producer, message.recursive)
        elif isinstance(entry.producer, PendingTask):
            self.cancel_task(entry.producer, message.force, message.recursive)

    def cancel_task(self, task: PendingTask, force: bool, recursive: bool) -> None:
        """Cancel in whatever state the task is (under the lock)."""
        if task.state == DONE:
            return
        task.cancelled = True
        if task.state == PUSHED and task.lease is not None:
            self._core.post(task.lease.worker.address, tasks.CancelTask(task.push.task_id, force, recursive), True)
        else:
            self.fail_task(task, cancelled_error(task))

    def cancel_children(self, task_id: bytes, force: bool) -> None:
        """The task with this id was cancelled: so are those that it has submitted (under the lock)."""
        for task in list(self.pending.values()):
            if task.push.parent_task_id == task_id:
                self.cancel_task(task, force, True)
        for call in list(self._core.actors.calls.values()):
            if call.push.parent_task_id == task_id:
                self._core.actors.cancel_call(call, True)

    # -- blocking --------------------------------------------------------------------------------------------------

    def wait_in_task(self, waiter: Waiter, deadline: float | None) -> bool:
        """Wait; in a worker, a task that waits longer than a moment lends its CPU to others meanwhile."""
        core = self._core
        executor = core.executor
        if executor is None or not executor.may_block():
            return core.reactor.wait(waiter, deadline)
        if not any(cls.queue for cls in self.submission.classes.values()):
            grace = time.monotonic() + BLOCK_GRACE
            if core.reactor.wait(waiter, grace if deadline is None else min(grace, deadline)):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
        executor.block()
        try:
            return core.reactor.wait(waiter, deadline)
        finally:
            executor.unblock()


def cancelled_error(task: PendingTask | ActorCall) -> exceptions.TaskCancelledError:
    """The error of a task that was cancelled."""
    if isinstance(task, ActorCall):
        return cancelled(task.push.task_id, of_actor=True, received=task.sent)
    return cancelled(task.push.task_id)
