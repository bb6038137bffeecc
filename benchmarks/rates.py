"""Counting how often something can be done in a second."""

from __future__ import annotations

import time
from collections.abc import Callable


def rate(step: Callable[[], object], seconds: float, per_step: int = 1) -> float:
    """Call `step` for so long; how many per second.

    Before the clock runs, `step` is called for a tenth of the time, so that connections, leases and caches are there.

    Args:
        per_step: how many things one call does.
    """
    clock = time.perf_counter
    warm = clock() + seconds / 10
    while True:
        step()
        if clock() >= warm:
            break
    count = 0
    start = clock()
    end = start + seconds
    while True:
        step()
        count += 1
        now = clock()
        if now >= end:
            return count * per_step / (now - start)
