"""ray.util.state: what it says of tasks, actors, workers, nodes, objects and jobs; filters and limits; the timeline."""

# mypy: ignore-errors
from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import signal
import tempfile
import time
import warnings

from ..catalog import program
from ..observe import error_answer, outcome, until

AREA = "state"
#: Ray answers these questions by way of its dashboard.
SESSION = {"num_cpus": 3, "namespace": "there", "resources": {"custom": 2}, "include_dashboard": True}


def state(ray):
    """`ray.util.state`; it is to ask this session, whatever else runs on the machine."""
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    return importlib.import_module(f"{ray.__name__}.util.state")


def common(ray):
    return importlib.import_module(f"{ray.__name__}.util.state.common")


def rows_of(ray, name, ended=True, **options):
    """The rows of the tasks with this name, once they are there (and ended)."""
    module = state(ray)
    found = []

    def there():
        found[:] = module.list_tasks(filters=[("name", "=", name)], limit=1000, **options)
        return found and (not ended or all(row.state in ("FINISHED", "FAILED") for row in found))

    until(there)
    return found


def state_of(ray, name, wanted):
    """Whether the only task with this name comes to this state."""
    module = state(ray)
    return until(lambda: [row.state for row in module.list_tasks(filters=[("name", "=", name)])] == [wanted])


def echo_in(ray):
    @ray.remote
    def echo(value=1):
        return value

    return echo


def sleep_in(ray):
    @ray.remote
    def sleep(seconds):
        time.sleep(seconds)

    return sleep


def actor_in(ray):
    @ray.remote(num_cpus=0)
    class Actor:
        def pid(self):
            return os.getpid()

        def fail(self):
            raise RuntimeError("wrong")

        def leave(self):
            ray.actor.exit_actor()

    return Actor


def wait_error(ray, ref):
    return outcome(lambda: ray.get(ref), text="none")["raises"]


# ---- the module ----


@program("state/lists")
def names_of_the_module(ray):
    module = state(ray)
    return {
        name: list(inspect.signature(getattr(module, name)).parameters)
        for name in sorted(module.__all__)
        if name != "StateApiClient"
    }


@program("state/lists")
def columns_of_each_kind(ray):
    module = common(ray)
    names = ("Actor", "PlacementGroup", "Node", "Worker", "Task", "Object", "RuntimeEnv", "ClusterEvent")
    answer = {}
    for name in names:
        schema = getattr(module, f"{name}State")
        answer[name] = [
            schema.list_columns(),
            schema.list_columns(detail=False),
            sorted(schema.filterable_columns()),
            [field.name for field in dataclasses.fields(schema)] == schema.list_columns(),
        ]
    return answer


@program("state/lists")
def kinds_and_options(ray):
    module = common(ray)
    return [
        [(item.name, item.value) for item in module.StateResource],
        [(item.name, item.value) for item in module.SummaryResource],
        [field.name for field in dataclasses.fields(module.ListApiOptions)],
        [field.name for field in dataclasses.fields(module.GetApiOptions)],
        [field.name for field in dataclasses.fields(module.SummaryApiOptions)],
        [module.ListApiOptions(timeout=seconds).timeout for seconds in (0, 1, 10, 30)],
        [module.DEFAULT_LIMIT, module.DEFAULT_RPC_TIMEOUT, module.RAY_MAX_LIMIT_FROM_API_SERVER],
    ]


@program("state/lists")
def rows_have_attributes_and_keys(ray):
    (row,) = state(ray).list_nodes()
    row["state_message"] = "changed"
    return [
        row.state == row["state"] == row.get("state"),
        row.get("nothing", 5),
        outcome(lambda: row["nothing"]),
        list(row.asdict()),
        row.state_message,
    ]


# ---- tasks ----


@program("state/task-states")
def a_task_that_has_finished(ray):
    ray.get(echo_in(ray).options(name="finished").remote())
    (row,) = rows_of(ray, "finished", detail=True)
    pids = {worker.pid for worker in state(ray).list_workers()}
    return [
        [row.state, row.type, row.func_or_class_name, row.attempt_number, row.actor_id, row.error_type],
        [row.error_message, row.language, row.required_resources, row.placement_group_id, row.job_id],
        [event["state"] for event in row.events],
        row.creation_time_ms <= row.start_time_ms <= row.end_time_ms,
        [row.worker_pid in pids, row.node_id == ray.get_runtime_context().get_node_id()],
        row.parent_task_id == ray.get_runtime_context().get_task_id() or row.parent_task_id == "f" * 40 + "01000000",
        [row.label_selector, row.call_site, row.is_debugger_paused],
    ]


@program("state/task-states")
def without_detail_the_columns_for_details_are_none(ray):
    ray.get(echo_in(ray).options(name="plain").remote())
    (row,) = rows_of(ray, "plain")
    return [name for name, value in row.asdict().items() if value is None]


@program("state/task-states")
def tasks_that_raise(ray):
    @ray.remote(max_retries=0)
    def wrong():
        raise ValueError("no")

    wait_error(ray, wrong.remote())
    (row,) = rows_of(ray, "wrong", detail=True)
    return [row.state, row.error_type, row.error_message, [event["state"] for event in row.events]]


@program("state/task-states")
def each_attempt_is_a_row(ray):
    @ray.remote(max_retries=2, retry_exceptions=True)
    def stubborn():
        raise KeyError("again")

    ref = stubborn.remote()
    wait_error(ray, ref)
    until(lambda: len(rows_of(ray, "stubborn")) == 3)
    rows = state(ray).get_task(ref)
    return sorted([row.attempt_number, row.state, row.error_type] for row in rows)


@program("state/task-states")
def a_task_whose_worker_dies(ray):
    @ray.remote(max_retries=0)
    def crash():
        os._exit(3)

    wait_error(ray, crash.remote())
    (row,) = rows_of(ray, "crash", detail=True)
    return [row.state, row.error_type, row.attempt_number, row.end_time_ms is not None]


@program("state/task-states")
def a_task_that_was_cancelled_before_it_began(ray):
    ref = echo_in(ray).options(name="unwanted", resources={"custom": 5}).remote()
    ray.cancel(ref)
    wait_error(ray, ref)
    (row,) = rows_of(ray, "unwanted", detail=True)
    return [row.state, row.error_type, row.error_message, row.worker_id, row.worker_pid, row.required_resources]


@program("state/task-states")
def a_task_that_was_interrupted(ray):
    @ray.remote
    def spin(seconds):
        end = time.time() + seconds
        while time.time() < end:
            pass

    ref = spin.remote(30)
    state_of(ray, "spin", "RUNNING")
    ray.cancel(ref)
    wait_error(ray, ref)
    (row,) = rows_of(ray, "spin")
    return [row.state, row.error_type]


@program("state/task-states")
def a_task_that_fails_with_its_argument(ray):
    @ray.remote(max_retries=0)
    def bad():
        raise ValueError("no")

    wait_error(ray, echo_in(ray).options(name="dependent").remote(bad.remote()))
    (row,) = rows_of(ray, "dependent", detail=True)
    return [row.state, row.error_type, row.error_message]


@program("state/task-states")
def tasks_that_wait(ray):
    sleep, echo = sleep_in(ray), echo_in(ray)
    running = sleep.options(name="running").remote(8)
    after = echo.options(name="after").remote(running)
    nowhere = echo.options(name="nowhere", resources={"custom": 5}).remote()
    answer = [
        state_of(ray, "running", "RUNNING"),
        state_of(ray, "after", "PENDING_ARGS_AVAIL"),
        state_of(ray, "nowhere", "PENDING_NODE_ASSIGNMENT"),
    ]
    (row,) = rows_of(ray, "after", ended=False, detail=True)
    answer.append([[event["state"] for event in row.events], row.start_time_ms, row.worker_pid, row.node_id])
    ray.cancel(nowhere)
    ray.get(after)
    return [*answer, state_of(ray, "after", "FINISHED")]


@program("state/task-states")
def calls_that_wait_in_their_actor(ray):
    @ray.remote(num_cpus=0)
    class Sleeper:
        def nap(self, seconds):
            time.sleep(seconds)

    actor = Sleeper.remote()
    napping, waiting = actor.nap.options(name="napping").remote(8), actor.nap.options(name="waiting").remote(0)
    answer = [
        state_of(ray, "napping", "RUNNING"),
        state_of(ray, "waiting", "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"),
    ]
    ray.get([napping, waiting])
    (row,) = rows_of(ray, "waiting", detail=True)
    return [*answer, row.func_or_class_name, row.type, [event["state"] for event in row.events]]


@program("state/task-states")
def calls_of_actors_that_are_dead(ray):
    actor = actor_in(ray).remote()
    ray.get(actor.pid.remote())
    wait_error(ray, actor.fail.options(name="raises").remote())
    ray.kill(actor)
    wait_error(ray, actor.pid.options(name="too_late").remote())
    (raised,) = rows_of(ray, "raises", detail=True)
    (late,) = rows_of(ray, "too_late", detail=True)
    return [
        [raised.state, raised.error_type, raised.error_message.splitlines()[-1]],
        [late.state, late.error_type, "killed by `ray.kill`" in late.error_message],
    ]


@program("state/task-states")
def creation_tasks_have_the_name_of_their_actor(ray):
    actor = actor_in(ray).options(name="tasked").remote()
    ray.get(actor.pid.remote())

    @ray.remote(num_cpus=0)
    class Broken:
        def __init__(self):
            raise ValueError("no")

        def method(self):
            pass

    wait_error(ray, Broken.remote().method.remote())
    (row,) = rows_of(ray, "tasked:Actor.__init__", detail=True)
    (broken,) = rows_of(ray, "Broken.__init__", detail=True)
    return [
        [row.type, row.func_or_class_name, row.actor_id == actor._actor_id.hex(), row.state],
        [broken.state, broken.error_type, broken.error_message.startswith("CreationTaskError: User exception:")],
    ]


@program("state/task-states")
def calls_carry_the_repr_of_their_actor(ray):
    @ray.remote(num_cpus=0)
    class Person:
        def __repr__(self):
            return "Otto"

        def hello(self):
            pass

    actor = Person.remote()
    ray.get([actor.hello.remote(), actor.hello.options(name="own name").remote()])
    module, wanted = state(ray), [("actor_id", "=", actor._actor_id.hex()), ("type", "=", "ACTOR_TASK")]
    until(lambda: [row.state for row in module.list_tasks(filters=wanted)] == ["FINISHED"] * 2)
    return sorted([row.name, row.func_or_class_name] for row in module.list_tasks(filters=wanted))


@program("state/task-states")
def children_name_their_parent(ray):
    @ray.remote
    def child():
        return ray.get_runtime_context().get_task_id()

    @ray.remote
    def parent():
        return ray.get(child.remote())

    ref = parent.remote()
    child_id = ray.get(ref)
    until(lambda: state(ray).get_task(child_id))
    row = state(ray).get_task(child_id)
    return [row.name, row.parent_task_id == ref.task_id().hex(), state(ray).get_task("ab" * 24)]


# ---- filters, limits ----


@program("state/lists")
def filters_that_cannot_be(ray):
    module = state(ray)

    def refused(*given, what=module.list_tasks):
        answer = outcome(lambda: what(filters=list(given)), text="full")
        # The columns come as a set, in any order.
        answer["text"] = answer["text"].partition(" Supported filter columns")[0]
        return answer

    return [
        refused(("nope", "=", "x")),
        refused(("events", "=", "x")),
        refused(("worker_pid", "=", "x")),
        refused(("attempt_number", "!=", "x")),
        refused(("is_alive", "=", "x"), what=module.list_workers),
        refused(("actor_id", "=", "ab"), what=module.list_actors),
    ]


@program("state/lists")
def options_that_cannot_be(ray):
    module = state(ray)

    def refused(**options):
        try:
            module.list_tasks(**options)
        except ValueError:
            return "ValueError"
        except Exception as error:
            return error_answer(error)
        return None

    return [
        refused(filters=[("name", ">", "x")]),
        refused(filters=[("name", "x")]),
        refused(limit=100_000),
        refused(limit=-1),
        refused(limit=0),
    ]


@program("state/lists")
def what_filters_match(ray):
    ray.get([echo_in(ray).options(name="Matched").remote() for _ in range(3)])
    module = state(ray)
    until(lambda: len(rows_of(ray, "Matched")) == 3)
    (first, *_) = rows_of(ray, "Matched")

    def number(*filters):
        return len(module.list_tasks(filters=[("name", "=", "matched"), *filters], limit=1000))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        conflicting = module.list_tasks(filters=[("name", "=", "a"), ("name", "=", "b")])
    return [
        number(),
        number(("state", "=", "finished")),
        number(("state", "!=", "FINISHED")),
        number(("attempt_number", "=", "0")),
        number(("attempt_number", "=", 0)),
        number(("attempt_number", "!=", 0)),
        number(("task_id", "=", first.task_id)),
        number(("task_id", "!=", first.task_id)),
        number(("type", "=", "ACTOR_TASK")),
        conflicting,
        [str(item.message) for item in caught],
    ]


@program("state/lists")
def limits_limit_and_say_so(ray):
    ray.get([echo_in(ray).options(name="limited").remote() for _ in range(4)])
    until(lambda: len(rows_of(ray, "limited")) == 4)
    module = state(ray)
    wanted = [("name", "=", "limited")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        limited = module.list_tasks(filters=wanted, limit=3, _explain=True)
        objects = module.list_objects(limit=0)
    said = [str(item.message) for item in caught if issubclass(item.category, UserWarning)]
    return [len(limited), objects, said, len(module.list_tasks(filters=wanted, limit=0))]


@program("state/lists")
def clients_get_and_list(ray):
    module, words = state(ray), common(ray)
    client = module.StateApiClient()
    (node,) = client.list(words.StateResource.NODES, options=words.ListApiOptions(), raise_on_missing_output=False)
    got = client.get(words.StateResource.NODES, node.node_id, words.GetApiOptions())
    summary = client.summary(
        words.SummaryResource.ACTORS, options=words.SummaryApiOptions(), raise_on_missing_output=True
    )
    return [
        got.node_id == node.node_id,
        outcome(lambda: client.get(words.StateResource.RUNTIME_ENVS, "x", words.GetApiOptions())),
        list(summary),
        module.get_node("ab" * 28),
        module.get_worker("ab" * 28),
        module.get_objects("ab" * 28),
        module.get_job("nosuch"),
    ]


# ---- actors, workers, nodes, jobs, objects ----


@program("state/actors-workers")
def the_life_of_an_actor(ray):
    module = state(ray)
    actor = actor_in(ray).options(name="followed").remote()
    pid = ray.get(actor.pid.remote())
    actor_id = actor._actor_id.hex()
    until(lambda: module.get_actor(actor_id).state == "ALIVE")
    alive = module.get_actor(actor_id)
    answer = [
        [alive.class_name, alive.name, alive.ray_namespace, alive.pid == pid, alive.num_restarts, alive.is_detached],
        [alive.death_cause, alive.required_resources, alive.serialized_runtime_env, alive.placement_group_id],
        [alive.repr_name, alive.job_id, alive.label_selector, alive.call_site],
        alive.node_id == ray.get_runtime_context().get_node_id(),
    ]
    ray.kill(actor)
    until(lambda: module.get_actor(actor_id).state == "DEAD")
    dead = module.get_actor(actor_id)
    (kind,) = dead.death_cause
    context = dead.death_cause[kind]
    return [
        *answer,
        kind,
        [context[key] for key in ("error_message", "reason", "class_name", "name", "ray_namespace", "never_started")],
        context["pid"] == pid,
    ]


@program("state/actors-workers")
def actors_that_are_not_there_yet(ray):
    module = state(ray)
    Actor = actor_in(ray)
    blocked = echo_in(ray).options(resources={"custom": 5}).remote()

    @ray.remote(num_cpus=0)
    class Waiting:
        def __init__(self, value):
            pass

    waiting, unplaced = Waiting.remote(blocked), Actor.options(num_cpus=100, name="unplaced").remote()

    def state_is(wanted, *filters):
        return until(lambda: [row.state for row in module.list_actors(filters=list(filters))] == [wanted])

    answer = [
        state_is("DEPENDENCIES_UNREADY", ("class_name", "=", "actors_that_are_not_there_yet.<locals>.Waiting")),
        state_is("PENDING_CREATION", ("name", "=", "unplaced")),
    ]
    (row,) = module.list_actors(filters=[("name", "=", "unplaced")], detail=True)
    answer.append([row.node_id, row.pid, row.required_resources])
    ray.cancel(blocked)
    del waiting, unplaced
    return answer


@program("state/actors-workers")
def how_workers_have_ended(ray):
    module = state(ray)
    Actor = actor_in(ray)
    leaving, killed, crashed = Actor.remote(), Actor.remote(), Actor.remote()
    pids = ray.get([leaving.pid.remote(), killed.pid.remote(), crashed.pid.remote()])

    @ray.remote(num_cpus=0)
    class Broken:
        def __init__(self, path):
            with open(path, "w") as file:
                file.write(str(os.getpid()))
            raise ValueError("no")

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pid")
        broken = Broken.remote(path)
        wait_error(ray, broken.__ray_ready__.remote())
        with open(path) as file:
            pids.append(int(file.read()))
    wait_error(ray, leaving.leave.remote())
    ray.kill(killed)
    os.kill(pids[2], signal.SIGKILL)
    ended = {}

    def all_there():
        rows = module.list_workers(filters=[("is_alive", "=", "False")], detail=True, limit=1000)
        ended.update({row.pid: row for row in rows if row.pid in pids})
        return len(ended) == 4

    until(all_there)
    phrases = ("exit_actor() is called.", "killed by `ray.kill`", "connection error code 2", "initialization method")
    return [
        [[ended[pid].exit_type, ended[pid].worker_type, ended[pid].is_alive] for pid in pids],
        [phrase in ended[pid].exit_detail for pid, phrase in zip(pids, phrases, strict=True)],
        [ended[pid].start_time_ms <= ended[pid].end_time_ms for pid in pids],
    ]


@program("state/actors-workers")
def workers_and_the_driver(ray):
    module = state(ray)

    @ray.remote
    def own_pid():
        return os.getpid()

    pid = ray.get(own_pid.remote())
    until(lambda: pid in {row.pid for row in module.list_workers()})
    (worker,) = module.list_workers(filters=[("pid", "=", str(pid))], detail=True)
    drivers = module.list_workers(filters=[("worker_type", "=", "driver")])
    return [
        [worker.is_alive, worker.worker_type, worker.exit_type, worker.exit_detail, worker.end_time_ms],
        worker.node_id == ray.get_runtime_context().get_node_id(),
        [[row.pid == os.getpid(), row.is_alive] for row in drivers],
    ]


@program("state/lists")
def nodes_and_jobs(ray):
    module = state(ray)
    (node,) = module.list_nodes(detail=True)
    (job,) = module.list_jobs(filters=[("job_id", "=", ray.get_runtime_context().get_job_id())])
    return [
        [node.state, node.is_head_node, node.state_message, node.end_time_ms, node.start_time_ms > 0],
        [node.resources_total["CPU"], node.resources_total["custom"], node.labels["ray.io/node-id"] == node.node_id],
        node.node_id == ray.nodes()[0]["NodeID"],
        [job.type, job.status, job.submission_id, job.job_id, job.driver_info.pid == str(os.getpid())],
        job.driver_info.id,
    ]


@program("state/lists")
def objects_and_why_they_are_held(ray):
    module = state(ray)
    large, small = ray.put(b"x" * 1_000_000), ray.put(1)
    blocked = echo_in(ray).options(resources={"custom": 5}).remote(large)

    def why(ref):
        (row,) = [row for row in module.get_objects(ref.hex()) if row.type == "DRIVER"]
        return [row.reference_type, row.task_status, row.attempt_number, row.call_site, row.pid == os.getpid()]

    until(lambda: why(blocked)[1] == "PENDING_NODE_ASSIGNMENT")
    actor = actor_in(ray).remote()
    ray.get(actor.pid.remote())
    handle = actor._actor_id.hex()
    handles = [row.reference_type for row in module.list_objects(limit=1000) if handle in row.object_id]
    answer = [why(large), why(small), why(blocked), handles[:1]]
    (row,) = [row for row in module.get_objects(large.hex()) if row.type == "DRIVER"]
    ray.cancel(blocked)
    return [*answer, 1_000_000 <= row.object_size < 1_001_000]


@program("state/lists")
def summaries(ray):
    module = state(ray)
    ray.get([echo_in(ray).options(name="counted").remote() for _ in range(3)])
    actor = actor_in(ray).remote()
    ray.get(actor.pid.remote())
    until(
        lambda: module.summarize_tasks()["cluster"]["summary"].get("counted", {}).get("state_counts") == {"FINISHED": 3}
    )
    name = "actor_in.<locals>.Actor"
    until(lambda: name in module.summarize_actors()["cluster"]["summary"])
    tasks, actors = module.summarize_tasks()["cluster"], module.summarize_actors()["cluster"]
    objects = module.summarize_objects()["cluster"]
    return [
        tasks["summary"]["counted"],
        sorted(tasks),
        tasks["summary_by"],
        [sorted(actors), actors["summary_by"], actors["summary"][name]["class_name"]],
        [sorted(objects), objects["summary_by"], objects["callsite_enabled"], sorted(objects["summary"]["disabled"])],
    ]


@program("state/lists")
def logs_have_to_be_named(ray):
    module = state(ray)

    def refused(**what):
        try:
            list(module.get_log(**what))
        except ValueError:
            return "ValueError"
        except Exception as error:
            return error_answer(error, text="none")
        return None

    return [
        outcome(module.list_logs),
        refused(),
        refused(filename="x"),
        refused(node_id="ab"),
        refused(node_id="ab", node_ip="cd", filename="x"),
        refused(node_id="ab", filename="x", suffix="other"),
    ]


# ---- timeline ----


@program("state/timeline")
def the_timeline_is_a_chrome_trace(ray):
    ray.get([echo_in(ray).options(name="drawn").remote() for _ in range(2)])
    until(lambda: sum(event["cat"] == "task::drawn" for event in ray.timeline()) == 2, seconds=30)
    trace = ray.timeline()
    drawn = [event for event in trace if event["cat"] == "task::drawn"]
    kinds = {event["cat"] for event in trace}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        nothing = ray.timeline(filename=path)
        with open(path) as file:
            written = json.load(file)
    return [
        sorted(drawn[0]),
        [drawn[0]["ph"], drawn[0]["cname"], sorted(drawn[0]["args"]), drawn[0]["tid"].partition(":")[0]],
        [kind in kinds for kind in ("task:deserialize_arguments", "task:execute", "task:store_outputs")],
        all(event["ph"] == "X" and event["dur"] >= 0 for event in trace),
        nothing,
        isinstance(written, list) and len(written) >= len(drawn),
    ]


@program("state/timeline", fresh=True)
def without_a_session_nothing_is_known(ray):
    os.environ.pop("RAY_ADDRESS", None)
    return [outcome(ray.timeline)]
