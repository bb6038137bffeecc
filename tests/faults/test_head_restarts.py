"""A shared head is killed, and another one takes its place: drivers, tasks, actors, groups and key-values go on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap

import psutil
import pytest

from miniray.system import session
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no session outlives its head without fork"),
]


class Shared:
    """A shared head under a root of its own, started and killed as a user would."""

    def __init__(self):
        self.root = tempfile.mkdtemp(prefix="mrh-", dir="/tmp")  # short: the path of a socket ends at 107 bytes
        self.drivers = []
        self.environment = {**os.environ, "MINIRAY_TMPDIR": self.root, "RAY_gcs_rpc_server_reconnect_timeout_s": "30"}
        self.directory = os.path.join(self.root, f"miniray-{os.getuid()}")

    def start(self, *arguments):
        command = [sys.executable, "-m", "miniray", "start", "--head", "--num-cpus", "2", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def info(self):
        (info,) = session.running_sessions(self.directory)
        return info

    def kill(self):
        info = self.info()
        os.kill(info.pid, signal.SIGKILL)
        wait_for(lambda: not session.is_alive(info.directory), 20)
        return info

    def restart(self):
        before = self.kill()
        assert "takes its place" in self.start()
        assert self.info().epoch == before.epoch + 1

    def driver(self, body):
        """A driver that reads lines and answers them with lines; `body` defines what it does with each."""
        program = textwrap.dedent(_DRIVER).replace("BODY", textwrap.indent(textwrap.dedent(body), "    ").lstrip())
        self.drivers.append(Driver(program, self.environment))
        return self.drivers[-1]

    def stop(self):
        for driver in self.drivers:
            driver.end()
        subprocess.run(
            [sys.executable, "-m", "miniray", "stop", "--force"], env=self.environment, capture_output=True, timeout=60
        )
        wait_for(lambda: not self.left(), 30, lambda: f"left over: {self.left()}")
        shutil.rmtree(self.root)

    def stop_head(self):
        subprocess.run(
            [sys.executable, "-m", "miniray", "stop"], env=self.environment, check=True, capture_output=True, timeout=60
        )

    def left(self):
        names = [name for name in os.listdir(self.directory) if name != "lock"] if os.path.isdir(self.directory) else []
        return names + [
            process.info["pid"]
            for process in psutil.process_iter(["pid", "environ"])
            if (process.info["environ"] or {}).get("MINIRAY_TMPDIR") == self.root and process.pid != os.getpid()
        ]


_DRIVER = """
import os, sys, time
import miniray
from miniray.experimental import internal_kv as kv

miniray.init(address="auto", namespace="n", log_to_driver=False)
print("ready", flush=True)

def define():
    BODY
    return locals()

things = define()
for line in sys.stdin:
    try:
        answer = eval(line, {**globals(), **things})
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    print(repr(answer), flush=True)
miniray.shutdown()
print("left", flush=True)
"""


class Driver:
    def __init__(self, program, environment):
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self):
        line = self.process.stdout.readline().strip()
        if not line:
            self.process.kill()
            raise AssertionError(self.process.communicate()[1][-3000:])
        return line

    def send(self, expression):
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def ask(self, expression):
        self.send(expression)
        return eval(self.line())

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        if not self.process.stdout.closed:
            self.process.communicate()

    def leave(self):
        self.process.stdin.close()
        assert self.line() == "left"
        self.process.stdout.close()
        self.process.stderr.close()
        assert self.process.wait(20) == 0


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
    assert eval(driver.line()) == [2 * n for n in range(20)]
    mark.unlink()
    assert driver.ask("miniray.get(kept[0])") == 7
    assert driver.ask("miniray.get(kept[1].add.remote())") == 3
    assert driver.ask("miniray.get(kept[1].pid.remote())") == pid
    wait_for(lambda: driver.ask("miniray.available_resources().get('CPU')") == 2.0, 20)
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
    wait_for(lambda: "Failed to look up" in str(other.ask("miniray.get_actor('mine', namespace='n')")), 20)
    wait_for(lambda: other.ask("miniray.available_resources().get('CPU')") == 2.0, 20)
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
    wait_for(lambda: driver.ask("miniray.available_resources()['CPU']") == 2, 20)
    driver.leave()


def test_without_another_head_everybody_gives_up_in_time_and_nothing_is_left(idle):
    idle.environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "1"
    idle.start()
    driver = idle.driver(WORK)
    assert driver.ask("miniray.get(double.remote(1))") == 2
    idle.kill()
    answer = driver.ask("kv._internal_kv_get('k')")
    assert re.match("RaySystemError.*Failed to connect to GCS within 1 seconds", answer), answer
    driver.end()
    wait_for(lambda: not idle.left(), 30, lambda: f"left over: {idle.left()}")


def test_stop_ends_a_session_that_waits_for_a_head(shared):
    shared.kill()
    shared.stop_head()
    wait_for(lambda: not shared.left(), 30, lambda: f"left over: {shared.left()}")


def test_tables_in_a_place_of_their_own_outlive_the_session(idle, tmp_path):
    storage = str(tmp_path / "storage")
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
    assert driver.ask("miniray.get(miniray.get_actor('c').add.remote())") == 1
    driver.leave()
