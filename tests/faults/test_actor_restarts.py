"""Actors whose process is killed while calls are made: each call ends, in the old process or in the new one."""

from __future__ import annotations

import os
import signal

import pytest

import miniray

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module", autouse=True)
def session():
    miniray.init("local", num_cpus=2)
    yield
    miniray.shutdown()


class Process:
    def pid(self) -> int:
        return os.getpid()


def test_a_call_made_right_after_a_kill_runs_in_the_next_process() -> None:
    actor = miniray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Process).remote()
    for _ in range(40):
        former = miniray.get(actor.pid.remote(), timeout=20)
        os.kill(former, signal.SIGKILL)
        assert miniray.get(actor.pid.remote(), timeout=20) != former


def test_calls_that_are_under_way_when_the_process_dies_all_end() -> None:
    actor = miniray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Process).remote()
    for _ in range(10):
        former = miniray.get(actor.pid.remote(), timeout=20)
        refs = [actor.pid.remote() for _ in range(200)]
        os.kill(former, signal.SIGKILL)
        pids = miniray.get(refs, timeout=20)
        assert len(pids) == 200
        assert len(set(pids)) <= 2
