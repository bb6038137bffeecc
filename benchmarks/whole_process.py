"""Claim: a program that starts a session, runs a task and ends the session is done in a quarter of a second."""

from __future__ import annotations

from benchmarks.claims import Claim, Goal, Size
from benchmarks.engines import Engine, script


def measure(engine: Engine, size: Size) -> list[float]:
    """Wall time of the whole process: interpreter, imports, `init`, first task, `shutdown`, exit. In ms."""
    from miniray.microbenchmark.whole_programs import ONE_TASK  # not in the processes that run Ray

    return [1000 * engine.run(script(engine, ONE_TASK)).seconds for _ in range(5 if engine.name == "miniray" else 2)]


CLAIMS = [
    Claim(
        "whole process: init, first task, shutdown",
        "ms",
        "less",
        alone=measure,
        goals=(Goal("figure", 250), Goal("ray", 20)),
        limit="python_and_dependencies_ms",
    ),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="whole_process")
