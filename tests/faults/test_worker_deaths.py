"""A worker dies under its task: the task runs again as often as its options say, the tasks behind it pay nothing."""

import os
import signal

import pytest

import miniray
from miniray import exceptions
from tests.faults.inside import appended, is_gone, note
from tests.waiting import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]


def die(how):
    """End this process in one of the ways that processes end."""
    import ctypes
    import sys

    if how == "os._exit":
        os._exit(1)
    elif how == "os._exit(0)":
        os._exit(0)
    elif how == "sys.exit":
        sys.exit(1)
    elif how == "sys.exit(0)":
        sys.exit(0)
    elif how == "SystemExit":
        raise SystemExit("bye")
    elif how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    elif how == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    elif how == "segmentation fault":
        ctypes.string_at(0)
    elif how == "abort":
        os.abort()


WAYS = ["os._exit", "os._exit(0)", "sys.exit", "sys.exit(0)", "SystemExit", "SIGKILL", "SIGTERM"]
WAYS += ["segmentation fault", "abort"]


@miniray.remote
def fall(path, how):
    note(path, os.getpid())
    die(how)


@miniray.remote
def get_pid():
    return os.getpid()


@pytest.mark.parametrize("how", WAYS)
def test_a_worker_that_ends_under_its_task_is_an_error_and_not_a_hang(session, tmp_path, how):
    path = str(tmp_path / "runs")
    with pytest.raises(exceptions.WorkerCrashedError):
        miniray.get(fall.options(max_retries=0).remote(path, how), timeout=10)
    assert len(appended(path)) == 1
    assert miniray.get(get_pid.remote(), timeout=10) != int(appended(path)[0])


@pytest.mark.parametrize("how", ["os._exit", "sys.exit", "SIGKILL"])
@pytest.mark.parametrize("retries", [1, 3])
def test_a_task_runs_once_and_once_more_per_retry(session, tmp_path, how, retries):
    path = str(tmp_path / "runs")
    with pytest.raises(exceptions.WorkerCrashedError):
        miniray.get(fall.options(max_retries=retries).remote(path, how), timeout=20)
    assert len(set(appended(path))) == len(appended(path)) == 1 + retries


def test_three_retries_are_the_default(session, tmp_path):
    path = str(tmp_path / "runs")
    with pytest.raises(exceptions.WorkerCrashedError):
        miniray.get(fall.remote(path, "SIGKILL"), timeout=20)
    assert len(appended(path)) == 4


def test_infinite_retries_go_on_until_it_works(session, tmp_path):
    path = str(tmp_path / "runs")

    @miniray.remote(max_retries=-1)
    def stubborn():
        note(path, os.getpid())
        if len(appended(path)) < 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    assert miniray.get(stubborn.remote(), timeout=30) == "done"
    assert len(appended(path)) == 8


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_retry_exceptions_runs_a_task_exactly_so_often(session, tmp_path, retries):
    path = str(tmp_path / "runs")

    @miniray.remote(max_retries=retries, retry_exceptions=True)
    def fail():
        note(path, os.getpid())
        raise ValueError("again")

    with pytest.raises(ValueError, match="again"):
        miniray.get(fail.remote(), timeout=10)
    assert len(appended(path)) == 1 + retries


def test_retry_exceptions_with_a_list_retries_these_only(session, tmp_path):
    @miniray.remote(max_retries=2, retry_exceptions=[ValueError])
    def fail(path, kind):
        note(path, 1)
        raise kind("again")

    counts = {}
    for kind in (ValueError, UnicodeError, KeyError):
        path = str(tmp_path / kind.__name__)
        with pytest.raises(kind):
            miniray.get(fail.remote(path, kind), timeout=10)
        counts[kind] = len(appended(path))
    assert counts == {ValueError: 3, UnicodeError: 3, KeyError: 1}


def test_a_worker_death_and_an_exception_are_paid_from_one_account(session, tmp_path):
    path = str(tmp_path / "runs")

    @miniray.remote(max_retries=3, retry_exceptions=True)
    def fail():
        note(path, 1)
        if len(appended(path)) % 2:
            os._exit(1)
        raise ValueError("again")

    with pytest.raises(ValueError, match="again"):
        miniray.get(fail.remote(), timeout=20)
    assert len(appended(path)) == 4


def test_only_the_task_that_ran_pays_when_others_were_queued_behind_it(session, tmp_path):
    path = str(tmp_path / "runs")

    @miniray.remote(max_retries=1)
    def step(number):
        if number == "long":
            note(path, "long")
            if len(appended(path)) == 1:
                wait_for(lambda: os.path.exists(path + ".die"))
                os._exit(1)
        return number

    miniray.get([step.remote(0) for _ in range(200)])  # known as short now: many wait behind one
    for _ in range(5):
        refs = [step.remote("long"), *[step.remote(number) for number in range(100)]]
        wait_for(lambda: appended(path))
        note(path + ".die", "now")
        assert miniray.get(refs, timeout=20) == ["long", *range(100)]
        assert appended(path) == ["long", "long"]
        os.unlink(path)
        os.unlink(path + ".die")


@pytest.mark.parametrize("retries", [1, 3])
def test_a_short_task_that_kills_its_worker_pays_and_those_before_and_after_it_do_not(session, tmp_path, retries):
    path = str(tmp_path / "runs")

    @miniray.remote(max_retries=retries)
    def step(number):
        if number == 50:
            note(path, number)
            os._exit(1)
        return number

    miniray.get([step.remote(0) for _ in range(200)])
    refs = [step.remote(number) for number in range(100)]
    with pytest.raises(exceptions.WorkerCrashedError):
        miniray.get(refs[50], timeout=20)
    assert len(appended(path)) == 1 + retries
    del refs[50]
    assert miniray.get(refs, timeout=20) == [number for number in range(100) if number != 50]


def test_a_task_that_may_run_once_is_never_lost_to_the_death_of_an_idle_worker(session, tmp_path):
    # The worker is killed while nothing runs there, and the next task is sent before anybody has heard of its death.
    once = get_pid.options(max_retries=0)
    for _ in range(20):
        victim = miniray.get(once.remote())
        os.kill(victim, signal.SIGKILL)
        assert miniray.get(once.remote(), timeout=10) != victim


def test_a_memory_limit_is_the_tasks_own_error(session):
    @miniray.remote(max_retries=0)
    def hungry():
        import resource

        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 500_000_000, -1))
        try:
            return len(b"x" * 10_000_000_000)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))

    with pytest.raises(MemoryError):
        miniray.get(hungry.remote(), timeout=20)


def test_an_argument_that_is_computed_by_a_dying_worker_gives_its_error_to_those_who_wait_for_it(session):
    @miniray.remote(max_retries=0)
    def crash():
        os._exit(1)

    @miniray.remote
    def use(value):
        return value

    with pytest.raises(exceptions.WorkerCrashedError):
        miniray.get(use.remote(crash.remote()), timeout=10)


def test_workers_that_die_are_gone_and_the_cpus_are_free_again(session):
    @miniray.remote(max_retries=0)
    def crash():
        os._exit(1)

    for _ in range(10):
        ready, _ = miniray.wait([crash.remote()], timeout=10)
        assert ready
    wait_for(lambda: miniray.available_resources().get("CPU") == 2.0)
    pid = miniray.get(get_pid.remote())
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid))
