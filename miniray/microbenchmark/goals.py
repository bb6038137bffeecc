"""What miniray wants to reach in each row: so many times a peer, or so large a part of what the machine allows."""

from __future__ import annotations

from typing import NamedTuple

from miniray.microbenchmark.limits import WARM_COPY
from miniray.microbenchmark.pools import POOLS
from miniray.microbenchmark.workloads import TASK_ROWS


class Goal(NamedTuple):
    """At least `times` what the peer, or the limit of the machine, of that name has."""

    than: str
    times: float


def _ray(times: float) -> tuple[Goal, ...]:
    return (Goal("ray", times),)


#: Against Ray 2.60 and the pools, on two cores.
GOALS: dict[str, tuple[Goal, ...]] = {
    "single client get calls (Plasma Store)": _ray(8),
    "single client put calls (Plasma Store)": _ray(30),
    "multi client put calls (Plasma Store)": _ray(20),
    "single client put gigabytes": (Goal(WARM_COPY, 0.8),),
    "multi client put gigabytes": _ray(1),
    "single client tasks and get batch": _ray(15),
    "single client get object containing 10k refs": _ray(2.5),
    "single client wait 1k refs": _ray(6),
    "single client tasks sync": _ray(8),
    "single client tasks async": _ray(15),
    "multi client tasks async": _ray(10),
    "1:1 actor calls sync": _ray(4),
    "1:1 actor calls async": _ray(10),
    "1:1 actor calls concurrent": _ray(5),
    "1:n actor calls async": _ray(8),
    "n:n actor calls async": _ray(8),
    "n:n actor calls with arg async": _ray(10),
    "1:1 async-actor calls sync": _ray(5),
    "1:1 async-actor calls async": _ray(8),
    "1:1 async-actor calls with args async": _ray(8),
    "1:n async-actor calls async": _ray(8),
    "n:n async-actor calls async": _ray(8),
    "placement group create/removal": _ray(6),
    "whole process: init, first task, shutdown": _ray(25),
    "idle session with 2 workers, all processes": _ray(6),
}
for _name in TASK_ROWS:
    GOALS[_name] += tuple(Goal(pool, 1) for pool in POOLS)
