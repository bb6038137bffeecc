"""Strategies, labels and locality as programs use them, on three virtual nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import miniray
from miniray import exceptions
from miniray.cluster_utils import Cluster
from miniray.util import placement_group, placement_group_table, remove_placement_group
from miniray.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)
from tests.waiting import wait_for

NODES: dict[str, str] = {}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    NODES[cluster.add_node(num_cpus=1, labels={"zone": "h"}).node_id] = "head"
    NODES[cluster.add_node(num_cpus=2, resources={"one": 1}, labels={"zone": "a", "disk": "ssd"}).node_id] = "one"
    NODES[cluster.add_node(num_cpus=2, resources={"two": 1}, labels={"zone": "b"}).node_id] = "two"
    cluster.connect()
    yield cluster
    miniray.shutdown()
    cluster.shutdown()
    NODES.clear()


@miniray.remote
def node(_argument: Any = None) -> str:
    return miniray.get_runtime_context().get_node_id()


def settle() -> None:
    wait_for(lambda: miniray.available_resources().get("CPU") == 5, message="idle leases come back")


def run(**options: Any) -> str:
    settle()
    return NODES[miniray.get(node.options(**options).remote(), timeout=20)]


def id_of(name: str) -> str:
    return next(node_id for node_id, other in NODES.items() if other == name)


@pytest.mark.parametrize("name", ["head", "one", "two"])
def test_an_affinity_names_its_node(name: str) -> None:
    assert run(scheduling_strategy=NodeAffinitySchedulingStrategy(id_of(name), False)) == name


def test_a_hard_affinity_to_no_node_or_one_that_is_too_small_fails() -> None:
    for where in (
        {"scheduling_strategy": NodeAffinitySchedulingStrategy("ab" * 28, False)},
        {"scheduling_strategy": NodeAffinitySchedulingStrategy(id_of("one"), False), "num_cpus": 8},
    ):
        with pytest.raises(exceptions.TaskUnschedulableError, match="soft=False was specified"):
            miniray.get(node.options(**where).remote(), timeout=20)


def test_calls_of_an_actor_that_can_never_be_placed_say_so() -> None:
    @miniray.remote
    class Actor:
        def ping(self) -> None: ...

    actor = Actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy("ab" * 28, False)).remote()
    with pytest.raises(exceptions.ActorUnschedulableError, match="The actor is not schedulable: The node specified"):
        miniray.get(actor.ping.remote(), timeout=20)


def test_a_soft_affinity_falls_back() -> None:
    assert run(scheduling_strategy=NodeAffinitySchedulingStrategy(id_of("two"), True)) == "two"
    assert run(scheduling_strategy=NodeAffinitySchedulingStrategy(id_of("two"), True), resources={"one": 0.1}) == "one"


@pytest.mark.parametrize(
    ("hard", "soft", "name"),
    [
        ({"zone": In("a", "c")}, None, "one"),
        ({"zone": NotIn("a", "h")}, None, "two"),
        ({"disk": Exists()}, None, "one"),
        ({"disk": DoesNotExist(), "zone": NotIn("h")}, None, "two"),
        ({"zone": Exists()}, {"zone": In("b")}, "two"),
        ({"zone": In("b")}, {"disk": Exists()}, "two"),
    ],
)
def test_node_labels_choose_the_node(hard: Any, soft: Any, name: str) -> None:
    assert run(scheduling_strategy=NodeLabelSchedulingStrategy(hard, soft=soft)) == name


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        ({"zone": "a"}, "one"),
        ({"zone": "in(b,c)"}, "two"),
        ({"zone": "!in(a,h)"}, "two"),
        ({"disk": "!ssd", "zone": "!h"}, "two"),
    ],
)
def test_label_selectors_choose_the_node(selector: dict[str, str], name: str) -> None:
    assert run(label_selector=selector) == name


def test_fallbacks_are_taken_when_nothing_matches() -> None:
    fallback = [{"label_selector": {"zone": "y"}}, {"label_selector": {"zone": "a"}}]
    assert run(label_selector={"zone": "z"}, fallback_strategy=fallback) == "one"


@miniray.remote
class Lodger:
    def node(self) -> str:
        return miniray.get_runtime_context().get_node_id()


@pytest.mark.parametrize("name", [None, "named"])
def test_an_idle_lease_is_not_in_the_way_of_an_actor_that_would_rather_go_there(name: str | None) -> None:
    spills = NodeAffinitySchedulingStrategy(id_of("two"), True, _spill_on_unavailable=True)
    settle()
    assert NODES[miniray.get(node.options(num_cpus=2, resources={"two": 0.1}).remote())] == "two"
    lodger = Lodger.options(num_cpus=2, scheduling_strategy=spills, name=name).remote()
    assert NODES[miniray.get(lodger.node.remote())] == "two"
    miniray.kill(lodger)
    settle()


def test_an_idle_lease_is_not_in_the_way_of_a_placement_group() -> None:
    settle()
    assert NODES[miniray.get(node.options(num_cpus=2, resources={"two": 0.1}).remote())] == "two"
    group = placement_group([{"CPU": 2}], strategy="STRICT_PACK", _soft_target_node_id=id_of("two"))
    assert group.wait(10)
    assert NODES[placement_group_table(group)["bundles_to_node_id"][0]] == "two"
    remove_placement_group(group)
    settle()


def test_labels_that_no_node_has_wait() -> None:
    ref = node.options(label_selector={"zone": "z"}).remote()
    assert miniray.wait([ref], timeout=0.1) == ([], [ref])
    miniray.cancel(ref)


def test_a_task_runs_where_its_large_argument_lies() -> None:
    @miniray.remote(num_cpus=0)
    def make() -> bytes:
        return bytes(1_000_000)

    for name in ("one", "two"):
        data = make.options(resources={name: 0.1}).remote()
        miniray.wait([data])
        settle()
        assert NODES[miniray.get(node.remote(data), timeout=20)] == name


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid scheduling_strategy value RANDOM"):
        node.options(scheduling_strategy="RANDOM").remote()
    with pytest.raises(TypeError, match="The type of keyword 'scheduling_strategy' must be"):
        node.options(scheduling_strategy=1).remote()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: NodeAffinitySchedulingStrategy("xx", False), "Invalid node_id 'xx'."),
        (lambda: NodeAffinitySchedulingStrategy("ab" * 28, False, _spill_on_unavailable=True), "soft is False"),
        (lambda: NodeAffinitySchedulingStrategy("ab" * 28, True, _fail_on_unavailable=True), "soft is True"),
        (lambda: NodeLabelSchedulingStrategy({}), "cannot both be empty"),
        (lambda: NodeLabelSchedulingStrategy(["a"]), "must be a map"),
        (lambda: NodeLabelSchedulingStrategy({1: Exists()}), "must be of type str"),
        (lambda: NodeLabelSchedulingStrategy({"a": "b"}), "must be one of the `In`"),
        (lambda: In(), "must be a non-empty tuple"),
        (lambda: NotIn("a", 1), "Type of value in position 1 for the NotIn operator must be str"),
    ],
)
def test_malformed_strategies_are_refused(make: Any, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert text in str(caught.value)
