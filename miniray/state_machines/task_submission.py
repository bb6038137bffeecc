"""The owner's side of normal tasks: queues, leases, and how many tasks to send ahead.

The rules
---------
* Tasks with the same needs (resources, runtime environment, strategy) share a **scheduling class** and its queue. For
  each class the owner asks the head for **leases** on workers, pushes tasks to the leased workers directly, and gives
  a lease back when it has had nothing to do for a while.
* **Sending ahead.** A worker with nothing to do always gets a task. More tasks wait at a worker only while the work
  that lies there is estimated at less than `BUDGET` seconds. So short tasks pipeline by the hundred, and long ones
  spread over all workers. The estimate is a moving average per function; a function that never ran counts as long,
  and so does a task that must run at most once (its reply is never collected with others, and so never lost with them).
* **Stealing back.** An estimate can be wrong: a long task may sit in front of short ones. A worker that has made no
  progress for a whole sweep gets `StealTasks`; what had not begun comes back and goes elsewhere.
* A worker that **blocks** in `get` hands back what waits behind it by itself, and gets nothing more until it has
  finished a task.
* The head may **revoke** a lease when others wait: it is given back as soon as its current task is done.
* Where tasks with a **strategy** run depends on what is free, and so no idle lease may be in their way: those of the
  owner go back before it asks for one of theirs, and theirs do not wait for the sweep.
* How many leases to ask for follows the estimated work in the queue. `LeaseDemand` is absolute, so a repeated or
  overtaken one does no harm; it is sent when the wish has doubled or ended, not for every task.

Ray's owner does the same with `NormalTaskSubmitter`, but keeps one task per worker at a time; each short task there
pays a full round trip.

The machine is called directly under the core worker's lock (it is the hot path); effects go to a port object.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

from miniray.messages.control import LeaseSpec
from miniray.messages.tasks import WorkerAddress
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.state_machines.scheduling_classes import SchedulingClass, SchedulingClasses

#: Seconds of estimated work that may wait at one worker.
BUDGET = 0.005
#: Tasks that may be unanswered at one worker, whatever their estimate.
MAX_IN_FLIGHT = 1000
#: Leases to wish for at once, at most.
MAX_DEMAND = 256
#: What an unknown function is taken to last.
UNKNOWN = float("inf")

WAITING = 0  #: for its arguments
QUEUED = 1
PUSHED = 2
DONE = 3


class FunctionStats:
    """How long a function takes: a moving average in seconds."""

    __slots__ = ("estimate",)

    def __init__(self) -> None:
        self.estimate = UNKNOWN

    def observe(self, duration: float) -> None:
        """A call took `duration` seconds."""
        estimate = self.estimate
        self.estimate = duration if estimate == UNKNOWN else estimate + 0.2 * (duration - estimate)


class PendingTask:
    """A task that this process has submitted and that is not done."""

    __slots__ = (
        "arguments",
        "alone",
        "attempt",
        "cancelled",
        "charge",
        "dependencies",
        "export",
        "lease",
        "oom_failures",
        "push",
        "retries_left",
        "returns",
        "scheduling_class",
        "state",
        "stats",
        "unready",
    )

    def __init__(self, push: Any, scheduling_class: SchedulingClass, stats: FunctionStats, retries: int) -> None:
        self.push = push
        self.scheduling_class = scheduling_class
        self.stats = stats
        self.retries_left = retries
        #: how often its worker was killed for want of memory; -1: once too often
        self.oom_failures = 0 if retries else -1
        self.alone = retries == 0  #: no other task may lie at its worker
        self.state = WAITING
        self.lease: Lease | None = None
        self.charge = 0.0  #: the estimate under which it was pushed
        self.cancelled = False
        self.attempt = 0
        self.unready = 0
        self.returns: list[ObjectEntry] = []
        self.dependencies: list[ObjectEntry] | None = None
        self.arguments: Any = None
        self.export: Any = None


class Lease:
    """A worker that is ours until we give it back."""

    __slots__ = (
        "accelerator_ids",
        "blocked",
        "in_flight",
        "lease_id",
        "listed",
        "load",
        "progress",
        "revoked",
        "scheduling_class",
        "seen_progress",
        "stealing",
        "used",
        "worker",
    )

    def __init__(self, lease_id: int, worker: WorkerAddress, scheduling_class: SchedulingClass) -> None:
        self.lease_id = lease_id
        self.worker = worker
        self.scheduling_class = scheduling_class
        self.in_flight: OrderedDict[bytes, PendingTask] = OrderedDict()
        self.accelerator_ids: dict[str, list[str]] | None = None  #: the devices that go with it
        self.load = 0.0
        self.progress = 0
        self.seen_progress = -1
        self.revoked = False
        self.blocked = False
        self.stealing = False
        self.used = True
        self.listed = False  #: in `SchedulingClass.open`


class SubmissionPort(Protocol):
    """The effects of the machine."""

    def push(self, lease: Lease, task: PendingTask, urgent: bool) -> None:
        """Send the task to the worker; `urgent`: the worker has nothing to do, so at once."""

    def demand(self, scheduling_class: SchedulingClass, count: int) -> None:
        """Tell the head how many more leases are wanted."""

    def forget(self, scheduling_class: SchedulingClass) -> None:
        """Tell the head that this class is gone, if the head knows it."""

    def return_lease(self, lease: Lease) -> None:
        """Give the lease back to the head."""

    def steal(self, lease: Lease, count: int) -> None:
        """Ask the worker for tasks that have not begun."""

    def sweep_later(self) -> None:
        """Call `sweep` in a while; called once until `sweep` was."""


class TaskSubmission:
    """All scheduling classes, leases and unfinished normal tasks of one owner."""

    def __init__(self, port: SubmissionPort) -> None:
        self.port = port
        self._classes = SchedulingClasses()
        self.classes = self._classes.by_id
        self.leases: dict[int, Lease] = {}
        self.by_worker: dict[bytes, Lease] = {}
        self.closing = False
        self._sweeping = False

    def scheduling_class(self, key: Any, spec: LeaseSpec) -> SchedulingClass:
        """The class with this key (anything hashable that stands for the spec), made when new."""
        return self._classes.of(key, spec)

    def class_near(self, cls: SchedulingClass, node_id: bytes) -> SchedulingClass:
        """The class of tasks with the same needs whose arguments lie on that node: it has leases of its own."""
        return self._classes.near(cls, node_id)

    # -- tasks in --------------------------------------------------------------------------------------------------

    def ready(self, task: PendingTask) -> None:
        """The task's arguments are there: queue it, and push what can be pushed."""
        task.state = QUEUED
        cls = task.scheduling_class
        cls.queue.append(task)
        self.dispatch(cls)

    def dispatch(self, cls: SchedulingClass) -> None:
        """Push as many queued tasks as the leases may take now; ask for more leases when some are left."""
        queue = cls.queue
        available = cls.open
        while queue:
            task = queue[0]
            if task.cancelled:
                queue.popleft()
                continue
            if not available:
                break
            lease = available[0]
            in_flight = lease.in_flight
            estimate = UNKNOWN if task.alone else task.stats.estimate
            idle = not in_flight
            if not idle and (lease.load + estimate > BUDGET or len(in_flight) >= MAX_IN_FLIGHT):
                available.popleft()
                lease.listed = False
                continue
            queue.popleft()
            in_flight[task.push.task_id] = task
            task.lease = lease
            task.state = PUSHED
            task.charge = estimate
            lease.load += estimate
            lease.used = True
            if len(available) > 1:
                available.rotate(-1)
            self.port.push(lease, task, idle)
            if not self._sweeping:
                self._sweep_later()
        if queue or cls.demanded:
            self._update_demand(cls)
        elif cls.is_choosy:
            self._give_back_idle(cls.leases)

    def _sweep_later(self) -> None:
        self._sweeping = True
        self.port.sweep_later()

    def _update_demand(self, cls: SchedulingClass) -> None:
        waiting = len(cls.queue)
        if waiting:
            first = cls.queue[0]
            estimate = UNKNOWN if first.alone else first.stats.estimate
            wanted = waiting if estimate == UNKNOWN else min(waiting, 1 + int(waiting * estimate / BUDGET))
            wanted = min(wanted, MAX_DEMAND)
            if wanted <= cls.demanded < 2 * wanted or (cls.demanded and cls.demanded < wanted < 2 * cls.demanded):
                return
        else:
            wanted = 0
        if wanted != cls.demanded:
            if not cls.demanded:
                self._classes.remember(cls)
                if cls.is_choosy:
                    self.give_back_idle()
            cls.demanded = wanted
            self.port.demand(cls, wanted)

    # -- leases ----------------------------------------------------------------------------------------------------

    def granted(
        self,
        class_id: int,
        lease_id: int,
        worker: WorkerAddress,
        accelerator_ids: dict[str, list[str]] | None = None,
    ) -> Lease:
        """The head has given us a worker."""
        cls = self.classes.get(class_id)
        if cls is None:  # forgotten, while this was on its way
            lease = Lease(lease_id, worker, SchedulingClass(class_id, None, LeaseSpec({}, b"")))
            self._give_back(lease)
            return lease
        lease = Lease(lease_id, worker, cls)
        lease.accelerator_ids = accelerator_ids
        self.leases[lease_id] = lease
        self.by_worker[worker.address.worker_id] = lease
        cls.leases[lease_id] = lease
        cls.demanded = max(0, cls.demanded - 1)
        if self.closing:
            self._give_back(lease)
            return lease
        self._open(lease)
        self.dispatch(cls)
        if not self._sweeping:
            self._sweep_later()
        return lease

    def revoked(self, lease_id: int) -> None:
        """Others wait for this worker: give it back after what runs there now."""
        lease = self.leases.get(lease_id)
        if lease is None or lease.revoked:
            return
        lease.revoked = True
        self._close(lease)
        if not lease.in_flight:
            self._give_back(lease)
        elif len(lease.in_flight) > 1 and not lease.stealing:
            lease.stealing = True
            self.port.steal(lease, len(lease.in_flight) - 1)

    def _open(self, lease: Lease) -> None:
        """List a lease that may have room; those with nothing to do stand in front."""
        if lease.revoked or lease.blocked:
            return
        idle = not lease.in_flight
        if idle and not self._sweeping:
            self._sweep_later()  # else nobody would ever give it back
        available = lease.scheduling_class.open
        if lease.listed:
            if not idle or available[0] is lease:
                return
            available.remove(lease)
        lease.listed = True
        if idle:
            available.appendleft(lease)
        else:
            available.append(lease)

    def _close(self, lease: Lease) -> None:
        if lease.listed:
            lease.listed = False
            lease.scheduling_class.open.remove(lease)

    def _give_back(self, lease: Lease) -> None:
        self._remove(lease)
        self.port.return_lease(lease)

    def _remove(self, lease: Lease) -> None:
        self.leases.pop(lease.lease_id, None)
        self.by_worker.pop(lease.worker.address.worker_id, None)
        lease.scheduling_class.leases.pop(lease.lease_id, None)
        self._close(lease)

    # -- answers ---------------------------------------------------------------------------------------------------

    def finished(self, task: PendingTask, duration: float) -> None:
        """The worker has answered a pushed task. Call `dispatch` for its class afterwards (once per batch)."""
        lease = task.lease
        task.state = DONE
        task.stats.observe(duration)
        if lease is not None:
            self._take_out(lease, task)
            lease.progress += 1
            lease.blocked = False
            if lease.revoked and not lease.in_flight:
                if lease.lease_id in self.leases:
                    self._give_back(lease)
            elif lease.lease_id in self.leases:
                self._open(lease)

    def _take_out(self, lease: Lease, task: PendingTask) -> None:
        in_flight = lease.in_flight
        in_flight.pop(task.push.task_id, None)
        if not in_flight:
            lease.load = 0.0
        elif task.charge != UNKNOWN:
            lease.load -= task.charge
        else:
            lease.load = sum(other.charge for other in in_flight.values())
        task.lease = None

    def returned(self, task_ids: list[bytes], worker_id: bytes, blocked: bool) -> list[PendingTask]:
        """A worker gives back tasks that have not begun: queue them again, in front and in their old order.

        Returns those that were cancelled meanwhile: they will not be answered any more, so the caller has to end them.
        """
        lease = self.by_worker.get(worker_id)
        if lease is None:
            return []
        cancelled = []
        lease.stealing = False
        cls = lease.scheduling_class
        for task_id in reversed(task_ids):
            task = lease.in_flight.get(task_id)
            if task is None:
                continue
            self._take_out(lease, task)
            task.state = QUEUED
            if task.cancelled:
                cancelled.append(task)
            else:
                cls.queue.appendleft(task)
        if blocked:
            lease.blocked = True
            self._close(lease)
        elif not lease.in_flight:
            if lease.revoked:
                self._give_back(lease)
            else:
                self._open(lease)
        self.dispatch(cls)
        return cancelled

    def requeue(self, task: PendingTask) -> None:
        """Run a task again (its worker died, or it failed and may be retried)."""
        task.lease = None
        task.attempt += 1
        self.ready(task)

    def drop(self, task: PendingTask) -> None:
        """A task that was cancelled before it was pushed, or whose worker refused it: it is no longer ours to run."""
        task.cancelled = True
        if task.lease is not None:
            lease = task.lease
            self._take_out(lease, task)
            if lease.revoked and not lease.in_flight:
                self._give_back(lease)
            else:
                self._open(lease)
        task.state = DONE
        cls = task.scheduling_class
        while cls.queue and cls.queue[0].cancelled:
            cls.queue.popleft()
        if not cls.queue and cls.demanded:
            self._update_demand(cls)

    def worker_left(self, worker_id: bytes) -> list[PendingTask]:
        """A leased worker is gone. Returns what was in flight there, in order: the first one may have been running."""
        lease = self.by_worker.get(worker_id)
        if lease is None:
            return []
        self._remove(lease)
        lost = list(lease.in_flight.values())
        lease.in_flight.clear()
        for task in lost:
            task.lease = None
            task.state = QUEUED
        return lost

    def node_left(self, node_id: bytes) -> None:
        """A node is gone, its workers with it: nothing more is sent there. What they had comes with `worker_left`."""
        for lease in list(self.leases.values()):
            if lease.worker.node_id == node_id:
                lease.revoked = True
                self._close(lease)
                if not lease.in_flight:
                    self._remove(lease)

    def worker_leaving(self, worker_id: bytes) -> list[PendingTask]:
        """A worker said in a reply that it leaves: what has not begun goes elsewhere. Returns what was cancelled."""
        lost = self.worker_left(worker_id)
        for task in reversed(lost):
            if not task.cancelled:
                task.scheduling_class.queue.appendleft(task)
        return [task for task in lost if task.cancelled]

    def refused(self, class_id: int) -> list[PendingTask]:
        """The head can never serve this class: its queued tasks have to fail."""
        cls = self.classes.get(class_id)
        if cls is None:
            return []
        failed = [task for task in cls.queue if not task.cancelled]
        cls.queue.clear()
        cls.demanded = 0
        return failed

    # -- now and then ----------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Give back leases that had nothing to do since the last sweep; steal back where there is no progress."""
        self._sweeping = False
        again = False
        for lease in list(self.leases.values()):
            if not lease.in_flight:
                if not lease.used and not lease.scheduling_class.queue:
                    self._give_back(lease)
                    continue
                lease.used = False
                again = True
            else:
                if len(lease.in_flight) > 1:
                    again = True
                    if lease.seen_progress == lease.progress and not lease.stealing and not lease.blocked:
                        front = next(iter(lease.in_flight.values()))
                        front.stats.estimate = max(front.stats.estimate, BUDGET)
                        # What comes back is not to be sent here again.
                        front.charge = lease.load = UNKNOWN
                        lease.stealing = True
                        self.port.steal(lease, len(lease.in_flight) - 1)
                lease.seen_progress = lease.progress
        for cls in self._classes.forget_idle():
            self.port.forget(cls)
        if again and not self._sweeping:
            self._sweep_later()

    def give_back_idle(self) -> None:
        """Return the leases that have nothing to do: nothing more is about to be submitted, or something is that
        depends on what is free.
        """
        self._give_back_idle(self.leases)

    def _give_back_idle(self, leases: dict[int, Lease]) -> None:
        for lease in list(leases.values()):
            if not lease.in_flight and not lease.scheduling_class.queue:
                self._give_back(lease)

    def give_back_all(self) -> None:
        """The process ends or its lease class is closed: return every idle lease."""
        self.closing = True
        for lease in list(self.leases.values()):
            if not lease.in_flight:
                self._give_back(lease)
