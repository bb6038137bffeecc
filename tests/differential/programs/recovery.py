"""Objects that were lost with their node: what is made again, how often, and what the errors say."""

# mypy: ignore-errors
from __future__ import annotations

import contextlib
import importlib
import os
import tempfile

from ..catalog import program
from ..observe import outcome, until

AREA = "cluster"
SESSION = {"num_cpus": 1}

#: Elements of 8 bytes: too many to travel inside a message.
SIZE = 50_000


class Nodes:
    """A head that runs `here`, and one other node at a time, which runs `there`."""

    def __init__(self, ray):
        cluster_utils = importlib.import_module(f"{ray.__name__}.cluster_utils")
        quick = {
            "health_check_failure_threshold": 10,
            "health_check_period_ms": 100,
            "health_check_timeout_ms": 1000,
            "health_check_initial_delay_ms": 0,
        }
        self.ray = ray
        self.cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"here": 10}, "_system_config": quick}
        )
        ray.init(address=self.cluster.address, log_to_driver=False)
        self.folder = tempfile.mkdtemp()
        self.node = None
        self.replace()

    def replace(self):
        """The node dies, and there is a new one."""
        if self.node is not None:
            gone = self.node.node_id
            self.cluster.remove_node(self.node, allow_graceful=False)
            until(lambda: any(row["NodeID"] == gone and not row["Alive"] for row in self.ray.nodes()))
        self.node = self.cluster.add_node(num_cpus=4, resources={"there": 4})
        self.cluster.wait_for_nodes()

    def runs(self, name):
        """How often `note` was called with this name."""
        return len([entry for entry in os.listdir(self.folder) if entry.startswith(name + ".")])


@contextlib.contextmanager
def two_nodes(ray):
    nodes = Nodes(ray)
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.cluster.shutdown()


def note(folder, name):
    """Leaves a file for each run."""
    tempfile.mkstemp(prefix=name + ".", dir=folder)


def made(ray, *refs):
    ray.wait(list(refs), num_returns=len(refs), fetch_local=False, timeout=40)


@program("cluster/recovery", "cluster/remove-node", fresh=True)
def what_is_made_again(ray):
    import numpy

    with two_nodes(ray) as nodes:
        folder = nodes.folder
        there = {"num_cpus": 0, "resources": {"there": 0.1}}

        @ray.remote(**there)
        def make(name, value):
            note(folder, name)
            return numpy.full(SIZE, value)

        @ray.remote(**there)
        def twice(name, array):
            note(folder, name)
            return array * 2

        @ray.remote(**there)
        def twice_nested(name, refs):
            note(folder, name)
            return ray.get(refs[0]) * 2

        @ray.remote(num_returns=2, **there)
        def two(name):
            note(folder, name)
            return 1, numpy.full(SIZE, 2)

        @ray.remote(num_returns="streaming", **there)
        def stream(name):
            note(folder, name)
            for number in range(3):
                yield numpy.full(SIZE, number)

        @ray.remote(max_restarts=-1, max_task_retries=-1, **there)
        class Counter:
            number = 0

            def make(self, name):
                note(folder, name)
                self.number += 1
                return numpy.full(SIZE, self.number)

        @ray.remote(num_cpus=0, resources={"here": 0.1})
        class Borrower:
            def keep(self, refs):
                self.refs = refs

            def first(self):
                return int(ray.get(self.refs[0])[0])

        @ray.remote(num_cpus=0, resources={"here": 0.1})
        def first(array):
            return int(array[0])

        plain, argument, lent = make.remote("plain", 3), make.remote("argument", 4), make.remote("lent", 5)
        end = make.remote("chain", 1)
        for _ in range(3):
            end = twice.remote("chain", end)
        put = ray.put(numpy.full(SIZE, 6))
        of_put = twice.remote("of put", put)
        nested = twice_nested.remote("nested", [make.remote("nested", 7)])
        small, large = two.remote("two")
        items = list(stream.remote("stream"))
        counter = Counter.remote()
        counted = counter.make.remote("counter")
        borrower = Borrower.remote()
        ray.get(borrower.keep.remote([lent]))
        made(ray, plain, argument, lent, end, of_put, nested, small, large, counted, *items)
        del put
        nodes.replace()
        return [
            [int(ray.get(plain)[0]), nodes.runs("plain")],
            [ray.get(first.remote(argument)), nodes.runs("argument")],
            [ray.get(borrower.first.remote()), nodes.runs("lent")],
            [int(ray.get(end)[0]), nodes.runs("chain")],
            [int(ray.get(of_put)[0]), nodes.runs("of put")],
            [int(ray.get(nested)[0]), nodes.runs("nested")],
            [ray.get(small), int(ray.get(large)[0]), nodes.runs("two")],
            [[int(ray.get(item)[0]) for item in items], nodes.runs("stream")],
            [int(ray.get(counted)[0]), nodes.runs("counter")],
        ]


@program("cluster/recovery", "cluster/remove-node", fresh=True)
def what_is_not_made_again(ray):
    import numpy

    with two_nodes(ray) as nodes:
        folder = nodes.folder
        there = {"num_cpus": 0, "resources": {"there": 0.1}}

        @ray.remote(**there)
        def make(name):
            note(folder, name)
            return numpy.ones(SIZE)

        @ray.remote(**there)
        def put():
            return [ray.put(numpy.ones(SIZE))]

        @ray.remote(**there)
        def second_time_fails():
            note(folder, "fails")
            if nodes_runs(folder, "fails") > 1:
                raise ValueError("not again")
            return numpy.ones(SIZE)

        @ray.remote(max_restarts=0, max_task_retries=-1, **there)
        class Mortal:
            def make(self):
                return numpy.ones(SIZE)

        @ray.remote(max_restarts=-1, **there)
        class Unrepeated:
            def make(self):
                return numpy.ones(SIZE)

        @ray.remote(num_cpus=0, resources={"here": 0.1})
        def first(array):
            return int(array[0])

        without = make.options(max_retries=0).remote("without")
        once = make.options(max_retries=1).remote("once")
        (owned_there,) = ray.get(put.remote())
        failing = second_time_fails.remote()
        mortal, unrepeated = Mortal.remote(), Unrepeated.remote()
        of_mortal, of_unrepeated = mortal.make.remote(), unrepeated.make.remote()
        made(ray, without, once, failing, of_mortal, of_unrepeated)
        nodes.replace()
        answers = [
            outcome(lambda: ray.get(without), "max_retries=0"),
            outcome(lambda: ray.get(without), "[OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED]"),
            outcome(lambda: ray.get(first.remote(without)), "input arguments"),
            [len(part) for part in ray.wait([without], timeout=10)],
            outcome(lambda: ray.get(owned_there), "The object's owner has exited."),
            outcome(lambda: ray.get(failing), "not again"),
            outcome(lambda: ray.get(of_mortal), "its node has died"),
            outcome(lambda: ray.get(of_unrepeated), "[OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED]"),
        ]
        made(ray, once)
        until(lambda: nodes.runs("once") == 2)
        nodes.replace()
        answers.append(outcome(lambda: ray.get(once), "[OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED]"))
        return [*answers, nodes.runs("without"), nodes.runs("once")]


def nodes_runs(folder, name):
    return len([entry for entry in os.listdir(folder) if entry.startswith(name + ".")])
