"""Several nodes on one machine: where tasks, actors and bundles go, and what happens when a node dies."""

# mypy: ignore-errors
from __future__ import annotations

import importlib
import os
import time

from .. import observe
from ..catalog import program
from ..observe import outcome, until

AREA = "cluster"
SESSION = {
    "nodes": [
        {"num_cpus": 1, "resources": {"head": 1}, "labels": {"zone": "h"}},
        {"num_cpus": 2, "resources": {"one": 1}, "labels": {"zone": "a", "disk": "ssd"}},
        {"num_cpus": 2, "resources": {"two": 1}, "labels": {"zone": "b"}},
    ],
    "log_to_driver": False,
}


def names(ray):
    """Which node is which, by the resource that only it has."""
    found = {}
    for row in ray.nodes():
        for name in ("head", "one", "two", "three"):
            if row["Alive"] and name in row["Resources"]:
                found[row["NodeID"]] = name
    return found


def id_of(ray, name):
    return next(node_id for node_id, found in names(ray).items() if found == name)


def strategies_of(ray):
    return importlib.import_module(f"{ray.__name__}.util.scheduling_strategies")


def where(ray_name, seconds=0.0):
    time.sleep(seconds)
    return importlib.import_module(ray_name).get_runtime_context().get_node_id()


def place(ray, timeout=30, seconds=0.0, **options):
    """The name of the node on which a task with these options runs."""
    settle(ray)
    ref = ray.remote(where).options(**options).remote(ray.__name__, seconds)
    return names(ray)[ray.get(ref, timeout=timeout)]


def settle(ray):
    """Waits until nobody holds anything."""
    total = sum(row["Resources"].get("CPU", 0) for row in ray.nodes() if row["Alive"])
    until(lambda: ray.available_resources().get("CPU") == total)


class Actor:
    def where(self, ray_name):
        return where(ray_name)

    def pid(self):
        return os.getpid()

    def sleep(self):
        time.sleep(1000)


@program("cluster/virtual-nodes", "processes/nodes")
def rows_of_nodes(ray):
    rows = sorted(ray.nodes(), key=lambda row: row["Labels"]["zone"])
    return {
        "keys": sorted(rows[0]),
        "rows": [
            [
                row["Alive"],
                row["alive"],
                {k: v for k, v in sorted(row["Resources"].items()) if "memory" not in k},
                {k: v for k, v in sorted(row["Labels"].items()) if not k.startswith("ray.io/node-id")},
                row["Labels"]["ray.io/node-id"] == row["NodeID"],
                len(row["NodeID"]),
            ]
            for row in rows
        ],
    }


@program("cluster/virtual-nodes", "processes/cluster-resources")
def resources_of_all_nodes(ray):
    settle(ray)
    total = {k: v for k, v in sorted(ray.cluster_resources().items()) if "memory" not in k}
    free = {k: v for k, v in sorted(ray.available_resources().items()) if "memory" not in k}
    return [total, free == total]


@program("cluster/driver-on-the-head")
def the_driver_is_on_the_head_node(ray):
    return names(ray)[ray.get_runtime_context().get_node_id()]


@program("cluster/virtual-nodes")
def tasks_run_where_their_resources_are(ray):
    return [place(ray, resources={name: 1}, num_cpus=0) for name in ("two", "one", "head")]


@program("cluster/virtual-nodes")
def actors_live_where_their_resources_are(ray):
    actor = ray.remote(Actor).options(resources={"two": 0.5}, num_cpus=0).remote()
    answer = names(ray)[ray.get(actor.where.remote(ray.__name__), timeout=30)]
    ray.kill(actor)
    return answer


@program("cluster/virtual-nodes", "context/labels")
def labels_in_a_task(ray):
    @ray.remote(num_cpus=0, resources={"one": 0.1})
    def labels():
        found = ray.get_runtime_context().get_node_labels()
        return {key: value for key, value in sorted(found.items()) if key != "ray.io/node-id"}

    return ray.get(labels.remote(), timeout=30)


@program("cluster/virtual-nodes", "tasks/infeasible")
def what_no_single_node_has_waits(ray):
    refs = [
        ray.remote(where).options(num_cpus=3).remote(ray.__name__),
        ray.remote(where).options(resources={"one": 0.1, "two": 0.1}).remote(ray.__name__),
    ]
    waits = [len(ray.wait([ref], timeout=1)[0]) for ref in refs]
    for ref in refs:
        ray.cancel(ref)
    return waits


@program("scheduling/node-affinity")
def a_hard_affinity(ray):
    affinity = strategies_of(ray).NodeAffinitySchedulingStrategy
    return [place(ray, scheduling_strategy=affinity(id_of(ray, name), False)) for name in ("head", "one", "two")]


@program("scheduling/node-affinity")
def a_hard_affinity_to_no_node(ray):
    affinity = strategies_of(ray).NodeAffinitySchedulingStrategy("ab" * 28, False)
    task = ray.remote(where).options(scheduling_strategy=affinity)
    actor = ray.remote(Actor).options(scheduling_strategy=affinity).remote()
    text = "doesn't exist any more or is infeasible, and soft=False was specified."
    return [
        outcome(lambda: ray.get(task.remote(ray.__name__), timeout=20), text),
        outcome(lambda: ray.get(actor.pid.remote(), timeout=20), text),
    ]


@program("scheduling/node-affinity")
def a_hard_affinity_to_a_node_that_is_too_small(ray):
    affinity = strategies_of(ray).NodeAffinitySchedulingStrategy(id_of(ray, "one"), False)
    task = ray.remote(where).options(scheduling_strategy=affinity, num_cpus=8)
    return outcome(lambda: ray.get(task.remote(ray.__name__), timeout=20), "none")


@program("scheduling/node-affinity")
def a_soft_affinity(ray):
    affinity = strategies_of(ray).NodeAffinitySchedulingStrategy
    there = place(ray, scheduling_strategy=affinity(id_of(ray, "two"), True))
    nowhere = place(ray, scheduling_strategy=affinity("ab" * 28, True), resources={"one": 0.1})
    infeasible = place(ray, scheduling_strategy=affinity(id_of(ray, "two"), True), resources={"one": 0.1})
    return [there, nowhere, infeasible]


@program("scheduling/node-affinity")
def a_soft_affinity_waits_for_a_busy_node_unless_it_may_spill(ray):
    affinity = strategies_of(ray).NodeAffinitySchedulingStrategy
    settle(ray)
    busy = ray.remote(where).options(num_cpus=2, resources={"two": 0.1}).remote(ray.__name__, 4)
    until(lambda: ray.available_resources().get("two", 0) < 1)
    waits = ray.remote(where).options(scheduling_strategy=affinity(id_of(ray, "two"), True)).remote(ray.__name__)
    spills = (
        ray.remote(where)
        .options(scheduling_strategy=affinity(id_of(ray, "two"), True, _spill_on_unavailable=True))
        .remote(ray.__name__)
    )
    spilled = names(ray)[ray.get(spills, timeout=20)] != "two"
    return [
        spilled,
        len(ray.wait([waits], timeout=0.3)[0]),
        names(ray)[ray.get(waits, timeout=30)],
        bool(ray.get(busy)),
    ]


@program("scheduling/node-affinity")
def an_affinity_that_fails_when_the_node_is_busy(ray):
    affinity = strategies_of(ray).NodeAffinitySchedulingStrategy
    settle(ray)
    busy = ray.remote(where).options(num_cpus=2, resources={"two": 0.1}).remote(ray.__name__, 4)
    until(lambda: ray.available_resources().get("two", 0) < 1)
    strategy = affinity(id_of(ray, "two"), False, _fail_on_unavailable=True)
    fails = ray.remote(where).options(scheduling_strategy=strategy).remote(ray.__name__)
    answer = outcome(lambda: ray.get(fails, timeout=20), "none")
    ray.get(busy)
    return answer


@program("scheduling/strategy-arguments")
def arguments_of_an_affinity(ray):
    affinity = strategies_of(ray).NodeAffinitySchedulingStrategy
    made = affinity(ray.NodeID.from_hex("ab" * 28), soft=True)
    return [
        [made.node_id, made.soft],
        outcome(lambda: affinity("xx", False)),
        outcome(lambda: affinity("ab", False)),
        outcome(lambda: affinity("ff" * 28, False)),
        outcome(lambda: affinity("ab" * 28, False, _spill_on_unavailable=True)),
        outcome(lambda: affinity("ab" * 28, True, _fail_on_unavailable=True)),
        outcome(lambda: affinity()),
    ]


@program("scheduling/strategy-arguments")
def arguments_of_labels(ray):
    s = strategies_of(ray)
    label = s.NodeLabelSchedulingStrategy
    made = label({"zone": s.In("a", "b")}, soft={"disk": s.Exists()})
    return [
        [[e.key, type(e.operator).__name__, getattr(e.operator, "values", None)] for e in made.hard + made.soft],
        outcome(lambda: label({})),
        outcome(lambda: label(None, soft={})),
        outcome(lambda: label(["zone"])),
        outcome(lambda: label({1: s.Exists()})),
        outcome(lambda: label({"zone": "a"}), "first"),
        outcome(lambda: label({}, soft="zone")),
        outcome(lambda: s.In()),
        outcome(lambda: s.NotIn()),
        outcome(lambda: s.In("a", 1)),
        outcome(lambda: s.NotIn(None)),
    ]


@program("scheduling/strategy-arguments")
def strategies_that_are_unknown(ray):
    task = ray.remote(where)
    return [
        outcome(lambda: task.options(scheduling_strategy="RANDOM").remote(ray.__name__)),
        outcome(lambda: task.options(scheduling_strategy=1).remote(ray.__name__), "none"),
        outcome(lambda: ray.remote(Actor).options(scheduling_strategy="RANDOM").remote()),
        place(ray, scheduling_strategy="DEFAULT"),
    ]


@program("scheduling/node-labels")
def node_labels_choose_the_node(ray):
    s = strategies_of(ray)
    label = s.NodeLabelSchedulingStrategy
    return [
        place(ray, scheduling_strategy=label({"zone": s.In("a", "c")})),
        place(ray, scheduling_strategy=label({"zone": s.NotIn("a", "h")})),
        place(ray, scheduling_strategy=label({"disk": s.Exists()})),
        place(ray, scheduling_strategy=label({"disk": s.DoesNotExist(), "zone": s.NotIn("h")})),
        place(ray, scheduling_strategy=label({"zone": s.In("b")}, soft={"disk": s.Exists()})),
        place(ray, scheduling_strategy=label({"ray.io/node-id": s.In(id_of(ray, "two"))})),
    ]


@program("scheduling/node-labels")
def labels_that_no_node_has_wait(ray):
    s = strategies_of(ray)
    refs = [
        ray.remote(where)
        .options(scheduling_strategy=s.NodeLabelSchedulingStrategy({"zone": s.In("z")}))
        .remote(ray.__name__),
        ray.remote(where).options(label_selector={"zone": "z"}).remote(ray.__name__),
    ]
    waits = [len(ray.wait([ref], timeout=1)[0]) for ref in refs]
    for ref in refs:
        ray.cancel(ref)
    return waits


@program("scheduling/label-selectors")
def label_selectors_choose_the_node(ray):
    selectors = [
        {"zone": "a"},
        {"zone": "in(b,c)"},
        {"zone": "!in(a,h)"},
        {"disk": "ssd"},
        {"disk": "!ssd", "zone": "!h"},
    ]
    return [place(ray, label_selector=selector) for selector in selectors]


@program("scheduling/label-selectors")
def spaces_in_a_selector_count(ray):
    return place(ray, label_selector={"zone": "!in(a, h,b)"})


@program("scheduling/label-selectors")
def label_selectors_of_actors(ray):
    actors = [ray.remote(Actor).options(label_selector={"zone": zone}).remote() for zone in ("a", "!in(a,h)")]
    return [names(ray)[ray.get(actor.where.remote(ray.__name__), timeout=30)] for actor in actors]


@program("scheduling/label-selectors")
def fallbacks_of_selectors(ray):
    def run(selector, *fallbacks, **options):
        fallback = [{"label_selector": entry} for entry in fallbacks]
        return place(ray, label_selector=selector, fallback_strategy=fallback, **options)

    return [
        run({"zone": "z"}, {"zone": "b"}),
        run({"zone": "z"}, {"zone": "y"}, {"zone": "a"}),
        run({"zone": "b"}, {"zone": "a"}),
    ]


@program("scheduling/label-selectors")
def selectors_that_are_refused(ray):
    task = ray.remote(where)
    return [
        outcome(lambda: task.options(label_selector=selector).remote(ray.__name__))
        for selector in ({"zone": "a b"}, {"zo ne": "a"}, {"zone": "in()"}, {"zone": "!!a"}, ["zone"])
    ] + [
        outcome(lambda: task.options(fallback_strategy=value).remote(ray.__name__))
        for value in ([{}], [{"zone": "a"}], [1], {"label_selector": {}}, [{"label_selector": "a"}])
    ]


@program("scheduling/spread")
def spread_tasks_use_all_nodes(ray):
    settle(ray)
    task = ray.remote(where).options(scheduling_strategy="SPREAD")
    nodes = {names(ray)[node] for node in ray.get([task.remote(ray.__name__, 2) for _ in range(3)], timeout=30)}
    return len(nodes) >= 2


@program("scheduling/spread")
def spread_actors_use_all_nodes(ray):
    settle(ray)
    made = [ray.remote(Actor).options(scheduling_strategy="SPREAD", num_cpus=1).remote() for _ in range(3)]
    nodes = ray.get([actor.where.remote(ray.__name__) for actor in made], timeout=30)
    answer = len(set(nodes)) >= 2
    for actor in made:
        ray.kill(actor)
    return answer


@program("scheduling/default")
def five_tasks_fill_five_cpus(ray):
    settle(ray)
    refs = [ray.remote(where).remote(ray.__name__, 2) for _ in range(5)]
    return sorted(names(ray)[node] for node in ray.get(refs, timeout=30))


@program("scheduling/locality")
def a_task_runs_where_its_large_argument_lies(ray):
    @ray.remote(num_cpus=0)
    def make():
        return bytes(10_000_000)

    @ray.remote
    def use(data, ray_name):
        return [len(data), where(ray_name)]

    answers = []
    for name in ("one", "two"):
        data = make.options(resources={name: 0.1}).remote()
        ray.wait([data], fetch_local=False)
        settle(ray)
        size, node = ray.get(use.remote(data, ray.__name__), timeout=30)
        answers.append([size, names(ray)[node] == name])
    return answers


@program("cluster/node-resources")
def the_resource_of_a_node_address(ray):
    row = ray.nodes()[0]
    name = f"node:{row['NodeManagerAddress']}"
    inside = place(ray, resources={"node:__internal_head__": 0.001})
    return [name in row["Resources"], row["Resources"][name], bool(place(ray, resources={name: 0.01})), inside]


@program("scheduling/accelerators")
def accelerator_types_that_no_node_has_wait(ray):
    ref = ray.remote(where).options(accelerator_type="V100").remote(ray.__name__)
    waits = len(ray.wait([ref], timeout=1)[0])
    ray.cancel(ref)
    return waits


@program("scheduling/placement-group-nodes")
def where_bundles_go(ray):
    settle(ray)
    answers = {}
    for strategy, bundles in (
        ("STRICT_SPREAD", [{"CPU": 1}] * 3),
        ("SPREAD", [{"CPU": 1}] * 3),
        ("STRICT_PACK", [{"CPU": 1}] * 2),
        ("PACK", [{"CPU": 1}] * 2),
        ("PACK", [{"CPU": 2}] * 2),
    ):
        group = ray.util.placement_group(bundles, strategy=strategy)
        made = group.wait(20)
        nodes = list(ray.util.placement_group_table(group)["bundles_to_node_id"].values())
        answers[f"{strategy} {len(bundles)} x {bundles[0]['CPU']}"] = [made, len(set(nodes))]
        ray.util.remove_placement_group(group)
        settle(ray)
    return answers


@program("scheduling/placement-group-nodes")
def groups_that_no_nodes_can_hold(ray):
    settle(ray)
    answers = []
    for strategy, bundles in (
        ("STRICT_SPREAD", [{"CPU": 1}] * 4),
        ("STRICT_PACK", [{"CPU": 1}] * 3),
        ("PACK", [{"CPU": 3}]),
    ):
        group = ray.util.placement_group(bundles, strategy=strategy)
        until(lambda group=group: ray.util.placement_group_table(group)["stats"]["scheduling_state"] != "QUEUED")
        row = ray.util.placement_group_table(group)
        answers.append([strategy, row["state"], row["stats"]["scheduling_state"]])
        ray.util.remove_placement_group(group)
    return answers


@program("scheduling/placement-group-nodes")
def tasks_run_on_the_nodes_of_their_bundles(ray):
    settle(ray)
    group = ray.util.placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
    group.wait(20)
    strategy = strategies_of(ray).PlacementGroupSchedulingStrategy
    nodes = ray.util.placement_group_table(group)["bundles_to_node_id"]
    refs = [
        ray.remote(where).options(scheduling_strategy=strategy(group, index)).remote(ray.__name__) for index in range(3)
    ]
    answer = [nodes[index] == node for index, node in enumerate(ray.get(refs, timeout=30))]
    ray.util.remove_placement_group(group)
    return answer


@program("scheduling/placement-group-nodes")
def a_soft_target_of_a_strict_pack(ray):
    settle(ray)
    answers = []
    for name, cpus in (("two", 1), ("one", 2), ("head", 2)):
        target = id_of(ray, name)
        group = ray.util.placement_group([{"CPU": cpus}], strategy="STRICT_PACK", _soft_target_node_id=target)
        group.wait(20)
        answers.append(ray.util.placement_group_table(group)["bundles_to_node_id"][0] == target)
        ray.util.remove_placement_group(group)
        settle(ray)
    return answers


@program("scheduling/placement-group-labels")
def labels_of_bundles_choose_nodes(ray):
    settle(ray)
    group = ray.util.placement_group([{"CPU": 1}, {"CPU": 1}], bundle_label_selector=[{"zone": "b"}, {"zone": "in(a)"}])
    group.wait(20)
    nodes = ray.util.placement_group_table(group)["bundles_to_node_id"].values()
    answer = [names(ray)[node] for node in nodes]
    ray.util.remove_placement_group(group)
    return answer


@program("cluster/nodes-join")
def pending_work_runs_when_a_node_joins(ray):
    waiting = ray.remote(where).options(resources={"three": 1}, num_cpus=0).remote(ray.__name__)
    group = ray.util.placement_group([{"three": 1, "CPU": 4}])
    before = [len(ray.wait([waiting], timeout=0.5)[0]), group.wait(0.2)]
    node = observe.cluster.add_node(num_cpus=4, resources={"three": 2})
    observe.cluster.wait_for_nodes()
    answer = [*before, names(ray)[ray.get(waiting, timeout=30)], group.wait(20)]
    ray.util.remove_placement_group(group)
    observe.cluster.remove_node(node)
    return [*answer, until(lambda: "three" not in ray.cluster_resources())]


@program("cluster/remove-node")
def a_node_dies_with_all_that_is_on_it(ray):
    node = observe.cluster.add_node(num_cpus=2, resources={"three": 4})
    observe.cluster.wait_for_nodes()
    node_id = id_of(ray, "three")
    ask = {"num_cpus": 0, "resources": {"three": 0.5}}
    restarts = ray.remote(Actor).options(max_restarts=1, max_task_retries=-1, **ask).remote()
    dies = ray.remote(Actor).options(**ask).remote()
    pids = ray.get([restarts.pid.remote(), dies.pid.remote()], timeout=30)
    once = ray.remote(where).options(max_retries=0, **ask).remote(ray.__name__, 1000)
    again = ray.remote(where).options(max_retries=1, **ask).remote(ray.__name__, 3)
    until(lambda: ray.available_resources().get("three", 0) <= 2)
    time.sleep(1)
    observe.cluster.remove_node(node, allow_graceful=False)
    lost = outcome(
        lambda: ray.get(once, timeout=60), "Task failed because the node it was running on is dead or unavailable."
    )
    until(lambda: not any(row["Alive"] and row["NodeID"] == node_id for row in ray.nodes()), 40)
    row = next(row for row in ray.nodes() if row["NodeID"] == node_id)
    ended = outcome(lambda: ray.get(dies.pid.remote(), timeout=30), "The actor died because its node has died.")
    other = observe.cluster.add_node(num_cpus=2, resources={"three": 4})
    answer = [
        lost,
        [row["Alive"], row["Resources"]],
        ended,
        names(ray)[ray.get(restarts.where.remote(ray.__name__), timeout=60)],
        names(ray)[ray.get(again, timeout=60)],
        [os.path.exists(f"/proc/{pid}") for pid in pids],
    ]
    observe.cluster.remove_node(other)
    return answer


@program("cluster/remove-node", "scheduling/placement-group-nodes")
def bundles_of_a_dead_node_go_elsewhere(ray):
    node = observe.cluster.add_node(num_cpus=2, resources={"three": 4})
    observe.cluster.wait_for_nodes()
    group = ray.util.placement_group([{"three": 1}, {"CPU": 1, "two": 0.1}], strategy="STRICT_SPREAD")
    group.wait(20)
    before = [names(ray)[node] for node in ray.util.placement_group_table(group)["bundles_to_node_id"].values()]
    observe.cluster.remove_node(node, allow_graceful=False)
    until(lambda: ray.util.placement_group_table(group)["state"] == "RESCHEDULING", 40)
    state = ray.util.placement_group_table(group)["state"]
    other = observe.cluster.add_node(num_cpus=2, resources={"three": 4})
    until(lambda: ray.util.placement_group_table(group)["state"] == "CREATED")
    after = [names(ray)[node] for node in ray.util.placement_group_table(group)["bundles_to_node_id"].values()]
    ray.util.remove_placement_group(group)
    observe.cluster.remove_node(other)
    return [before, state, after]


@program("cluster/cluster-object")
def the_object_of_a_cluster(ray):
    cluster = observe.cluster
    head = cluster.head_node
    other = importlib.import_module(f"{ray.__name__}.cluster_utils").Cluster()
    return [
        [type(cluster.worker_nodes).__name__, len(cluster.worker_nodes), len(cluster.list_all_nodes())],
        [cluster.list_all_nodes()[0] is head, head.is_head(), head in cluster.worker_nodes],
        [node.is_head() for node in cluster.worker_nodes],
        [cluster.address == cluster.gcs_address, cluster.address.count(":")],
        cluster.remaining_processes_alive(),
        cluster.wait_for_nodes(),
        names(ray)[head.node_id],
        [other.address, other.head_node, other.list_all_nodes()],
        outcome(lambda: type(other)(connect=True)),
    ]
