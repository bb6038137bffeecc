"""What processes tell of their tasks, objects and actors when the head asks."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import convert

import miniray
from miniray.api import _query
from miniray.messages.state import EndedTasks, ObjectRow, TaskRow
from miniray.state_machines.task_rows import rows_of
from tests.waiting import wait_for


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    miniray.init(num_cpus=2)
    yield
    miniray.shutdown()


def reported(what: str, row: Any) -> list[Any]:
    return [row(*values) for _, rows, _ in _query(what)["reports"] for values in rows]


def ended() -> list[TaskRow]:
    batches = [convert(batch, EndedTasks) for batch in _query("task_reports")["events"]]
    return [TaskRow(*values) for batch in batches for values in rows_of(batch)]


def states_of(name: str) -> set[str]:
    return {row.state for row in reported("task_reports", TaskRow) if row.name == name}


@miniray.remote
def echo(value: Any = 1) -> Any:
    return value


@miniray.remote
def sleep(seconds: float) -> None:
    time.sleep(seconds)


def test_a_task_that_has_returned_is_in_the_answer() -> None:
    miniray.get(echo.options(name="returned").remote())
    wait_for(lambda: "returned" in {row.name for row in ended()})  # the line is written just after the reply
    rows = [row for row in ended() if row.name == "returned"]
    assert [(row.state, row.function, row.attempt) for row in rows] == [("FINISHED", "echo", 0)]
    assert rows[0].created <= rows[0].started <= rows[0].ended


def test_who_runs_a_task_and_who_waits_for_it_both_tell() -> None:
    slow = sleep.options(name="slow").remote(30)
    after = echo.options(name="after").remote(slow)
    wait_for(lambda: states_of("slow") == {"SUBMITTED_TO_WORKER", "RUNNING"})
    assert states_of("after") == {"PENDING_ARGS_AVAIL"}
    objects = {row.object_id: row for row in reported("object_reports", ObjectRow)}
    assert objects[slow.binary()].reference_type == "USED_BY_PENDING_TASK"
    assert objects[after.binary()].task_status == "PENDING_ARGS_AVAIL"
    miniray.cancel(slow, force=True)
    with pytest.raises(miniray.exceptions.TaskCancelledError):
        miniray.get(slow)
    assert ("FAILED", "TASK_CANCELLED") in [(row.state, row.error_type) for row in ended() if row.name == "slow"]


def test_calls_that_wait_in_an_actor_are_told_by_the_actor() -> None:
    @miniray.remote(num_cpus=0)
    class Sleeper:
        def nap(self, seconds: float) -> None:
            time.sleep(seconds)

    sleeper = Sleeper.remote()
    running = sleeper.nap.options(name="running").remote(30)
    queued = sleeper.nap.options(name="queued").remote(0)
    wait_for(lambda: "RUNNING" in states_of("running"))
    wait_for(lambda: "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY" in states_of("queued"))
    miniray.kill(sleeper)
    for ref in (running, queued):
        with pytest.raises(miniray.exceptions.ActorDiedError):
            miniray.get(ref)
    assert {(row.name, row.error_type) for row in ended() if row.name in ("running", "queued")} == {
        ("running", "ACTOR_DIED"),
        ("queued", "ACTOR_DIED"),
    }


def test_a_process_that_does_not_answer_is_named_and_delays_nobody_for_long() -> None:
    import os
    import signal

    pid = miniray.get(sleep.remote(0)) or miniray.get(miniray.remote(os.getpid).remote())
    os.kill(pid, signal.SIGSTOP)
    try:
        assert len(_query("task_reports")["missing"]) == 1
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_timeline_has_an_event_for_each_task() -> None:
    assert miniray.timeline() is not None
    miniray.get([echo.options(name="drawn").remote() for _ in range(3)])
    wait_for(lambda: [row.name for row in ended()].count("drawn") == 3)
    trace = miniray.timeline()
    assert trace is not None
    drawn = [event for event in trace if event["cat"] == "task::drawn"]
    assert len(drawn) == 3
    assert all(event["ph"] == "X" and event["dur"] >= 0 and event["args"]["name"].endswith("echo") for event in drawn)
