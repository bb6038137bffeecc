"""The deaths of other processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from miniray.util import process_watch
from miniray.util.process_watch import ProcessWatch


def start() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])


@pytest.fixture(params=["pidfd", "lookup"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Coroutine[Any, Any, None]], None]:
    if request.param == "lookup":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        monkeypatch.setattr(process_watch, "_LOOK_EVERY_S", 0.01)
    elif not hasattr(os, "pidfd_open"):
        pytest.skip("only Linux has these")
    return lambda coroutine: asyncio.run(asyncio.wait_for(coroutine, 30))


def test_a_death_is_known_at_once_and_told_soon(run: Any) -> None:
    async def use() -> None:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[int] = loop.create_future()
        watch = ProcessWatch(told.set_result)
        process = start()
        watch.watch(process.pid)
        watch.watch(process.pid)
        assert watch.alive(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not watch.alive(process.pid)  # while it is a zombie
        assert await told == process.pid
        process.wait()

    run(use())


def test_a_process_that_is_gone_already_is_told_too(run: Any) -> None:
    async def use() -> None:
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        process = start()
        process.kill()
        process.wait()
        ProcessWatch(told.set_result).watch(process.pid)
        assert await told == process.pid

    run(use())


def test_the_process_itself_lives(run: Any) -> None:
    async def use() -> None:
        watch = ProcessWatch(lambda pid: None)
        watch.watch(os.getpid())
        assert watch.alive(os.getpid())

    run(use())
