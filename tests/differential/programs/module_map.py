"""What libraries and test suites take from Ray's other modules: global worker, tables, test helpers, task graphs."""

# mypy: ignore-errors
from __future__ import annotations

import importlib
import os

from ..catalog import program
from ..observe import outcome

AREA = "module-map"
SESSION = {"num_cpus": 3}


def module(ray, name):
    """One of Ray's modules by its name."""
    return importlib.import_module(f"{ray.__name__}.{name}")


class Row:
    """An actor of the table."""

    def ping(self):
        """The process that it lives in."""
        return os.getpid()


@program("module-map/global-worker")
def the_global_worker_of_a_driver(ray):
    worker = module(ray, "_private.worker").global_worker
    context = ray.get_runtime_context()
    return [
        worker.mode == ray.SCRIPT_MODE == 0,
        worker.connected,
        worker.current_job_id.hex() == context.get_job_id(),
        worker.current_node_id.hex() == context.get_node_id() == worker.node.node_id,
        len(worker.worker_id),
        worker.actor_id.is_nil(),
        worker.placement_group_id.is_nil(),
        worker.namespace == context.namespace,
        worker.task_depth,
        worker.node.is_head(),
        worker.node.address == worker.node.gcs_address == context.gcs_address,
        type(worker.current_task_id).__name__,
        outcome(worker.check_connected),
        context.worker is worker,
    ]


@program("module-map/global-worker")
def the_global_worker_of_a_task(ray):
    name = ray.__name__

    @ray.remote
    def look():
        worker = importlib.import_module(f"{name}._private.worker").global_worker
        context = importlib.import_module(name).get_runtime_context()
        core = worker.core_worker
        return [
            worker.mode,
            worker.current_task_id.hex() == context.get_task_id() == core.get_current_task_id().hex(),
            worker.current_task_name,
            core.get_current_task_name(),
            worker.task_depth,
            core.get_worker_id().hex() == context.get_worker_id(),
            worker.actor_id.is_nil(),
        ]

    return ray.get(look.remote())


@program("module-map/global-worker")
def reference_counts_of_the_core_worker(ray):
    core = module(ray, "_private.worker").global_worker.core_worker
    ref = ray.put(1)
    again = ref
    key = ref.hex().encode()
    counts = [core.get_all_reference_counts()[key], core.object_exists(ref)]
    del ref, again
    return [*counts, key in core.get_all_reference_counts()]


@program("module-map/tables")
def the_table_of_actors(ray):
    actors = module(ray, "_private.state").actors
    actor = ray.remote(Row).options(name="in the table").remote()
    pid = ray.get(actor.ping.remote())
    row = actors(actor._actor_id.hex())
    return [
        [row[key] for key in ("ActorClassName", "IsDetached", "Name", "State", "NumRestarts")],
        row["Pid"] == pid,
        row["JobID"] == ray.get_runtime_context().get_job_id(),
        row["Address"]["NodeID"] == ray.get_runtime_context().get_node_id(),
        sorted(row),
        outcome(lambda: actors(actor_state_name="NONE")),
    ]


@program("module-map/tables")
def the_tables_of_jobs_and_resources(ray):
    state = module(ray, "_private.state")
    (job,) = state.jobs()
    node = ray.get_runtime_context().get_node_id()
    return [
        sorted(job),
        job["IsDead"],
        state.total_resources_per_node()[node]["CPU"],
        sorted(state.available_resources_per_node()) == [node],
        type(state.next_job_id()).__name__,
        len(state.node_ids()),
    ]


@program("module-map/test-helpers")
def waiting_for_a_condition(ray):
    wait_for_condition = module(ray, "_common.test_utils").wait_for_condition

    def fails():
        raise KeyError("k")

    late = outcome(lambda: wait_for_condition(fails, timeout=0.2))
    return [
        outcome(lambda: wait_for_condition(lambda x: x == 1, x=1)),
        outcome(lambda: wait_for_condition(lambda: False, timeout=0.2)),
        outcome(lambda: wait_for_condition(fails, timeout=0.2, raise_exceptions=True)),
        str(late).count("The condition wasn't met before the timeout expired. Last exception: Traceback"),
    ]


@program("module-map/test-helpers")
def a_signal_and_a_semaphore(ray):
    helpers = module(ray, "_common.test_utils")
    signal, semaphore = helpers.SignalActor.remote(), helpers.Semaphore.remote(value=1)
    waiting = [signal.wait.remote() for _ in range(3)]
    helpers.wait_for_condition(lambda: ray.get(signal.cur_num_waiters.remote()) == 3)
    before = len(ray.wait(waiting, num_returns=3, timeout=0.1)[0])
    ray.get(signal.send.remote())
    ray.get(semaphore.acquire.remote())
    locked = ray.get(semaphore.locked.remote())
    second = semaphore.acquire.remote()
    held = len(ray.wait([second], timeout=0.1)[0])
    ray.get(semaphore.release.remote())
    return [before, ray.get(waiting), locked, held, ray.get(second), ray.get(signal.wait.remote(should_wait=False))]


@program("module-map/test-helpers")
def small_helpers(ray):
    helpers, utils = module(ray, "_private.test_utils"), module(ray, "_common.utils")
    network = module(ray, "_common.network_utils")
    return [
        helpers.generate_system_config_map(a=1),
        helpers.same_elements([1, 2], [2, 1]),
        [helpers.convert_actor_state(number) for number in range(5)],
        helpers.client_test_enabled(),
        outcome(
            lambda: helpers.wait_until_succeeded_without_exception(lambda: 1 / 0, (ZeroDivisionError,), timeout_ms=1)
        ),
        network.build_address("::1", 5),
        network.parse_address("[::1]:5"),
        network.parse_address("none"),
        utils.resources_from_ray_options({"num_cpus": 1, "num_gpus": None, "resources": {"a": 2}, "memory": 5}),
        outcome(lambda: utils.resources_from_ray_options({"resources": {"CPU": 2}})),
        outcome(lambda: utils.decode("text")),
        outcome(lambda: utils.load_class("x")),
    ]


@program("module-map/dag")
def a_graph_of_tasks_and_its_input(ray):
    dag = module(ray, "dag")

    @ray.remote
    def add(x, y=1):
        return x + y

    with dag.InputNode() as given:
        graph = add.bind(add.bind(given[0], given[1]), given.key)
        whole = add.bind(given, y=2)
    return [
        ray.get(add.bind(add.bind(1), y=add.bind(2, 3)).execute()),
        ray.get(graph.execute(5, 6, key=7)),
        ray.get(whole.execute(5)),
        ray.get(dag.MultiOutputNode([add.bind(1), add.bind(2)]).execute()),
        outcome(lambda: dag.MultiOutputNode(1)),
        outcome(lambda: dag.InputNode(1)),
        outcome(lambda: dag.InputNode().execute()),
        add.options(name="x", num_cpus=2).bind(1).get_options(),
        add.bind(1, y=2).get_args(),
        add.bind(1, y=2).get_kwargs(),
    ]


@program("module-map/dag")
def a_graph_with_actors(ray):
    @ray.remote
    class Counter:
        def __init__(self, n=0):
            self.n = n

        def add(self, k):
            self.n += k
            return self.n

    node = Counter.bind(10)
    node.add.bind(1)
    node.add.bind(2)
    last = node.add.bind(0)
    living = Counter.remote(1)
    bound = living.add.bind(3)
    return [
        [ray.get(last.execute()) for _ in range(2)],
        [ray.get(bound.execute()) for _ in range(2)],
        last.get_method_name(),
        outcome(lambda: node.add.remote),
        type(node.execute()).__name__,
    ]


@program("module-map/dag")
def a_node_runs_once_and_nodes_inside_of_containers_are_refs(ray):
    @ray.remote
    def draw():
        import random

        return random.random()

    @ray.remote
    def same(x, y):
        return x == y

    @ray.remote
    def keep(values):
        return [type(values[0]).__name__, type(values[1]["a"]).__name__]

    node = draw.bind()
    return [ray.get(same.bind(node, node).execute()), ray.get(keep.bind([draw.bind(), {"a": draw.bind()}]).execute())]


@program("module-map/locations")
def where_objects_are(ray):
    locate = module(ray, "experimental").get_object_locations
    large = ray.put(b"x" * 1_000_000)
    found = locate([large])[large]
    return [
        found["node_ids"] == [ray.get_runtime_context().get_node_id()],
        1_000_000 <= found["object_size"] < 1_002_000,
        found["did_spill"],
        sorted(found),
    ]


@program("module-map/names")
def names_of_the_top_level_and_the_client(ray):
    return [
        [ray.SCRIPT_MODE, ray.WORKER_MODE, ray.SPILL_WORKER_MODE, ray.RESTORE_WORKER_MODE],
        module(ray, "util.client").ray.is_connected(),
        module(ray, "util.client").num_connected_contexts(),
        module(ray, "_raylet").ObjectRef is ray.ObjectRef,
        module(ray, "_raylet").STREAMING_GENERATOR_RETURN,
        module(ray, "util").get_node_instance_id(),
        outcome(lambda: module(ray, "experimental").set_resource("a", 1)),
        [hasattr(ray, name) for name in ("client", "ClientBuilder", "java_function", "no_such_name")],
    ]
