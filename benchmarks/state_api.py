"""Claim: ten thousand rows of the state API at once."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.claims import Claim, Goal, Size

_ROWS = 10_000


def _prepared(ray: Any) -> Any:
    from miniray.util import state

    @ray.remote
    def nothing() -> None:
        pass

    ray.get([nothing.remote() for _ in range(_ROWS)])
    return state.list_tasks


def _milliseconds(list_tasks: Any, limit: int, repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        rows = list_tasks(limit=limit, raise_on_missing_output=False)
        best = min(best, time.perf_counter() - start)
        if len(rows) != limit:
            raise AssertionError(f"{len(rows)} rows instead of {limit}")
    return best * 1000


def measure_all(ray: Any, size: Size) -> float:
    """``list_tasks(limit=10_000)``."""
    return _milliseconds(_prepared(ray), _ROWS, size.repeats)


CLAIMS = [
    Claim(
        "state API: 10,000 rows",
        "ms",
        "less",
        in_session=measure_all,
        goals=(Goal("figure", 50),),
        engines=("miniray",),
    ),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="state_api")
