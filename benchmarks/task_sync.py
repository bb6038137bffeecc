"""Claim: a task and its result, one after the other, at the speed of a bare ZeroMQ round trip (nearly)."""

from __future__ import annotations

from typing import Any

from benchmarks.claims import Claim, Goal, Size
from benchmarks.rates import rate


def measure(ray: Any, size: Size) -> float:
    """``get(f.remote())`` in a loop."""

    def function() -> None:
        return None

    nothing = ray.remote(function)
    return rate(lambda: ray.get(nothing.remote()), size.seconds)


CLAIMS = [
    Claim(
        "task, sync",
        "/s",
        "more",
        in_session=measure,
        goals=(Goal("limit", 0.6),),
        limit="zmq_round_trips_per_s",
    )
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="task_sync")
