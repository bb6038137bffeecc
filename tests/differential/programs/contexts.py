"""The runtime context, ids, and the names of the top level."""

# mypy: ignore-errors
from __future__ import annotations

import warnings

from ..catalog import program
from ..observe import outcome

AREA = "context"
SESSION = {
    "num_cpus": 3,
    "num_gpus": 2,
    "resources": {"custom": 2},
    "namespace": "a namespace",
    "labels": {"zone": "here"},
}

ID_GETTERS = ("get_node_id", "get_job_id", "get_task_id", "get_actor_id", "get_worker_id", "get_placement_group_id")


def shape(value):
    """The type of an id and its length."""
    return [type(value).__name__, len(value) if isinstance(value, str) else None]


def module_level(ray_name):
    """Its name and function name in a task."""
    import importlib

    context = importlib.import_module(ray_name).get_runtime_context()
    return [context.get_task_name(), context.get_task_function_name()]


@program("context/ids")
def ids_on_the_driver(ray):
    context = ray.get_runtime_context()
    return {name: shape(getattr(context, name)()) for name in ID_GETTERS}


@program("context/ids")
def ids_in_a_task(ray):
    @ray.remote
    def look():
        context = ray.get_runtime_context()
        return {name: getattr(context, name)() for name in ID_GETTERS}

    ref = look.remote()
    there, here = ray.get(ref), ray.get_runtime_context()
    return [
        {name: shape(value) for name, value in there.items()},
        there["get_task_id"] == ref.task_id().hex(),
        there["get_job_id"] == here.get_job_id(),
        there["get_node_id"] == here.get_node_id(),
        there["get_worker_id"] != here.get_worker_id(),
        ray.get(look.remote())["get_task_id"] != there["get_task_id"],
    ]


@program("context/ids")
def the_context_object(ray):
    context = ray.get_runtime_context()
    return [
        type(context).__name__,
        type(context).__module__.replace("miniray", "ray"),
        context is ray.get_runtime_context(),
        sorted(name for name in dir(context) if not name.startswith("_")),
    ]


@program("context/properties")
def deprecated_properties(ray):
    context = ray.get_runtime_context()
    answers = {}
    for name in ("node_id", "job_id", "task_id", "actor_id", "current_placement_group_id"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = outcome(lambda name=name: getattr(context, name))
        value = value.get("returns")
        answers[name] = [
            type(value).__name__,
            len(value.hex()) if hasattr(value, "hex") else None,
            [f"Use get_{name.replace('current_', '')}() instead" in str(warning.message) for warning in caught],
        ]
    return answers


@program("context/properties")
def deprecated_properties_in_a_task(ray):
    @ray.remote
    def look():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context = ray.get_runtime_context()
            return [
                context.task_id.hex() == context.get_task_id(),
                context.job_id.hex() == context.get_job_id(),
                context.node_id.hex() == context.get_node_id(),
                outcome(lambda: context.actor_id),
            ]

    return ray.get(look.remote())


@program("context/get")
def contexts_as_dicts(ray):
    @ray.remote
    def look():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {key: type(value).__name__ for key, value in ray.get_runtime_context().get().items()}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = {key: type(value).__name__ for key, value in ray.get_runtime_context().get().items()}
    return [here, ray.get(look.remote())]


@program("context/task-name")
def names_of_tasks(ray):
    @ray.remote
    def local():
        context = ray.get_runtime_context()
        return [context.get_task_name(), context.get_task_function_name()]

    context = ray.get_runtime_context()
    return [
        ray.get(local.remote()),
        ray.get(local.options(name="by options").remote()),
        ray.get(ray.remote(name="by decorator")(module_level).remote(ray.__name__)),
        ray.get(ray.remote(module_level).remote(ray.__name__)),
        [context.get_task_name(), context.get_task_function_name()],
    ]


@program("context/actor-name", "context/current-actor")
def actors_outside_of_actors(ray):
    def look():
        context = ray.get_runtime_context()
        return [
            context.get_actor_name(),
            context.get_actor_id(),
            outcome(lambda: context.current_actor),
        ]

    here = ray.get_runtime_context()
    reconstructed = outcome(lambda: here.was_current_actor_reconstructed, text="only available when the process is a")
    return [look(), ray.get(ray.remote(look).remote()), reconstructed]


@program("context/resources")
def assigned_resources(ray):
    @ray.remote
    def look():
        return ray.get_runtime_context().get_assigned_resources()

    return [
        ray.get(look.remote()),
        ray.get(look.options(num_cpus=2).remote()),
        ray.get(look.options(num_cpus=0.5, resources={"custom": 1.5}).remote()),
        ray.get(look.options(num_cpus=0).remote()),
        ray.get(look.options(num_gpus=0.5, memory=1_000_000).remote()),
        outcome(lambda: ray.get_runtime_context().get_assigned_resources(), text="none"),
    ]


@program("context/labels")
def labels_of_the_node(ray):
    def look():
        labels = ray.get_runtime_context().get_node_labels()
        return [
            labels.get("zone"),
            "ray.io/node-id" in labels,
            labels.get("ray.io/node-id") == ray.get_runtime_context().get_node_id(),
        ]

    return [look(), ray.get(ray.remote(look).remote()), ray.nodes()[0]["Labels"].get("zone")]


@program("context/accelerators")
def accelerator_ids(ray):
    @ray.remote
    def look():
        return counts()

    def counts():
        ids = ray.get_runtime_context().get_accelerator_ids()
        return {key: len(ids[key]) for key in ("GPU", "neuron_cores", "TPU", "HPU", "NPU")}

    return [
        ray.get(look.remote()),
        counts(),
    ]


@program("context/namespace")
def namespaces(ray):
    return [
        ray.get_runtime_context().namespace,
        ray.get(ray.remote(lambda: ray.get_runtime_context().namespace).remote()),
    ]


@program("context/canceled")
def canceled_or_not(ray):
    def look():
        return ray.get_runtime_context().is_canceled()

    return [outcome(look), outcome(lambda: ray.get(ray.remote(look).remote()), text="last")]


@program("context/session")
def the_name_of_the_session(ray):
    def look():
        return ray.get_runtime_context().get_session_name()

    here = look()
    return [here.startswith("session_"), here == ray.get(ray.remote(look).remote())]


@program("context/runtime-env")
def runtime_envs(ray):
    @ray.remote
    def look():
        context = ray.get_runtime_context()
        return [
            type(context.runtime_env).__name__,
            context.runtime_env.get("env_vars"),
            context.get_runtime_env_string(),
        ]

    context = ray.get_runtime_context()
    return [
        [type(context.runtime_env).__name__, dict(context.runtime_env), context.get_runtime_env_string()],
        ray.get(look.remote()),
        ray.get(look.options(runtime_env={"env_vars": {"A": "b"}}).remote()),
    ]


@program("context/ids")
def other_parts_of_the_context(ray):
    context = ray.get_runtime_context()
    return [
        context.worker is not None,
        type(context.gcs_address).__name__,
        outcome(lambda: context.should_capture_child_tasks_in_placement_group),
        outcome(lambda: context.get_placement_group_id()),
    ]


ID_KINDS = (
    "JobID",
    "ActorID",
    "TaskID",
    "ObjectID",
    "NodeID",
    "WorkerID",
    "FunctionID",
    "ActorClassID",
    "UniqueID",
    "PlacementGroupID",
    "ClusterID",
)


@program("ids/sizes", "ids/conversions")
def sizes_and_conversions_of_ids(ray):
    answers = {}
    for name in ID_KINDS:
        kind = getattr(ray, name)
        size = kind.size()
        value = kind(b"\1" * size)
        answers[name] = [
            size,
            [value.binary() == b"\1" * size, value.hex(), value.is_nil(), value.size()],
            [repr(value), str(value), type(value).__name__],
            outcome(lambda kind=kind, size=size: kind.from_hex("02" * size).hex(), text="none"),
            outcome(lambda kind=kind, size=size: kind.from_binary(b"\3" * size).hex(), text="none"),
            outcome(lambda kind=kind: kind.nil().is_nil(), text="none"),
            outcome(lambda kind=kind: kind.nil().hex(), text="none"),
            outcome(lambda kind=kind: len(kind.from_random().binary()), text="none"),
        ]
    return answers


@program("ids/wrong-bytes")
def wrong_bytes_for_ids(ray):
    answers = {}
    for name in ID_KINDS:
        kind = getattr(ray, name)
        answers[name] = [
            outcome(lambda kind=kind: kind(b"short")),
            outcome(lambda kind=kind: kind("a string" * 4), text="none"),
            outcome(lambda kind=kind: kind(None), text="none"),
        ]
    return answers


@program("ids/equality")
def equality_of_ids(ray):
    a, b, c = ray.NodeID(b"\1" * 28), ray.NodeID(b"\1" * 28), ray.NodeID(b"\2" * 28)
    other = ray.WorkerID(b"\1" * 28)
    return [
        [a == b, a != b, a == c, a == other, hash(a) == hash(b), len({a, b, c, other})],
        [a == a.binary(), a == a.hex()],
        outcome(lambda: a < c, text="none"),
        outcome(lambda: setattr(a, "field", 1), text="none"),
    ]


@program("ids/pickle")
def ids_that_travel(ray):
    import pickle

    kinds = [getattr(ray, name) for name in ID_KINDS if name != "ObjectID"]
    values = [kind(b"\1" * kind.size()) for kind in kinds]
    there = ray.get(ray.remote(lambda ids: ids).remote(values))
    return [
        [pickle.loads(pickle.dumps(value)) == value, back == value, type(back).__name__]
        for value, back in zip(values, there, strict=True)
    ]


@program("ids/embedded")
def jobs_inside_ids(ray):
    job = ray.JobID.from_int(7)
    here = ray.get_runtime_context().get_job_id()
    ref = ray.put(1)
    return [
        [job.hex(), job.int() if hasattr(job, "int") else None, job.is_nil(), ray.JobID.nil().hex()],
        [ref.job_id().hex() == here, ref.task_id().hex() == ray.get_runtime_context().get_task_id()],
        outcome(lambda: ref.task_id().actor_id().is_nil(), text="none"),
        outcome(lambda: ray.TaskID(b"\1" * 24).job_id().hex(), text="none"),
        outcome(lambda: ray.ActorID(b"\1" * 12 + b"\7\0\0\0").job_id.hex(), text="none"),
        outcome(lambda: [ray.TaskID.for_fake_task(job).job_id().hex(), ray.TaskID.nil().is_nil()], text="none"),
    ]


@program("top-level/names")
def names_of_the_top_level(ray):
    names = set(ray.__all__)
    ours = {name for name in dir(ray) if not name.startswith("_")}
    core = [
        *(
            "available_resources",
            "cancel",
            "cluster_resources",
            "get",
            "get_actor",
            "get_gpu_ids",
            "get_runtime_context",
        ),
        *("init", "is_initialized", "kill", "method", "nodes", "put", "remote", "shutdown", "timeline", "wait"),
        *("ActorClassID", "ActorID", "NodeID", "JobID", "WorkerID", "FunctionID", "ObjectID", "ObjectRef", "TaskID"),
        *(
            "ObjectRefGenerator",
            "DynamicObjectRefGenerator",
            "UniqueID",
            "PlacementGroupID",
            "LoggingConfig",
            "Language",
        ),
        *("SCRIPT_MODE", "WORKER_MODE", "actor", "util", "exceptions", "cloudpickle", "runtime_context"),
        *("remote_function", "job_config", "runtime_env"),
    ]
    return [
        {name: [name in names, name in ours] for name in core},
        type(ray.__version__).__name__,
        type(ray.__all__).__name__,
    ]


@program("top-level/unknown")
def unknown_names_of_the_top_level(ray):
    return [outcome(lambda: ray.no_such_name, text="has no attribute 'no_such_name'"), hasattr(ray, "nothing")]


@program("top-level/names")
def modes_and_kinds(ray):
    return [ray.SCRIPT_MODE, ray.WORKER_MODE, ray.is_initialized(), type(ray.util.get_node_ip_address()).__name__]


@program("top-level/names")
def signatures_of_the_top_level(ray):
    import inspect

    answers = {}
    for name in (
        "get",
        "put",
        "wait",
        "kill",
        "cancel",
        "get_actor",
        "init",
        "shutdown",
        "is_initialized",
        "nodes",
        "timeline",
        "get_gpu_ids",
    ):
        parameters = [
            p for p in inspect.signature(getattr(ray, name)).parameters.values() if not p.name.startswith("_")
        ]
        answers[name] = [
            [p.name, p.kind.name, repr(p.default) if p.default is not p.empty else None] for p in parameters
        ]
    return answers
