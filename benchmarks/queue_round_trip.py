"""Claim: an item goes through a Queue, which is an actor, in two calls of it and nothing more."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.claims import Claim, Goal, NotHere, Size
from benchmarks.rates import rate


def measure(ray: Any, size: Size) -> float:
    """``queue.put(1)`` and ``queue.get()`` in a loop."""
    try:
        queue = import_module(f"{ray.__name__}.util.queue").Queue()
    except ImportError:
        raise NotHere(f"there is no {ray.__name__}.util.queue yet")

    def round_trip() -> None:
        queue.put(1)
        queue.get()

    try:
        return rate(round_trip, size.seconds)
    finally:
        queue.shutdown(force=True)


CLAIMS = [
    Claim("Queue, put and get", "/s", "more", in_session=measure, goals=(Goal("ray", 4),)),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="queue_round_trip")
