"""Placement groups on one node: making, waiting, running in them, removing; and what is refused."""

# mypy: ignore-errors
from __future__ import annotations

import importlib
import os
import pickle
import tempfile
import time
import warnings
from pathlib import Path

from ..catalog import program
from ..observe import outcome, until

AREA = "scheduling"
SESSION = {"num_cpus": 4, "num_gpus": 2, "resources": {"x": 2}, "labels": {"zone": "a"}, "log_to_driver": False}


def groups_of(ray):
    return importlib.import_module(f"{ray.__name__}.util.placement_group")


def in_group(ray, *arguments):
    strategies = importlib.import_module(f"{ray.__name__}.util.scheduling_strategies")
    return strategies.PlacementGroupSchedulingStrategy(*arguments)


class Removed:
    """Removes the groups at the end, and waits until everything is back."""

    def __init__(self, ray):
        self.ray = ray
        self.groups = []

    def __call__(self, *arguments, **options):
        group = self.ray.util.placement_group(*arguments, **options)
        self.groups.append(group)
        return group

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for group in self.groups:
            self.ray.util.remove_placement_group(group)
        wanted = {"CPU": 4.0, "GPU": 2.0, "x": 2.0}
        until(lambda: all(self.ray.available_resources().get(name) == value for name, value in wanted.items()))


def look(ray_name):
    ray = importlib.import_module(ray_name)
    context = ray.get_runtime_context()
    group = ray.util.get_current_placement_group()
    return [
        context.get_assigned_resources(),
        context.get_placement_group_id() is not None,
        group is not None and sorted(map(sorted, group.bundle_specs)),
        context.should_capture_child_tasks_in_placement_group,
    ]


def without_group_ids(resources):
    """Names without the ids of groups, and without what differs by machine."""
    plain = {}
    for name, quantity in resources.items():
        if not name.startswith(("node:", "memory", "object_store")):
            plain[name.rpartition("_")[0] if "_group_" in name else name] = quantity
    return dict(sorted(plain.items()))


@program("scheduling/placement-groups")
def the_handle_of_a_group(ray):
    groups = groups_of(ray)
    with Removed(ray) as make:
        group = make([{"CPU": 2, "x": 1}, {"CPU": 1}], name="handle")
        copy = pickle.loads(pickle.dumps(group))
        return [
            type(group).__name__,
            type(group.id).__name__,
            group.bundle_specs,
            group.bundle_count,
            group.is_empty,
            copy == group,
            hash(copy) == hash(group),
            copy is group,
            group == "other",
            group == groups.PlacementGroup.empty(),
            groups.PlacementGroup.empty().is_empty,
            type(ray.util.placement_group).__name__,
        ]


@program("scheduling/placement-groups")
def ready_is_a_ref_of_the_group(ray):
    with Removed(ray) as make:
        group = make([{"CPU": 1}])
        got = ray.get(group.ready(), timeout=20)
        done, waiting = ray.wait([group.ready()], timeout=20)
        empty = groups_of(ray).PlacementGroup.empty()
        return [got == group, len(done), len(waiting), ray.get(empty.ready()).is_empty, group.wait(20)]


@program("scheduling/placement-groups")
def ready_may_be_given_to_a_task(ray):
    @ray.remote
    def use(group):
        return [group.wait(10), group.bundle_count]

    with Removed(ray) as make:
        return ray.get(use.remote(make([{"CPU": 1}, {"x": 1}]).ready()), timeout=30)


@program("scheduling/placement-groups")
def ready_can_be_awaited(ray):
    import asyncio

    with Removed(ray) as make:
        group = make([{"CPU": 1}])

        async def wait():
            return await group.ready() == group

        return asyncio.run(wait())


@program("scheduling/placement-group-table")
def the_table_of_a_group(ray):
    with Removed(ray) as make:
        group = make([{"CPU": 2, "x": 1}, {"GPU": 1}], name="told", strategy="SPREAD")
        group.wait(20)
        row = ray.util.placement_group_table(group)
        here = ray.nodes()[0]["NodeID"]
        return {
            "keys": sorted(row),
            "id": row["placement_group_id"] == group.id.hex(),
            "bundles": [[index, dict(sorted(bundle.items()))] for index, bundle in row["bundles"].items()],
            "nodes": [[index, node == here] for index, node in row["bundles_to_node_id"].items()],
            "stats": sorted(row["stats"]),
            "scheduling": row["stats"]["scheduling_state"],
            **{key: row[key] for key in ("name", "strategy", "state")},
            "in the whole table": ray.util.placement_group_table()[group.id.hex()]["state"],
        }


@program("scheduling/placement-group-table")
def states_of_groups_that_wait(ray):
    def state(group):
        row = ray.util.placement_group_table(group)
        return [row["state"], row["stats"]["scheduling_state"], row["bundles_to_node_id"][0]]

    with Removed(ray) as make:
        make([{"CPU": 4}]).wait(20)
        later, never = make([{"CPU": 2}]), make([{"nothing": 1}])
        until(lambda: state(later)[1] == "NO_RESOURCES" and state(never)[1] == "INFEASIBLE")
        return [state(later), state(never), later.wait(0.1), outcome(lambda: ray.get(later.ready(), timeout=0.1))]


@program("scheduling/placement-groups")
def a_group_that_waits_is_reserved_when_there_is_room(ray):
    with Removed(ray) as make:
        first = make([{"CPU": 4}])
        first.wait(20)
        second = make([{"CPU": 4}])
        before = second.wait(0.2)
        ray.util.remove_placement_group(first)
        return [before, second.wait(20)]


@program("scheduling/placement-groups", "processes/cluster-resources")
def what_a_group_reserves_is_shown(ray):
    with Removed(ray) as make:
        group = make([{"CPU": 2, "x": 1}, {"CPU": 1, "GPU": 1}])
        group.wait(20)
        shown = (ray.available_resources, ray.cluster_resources)
        until(lambda: all("bundle_group" in without_group_ids(ask()) for ask in shown))
        until(lambda: ray.available_resources().get("CPU") == 1)
        return [without_group_ids(ask()) for ask in shown]


@program("scheduling/placement-group-removal")
def nothing_is_shown_of_a_removed_group(ray):
    with Removed(ray) as make:
        make([{"CPU": 2, "x": 1}, {"CPU": 1, "GPU": 1}]).wait(20)
    until(lambda: not any("_group_" in name for name in ray.available_resources()))
    return [without_group_ids(ray.available_resources()), without_group_ids(ray.cluster_resources())]


@program("scheduling/placement-group-names")
def groups_have_names(ray):
    with Removed(ray) as make:
        group = make([{"CPU": 1}], name="named")
        group.wait(20)
        found = ray.util.get_placement_group("named")
        taken = outcome(lambda: make([{"CPU": 1}], name="named"), "none")
        ray.util.remove_placement_group(group)
        return [
            found == group,
            found.bundle_specs,
            taken["raises"],
            outcome(lambda: ray.util.get_placement_group("named")),
            outcome(lambda: ray.util.get_placement_group("")),
            make([{"CPU": 1}], name="named").wait(20),
        ]


@program("scheduling/placement-group-tasks")
def a_task_in_a_group(ray):
    task = ray.remote(look)
    with Removed(ray) as make:
        group = make([{"CPU": 2, "x": 1}, {"CPU": 1, "GPU": 1}])

        def run(*where, **options):
            return ray.get(
                task.options(scheduling_strategy=in_group(ray, group, *where), **options).remote(ray.__name__),
                timeout=30,
            )

        return [run(), run(1, num_gpus=1), run(0, num_cpus=0, resources={"x": 1}), run(num_cpus=0), run(-1, num_cpus=2)]


@program("scheduling/placement-group-tasks", "devices/ids")
def devices_of_a_task_in_a_group(ray):
    @ray.remote(num_gpus=1)
    def devices():
        return [ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")]

    with Removed(ray) as make:
        group = make([{"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}])
        group.wait(20)
        found = [
            ray.get(devices.options(scheduling_strategy=in_group(ray, group, index)).remote(), timeout=30)
            for index in (0, 1)
        ]
        return sorted(found)


@program("scheduling/placement-group-tasks")
def a_driver_is_in_no_group(ray):
    context = ray.get_runtime_context()
    return [ray.util.get_current_placement_group(), context.get_placement_group_id()]


@program("scheduling/placement-group-tasks")
def a_strategy_without_a_group(ray):
    task = ray.remote(look).options(scheduling_strategy=in_group(ray, None))
    return ray.get(task.remote(ray.__name__), timeout=30)


@program("scheduling/placement-group-tasks")
def bundles_bound_what_runs_at_once(ray):
    @ray.remote
    def hold(folder, name):
        Path(folder, name).touch()
        until(lambda: Path(folder, "go").exists())
        return name

    with Removed(ray) as make, tempfile.TemporaryDirectory() as folder:
        group = make([{"CPU": 1}])
        task = hold.options(scheduling_strategy=in_group(ray, group))
        first = task.remote(folder, "first")
        until(lambda: Path(folder, "first").exists())
        second = task.remote(folder, "second")
        time.sleep(0.5)
        both = Path(folder, "second").exists()
        Path(folder, "go").touch()
        return [both, ray.get([first, second], timeout=30)]


@program("scheduling/placement-group-tasks", "tasks/blocked-cpu")
def a_blocked_task_in_a_group_lends_its_cpu(ray):
    @ray.remote
    def child():
        return 1

    with Removed(ray) as make:
        group = make([{"CPU": 1}])

        @ray.remote
        def parent():
            return ray.get(child.remote()) + 1

        task = parent.options(scheduling_strategy=in_group(ray, group, 0, True))
        return ray.get(task.remote(), timeout=30)


class Actor:
    def look(self, ray_name):
        return look(ray_name)

    def child(self, ray_name, how):
        ray = importlib.import_module(ray_name)
        options = {"default": {"scheduling_strategy": "DEFAULT"}, "spread": {"scheduling_strategy": "SPREAD"}}
        task = ray.remote(look)
        return ray.get((task.options(**options[how]) if how in options else task).remote(ray_name))

    def pid(self):
        return os.getpid()

    def sleep(self, mark):
        Path(mark).touch()
        time.sleep(1000)

    def make(self, ray_name):
        return importlib.import_module(ray_name).util.placement_group([{"CPU": 1}])


@program("scheduling/placement-group-actors")
def an_actor_in_a_group(ray):
    with Removed(ray) as make:
        group = make([{"CPU": 2}, {"GPU": 1}])
        actors = [
            ray.remote(Actor).options(scheduling_strategy=in_group(ray, group, 0), **options).remote()
            for options in ({}, {"num_cpus": 1})
        ]
        actors.append(ray.remote(Actor).options(scheduling_strategy=in_group(ray, group, 1), num_cpus=0).remote())
        answer = ray.get([actor.look.remote(ray.__name__) for actor in actors], timeout=30)
        for actor in actors:
            ray.kill(actor)
        return answer


@program("scheduling/placement-group-capture")
def children_are_captured(ray):
    with Removed(ray) as make:
        group = make([{"CPU": 3}])
        answer = {}
        for captures in (None, False, True):
            actor = (
                ray.remote(Actor).options(num_cpus=1, scheduling_strategy=in_group(ray, group, -1, captures)).remote()
            )
            answer[str(captures)] = [
                ray.get(actor.child.remote(ray.__name__, how), timeout=30)[1:] for how in ("plain", "default", "spread")
            ]
            ray.kill(actor)
        return answer


@program("scheduling/placement-group-errors")
def requests_that_fit_no_bundle(ray):
    task, actor = ray.remote(look), ray.remote(Actor)
    with Removed(ray) as make:
        group = make([{"CPU": 2, "x": 1}, {"CPU": 1}])
        gpus = make([{"GPU": 1}])
        where, there = in_group(ray, group), in_group(ray, gpus)
        return [
            outcome(lambda: task.options(scheduling_strategy=where, num_cpus=3).remote("")),
            outcome(lambda: task.options(scheduling_strategy=where, num_gpus=1).remote(""), "first"),
            outcome(lambda: task.options(scheduling_strategy=there).remote("")),
            outcome(lambda: actor.options(scheduling_strategy=there).remote()),
            outcome(lambda: actor.options(scheduling_strategy=there, num_gpus=2, num_cpus=0).remote(), "none"),
        ]


@program("scheduling/placement-group-errors")
def wrong_bundle_indexes(ray):
    task = ray.remote(look)
    with Removed(ray) as make:
        group = make([{"CPU": 1}, {"CPU": 1}])
        return [
            outcome(lambda: task.options(scheduling_strategy=in_group(ray, group, 3)).remote("")),
            outcome(lambda: task.options(scheduling_strategy=in_group(ray, group, 2)).remote("")),
            outcome(lambda: task.options(scheduling_strategy=in_group(ray, group, -2)).remote("")),
            outcome(lambda: task.options(scheduling_strategy=in_group(ray, None, 0)).remote("")),
            outcome(lambda: ray.remote(Actor).options(scheduling_strategy=in_group(ray, group, 5)).remote()),
        ]


@program("scheduling/placement-group-errors")
def arguments_that_are_refused(ray):
    make = ray.util.placement_group
    return [
        outcome(lambda: make(bundles)) for bundles in ((), [], [{}], [{"CPU": 0}], [{1: 1}], [{"CPU": "1"}], {"CPU": 1})
    ] + [
        outcome(lambda: make([{"CPU": 1}], lifetime="long")),
        outcome(lambda: make([{"CPU": 1}], _soft_target_node_id="ab" * 28)),
        outcome(lambda: make([{"CPU": 1}], strategy="TIGHT"), "Invalid placement group strategy TIGHT."),
        outcome(lambda: ray.util.remove_placement_group(None)),
    ]


@program("scheduling/placement-group-errors")
def topologies_that_are_refused(ray):
    validate = groups_of(ray).validate_placement_group
    bundles = [{"CPU": 1}]
    return [
        outcome(lambda: validate(bundles, strategy="PACK", topology_strategy={})),
        outcome(lambda: validate(bundles, topology_strategy=[])),
        outcome(lambda: validate(bundles, topology_strategy={"": "PACK"})),
        outcome(lambda: validate(bundles, topology_strategy={"rack": "SPREAD"})),
        outcome(lambda: validate(bundles, topology_strategy={"rack": "STRICT_PACK", "row": "STRICT_PACK"})),
        outcome(lambda: validate(bundles, topology_strategy={"a": "PACK", "b": "PACK", "c": "PACK"})),
        outcome(lambda: validate(bundles, topology_strategy={"ray.io/node-id": "SPREAD"})),
    ]


@program("scheduling/placement-group-errors")
def the_validators(ray):
    groups = groups_of(ray)
    check = groups._validate_bundle_label_selector
    group = groups.PlacementGroup(ray.PlacementGroupID.from_random(), [{"CPU": 1.0}])
    return [
        sorted(groups.VALID_PLACEMENT_GROUP_STRATEGIES),
        outcome(lambda: groups._validate_bundles([{"CPU": 1, "GPU": 0}])),
        outcome(lambda: groups._validate_bundles([{"CPU": None}])),
        outcome(lambda: check([])),
        outcome(lambda: check([{"zone": "in(a, b)"}, {}])),
        outcome(lambda: check({"zone": "a"})),
        outcome(lambda: check(["zone"])),
        outcome(lambda: check([{"zone": 1}])),
        outcome(lambda: check([{"zone": "a b"}])),
        outcome(lambda: check([{"ray.io/accelerator-type": "GB200"}, {}])),
        outcome(lambda: groups.check_placement_group_index(group, 0)),
        outcome(lambda: groups.check_placement_group_index(group, 1)),
        outcome(lambda: groups.check_placement_group_index(groups.PlacementGroup.empty(), 0)),
        outcome(lambda: groups._validate_resource_shape(group, {"CPU": 1}, {"CPU": 1}, "f")),
        outcome(lambda: groups._validate_resource_shape(group, {"CPU": 2}, {}, "f")),
        outcome(lambda: groups._validate_resource_shape(group, {}, {"CPU": 2}, "f")),
        outcome(lambda: groups.validate_placement_group([{"CPU": 1}], bundle_label_selector=[]), "first"),
    ]


@program("scheduling/placement-group-errors")
def old_options_are_deprecated(ray):
    task = ray.remote(look)
    with Removed(ray) as make, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        group = make([{"CPU": 1}])
        answer = ray.get(task.options(placement_group=group).remote(ray.__name__), timeout=30)
        wrong = outcome(lambda: task.options(placement_group_bundle_index=1).remote(""))
        texts = sorted(
            {str(entry.message).partition(" See")[0][:60] for entry in caught if "placement" in str(entry.message)}
        )
        return [answer, wrong, texts]


@program("scheduling/placement-group-labels")
def labels_of_bundles(ray):
    with Removed(ray) as make:
        here = make([{"CPU": 1}, {"CPU": 1}], bundle_label_selector=[{"zone": "a"}, {"zone": "!b"}])
        nowhere = make([{"CPU": 1}], bundle_label_selector=[{"zone": "b"}])
        return [
            here.wait(20),
            nowhere.wait(0.5),
            outcome(lambda: make([{"CPU": 1}], bundle_label_selector=[{}, {}])),
            outcome(lambda: make([{"CPU": 1}], bundle_label_selector=[{"a": "?"}])),
        ]


@program("scheduling/placement-group-removal")
def a_removed_group_fails_who_waits_for_it(ray):
    with Removed(ray) as make:
        make([{"CPU": 4}]).wait(20)
        group = make([{"CPU": 2}])
        ready = group.ready()
        time.sleep(0.5)
        ray.util.remove_placement_group(group)
        return [
            outcome(lambda: ray.get(ready, timeout=20)),
            outcome(lambda: ray.get(group.ready(), timeout=20)),
            outcome(lambda: group.wait(5), "does not exist."),
            ray.util.placement_group_table(group)["state"],
            ray.util.placement_group_table(group)["stats"]["scheduling_state"],
            outcome(lambda: ray.util.remove_placement_group(group)),
        ]


@program("scheduling/placement-group-removal")
def a_removed_group_ends_its_task(ray):
    @ray.remote(max_retries=0)
    def sleep(mark):
        Path(mark).touch()
        time.sleep(1000)

    with Removed(ray) as make, tempfile.TemporaryDirectory() as folder:
        group = make([{"CPU": 1}])
        running = sleep.options(scheduling_strategy=in_group(ray, group)).remote(f"{folder}/mark")
        until(Path(folder, "mark").exists)
        ray.util.remove_placement_group(group)
        return outcome(lambda: ray.get(running, timeout=30), "first")


@program("scheduling/placement-group-removal")
def a_removed_group_ends_its_actor(ray):
    with Removed(ray) as make, tempfile.TemporaryDirectory() as folder:
        group = make([{"CPU": 1}])
        actor = ray.remote(Actor).options(scheduling_strategy=in_group(ray, group)).remote()
        pid = ray.get(actor.pid.remote(), timeout=30)
        call = actor.sleep.remote(f"{folder}/mark")
        until(Path(folder, "mark").exists)
        ray.util.remove_placement_group(group)
        return [
            outcome(
                lambda: ray.get(call, timeout=30), "its worker process has died. Worker exit type: INTENDED_SYSTEM_EXIT"
            ),
            outcome(lambda: ray.get(call), "Destroying worker since its placement group was removed."),
            outcome(
                lambda: ray.get(actor.pid.remote(), timeout=30),
                "The actor died unexpectedly before finishing this task.",
            ),
            until(lambda: not Path(f"/proc/{pid}").exists()),
        ]


@program("scheduling/placement-group-lifetime")
def a_group_outlives_the_actor_that_made_it(ray):
    with Removed(ray) as make:
        actor = ray.remote(Actor).remote()
        group = ray.get(actor.make.remote(ray.__name__), timeout=30)
        make.groups.append(group)
        group.wait(20)
        ray.kill(actor)
        time.sleep(1)
        return ray.util.placement_group_table(group)["state"]


@program("scheduling/placement-group-lifetime")
def a_group_ends_with_the_detached_actor_that_made_it(ray):
    with Removed(ray):
        actor = ray.remote(Actor).options(lifetime="detached", name="maker").remote()
        group = ray.get(actor.make.remote(ray.__name__), timeout=30)
        made = group.wait(20)
        ray.kill(actor)
        return [made, until(lambda: ray.util.placement_group_table(group)["state"] == "REMOVED")]


@program("scheduling/placement-groups")
def many_groups_in_turn(ray):
    states = []
    for _ in range(20):
        group = ray.util.placement_group([{"CPU": 2}, {"CPU": 2}])
        states.append(group.wait(20))
        ray.util.remove_placement_group(group)
    with Removed(ray):
        return all(states)


@program("scheduling/placement-groups")
def two_groups_that_want_everything_take_turns(ray):
    with Removed(ray) as make:
        pair = [make([{"CPU": 2}, {"CPU": 2}]) for _ in range(2)]
        until(lambda: any(group.wait(0.05) for group in pair))
        first = [group.wait(0.1) for group in pair]
        ray.util.remove_placement_group(pair[first.index(True)])
        return [sorted(first), pair[first.index(False)].wait(20)]


@program("scheduling/accelerators")
def names_of_accelerators(ray):
    accelerators = importlib.import_module(f"{ray.__name__}.util.accelerators")
    names = [name for name in accelerators.__all__ if name.isupper() and "A100" not in name]
    return {name: getattr(accelerators, name) for name in sorted(names)}
