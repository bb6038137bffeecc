"""Placement groups as programs use them; the decisions are tested with `state_machines.placement`."""

from __future__ import annotations

import pickle
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import miniray
from miniray import exceptions
from miniray.processes import current
from miniray.util import get_placement_group, placement_group, placement_group_table, remove_placement_group
from miniray.util.placement_group import (
    PlacementGroup,
    _validate_bundle_label_selector,
    _validate_bundles,
    _validate_resource_shape,
    check_placement_group_index,
    get_current_placement_group,
    validate_placement_group,
)
from miniray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup
from tests.waiting import wait_for


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    miniray.init("local", num_cpus=4, num_gpus=2, resources={"x": 2})
    yield
    miniray.shutdown()


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    for group_id, row in placement_group_table().items():
        if row["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(miniray.PlacementGroupID.from_hex(group_id)))
    wait_for(lambda: miniray.available_resources().get("CPU") == 4, message="all CPUs come back")
    assert not [name for name in miniray.available_resources() if "_group_" in name]


@miniray.remote
def where() -> tuple[Any, ...]:
    context = miniray.get_runtime_context()
    return (
        context.get_assigned_resources(),
        context.get_placement_group_id(),
        get_current_placement_group(),
        context.should_capture_child_tasks_in_placement_group,
    )


@miniray.remote
def sleep(mark: Path) -> None:
    mark.touch()
    time.sleep(1000)


@miniray.remote
class Member:
    def child(self, options: dict[str, Any]) -> Any:
        return miniray.get(where.options(**options).remote())

    def make_group(self) -> PlacementGroup:
        return placement_group([{"CPU": 1}])

    def sleep(self, mark: Path) -> None:
        mark.touch()
        time.sleep(1000)


def test_the_name_in_the_package_is_the_function_also_when_the_module_was_imported() -> None:
    assert isinstance(miniray.util.placement_group, types.FunctionType)


def test_ready_is_a_ref_of_the_group_that_tasks_may_wait_for() -> None:
    group = placement_group([{"CPU": 1}])
    assert miniray.get(group.ready()) == group

    @miniray.remote
    def is_it(value: PlacementGroup) -> bool:
        return value.wait(10) and value.bundle_specs == [{"CPU": 1.0}]

    assert miniray.get(is_it.remote(group.ready()))


def test_copies_of_a_handle_are_equal() -> None:
    group = placement_group([{"CPU": 1}])
    copy = pickle.loads(pickle.dumps(group))
    assert copy == group
    assert hash(copy) == hash(group)
    assert group != PlacementGroup.empty()
    assert group != "group"


def test_the_table_tells_what_is_where() -> None:
    group = placement_group([{"CPU": 1}, {"x": 1}], strategy="SPREAD", name="told")
    group.wait(10)
    row = placement_group_table(group)
    (node,) = miniray.nodes()
    assert row["bundles"] == {0: {"CPU": 1.0}, 1: {"x": 1.0}}
    assert row["bundles_to_node_id"] == {0: node["NodeID"], 1: node["NodeID"]}
    assert (row["name"], row["strategy"], row["state"]) == ("told", "SPREAD", "CREATED")
    assert row["stats"]["scheduling_state"] == "FINISHED"
    assert placement_group_table()[group.id.hex()] == row


def test_a_group_is_found_by_its_name_until_it_is_removed() -> None:
    group = placement_group([{"CPU": 1}], name="found")
    assert get_placement_group("found") == group
    with pytest.raises(exceptions.RaySystemError, match="because name 'found' already exists"):
        placement_group([{"CPU": 1}], name="found")
    remove_placement_group(group)
    with pytest.raises(ValueError, match="Failed to look up placement group with name: found"):
        get_placement_group("found")
    with pytest.raises(ValueError, match="non-empty value"):
        get_placement_group("")


def test_what_is_reserved_is_shown_under_rays_names() -> None:
    group = placement_group([{"CPU": 1}, {"CPU": 2}])
    group.wait(10)
    suffix = group.id.hex()
    available = miniray.available_resources()
    assert available["CPU"] == 1.0
    assert available[f"CPU_group_{suffix}"] == 3.0
    assert available[f"CPU_group_1_{suffix}"] == 2.0
    assert available[f"bundle_group_{suffix}"] == 2000.0
    assert miniray.cluster_resources()["CPU"] == 4.0


def test_a_task_in_a_group_sees_plain_resources_and_the_group() -> None:
    group = placement_group([{"CPU": 1}, {"CPU": 1, "GPU": 1}])
    resources, group_id, seen, captures = miniray.get(where.options(scheduling_strategy=InGroup(group)).remote())
    assert (resources, group_id, seen, captures) == ({"CPU": 1.0}, group.id.hex(), group, False)
    assert miniray.get(where.options(scheduling_strategy=InGroup(group, 1), num_gpus=1).remote())[0] == {
        "CPU": 1.0,
        "GPU": 1.0,
    }
    assert get_current_placement_group() is None


def test_children_run_in_the_group_if_it_captures_them() -> None:
    group = placement_group([{"CPU": 2}])
    captures = Member.options(num_cpus=1, scheduling_strategy=InGroup(group, 0, True)).remote()
    plain = Member.options(num_cpus=1, scheduling_strategy=InGroup(group)).remote()
    assert miniray.get(plain.child.remote({}))[1] is None
    miniray.kill(plain)
    assert miniray.get(captures.child.remote({}))[1:] == (group.id.hex(), group, True)
    for elsewhere in ({"scheduling_strategy": "DEFAULT"}, {"scheduling_strategy": "SPREAD"}):
        assert miniray.get(captures.child.remote(elsewhere))[1] is None


def test_a_request_that_fits_no_bundle_is_refused_at_once() -> None:
    group = placement_group([{"CPU": 1}])
    with pytest.raises(ValueError, match="cannot fit into any bundles for the placement group"):
        where.options(scheduling_strategy=InGroup(group), num_cpus=2).remote()
    with pytest.raises(ValueError, match="placement group bundle index 3 is invalid"):
        where.options(scheduling_strategy=InGroup(group, 3)).remote()
    with pytest.raises(ValueError, match="the value of bundle index must be -1"):
        where.options(scheduling_strategy=InGroup(None, 1)).remote()
    gpus = placement_group([{"GPU": 1}])
    with pytest.raises(ValueError, match="the actor requires 1 CPU for creation"):
        Member.options(scheduling_strategy=InGroup(gpus)).remote()
    assert miniray.get(Member.options(scheduling_strategy=InGroup(gpus), num_cpus=0).remote().child.remote({}))


def test_a_group_that_does_not_fit_waits_and_says_why() -> None:
    taken = placement_group([{"CPU": 4}])
    taken.wait(10)
    waiting, never = placement_group([{"CPU": 1}]), placement_group([{"nothing": 1}])
    assert not waiting.wait(0.05)
    stats = [placement_group_table(group)["stats"]["scheduling_state"] for group in (waiting, never)]
    assert stats == ["NO_RESOURCES", "INFEASIBLE"]
    remove_placement_group(taken)
    assert waiting.wait(10)


def test_a_group_that_was_waited_for_in_vain_can_be_waited_for_again() -> None:
    taken = placement_group([{"CPU": 4}])
    taken.wait(10)
    waiting = placement_group([{"CPU": 1}])
    assert not waiting.wait(0.01)
    assert not waiting.wait(0.001)
    remove_placement_group(taken)
    assert waiting.wait(10)


def test_a_removed_group_fails_what_waits_for_it() -> None:
    taken = placement_group([{"CPU": 4}])
    taken.wait(10)
    group = placement_group([{"CPU": 1}])
    ready = group.ready()
    task = where.options(scheduling_strategy=InGroup(group)).remote()
    actor = Member.options(scheduling_strategy=InGroup(group)).remote()
    call = actor.child.remote({})
    remove_placement_group(group)
    for ref, error in (
        (ready, exceptions.TaskPlacementGroupRemoved),
        (task, exceptions.TaskPlacementGroupRemoved),
        (call, exceptions.ActorPlacementGroupRemoved),
    ):
        with pytest.raises(error):
            miniray.get(ref, timeout=10)
    with pytest.raises(Exception, match="does not exist"):
        group.wait(1)
    assert placement_group_table(group)["state"] == "REMOVED"


def test_a_removed_group_ends_what_runs_in_it(tmp_path: Path) -> None:
    group = placement_group([{"CPU": 1}, {"CPU": 1}, {"CPU": 1}])
    options = {"scheduling_strategy": InGroup(group)}
    once = sleep.options(max_retries=0, **options).remote(tmp_path / "once")
    again = sleep.options(**options).remote(tmp_path / "again")
    actor = Member.options(num_cpus=1, max_restarts=-1, **options).remote()
    call = actor.sleep.remote(tmp_path / "actor")
    wait_for(lambda: len(list(tmp_path.iterdir())) == 3, message="all three run")
    remove_placement_group(group)
    with pytest.raises(exceptions.WorkerCrashedError):
        miniray.get(once, timeout=10)
    with pytest.raises(exceptions.TaskPlacementGroupRemoved):
        miniray.get(again, timeout=10)
    with pytest.raises(exceptions.ActorDiedError, match="Destroying worker since its placement group was removed"):
        miniray.get(call, timeout=10)


def test_a_group_that_an_actor_made_outlives_the_actor() -> None:
    actor = Member.remote()
    group = miniray.get(actor.make_group.remote())
    miniray.kill(actor)
    assert group.wait(10)
    assert placement_group_table(group)["state"] == "CREATED"


def test_a_group_ends_with_the_detached_actor_that_made_it() -> None:
    actor = Member.options(lifetime="detached", name="maker").remote()
    group = miniray.get(actor.make_group.remote())
    miniray.kill(actor)
    wait_for(lambda: placement_group_table(group)["state"] == "REMOVED")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bundles": ()}, "Placement group bundles must be a list, got <class 'tuple'>."),
        ({"bundles": []}, "Got empty list instead."),
        ({"bundles": [{}]}, "Bundles cannot be an empty dictionary"),
        ({"bundles": [{"CPU": 0}]}, "resources with only 0 values"),
        ({"bundles": [{1: 1}]}, "Bundles must be a non-empty list of resource dictionaries."),
        ({"bundles": [{"CPU": "1"}]}, "Bundles must be a non-empty list of resource dictionaries."),
        ({"strategy": "TIGHT"}, "Invalid placement group strategy TIGHT. Supported strategies are:"),
        ({"lifetime": "long"}, "Placement group `lifetime` argument must be either `None` or 'detached'. Got long."),
        ({"_soft_target_node_id": "ab"}, "_soft_target_node_id currently only works with STRICT_PACK but got PACK"),
        ({"bundle_label_selector": [{}, {}]}, "The length of `bundle_label_selector` should equal"),
        ({"bundle_label_selector": [{"a": 1}]}, "must be a list of string dictionary label selectors."),
        ({"bundle_label_selector": [{"a": "?"}]}, "Invalid label selector provided in bundle_label_selector list."),
        ({"topology_strategy": {}, "strategy": "PACK"}, "cannot both be specified"),
        ({"topology_strategy": []}, "`topology_strategy` must be a dict, got list."),
        ({"topology_strategy": {"rack": "SPREAD"}}, "only 'STRICT_PACK' is supported for topology labels"),
    ],
)
def test_malformed_arguments_are_refused_with_rays_words(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        validate_placement_group(**{"bundles": [{"CPU": 1}], **arguments})
    assert text in str(caught.value)


def test_the_checks_may_be_called_directly() -> None:
    validate_placement_group([{"CPU": 1}], strategy="PACK")
    _validate_bundles([{"CPU": 1, "GPU": 0.5}])
    _validate_bundle_label_selector([{"zone": "in(a, b)"}])
    check_placement_group_index(PlacementGroup.empty(), -1)
    group = PlacementGroup(miniray.PlacementGroupID.from_random(), [{"CPU": 1}])
    with pytest.raises(ValueError, match="cannot fit into any bundles"):
        _validate_resource_shape(group, {"CPU": 2}, {}, "f")


def test_a_wait_that_was_in_vain_is_forgotten() -> None:
    core = current.core_or_none()
    assert core is not None
    group = placement_group([{"x": 3}])
    assert [group.wait(0.01) for _ in range(3)] == [False] * 3
    wait_for(lambda: not core.head_client._requests)
    remove_placement_group(group)
