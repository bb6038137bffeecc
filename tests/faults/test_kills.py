"""Whoever is killed, at whatever moment: five seconds later nothing is left that depended on it."""

import contextlib
import os
import signal

import pytest

from tests.faults.scripts import Program, run
from tests.waiting import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]

START = """
ray.init(num_cpus=2)

@ray.remote
def pid():
    return os.getpid()

@ray.remote
def slow():
    print("a slow task runs", flush=True)
    time.sleep(60)

big = ray.put(b"x" * 1_000_000)
ray.get(pid.remote())
print("head", head_pid(), flush=True)
print("server", server_pid(), flush=True)
"""


# ---- Ctrl-C ----


@pytest.mark.parametrize("way", ["get", "wait", "loop", "put", "compute"])
def test_ctrl_c_ends_a_driver_in(way):
    body = {
        "get": "ray.get(slow.remote())",
        "wait": "ray.wait([slow.remote()])",
        "loop": "while True: pid.remote()",
        "put": "while True: ray.put(1)",
        "compute": "while True: sum(range(1000))",
    }[way]
    with Program(START + f"print('ready', flush=True)\n{body}") as program:
        program.read("ready")
        if way in ("get", "wait"):
            wait_for(lambda: any("a slow task runs" in line for line in program.out))
        program.interrupt_group()
        assert program.wait(5) == -signal.SIGINT, program.report()
        assert program.err[-1] == "KeyboardInterrupt\n", program.report()
        assert "".join(program.err).count("Traceback") == 1, program.report()
        program.leaves_nothing()


def test_ctrl_c_that_meets_the_finalizer_of_a_ref_is_not_lost():
    with Program(
        START
        + """
ref = ray.put(1)
plane = ref._core

class Meets:
    def released(self, entry):
        os.kill(os.getpid(), signal.SIGINT)
        plane.released(entry)

ref._core = Meets()
try:
    del ref
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    ) as program:
        program.read("interrupted")
        program.succeed()


def test_ctrl_c_in_a_terminal_reaches_the_driver_alone_and_it_may_go_on():
    with Program(
        START
        + """
before = worker_pids()
try:
    print("ready", flush=True)
    ray.get(slow.remote())
except KeyboardInterrupt:
    print("interrupted", flush=True)
assert ray.get(pid.remote()) > 0
assert set(before) <= set(worker_pids())
"""
    ) as program:
        program.read("ready")
        program.interrupt_group()
        program.read("interrupted")
        program.succeed()


def test_many_interrupts_while_calls_come_and_go_lose_no_reply():
    with Program(
        """
        ray.init(num_cpus=2)

        @ray.remote
        def same(x):
            return x

        refs = {}
        count = interrupts = 0
        while interrupts < 200:
            try:
                print("ready", flush=True)
                while True:
                    count += 1
                    refs[count] = same.remote(count)
                    assert ray.get(refs[count]) == count
                    if len(refs) > 50:
                        assert ray.get(list(refs.values())) == list(refs)
                        refs = {}
            except KeyboardInterrupt:
                interrupts += 1
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert ray.get(list(refs.values()), timeout=10) == list(refs)
        print("survived", flush=True)
        """
    ) as program:
        program.read("ready")
        while program.process.poll() is None and "survived\n" not in program.out:
            program.signal(signal.SIGINT)
            with contextlib.suppress(AssertionError):  # Python has swallowed it in a finalizer: once more
                program.read("ready", 0.5)
        program.succeed()


# ---- kill -9 ----


BUSY = """
if sys.argv[1] == "True":
    refs = [slow.remote() for _ in range(10)]
    wait_for(lambda: not ray.available_resources().get("CPU"))
print("ready", flush=True)
"""
busy_or_not = pytest.mark.parametrize("busy", [False, True], ids=["idle", "while a task runs"])


@busy_or_not
def test_kill_9_of_the_driver(busy):
    with Program(START + BUSY + "time.sleep(60)", str(busy)) as program:
        program.read("ready")
        program.process.kill()
        program.wait()
        program.leaves_nothing()


@busy_or_not
def test_kill_9_of_the_head_ends_every_wait_and_a_new_session_can_be_had(busy):
    with Program(
        START
        + BUSY
        + """
from miniray import exceptions
try:
    ray.get(slow.remote())
except exceptions.RaySystemError as error:
    print("error", error, flush=True)
for call in (pid.remote, ray.nodes):
    try:
        call()
        raise AssertionError("no error")
    except exceptions.RaySystemError:
        pass
kept = []
def refused():
    try:
        kept.append(ray.put(b"x" * 200_000))
    except exceptions.RaySystemError:
        return True
wait_for(refused)  # once it takes memory that is not there yet
ray.shutdown()
ray.init(num_cpus=1)
assert ray.get(pid.remote()) > 0
""",
        str(busy),
    ) as program:
        head = int(program.read("head"))
        program.read("ready")
        os.kill(head, signal.SIGKILL)
        assert "head process of this session is gone" in program.read("error", 5)
        program.succeed(10)


@busy_or_not
def test_kill_9_of_the_fork_server_costs_no_task(busy):
    with Program(
        START
        + """
@ray.remote
def until(path):
    wait_for(lambda: os.path.exists(path))
    return os.getpid()

go = os.environ["MINIRAY_TMPDIR"] + "/go"
before = worker_pids()
refs = []
if sys.argv[1] == "True":
    refs = [until.remote(go) for _ in range(2)]
    wait_for(lambda: not ray.available_resources().get("CPU"))
os.kill(server_pid(), signal.SIGKILL)
note(go, "go")
assert set(ray.get(refs)) <= set(before)
assert ray.get(pid.remote()) in before
for victim in before:
    os.kill(victim, signal.SIGKILL)
assert ray.get(pid.remote(), timeout=10) not in before
""",
        str(busy),
    ) as program:
        program.succeed(15)


def test_a_driver_that_sleeps_when_its_head_is_killed_leaves_nothing():
    with Program(START + "print('ready', flush=True)\ntime.sleep(60)") as program:
        head = int(program.read("head"))
        program.read("ready")
        os.kill(head, signal.SIGKILL)
        wait_for(lambda: list(program.processes()) == [program.pid] and not program.directories(), 5, program.remains)
        program.signal(signal.SIGTERM)
        program.wait()
        program.leaves_nothing()


def test_the_next_start_sweeps_what_nobody_could():
    with Program(START + "print('ready', flush=True)\ntime.sleep(60)") as program:
        program.read("ready")
        pids = program.processes()
        for pid in pids:  # first stop, so that nobody can notice the death of another
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        program.wait()
        program.no_process_is_left()
        assert len(program.directories()) == 2
        with Program("ray.init(num_cpus=1)", root=program.root) as second:
            second.succeed()
        program.leaves_nothing(0)


def test_a_worker_killed_while_idle_is_not_missed():
    run(
        START
        + """
for _ in range(5):
    victims = worker_pids()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    assert ray.get(pid.remote(), timeout=10) not in victims
"""
    )


def test_a_worker_killed_while_the_driver_waits_is_replaced():
    with Program(
        START
        + """
@ray.remote
def first_time_slow(path):
    note(path, os.getpid())
    if len(appended(path)) == 1:
        time.sleep(60)
    return os.getpid()

path = os.environ["MINIRAY_TMPDIR"] + "/runs"
ref = first_time_slow.remote(path)
wait_for(lambda: appended(path))
print("running", appended(path)[0], flush=True)
assert ray.get(ref, timeout=10) == int(appended(path)[1])
"""
    ) as program:
        os.kill(int(program.read("running")), signal.SIGKILL)
        program.succeed()


def test_children_of_tasks_end_with_the_session():
    with Program(
        START
        + """
@ray.remote
def spawn():
    import subprocess
    return subprocess.Popen(["sleep", "60"]).pid

print("child", ray.get(spawn.remote()), flush=True)
wait_for(lambda: os.path.exists(os.environ["MINIRAY_TMPDIR"] + "/go"))
"""
    ) as program:
        child = int(program.read("child"))
        # For a moment after its exec the environment of a process, by which it is known, reads as empty.
        wait_for(lambda: child in program.processes())
        with open(os.path.join(program.root, "go"), "w"):
            pass
        program.succeed()
