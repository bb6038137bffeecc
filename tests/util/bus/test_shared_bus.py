"""The bus across processes."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import miniray
from miniray.processes import current
from miniray.util.bus import RunBus, SharedBus, TelemetryEvent, Topic, forward_session_events, session_events
from tests.waiting import wait_for


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    miniray.init(num_cpus=2)
    yield
    miniray.shutdown()


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SharedBus]:
    made = SharedBus(f"test-{tmp_path.name}", log=tmp_path / "log.sqlite")
    yield made
    made.destroy()


def step(agent: str = "a") -> TelemetryEvent:
    return TelemetryEvent(Topic.STEP_APPENDED, "run", agent)


@miniray.remote
def produce(bus: SharedBus, agent: str, number: int) -> bool:
    for _ in range(number):
        bus.publish(step(agent))
    return bus.flush()


def take(found: "queue.Queue[TelemetryEvent]", number: int) -> list[Any]:
    return [found.get(timeout=20) for _ in range(number)]


def test_events_of_one_process_reach_the_others_in_order(bus: SharedBus) -> None:
    found = bus.subscribe(Topic.STEP_APPENDED, "here")
    assert miniray.get(produce.remote(bus, "a", 100))
    assert [event.seq_id for event in take(found, 100)] == list(range(1, 101))
    bus.publish(step())
    assert take(found, 1)[0].seq_id == 101
    assert bus.sequence_stats() == {("run", "a"): 101}
    assert bus.overflow_stats() == {"step_appended": {"here": 0}}
    assert bus.queue_sizes() == {"step_appended": {"here": 0}}
    assert bus.health() == {"here": "ok"}
    assert [beat.component_id for beat in bus.heartbeats()] == ["bus", "here"]
    bus.unsubscribe(Topic.STEP_APPENDED, "here")
    assert bus.queue_sizes() in ({}, {"step_appended": {}})


def test_what_is_no_event_is_refused_and_costs_no_other_event(bus: SharedBus) -> None:
    found = bus.subscribe(Topic.STEP_APPENDED, "here")
    bus.publish(step())
    with pytest.raises(TypeError, match="carries TelemetryEvents, and 3 is none"):
        bus.publish_many([step(), 3])  # type: ignore[list-item]
    bus.publish(step())
    assert [event.seq_id for event in take(found, 2)] == [1, 2]


def test_what_cannot_be_pickled_is_counted_and_costs_no_other_event(
    bus: SharedBus, caplog: pytest.LogCaptureFixture
) -> None:
    found = bus.subscribe(Topic.STEP_APPENDED, "here")
    bus.publish_many([step(), TelemetryEvent("odd", "run", payload=threading.Lock()), step()])
    assert bus.flush(20)
    assert [event.seq_id for event in take(found, 2)] == [1, 2]
    assert bus.dropped == 1
    assert "cannot carry the event" in caplog.records[-1].getMessage()


def test_what_is_done_with_is_known_also_in_the_middle_of_a_batch(bus: SharedBus) -> None:
    bus.publish_many(step() for _ in range(5))
    bus.flush()
    with bus.follow(consumer="f") as follower:
        for event in follower:
            if event.seq_id == 3:
                follower.commit()
                break
    with bus.follow(consumer="f") as follower:
        assert next(follower).seq_id == 4


def test_who_comes_later_under_the_same_name_gets_all_that_follows(bus: SharedBus) -> None:
    early, late = SharedBus(bus.name), SharedBus(bus.name)
    old, follower = early.subscribe(None, "c"), early.follow("f")
    new, next_follower = late.subscribe(None, "c"), late.follow("f")
    early.unsubscribe(None, "c")
    follower.close()
    for _ in range(20):
        bus.publish(step())
        bus.flush()
    assert [event.seq_id for event in take(new, 20)] == list(range(1, 21))
    assert old.empty()
    with pytest.raises(ValueError, match="under the same name"):
        follower.read(0)
    numbers: list[int] = []
    while len(numbers) < 20:
        numbers += [event.seq_id for _, event in next_follower.read(20)]
    assert numbers == list(range(1, 21))
    early.close()
    late.close()


def test_a_fetch_of_one_who_was_followed_under_its_name_takes_nothing(bus: SharedBus) -> None:
    early, late = SharedBus(bus.name), SharedBus(bus.name)
    old, new = early.subscribe(None, "c"), late.subscribe(None, "c")
    ((ticket, stopped),) = early._fetchers.values()
    for _ in range(5):
        bus.publish(step())
    with pytest.raises(ValueError, match="under the same name"):
        miniray.get(bus._hub.fetch.remote("", "c", ticket, 10, 0.0))
    assert [event.seq_id for event in take(new, 5)] == [1, 2, 3, 4, 5]
    assert old.empty()
    stopped.set()
    early.close()
    late.close()


def test_two_producers_have_streams_of_their_own(bus: SharedBus) -> None:
    found = bus.subscribe(None, "here")
    miniray.get([produce.remote(bus, agent, 50) for agent in "ab"])
    events = take(found, 100)
    for agent in "ab":
        assert [event.seq_id for event in events if event.agent_id == agent] == list(range(1, 51))
    assert [event.seq_id for event in bus.replay(("run", "b"), 48)] == [49, 50]


def test_a_follower_in_another_process_goes_on_from_its_cursor(bus: SharedBus) -> None:
    bus.publish_many(step() for _ in range(10))
    bus.flush()

    @miniray.remote
    def follow(number: int) -> list[int]:
        with bus.follow(consumer="f", batch=5) as follower:
            numbers: list[int] = []
            while len(numbers) < number:
                numbers += [event.seq_id for _, event in follower.read(20)]
            follower.commit()
            return numbers

    assert miniray.get(follow.remote(5)) == [1, 2, 3, 4, 5]
    assert miniray.get(follow.remote(5)) == [6, 7, 8, 9, 10]
    bus.publish(step())
    assert miniray.get(follow.remote(1)) == [11]


def test_who_follows_a_hub_that_was_killed_loses_and_repeats_nothing(bus: SharedBus) -> None:
    bus.publish_many(step() for _ in range(5))
    bus.flush()
    follower = bus.follow(consumer="f")
    numbers = [event.seq_id for _, event in follower.read(20)]
    follower.commit()
    miniray.kill(bus._hub, no_restart=False)
    bus.publish(step())

    def arrived() -> bool:
        try:
            numbers.extend(event.seq_id for _, event in follower.read(1))
        except miniray.exceptions.RayActorError:
            bus.publish(step())
        return bool(numbers[5:])

    wait_for(arrived)
    assert numbers == list(range(1, len(numbers) + 1))


def test_credits_reach_over_processes(bus: SharedBus) -> None:
    assert not bus.acquire("recorder", timeout=0.0)

    @miniray.remote
    def grant() -> None:
        bus.grant("recorder", 3)

    miniray.get(grant.remote())
    assert bus.acquire("recorder", 3)


def test_what_cannot_be_is_refused_in_the_caller(bus: SharedBus) -> None:
    with pytest.raises(ValueError, match="unknown policy"):
        bus.subscribe(None, "c", policy="wrong")


def test_the_sessions_own_events_come_over_the_same_bus() -> None:
    @miniray.remote(num_cpus=0)
    class Short:
        def hello(self) -> None:
            pass

    with RunBus() as bus:
        found = bus.subscribe(Topic.ACTOR_CHANGED, "watch")
        end = forward_session_events(bus)
        actor = Short.remote()
        miniray.get(actor.hello.remote())
        miniray.kill(actor)
        states: list[str] = []
        while "DEAD" not in states:
            event = found.get(timeout=20)
            if event.payload.get("class_name") == "Short":
                states.append(event.payload["state"])
        assert states[-2:] == ["ALIVE", "DEAD"]
        listening = current.core_or_none().head_client
        assert listening._subscriptions
        end()
        assert not listening._subscriptions
        assert not any(listening._subscribers.values())


def test_tasks_that_have_ended_come_over_the_same_bus_each_once() -> None:
    @miniray.remote
    def ends(number: int) -> int:
        return number

    miniray.get(ends.remote(0))
    with RunBus() as bus:
        found = bus.subscribe(Topic.TASK_ENDED, "watch")
        end = forward_session_events(bus, tasks_every=0.02)
        miniray.get(ends.options(name="first").remote(1))
        events = take(found, 1)
        while events[-1].payload["name"] != "first":
            events += take(found, 1)
        miniray.get([ends.options(name=f"other {number}").remote(number) for number in range(5)])
        events += take(found, 5)
        assert [event.payload["name"] for event in events].count("first") == 1
        assert {event.payload["name"] for event in events[-5:]} == {f"other {number}" for number in range(5)}
        numbers = [event.seq_id for event in events]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        end()


def test_tasks_that_end_while_it_is_asked_for_them_are_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    @miniray.remote
    def ends() -> None:
        pass

    core, ask = current.core_or_none(), session_events._ask
    tasks = session_events._EndedTasks(core, "run")
    seen = tasks._seen

    def ask_and_go_on(core: Any, most: int) -> dict[str, Any]:
        answer = ask(core, most)
        if most < 3:  # more end while the answer is on its way
            before = session_events._total(answer)
            miniray.get(ends.remote())
            wait_for(lambda: session_events._total(ask(core, 0)) > before)
        return answer

    monkeypatch.setattr(session_events, "_ask", ask_and_go_on)
    miniray.get(ends.remote())
    wait_for(lambda: session_events._total(ask(core, 0)) > seen)
    numbers = [event.seq_id for event in tasks.new_ones()]
    assert len(numbers) >= 3
    assert numbers == list(range(seen + 1, tasks._seen + 1))


def test_the_numbers_of_tasks_go_on_when_another_head_counts_from_the_beginning() -> None:
    @miniray.remote
    def ends() -> None:
        pass

    core = current.core_or_none()
    miniray.get(ends.remote())
    wait_for(lambda: session_events._total(session_events._ask(core, 0)))
    tasks = session_events._EndedTasks(core, "run")
    tasks._seen = 1_000_000  # of a head that was killed
    numbers = [event.seq_id for event in tasks.new_ones()]
    assert numbers == list(range(1_000_001, 1_000_001 + tasks._seen))
    assert numbers


def test_a_subscriber_finds_the_hub_again_that_was_killed(bus: SharedBus) -> None:
    found = bus.subscribe(None, "here")
    bus.publish(step())
    assert take(found, 1)[0].seq_id == 1
    assert bus.flush()
    miniray.kill(bus._hub, no_restart=False)
    numbers: list[int] = []

    def heard() -> bool:
        bus.publish(step())
        try:
            numbers.append(found.get(timeout=0.2).seq_id)
        except queue.Empty:
            return False
        return True

    wait_for(heard)
    assert numbers[0] > 1
