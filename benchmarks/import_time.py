"""Claim: ``import miniray`` costs little more than its four dependencies, and whoever imports it need not wait."""

from __future__ import annotations

from benchmarks.claims import Claim, Goal, Size
from benchmarks.engines import Engine

_CODE = """
import time
{before}
start = time.perf_counter()
import {module}
print(1000 * (time.perf_counter() - start))
"""


def measure_over_dependencies(engine: Engine, size: Size) -> list[float]:
    """``import miniray`` in a fresh interpreter that has imported its dependencies already. In ms."""
    code = _CODE.format(before="import zmq, msgspec, cloudpickle, psutil", module=engine.name)
    return [float(engine.run(["-c", code]).output) for _ in range(5)]


def measure(engine: Engine, size: Size) -> list[float]:
    """The import alone, with all that it imports. In ms."""
    code = _CODE.format(before="", module=engine.name)
    return [float(engine.run(["-c", code]).output) for _ in range(5 if engine.name == "miniray" else 2)]


CLAIMS = [
    Claim(
        "import, over the four dependencies",
        "ms",
        "less",
        alone=measure_over_dependencies,
        goals=(Goal("figure", 15),),
        engines=("miniray",),
    ),
    Claim("import, alone", "ms", "less", alone=measure),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="import_time")
