"""What this machine allows: the figures that miniray's are divided by, and the tricks, each with and without.

``python -m benchmarks.limits`` prints one JSON object. A figure is only compared with limits that were measured in the
same minute on the same machine. Needs pyzmq; `measure` takes about ten seconds.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.rates import rate
from benchmarks.round_trips import IN_FLIGHT, PAYLOAD, zmq_limits


def memory_limits(size: int, repeats: int = 3) -> dict[str, float]:
    """Copies into shared memory whose pages are not mapped here yet, and whose pages are: GB/s."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    path = os.path.join(folder, f"miniray-limits-{os.getpid()}")
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, size)
        view = memoryview(mmap.mmap(descriptor, size))
        source = memoryview(bytearray(b"\1") * size)

        def copy() -> float:
            start = time.perf_counter()
            view[:] = source
            return size / 1e9 / (time.perf_counter() - start)

        fresh = copy()
        warm = statistics.median(copy() for _ in range(repeats))
    finally:
        os.close(descriptor)
        os.unlink(path)
    return {"copy_into_fresh_shm_gb_per_s": fresh, "copy_into_warm_shm_gb_per_s": warm}


def start_limits(repeats: int) -> dict[str, float]:
    """How long the parts of a start take that nobody can save, and what a fork saves. In ms."""
    interpreter = _median_ms(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), repeats)
    imports = "import zmq, msgspec, cloudpickle, psutil"
    dependencies = _median_ms(lambda: subprocess.run([sys.executable, "-c", imports], check=True), repeats)
    import msgspec  # noqa: F401 - the process that forks is warm
    import zmq  # noqa: F401

    def fork() -> None:
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()

    return {
        "python_ms": interpreter,
        "python_and_dependencies_ms": dependencies,
        "fork_ms": _median_ms(fork, 2 * repeats),
    }


def _median_ms(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def _identity(value: int) -> int:
    return value


def executor_limits(seconds: float) -> dict[str, float]:
    """The standard library's process pools with two workers: what a program would use otherwise."""
    with ProcessPoolExecutor(2) as pool:
        sync = rate(lambda: pool.submit(_identity, 0).result(), seconds)
        many = rate(
            lambda: [future.result() for future in [pool.submit(_identity, i) for i in range(IN_FLIGHT)]],
            seconds,
            IN_FLIGHT,
        )
    with multiprocessing.Pool(2) as other:
        pool_sync = rate(lambda: other.apply(_identity, (0,)), seconds)
        pool_many = rate(
            lambda: [result.get() for result in [other.apply_async(_identity, (i,)) for i in range(IN_FLIGHT)]],
            seconds,
            IN_FLIGHT,
        )
    return {
        "process_pool_executor_sync_per_s": sync,
        "process_pool_executor_in_flight_per_s": many,
        "multiprocessing_pool_sync_per_s": pool_sync,
        "multiprocessing_pool_in_flight_per_s": pool_many,
    }


def encoding_limits(seconds: float) -> dict[str, float]:
    """A small message and small arguments as bytes: how many per second."""
    import pickle

    import cloudpickle
    import msgspec

    class Push(msgspec.Struct, array_like=True):
        task_id: bytes
        number: int
        arguments: bytes

    push = Push(b"t" * 24, 7, PAYLOAD[:100])
    encoder = msgspec.msgpack.Encoder()
    arguments: tuple[Any, ...] = ((1, "two", 3.0), {})

    def thousand(action: Callable[[Any], object], value: object) -> Callable[[], None]:
        def run() -> None:
            for _ in range(1000):
                action(value)

        return run

    return {
        "msgspec_encode_per_s": rate(thousand(encoder.encode, push), seconds, 1000),
        "pickle_message_per_s": rate(thousand(pickle.dumps, (push.task_id, 7, push.arguments)), seconds, 1000),
        "pickle_arguments_per_s": rate(thousand(pickle.dumps, arguments), seconds, 1000),
        "cloudpickle_arguments_per_s": rate(thousand(cloudpickle.dumps, arguments), seconds, 1000),
    }


def measure(seconds: float, size: int, repeats: int, everything: bool = True) -> dict[str, float]:
    """The limits.

    Args:
        seconds: how long each rate is measured.
        size: bytes of the large copies.
        repeats: how often processes are started.
        everything: False leaves out what no claim is divided by.
    """
    limits = {**zmq_limits(seconds), **memory_limits(size), **start_limits(repeats)}
    if everything:
        limits.update(executor_limits(seconds))
        limits.update(encoding_limits(seconds / 2))
    return limits


def main(arguments: list[str]) -> None:
    """``--quick`` measures a fifth of it, ``--needed`` only what claims are divided by."""
    from benchmarks.claims import FULL, QUICK

    size = QUICK if "--quick" in arguments else FULL
    print(json.dumps(measure(size.seconds, size.bytes, size.repeats, "--needed" not in arguments)))


if __name__ == "__main__":
    main(sys.argv[1:])
