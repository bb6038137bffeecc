"""What `util.state` says of a running session."""

import os
import signal
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

import pytest

import miniray
from miniray.util import state
from miniray.util.state import StateApiClient, client, logs
from miniray.util.state.common import (
    GetApiOptions,
    ListApiOptions,
    StateResource,
    SummaryApiOptions,
    SummaryResource,
)
from miniray.util.state.exception import RayStateApiException
from tests.waiting import wait_for

#: a class that is made in a function is named with it
WAITING = "test_an_actor_that_waits_for_its_arguments_is_listed.<locals>.Waiting"


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    miniray.init(num_cpus=3, namespace="here", resources={"custom": 2}, labels={"zone": "a"})
    yield
    miniray.shutdown()


@miniray.remote
def echo(value: Any = 1) -> Any:
    return value


@miniray.remote
def parent() -> Any:
    return miniray.get(echo.options(name="child").remote())


@miniray.remote(max_retries=0)
def fail() -> None:
    raise ValueError("as it should")


@miniray.remote(max_retries=0)
def die() -> None:
    os._exit(3)


@miniray.remote
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@miniray.remote(num_cpus=0)
class Actor:
    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise RuntimeError("as it should")

    def leave(self) -> None:
        miniray.actor.exit_actor()


@miniray.remote(num_cpus=0)
class Named:
    def __repr__(self) -> str:
        return "Otto"

    def hello(self) -> None:
        pass


def tasks(name: str, **options: Any) -> list[Any]:
    """The rows of the tasks with this name, once there are some: a worker writes its line just after its reply."""
    found: list[Any] = []

    def there() -> bool:
        found[:] = state.list_tasks(filters=[("name", "=", name)], **options)
        return bool(found)

    wait_for(there)
    return found


def raises_of(ref: Any) -> type[BaseException]:
    with pytest.raises(miniray.exceptions.RayError) as caught:
        miniray.get(ref)
    return caught.type


def test_a_row_has_its_columns_as_attributes_and_as_keys() -> None:
    miniray.get(echo.options(name="row").remote())
    (row,) = tasks("row")
    assert row.state == row["state"] == row.get("state") == "FINISHED"
    assert row.get("nothing", 5) == 5
    with pytest.raises(AttributeError):
        row["nothing"]
    assert row.func_or_class_name == "echo"
    assert row.type == "NORMAL_TASK"
    assert row.worker_pid in {worker.pid for worker in state.list_workers()}
    assert row.events is None
    assert list(row.asdict()) == [item.name for item in fields(row)] == row.list_columns()
    assert asdict(row)["task_id"] == row.task_id


def test_details_say_what_happened_when() -> None:
    miniray.get(echo.options(name="details", num_cpus=2).remote())
    (row,) = tasks("details", detail=True)
    assert [event["state"] for event in row.events] == [
        "PENDING_ARGS_AVAIL",
        "PENDING_NODE_ASSIGNMENT",
        "SUBMITTED_TO_WORKER",
        "RUNNING",
        "FINISHED",
    ]
    assert row.creation_time_ms <= row.start_time_ms <= row.end_time_ms
    assert row.required_resources == {"CPU": 2.0}
    assert os.path.isfile(row.task_log_info["stdout_file"])


def test_a_child_names_its_parent() -> None:
    ref = parent.remote()
    miniray.get(ref)
    (child,) = tasks("child")
    assert child.parent_task_id == ref.task_id().hex()


def test_errors_have_a_type_and_a_text() -> None:
    assert issubclass(raises_of(fail.remote()), ValueError)
    raises_of(die.remote())
    blocked = echo.options(resources={"nowhere": 1}, name="cancelled").remote()
    miniray.cancel(blocked)
    raises_of(blocked)
    (failed,) = tasks("fail", detail=True)
    assert (failed.state, failed.error_type) == ("FAILED", "TASK_EXECUTION_EXCEPTION")
    assert failed.error_message.startswith("User exception:\nray::fail()")
    assert "\x1b" not in failed.error_message
    (died,) = tasks("die")
    assert (died.state, died.error_type) == ("FAILED", "WORKER_DIED")
    (cancelled,) = tasks("cancelled")
    assert (cancelled.state, cancelled.error_type) == ("FAILED", "TASK_CANCELLED")


def test_each_attempt_has_a_row() -> None:
    ref = fail.options(max_retries=2, retry_exceptions=True, name="again").remote()
    raises_of(ref)
    wait_for(lambda: len(tasks("again")) == 3)
    rows = state.get_task(ref)
    assert isinstance(rows, list)
    assert [(row.attempt_number, row.state) for row in rows] == [(0, "FAILED"), (1, "FAILED"), (2, "FAILED")]


def test_what_waits_and_what_runs_is_seen_at_once() -> None:
    running = sleep.options(name="running").remote(30)
    after = echo.options(name="after").remote(running)
    nowhere = echo.options(name="nowhere", resources={"custom": 5}).remote()
    wait_for(lambda: [row.state for row in tasks("running")] == ["RUNNING"])
    assert [row.state for row in tasks("after")] == ["PENDING_ARGS_AVAIL"]
    assert [row.state for row in tasks("nowhere")] == ["PENDING_NODE_ASSIGNMENT"]
    (row,) = state.get_objects(after.hex())
    assert (row.reference_type, row.task_status, row.type) == ("LOCAL_REFERENCE", "PENDING_ARGS_AVAIL", "DRIVER")
    for ref in (nowhere, running):
        miniray.cancel(ref, force=True)
        raises_of(ref)


def test_an_actor_is_followed_through_its_life() -> None:
    actor = Actor.options(name="followed").remote()
    pid = miniray.get(actor.pid.remote())
    actor_id = actor._actor_id.hex()
    row: Any = state.get_actor(actor_id)
    assert (row.state, row.pid, row.name, row.ray_namespace) == ("ALIVE", pid, "followed", "here")
    assert row.death_cause is None
    miniray.kill(actor)
    wait_for(lambda: state.get_actor(actor_id).state == "DEAD")  # type: ignore[union-attr]
    context = state.get_actor(actor_id)["death_cause"]["actor_died_error_context"]  # type: ignore[index]
    assert context["reason"] == "RAY_KILL"
    assert context["error_message"] == "The actor is dead because it was killed by `ray.kill`."
    created = state.list_tasks(filters=[("actor_id", "=", actor_id), ("type", "=", "ACTOR_CREATION_TASK")])
    assert [row.name for row in created] == ["followed:Actor.__init__"]


def test_calls_carry_the_repr_of_their_actor() -> None:
    actor = Named.remote()
    miniray.get(actor.hello.remote())
    (row,) = tasks("Otto.hello")
    assert row.func_or_class_name == "Named.hello"
    (state_row,) = state.list_actors(filters=[("actor_id", "=", actor._actor_id.hex())], detail=True)
    assert state_row.repr_name == "Otto"


def test_an_actor_that_waits_for_its_arguments_is_listed() -> None:
    blocker = echo.options(resources={"custom": 5}).remote()

    @miniray.remote(num_cpus=0)
    class Waiting:
        def __init__(self, value: Any) -> None:
            pass

    handle = Waiting.remote(blocker)
    rows = state.list_actors(filters=[("class_name", "=", WAITING)], detail=True)
    assert [row.state for row in rows] == ["DEPENDENCIES_UNREADY"]
    assert [row.state for row in tasks("Waiting.__init__")] == ["PENDING_ARGS_AVAIL"]
    del handle
    miniray.cancel(blocker)


def test_workers_say_how_they_have_ended() -> None:
    leaving, killed, crashed = Actor.remote(), Actor.remote(), Actor.remote()
    pids = miniray.get([leaving.pid.remote(), killed.pid.remote(), crashed.pid.remote()])
    raises_of(leaving.leave.remote())
    miniray.kill(killed)
    os.kill(pids[2], signal.SIGKILL)

    def ended() -> dict[int, Any]:
        rows = state.list_workers(filters=[("is_alive", "=", "False")], detail=True, limit=1000)
        return {row.pid: row for row in rows if row.pid in pids}

    wait_for(lambda: len(ended()) == 3)
    rows = ended()
    assert [rows[pid].exit_type for pid in pids] == ["INTENDED_USER_EXIT", "INTENDED_SYSTEM_EXIT", "SYSTEM_ERROR"]
    assert "exit_actor() is called" in rows[pids[0]].exit_detail
    assert "killed by `ray.kill`" in rows[pids[1]].exit_detail
    assert "Worker unexpectedly exits with a connection error code 2" in rows[pids[2]].exit_detail
    assert rows[pids[2]].start_time_ms <= rows[pids[2]].end_time_ms


def test_nodes_and_jobs_are_listed() -> None:
    (node,) = state.list_nodes(detail=True)
    assert (node.state, node.is_head_node, node.labels["zone"]) == ("ALIVE", True, "a")
    assert node.resources_total["custom"] == 2.0
    assert state.get_node(node.node_id) == node
    (job,) = state.list_jobs()
    assert (job.job_id, job.type, job.status) == ("01000000", "DRIVER", "RUNNING")
    assert job.driver_info is not None
    assert job.driver_info.pid == str(os.getpid())
    assert state.get_job("01000000") is None
    assert state.list_cluster_events() == []


def test_objects_have_their_size_and_the_reason_that_they_are_held() -> None:
    ref = miniray.put(b"x" * 1_000_000)
    (row,) = state.get_objects(ref.hex())
    assert row.object_size >= 1_000_000
    assert (row.task_status, row.reference_type, row.pid) == ("FINISHED", "LOCAL_REFERENCE", os.getpid())
    summary = state.summarize_objects()["cluster"]
    assert summary["summary"]["disabled"]["total_size_mb"] >= 0.9
    assert summary["callsite_enabled"] is False


def test_summaries_count() -> None:
    miniray.get([echo.options(name="counted").remote() for _ in range(5)])
    wait_for(lambda: len(tasks("counted")) == 5)
    summary = state.summarize_tasks()["cluster"]
    assert summary["summary"]["counted"] == {
        "func_or_class_name": "counted",
        "type": "NORMAL_TASK",
        "state_counts": {"FINISHED": 5},
    }
    actor = Named.remote()
    miniray.get(actor.hello.remote())
    assert state.summarize_actors()["cluster"]["summary"]["Named"]["state_counts"]["ALIVE"] >= 1


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ([("nope", "=", "x")], "The given filter column nope is not supported."),
        ([("events", "=", "x")], "The given filter column events is not supported."),
        ([("worker_pid", "=", "x")], "Failed to convert a value x of type"),
        ([("is_debugger_paused", "=", "x")], "for a boolean type column"),
        ([("task_id", "=", "ab")], "ID string needs to have length 24, got 1"),
    ],
)
def test_filters_that_cannot_be_are_refused(filters: Any, text: str) -> None:
    with pytest.raises(RayStateApiException) as caught:
        state.list_tasks(filters=filters)
    assert text in str(caught.value)


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="Unsupported filter predicate > is given"):
        state.list_tasks(filters=[("name", ">", "x")])
    with pytest.raises(ValueError, match="tuples"):
        state.list_tasks(filters=[("name", "x")])  # type: ignore[list-item]
    with pytest.raises(RayStateApiException, match="exceeds the supported limit 10000"):
        state.list_tasks(limit=100_000)
    with pytest.warns(UserWarning, match="Empty result set will be returned"):
        assert state.list_tasks(filters=[("name", "=", "a"), ("name", "=", "b")]) == []


def test_filters_do_not_care_for_case_and_know_the_type_of_their_column() -> None:
    miniray.get(echo.options(name="Case").remote())
    (row,) = tasks("cASE")
    assert state.list_tasks(filters=[("worker_pid", "=", str(row.worker_pid)), ("name", "=", "case")]) == [row]
    assert all(other.name != "Case" for other in state.list_tasks(filters=[("name", "!=", "case")], limit=1000))


def test_the_limit_limits_and_says_so() -> None:
    miniray.get([echo.remote() for _ in range(3)])
    wait_for(lambda: len(state.list_tasks(limit=1000)) >= 3)
    assert state.list_tasks(limit=0) == []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(state.list_tasks(limit=2, _explain=True)) == 2
    assert [str(item.message)[:20] for item in caught] == ["Limit last 2 entries"]


def test_rows_that_are_no_longer_known_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from miniray.util.state import tables

    miniray.get([echo.remote() for _ in range(3)])
    monkeypatch.setattr(tables, "RAY_MAX_LIMIT_FROM_DATA_SOURCE", 1)
    with pytest.raises(RayStateApiException, match="because they are not reachable due to data truncation"):
        state.list_tasks()
    assert state.list_tasks(raise_on_missing_output=False)


def test_a_client_asks_as_the_functions_do() -> None:
    asking = StateApiClient()
    rows = asking.list(StateResource.NODES, options=ListApiOptions(), raise_on_missing_output=False)
    assert rows == state.list_nodes()
    with pytest.raises(ValueError, match="Can't get RUNTIME_ENVS by id"):
        asking.get(StateResource.RUNTIME_ENVS, "x", GetApiOptions())
    summary = asking.summary(SummaryResource.ACTORS, options=SummaryApiOptions(), raise_on_missing_output=True)
    assert set(summary) == {"cluster"}
    assert set(client.SCHEMAS) == set(StateResource)


def test_a_task_may_ask_too() -> None:
    @miniray.remote
    def ask() -> list[str]:
        return [row.name for row in state.list_tasks(filters=[("state", "=", "RUNNING")])]

    assert "asking" in miniray.get(ask.options(name="asking").remote())


def test_the_log_of_an_actor_is_read_to_its_end() -> None:
    @miniray.remote(num_cpus=0)
    class Talker:
        def talk(self) -> None:
            print("one\ntwo\nthree", flush=True)

    actor = Talker.remote()
    miniray.get(actor.talk.remote())
    actor_id = actor._actor_id.hex()
    assert "".join(state.get_log(actor_id=actor_id)).splitlines()[-3:] == ["one", "two", "three"]
    assert "".join(state.get_log(actor_id=actor_id, tail=2)) == "two\nthree\n"
    node_id = state.list_nodes()[0].node_id
    names = state.list_logs(node_id=node_id, glob_filter="worker*out")
    assert list(names) == ["worker_out"]
    assert "three" in "".join("".join(state.get_log(filename=name, node_id=node_id)) for name in names["worker_out"])


def test_a_character_of_a_log_may_lie_in_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    @miniray.remote(num_cpus=0)
    class Talker:
        def talk(self) -> None:
            print("Grüße", flush=True)

    actor = Talker.remote()
    miniray.get(actor.talk.remote())
    monkeypatch.setattr(logs, "_CHUNK", 1)
    assert "".join(state.get_log(actor_id=actor._actor_id.hex())) == "Grüße\n"
    assert b"".join(state.get_log(actor_id=actor._actor_id.hex(), encoding=None)) == "Grüße\n".encode()


def test_logs_that_are_not_there_are_refused() -> None:
    node_id = state.list_nodes()[0].node_id
    with pytest.raises(RayStateApiException, match="A file is not found at"):
        list(state.get_log(filename="nosuch", node_id=node_id))
    with pytest.raises(RayStateApiException, match="A file is not found at"):
        list(state.get_log(filename="../../../../etc/passwd", node_id=node_id))
    with pytest.raises(RayStateApiException, match="not found"):
        list(state.get_log(actor_id="ab"))
    with pytest.raises(ValueError, match="node_id or node_ip must be provided"):
        list(state.get_log(filename="x"))
    with pytest.raises(AssertionError, match="At least one of node ip and node id is required"):
        state.list_logs()


def test_tasks_that_are_not_to_be_shown_are_not() -> None:
    quiet = echo.options(name="quiet", enable_task_events=False)
    miniray.get(quiet.remote())
    waiting = echo.options(name="quiet", enable_task_events=False, resources={"custom": 5}).remote()
    actor = Actor.options(enable_task_events=False).remote()
    miniray.get([actor.pid.remote(), echo.options(name="loud").remote()])
    assert len(tasks("loud")) == 1
    assert state.list_tasks(filters=[("name", "=", "quiet")]) == []
    assert state.list_tasks(filters=[("actor_id", "=", actor._actor_id.hex())]) == []
    miniray.cancel(waiting)
