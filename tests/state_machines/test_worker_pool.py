"""The worker pool: who serves a lease, who is started, who is sent home."""

from collections import Counter
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from miniray.state_machines.worker_pool import (
    ATTEMPTS,
    FORGET_AFTER,
    IDLE,
    IDLE_SECONDS,
    LEASED,
    LEAVING,
    REGISTER_WITHIN,
    STARTING,
    Assign,
    Dismiss,
    Forget,
    Kill,
    Prepare,
    Refuse,
    Start,
    WorkerPool,
)

KIND = (b"node", "")
WITH_ENV = (b"node", '{"pip": []}')
ENV = WITH_ENV[1]
JOB_A, JOB_B = b"jobA", b"jobB"


def pool(*idle, soft_limit=2):
    machine = WorkerPool(starting_limit=4)
    machine.add_node(b"node", soft_limit)
    for worker_id in idle:
        machine.prestart(KIND, worker_id, 0.0)
        machine.registered(worker_id, 0.0)
    return machine


def assigned(effects):
    return [(effect.lease_id, effect.worker_id) for effect in effects if isinstance(effect, Assign)]


def test_an_idle_worker_serves_at_once():
    machine = pool(b"w1")
    machine.request(1, KIND, JOB_A)
    assert machine.schedule(0.0) == [Assign(1, b"w1")]


def test_a_worker_is_used_again_by_its_job_and_never_by_another():
    machine = pool(b"w1")
    machine.request(1, KIND, JOB_A)
    machine.schedule(0.0)
    machine.returned(b"w1", False, 0.0)
    machine.request(2, KIND, JOB_B)
    assert machine.schedule(0.0) == [Start(KIND)]
    machine.request(3, KIND, JOB_A)
    assert assigned(machine.schedule(0.0)) == [(3, b"w1")]


def test_the_most_recently_used_worker_goes_first():
    machine = pool(b"w1", b"w2")
    for lease_id in (1, 2):
        machine.request(lease_id, KIND, JOB_A)
    (first, second) = (worker for _, worker in assigned(machine.schedule(0.0)))
    machine.returned(second, False, 0.0)
    machine.returned(first, False, 0.1)
    machine.request(3, KIND, JOB_A)
    assert assigned(machine.schedule(0.2)) == [(3, first)]


def test_never_more_workers_start_than_are_wanted():
    machine = pool()
    machine.request(1, KIND, JOB_A)
    assert machine.schedule(0.0) == [Start(KIND)]
    assert machine.schedule(0.0) == []
    machine.request(2, KIND, JOB_A)
    assert machine.schedule(0.0) == [Start(KIND)]


def test_only_so_many_start_at_once():
    machine = pool()
    for lease_id in range(10):
        machine.request(lease_id, KIND, JOB_A)
    assert machine.schedule(0.0) == [Start(KIND)] * 4


def test_a_worker_that_comes_up_after_its_request_was_withdrawn_waits_idle():
    machine = pool()
    machine.request(1, KIND, JOB_A)
    machine.schedule(0.0)
    machine.starting(b"w1", KIND, 0.0)
    machine.withdraw(1)
    machine.registered(b"w1", 0.1)
    assert machine.schedule(0.1) == []
    assert machine.workers[b"w1"].state == IDLE


def test_failures_in_a_row_refuse_the_requests():
    machine = pool()
    machine.request(1, KIND, JOB_A)
    for number in range(ATTEMPTS):
        assert machine.schedule(0.0) == [Start(KIND)]
        worker_id = b"w%d" % number
        machine.starting(worker_id, KIND, 0.0)
        _, effects = machine.died(worker_id)
    assert effects == [Refuse(KIND, [1])]
    assert machine.schedule(0.0) == []


def test_a_worker_that_never_registers_is_killed_once():
    machine = pool()
    machine.request(1, KIND, JOB_A)
    machine.schedule(0.0)
    machine.starting(b"w1", KIND, 0.0)
    machine.schedule(0.0)
    assert machine.wake_at == REGISTER_WITHIN
    assert machine.schedule(REGISTER_WITHIN) == [Kill(b"w1")]
    assert machine.schedule(REGISTER_WITHIN + 0.1) == []  # it takes a moment to end


def test_idle_workers_beyond_the_soft_limit_leave_after_a_while():
    machine = pool(b"w1", b"w2", b"w3", soft_limit=2)
    assert machine.schedule(0.5) == []
    assert machine.wake_at == IDLE_SECONDS
    assert [type(effect) for effect in machine.schedule(IDLE_SECONDS)] == [Dismiss]
    assert machine.schedule(100.0) == []
    assert machine.wake_at is None


def test_a_worker_that_reached_max_calls_is_not_used_again():
    machine = pool(b"w1")
    machine.request(1, KIND, JOB_A)
    machine.schedule(0.0)
    machine.returned(b"w1", True, 0.0)
    machine.request(2, KIND, JOB_A)
    assert machine.schedule(0.0) == [Start(KIND)]


def test_a_finished_job_takes_its_workers_with_it():
    machine = pool(b"w1", b"w2")
    machine.request(1, KIND, JOB_A)
    machine.schedule(0.0)
    used = next(worker.worker_id for worker in machine.workers.values() if worker.job_id)
    assert machine.job_finished(JOB_A) == [used]
    assert Counter(worker.state for worker in machine.workers.values()) == {IDLE: 1, LEAVING: 1}


def test_an_environment_is_prepared_once_before_its_first_worker_starts():
    machine = pool()
    machine.request(1, WITH_ENV, JOB_A)
    machine.request(2, WITH_ENV, JOB_A)
    assert machine.schedule(0.0) == [Prepare(ENV)]
    assert machine.schedule(1.0) == []
    machine.prepared(ENV, 1.0)
    assert machine.schedule(1.0) == [Start(WITH_ENV), Start(WITH_ENV)]


def test_an_environment_that_cannot_be_had_refuses_those_who_wait_for_it():
    machine = pool()
    machine.request(1, WITH_ENV, JOB_A)
    machine.request(2, KIND, JOB_A)
    assert machine.schedule(0.0) == [Prepare(ENV), Start(KIND)]
    assert machine.unprepared(ENV) == [Refuse(WITH_ENV, [1])]
    assert machine.schedule(0.0) == []
    machine.request(3, WITH_ENV, JOB_A)
    assert machine.schedule(0.0) == [Prepare(ENV)]


def test_an_environment_can_be_prepared_before_anybody_needs_it():
    machine = pool()
    machine.want(ENV)
    assert machine.schedule(0.0) == [Prepare(ENV)]
    machine.prepared(ENV, 0.0)
    machine.request(1, WITH_ENV, JOB_A)
    assert machine.schedule(0.0) == [Start(WITH_ENV)]


def test_a_worker_serves_its_own_environment_only():
    machine = pool(b"w1")
    machine.request(1, WITH_ENV, JOB_A)
    machine.schedule(0.0)
    machine.prepared(ENV, 0.0)
    assert machine.schedule(0.0) == [Start(WITH_ENV)]
    machine.starting(b"w2", WITH_ENV, 0.0)
    machine.registered(b"w2", 0.0)
    assert assigned(machine.schedule(0.0)) == [(1, b"w2")]
    machine.returned(b"w2", False, 0.0)
    machine.request(2, KIND, JOB_A)
    assert assigned(machine.schedule(0.0)) == [(2, b"w1")]


def pool_with_a_start(worker_id):
    """A pool whose environment is ready, and which starts this worker in it."""
    machine = pool()
    machine.request(1, WITH_ENV, JOB_A)
    machine.schedule(0.0)
    machine.prepared(ENV, 0.0)
    machine.schedule(0.0)
    machine.starting(worker_id, WITH_ENV, 0.0)
    return machine


def test_an_environment_without_workers_is_forgotten_after_a_while():
    machine = pool_with_a_start(b"w1")
    machine.registered(b"w1", 0.0)
    machine.schedule(FORGET_AFTER)
    assert machine.schedule(2 * FORGET_AFTER) == []
    machine.died(b"w1")
    assert machine.schedule(2 * FORGET_AFTER) == []
    assert machine.wake_at == 3 * FORGET_AFTER
    assert machine.schedule(3 * FORGET_AFTER) == [Forget(ENV)]


def test_a_kind_of_worker_that_nobody_uses_any_more_leaves_nothing():
    machine = pool_with_a_start(b"fails")
    machine.died(b"fails")
    machine.schedule(0.0)
    machine.starting(b"w1", WITH_ENV, 0.0)
    machine.registered(b"w1", 0.0)
    assert assigned(machine.schedule(0.0)) == [(1, b"w1")]
    machine.returned(b"w1", False, 0.0)
    machine.leaving(b"w1")
    machine.died(b"w1")
    machine.schedule(0.0)
    machine.schedule(FORGET_AFTER)
    assert WITH_ENV not in {*machine._idle, *machine._starting, *machine._failures, *machine._requests}
    assert not machine._environments


class Life(RuleBasedStateMachine):
    """Requests, starts, returns and deaths in any order: every request is served by one worker, or refused."""

    def __init__(self):
        super().__init__()
        self.pool = pool()
        self.now = 0.0
        self.numbers = count(1)
        self.waiting = set()
        self.serving = {}
        self.preparing = False
        self.ready = False

    @rule(job=st.sampled_from([JOB_A, JOB_B]), kind=st.sampled_from([KIND, KIND, WITH_ENV]))
    def request(self, job, kind):
        lease_id = next(self.numbers)
        self.pool.request(lease_id, kind, job)
        self.waiting.add(lease_id)

    @precondition(lambda self: self.waiting)
    @rule()
    def withdraw(self):
        self.pool.withdraw(self.waiting.pop())

    @rule(seconds=st.sampled_from([0.0, 0.5, 2.0]))
    def schedule(self, seconds):
        self.now += seconds
        for effect in self.pool.schedule(self.now):
            if isinstance(effect, Assign):
                self.waiting.remove(effect.lease_id)
                assert effect.worker_id not in self.serving.values()
                self.serving[effect.lease_id] = effect.worker_id
            elif isinstance(effect, Start):
                assert effect.kind == KIND or self.ready
                self.pool.starting(b"w%d" % next(self.numbers), effect.kind, self.now)
            elif isinstance(effect, Prepare):
                assert not self.preparing and not self.ready
                self.preparing = True
            elif isinstance(effect, Forget):
                assert self.ready and not any(worker.kind == WITH_ENV for worker in self.pool.workers.values())
                self.ready = False

    @precondition(lambda self: self.preparing)
    @rule(succeeds=st.booleans())
    def end_of_preparation(self, succeeds):
        self.preparing = False
        if succeeds:
            self.ready = True
            self.pool.prepared(ENV, self.now)
        else:
            for refusal in self.pool.unprepared(ENV):
                self.waiting -= set(refusal.lease_ids)

    def _some(self, state, choice):
        workers = [worker for worker in self.pool.workers.values() if worker.state == state]
        return workers[choice % len(workers)].worker_id if workers else None

    @rule(choice=st.integers(0, 9))
    def register(self, choice):
        worker_id = self._some(STARTING, choice)
        if worker_id:
            assert self.pool.registered(worker_id, self.now)

    @rule(choice=st.integers(0, 9), exiting=st.booleans())
    def give_back(self, choice, exiting):
        worker_id = self._some(LEASED, choice)
        if worker_id:
            self.serving = {lease: worker for lease, worker in self.serving.items() if worker != worker_id}
            self.pool.returned(worker_id, exiting, self.now)

    @rule(state=st.sampled_from([STARTING, IDLE, LEASED, LEAVING]), choice=st.integers(0, 9))
    def die(self, state, choice):
        worker_id = self._some(state, choice)
        if worker_id:
            worker, effects = self.pool.died(worker_id)
            assert worker.worker_id == worker_id
            self.serving.pop(worker.lease_id, None)
            for effect in effects:
                self.waiting -= set(effect.lease_ids)

    @invariant()
    def who_serves_is_leased(self):
        leased = {worker.worker_id for worker in self.pool.workers.values() if worker.state == LEASED}
        assert leased == set(self.serving.values())

    @invariant()
    def starting_stays_bounded(self):
        assert sum(worker.state == STARTING for worker in self.pool.workers.values()) <= 4

    def teardown(self):
        for _ in range(200):
            self.schedule(0.0)
            if self.preparing:
                self.end_of_preparation(True)
            for worker in [worker for worker in self.pool.workers.values() if worker.state == STARTING]:
                self.pool.registered(worker.worker_id, self.now)
            for worker_id in list(self.serving.values()):
                self.pool.returned(worker_id, True, self.now)
                self.pool.died(worker_id)
            self.serving.clear()
            if not self.waiting:
                return
        raise AssertionError(f"never served: {self.waiting}")


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=80, stateful_step_count=30)
