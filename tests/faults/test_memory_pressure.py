"""Memory runs out: a worker is killed whose task can run again, and the error says who used what.

The machine's memory is a file here (`MINIRAY_MEMORY_READING`); the kills are real.
"""

from pathlib import Path

import pytest

from tests.faults.scripts import run

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]

PREPARATION = """
from miniray.exceptions import OutOfMemoryError

reading = os.environ["MINIRAY_MEMORY_READING"]

def read(used):
    with open(reading + ".new", "w") as file:
        file.write(f"{used} 1000")
    os.replace(reading + ".new", reading)

read(100)
config = {"memory_monitor_refresh_ms": 20, "memory_usage_threshold": 0.9}
"""


def run_with_reading(tmp_path: Path, text: str) -> str:
    """Run a program to whose sessions a file says how much memory there is."""
    import textwrap

    return run(PREPARATION + textwrap.dedent(text), environment={"MINIRAY_MEMORY_READING": str(tmp_path / "reading")})


def test_a_task_that_may_not_be_retried_gets_an_error_that_says_who_used_what(tmp_path):
    run_with_reading(
        tmp_path,
        """
        ray.init(num_cpus=1, _system_config=config)

        @ray.remote(max_retries=0)
        def greedy():
            data = bytearray(50_000_000)
            read(950)
            time.sleep(60)

        try:
            ray.get(greedy.remote(), timeout=20)
            raise AssertionError("no error")
        except OutOfMemoryError as error:
            text = str(error)
        assert text.startswith("1 worker(s) were killed due to the node running low on memory. Memory on the node (IP")
        assert "OOM kill reason: Memory usage 950B exceeded threshold of 900B (90.0% of 1000B limit)" in text
        assert "Selected to kill: (Task: job ID=" in text and "task name=greedy, required resources={CPU: 1}" in text
        assert "Top 10 memory users: PID\\tMEM(GB)\\tCOMMAND\\n" in text
        assert "Set max_retries to enable retry when the task crashes due to OOM." in text
        read(100)
        assert ray.get(ray.remote(lambda: 5).remote(), timeout=20) == 5
        """,
    )


def test_a_task_runs_again_as_often_as_task_oom_retries_says_and_pays_no_other_retry(tmp_path):
    run_with_reading(
        tmp_path,
        """
        context = ray.init(num_cpus=1, _system_config={**config, "task_oom_retries": 2})
        log = os.path.join(context.address_info["session_dir"], "logs", "head.err")
        runs = os.path.join(os.path.dirname(reading), "runs")

        @ray.remote(max_retries=1)
        def greedy():
            note(runs, "run")
            read(950)
            time.sleep(60)

        try:
            ray.get(greedy.remote(), timeout=30)
            raise AssertionError("no error")
        except OutOfMemoryError:
            pass
        # While memory stays short, a worker may be killed before it begins.
        assert 1 <= len(appended(runs)) <= 3
        kills = [line for line in open(log) if "Selected to kill" in line]
        assert len(kills) == 3, kills
        """,
    )


def test_the_newest_task_that_may_be_retried_makes_room_and_is_done_later(tmp_path):
    run_with_reading(
        tmp_path,
        """
        context = ray.init(num_cpus=3, _system_config={**config, "memory_monitor_refresh_ms": 300})
        log = os.path.join(context.address_info["session_dir"], "logs", "head.err")
        runs = os.path.join(os.path.dirname(reading), "runs")

        @ray.remote
        def work(name):
            note(runs, name)
            if appended(runs).count(name) == 1:
                wait_for(lambda: os.path.exists(reading + ".go"), 30)
            return name

        precious = work.options(max_retries=0).remote("precious")
        wait_for(lambda: "precious" in appended(runs))
        old = work.remote("old")
        wait_for(lambda: "old" in appended(runs))
        new = work.options(num_cpus=0.5).remote("new")
        wait_for(lambda: "new" in appended(runs))
        read(950)
        wait_for(lambda: "Selected to kill" in open(log).read())
        read(100)
        wait_for(lambda: appended(runs).count("new") == 2)
        with open(reading + ".go", "w"):
            pass
        assert ray.get([precious, old, new], timeout=30) == ["precious", "old", "new"]
        assert appended(runs).count("precious") == 1
        """,
    )


def test_an_actor_that_is_killed_for_want_of_memory_ends_with_the_same_error(tmp_path):
    run_with_reading(
        tmp_path,
        """
        ray.init(num_cpus=1, _system_config=config)

        @ray.remote
        class Greedy:
            def eat(self):
                read(950)
                time.sleep(60)

        actor = Greedy.remote()
        try:
            ray.get(actor.eat.remote(), timeout=20)
            raise AssertionError("no error")
        except OutOfMemoryError as error:
            assert "Actor: job ID=" in str(error) and "task name=Greedy.__init__" in str(error)
            assert "Set max_restarts and max_task_retries to enable retry" in str(error)
        """,
    )


def test_zero_milliseconds_switch_the_monitor_off(tmp_path):
    run_with_reading(
        tmp_path,
        """
        read(1000)
        ray.init(num_cpus=1, _system_config={**config, "memory_monitor_refresh_ms": 0})

        @ray.remote(max_retries=0)
        def work():
            time.sleep(0.3)
            return 1

        assert ray.get(work.remote(), timeout=20) == 1
        """,
    )
