"""Local mode: the same promises in one process, and what only one process can give."""

# mypy: ignore-errors
from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import miniray
from miniray import api
from miniray.processes import local_mode
from miniray.util.queue import Queue
from tests import leaks
from tests.processes import local_program
from tests.waiting import wait_for


@pytest.fixture(scope="module", autouse=True)
def local_session() -> Iterator[None]:
    miniray.init(local_mode=True, num_cpus=2)
    yield
    miniray.shutdown()


@pytest.fixture
def outside(local_session: None) -> Iterator[None]:
    """For tests that start and end sessions themselves."""
    miniray.shutdown()
    yield
    miniray.shutdown()
    miniray.init(local_mode=True, num_cpus=2)


@miniray.remote
def add(one: int, other: int) -> int:
    return one + other


@miniray.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, number: int = 1) -> int:
        self.value += number
        return self.value

    def fail(self) -> None:
        raise ValueError("no")

    def leave(self) -> None:
        miniray.actor.exit_actor()


def worker_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "miniray-worker"]


# -- the same as with processes ------------------------------------------------------------------------------------


def test_tasks_run_in_this_process() -> None:
    where = miniray.remote(lambda: os.getpid())
    assert miniray.get(where.remote()) == os.getpid()
    assert miniray.get(add.remote(add.remote(1, 2), 3)) == 6


def test_nested_tasks_get_past_the_number_of_cpus() -> None:
    @miniray.remote
    def depth(number: int) -> int:
        return number and miniray.get(depth.remote(number - 1)) + 1

    assert miniray.get(depth.remote(20)) == 20


def test_arguments_and_results_are_copies() -> None:
    @miniray.remote
    def change(items: list) -> list:
        items.append(1)
        return items

    mine = []
    assert miniray.get(change.remote(mine)) == [1]
    assert mine == []


def test_large_arrays_come_back_read_only() -> None:
    numpy = pytest.importorskip("numpy")
    ref = miniray.put(numpy.ones(200_000))
    total = miniray.remote(lambda array: (float(array.sum()), array.flags.writeable))
    assert miniray.get(total.remote(ref)) == (200_000.0, False)
    assert not miniray.get(ref).flags.writeable


def test_calls_of_an_actor_keep_their_order() -> None:
    counter = Counter.remote()
    assert miniray.get([counter.add.remote() for _ in range(200)]) == list(range(1, 201))


def test_an_error_is_of_the_users_type_and_of_the_tasks() -> None:
    counter = Counter.remote()
    with pytest.raises(ValueError, match="no") as caught:
        miniray.get(counter.fail.remote())
    assert isinstance(caught.value, miniray.exceptions.RayTaskError)


def test_async_actors_await_others() -> None:
    @miniray.remote
    class Sums:
        async def of(self, refs: list) -> int:
            return sum(await asyncio.gather(*refs))

        async def made(self) -> list:
            return [await add.remote(number, 1) for number in range(3)]

    sums = Sums.remote()
    assert miniray.get(sums.of.remote([add.remote(number, 0) for number in range(5)])) == 10
    assert miniray.get(sums.made.remote()) == [1, 2, 3]


def test_threaded_actors_run_calls_at_once() -> None:
    @miniray.remote(max_concurrency=2)
    class Pair:
        def __init__(self) -> None:
            self.both = threading.Barrier(2)

        def meet(self) -> bool:
            self.both.wait(10)
            return miniray.get(add.remote(1, 1)) == 2

    pair = Pair.remote()
    assert miniray.get([pair.meet.remote(), pair.meet.remote()]) == [True, True]


def test_actors_have_names() -> None:
    counter = Counter.options(name="named").remote(5)
    assert miniray.get(miniray.get_actor("named").add.remote()) == 6
    miniray.kill(counter)
    wait_for(lambda: not _exists("named"))


def _exists(name: str) -> bool:
    try:
        miniray.get_actor(name)
    except ValueError:
        return False
    return True


def test_queues_pass_items_between_tasks() -> None:
    queue = Queue(maxsize=2)

    @miniray.remote
    def produce(queue: Queue) -> None:
        for number in range(10):
            queue.put(number)

    produce.remote(queue)
    assert [queue.get(timeout=10) for _ in range(10)] == list(range(10))
    queue.shutdown()


def test_generators_stream() -> None:
    @miniray.remote
    def count() -> Iterator[int]:
        yield from range(5)

    assert [miniray.get(ref) for ref in count.remote()] == list(range(5))


def test_a_handle_that_goes_takes_the_actor_and_its_thread() -> None:
    before = len(worker_threads())
    counter = Counter.remote()
    miniray.get(counter.add.remote())
    del counter
    gc.collect()
    wait_for(lambda: len(worker_threads()) <= max(before, 2))


def test_exit_actor_ends_only_the_actor() -> None:
    counter = Counter.remote()
    with pytest.raises(miniray.exceptions.ActorDiedError):
        miniray.get(counter.leave.remote())
    assert miniray.get(add.remote(1, 1)) == 2


def test_restarted_actors_begin_anew() -> None:
    counter = Counter.options(max_restarts=1, max_task_retries=-1).remote()
    assert miniray.get(counter.add.remote(5)) == 5
    miniray.kill(counter, no_restart=False)
    assert miniray.get(counter.add.remote()) == 1


# -- interrupting --------------------------------------------------------------------------------------------------


def _cancelled(ref: miniray.ObjectRef) -> bool:
    with pytest.raises((miniray.exceptions.TaskCancelledError, miniray.exceptions.WorkerCrashedError)):
        miniray.get(ref, timeout=10)
    return True


@pytest.mark.parametrize("how", ["sleeps", "computes", "waits"])
def test_a_cancelled_task_ends(how: str) -> None:
    begun = Queue()

    @miniray.remote
    def runs(how: str) -> None:
        begun.put(1)
        if how == "sleeps":
            time.sleep(1000)
        elif how == "computes":
            while True:
                pass
        else:
            miniray.get(never.remote())

    @miniray.remote(num_cpus=0)
    def never() -> None:
        time.sleep(1000)

    ref = runs.remote(how)
    begun.get(timeout=10)
    miniray.cancel(ref)
    assert _cancelled(ref)
    assert miniray.get(add.remote(1, 1)) == 2
    begun.shutdown()


def test_a_cancelled_task_that_is_a_coroutine_ends() -> None:
    begun = Queue()

    @miniray.remote
    async def turns() -> None:
        begun.put(1)
        while True:
            await asyncio.sleep(0.001)

    ref = turns.remote()
    begun.get(timeout=10)
    miniray.cancel(ref)
    assert _cancelled(ref)
    begun.shutdown()


def test_a_cancelled_coroutine_ends() -> None:
    @miniray.remote
    class Waits:
        async def wait(self) -> None:
            await asyncio.sleep(1000)

    waits = Waits.remote()
    ref = waits.wait.remote()
    miniray.wait([ref], timeout=0.05)
    miniray.cancel(ref)
    assert _cancelled(ref)


def test_a_killed_actor_is_heard_of_no_more() -> None:
    counter = Counter.remote()
    miniray.get(counter.add.remote())

    @miniray.remote
    class Stuck:
        def spin(self) -> None:
            while True:
                try:
                    time.sleep(0.001)
                except Exception:
                    pass

    stuck = Stuck.remote()
    ref = stuck.spin.remote()
    miniray.wait([ref], timeout=0.05)
    before = len(worker_threads())
    miniray.kill(stuck)
    with pytest.raises(miniray.exceptions.ActorDiedError):
        miniray.get(ref, timeout=10)
    wait_for(lambda: len(worker_threads()) < before)
    assert miniray.get(counter.add.remote()) == 2


def test_what_the_heads_own_threads_want_of_it_is_done_here_too() -> None:
    done = threading.Event()
    api._session._head.call_soon(done.set)
    assert done.wait(20)


def test_killed_workers_are_forgotten_once_their_threads_have_ended() -> None:
    for _ in range(10):
        counter = Counter.remote()
        miniray.get(counter.add.remote())
        before = len(worker_threads())
        miniray.kill(counter)
        wait_for(lambda before=before: len(worker_threads()) < before)
    assert len(api._session._head.local_workers.workers) <= len(worker_threads()) + 1


# -- what only one process can give --------------------------------------------------------------------------------


def test_monkeypatched_functions_are_those_that_tasks_call(monkeypatch: pytest.MonkeyPatch) -> None:
    assert miniray.get(local_program.uses_helper.remote()) == "the real one"
    monkeypatch.setattr(local_program, "helper", lambda: "the patched one")
    assert miniray.get(local_program.uses_helper.remote()) == "the patched one"
    actor = local_program.UsesHelper.remote()
    assert miniray.get(actor.call.remote()) == "the patched one"


def test_traces_reach_into_tasks(outside: None) -> None:
    seen = []

    def trace(frame, event, argument):
        if frame.f_code.co_name == "helper":
            seen.append(event)
        return trace

    threading.settrace(trace)  # as debuggers and coverage do
    try:
        miniray.init(local_mode=True, num_cpus=2)
        miniray.get(local_program.uses_helper.remote())
        miniray.get(local_program.UsesHelper.remote().call.remote())
        miniray.shutdown()
    finally:
        threading.settrace(None)
    assert seen == ["call", "line", "return"] * 2


def test_breakpoint_stops_in_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_in = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: stopped_in.append(sys._getframe(1).f_locals["local"]))
    monkeypatch.setattr(local_program, "helper", _stops)
    assert miniray.get(local_program.uses_helper.remote()) == "stopped"
    assert stopped_in == [5]


def _stops() -> str:
    local = 5
    breakpoint()  # noqa: T100
    return "stopped" if local else ""


def test_refs_in_global_variables_work_in_tasks() -> None:
    local_program.shared = miniray.put(7)
    read = miniray.remote(_read_shared)
    assert miniray.get(read.remote()) == 7
    del local_program.shared


def _read_shared() -> int:
    return miniray.get(local_program.shared)


def test_a_task_cannot_end_the_session() -> None:
    miniray.get(miniray.remote(lambda: miniray.shutdown()).remote())
    assert miniray.is_initialized()


def test_ctrl_c_ends_a_get() -> None:
    @miniray.remote
    def long() -> None:
        time.sleep(1000)

    ref = long.remote()
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        miniray.get(ref)
    timer.join()
    miniray.cancel(ref)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_gets_a_clear_error() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            miniray.put(1)
        except miniray.exceptions.RaySystemError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        assert "This process was forked from one that had called init()" in file.read()
    os.waitpid(pid, 0)
    assert miniray.get(add.remote(1, 1)) == 2


def test_the_environment_asks_for_it(outside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIRAY_LOCAL_MODE", "1")
    with miniray.init(num_cpus=1):
        assert miniray.get(miniray.remote(lambda: os.getpid()).remote()) == os.getpid()
        assert miniray.cluster_resources()["CPU"] == 1


def test_a_sleep_that_a_test_has_replaced_is_the_one_of_tasks_and_stays(
    outside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with miniray.init(local_mode=True, num_cpus=1):
        miniray.get(miniray.remote(lambda: time.sleep(1000)).remote(), timeout=10)
    assert 1000 in slept
    assert time.sleep == slept.append


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_session_that_does_not_start_leaves_nothing(
    outside: None, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def register(core, job) -> None:
        raise error("no")

    monkeypatch.setattr(local_mode, "register", register)
    threads, sessions = set(threading.enumerate()), leaks.session_entries()
    with pytest.raises(error, match="no"):
        miniray.init(local_mode=True, num_cpus=2)
    assert time.sleep.__module__ == "time"
    wait_for(lambda: set(threading.enumerate()) <= threads)
    assert leaks.session_entries() == sessions


def test_sessions_follow_each_other_and_leave_nothing(outside: None) -> None:
    before = set(threading.enumerate())
    for number in range(5):
        miniray.init(local_mode=True, num_cpus=2)
        counter = Counter.remote(number)
        assert miniray.get(counter.add.remote()) == number + 1
        add.remote(1, 1)
        miniray.shutdown()
    assert time.sleep.__module__ == "time"
    wait_for(lambda: set(threading.enumerate()) <= before)
