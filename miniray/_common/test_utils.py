"""What Ray's own tests, and those of libraries, use to wait for things and to run programs."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import miniray
from miniray.system import import_alias

__all__ = [
    "Semaphore",
    "SignalActor",
    "async_wait_for_condition",
    "is_named_tuple",
    "run_string_as_driver",
    "wait_for_condition",
]

_NOT_MET = "The condition wasn't met before the timeout expired."
#: Seconds between the first two looks; it doubles up to what the caller has given.
_FIRST_PAUSE = 0.002


@miniray.remote(num_cpus=0)
class SignalActor:
    """Lets any number of tasks wait until somebody sends the signal."""

    def __init__(self) -> None:
        self.ready_event = asyncio.Event()
        self.num_waiters = 0

    def send(self, clear: bool = False) -> None:
        """Wake all who wait, and all who come, unless it is cleared at once."""
        self.ready_event.set()
        if clear:
            self.ready_event.clear()

    async def wait(self, should_wait: bool = True) -> None:
        """Wait for the signal."""
        if should_wait:
            self.num_waiters += 1
            await self.ready_event.wait()
            self.num_waiters -= 1

    async def cur_num_waiters(self) -> int:
        """How many wait."""
        return self.num_waiters


@miniray.remote(num_cpus=0)
class Semaphore:
    """A semaphore among tasks."""

    def __init__(self, value: int = 1) -> None:
        self._sema = asyncio.Semaphore(value=value)

    async def acquire(self) -> None:
        """Wait for a free place, and take it."""
        await self._sema.acquire()

    async def release(self) -> None:
        """Give a place back."""
        self._sema.release()

    async def locked(self) -> bool:
        """Whether no place is free."""
        return self._sema.locked()


def wait_for_condition(
    condition_predictor: Callable[..., bool],
    timeout: float = 10,
    retry_interval_ms: float = 100,
    raise_exceptions: bool = False,
    **kwargs: Any,
) -> None:
    """Call `condition_predictor(**kwargs)` until it is true.

    Args:
        timeout: seconds.
        retry_interval_ms: milliseconds between two calls at most; the first calls follow each other more quickly.
        raise_exceptions: let an exception of the predictor out, instead of trying again.

    Raises:
        RuntimeError: it was not true in time; the text has the last exception.
    """
    deadline = time.monotonic() + timeout
    pause, last = _FIRST_PAUSE, None
    while time.monotonic() <= deadline:
        try:
            if condition_predictor(**kwargs):
                return
            last = None
        except Exception:
            if raise_exceptions:
                raise
            last = traceback.format_exc()
        time.sleep(pause)
        pause = min(pause * 2, retry_interval_ms / 1000)
    raise RuntimeError(_NOT_MET if last is None else f"{_NOT_MET} Last exception: {last}")


async def async_wait_for_condition(
    condition_predictor: Callable[..., Awaitable[bool] | bool],
    timeout: float = 10,
    retry_interval_ms: float = 100,
    **kwargs: Any,
) -> None:
    """`wait_for_condition` in a coroutine; the predictor may be one, too."""
    deadline = time.monotonic() + timeout
    pause, last = _FIRST_PAUSE, None
    while time.monotonic() <= deadline:
        try:
            answer = condition_predictor(**kwargs)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return
            last = None
        except Exception as error:
            last = error
        await asyncio.sleep(pause)
        pause = min(pause * 2, retry_interval_ms / 1000)
    raise RuntimeError(_NOT_MET if last is None else f"{_NOT_MET} Last exception: {last}")


def run_string_as_driver(
    driver_script: str, env: dict[str, str] | None = None, encode: str = "utf-8", timeout: float | None = 300
) -> str:
    """Run a program in a process of its own, as ``python -``; its output, both streams together.

    Args:
        env: its whole environment; None: this one's.
        timeout: seconds.

    Raises:
        subprocess.CalledProcessError: its exit code is not 0.
    """
    command = [sys.executable, "-"]
    done = subprocess.run(
        command,
        input=driver_script.encode(encode),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=driver_environment(env),
        timeout=timeout,
    )
    output = done.stdout.decode(encode)
    if done.returncode:
        print(output)
        raise subprocess.CalledProcessError(done.returncode, command, output, "")
    return output


def driver_environment(env: dict[str, str] | None) -> dict[str, str]:
    """An environment in which a program finds this very miniray, and ``ray`` if that is miniray here."""
    given = dict(os.environ if env is None else env)
    entries = [entry for entry in given.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if import_alias.is_installed() and import_alias.shim_folder() not in entries:
        entries.insert(0, import_alias.shim_folder())
        given.setdefault(import_alias.VARIABLE, "1")
    parent = os.path.dirname(os.path.dirname(os.path.abspath(miniray.__file__)))
    given["PYTHONPATH"] = os.pathsep.join([*entries, parent])
    return given


def is_named_tuple(cls: type) -> bool:
    """Whether a class was made by `collections.namedtuple`."""
    return cls.__bases__ == (tuple,) and all(isinstance(name, str) for name in getattr(cls, "_fields", (None,)))


class FakeTimer:
    """A clock for tests: it stands still until it is told to advance."""

    def __init__(self, start_time: float | None = None) -> None:
        self._lock = threading.Lock()
        self._curr = time.time() if start_time is None else start_time

    def reset(self, start_time: float | None = None) -> None:
        """Set the clock."""
        with self._lock:
            self._curr = time.time() if start_time is None else start_time

    def time(self) -> float:
        """Seconds."""
        with self._lock:
            return self._curr

    def advance(self, by: float) -> None:
        """Let `by` seconds pass."""
        with self._lock:
            self._curr += by

    def realistic_sleep(self, amt: float) -> None:
        """Let a little more than `amt` seconds pass, as a real sleep does."""
        with self._lock:
            self._curr += amt + 0.001
