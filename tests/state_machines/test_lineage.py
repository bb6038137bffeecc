"""Lost objects are made again when they can be, and given up with the right reason when not: against a plain oracle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from miniray.messages.objects import KIND_ERROR, Location, Payload
from miniray.state_machines.lineage import (
    LINEAGE_EVICTED,
    MAX_ATTEMPTS_EXCEEDED,
    PUT,
    RECORD_SIZE,
    RETRIES_DISABLED,
    Lineage,
    Record,
    Rerun,
)
from miniray.state_machines.reference_counter import ObjectEntry, ReferenceCounter


class Task:
    """A task of the model: its inputs, its outputs by id, and how often it may run again."""

    def __init__(self, number: int, inputs: list[ObjectEntry], outputs: int, retries: int) -> None:
        self.task_id = number.to_bytes(24, "little")
        self.inputs = inputs
        self.ids = [self.task_id + index.to_bytes(4, "little") for index in range(1, outputs + 1)]
        self.retries_left = retries
        self.attempts = 0


class Owner:
    """A reference counter whose tasks run when the test says so, and whose shared memory is a set of ids."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.counter = ReferenceCounter(b"me", self)
        self.lineage = self.counter.lineage
        self.lineage.limit = limit
        self.copies: set[bytes] = set()
        self.running: list[Task] = []
        self.given_up: dict[bytes, str] = {}
        self.number = 0

    # -- port of the counter --

    def free_value(self, entry: ObjectEntry) -> None:
        self.copies.discard(entry.object_id)

    def free_copy(self, entry: ObjectEntry) -> bool:
        if entry.payload.location is None:
            return False
        entry.payload = None
        self.copies.remove(entry.object_id)
        return True

    # -- the world --

    def put(self) -> ObjectEntry:
        self.number += 1
        entry = self.counter.own(self.number.to_bytes(24, "little") + b"put!")
        entry.local = 1
        self._fill(entry)
        return entry

    def run(self, inputs: list[ObjectEntry], outputs: int = 1, retries: int = 3) -> list[ObjectEntry]:
        """A task that is done at once; the refs of its returns are held."""
        self.number += 1
        task = Task(self.number, inputs, outputs, retries)
        made = []
        for object_id in task.ids:
            entry = self.counter.own(object_id)
            entry.local = 1
            made.append(entry)
        for entry in inputs:
            entry.submitted += 1
        self._finish(task)
        return made

    def _fill(self, entry: ObjectEntry) -> None:
        entry.payload = Payload(0, None, Location(b"node", "segment", 0, 1, b"me"))
        self.copies.add(entry.object_id)

    def _finish(self, task: Task) -> None:
        failed = any(entry.payload.kind == KIND_ERROR for entry in task.inputs)
        made = []
        for object_id in task.ids:
            entry = self.counter.objects.get(object_id)
            if entry is not None and entry.payload is None:
                if failed:
                    entry.payload = Payload(KIND_ERROR, b"")
                else:
                    self._fill(entry)
                    made.append(entry)
        if made:
            keep = self.lineage.keep(task.task_id, task, made, task.inputs, None, 0, task.attempts)
            self.counter.collect_all(keep)
        awaited, free = self.lineage.ended(task.task_id)
        assert all(entry.payload is not None for entry in awaited if entry.object_id in self.counter.objects)
        self.counter.collect_all(free)
        self.counter.release_submitted(task.inputs)

    def lose(self, entries: list[ObjectEntry]) -> None:
        """The copies of these are gone."""
        for entry in entries:
            self.copies.remove(entry.object_id)
            self.counter.value_lost(entry)
        for entry in entries:
            if not entry.in_use():
                entry.lineage.lost = True
        for effect in self.lineage.lost([entry for entry in entries if entry.in_use()]):
            if isinstance(effect, Rerun):
                task = effect.record.task
                task.attempts += 1
                for entry in task.inputs:
                    entry.submitted += 1
                self.running.append(task)
            else:
                effect.entry.payload = Payload(KIND_ERROR, b"")
                self.given_up[effect.entry.object_id] = effect.reason

    def runnable(self) -> list[Task]:
        return [task for task in self.running if all(entry.payload is not None for entry in task.inputs)]

    def finish_one(self, which: int = 0) -> None:
        tasks = self.runnable()
        task = tasks[which % len(tasks)]
        self.running.remove(task)
        self._finish(task)

    def drain(self) -> None:
        while self.running:
            assert self.runnable(), "tasks wait for each other"
            self.finish_one()

    def drop(self, entry: ObjectEntry) -> None:
        self.counter.release_local(entry)

    def value_of(self, entry: ObjectEntry) -> str:
        payload = entry.payload
        return "none" if payload is None else "error" if payload.kind == KIND_ERROR else "value"


@pytest.fixture
def owner() -> Owner:
    return Owner()


# -- stories ---------------------------------------------------------------------------------------------------------


def test_a_lost_object_is_made_again_by_its_task(owner: Owner) -> None:
    [made] = owner.run([])
    owner.lose([made])
    assert owner.value_of(made) == "none"
    owner.drain()
    assert owner.value_of(made) == "value"


def test_what_its_task_needs_is_made_again_first_however_deep(owner: Owner) -> None:
    chain = owner.run([])
    for _ in range(500):
        chain += owner.run([chain[-1]])
        owner.drop(chain[-2])
    last = chain[-1]
    assert owner.copies == {last.object_id}
    owner.lose([last])
    assert len(owner.running) == 501
    owner.drain()
    assert owner.value_of(last) == "value"
    assert owner.copies == {last.object_id}, "what is needed no more gives its memory back again"
    owner.drop(last)
    assert owner.counter.objects == {} and owner.lineage.used == 0


def test_one_run_makes_all_lost_returns_of_a_task(owner: Owner) -> None:
    first, second = owner.run([], outputs=2)
    owner.lose([first, second])
    assert len(owner.running) == 1
    owner.drain()
    assert owner.value_of(first) == owner.value_of(second) == "value"


def test_each_run_costs_a_retry(owner: Owner) -> None:
    [made] = owner.run([], retries=2)
    for _ in range(2):
        owner.lose([made])
        owner.drain()
        assert owner.value_of(made) == "value"
    owner.lose([made])
    assert owner.given_up == {made.object_id: MAX_ATTEMPTS_EXCEEDED}


def test_endless_retries_do_not_run_out(owner: Owner) -> None:
    [made] = owner.run([], retries=-1)
    for _ in range(20):
        owner.lose([made])
        owner.drain()
    assert owner.value_of(made) == "value"


def test_the_reasons_for_giving_up(owner: Owner) -> None:
    put = owner.put()
    [without] = owner.run([], retries=0)
    [old] = owner.run([])
    owner.lineage.limit = 0
    [new] = owner.run([])
    owner.lose([put, without, old, new])
    assert owner.given_up == {
        put.object_id: PUT,
        without.object_id: RETRIES_DISABLED,
        old.object_id: LINEAGE_EVICTED,
        new.object_id: LINEAGE_EVICTED,
    }


def test_the_oldest_records_go_first(owner: Owner) -> None:
    owner.lineage.limit = 2 * RECORD_SIZE
    made = [owner.run([])[0] for _ in range(3)]
    owner.lose(made)
    assert owner.given_up == {made[0].object_id: LINEAGE_EVICTED}


def test_an_argument_that_cannot_be_made_again_stays_for_what_is_made_from_it(owner: Owner) -> None:
    put = owner.put()
    [made] = owner.run([put])
    owner.drop(put)
    owner.lose([made])
    owner.drain()
    assert owner.value_of(made) == "value"
    owner.lose([put, made])
    owner.drain()
    assert owner.value_of(made) == "error"
    assert owner.given_up == {put.object_id: PUT}
    owner.drop(made)
    assert owner.counter.objects == {}


def test_a_run_that_nobody_waits_for_any_more_leaves_nothing(owner: Owner) -> None:
    [made] = owner.run([])
    owner.lose([made])
    owner.drop(made)
    owner.drain()
    assert owner.counter.objects == {} and owner.lineage.records == {} and owner.copies == set()


def test_news_of_a_task_that_is_not_remembered_change_nothing() -> None:
    assert Lineage().ended(b"unknown") == ([], [])


# -- the search ------------------------------------------------------------------------------------------------------

indices = st.integers(0, 30)


class Programs(RuleBasedStateMachine):
    """Tasks, refs that are dropped, copies that are lost, records that are evicted."""

    def __init__(self) -> None:
        super().__init__()
        self.owner = Owner()
        self.held: list[ObjectEntry] = []

    def some(self, which: list[int]) -> list[ObjectEntry]:
        return list(
            {id(entry): entry for i in which if self.held for entry in [self.held[i % len(self.held)]]}.values()
        )

    @rule()
    def put(self) -> None:
        self.held.append(self.owner.put())

    @rule(
        inputs=st.lists(indices, max_size=3),
        outputs=st.integers(1, 2),
        retries=st.sampled_from([-1, 0, 1, 2, 3]),
    )
    def run(self, inputs: list[int], outputs: int, retries: int) -> None:
        ready = [entry for entry in self.some(inputs) if entry.payload is not None]
        if all(entry.payload.kind != KIND_ERROR for entry in ready):
            self.held += self.owner.run(ready, outputs, retries)

    @rule(which=indices)
    def drop(self, which: int) -> None:
        if self.held:
            self.owner.drop(self.held.pop(which % len(self.held)))

    @rule(limit=st.integers(0, 6))
    def shrink(self, limit: int) -> None:
        self.owner.lineage.limit = limit * RECORD_SIZE

    @rule(which=st.lists(indices, min_size=1, max_size=6))
    def lose(self, which: list[int]) -> None:
        self.owner.lose(self.with_copies(which))

    @rule(which=st.lists(indices, min_size=1, max_size=6))
    def lose_when_quiet(self, which: list[int]) -> None:
        self.owner.drain()
        lost = self.with_copies(which)
        can = Oracle(self.owner, lost)
        expected = {entry.object_id: can.be_there(entry) for entry in self.held if entry.payload.kind != KIND_ERROR}
        limit, self.owner.lineage.limit = self.owner.lineage.limit, 1 << 30  # nothing is evicted meanwhile
        self.owner.lose(lost)
        self.owner.drain()
        self.owner.lineage.limit = limit
        for entry in self.held:
            if entry.object_id in expected:
                assert (self.owner.value_of(entry) == "value") == expected[entry.object_id]

    def with_copies(self, which: list[int]) -> list[ObjectEntry]:
        copies = sorted(self.owner.copies)
        chosen = {copies[index % len(copies)] for index in which} if copies else set()
        return [self.owner.counter.objects[object_id] for object_id in sorted(chosen)]

    @precondition(lambda self: self.owner.runnable())
    @rule(which=indices)
    def finish_one(self, which: int) -> None:
        self.owner.finish_one(which)

    @invariant()
    def who_is_held_is_there_or_comes(self) -> None:
        owner = self.owner
        coming = {object_id for task in owner.running for object_id in task.ids}
        for entry in self.held:
            assert entry.payload is not None or entry.object_id in coming
        for object_id, entry in owner.counter.objects.items():
            has_copy = entry.payload is not None and entry.payload.location is not None
            assert has_copy == (object_id in owner.copies)
            if not entry.in_use():
                assert entry.lineage is not None and entry.lineage.needed_by
                assert not has_copy or entry.lineage.made_by is None, "memory that only lineage needs"

    @invariant()
    def what_is_remembered_is_needed(self) -> None:
        lineage = self.owner.lineage
        assert lineage.used == sum(record.size for record in lineage.records.values())
        for record in lineage.records.values():
            assert record.outputs or record.running

    def teardown(self) -> None:
        self.owner.drain()
        for entry in self.held:
            self.owner.drop(entry)
        self.held = []
        assert self.owner.counter.objects == {}
        assert self.owner.lineage.records == {} and self.owner.lineage.used == 0
        assert self.owner.copies == set()


class Oracle:
    """Whether an object can be there after a loss: found by looking through the graph, without any machine."""

    def __init__(self, owner: Owner, lost: list[ObjectEntry]) -> None:
        self.lost = {entry.object_id for entry in lost}
        self.records: dict[bytes, Record] = {
            object_id: record for record in owner.lineage.records.values() for object_id in record.outputs
        }

    def be_there(self, entry: ObjectEntry) -> bool:
        payload = entry.payload
        if payload is not None and entry.object_id not in self.lost:
            return payload.kind != KIND_ERROR
        record = self.records.get(entry.object_id)
        if record is None or record.task.retries_left == 0:
            return False
        return all(self.be_there(item) for item in record.task.inputs)


def search(examples: int = 200, phases: Any = (Phase.generate, Phase.shrink)) -> None:
    run_state_machine_as_test(
        Programs,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            phases=phases,
            report_multiple_bugs=False,
        ),
    )


def test_what_can_be_made_again_is_and_nothing_is_left_over() -> None:
    search()


def forget_inputs(lineage: Lineage, task_id: bytes, record: Record) -> list[Any]:
    del lineage.records[task_id]
    lineage.used -= record.size
    return []


def only_the_first(lineage: Lineage, entries: Any) -> list[Any]:
    return _lost(lineage, entries)[:1]


_lost = Lineage.lost


@pytest.mark.parametrize(
    ("method", "planted"), [("_drop", forget_inputs), ("lost", only_the_first)], ids=["a leak", "a task forgotten"]
)
def test_the_search_finds_a_planted_bug(method: str, planted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lineage, method, planted)
    with pytest.raises(AssertionError):
        search(phases=(Phase.generate,))
