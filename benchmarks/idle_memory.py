"""Claim: a session with two workers takes little memory, because its processes are forked and share their pages."""

from __future__ import annotations

import os
import secrets
import time

from benchmarks.claims import Claim, Goal, NotHere, Size
from benchmarks.engines import Engine, end_all, processes_with, pss_megabytes, script, start


def measure(engine: Engine, size: Size) -> list[float]:
    """PSS of driver, head, fork server and two workers together (Ray: of all its processes), when idle. In MB."""
    if not os.path.exists("/proc/self/smaps_rollup"):
        raise NotHere("needs /proc/*/smaps_rollup of Linux")
    from miniray.microbenchmark.whole_programs import IDLE  # not in the processes that run Ray

    token = secrets.token_hex(8)
    process = start(engine, script(engine, IDLE), token)
    try:
        assert process.stdout is not None
        while process.stdout.readline() != "ready\n":
            if process.poll() is not None:
                raise NotHere(f"exit code {process.returncode}")
        return [_when_settled(token)]
    finally:
        process.communicate("\n", timeout=60)
        end_all(token)


def _when_settled(token: str) -> float:
    """The figure once it has not changed by more than 1 % within half a second; at most after 10 s."""
    deadline = time.monotonic() + 10
    figure = pss_megabytes(processes_with(token))
    while time.monotonic() < deadline:
        time.sleep(0.5)
        last, figure = figure, pss_megabytes(processes_with(token))
        if abs(figure - last) <= 0.01 * figure:
            break
    return figure


CLAIMS = [
    Claim(
        "idle session with 2 workers, all processes",
        "MB",
        "less",
        alone=measure,
        goals=(Goal("figure", 90),),
        most_trials=3,
    ),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="idle_memory")
