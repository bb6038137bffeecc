"""Claim: calls of a plain actor go straight from the caller to the actor's process, one message each way or less."""

from __future__ import annotations

from typing import Any

from benchmarks.claims import Claim, Goal, Size
from benchmarks.rates import rate


def _actor(ray: Any) -> Any:
    class Actor:
        def nothing(self) -> None:
            return None

    actor = ray.remote(Actor).remote()
    ray.get(actor.nothing.remote())
    return actor


def measure_sync(ray: Any, size: Size) -> float:
    """``get(actor.nothing.remote())`` in a loop."""
    actor = _actor(ray)
    return rate(lambda: ray.get(actor.nothing.remote()), size.seconds)


def measure_async(ray: Any, size: Size) -> float:
    """A thousand calls of one actor, and all their results."""
    actor = _actor(ray)
    return rate(lambda: ray.get([actor.nothing.remote() for _ in range(size.calls)]), size.seconds, size.calls)


CLAIMS = [
    Claim(
        "actor call, sync",
        "/s",
        "more",
        in_session=measure_sync,
        goals=(Goal("limit", 0.6), Goal("ray", 3.5)),
        limit="zmq_round_trips_per_s",
    ),
    Claim(
        "actor calls, 1,000 in flight",
        "/s",
        "more",
        in_session=measure_async,
        goals=(Goal("ray", 8),),
        limit="zmq_pipelined_messages_per_s",
    ),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="actor_plain")
