"""Options of tasks: which are taken, which are refused, and with which words."""

# mypy: ignore-errors
from __future__ import annotations

import re

from ..catalog import program
from ..observe import outcome

AREA = "tasks"
SESSION = {"num_cpus": 2}


def plain():
    return 1


def short(answer):
    """An answer whose text does not spell out the list of all options."""
    if "text" in answer:
        answer["text"] = re.sub(r"\['[a-z_', ]{80,}\]", "[...]", answer["text"])
    return answer


def both_ways(ray, text="full", **options):
    """What the decorator and what `.options()` says to these options: one answer if they agree."""
    decorated = short(outcome(lambda: bool(ray.remote(**options)(plain)), text))
    by_options = short(outcome(lambda: bool(ray.remote(plain).options(**options)), text))
    return decorated if decorated == by_options else [decorated, by_options]


@program("tasks/option-types")
def max_retries_of_wrong_type(ray):
    return [both_ways(ray, max_retries=value) for value in (1.5, "3", [1])]


@program("tasks/option-values")
def max_retries_out_of_range(ray):
    return [both_ways(ray, max_retries=value) for value in (-2, -1, 0, None)]


@program("tasks/option-types", "tasks/option-values")
def max_calls_values(ray):
    return [both_ways(ray, max_calls=value) for value in (-1, "1", 2.0, None, 0, 1)]


@program("tasks/option-types", "tasks/option-values")
def num_returns_values(ray):
    return [both_ways(ray, num_returns=value) for value in (-1, 1.0, [2], 0, None, "streaming", "dynamic")] + [
        both_ways(ray, "none", num_returns="many")
    ]


@program("tasks/option-types", "tasks/option-resources")
def num_cpus_values(ray):
    return [both_ways(ray, num_cpus=value) for value in (-1, "1", [1], 0, 0.5, None, True)]


@program("tasks/option-resources")
def num_gpus_values(ray):
    return [both_ways(ray, num_gpus=value) for value in (-1, "1", 0, 0.5, 1.5, 2, None)]


@program("tasks/option-resources")
def precision_of_quantities(ray):
    return [
        both_ways(ray, num_gpus=0.00001),
        both_ways(ray, num_cpus=0.00001),
        both_ways(ray, num_cpus=0.0001),
        both_ways(ray, resources={"custom": 0.00001}),
        both_ways(ray, num_gpus=0.12345),
    ]


@program("tasks/option-resources")
def resources_values(ray):
    given = [
        {"CPU": 1},
        {"GPU": 1},
        {"memory": 1},
        {"custom": -1},
        {"custom": 1},
        {"custom": 0},
        {"custom": 1.5},
        {"object_store_memory": 1},
        ["custom"],
        "custom",
        {},
        None,
    ]
    return [both_ways(ray, resources=value) for value in given] + [both_ways(ray, "none", resources={"custom": "1"})]


@program("tasks/option-resources")
def resources_of_wrong_key(ray):
    return [both_ways(ray, resources={1: 1}), both_ways(ray, resources={"": 1})]


@program("tasks/option-types", "tasks/option-values")
def memory_values(ray):
    return [both_ways(ray, memory=value) for value in (-1, "1GB", 0, 1.5, 10**6, None)]


@program("tasks/option-types")
def retry_exceptions_values(ray):
    given = (
        True,
        False,
        [ValueError],
        (ValueError,),
        [ValueError, "KeyError"],
        "ValueError",
        ValueError,
        [],
        1,
        [1],
        None,
    )
    return [both_ways(ray, retry_exceptions=value) for value in given]


@program("tasks/option-types")
def name_values(ray):
    return [both_ways(ray, name=value) for value in ("a name", "", 1, b"name", None)]


@program("tasks/option-types")
def runtime_env_values(ray):
    return [both_ways(ray, runtime_env=value) for value in ({}, {"env_vars": {"A": "b"}}, None, "env", 1)]


@program("tasks/option-types")
def scheduling_strategy_values(ray):
    return [both_ways(ray, scheduling_strategy=value) for value in ("DEFAULT", "SPREAD", "OTHER", 1, None)]


@program("tasks/option-types", "tasks/option-values")
def label_selector_values(ray):
    given = (
        {"region": "us"},
        {"region": "!us"},
        {"region": "in(us, eu)"},
        {"region": "!in(us)"},
        {},
        None,
        "region=us",
        {"region": "in()"},
        {"region": "a b"},
        {"region": "!"},
        {"-region": "us"},
        {"region": "-us-"},
        {"example.com/region": "us"},
        {"region": "x" * 64},
    )
    wrong_types = ({"region": 1}, {1: "us"})
    return [both_ways(ray, label_selector=value) for value in given] + [
        both_ways(ray, "none", label_selector=value) for value in wrong_types
    ]


@program("tasks/option-types")
def accelerator_type_values(ray):
    return [both_ways(ray, accelerator_type=value) for value in ("A100", "unknown kind", 1, None)]


@program("tasks/option-types")
def metadata_values(ray):
    return [both_ways(ray, _metadata=value) for value in ({"key": "value"}, None, "text", {1: 2})]


@program("tasks/option-types")
def other_option_values(ray):
    return [
        both_ways(ray, enable_task_events=False),
        both_ways(ray, enable_task_events="no"),
        both_ways(ray, _labels={"a": "b"}),
        both_ways(ray, _generator_backpressure_num_objects=5),
        both_ways(ray, _generator_backpressure_num_objects=0),
        both_ways(ray, _generator_backpressure_num_objects=-1),
        both_ways(ray, fallback_strategy=[{"label_selector": {"a": "b"}}]),
        both_ways(ray, fallback_strategy="none"),
        both_ways(ray, fallback_strategy=[]),
    ]


@program("tasks/option-types")
def placement_group_options(ray):
    return [
        both_ways(ray, placement_group="default"),
        both_ways(ray, placement_group=None),
        both_ways(ray, placement_group_bundle_index=-1),
        both_ways(ray, placement_group_capture_child_tasks=False),
    ]


@program("tasks/option-unknown")
def unknown_options(ray):
    return [both_ways(ray, no_such_option=1), both_ways(ray, num_cpu=1), both_ways(ray, timeout_s=1)]


@program("tasks/option-unknown")
def positional_options(ray):
    return [
        short(outcome(lambda: ray.remote(1))),
        short(outcome(lambda: ray.remote(plain, num_cpus=1))),
        outcome(lambda: ray.remote(plain).options(1), text="none"),
    ]


@program("tasks/option-actor-only")
def options_that_only_actors_take(ray):
    only_actors = {
        "max_restarts": 1,
        "max_task_retries": 1,
        "max_concurrency": 2,
        "max_pending_calls": 5,
        "concurrency_groups": {"io": 1},
        "lifetime": "detached",
        "get_if_exists": True,
        "namespace": "space",
        "allow_out_of_order_execution": True,
        "object_store_memory": 10**8,
    }
    return {name: both_ways(ray, **{name: value}) for name, value in only_actors.items()}


@program("tasks/empty-parentheses")
def empty_parentheses(ray):
    return [
        short(outcome(lambda: ray.remote())),
        short(outcome(lambda: ray.remote()(plain))),
        outcome(lambda: ray.get(ray.remote(plain).options().remote())),
    ]


@program("tasks/remote-targets", "concurrency/async-functions")
def coroutine_functions(ray):
    async def coroutine():
        return 1

    def define():
        return ray.remote(coroutine)

    return [outcome(define), outcome(lambda: ray.remote(num_cpus=1)(coroutine))]


@program("tasks/remote-targets")
def targets_that_are_no_functions(ray):
    return [short(outcome(lambda value=value: ray.remote(value))) for value in (5, "text", None, [plain])]


@program("tasks/remote-targets")
def decorating_twice(ray):
    once = ray.remote(plain)
    return [outcome(lambda: bool(ray.remote(once))), outcome(lambda: bool(ray.remote(num_cpus=1)(once)))]


@program("tasks/option-values", "tasks/options")
def options_that_are_accepted_and_work(ray):
    function = ray.remote(plain)
    given = [
        {"num_cpus": 0},
        {"num_cpus": 0.25, "memory": 10**6},
        {"max_retries": -1, "retry_exceptions": [ValueError]},
        {"name": "a name"},
        {"scheduling_strategy": "SPREAD"},
        {"runtime_env": {}},
        {"enable_task_events": False},
        {"num_returns": 1},
    ]
    return ray.get([function.options(**options).remote() for options in given])
