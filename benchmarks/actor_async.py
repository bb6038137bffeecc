"""Claim: an async actor takes one hop into its event loop per batch of calls."""

from __future__ import annotations

from typing import Any

from benchmarks.claims import Claim, Goal, Size
from benchmarks.rates import rate


def _actor(ray: Any) -> Any:
    class Actor:
        async def echo(self, value: object = None) -> object:
            return value

    actor = ray.remote(Actor).remote()
    ray.get(actor.echo.remote())
    return actor


def measure_sync(ray: Any, size: Size) -> float:
    """``get(actor.echo.remote())`` in a loop."""
    actor = _actor(ray)
    return rate(lambda: ray.get(actor.echo.remote()), size.seconds)


def measure_async(ray: Any, size: Size) -> float:
    """A thousand calls of one actor, and all their results."""
    actor = _actor(ray)
    return rate(lambda: ray.get([actor.echo.remote() for _ in range(size.calls)]), size.seconds, size.calls)


def measure_with_args(ray: Any, size: Size) -> float:
    """The same, each call with an argument that comes back."""
    actor = _actor(ray)
    return rate(lambda: ray.get([actor.echo.remote(i) for i in range(size.calls)]), size.seconds, size.calls)


_GOALS = (Goal("ray", 4),)

CLAIMS = [
    Claim("async actor call, sync", "/s", "more", in_session=measure_sync, goals=_GOALS, limit="zmq_round_trips_per_s"),
    Claim("async actor, 1,000 in flight", "/s", "more", in_session=measure_async, goals=_GOALS),
    Claim("async actor, 1,000 with an argument", "/s", "more", in_session=measure_with_args, goals=_GOALS),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="actor_async")
