"""Nodes die under a program of chance: every value is right all the same, and in the end nothing is left over."""

import gc
import random

import numpy as np
import pytest

import miniray
from miniray.cluster_utils import Cluster
from miniray.processes import current
from tests.waiting import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]

ELEMENTS = 20_000  # of 8 bytes: too large to travel inside a message
ROUNDS = 240
EVERY = 40  #: rounds between two deaths
HELD = 30
LARGEST = 10**6

options = {"num_cpus": 0.5, "max_retries": -1}


@miniray.remote(resources={"there": 0.01}, **options)
def make(value):
    return np.full(ELEMENTS, value)


@miniray.remote(**options)
def add(*arrays):
    return sum(arrays)


@miniray.remote(num_returns=2, **options)
def more(array):
    return array + 1, array * 2


@miniray.remote(**options)
def add_nested(refs):
    return sum(miniray.get(refs))


@miniray.remote(**options)
def spawn(refs, value):
    return miniray.get(add_nested.remote([make.remote(value), *refs]))


@miniray.remote(**options)
def box(refs):
    return [np.zeros(ELEMENTS), list(refs)]


class Program:
    """Holds refs, and knows what their values must be."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.held = []

    def step(self):
        chance, held = self.chance, self.held
        (one, value), (other, second) = chance.choice(held), chance.choice(held)
        kind = chance.choice(["make", "add", "more", "nested", "spawn", "box", "get", "get", "drop"])
        if kind == "make":
            held.append((make.remote(value), value))
        elif kind == "add":
            held.append((add.remote(one, other), value + second))
        elif kind == "more":
            first, last = more.remote(one)
            held += [(first, value + 1), (last, value * 2)]
        elif kind == "nested":
            held.append((add_nested.remote([one, other]), value + second))
        elif kind == "spawn":
            held.append((spawn.remote([one], 3), value + 3))
        elif kind == "box":
            _, refs = miniray.get(box.remote([one, other]), timeout=60)
            held.append((refs[1], second))
        elif kind == "get":
            self.check(one, value)
        else:
            held.remove((one, value))
        self.held = [pair for pair in held if pair[1] < LARGEST][-HELD:] or [(miniray.put(np.ones(ELEMENTS)), 1)]

    def check(self, ref, value):
        array = miniray.get(ref, timeout=60)
        assert array[0] == array[-1] == value


@pytest.fixture
def cluster():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    miniray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    miniray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize("seed", [1, 2])
def test_every_value_is_right_whatever_nodes_die(cluster, seed):
    def add_node():
        return cluster.add_node(num_cpus=3, resources={"there": 100})

    nodes = [add_node(), add_node()]
    program = Program(seed)
    program.held.append((make.remote(5), 5))
    for number in range(1, ROUNDS + 1):
        program.step()
        if number % EVERY == 0:
            which = program.chance.randrange(2)
            cluster.remove_node(nodes[which], allow_graceful=False)
            nodes[which] = add_node()
    for ref, value in program.held:
        program.check(ref, value)
    program.held.clear()
    del ref
    core = current.core_or_none()

    def nothing_is_left():
        gc.collect()
        core.objects.put(None)  # counts what was released
        counter = core.objects.counter
        left = [entry for entry in counter.objects.values() if entry.payload is None or entry.payload.location]
        return not left and not counter.lineage.records and not core.tasks.pending

    wait_for(nothing_is_left, 20, lambda: f"{core.objects.counter.objects} {core.objects.counter.lineage.records}")
    assert core.objects.counter.lineage.used == 0
