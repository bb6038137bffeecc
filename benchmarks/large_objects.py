"""Claim: arrays go into shared memory at the speed of a copy, because memory that is mapped already is used again."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.claims import Claim, Goal, NotHere, Size


def measure(ray: Any, size: Size) -> float:
    """``put`` of an array whose predecessor was dropped, again and again: GB/s, the median after the first five."""
    try:
        import numpy
    except ImportError:
        raise NotHere("numpy is not installed")
    array = numpy.ones(size.bytes // 8)
    # Its pages are there before the clock runs, and it is no constant page of zeros.
    speeds = []
    for _ in range(5 + 2 * size.repeats):
        start = time.perf_counter()
        ref = ray.put(array)
        speeds.append(array.nbytes / 1e9 / (time.perf_counter() - start))
        del ref
    return statistics.median(speeds[5:])


def measure_get(ray: Any, size: Size) -> float:
    """``get`` of such an array: it is mapped, not copied."""
    try:
        import numpy
    except ImportError:
        raise NotHere("numpy is not installed")
    ref = ray.put(numpy.ones(size.bytes // 8))
    count = 20 * size.repeats
    start = time.perf_counter()
    for _ in range(count):
        ray.get(ref)
    return count / (time.perf_counter() - start)


def measure_return(ray: Any, size: Size) -> float:
    """A task that returns such an array, again and again: GB/s, from the call until it is here."""
    try:
        import numpy
    except ImportError:
        raise NotHere("numpy is not installed")

    @ray.remote
    def make(count: int) -> Any:
        return numpy.ones(count)

    def step() -> float:
        start = time.perf_counter()
        array = ray.get(make.remote(size.bytes // 8))
        return array.nbytes / 1e9 / (time.perf_counter() - start)  # type: ignore[no-any-return]

    return statistics.median([step() for _ in range(5 + size.repeats)][5:])


def measure_argument(ray: Any, size: Size) -> float:
    """``put`` of such an array, and a task that gets it: GB/s, both together."""
    try:
        import numpy
    except ImportError:
        raise NotHere("numpy is not installed")
    array = numpy.ones(size.bytes // 8)

    @ray.remote
    def first(value: Any) -> float:
        return float(value[0])

    def step() -> float:
        start = time.perf_counter()
        ray.get(first.remote(ray.put(array)))
        return array.nbytes / 1e9 / (time.perf_counter() - start)

    return statistics.median([step() for _ in range(5 + size.repeats)][5:])


def measure_two_writers(ray: Any, size: Size) -> float:
    """Two actors that put at once, against one alone: the share of its speed that each of them has."""
    try:
        import numpy
    except ImportError:
        raise NotHere("numpy is not installed")

    @ray.remote(num_cpus=0)
    class Writer:
        def __init__(self, count: int) -> None:
            self.array = numpy.ones(count)

        def write(self, seconds: float) -> float:
            """Bytes per second."""
            for _ in range(3):
                ref = ray.put(self.array)
                del ref
            done, start = 0, time.perf_counter()
            while time.perf_counter() < start + seconds or not done:
                ref = ray.put(self.array)
                del ref
                done += self.array.nbytes
            return done / (time.perf_counter() - start)

    writers = [Writer.remote(size.bytes // 80) for _ in range(2)]
    shares = []
    for _ in range(max(1, size.repeats // 2)):
        alone = ray.get(writers[0].write.remote(size.seconds / 2))
        shares.append(min(ray.get([writer.write.remote(size.seconds / 2) for writer in writers])) / alone)
    return statistics.median(shares)


CLAIMS = [
    Claim(
        "put of an 800 MB array, repeated",
        "GB/s",
        "more",
        in_session=measure,
        goals=(Goal("limit", 0.8),),
        limit="copy_into_warm_shm_gb_per_s",
    ),
    Claim("get of an 800 MB array", "/s", "more", in_session=measure_get, goals=(Goal("figure", 10_000),)),
    Claim("return of an 800 MB array", "GB/s", "more", in_session=measure_return),
    Claim("put and use of an 800 MB array as an argument", "GB/s", "more", in_session=measure_argument),
    Claim(
        "two processes that put at once, each against one alone",
        "",
        "more",
        in_session=measure_two_writers,
        goals=(Goal("figure", 0.7),),
    ),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="large_objects")
