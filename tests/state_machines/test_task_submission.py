"""The owner's side of tasks: each rule by itself, and any order of events under a model of head and workers."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from miniray.messages.control import LeaseSpec
from miniray.messages.objects import Address
from miniray.messages.tasks import TaskPush, WorkerAddress
from miniray.state_machines.scheduling_classes import KEPT, SchedulingClass
from miniray.state_machines.task_submission import (
    BUDGET,
    DONE,
    MAX_DEMAND,
    MAX_IN_FLIGHT,
    PUSHED,
    QUEUED,
    UNKNOWN,
    FunctionStats,
    Lease,
    PendingTask,
    TaskSubmission,
)

SPEC = LeaseSpec({"CPU": 10000}, b"job")


def worker_address(number: int) -> WorkerAddress:
    return WorkerAddress(Address(b"worker%d" % number, ""), b"node", number)


class Effects:
    """A port that writes down what it is told, and checks what must hold at every push."""

    def __init__(self) -> None:
        self.pushed: list[tuple[Lease, PendingTask]] = []
        self.urgent: list[bool] = []
        self.demands: list[tuple[int, int]] = []
        self.given_back: list[Lease] = []
        self.stolen: list[tuple[Lease, int]] = []
        self.forgotten: list[SchedulingClass] = []
        self.sweeps = 0

    def push(self, lease: Lease, task: PendingTask, urgent: bool) -> None:
        assert not lease.revoked, "a push to a revoked lease"
        assert not lease.blocked, "a push to a blocked worker"
        assert lease not in self.given_back, "a push to a lease that was given back"
        assert not task.cancelled, "a push of a cancelled task"
        others = [other for other in lease.in_flight.values() if other is not task]
        assert urgent == (not others)
        if others:
            assert not task.alone, "a task that may run once waits behind another"
            assert not any(other.alone for other in others), "a task waits behind one that may run once"
            assert sum(other.charge for other in others) <= BUDGET, "too much work waits at one worker"
            assert len(others) < MAX_IN_FLIGHT
        self.pushed.append((lease, task))
        self.urgent.append(urgent)

    def demand(self, scheduling_class: SchedulingClass, count: int) -> None:
        self.demands.append((scheduling_class.class_id, count))

    def forget(self, scheduling_class: SchedulingClass) -> None:
        assert scheduling_class.is_idle, "a class is forgotten that has something, or wants something"
        self.forgotten.append(scheduling_class)

    def return_lease(self, lease: Lease) -> None:
        assert not lease.in_flight, "a lease is given back while a task is there"
        assert lease not in self.given_back, "a lease is given back twice"
        self.given_back.append(lease)

    def steal(self, lease: Lease, count: int) -> None:
        self.stolen.append((lease, count))

    def sweep_later(self) -> None:
        self.sweeps += 1


class Owner:
    """A machine with what a test of it needs."""

    def __init__(self) -> None:
        self.effects = Effects()
        self.machine = TaskSubmission(self.effects)
        self.cls = self.machine.scheduling_class("class", SPEC)
        self.numbers = count(1)
        self.stats = FunctionStats()

    def submit(
        self, *, stats: FunctionStats | None = None, retries: int = 3, cls: SchedulingClass | None = None
    ) -> PendingTask:
        push = TaskPush(b"task%d" % next(self.numbers), 0, b"f", b"job", None, 1, "f")
        task = PendingTask(push, cls or self.cls, stats or self.stats, retries)
        self.machine.ready(task)
        return task

    def grant(self, number: int) -> Lease:
        return self.machine.granted(self.cls.class_id, number, worker_address(number))

    def finish(self, task: PendingTask, duration: float = 0.001) -> None:
        self.machine.finished(task, duration)
        self.machine.dispatch(self.cls)

    def give_back(self, lease: Lease, tasks: list[PendingTask], blocked: bool = False) -> list[PendingTask]:
        ids = [task.push.task_id for task in tasks]
        return self.machine.returned(ids, lease.worker.address.worker_id, blocked)


@pytest.fixture
def owner() -> Owner:
    return Owner()


def fast(seconds: float = 0.0001) -> FunctionStats:
    stats = FunctionStats()
    stats.observe(seconds)
    return stats


# -- queues and leases -----------------------------------------------------------------------------------------------


def test_a_task_without_a_lease_asks_for_one(owner: Owner) -> None:
    task = owner.submit()
    assert task.state == QUEUED
    assert owner.effects.demands == [(owner.cls.class_id, 1)]


def test_a_granted_worker_gets_the_first_task_at_once(owner: Owner) -> None:
    first, second = owner.submit(), owner.submit()
    lease = owner.grant(1)
    assert owner.effects.pushed == [(lease, first)]
    assert owner.effects.urgent == [True]
    assert (first.state, second.state) == (PUSHED, QUEUED)


def test_the_same_key_is_the_same_class(owner: Owner) -> None:
    assert owner.machine.scheduling_class("class", SPEC) is owner.cls
    assert owner.machine.scheduling_class("other", SPEC) is not owner.cls


def test_tasks_of_one_class_are_pushed_in_their_order(owner: Owner) -> None:
    tasks = [owner.submit(stats=fast()) for _ in range(10)]
    owner.grant(1)
    assert [task for _, task in owner.effects.pushed] == tasks


def test_the_demand_grows_when_the_wish_has_doubled_and_not_for_every_task(owner: Owner) -> None:
    for _ in range(100):
        owner.submit()
    counts = [wanted for _, wanted in owner.effects.demands]
    assert counts == sorted(counts)
    assert len(counts) <= 8
    assert counts[-1] >= 50


def test_the_demand_has_a_limit(owner: Owner) -> None:
    for _ in range(2 * MAX_DEMAND):
        owner.submit()
    assert max(wanted for _, wanted in owner.effects.demands) <= MAX_DEMAND


def test_short_tasks_ask_for_as_many_workers_as_their_work_needs(owner: Owner) -> None:
    owner.stats.observe(BUDGET / 10)
    for _ in range(40):
        owner.submit()
    assert owner.effects.demands[-1][1] <= 8


def test_the_demand_is_withdrawn_when_nothing_waits(owner: Owner) -> None:
    tasks = [owner.submit() for _ in range(3)]
    owner.grant(1)
    for task in tasks:
        owner.finish(task, 0.00001)
    assert owner.effects.demands[-1] == (owner.cls.class_id, 0)


def test_a_cancelled_task_withdraws_its_demand(owner: Owner) -> None:
    owner.machine.drop(owner.submit())
    assert owner.effects.demands[-1] == (owner.cls.class_id, 0)
    assert not owner.cls.queue


def test_a_lease_with_nothing_to_do_goes_back_after_two_sweeps(owner: Owner) -> None:
    task = owner.submit()
    lease = owner.grant(1)
    owner.finish(task)
    owner.machine.sweep()
    assert owner.effects.given_back == []
    owner.machine.sweep()
    assert owner.effects.given_back == [lease]


def test_a_lease_whose_task_outlived_the_sweeps_goes_back_too(owner: Owner) -> None:
    task = owner.submit()
    lease = owner.grant(1)
    asked = owner.effects.sweeps
    owner.machine.sweep()
    assert owner.effects.sweeps == asked  # one long task needs no looking at
    owner.finish(task, 10.0)
    assert owner.effects.sweeps == asked + 1
    owner.machine.sweep()
    owner.machine.sweep()
    assert owner.effects.given_back == [lease]


def test_a_lease_that_nobody_needed_goes_back(owner: Owner) -> None:
    task = owner.submit()
    owner.grant(1)
    extra = owner.grant(2)
    owner.machine.sweep()
    owner.machine.sweep()
    assert owner.effects.given_back == [extra]
    owner.finish(task)


def test_while_closing_a_grant_is_given_back(owner: Owner) -> None:
    owner.machine.give_back_all()
    lease = owner.grant(1)
    assert owner.effects.given_back == [lease]


def test_a_class_that_cannot_be_served_fails_what_waits(owner: Owner) -> None:
    tasks = [owner.submit() for _ in range(3)]
    assert owner.machine.refused(owner.cls.class_id) == tasks
    assert not owner.cls.queue


# -- classes ---------------------------------------------------------------------------------------------------------


def test_a_task_that_runs_again_near_its_arguments_makes_no_class_after_class(owner: Owner) -> None:
    near = owner.machine.class_near(owner.cls, b"a")
    assert owner.machine.class_near(near, b"a") is near
    other = owner.machine.class_near(near, b"b")
    assert owner.machine.class_near(other, b"a") is near
    assert owner.machine.class_near(other, b"") is owner.cls
    assert len(owner.machine.classes) == 3
    assert (near.near, other.near) == (b"a", b"b")


def test_classes_with_nothing_to_do_are_forgotten_the_oldest_first(owner: Owner) -> None:
    busy = owner.submit()
    idle = [owner.machine.scheduling_class(number, SPEC) for number in range(KEPT + 20)]
    owner.machine.sweep()
    assert owner.effects.forgotten == idle[:21]
    assert len(owner.machine.classes) == KEPT
    owner.finish(busy)


def test_a_forgotten_class_is_known_again_when_it_has_tasks(owner: Owner) -> None:
    idle = [owner.machine.scheduling_class(number, SPEC) for number in range(KEPT + 1)]
    owner.machine.sweep()
    cls = owner.cls
    assert owner.effects.forgotten == [cls, idle[0]][: len(owner.effects.forgotten)]
    task = owner.submit()
    assert owner.machine.classes[cls.class_id] is cls
    assert owner.machine.scheduling_class("class", SPEC) is cls
    lease = owner.grant(1)
    assert owner.effects.pushed == [(lease, task)]


def test_a_worker_for_a_forgotten_class_goes_back(owner: Owner) -> None:
    for number in range(KEPT + 1):
        owner.machine.scheduling_class(number, SPEC)
    owner.machine.sweep()
    assert owner.cls in owner.effects.forgotten
    lease = owner.grant(1)
    assert owner.effects.given_back == [lease]
    assert not owner.machine.leases
    assert owner.machine.refused(owner.cls.class_id) == []


# -- strategies ------------------------------------------------------------------------------------------------------

CHOOSY = LeaseSpec({"CPU": 10000}, b"job", strategy=b"SPREAD")


def test_idle_leases_go_back_before_a_task_with_a_strategy_asks_for_one(owner: Owner) -> None:
    lease, busy = None, owner.submit()
    lease = owner.grant(1)
    working = owner.submit()
    owner.grant(2)
    owner.finish(busy)
    assert owner.effects.given_back == []
    owner.submit(cls=owner.machine.scheduling_class("choosy", CHOOSY))
    assert owner.effects.given_back == [lease]
    assert working.state == PUSHED


def test_the_lease_of_a_task_with_a_strategy_goes_back_at_once(owner: Owner) -> None:
    cls = owner.machine.scheduling_class("choosy", CHOOSY)
    first, second = owner.submit(cls=cls), owner.submit(cls=cls)
    lease = owner.machine.granted(cls.class_id, 1, worker_address(1))
    owner.machine.finished(first, 0.001)
    owner.machine.dispatch(cls)
    assert second.state == PUSHED
    assert owner.effects.given_back == []
    owner.machine.finished(second, 0.001)
    owner.machine.dispatch(cls)
    assert owner.effects.given_back == [lease]


# -- sending ahead ---------------------------------------------------------------------------------------------------


def test_short_tasks_pipeline_up_to_the_budget(owner: Owner) -> None:
    owner.stats.observe(BUDGET / 10)
    for _ in range(100):
        owner.submit()
    lease = owner.grant(1)
    assert 9 <= len(lease.in_flight) <= 11


def test_never_more_than_so_many_are_unanswered(owner: Owner) -> None:
    stats = fast(0.0)
    for _ in range(MAX_IN_FLIGHT + 100):
        owner.submit(stats=stats)
    lease = owner.grant(1)
    assert len(lease.in_flight) == MAX_IN_FLIGHT


def test_long_tasks_wait_at_the_owner(owner: Owner) -> None:
    owner.stats.observe(1.0)
    for _ in range(3):
        owner.submit()
    assert len(owner.grant(1).in_flight) == 1


def test_a_function_that_never_ran_counts_as_long(owner: Owner) -> None:
    owner.submit()
    owner.submit()
    assert len(owner.grant(1).in_flight) == 1


def test_a_task_that_may_run_once_shares_no_worker(owner: Owner) -> None:
    stats = fast()
    once = owner.submit(stats=stats, retries=0)
    owner.submit(stats=stats)
    lease = owner.grant(1)
    assert list(lease.in_flight.values()) == [once]
    owner.finish(once)
    once_more = owner.submit(stats=stats, retries=0)
    assert once_more.state == QUEUED


def test_an_idle_worker_gets_the_task_before_a_busy_one(owner: Owner) -> None:
    stats = fast()
    first, second = owner.submit(stats=stats, retries=0), owner.submit(stats=stats, retries=0)
    leases = [owner.grant(1), owner.grant(2)]
    owner.finish(first)
    owner.finish(second)
    for _ in range(10):
        busy = owner.submit(stats=stats)
        task = owner.submit(stats=stats)
        assert busy.lease is not task.lease
        owner.finish(task)
        again = owner.submit(stats=stats)
        assert again.lease is not busy.lease
        owner.finish(again)
        owner.finish(busy)
    assert all(not lease.in_flight for lease in leases)


def test_short_tasks_spread_over_all_workers(owner: Owner) -> None:
    stats = fast(BUDGET / 100)
    leases = [owner.grant(number) for number in range(1, 5)]
    for _ in range(100):
        owner.submit(stats=stats)
    assert {len(lease.in_flight) for lease in leases} == {25}


def test_the_estimate_is_a_moving_average(owner: Owner) -> None:
    stats = FunctionStats()
    assert stats.estimate == UNKNOWN
    stats.observe(1.0)
    assert stats.estimate == 1.0
    stats.observe(2.0)
    assert 1.0 < stats.estimate < 2.0


# -- stealing, blocking, revoking ------------------------------------------------------------------------------------


def piled(owner: Owner, size: int = 5) -> tuple[Lease, list[PendingTask]]:
    """A worker at which several tasks lie that were thought to be short."""
    stats = fast(BUDGET / 50)
    tasks = [owner.submit(stats=stats) for _ in range(size)]
    lease = owner.grant(1)
    assert len(lease.in_flight) == size
    return lease, tasks


def test_what_lies_behind_a_task_without_progress_is_stolen_back(owner: Owner) -> None:
    lease, _ = piled(owner)
    owner.machine.sweep()
    owner.machine.sweep()
    assert owner.effects.stolen == [(lease, 4)]
    owner.machine.sweep()
    assert len(owner.effects.stolen) == 1  # not asked again before the answer


def test_stolen_tasks_go_elsewhere_in_their_order(owner: Owner) -> None:
    _, tasks = piled(owner)
    owner.machine.sweep()
    owner.machine.sweep()
    stuck = tasks[0].lease
    assert stuck is not None
    owner.give_back(stuck, tasks[1:])
    assert [task.state for task in tasks] == [PUSHED, QUEUED, QUEUED, QUEUED, QUEUED]
    other = owner.grant(2)
    assert list(other.in_flight.values())[0] is tasks[1]
    short = owner.submit(stats=fast(0.0))
    assert short.lease is not stuck


def test_stolen_tasks_are_not_sent_to_the_same_worker_again(owner: Owner) -> None:
    front = owner.submit(stats=fast(BUDGET / 50))
    behind = [owner.submit(stats=fast(0.0)) for _ in range(3)]
    lease = owner.grant(1)
    owner.machine.sweep()
    owner.machine.sweep()
    owner.give_back(lease, behind)
    assert list(lease.in_flight.values()) == [front]
    owner.finish(front, 1.0)
    assert list(lease.in_flight.values()) == behind


def test_a_worker_with_progress_keeps_its_tasks(owner: Owner) -> None:
    _, tasks = piled(owner)
    owner.machine.sweep()
    owner.finish(tasks[0])
    owner.machine.sweep()
    assert owner.effects.stolen == []


def test_a_blocked_worker_gets_nothing_until_it_has_finished_a_task(owner: Owner) -> None:
    lease, tasks = piled(owner)
    owner.give_back(lease, tasks[1:], blocked=True)
    assert list(lease.in_flight.values()) == [tasks[0]]
    owner.submit(stats=fast())
    assert len(lease.in_flight) == 1
    owner.finish(tasks[0])
    assert list(lease.in_flight.values())[0] is tasks[1]


def test_an_idle_lease_that_is_revoked_goes_back_at_once(owner: Owner) -> None:
    task = owner.submit()
    lease = owner.grant(1)
    owner.finish(task)
    owner.machine.revoked(1)
    assert owner.effects.given_back == [lease]


def test_a_busy_lease_that_is_revoked_goes_back_after_its_current_task(owner: Owner) -> None:
    lease, tasks = piled(owner)
    owner.machine.revoked(1)
    assert owner.effects.stolen == [(lease, 4)]
    owner.submit(stats=fast(0.0))
    assert len(lease.in_flight) == 5
    owner.give_back(lease, tasks[1:])
    owner.finish(tasks[0])
    assert owner.effects.given_back == [lease]


def test_revoking_what_is_not_there_does_nothing(owner: Owner) -> None:
    owner.machine.revoked(99)
    assert owner.effects.given_back == []


def test_a_cancelled_task_that_comes_back_is_handed_to_the_caller_to_end(owner: Owner) -> None:
    lease, tasks = piled(owner)
    tasks[2].cancelled = True
    assert owner.give_back(lease, tasks[1:], blocked=True) == [tasks[2]]
    assert list(owner.cls.queue) == [tasks[1], tasks[3], tasks[4]]


# -- ends of workers -------------------------------------------------------------------------------------------------


def test_what_was_at_a_worker_that_died_comes_back_in_order(owner: Owner) -> None:
    lease, tasks = piled(owner)
    assert owner.machine.worker_left(lease.worker.address.worker_id) == tasks
    assert owner.machine.leases == {}
    assert owner.machine.worker_left(lease.worker.address.worker_id) == []


def test_what_had_not_begun_at_a_worker_that_leaves_goes_elsewhere(owner: Owner) -> None:
    lease, tasks = piled(owner)
    owner.machine.finished(tasks[0], 0.001)
    tasks[2].cancelled = True
    assert owner.machine.worker_leaving(lease.worker.address.worker_id) == [tasks[2]]
    other = owner.grant(2)
    assert list(other.in_flight.values()) == [tasks[1], tasks[3], tasks[4]]
    assert owner.effects.given_back == []  # the head knows that the worker is gone


def test_a_task_that_failed_may_be_queued_again(owner: Owner) -> None:
    task = owner.submit()
    owner.grant(1)
    owner.machine.finished(task, 0.001)
    owner.machine.requeue(task)
    assert (task.state, task.attempt) == (PUSHED, 1)


# -- any order of events ---------------------------------------------------------------------------------------------


class Submissions(RuleBasedStateMachine):
    """The machine between a head that grants, revokes and forgets, and workers that run, block, return and die."""

    @initialize()
    def start(self) -> None:
        self.owner = Owner()
        self.machine = self.owner.machine
        self.lease_numbers = count(1)
        self.functions = [FunctionStats(), fast(BUDGET / 50), fast(BUDGET / 5), fast(1.0)]
        self.tasks: list[PendingTask] = []
        self.ended: list[PendingTask] = []
        self.demands_of_head = 0

    def hear(self) -> None:
        """The head has read all demands so far."""
        if self.owner.effects.demands:
            self.demands_of_head = self.owner.effects.demands[-1][1]
            self.owner.effects.demands.clear()

    def end(self, task: PendingTask) -> None:
        assert task not in self.ended, "a task ends twice"
        self.ended.append(task)

    def lease(self, which: int) -> Lease:
        leases = list(self.machine.leases.values())
        return leases[which % len(leases)]

    def busy(self) -> list[Lease]:
        return [lease for lease in self.machine.leases.values() if lease.in_flight]

    @rule(function=st.integers(0, 7), retries=st.integers(0, 4), number=st.integers(1, 4))
    def submit(self, function: int, retries: int, number: int) -> None:
        stats = self.functions[function if function < 4 else 1]
        for _ in range(number):
            self.tasks.append(self.owner.submit(stats=stats, retries=retries))
        self.hear()

    @precondition(lambda self: self.demands_of_head)
    @rule()
    def grant(self) -> None:
        self.demands_of_head -= 1
        self.owner.grant(next(self.lease_numbers))
        self.hear()

    @precondition(lambda self: self.busy())
    @rule(which=st.integers(0, 20), duration=st.sampled_from([None, None, None, 1.0]), retry=st.booleans())
    def answer(self, which: int, duration: float | None, retry: bool) -> None:
        busy = self.busy()
        task = next(iter(busy[which % len(busy)].in_flight.values()))
        expected = min(task.stats.estimate, 1.0)
        self.machine.finished(task, expected if duration is None else duration)
        if retry and not task.cancelled and task.retries_left:
            task.retries_left -= 1
            self.machine.requeue(task)
        else:
            self.end(task)
        self.machine.dispatch(self.owner.cls)
        self.hear()

    @precondition(lambda self: self.busy())
    @rule(which=st.integers(0, 20), size=st.integers(0, 5), blocked=st.booleans())
    def give_back(self, which: int, size: int, blocked: bool) -> None:
        busy = self.busy()
        lease = busy[which % len(busy)]
        behind = list(lease.in_flight.values())[1:]
        if not blocked:
            behind = behind[len(behind) - size :] if size < len(behind) else behind
        for task in self.owner.give_back(lease, behind, blocked):
            assert task.cancelled
            self.machine.drop(task)
            self.end(task)
        self.hear()

    @precondition(lambda self: self.machine.leases)
    @rule(which=st.integers(0, 20))
    def revoke(self, which: int) -> None:
        self.machine.revoked(self.lease(which).lease_id)
        self.hear()

    @precondition(lambda self: self.machine.leases)
    @rule(which=st.integers(0, 20))
    def kill(self, which: int) -> None:
        for task in reversed(self.machine.worker_left(self.lease(which).worker.address.worker_id)):
            if task.cancelled or (task.alone and not task.retries_left):
                self.machine.drop(task)
                self.end(task)
            else:
                task.attempt += 1
                self.owner.cls.queue.appendleft(task)
        self.machine.dispatch(self.owner.cls)
        self.hear()

    @precondition(lambda self: self.busy())
    @rule(which=st.integers(0, 20))
    def leave(self, which: int) -> None:
        busy = self.busy()
        lease = busy[which % len(busy)]
        task = next(iter(lease.in_flight.values()))
        self.machine.finished(task, 0.001)
        self.end(task)
        for lost in self.machine.worker_leaving(lease.worker.address.worker_id):
            self.machine.drop(lost)
            self.end(lost)
        self.machine.dispatch(self.owner.cls)
        self.hear()

    @precondition(lambda self: len(self.tasks) > len(self.ended))
    @rule(which=st.integers(0, 50))
    def cancel(self, which: int) -> None:
        living = [task for task in self.tasks if task.state != DONE]
        task = living[which % len(living)]
        task.cancelled = True
        if task.state == QUEUED:
            self.machine.drop(task)
            self.end(task)
        self.hear()

    @precondition(lambda self: self.machine._sweeping)
    @rule()
    def sweep(self) -> None:
        self.machine.sweep()
        self.hear()

    @invariant()
    def each_task_is_at_one_place(self) -> None:
        if not hasattr(self, "owner"):
            return
        queued = [task for task in self.owner.cls.queue if not task.cancelled]
        placed = queued + [task for lease in self.machine.leases.values() for task in lease.in_flight.values()]
        assert sorted(map(id, placed + self.ended)) == sorted(map(id, self.tasks))
        assert all(task.state == QUEUED for task in queued)

    @invariant()
    def whoever_waits_has_a_demand_or_a_lease(self) -> None:
        if not hasattr(self, "owner"):
            return
        if any(not task.cancelled for task in self.owner.cls.queue):
            assert self.demands_of_head or self.busy(), "tasks wait, and nothing will ever come"
            idle = [lease for lease in self.machine.leases.values() if not lease.in_flight and not lease.blocked]
            assert all(lease.revoked for lease in idle), "a worker has nothing to do while tasks wait"
        else:
            assert not self.demands_of_head, "nobody waits, and the demand stands"

    @invariant()
    def the_books_agree(self) -> None:
        if not hasattr(self, "owner"):
            return
        cls, leases = self.owner.cls, self.machine.leases
        assert cls.leases == leases
        assert sorted(map(id, self.machine.by_worker.values())) == sorted(map(id, leases.values()))
        listed = [lease for lease in leases.values() if lease.listed]
        assert sorted(map(id, cls.open)) == sorted(map(id, listed))
        for lease in leases.values():
            assert not (lease.listed and (lease.revoked or lease.blocked))
            assert lease.load >= -1e-9
            assert lease.in_flight or (lease.load == 0.0 and self.machine._sweeping)

    def teardown(self) -> None:
        """Left alone, everything is answered, every lease goes back and every demand is withdrawn."""
        if not hasattr(self, "owner"):
            return
        for _ in range(10_000):
            if self.busy():
                self.answer(0, 0.001, False)
            elif self.demands_of_head:
                self.grant()
            elif self.machine._sweeping:
                self.sweep()
            else:
                break
        assert len(self.ended) == len(self.tasks)
        assert self.machine.leases == {}
        assert not self.owner.cls.queue
        assert self.owner.cls.demanded == self.demands_of_head == 0


TestSubmissions = Submissions.TestCase
TestSubmissions.settings = settings(max_examples=200, stateful_step_count=50)
