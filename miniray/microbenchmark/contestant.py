"""One contestant (miniray, Ray, or a pool) in a process of its own, measured when it is told to.

``python -m miniray.microbenchmark.contestant`` reads one JSON list per line and answers each with one line:
``["prepare", workload]``, ``["trial", seconds]`` (how many per second), ``["finish"]``. It ends with its input.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from miniray.microbenchmark.pools import POOLS, steps
from miniray.microbenchmark.whole_programs import INIT
from miniray.microbenchmark.workloads import QUICK, WORKLOADS, Reading, Sizes, Step


def rate(step: Step, seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Run a step for so long; how many things per second."""
    count = 0
    start = clock()
    while True:
        step.run()
        count += 1
        took = clock() - start
        if took >= seconds:
            return count * step.times / took


class Contestant:
    """What is measured, and the workload that is prepared now."""

    def __init__(self, name: str, sizes: Sizes) -> None:
        self._sizes = sizes
        self._running: Iterator[Step | Reading] | None = None
        self._step: Step | Reading | None = None
        self._pool = POOLS[name](sizes.cpus) if name in POOLS else None
        self._ray: Any = None
        if self._pool is None:
            self._ray = importlib.import_module(name)
            self._ray.init("local", resources={"custom": 100}, **INIT)

    def prepare(self, workload: str) -> None:
        """Get ready for a workload."""
        if self._pool is not None:
            self._running = steps(self._pool, workload, self._sizes)
        else:
            self._running = WORKLOADS[workload](self._ray, self._sizes)
        self._step = next(self._running)

    def trial(self, seconds: float) -> float:
        """How many per second; or the reading."""
        assert self._step is not None
        return self._step.take() if isinstance(self._step, Reading) else rate(self._step, seconds)

    def finish(self) -> None:
        """The workload is over."""
        self._step = None
        if self._running is not None:
            next(self._running, None)
            self._running = None

    def close(self) -> None:
        """End the session, or the pool."""
        if self._pool is not None:
            self._pool.close()
        else:
            self._ray.shutdown()


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    # What workers print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    try:
        contestant = Contestant(arguments.name, QUICK if arguments.quick else Sizes())
    except ImportError as error:
        answer({"error": f"{arguments.name} is not installed here: {error}"})
        return
    except Exception as error:
        answer({"error": f"{arguments.name} does not start: {type(error).__name__}: {error}"})
        return
    version = getattr(contestant._ray, "__version__", "")
    answer({"value": version})
    for line in sys.stdin:
        command, *given = json.loads(line)
        try:
            answer({"value": getattr(contestant, command)(*given)})
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})
    contestant.close()


if __name__ == "__main__":
    main()
