"""Nodes that die under load: every result is right, and each recovery is quick, ten times in a row."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

import miniray
from miniray.cluster_utils import Cluster, ClusterNode
from miniray.util import placement_group, placement_group_table, remove_placement_group
from miniray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests.waiting import wait_for

pytestmark = pytest.mark.fault

ROUNDS = 10
#: seconds for a recovery, as promised
RECOVERED_WITHIN = 5.0


@miniray.remote(max_retries=-1)
def double(number: int) -> int:
    return 2 * number


@miniray.remote(max_retries=-1)
def add(*numbers: int) -> int:
    return sum(numbers)


@miniray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0, resources={"worker": 0.1})
class Echo:
    def say(self, word: Any) -> Any:
        return word


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(head_node_args={"num_cpus": 0}, initialize_head=True)
    for _ in range(4):
        cluster.add_node(num_cpus=1, resources={"worker": 1})
    cluster.connect()
    yield cluster
    miniray.shutdown()
    cluster.shutdown()


def a_node_dies(cluster: Cluster, choose: random.Random) -> None:
    victim: ClusterNode = choose.choice(cluster.list_all_nodes()[1:])
    cluster.remove_node(victim, allow_graceful=False)
    cluster.add_node(num_cpus=1, resources={"worker": 1})


def test_a_node_dies_under_load_ten_times_and_every_result_is_right(cluster: Cluster) -> None:
    choose = random.Random(5)
    actors = [Echo.remote() for _ in range(4)]
    miniray.get([actor.say.remote(0) for actor in actors])
    for round_number in range(ROUNDS):
        leaves = [double.remote(number) for number in range(60)]
        sums = [add.remote(*leaves[start : start + 10]) for start in range(0, 60, 10)]
        calls = [actor.say.remote((round_number, number)) for number in range(10) for actor in actors]
        a_node_dies(cluster, choose)
        # From the death on, everything that was lost is there again within this time.
        assert miniray.get(sums, timeout=RECOVERED_WITHIN) == [
            sum(2 * number for number in range(start, start + 10)) for start in range(0, 60, 10)
        ]
        assert miniray.get(calls, timeout=RECOVERED_WITHIN) == [
            (round_number, number) for number in range(10) for _ in actors
        ]
    assert miniray.cluster_resources()["CPU"] == 4


def test_a_placement_group_moves_with_its_nodes_and_keeps_its_actor(cluster: Cluster) -> None:
    choose = random.Random(7)
    group = placement_group([{"worker": 0.5}, {"worker": 0.5}], strategy="STRICT_SPREAD")
    assert group.wait(10)
    actor = Echo.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, 0)).remote()
    for word in range(5):
        assert miniray.get(actor.say.remote(word), timeout=10) == word
        a_node_dies(cluster, choose)
        wait_for(lambda: placement_group_table(group)["state"] == "CREATED")
        nodes = list(placement_group_table(group)["bundles_to_node_id"].values())
        alive = {row["NodeID"] for row in miniray.nodes() if row["Alive"]}
        assert len(set(nodes) & alive) == 2
    assert miniray.get(actor.say.remote("still"), timeout=10) == "still"
    remove_placement_group(group)
    wait_for(lambda: not [name for name in miniray.available_resources() if "_group_" in name])
