"""Claim: an actor starts in milliseconds, because its process is forked from a warm one."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.claims import Claim, Goal, Size


def measure(ray: Any, size: Size) -> float:
    """Create a hundred actors, call each once, and take all results: actors per second."""

    class Actor:
        def nothing(self) -> None:
            return None

    actor_class = ray.remote(Actor).options(num_cpus=0)
    start = time.perf_counter()
    actors = [actor_class.remote() for _ in range(size.actors)]
    ray.get([actor.nothing.remote() for actor in actors])
    return size.actors / (time.perf_counter() - start)


CLAIMS = [
    Claim("100 actors created and called", "/s", "more", in_session=measure, goals=(Goal("ray", 20),), most_trials=2),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="actor_creation")
