"""`timeout_s`, graceful kills, warnings of calls that hold up others: beyond Ray, with real processes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

import miniray
from miniray.exceptions import ActorDiedError, TaskTimeoutError
from tests.waiting import wait_for


@pytest.fixture(scope="module", autouse=True)
def session():
    miniray.init("local", num_cpus=2)
    yield
    miniray.shutdown()


@miniray.remote
def forever(trace: str = "") -> None:
    try:
        while True:
            time.sleep(0.01)
    finally:
        if trace:
            Path(trace).write_text("finally")


@miniray.remote
def pid() -> int:
    return os.getpid()


def test_a_task_beyond_its_limit_fails_and_its_finally_blocks_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(TaskTimeoutError) as caught:
        miniray.get(forever.options(timeout_s=0.1).remote(str(trace)))
    assert isinstance(caught.value, TimeoutError)
    assert trace.read_text() == "finally"


def test_a_task_that_blocks_in_get_is_interrupted() -> None:
    @miniray.remote(timeout_s=0.1)
    def waits(refs: list) -> None:
        miniray.get(refs)

    never = forever.remote()
    with pytest.raises(TaskTimeoutError):
        miniray.get(waits.remote([never]))
    miniray.cancel(never)


def test_a_hundred_stuck_tasks_are_all_reaped() -> None:
    refs = [forever.options(timeout_s=0.01).remote() for _ in range(100)]
    for ref in refs:
        with pytest.raises(TaskTimeoutError):
            miniray.get(ref)
    assert miniray.get([pid.remote() for _ in range(10)])


def test_a_task_that_swallows_the_interrupt_is_given_up_and_its_process_killed() -> None:
    @miniray.remote(timeout_s=0.1)
    def swallows(path: str) -> None:
        Path(path).write_text(str(os.getpid()))
        while True:
            try:
                while True:
                    time.sleep(0.01)
            except BaseException:
                pass

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pid")
        with pytest.raises(TaskTimeoutError):
            miniray.get(swallows.remote(path))
        process = int(Path(path).read_text())
    wait_for(lambda: not os.path.exists(f"/proc/{process}"), message="the process ends")


def test_a_session_has_a_default_limit(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import miniray, time\n"
        "miniray.init('local', num_cpus=1, task_timeout_s=0.1)\n"
        "@miniray.remote\n"
        "def slow(): time.sleep(60)\n"
        "try: miniray.get(slow.remote())\n"
        "except miniray.exceptions.TaskTimeoutError: print('timed out')\n"
    )
    import subprocess
    import sys

    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=50)
    assert done.stdout == "timed out\n", done.stderr


@miniray.remote
class Worker:
    def forever(self, trace: str = "") -> None:
        try:
            while True:
                time.sleep(0.01)
        finally:
            if trace:
                Path(trace).write_text("finally")

    @miniray.method(timeout_s=0.1)
    def limited(self) -> None:
        time.sleep(60)

    def ready(self) -> int:
        return 1

    def __ray_shutdown__(self) -> None:
        folder = os.environ.get("TRACE_FOLDER")
        if folder:
            Path(folder, "shutdown").write_text("shutdown")


class AsyncWorker:
    async def sleeps(self) -> None:
        await asyncio.sleep(60)

    def ready(self) -> int:
        return 1


def test_a_method_beyond_its_limit_fails_and_the_actor_lives_on() -> None:
    worker = Worker.remote()
    with pytest.raises(TaskTimeoutError):
        miniray.get(worker.limited.remote())
    assert miniray.get(worker.ready.remote()) == 1


def test_limits_hold_on_event_loops_and_in_threads() -> None:
    on_a_loop = miniray.remote(AsyncWorker).remote()
    with pytest.raises(TaskTimeoutError):
        miniray.get(on_a_loop.sleeps.options(timeout_s=0.1).remote())
    assert miniray.get(on_a_loop.ready.remote()) == 1
    in_a_thread = Worker.options(max_concurrency=2).remote()
    with pytest.raises(TaskTimeoutError):
        miniray.get(in_a_thread.forever.options(timeout_s=0.1).remote())
    assert miniray.get(in_a_thread.ready.remote()) == 1


def test_a_graceful_kill_reaches_an_endless_method_and_runs_what_must_run(tmp_path: Path) -> None:
    worker = Worker.remote()
    trace = tmp_path / "trace"
    miniray.get(worker.__ray_call__.remote(lambda self, folder: os.environ.update(TRACE_FOLDER=folder), str(tmp_path)))
    endless = worker.forever.remote(str(trace))
    began = miniray.wait([endless], timeout=0.2)
    assert began == ([], [endless])
    miniray.kill(worker, graceful=True, timeout=10)
    assert trace.read_text() == "finally"
    wait_for(lambda: (tmp_path / "shutdown").exists(), message="__ray_shutdown__ ran")
    with pytest.raises(ActorDiedError):
        miniray.get(endless)


def test_unknown_arguments_of_kill_are_refused() -> None:
    worker = Worker.remote()
    with pytest.raises(TypeError, match="unexpected keyword argument 'gracefully'"):
        miniray.kill(worker, gracefully=True)


@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_must_be_positive(value: int) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        forever.options(timeout_s=value)


def test_a_call_that_holds_up_others_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import miniray, time, sys\n"
        "miniray.init('local', num_cpus=1)\n"
        "@miniray.remote\n"
        "class Stuck:\n"
        "    def endless(self):\n"
        "        while True: time.sleep(0.01)\n"
        "    def never(self): pass\n"
        "stuck = Stuck.remote()\n"
        "refs = [stuck.endless.remote(), stuck.never.remote()]\n"
        "miniray.wait(refs, timeout=3)\n"
    )
    import subprocess
    import sys

    environment = {**os.environ, "MINIRAY_STUCK_CALL_WARNING_S": "0.5"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=50, env=environment)
    assert "Stuck.endless has been running for" in done.stderr
    assert "(Stuck.never)" in done.stderr
