"""Claims: a placement group is made and removed in a fraction of a millisecond; a scheduling decision takes
microseconds, whatever waits beside it.

The decisions are measured on the scheduler alone, in CPU time: what a head does between a demand and the lease.
"""

from __future__ import annotations

import json
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.claims import Claim, Goal, Size

if TYPE_CHECKING:
    from benchmarks.engines import Engine


def groups(ray: Any, size: Size) -> float:
    """Make a hundred groups, wait for each, remove each, again and again: groups per second."""
    module = import_module(f"{ray.__name__}.util.placement_group")
    count = 0
    start = time.perf_counter()
    while time.perf_counter() - start < size.seconds:
        made = [module.placement_group([{"CPU": 0.001}]) for _ in range(100)]
        for group in made:
            group.wait(30)
        for group in made:
            module.remove_placement_group(group)
        count += len(made)
    return count / (time.perf_counter() - start)


_DECISIONS = """
import json, time
from miniray.messages.control import LeaseSpec
from miniray.state_machines.lease_record import Place
from miniray.state_machines.scheduler import Scheduler

UNIT = 10000
NUMBER = 5000


class Clock:
    def __init__(self, machine):
        self.machine, self.number, self.now, self.spent, self.held = machine, 0, 0.0, [], []

    def decide(self, spec):
        self.number += 1
        self.now += 0.001
        start = time.process_time()
        self.machine.demand(b"owner", self.number, spec, 1, self.now)
        effects = self.machine.schedule(self.now)
        self.spent.append(time.process_time() - start)
        for effect in effects:
            if isinstance(effect, Place):
                self.machine.granted(effect.lease.lease_id, b"worker")
                self.held.append(effect.lease.lease_id)
        while len(self.held) > 1000:
            self.machine.end(self.held.pop(0))

    def mean(self):
        return 1e6 * sum(self.spent) / len(self.spent)


def many_nodes():
    machine = Scheduler()
    for node in range(100):
        resources = {f"r{10 * node + number}": 100 * UNIT for number in range(10)}
        machine.add_node(b"%d" % node, {"CPU": 16 * UNIT, **resources}, {})
    clock = Clock(machine)
    specs = [LeaseSpec({"CPU": UNIT}, b"job")]
    specs += [LeaseSpec({"CPU": UNIT // 10, f"r{number}": UNIT}, b"job") for number in range(0, 1000, 21)]
    for number in range(NUMBER):
        clock.decide(specs[number % len(specs)])
    return clock.mean()


def many_waiting(waiting):
    machine = Scheduler()
    machine.add_node(b"full", {"CPU": 100 * UNIT}, {})
    machine.add_node(b"free", {"x": 10000 * UNIT}, {})
    machine.demand(b"holder", 1, LeaseSpec({"CPU": 100 * UNIT}, b"job"), 1, 0.0)
    machine.schedule(0.0)
    for number in range(waiting):
        shape = LeaseSpec({"CPU": (1 + number % 50) * UNIT}, b"job")
        machine.demand(b"%d" % (number // 50), 1 + number % 50, shape, 1, 0.0)
    machine.schedule(0.0)
    clock = Clock(machine)
    spec = LeaseSpec({"x": UNIT}, b"job")
    for _ in range(NUMBER):
        clock.decide(spec)
    return clock.mean()


print(json.dumps(FUNCTION))
"""


def _decisions(engine: Engine, function: str) -> list[float]:
    output = engine.run(["-c", _DECISIONS.replace("FUNCTION", function)]).output
    return [float(json.loads(output))]


def many_nodes(engine: Engine, size: Size) -> list[float]:
    """Microseconds for a decision among 100 nodes with 1,000 resources."""
    return _decisions(engine, "many_nodes()")


def many_waiting(engine: Engine, size: Size) -> list[float]:
    """Microseconds for a decision that fits while 10,000 demands of 50 shapes wait."""
    return _decisions(engine, "many_waiting(10000)")


CLAIMS = [
    Claim("placement groups made and removed", "/s", "more", in_session=groups, goals=(Goal("ray", 6),)),
    Claim(
        "decision: 100 nodes, 1,000 resources",
        "us",
        "less",
        alone=many_nodes,
        goals=(Goal("figure", 50),),
        engines=("miniray",),
    ),
    Claim(
        "decision while 10,000 others wait",
        "us",
        "less",
        alone=many_waiting,
        goals=(Goal("figure", 50),),
        engines=("miniray",),
    ),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="scheduling")
