"""Rows that are no rates: whole programs, each in a process of its own, and what they cost."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

#: What sessions are started with, so that all are alike.
INIT: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}

#: A whole program: its session has been started before this.
ONE_TASK = """
@ray.remote
def add(a, b):
    return a + b
assert ray.get(add.remote(1, 2)) == 3
ray.shutdown()
"""

#: Both workers run a task, each until the other one has begun; then the session is left alone.
IDLE = """
import os, sys, tempfile, time
folder = tempfile.mkdtemp()
@ray.remote
def meet(folder):
    open(os.path.join(folder, str(os.getpid())), "x").close()
    while len(os.listdir(folder)) < 2:
        time.sleep(0.01)
ray.get([meet.remote(folder) for _ in range(2)])
for name in os.listdir(folder):
    os.remove(os.path.join(folder, name))
os.rmdir(folder)
print("ready", flush=True)
sys.stdin.readline()
ray.shutdown()
"""

#: Seconds: how long memory must have kept within 1 %, and how long that is waited for.
SETTLED, PATIENCE = 0.5, 10.0


def _command(engine: str, body: str) -> list[str]:
    options = ", ".join(f"{name}={value!r}" for name, value in {"num_cpus": 2, **INIT}.items())
    return [sys.executable, "-c", f"import {engine} as ray\nray.init('local', {options})\n{body}"]


def milliseconds_of_one_task(engine: str) -> float:
    """Wall time of a process that imports `engine`, starts a session, runs a task, and ends."""
    start = time.perf_counter()
    subprocess.run(_command(engine, ONE_TASK), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def megabytes_of_an_idle_session(engine: str) -> float:
    """Memory (proportional set size) of all processes of a session whose two workers have run a task.

    Raises:
        RuntimeError: the system does not tell, or the program ended.
    """
    with subprocess.Popen(_command(engine, IDLE), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            while (line := process.stdout.readline()) != "ready\n":
                if not line:
                    raise RuntimeError("the program ended")
            deadline = time.monotonic() + PATIENCE
            figure = _megabytes(process.pid)
            while time.monotonic() < deadline:
                time.sleep(SETTLED)
                last, figure = figure, _megabytes(process.pid)
                if abs(figure - last) <= 0.01 * figure:
                    break
            return figure
        finally:
            process.communicate("\n", timeout=60)


def _megabytes(pid: int) -> float:
    import psutil

    driver = psutil.Process(pid)
    total = 0
    for process in (driver, *driver.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            pass
        except AttributeError:
            raise RuntimeError("this system does not tell what processes share") from None
    return total / 1e6
