"""However a driver ends by itself, nothing of its session is left."""

import pytest

from tests.faults.scripts import Program, run

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]

START = """
ray.init(num_cpus=2)

@ray.remote
def double(x):
    return 2 * x

assert ray.get(double.remote(21)) == 42
big = ray.put(b"x" * 1_000_000)
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("ray.shutdown()", 0),
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('the end')", 1),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -15),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), signal.SIGKILL); time.sleep(60)", -9),
        ("os.abort()", -6),
    ],
    ids=["shutdown", "no shutdown", "sys.exit", "exception", "SIGTERM", "os._exit", "SIGKILL", "abort"],
)
def test_nothing_is_left_when_a_driver_ends_by(ending, code):
    with Program(START + ending) as program:
        assert program.wait() == code, program.report()
        program.leaves_nothing()
        if ending == "raise ValueError('the end')":
            assert "".join(program.err).count("Traceback") == 1, program.report()
        elif code in (0, 3, 4):
            assert [line for line in program.err if "Started a local Ray instance." not in line] == []


def test_nothing_is_left_when_a_driver_ends_while_tasks_run_and_wait():
    with Program(
        """
        ray.init(num_cpus=2)

        @ray.remote
        def slow():
            time.sleep(60)

        refs = [slow.remote() for _ in range(100)]
        wait_for(lambda: not ray.available_resources().get("CPU"))
        """
    ) as program:
        program.succeed()


def test_a_script_without_a_guard_runs_once():
    out = run(
        """
        print("the script runs")
        ray.init(num_cpus=2)

        class Point:
            def __init__(self, x):
                self.x = x

        @ray.remote
        def shift(point):
            return Point(point.x + 1)

        assert ray.get(shift.remote(Point(1))).x == 2
        """
    )
    assert out.count("the script runs") == 1


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_hundred_sessions_in_one_process_leak_nothing():
    run(
        """
        import gc, threading, psutil

        @ray.remote
        def f(x):
            return x

        def once():
            ray.init(num_cpus=1)
            assert ray.get(f.remote(1)) == 1
            ray.put(b"x" * 200_000)
            ray.shutdown()
            assert not ray.is_initialized()

        def held():
            gc.collect()
            return (len(os.listdir("/proc/self/fd")), threading.active_count(), len(os.listdir("/proc/self/task")))

        me = psutil.Process()
        for _ in range(20):
            once()
        before, memory = held(), me.memory_info().rss
        for _ in range(80):
            once()
        wait_for(lambda: held() <= before, message=lambda: f"{before} became {held()}")
        assert me.children() == []
        grown = me.memory_info().rss - memory
        assert grown < 6_000_000, f"{grown} bytes more"
        """,
        timeout=110,
    )


def test_two_sessions_side_by_side_do_not_meet():
    text = """
    ray.init(num_cpus=1)

    @ray.remote
    def f():
        return os.getppid()

    assert ray.get(f.remote()) == server_pid()
    print("session", session_name(), flush=True)
    print("workers", worker_pids(), flush=True)
    wait_for(lambda: os.path.exists(sys.argv[1]))
    assert ray.get(f.remote()) == server_pid()
    """
    with Program(text, "/dev/null/never") as first:
        name = first.read("session")
        with Program(text, first.root, root=first.root) as second:
            assert second.read("session") != name
            assert second.wait() == 0, second.report()
            second.no_process_is_left()
        assert len(first.directories()) == 2, first.directories()
        assert len(first.processes()) >= 4
        first.process.kill()
        first.wait()
        first.leaves_nothing()


def test_a_process_forked_by_the_user_gets_a_clear_error_and_ends_without_ending_the_session():
    run(
        START
        + """
ref = double.remote(1)
ray.get(ref)
child = os.fork()
if child == 0:
    wrong = 0
    for call in (
        lambda: ray.get(ref),
        lambda: ray.put(1),
        lambda: double.remote(1),
        lambda: ray.wait([ref]),
        lambda: ray.nodes(),
    ):
        try:
            call()
            wrong += 1
        except Exception as error:
            if "fork" not in str(error):
                print(repr(error))
                wrong += 1
    ray.shutdown()
    sys.exit(wrong)  # an exit with atexit handlers and finalizers
pid, status = os.waitpid(child, 0)
assert status == 0, status
assert ray.get(double.remote(4)) == 8

import multiprocessing
process = multiprocessing.get_context("fork").Process(target=lambda: None)
process.start()
process.join(10)
assert process.exitcode == 0
assert ray.get(double.remote(5)) == 10
print("done")
"""
    )


def test_an_idle_session_uses_no_cpu():
    out = run(
        """
        import psutil
        ray.init(num_cpus=2)

        @ray.remote
        def f():
            return 1

        ray.get([f.remote() for _ in range(100)])
        pids = [os.getpid(), head_pid(), server_pid(), *worker_pids()]
        assert len(pids) >= 4

        def used():
            return {pid: sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids}

        def quiet():
            # Leases are given back and standby threads fall asleep some time after the last task.
            before = used()
            time.sleep(2)
            after = used()
            return all(after[pid] - before[pid] <= 0.02 for pid in pids)

        wait_for(quiet, 20, "all processes quiet for two seconds")
        print("PSS", sum(psutil.Process(pid).memory_full_info().pss for pid in pids) // 1_000_000, "MB")
        """
    )
    print(out)
