"""Claim: a thousand tasks in flight cost a fraction of a thousand round trips, because they travel in batches."""

from __future__ import annotations

from typing import Any

from benchmarks.claims import Claim, Goal, Size
from benchmarks.rates import rate


def measure(ray: Any, size: Size) -> float:
    """``get([f.remote() for _ in range(1000)])`` in a loop."""

    def function() -> None:
        return None

    nothing = ray.remote(function)
    return rate(lambda: ray.get([nothing.remote() for _ in range(size.calls)]), size.seconds, size.calls)


CLAIMS = [
    Claim(
        "tasks, 1,000 in flight",
        "/s",
        "more",
        in_session=measure,
        goals=(Goal("figure", 30_000),),
        limit="zmq_pipelined_messages_per_s",
    )
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="task_async")
