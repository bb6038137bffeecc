"""A shared head is killed, and another one takes its place: drivers, tasks, actors, groups and key-values go on."""

import os
import re
import signal

import psutil
import pytest

from tests.faults.shared_head import Shared
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no session outlives its head without fork"),
]


@pytest.fixture
def idle():
    """A root of its own, in which nothing is started yet."""
    shared = Shared()
    yield shared
    shared.stop()


@pytest.fixture
def shared(idle):
    idle.start()
    return idle


WORK = """
@miniray.remote
def slow(path, value):
    open(path, "w").write(str(os.getpid()))
    while os.path.exists(path):
        time.sleep(0.01)
    return value

@miniray.remote
def double(value):
    return 2 * value

@miniray.remote
class Counter:
    def __init__(self):
        self.count = 0
    def add(self):
        self.count += 1
        return self.count
    def pid(self):
        return os.getpid()

kept = []
"""


def test_running_tasks_and_actors_go_on_and_new_ones_run(shared, tmp_path):
    driver = shared.driver(WORK)
    mark = tmp_path / "running"
    driver.ask(f"kept.append(slow.remote({str(mark)!r}, 7))")
    driver.ask("kept.append(Counter.options(num_cpus=0).remote())")
    assert driver.ask("miniray.get(kept[1].add.remote())") == 1
    pid = driver.ask("miniray.get(kept[1].pid.remote())")
    wait_for(mark.exists)
    shared.kill()
    assert driver.ask("miniray.get(kept[1].add.remote())") == 2
    driver.send("miniray.get([double.remote(n) for n in range(20)])")
    shared.start()
    assert driver.answer() == [2 * n for n in range(20)]
    mark.unlink()
    assert driver.ask("miniray.get(kept[0])") == 7
    assert driver.ask("miniray.get(kept[1].add.remote())") == 3
    assert driver.ask("miniray.get(kept[1].pid.remote())") == pid
    wait_for(lambda: driver.ask("miniray.available_resources().get('CPU')") == 2.0, 60)
    driver.leave()


def test_detached_actors_and_their_names_and_key_values_are_there(shared):
    driver = shared.driver(WORK)
    driver.ask("kept.append(Counter.options(name='c', lifetime='detached').remote())")
    assert driver.ask("miniray.get(kept[0].add.remote())") == 1
    assert driver.ask("[kv._internal_kv_put(b'k%d' % n, b'%d' % n) for n in range(3)]") == [False] * 3
    driver.leave()
    shared.restart()
    other = shared.driver(WORK)
    assert other.ask("miniray.get(miniray.get_actor('c').add.remote())") == 2
    assert other.ask("kv._internal_kv_get(b'k2')") == b"2"
    assert "already taken" in other.ask("Counter.options(name='c').remote()")
    shared.restart()
    assert other.ask("miniray.get(miniray.get_actor('c').add.remote())") == 3
    assert other.ask("miniray.kill(miniray.get_actor('c'))") is None
    assert "Failed to look up actor" in other.ask("miniray.get_actor('c')")
    other.leave()


def test_a_worker_that_dies_while_there_is_no_head_is_noticed(shared):
    driver = shared.driver(WORK)
    driver.ask("kept.append(Counter.options(max_restarts=1, max_task_retries=-1, num_cpus=0).remote())")
    driver.ask("kept.append(Counter.options(num_cpus=0).remote())")
    pids = [driver.ask(f"miniray.get(kept[{n}].pid.remote())") for n in (0, 1)]
    shared.kill()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    shared.start()
    assert driver.ask("miniray.get(kept[0].pid.remote())") not in pids
    assert "ActorDiedError" in driver.ask("miniray.get(kept[1].pid.remote())")
    driver.leave()


def test_a_driver_that_left_meanwhile_ends_its_job(shared):
    driver = shared.driver(WORK)
    driver.ask("kept.append(Counter.options(name='mine').remote())")
    assert driver.ask("miniray.get(kept[0].add.remote())") == 1
    shared.kill()
    driver.process.kill()
    driver.process.communicate()
    shared.start()
    other = shared.driver(WORK)
    wait_for(lambda: "Failed to look up" in str(other.ask("miniray.get_actor('mine', namespace='n')")), 60)
    wait_for(lambda: other.ask("miniray.available_resources().get('CPU')") == 2.0, 60)
    other.leave()


def test_placement_groups_keep_their_bundles(shared):
    driver = shared.driver(
        WORK
        + """
from miniray.util import placement_group, remove_placement_group
from miniray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Strategy
group = placement_group([{"CPU": 1}], name="g")
miniray.get(group.ready())
"""
    )
    assert driver.ask("miniray.available_resources()['CPU']") == 1
    shared.restart()
    assert driver.ask("miniray.util.placement_group_table(group)['state']") == "CREATED"
    assert driver.ask("miniray.get(double.options(scheduling_strategy=Strategy(group)).remote(4))") == 8
    assert driver.ask("miniray.available_resources()['CPU']") == 1
    assert driver.ask("remove_placement_group(group)") is None
    wait_for(lambda: driver.ask("miniray.available_resources()['CPU']") == 2, 60)
    driver.leave()


WAITING = """
import threading

@miniray.remote
class Endless:
    def items(self):
        yield 1
        while True:
            time.sleep(1)

taken = []

def take(generator):
    try:
        for ref in generator:
            taken.append(miniray.get(ref))
    except Exception as error:
        taken.append(type(error).__name__)
"""


def test_without_another_head_everybody_gives_up_in_time_and_nothing_is_left(idle):
    idle.environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "1"
    idle.start()
    driver = idle.driver(WORK + WAITING)
    assert driver.ask("miniray.get(double.remote(1))") == 2
    assert (
        driver.ask("threading.Thread(target=take, args=[Endless.remote().items.remote()], daemon=True).start()") is None
    )
    wait_for(lambda: driver.ask("taken") == [1])
    idle.kill()
    answer = driver.ask("kv._internal_kv_get('k')")
    assert re.match("RaySystemError.*Failed to connect to GCS within 1 seconds", answer), answer
    wait_for(lambda: driver.ask("taken") == [1, "RaySystemError"], message=lambda: str(driver.ask("taken")))
    driver.end()
    wait_for(lambda: not idle.left(), 30, lambda: f"left over: {idle.left()}")


def test_stop_ends_a_session_that_waits_for_a_head(shared):
    shared.kill()
    shared.stop_head()
    wait_for(lambda: not shared.left(), 30, lambda: f"left over: {shared.left()}")


def test_tables_in_a_place_of_their_own_outlive_the_session(idle, tmp_path):
    storage = str(tmp_path / "storage")
    idle.start("--storage", storage)
    with pytest.raises(AssertionError, match=f"another head keeps its tables in {storage}"):
        idle.start("--storage", storage)
    driver = idle.driver(WORK)
    driver.ask("kept.append(Counter.options(name='c', lifetime='detached', max_restarts=-1).remote())")
    assert driver.ask("miniray.get(kept[0].add.remote())") == 1
    assert driver.ask("kv._internal_kv_put('k', 'v')") is False
    driver.leave()
    idle.stop_head()
    idle.start("--storage", storage)
    driver = idle.driver(WORK)
    assert driver.ask("kv._internal_kv_get('k')") == b"v"
    # Until its new process is there, calls are refused, as in Ray.
    answers = []
    wait_for(lambda: answers.append(driver.ask("miniray.get(miniray.get_actor('c').add.remote())")) or answers[-1] == 1)
    assert all("is restarting" in answer for answer in answers[:-1])
    driver.leave()


def test_what_waits_for_a_worker_and_what_waits_for_others_goes_on(shared, tmp_path):
    driver = shared.driver(
        WORK
        + """
@miniray.remote
def outer(path):
    return miniray.get(slow.remote(path, 3)) + 1
"""
    )
    marks = [tmp_path / f"running{number}" for number in range(4)]
    driver.ask(f"kept.extend(slow.remote(path, 1) for path in {[str(mark) for mark in marks[:2]]})")
    wait_for(lambda: all(mark.exists() for mark in marks[:2]))
    driver.ask(f"kept.append(slow.remote({str(marks[2])!r}, 2))")  # no CPU is free
    driver.ask(f"kept.append(outer.remote({str(marks[3])!r}))")
    shared.kill()
    marks[0].unlink()
    assert driver.ask("miniray.get(kept[0])") == 1
    shared.start()
    wait_for(lambda: marks[2].exists() or marks[3].exists(), 60)
    marks[1].unlink()
    wait_for(lambda: marks[2].exists() and marks[3].exists(), 60)
    shared.restart()
    for mark in marks[2:]:
        mark.unlink()
    assert driver.ask("miniray.get(kept)") == [1, 1, 2, 4]
    wait_for(lambda: driver.ask("miniray.available_resources().get('CPU')") == 2.0, 60)
    driver.leave()


def test_actors_made_while_there_is_no_head_are_made_by_the_next(shared):
    driver = shared.driver(WORK)
    shared.kill()
    driver.ask("kept.append(Counter.options(num_cpus=0).remote())")
    driver.ask("kept.append(kept[0].add.remote())")
    driver.send("kept.append(Counter.options(name='named', get_if_exists=True).remote())")
    shared.start()
    driver.line()
    assert driver.ask("miniray.get([kept[1], kept[2].add.remote(), kept[0].add.remote()])") == [1, 1, 2]
    driver.ask("kept.clear()")
    wait_for(lambda: driver.ask("miniray.util.list_named_actors()") == [], 60)
    driver.leave()


def test_large_objects_are_there_and_memory_is_accounted_for(shared):
    driver = shared.driver(
        WORK
        + """
@miniray.remote
def large(size):
    return bytes(size)
"""
    )
    driver.ask("kept.append(large.remote(20_000_000))")
    driver.ask("kept.append(miniray.put(b'x' * 20_000_000))")
    assert driver.ask("miniray.wait(kept, num_returns=2)[1]") == []
    shared.restart()
    assert driver.ask("[len(value) for value in miniray.get(kept)]") == [20_000_000] * 2
    assert driver.ask("[len(miniray.get(large.remote(10_000_000))) for _ in range(3)]") == [10_000_000] * 3
    driver.leave()


def test_workers_of_a_fork_server_that_is_dead_too_are_adopted(shared):
    driver = shared.driver(WORK)
    driver.ask("kept.append(Counter.options(num_cpus=0, name='c').remote())")
    assert driver.ask("miniray.get(kept[0].add.remote())") == 1
    info = shared.info()
    (server,) = psutil.Process(info.pid).children()
    server.kill()
    wait_for(lambda: [child for child in psutil.Process(info.pid).children() if child.pid != server.pid], 60)
    assert driver.ask("miniray.get([double.remote(n) for n in range(4)])") == [0, 2, 4, 6]
    shared.restart()
    assert driver.ask("miniray.get(kept[0].add.remote())") == 2
    assert driver.ask("miniray.get([double.remote(n) for n in range(4)])") == [0, 2, 4, 6]
    pid = driver.ask("miniray.get(kept[0].pid.remote())")
    os.kill(pid, signal.SIGKILL)
    assert "ActorDiedError" in driver.ask("miniray.get(kept[0].add.remote())")
    driver.leave()


def test_heads_that_die_while_they_begin_are_followed_by_others(shared):
    driver = shared.driver(WORK)
    driver.ask("kept.extend(Counter.options(num_cpus=0).remote() for _ in range(3))")
    assert driver.ask("miniray.get([counter.add.remote() for counter in kept])") == [1, 1, 1]
    shared.kill()
    for _ in range(3):
        shared.start()
        shared.kill()
    shared.start()
    assert driver.ask("miniray.get([counter.add.remote() for counter in kept])") == [2, 2, 2]
    assert driver.ask("miniray.get([double.remote(n) for n in range(4)])") == [0, 2, 4, 6]
    driver.leave()


def test_a_process_that_is_stopped_is_not_waited_for(shared):
    driver, stopped = shared.driver(WORK), shared.driver(WORK)
    stopped.ask("kept.append(Counter.options(num_cpus=0).remote())")
    assert stopped.ask("miniray.get(kept[0].add.remote())") == 1
    shared.kill()
    stopped.process.send_signal(signal.SIGSTOP)
    shared.start()
    assert driver.ask("miniray.get(double.remote(2))") == 4
    stopped.process.send_signal(signal.SIGCONT)
    answer = stopped.ask("kv._internal_kv_get('k')")
    assert answer is None or "did not come back in time" in answer, answer
    driver.leave()


def test_workers_with_an_environment_of_their_own_are_known_again(shared):
    driver = shared.driver(
        WORK
        + """
@miniray.remote(runtime_env={"env_vars": {"WHERE": "inside"}})
def where():
    return os.environ.get("WHERE"), os.getpid()
"""
    )
    assert driver.ask("miniray.get(where.remote())[0]") == "inside"
    shared.restart()
    assert driver.ask("miniray.get([where.remote() for _ in range(3)])[2][0]") == "inside"
    assert driver.ask("miniray.get(double.remote(2))") == 4
    driver.leave()
