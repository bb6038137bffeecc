"""Claim: a small value that is put and got touches no socket."""

from __future__ import annotations

from typing import Any

from benchmarks.claims import Claim, Goal, Size
from benchmarks.rates import rate


def measure(ray: Any, size: Size) -> float:
    """``get(put(1))`` in a loop."""
    return rate(lambda: ray.get(ray.put(1)), size.seconds)


CLAIMS = [
    Claim("put and get of a small value", "/s", "more", in_session=measure, goals=(Goal("figure", 100_000),)),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="small_objects")
