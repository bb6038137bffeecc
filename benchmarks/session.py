"""What runs in a fresh process of an engine: a session, and the claims measured in it, one after the other.

``python -m benchmarks.session REQUEST``; the last line of the output is a JSON object, name of the claim -> figure.
Needs nothing but the engine itself.
"""

from __future__ import annotations

import gc
import json
import sys
import traceback
from importlib import import_module
from typing import Any

from benchmarks.claims import NotHere, Size, all_claims


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Start a session as the request says, measure in it, and end it."""
    ray = import_module(request["engine"])
    size = Size(*request["size"])
    ray.init("local", **request["init"])
    figures: dict[str, Any] = {}
    try:
        for claim in all_claims():
            if claim.name in request["names"] and claim.in_session is not None:
                try:
                    figures[claim.name] = claim.in_session(ray, size)
                except NotHere as reason:
                    figures[claim.name] = str(reason)
                except Exception as error:
                    traceback.print_exc()
                    figures[claim.name] = f"{type(error).__name__}: {error}".splitlines()[0]
                gc.collect()  # actors of the last claim end before the next one begins
    finally:
        ray.shutdown()
    return figures


if __name__ == "__main__":
    print("\n" + json.dumps(measure(json.loads(sys.argv[1]))))
