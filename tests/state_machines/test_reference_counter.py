"""Nothing is freed early, nothing leaks: core workers over a simulated network, in interleavings of chance.

Whole core workers run here, and not the counter alone, since the rules of hand-over live in what surrounds it: who
pins, who registers, who acknowledges. The oracle is the programs themselves: each object that any of them holds a ref
of must be in its owner's table, with all that it contains; and when all have dropped everything, every table must be
empty. More interleavings: MINIRAY_INTERLEAVINGS=10000.
"""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from miniray.messages.objects import Address, Handover
from miniray.processes.call_arguments import CallArguments
from miniray.processes.task_runner import TaskRunner
from miniray.state_machines.reference_counter import ObjectEntry, ReferenceCounter
from tests.simulation import HEAD, Process, Program, World, refs_in

INTERLEAVINGS = int(os.environ.get("MINIRAY_INTERLEAVINGS", "300"))

STEPS = ("keep", "put", "put nothing", "call", "call with value", "forget", "return", "return one")
indices = st.integers(0, 11)


def warm_world(processes: int) -> World:
    """Each process holds a ref of an object of its own, and one of an object that belongs to the next."""
    world = World(processes)
    for process in world.processes:
        process.refs.append(process.put(None))
        lender = world.processes[(process.index + 1) % processes]
        [made] = process.submit(("put nothing", "return one"), [])
        process.settle()
        to_head = (process.worker_id, HEAD.worker_id)
        while to_head in world.busy_channels():
            world.deliver(to_head)
        world.grant(world.open_demands()[0], lender.index - (lender.index > process.index))
        world.drain()
        process.refs += refs_in(process.get(made))
        assert process.refs[-1]._entry.owner == lender.core.address
        del made
        world.drain()
    return world


class Programs(RuleBasedStateMachine):
    """Programs that put, pass on, keep, contain, return and drop refs."""

    deaths = False

    @initialize(processes=st.integers(3, 4))
    def start(self, processes: int) -> None:
        self.world = warm_world(processes)

    def process(self, index: int) -> Process:
        living = self.world.living
        return living[index % len(living)]

    # -- programs ----------------------------------------------------------------------------------------------------

    @rule(who=indices, inside=st.lists(indices, max_size=2))
    def put(self, who: int, inside: list[int]) -> None:
        process = self.process(who)
        process.refs.append(process.put(self.some(process, inside)))

    @rule(
        who=indices,
        nested=st.lists(indices, max_size=2),
        top=st.none() | indices,
        program=st.lists(st.sampled_from(STEPS), max_size=4).map(tuple),
        drop=st.booleans(),
    )
    def call(self, who: int, nested: list[int], top: int | None, program: Program, drop: bool) -> None:
        process = self.process(who)
        values = [] if top is None else self.some(process, [top])
        refs = process.submit(program, self.some(process, nested), *values)
        if not drop:
            process.refs += refs

    @rule(who=indices, which=indices)
    def get(self, who: int, which: int) -> None:
        process = self.process(who)
        for ref in self.some(process, [which]):
            value = process.get(ref)
            if isinstance(value, BaseException):
                assert self.world.dead, f"freed early: {value!r}"
            process.refs += refs_in(value)

    @rule(who=indices, which=indices)
    def drop(self, who: int, which: int) -> None:
        refs = self.process(who).refs
        if refs:
            del refs[which % len(refs)]

    @rule(who=indices)
    def drop_all(self, who: int) -> None:
        self.process(who).refs.clear()

    @staticmethod
    def some(process: Process, which: list[int]) -> list[Any]:
        return [process.refs[index % len(process.refs)] for index in which if process.refs]

    # -- what happens meanwhile --------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.busy_channels())
    @rule(which=st.integers(0, 30))
    def deliver(self, which: int) -> None:
        channels = self.world.busy_channels()
        self.world.deliver(channels[which % len(channels)])

    @precondition(lambda self: self.world.busy_channels())
    @rule(which=st.lists(st.integers(0, 30), min_size=2, max_size=8))
    def deliver_several(self, which: list[int]) -> None:
        for index in which:
            if self.world.busy_channels():
                self.deliver(index)

    @precondition(lambda self: self.world.open_demands())
    @rule(which=indices, choice=indices)
    def grant(self, which: int, choice: int) -> None:
        demands = self.world.open_demands()
        self.world.grant(demands[which % len(demands)], choice)

    @precondition(lambda self: any(process.executor.queue for process in self.world.living))
    @rule(who=indices)
    def run(self, who: int) -> None:
        with_work = [process for process in self.world.living if process.executor.queue]
        with_work[who % len(with_work)].run_one_task()

    @rule(who=indices)
    def settle(self, who: int) -> None:
        self.process(who).settle()

    @rule(who=indices)
    def run_timers(self, who: int) -> None:
        self.process(who).run_timers()

    @rule()
    def drain(self) -> None:
        self.world.drain()

    @precondition(lambda self: self.deaths and len(self.world.living) > 2)
    @rule(who=indices, arriving=st.sampled_from([0.0, 0.5, 1.0]))
    def kill(self, who: int, arriving: float) -> None:
        self.world.kill(self.process(who), arriving)

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_freed_early(self) -> None:
        if hasattr(self, "world"):
            self.world.check_that_nothing_was_freed_early()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.world.drain()
                self.world.check_that_nothing_was_freed_early()
                self.world.check_that_nothing_is_left()
            finally:
                self.world.close()


class ProgramsThatDie(Programs):
    deaths = True


@pytest.fixture(autouse=True)
def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that no program asks for are what these tests make."""
    monkeypatch.setenv("RAY_IGNORE_UNHANDLED_ERRORS", "1")


def search(
    machine: type[Programs], examples: int = INTERLEAVINGS, phases: Any = (Phase.generate, Phase.shrink)
) -> None:
    # A cycle of refs would be collected at a random moment; without the collector all is deterministic.
    gc.disable()
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=INTERLEAVINGS,
                stateful_step_count=40,
                deadline=None,
                phases=phases,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        gc.enable()


@pytest.mark.timeout(60 + INTERLEAVINGS // 5)
def test_nothing_is_freed_early_and_nothing_leaks() -> None:
    search(Programs)


@pytest.mark.timeout(60 + INTERLEAVINGS // 5)
def test_nothing_leaks_when_processes_die() -> None:
    search(ProgramsThatDie)


# -- the stories that are hard to find by chance ---------------------------------------------------------------------


def run_until(world: World, done: Any, *, without: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Deliver everything but what those channels carry, and let tasks run, until `done()`."""
    for _ in range(200):
        if done():
            return
        for process in world.living:
            process.settle()
            process.run_one_task()
        for pair in world.busy_channels():
            if pair not in without:
                world.deliver(pair)
        for demand in world.open_demands():
            world.grant(demand, 1)
    raise AssertionError("never done")


def test_a_ref_kept_out_of_a_top_level_argument_is_kept_alive() -> None:
    world = warm_world(3)
    caller, owner, worker = world.processes
    box = caller.put([caller.refs.pop()])
    for process in world.processes:
        process.refs.clear()
    caller.submit(("keep",), [], box)
    del box
    # The owner hears of the new holder last, when everybody else has let go.
    late = (worker.worker_id, owner.worker_id)
    run_until(world, lambda: late in world.busy_channels() and not caller.core.tasks.pending, without=(late,))
    steps = iter(range(20))
    run_until(world, lambda: next(steps) == 10, without=(late,))
    assert worker.refs
    world.check_that_nothing_was_freed_early()
    world.drain()
    world.check_that_nothing_was_freed_early()
    world.check_that_nothing_is_left()


class PutsItselfWhenPickled:
    """Pickling makes the only ref to an object, which is gone before the call is under way."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def __reduce__(self) -> Any:
        return list, ([self.process.put(None)],)


def test_a_ref_that_pickling_made_lives_as_an_argument_and_inside_an_object() -> None:
    world = warm_world(3)
    caller = world.processes[0]
    for process in world.processes:
        process.refs.clear()
    caller.submit(("keep",), [PutsItselfWhenPickled(caller)])
    caller.refs.append(caller.put([PutsItselfWhenPickled(caller)]))
    caller.settle()
    world.drain()
    assert sum(len(process.refs) for process in world.processes) == 2
    world.check_that_nothing_was_freed_early()
    assert len(refs_in(caller.get(caller.refs[0]))) == 1
    world.check_that_nothing_is_left()


# -- the counter by itself -------------------------------------------------------------------------------------------


class Effects:
    """A port that writes down what it is told."""

    def __init__(self) -> None:
        self.story: list[tuple[Any, ...]] = []

    def free_value(self, entry: ObjectEntry) -> None:
        self.story.append(("free", entry.object_id))

    def remove_borrower(self, owner: Address, object_id: bytes) -> None:
        self.story.append(("remove", owner.worker_id, object_id))

    def add_borrowers(self, owner: Address, object_ids: list[bytes], ack: int) -> None:
        self.story.append(("add", owner.worker_id, object_ids, ack))

    def watch(self, worker_id: bytes) -> None:
        self.story.append(("watch", worker_id))

    def release_pins(self, ticket: Any) -> None:
        self.story.append(("release", ticket))

    def owner_lost(self, entry: ObjectEntry) -> None:
        self.story.append(("lost", entry.object_id))

    def take(self) -> list[tuple[Any, ...]]:
        story, self.story = self.story, []
        return story


OTHER, THIRD = Address(b"other", ""), Address(b"third", "")


@pytest.fixture
def effects() -> Effects:
    return Effects()


@pytest.fixture
def counter(effects: Effects) -> ReferenceCounter:
    return ReferenceCounter(b"me", effects)


def test_an_owned_object_is_freed_with_its_last_ref(counter: ReferenceCounter, effects: Effects) -> None:
    entry = counter.own(b"x")
    entry.local = 2
    counter.release_local(entry)
    assert effects.take() == []
    counter.release_local(entry)
    assert effects.take() == [("free", b"x")]
    assert counter.objects == {}


def test_a_chain_of_contained_objects_is_freed_without_recursion(counter: ReferenceCounter, effects: Effects) -> None:
    inner = counter.own(b"0")
    for number in range(1, 20_000):
        outer = counter.own(str(number).encode())
        counter.contain_local(outer, [inner])
        inner = outer
    inner.local = 1
    counter.release_local(inner)
    assert counter.objects == {}
    assert len(effects.take()) == 20_000


def test_a_borrower_keeps_an_object_and_its_death_frees_it(counter: ReferenceCounter, effects: Effects) -> None:
    entry = counter.own(b"x")
    entry.local = 1
    assert counter.add_borrowers(b"other", [b"x", b"gone"]) == [b"gone"]
    counter.release_local(entry)
    assert effects.take() == [("watch", b"other")]
    counter.process_died(b"other")
    assert effects.take() == [("free", b"x")]


def test_a_copy_is_not_given_up_before_its_inner_refs_are_registered(
    counter: ReferenceCounter, effects: Effects
) -> None:
    outer = counter.borrow(b"outer", OTHER)
    outer.local = 1
    counter.register([outer])
    counter.borrowers_added(1, [])
    counter.contain_copy(outer, [Handover(b"inner", THIRD)], ticket="ticket")
    counter.release_local(outer)
    assert ("remove", b"other", b"outer") not in effects.take()
    counter.borrowers_added(2, [])
    assert effects.take() == [
        ("remove", b"other", b"outer"),
        ("remove", b"third", b"inner"),
        ("release", "ticket"),
    ]


def test_a_ticket_waits_for_all_owners(counter: ReferenceCounter, effects: Effects) -> None:
    entries = [counter.borrow(b"x", OTHER), counter.borrow(b"y", THIRD)]
    assert counter.register(entries, ticket="ticket") is False
    counter.borrowers_added(1, [])
    assert ("release", "ticket") not in effects.take()
    counter.borrowers_added(2, [])
    assert ("release", "ticket") in effects.take()


def test_a_ticket_waits_for_what_others_have_registered(counter: ReferenceCounter, effects: Effects) -> None:
    assert counter.confirm("none") is True
    counter.register([counter.borrow(b"x", OTHER)], ticket="first")
    counter.register([counter.borrow(b"y", THIRD)])
    assert counter.confirm("both") is False
    counter.borrowers_added(1, [])
    story = effects.take()
    assert ("release", "first") in story
    assert ("release", "both") not in story
    counter.borrowers_added(2, [])
    assert ("release", "both") in effects.take()
    assert counter._acks == counter._tickets == {}


def test_the_death_of_an_owner_answers_what_it_was_asked(counter: ReferenceCounter, effects: Effects) -> None:
    entry = counter.borrow(b"x", OTHER)
    counter.register([entry], ticket="ticket")
    effects.take()
    counter.process_died(b"other")
    assert ("lost", b"x") in effects.story
    assert ("release", "ticket") in effects.story
    assert counter._acks == counter._tickets == counter.objects == {}


def test_what_the_owner_has_freed_already_is_lost(counter: ReferenceCounter, effects: Effects) -> None:
    entry = counter.borrow(b"x", OTHER)
    entry.local = 1
    counter.register([entry])
    counter.borrowers_added(1, [b"x"])
    assert effects.take()[-1] == ("lost", b"x")
    counter.release_local(entry)
    assert effects.take() == []  # there is no borrow to give up


def test_an_answer_that_comes_twice_counts_once(counter: ReferenceCounter, effects: Effects) -> None:
    entry = counter.borrow(b"x", OTHER)
    entry.local = 1
    counter.register([entry])
    counter.borrowers_added(1, [])
    counter.borrowers_added(1, [])
    assert entry.pending_acks == 0


# -- the test of the test --------------------------------------------------------------------------------------------


def nothing(*args: Any, **kwargs: Any) -> None:
    """What a planted bug leaves out."""


def release_at_once(arguments: CallArguments, task_id: bytes, entries: Any, worker_id: bytes, kept: Any = None) -> None:
    arguments._core.objects.counter.release_submitted(entries)


def reply_without_pins(runner: TaskRunner, owner: Any, push: Any, result: Any) -> Any:
    reply = _succeeded(runner, owner, push, result)
    pinned = runner._return_pins.pop(push.task_id, None)
    if pinned is not None:
        runner._core.objects.counter.release_submitted(pinned[1])
    return reply


_succeeded = TaskRunner.succeeded

EARLY = {
    "a worker does not register what it keeps": (TaskRunner, "note_kept", nothing),
    "refs inside a result are not pinned": (TaskRunner, "succeeded", reply_without_pins),
}
LEAKS = {
    "a borrower's farewell is ignored": (ReferenceCounter, "remove_borrowers", nothing),
    "pins are never released": (CallArguments, "on_release_pins", nothing),
    "replies are never acknowledged": (TaskRunner, "on_acknowledge", nothing),
    "released refs are not counted": (ReferenceCounter, "release_local", nothing),
}


@pytest.mark.parametrize(("kind", "name"), [("freed early", n) for n in EARLY] + [("leaked", n) for n in LEAKS])
def test_the_search_finds_a_planted_bug(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, planted = {**EARLY, **LEAKS}[name]
    monkeypatch.setattr(owner, method, planted)
    with pytest.raises(AssertionError, match=kind):
        search(Programs, phases=(Phase.generate,))


def test_the_story_of_a_kept_ref_finds_its_planted_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CallArguments, "release", release_at_once)
    with pytest.raises(AssertionError, match="freed early"):
        test_a_ref_kept_out_of_a_top_level_argument_is_kept_alive()
