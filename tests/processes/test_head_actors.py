"""Actors as the head keeps them: a bare driver asks, bare workers play the actors."""

import os
import signal
from itertools import count

import psutil
import pytest

from miniray.messages import control, tasks
from miniray.messages.control import ALIVE, DEAD, DEPENDENCIES_UNREADY, PENDING_CREATION, RESTARTING
from miniray.messages.objects import KIND_ERROR, Payload
from miniray.state_machines.table_prefix import TablePubsub
from tests.processes.bare_driver import BareDriver
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(90)
_numbers = count(1)


def session(**config):
    return BareDriver(worker_target="tests.processes.bare_worker:main", **config)


@pytest.fixture
def driver():
    with session() as driver:
        driver.register("space")
        yield driver


def spec(driver, init="ok", *, name="", detached=False, max_restarts=0, resources=None, placement=None, **more):
    number = next(_numbers).to_bytes(12, "big")
    actor_id = number + driver.job_id
    task_id = b"\xff" * 8 + actor_id
    held = {key: round(value * 10000) for key, value in (resources or {}).items()}
    wanted = {key: round(value * 10000) for key, value in (placement or {"CPU": 1}).items()}
    creation = tasks.TaskPush(task_id, tasks.ACTOR_CREATION_TASK, b"f", driver.job_id, None, 1, init)
    export = tasks.FunctionExport(b"f", b"t", Payload(0, b"class"), [], driver.job_id)
    return control.ActorSpec(
        actor_id,
        driver.job_id,
        driver.transport.address,
        "A",
        name,
        "space",
        detached,
        max_restarts,
        control.LeaseSpec({**wanted, **held}, driver.job_id),
        held,
        export,
        creation,
        b"descriptor",
        **more,
    )


def create(driver, init="ok", **more):
    """Create an actor; its id."""
    wanted = spec(driver, init, **more)
    reply = driver.ask(lambda number: control.CreateActor(number, wanted))
    assert not reply.error, reply.value
    return wanted.actor_id


def state(driver, actor_id, wanted):
    """The news of this actor, once it is in that state."""
    return driver.wait(control.ActorState, actor_id=actor_id, state=wanted)


def kill(driver, actor_id, no_restart=True):
    return driver.ask(lambda number: control.KillActor(number, actor_id, no_restart)).value


def call(driver, alive, name):
    push = tasks.TaskPush(os.urandom(24), tasks.ACTOR_TASK, b"f", driver.job_id, None, 1, name)
    driver.transport.send(alive.worker.address, [push])


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# ---- creation ----


def test_an_actor_comes_to_life_and_its_owner_hears_where(driver):
    actor_id = create(driver)
    alive = state(driver, actor_id, ALIVE)
    assert psutil.pid_exists(alive.worker.pid)
    assert alive.incarnation == 0
    row = driver.query("actor", actor_id=actor_id)
    assert (row["state"], row["pid"], row["descriptor"]) == (ALIVE, alive.worker.pid, b"descriptor")


def test_a_request_that_comes_again_makes_no_second_actor(driver):
    wanted = spec(driver)
    for _ in range(2):
        driver.ask(lambda number: control.CreateActor(number, wanted))
    state(driver, wanted.actor_id, ALIVE)
    assert len(driver.query("actors")) == 1


def test_a_constructor_that_raises_ends_the_actor_and_its_process(driver):
    actor_id = create(driver, "raise", max_restarts=-1)
    dead = state(driver, actor_id, DEAD)
    assert dead.error == b"the error"
    assert dead.cause["kind"] == "creation_failed"
    wait_for(lambda: is_gone(dead.cause["pid"]))


def test_more_actors_than_cpus_live_at_once(driver):
    actors = [create(driver) for _ in range(6)]
    pids = {state(driver, actor_id, ALIVE).worker.pid for actor_id in actors}
    assert len(pids) == 6
    assert driver.query("available_resources")["CPU"] == 2.0


def test_a_default_actor_starts_while_all_cpus_are_busy(driver):
    driver.demand(2, CPU=1)
    driver.wait(control.LeaseGranted)
    driver.wait(control.LeaseGranted)
    state(driver, create(driver), ALIVE)


def test_an_actor_holds_its_resources_until_it_is_dead():
    with session(resources={"x": 1.0}) as driver:
        driver.register("space")
        first = create(driver, resources={"CPU": 1, "x": 1})
        state(driver, first, ALIVE)
        available = driver.query("available_resources")
        assert (available["CPU"], available.get("x")) == (1.0, None)
        second = create(driver, resources={"x": 1})
        assert driver.query("actor", actor_id=second)["state"] == PENDING_CREATION
        assert kill(driver, first) is True
        state(driver, second, ALIVE)
        assert kill(driver, second) is True
        available = driver.query("available_resources")
        assert (available["CPU"], available["x"]) == (2.0, 1.0)


def test_devices_go_to_the_creation_task():
    with session(num_gpus=2) as driver:
        driver.register("space")
        actor_id = create(driver, resources={"GPU": 1})
        state(driver, actor_id, ALIVE)
        assert driver.query("available_resources")["GPU"] == 1.0


def test_an_actor_that_can_never_be_placed_waits_and_is_named(driver):
    actor_id = create(driver, resources={"CPU": 100})
    assert "'CPU': 100.0" in driver.wait(control.Warn).message
    assert kill(driver, actor_id) is True
    dead = state(driver, actor_id, DEAD)
    assert dead.cause["never_started"]
    assert dead.cause["error_message"] == "The actor is dead because it was killed by `ray.kill`."
    assert not driver.query("status")["demands"]


def test_a_worker_that_dies_while_it_creates_is_replaced_as_often_as_allowed(driver):
    alive = state(driver, create(driver, "crash-once", max_restarts=1), ALIVE)
    assert alive.incarnation == 1
    dead = state(driver, create(driver, "crash", max_restarts=2), DEAD)
    assert dead.incarnation == 2
    assert dead.cause["never_started"]


def test_workers_that_cannot_start_end_the_actor():
    with session(prestart=0) as driver:
        driver.register("space")
        logs = driver.paths.logs
        os.rename(logs, logs + "-away")  # no log file, no worker
        try:
            dead = state(driver, create(driver, max_restarts=3), DEAD)
            assert "3 worker processes in a row" in dead.cause["error_message"]
        finally:
            os.rename(logs + "-away", logs)


def test_an_actor_whose_arguments_are_late_has_its_name_at_once(driver):
    wanted = spec(driver, name="early")
    wanted.creation.num_returns = -1
    driver.ask(lambda number: control.CreateActor(number, wanted))
    assert driver.query("actor", actor_id=wanted.actor_id)["state"] == DEPENDENCIES_UNREADY
    assert driver.query("named_actor", name="early", namespace="space")[0] == wanted.actor_id
    wanted.creation.num_returns = 1
    driver.ask(lambda number: control.CreateActor(number, wanted))
    state(driver, wanted.actor_id, ALIVE)


def test_an_actor_whose_arguments_failed_is_dead_with_their_error(driver):
    wanted = spec(driver)
    wanted.creation.num_returns = -1
    driver.ask(lambda number: control.CreateActor(number, wanted))
    error = Payload(KIND_ERROR, b"no argument")
    driver.send(tasks.TaskReply(wanted.creation.task_id, tasks.FAILED, [error], 0.0))
    assert state(driver, wanted.actor_id, DEAD).error == b"no argument"


# ---- names ----


def test_a_name_is_taken_until_its_actor_is_dead(driver):
    actor_id = create(driver, name="n")
    wanted = spec(driver, name="n")
    reply = driver.ask(lambda number: control.CreateActor(number, wanted))
    assert reply.error == "ActorAlreadyExistsError"
    assert reply.value == (
        "The name n (namespace=space) is already taken. Please use a different name or get the existing actor using "
        "ray.get_actor('n', namespace='space')"
    )
    assert kill(driver, actor_id) is True
    assert driver.query("named_actor", name="n", namespace="space") is None
    create(driver, name="n")


def test_get_if_exists_gives_the_one_that_has_the_name(driver):
    actor_id = create(driver, "hang", name="n")
    wanted = spec(driver, name="n", get_if_exists=True)
    value = driver.ask(lambda number: control.CreateActor(number, wanted)).value
    owner = driver.transport.address
    assert value == [actor_id, owner.worker_id, owner.endpoint, b"descriptor"]
    assert driver.query("list_named_actors", namespace=None) == [{"name": "n", "namespace": "space"}]
    assert driver.query("list_named_actors", namespace="other") == []


# ---- death ----


def test_an_actor_that_is_killed_from_outside_is_made_again(driver):
    actor_id = create(driver, max_restarts=1, name="n")
    first = state(driver, actor_id, ALIVE)
    os.kill(first.worker.pid, signal.SIGKILL)
    assert state(driver, actor_id, RESTARTING).incarnation == 1
    assert driver.query("named_actor", name="n", namespace="space") is not None
    second = state(driver, actor_id, ALIVE)
    assert second.worker.pid != first.worker.pid
    os.kill(second.worker.pid, signal.SIGKILL)
    dead = state(driver, actor_id, DEAD)
    assert dead.cause["pid"] == second.worker.pid
    assert dead.cause["error_message"].startswith(
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
    )


def test_kill_without_no_restart_counts_as_a_restart(driver):
    actor_id = create(driver, max_restarts=1)
    first = state(driver, actor_id, ALIVE)
    assert kill(driver, actor_id, no_restart=False) is True
    assert is_gone(first.worker.pid)
    state(driver, actor_id, ALIVE)
    assert kill(driver, actor_id, no_restart=False) is True
    assert "INTENDED_SYSTEM_EXIT" in state(driver, actor_id, DEAD).cause["error_message"]


def test_kill_works_on_actors_in_their_constructor_and_answers_for_the_unknown(driver):
    actor_id = create(driver, "hang", max_restarts=5)
    pid = wait_for(lambda: driver.query("actor", actor_id=actor_id)["pid"])
    assert kill(driver, actor_id) is True
    assert state(driver, actor_id, DEAD).incarnation == 0
    assert is_gone(pid)
    assert kill(driver, actor_id) is True
    assert kill(driver, b"?" * 16) is False


def test_an_actor_that_exits_by_itself_is_not_made_again(driver):
    actor_id = create(driver, max_restarts=-1)
    call(driver, state(driver, actor_id, ALIVE), "exit_actor")
    text = state(driver, actor_id, DEAD).cause["error_message"]
    assert text.endswith("exit_actor() is called.")
    assert "INTENDED_USER_EXIT" in text


def test_an_actor_without_handles_leaves_in_good_order(driver):
    actor_id = create(driver, name="n")
    alive = state(driver, actor_id, ALIVE)
    driver.send(control.ActorOutOfScope(actor_id))
    dead = state(driver, actor_id, DEAD)
    assert dead.cause["kind"] == "out_of_scope"
    assert is_gone(alive.worker.pid)


def test_an_actor_without_handles_that_does_not_leave_is_killed(monkeypatch):
    monkeypatch.setenv("RAY_actor_graceful_shutdown_timeout_ms", "50")
    with session() as driver:
        driver.register("space")
        actor_id = create(driver)
        state(driver, actor_id, ALIVE)
        open(os.path.join(driver.paths.directory, "stubborn"), "w").close()
        driver.send(control.ActorOutOfScope(actor_id))
        assert state(driver, actor_id, DEAD).cause["kind"] == "out_of_scope"


def test_an_actor_that_is_being_made_ends_with_its_last_handle(driver):
    actor_id = create(driver, "hang")
    wait_for(lambda: driver.query("actor", actor_id=actor_id)["pid"])
    driver.send(control.ActorOutOfScope(actor_id))
    assert state(driver, actor_id, DEAD).cause["kind"] == "out_of_scope"


def test_actors_move_when_their_node_dies(driver):
    node = driver.ask(lambda number: control.AddNode(number, {"CPU": 10000, "x": 10000})).value
    actor_id = create(driver, max_restarts=1, resources={"x": 1})
    assert state(driver, actor_id, ALIVE).worker.node_id.hex() == node["NodeID"]
    driver.ask(lambda number: control.RemoveNode(number, bytes.fromhex(node["NodeID"])))
    cause = state(driver, actor_id, RESTARTING).cause
    assert cause["error_message"] == f"The actor died because its node has died. Node Id: {node['NodeID']}"
    other = driver.ask(lambda number: control.AddNode(number, {"CPU": 10000, "x": 10000})).value
    assert state(driver, actor_id, ALIVE).worker.node_id.hex() == other["NodeID"]


def test_actors_die_with_their_driver_and_detached_ones_live_on():
    with session(private=False) as starter:
        starter.register("space")
        with BareDriver(starter.registry()) as other:
            other.register("space")
            mine, detached = create(other), create(other, name="stays", detached=True, max_restarts=1)
            mine_alive, alive = state(other, mine, ALIVE), state(other, detached, ALIVE)
            starter.send(control.WatchActor(mine), control.WatchActor(detached))
            state(starter, detached, ALIVE)
        dead = state(starter, mine, DEAD)
        assert dead.cause["kind"] == "owner_died"
        assert is_gone(mine_alive.worker.pid)
        assert starter.query("named_actor", name="stays", namespace="space")[0] == detached
        os.kill(alive.worker.pid, signal.SIGKILL)
        state(starter, detached, RESTARTING)
        again = state(starter, detached, ALIVE)
        starter.send(control.ActorOutOfScope(detached))
        assert kill(starter, detached) is True
        assert is_gone(again.worker.pid)


def test_actors_die_with_the_actor_that_made_them(driver):
    parent = state(driver, create(driver), ALIVE)
    wanted = spec(driver)
    wanted.owner = parent.worker.address
    driver.send(control.CreateActor(0, wanted), control.WatchActor(wanted.actor_id))
    child = state(driver, wanted.actor_id, ALIVE)
    os.kill(parent.worker.pid, signal.SIGKILL)
    dead = state(driver, wanted.actor_id, DEAD)
    assert dead.cause["owner_id"] == parent.worker.address.worker_id
    assert is_gone(child.worker.pid)


def test_the_end_of_a_session_ends_its_actors():
    with session() as driver:
        driver.register("space")
        pid = state(driver, create(driver, detached=True), ALIVE).worker.pid
    wait_for(lambda: is_gone(pid))


# ---- watching ----


def test_a_watcher_hears_at_once_and_until_the_end(driver):
    actor_id = create(driver)
    state(driver, actor_id, ALIVE)
    driver.send(control.WatchActor(actor_id))
    state(driver, actor_id, ALIVE)
    kill(driver, actor_id)
    state(driver, actor_id, DEAD)
    driver.send(control.WatchActor(actor_id))
    state(driver, actor_id, DEAD)
    driver.send(control.WatchActor(b"?" * 16))
    assert state(driver, b"?" * 16, DEAD).cause["kind"] == "unknown"


def test_subscribers_see_the_rows_of_actors(driver):
    driver.send(control.Subscribe(TablePubsub.ACTOR_PUBSUB))
    actor_id = create(driver)
    events = [driver.wait(control.Published, key=actor_id)]
    while b"ALIVE" not in events[-1].value:
        events.append(driver.wait(control.Published, key=actor_id))
    assert b"PENDING_CREATION" in events[0].value


def test_two_hundred_actors_start_at_once(driver):
    actors = [spec(driver) for _ in range(200)]
    driver.send(*[control.CreateActor(0, wanted) for wanted in actors])
    for wanted in actors:
        state(driver, wanted.actor_id, ALIVE)
    for wanted in actors:
        driver.send(control.KillActor(0, wanted.actor_id, True))
    for wanted in actors:
        state(driver, wanted.actor_id, DEAD)
    assert driver.query("available_resources")["CPU"] == 2.0
