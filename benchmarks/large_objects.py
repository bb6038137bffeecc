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


CLAIMS = [
    Claim(
        "put of an 800 MB array, repeated",
        "GB/s",
        "more",
        in_session=measure,
        goals=(Goal("limit", 0.8),),
        limit="copy_into_warm_shm_gb_per_s",
    ),
    Claim("get of an 800 MB array", "/s", "more", in_session=measure_get),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="large_objects")
