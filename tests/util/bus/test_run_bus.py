"""The bus inside one process."""

import logging
import queue
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniray.util.bus import ConsumerCursor, RunBus, SQLiteSink, TelemetryEvent, Topic, event_log, get_bus, reset_bus
from miniray.util.bus.events import NEXT


def step(number: int = NEXT, run: str = "run", agent: str = "a") -> TelemetryEvent:
    return TelemetryEvent(Topic.STEP_APPENDED, run, agent, number, "", {"n": number})


def drain(found: "queue.Queue[TelemetryEvent]") -> list[int]:
    numbers = []
    while True:
        try:
            numbers.append(found.get_nowait().seq_id)
        except queue.Empty:
            return numbers


@pytest.fixture
def bus() -> Iterator[RunBus]:
    with RunBus(max_queue=10) as made:
        yield made


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[RunBus]:
    with RunBus(max_queue=10, log=tmp_path / "log.sqlite") as made:
        yield made


def test_a_subscriber_gets_the_events_of_its_topic_in_order(bus: RunBus) -> None:
    steps, everything = bus.subscribe(Topic.STEP_APPENDED, "steps"), bus.subscribe(None, "everything")
    bus.publish(TelemetryEvent(Topic.RUN_STARTED, "run"))
    for _ in range(3):
        bus.publish(step())
    bus.publish(TelemetryEvent("of_my_own", "run", "a"))
    assert isinstance(steps, queue.Queue)
    assert steps.qsize() == 3
    assert drain(steps) == [1, 2, 3]
    assert [everything.get().topic for _ in range(5)] == ["run_started", *["step_appended"] * 3, "of_my_own"]
    assert steps.empty()
    with pytest.raises(queue.Empty):
        steps.get(timeout=0.01)
    with pytest.raises(TypeError):
        steps.put(step())


def test_an_event_gets_a_number_and_a_time_where_it_has_none(bus: RunBus) -> None:
    found = bus.subscribe(None, "c")
    bus.publish(TelemetryEvent(Topic.STEP_APPENDED, "run", "a", 7, "2026-01-01T00:00:00"))
    bus.publish(step())
    first, second = found.get(), found.get()
    assert (first.seq_id, first.ts_iso) == (7, "2026-01-01T00:00:00")
    assert second.seq_id == 8
    assert second.ts_iso > "2026"


def test_who_does_not_read_loses_the_oldest_and_nobody_else_anything(bus: RunBus) -> None:
    slow, quick = bus.subscribe_with_size(Topic.STEP_APPENDED, "slow", 3), bus.subscribe(Topic.STEP_APPENDED, "quick")
    for _ in range(10):
        bus.publish(step())
    assert bus.overflow_stats() == {"step_appended": {"slow": 7, "quick": 0}}
    assert bus.queue_sizes() == {"step_appended": {"slow": 3, "quick": 10}}
    assert drain(slow) == [8, 9, 10]
    assert drain(quick) == list(range(1, 11))
    bus.reset_overflow_stats()
    assert bus.overflow_stats() == {"step_appended": {"slow": 0, "quick": 0}}
    bus.unsubscribe(Topic.STEP_APPENDED, "slow")
    bus.publish(step())
    assert bus.queue_sizes() == {"step_appended": {"quick": 1}}


def test_what_is_no_event_is_refused_and_costs_no_other_event(bus: RunBus) -> None:
    found = bus.subscribe(None, "c")
    with pytest.raises(TypeError, match="carries TelemetryEvents, and 3 is none"):
        bus.publish_many([step(), 3])  # type: ignore[list-item]
    bus.publish(step())
    assert drain(found) == [1]


def test_policies_latest_and_sample(bus: RunBus) -> None:
    latest = bus.subscribe_with_size(None, "latest", 10, policy="latest")
    sample = bus.subscribe_with_size(None, "sample", 4, policy="sample", every=4)
    for _ in range(8):
        bus.publish(step())
    bus.publish(step(agent="b"))
    assert [(event.agent_id, event.seq_id) for event in (latest.get(), latest.get())] == [("a", 8), ("b", 1)]
    numbers = drain(sample)
    assert numbers[:2] == [1, 2]
    assert len(numbers) + bus.overflow_stats()[""]["sample"] == 9
    with pytest.raises(ValueError, match="unknown policy"):
        bus.subscribe(None, "c", policy="wrong")
    with pytest.raises(ValueError, match="needs a log"):
        bus.subscribe(None, "c", policy="spill")


def test_a_gap_is_logged_and_an_event_of_its_own(bus: RunBus, caplog: pytest.LogCaptureFixture) -> None:
    gaps = bus.subscribe(Topic.SEQUENCE_GAP, "gaps")
    with caplog.at_level(logging.WARNING, "miniray.util.bus"):
        for number in (1, 2, 5):
            bus.publish(step(number))
        bus.publish(step(1, agent="b"))
    (record,) = caplog.records
    assert record.getMessage().startswith("Sequence gap detected in RunBus")
    about = {key: record.__dict__[key] for key in ("run_id", "agent_id", "gap", "last_seq", "new_seq")}
    assert about == {"run_id": "run", "agent_id": "a", "gap": 2, "last_seq": 2, "new_seq": 5}
    assert gaps.get().payload == {"gap": 2, "last_seq": 2, "new_seq": 5}
    assert bus.sequence_stats() == {("run", "a"): 5, ("run", "b"): 1}


def test_an_overflow_is_an_event_of_its_own(bus: RunBus) -> None:
    told = bus.subscribe(Topic.OVERFLOW, "told")
    bus.subscribe_with_size(Topic.STEP_APPENDED, "slow", 2)
    for _ in range(5):
        bus.publish(step())
    assert told.get_nowait().payload == {"consumer": "slow", "topic": "step_appended", "dropped": 1, "offset": 1}
    assert told.empty()


def test_heartbeats_and_health_say_how_a_consumer_fares(bus: RunBus) -> None:
    changes: list[tuple[str, str, str]] = []
    bus.on_health_change(lambda *change: changes.append(change))
    found = bus.subscribe_with_size(Topic.STEP_APPENDED, "c", 2)
    assert bus.health() == {"c": "ok"}
    for _ in range(5):
        bus.publish(step())
    assert found.get().seq_id == 4
    of_bus, beat = bus.heartbeats()
    assert (of_bus.component_id, of_bus.last_seq_id) == ("bus", 5)
    assert (beat.component_id, beat.last_seq_id, beat.total_events, beat.dropped_events) == ("c", 4, 5, 3)
    assert bus.health() == {"c": "dropping"}
    assert changes == [("c", "ok", "dropping")]
    assert bus.latency_us(Topic.STEP_APPENDED, "c") > 0


def test_heartbeats_come_by_themselves() -> None:
    with RunBus(heartbeat_s=0.01) as bus:
        found = bus.subscribe(Topic.HEARTBEAT, "watch")
        assert found.get(timeout=20).payload["component_id"] == "bus"


def test_heartbeats_go_on_when_a_callback_fails(caplog: pytest.LogCaptureFixture) -> None:
    called = threading.Event()

    def fail(*change: str) -> None:
        called.set()
        raise RuntimeError("as it should")

    with RunBus(heartbeat_s=0.01) as bus:
        bus.on_health_change(fail)
        bus.subscribe_with_size(None, "slow", 1)
        bus.publish_many([step(), step()])
        assert called.wait(20)
        found = bus.subscribe(Topic.HEARTBEAT, "watch")
        assert found.get(timeout=20).payload["component_id"] == "bus"
    assert "as it should" in caplog.text


def test_what_spills_is_read_from_the_log_without_a_gap(logged: RunBus) -> None:
    found = logged.subscribe_with_size(Topic.STEP_APPENDED, "c", 5, policy="spill")
    for _ in range(100):
        logged.publish(step())
    numbers = [found.get_nowait().seq_id for _ in range(50)]
    for _ in range(100):
        logged.publish(step())
    numbers += drain(found)
    assert numbers == list(range(1, 201))
    assert logged.overflow_stats() == {"step_appended": {"c": 0}}


def test_streams_are_replayed_from_the_log_also_by_the_next_bus(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with RunBus(log=path) as bus:
        bus.publish_many([step(), step(agent="b"), step(), step()])
        assert [event.seq_id for event in bus.replay(("run", "a"), since_seq=1)] == [2, 3]
    with RunBus(log=path) as bus:
        bus.publish(step())
        assert [event.seq_id for event in bus.replay(("run", "a"))] == [1, 2, 3, 4]
        assert bus.replay(("run", "a"))[0].payload == {"n": NEXT}
    with RunBus() as bus, pytest.raises(ValueError, match="without a log"):
        bus.replay(("run", "a"))


def test_a_follower_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with RunBus(max_queue=4, log=path) as bus:
        bus.publish_many(step() for _ in range(20))
        with bus.follow(consumer="f", batch=8) as follower:
            assert [event.seq_id for _, event in follower.read(5)] == list(range(1, 9))
            assert [event.seq_id for _, event in follower.read(5)] == list(range(9, 17))  # the first eight are done
    with RunBus(max_queue=4, log=path) as bus:
        bus.publish(step())
        follower = bus.follow(consumer="f", since="cursor")
        numbers = []
        for event in follower:
            numbers.append(event.seq_id)
            if event.seq_id == 21:
                bus.publish(step())
            if event.seq_id == 22:
                break
        assert numbers == list(range(9, 23))
        assert [event.seq_id for _, event in bus.follow(consumer="g", since=None).read(0.01)] == []


def test_publishing_while_following_gives_each_event_once(logged: RunBus) -> None:
    total = 3000
    logged.publish_many(step() for _ in range(500))

    def publish() -> None:
        for _ in range(total - 500):
            logged.publish(step())

    publisher = threading.Thread(target=publish)
    publisher.start()
    numbers: list[int] = []
    with logged.follow(consumer="f") as follower:
        while len(numbers) < total:
            numbers += [event.seq_id for _, event in follower.read(20)]
    publisher.join()
    assert numbers == list(range(1, total + 1))


def test_members_of_a_group_share_a_stream_and_inherit_what_is_left(bus: RunBus) -> None:
    one, two = bus.join_group(None, "group", "one"), bus.join_group(None, "group", "two")
    bus.publish_many([step(agent=agent) for agent in "abababab"])
    first = one.get(timeout=5)
    mine = {first.agent_id}
    others = two.get(timeout=5)
    assert others.agent_id not in mine
    bus.leave_group(None, "group", "one")
    seen = [(others.agent_id, others.seq_id)]
    for _ in range(7):
        event = two.get(timeout=5)
        seen.append((event.agent_id, event.seq_id))
    assert sorted(seen) == [(agent, number) for agent in "ab" for number in range(1, 5)]
    with pytest.raises(queue.Empty):
        one.get(timeout=5)


def test_producers_that_want_to_wait_spend_credits(bus: RunBus) -> None:
    credits = bus.credits("recorder")
    assert not credits.acquire(timeout=0)
    credits.grant(2)
    assert bus.credits("recorder").acquire(2, timeout=5)
    assert credits.left == 0
    with pytest.raises(ValueError, match="does not take them back"):
        credits.grant(-1)


def test_a_cursor_knows_repeats_and_gaps_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "cursor.sqlite"
    cursor = ConsumerCursor("c", path)
    assert [cursor.process_event(step(number)) for number in (1, 2, 2, 1, 4)] == [True, True, False, False, True]
    assert (cursor.gaps, cursor.missing, cursor.repeats) == (1, 1, 2)
    cursor.persist_cursor()
    cursor.process_event(step(5), 9)
    assert cursor.on_restart() == {("run", "a"): 4}
    assert cursor.process_event(step(5))
    cursor.close()
    again = ConsumerCursor("c", path)
    assert again.last(("run", "a")) == 5
    assert not again.process_event(step(5))
    again.close()


def test_a_sink_records_each_event_once_whatever_comes_again(tmp_path: Path, logged: RunBus) -> None:
    path = tmp_path / "sink.sqlite"
    logged.publish_many(step() for _ in range(10))
    sink = SQLiteSink(path)
    with logged.follow(consumer="r", since=sink.position, batch=4) as follower:
        sink.write(follower.read(5))
        sink.write(follower.read(5))
    sink.close()
    sink = SQLiteSink(path)
    assert sink.position == 8
    with logged.follow(consumer="r", since=0, batch=100) as follower:
        assert sink.write(follower.read(5)) == 2
    sink.close()
    database = sqlite3.connect(path)
    assert [row[0] for row in database.execute("SELECT seq_id FROM recorded ORDER BY rowid")] == list(range(1, 11))
    database.close()


def test_there_is_one_bus_for_a_process() -> None:
    reset_bus()
    assert get_bus() is get_bus()
    old = get_bus()
    reset_bus()
    assert get_bus() is not old
    reset_bus()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="max_queue"):
        RunBus(max_queue=0)


def test_after_a_bus_that_was_killed_no_offset_is_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    killed = RunBus(log=path)
    for _ in range(3):
        killed.publish(step())
    assert killed.log is not None
    found = killed.subscribe_with_size(None, "c", 10, since=0)
    (position, *_) = [offset for offset, _ in found.get_numbered(10, 5)][-1:]
    with RunBus(log=path) as bus:  # of the other one, nobody can tell what it gave besides
        for _ in range(5):
            bus.publish(step())
        follower = bus.follow("late", since=position)
        new = follower.read(5)
        assert len(new) == 5
        assert min(offset for offset, _ in new) > killed.log.reserved - 10 > position
    killed.close()


def test_after_a_bus_that_was_closed_the_offsets_go_on_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with RunBus(log=path) as bus:
        heard = bus.subscribe(None, "full", policy="drop_oldest")
        bus.publish(step())
        heard.get(timeout=5)
    with RunBus(log=path) as bus:
        bus.publish(step())
        assert [offset for offset, _ in bus.follow("f").read(5)] == [1, 2]


def test_numbers_are_reserved_before_they_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_RESERVED", 3)
    path = tmp_path / "log.sqlite"
    bus = RunBus(log=path)
    for given in range(1, 12):
        bus.publish(step())
        with sqlite3.connect(path) as database:
            (reserved,) = database.execute("SELECT through FROM reserved").fetchone()
        assert reserved >= given
        database.close()
    bus.close()


@pytest.mark.parametrize("payload", [{(1, 2): "no key of JSON"}, {"n": 1}])
def test_an_event_that_no_row_can_hold_is_left_out_of_the_log_and_delays_no_other(
    logged: RunBus, payload: object, caplog: pytest.LogCaptureFixture
) -> None:
    number = NEXT if payload != {"n": 1} else 1 << 70
    logged.publish_many([step(run="b"), TelemetryEvent("odd", "run", "a", number, "", payload), step(run="b")])
    assert logged.flush(20)
    assert [event.seq_id for event in logged.replay(("b", "a"))] == [1, 2]
    assert logged.replay(("run", "a")) == []
    (record,) = caplog.records
    assert "cannot hold the event 2" in record.getMessage()


def test_a_log_that_was_closed_takes_nothing_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    bus = RunBus(log=tmp_path / "log.sqlite")
    bus.publish(step())
    bus.close()
    with pytest.raises(ValueError, match="was closed"):
        bus.publish(step())
    assert bus.flush(20)


def test_a_disk_that_fails_is_tried_again_and_given_up_only_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_log, "_RETRY", 0.001)
    bus = RunBus(log=tmp_path / "log.sqlite")
    log = bus.log
    assert log is not None
    works, tried, write_rows = threading.Event(), threading.Event(), log._write_rows

    def write(events: list[event_log.Logged], cursors: dict[str, int]) -> None:
        if not works.is_set():
            tried.set()
            raise sqlite3.OperationalError("database or disk is full")
        write_rows(events, cursors)

    monkeypatch.setattr(log, "_write_rows", write)
    bus.publish(step())
    assert tried.wait(20)
    assert not bus.flush(0)
    works.set()
    assert bus.flush(20)
    assert [event.seq_id for event in bus.replay(("run", "a"))] == [1]
    works.clear()
    bus.publish(step())
    bus.close()
    assert [record.getMessage().rpartition("sqlite ")[2] for record in caplog.records] == [
        "cannot be written: database or disk is full. It is tried again.",
        "cannot be written: database or disk is full. It is tried again.",
        "ends without 1 events.",
    ]
    assert not bus.flush(20)


def test_who_flushes_waits_for_what_was_there_before_and_for_nothing_that_comes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunBus(log=tmp_path / "log.sqlite") as bus:
        log = bus.log
        assert log is not None
        flushed, write_rows = threading.Event(), log._write_rows

        def write(events: list[event_log.Logged], cursors: dict[str, int]) -> None:
            write_rows(events, cursors)
            if not flushed.is_set():
                bus.publish(step(agent="b"))  # there is always one more

        monkeypatch.setattr(log, "_write_rows", write)
        bus.publish(step())
        in_time = bus.flush(20)
        flushed.set()
        assert in_time
        assert bus.flush(20)
        assert [event.seq_id for event in bus.replay(("run", "a"))] == [1]


def test_who_stops_iterating_over_what_it_follows_goes_on_with_the_next_event(logged: RunBus) -> None:
    logged.publish_many(step() for _ in range(6))
    follower = logged.follow("f", batch=4)
    assert next(iter(follower)).seq_id == 1
    assert next(iter(follower)).seq_id == 2
    follower.commit()
    assert [event.seq_id for _, event in follower.read(5)] == [3, 4]
    assert next(iter(follower)).seq_id == 5
    again = logged.follow("f")  # which does not know that 5 was done with
    assert next(iter(again)).seq_id == 5


def test_what_could_not_be_recorded_can_be_written_again(tmp_path: Path) -> None:
    sink = SQLiteSink(tmp_path / "sink.sqlite")
    good = [(number, step(number)) for number in (1, 2)]
    with pytest.raises(TypeError):
        sink.write([*good, (3, TelemetryEvent("odd", "run", "a", 3, "", {(1, 2): "no key of JSON"}))])
    assert sink.position == 0
    assert sink.write(good) == 2
    assert sink.position == 2
    sink.close()


def test_a_cursor_that_went_back_can_be_kept(tmp_path: Path) -> None:
    cursor = ConsumerCursor("c", tmp_path / "cursor.sqlite")
    cursor.process_event(step(1))
    assert cursor.on_restart() == {}
    cursor.persist_cursor()
    assert cursor.process_event(step(1))
    cursor.close()
