"""What this machine allows without any runtime: round trips of ZeroMQ between two processes, and copies of memory."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from miniray.microbenchmark.contestant import rate
from miniray.microbenchmark.workloads import Step

_ECHO = """
import sys, zmq
context = zmq.Context()
inbox, outbox = context.socket(zmq.PULL), context.socket(zmq.PUSH)
outbox.setsockopt(zmq.LINGER, 0)
inbox.bind(sys.argv[1])
outbox.connect(sys.argv[2])
while (frame := inbox.recv()) != b"":
    outbox.send(frame)
"""
IN_FLIGHT = 1000
WARM_COPY = "copy into warm shared memory, GB"


def measure(seconds: float) -> dict[str, float]:
    """The limits by name, per second; copies in GB per second."""
    return {**_round_trips(seconds), **_copies(seconds)}


def _round_trips(seconds: float) -> dict[str, float]:
    import zmq

    with tempfile.TemporaryDirectory(prefix="m-", dir="/tmp") as folder:
        there, back = f"ipc://{folder}/a", f"ipc://{folder}/b"
        context = zmq.Context()
        inbox, outbox = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        echo = subprocess.Popen([sys.executable, "-c", _ECHO, there, back])
        try:
            inbox.bind(back)
            inbox.setsockopt(zmq.RCVTIMEO, 20_000)
            outbox.connect(there)

            def exchange(number: int) -> None:
                for _ in range(number):
                    outbox.send(b"x" * 100)
                for _ in range(number):
                    inbox.recv()

            exchange(IN_FLIGHT)
            result = {
                "ZeroMQ round trips": _per_second(lambda: exchange(1), 1, seconds),
                f"ZeroMQ messages there and back, {IN_FLIGHT:,} in flight": _per_second(
                    lambda: exchange(IN_FLIGHT), IN_FLIGHT, seconds
                ),
            }
            outbox.send(b"")
            echo.wait(10)
        finally:
            if echo.poll() is None:
                echo.kill()
                echo.wait()
            context.destroy(linger=0)
    return result


def _copies(seconds: float, size: int = 100_000_000) -> dict[str, float]:
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    source = memoryview(bytearray(b"1") * size)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as mapped:
            target = memoryview(mapped)
            start = time.perf_counter()
            target[:] = source
            fresh = size / 1e9 / (time.perf_counter() - start)

            def copy() -> None:
                target[:] = source

            warm = _per_second(copy, size / 1e9, seconds)
            target.release()
    return {"copy into fresh shared memory, GB": fresh, WARM_COPY: warm}


def _per_second(step: Callable[[], object], times: float, seconds: float) -> float:
    return rate(Step(step, times), seconds)
