"""Claim: an actor with sixteen threads answers several times faster than Ray's."""

from __future__ import annotations

from typing import Any

from benchmarks.claims import Claim, Goal, Size
from benchmarks.rates import rate


def measure(ray: Any, size: Size) -> float:
    """A thousand calls of one actor with ``max_concurrency=16``, and all their results."""

    class Actor:
        def nothing(self) -> None:
            return None

    actor = ray.remote(Actor).options(max_concurrency=16).remote()
    return rate(lambda: ray.get([actor.nothing.remote() for _ in range(size.calls)]), size.seconds, size.calls)


CLAIMS = [
    Claim("threaded actor (16), 1,000 in flight", "/s", "more", in_session=measure, goals=(Goal("ray", 4),)),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="actor_threaded")
