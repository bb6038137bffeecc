"""Options of tasks and actors: what is refused, with Ray's words, and what follows from what is taken."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniray import options as o


@pytest.fixture
def strict() -> Iterator[None]:
    before = o.strict_mode()
    o.set_strict_mode(True)
    yield
    o.set_strict_mode(before)


@pytest.fixture(autouse=True)
def relaxed() -> Iterator[None]:
    before = o.strict_mode()
    o.set_strict_mode(False)
    yield
    o.set_strict_mode(before)


def refusal(kind: str, options: dict[str, Any], *, in_options: bool = False) -> str:
    validate = {"task": o.validate_task_options, "actor": o.validate_actor_options}[kind]
    try:
        validate(options, in_options=in_options)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


TYPE = "TypeError: The type of keyword '{}' must be {}, but received type {}".format
NUMBER = "(<class 'float'>, <class 'int'>, <class 'NoneType'>)"
INT = "(<class 'int'>, <class 'NoneType'>)"
STR = "(<class 'str'>, <class 'NoneType'>)"
DICT = "(<class 'dict'>, <class 'NoneType'>)"
BOOL = "(<class 'bool'>, <class 'NoneType'>)"
PRECISION = "ValueError: The precision of the fractional quantity of resource {} cannot go beyond 0.0001".format
NEGATIVE = "ValueError: The quantity of resource {} cannot be negative".format
COUNT = "ValueError: The keyword '{}' only accepts None, 0 or a positive integer.".format
INFINITE = (
    "ValueError: The keyword '{}' only accepts None, 0, -1 or a positive integer, where -1 represents infinity.".format
)
STRATEGIES = (
    "(<class 'NoneType'>, <class 'str'>, <class 'ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy'>, "
    "<class 'ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy'>, "
    "<class 'ray.util.scheduling_strategies.NodeLabelSchedulingStrategy'>)"
)

# As Ray 2.60 answers.
BOTH: list[tuple[dict[str, Any], str]] = [
    ({"num_cpus": "1"}, TYPE("num_cpus", NUMBER, "<class 'str'>")),
    ({"num_cpus": -1}, NEGATIVE("num_cpus")),
    ({"num_cpus": 0.00001}, PRECISION("num_cpus")),
    ({"num_gpus": -0.5}, NEGATIVE("num_gpus")),
    ({"num_gpus": 0.00001}, PRECISION("num_gpus")),
    ({"memory": -1}, NEGATIVE("memory")),
    ({"resources": []}, TYPE("resources", DICT, "<class 'list'>")),
    (
        {"resources": {"CPU": 1}},
        "ValueError: Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' keyword",
    ),
    ({"resources": {"a": -1}}, NEGATIVE("a")),
    ({"resources": {"a": 0.00001}}, PRECISION("a")),
    ({"resources": {"a": None}}, "TypeError: '<' not supported between instances of 'NoneType' and 'int'"),
    ({"resources": {"a": "x"}}, "TypeError: '<' not supported between instances of 'str' and 'int'"),
    (
        {"resources": {"neuron_cores": 1.5}},
        "ValueError: neuron_cores resource quantity must be whole numbers. The specified quantity 1.5 is invalid.",
    ),
    (
        {"resources": {"TPU": 3}},
        "ValueError: The number of requested 'TPU' was set to 3 which is not a supported chip configuration. "
        "Supported configs: (1, 2, 4, 8)",
    ),
    ({"name": 1}, TYPE("name", STR, "<class 'int'>")),
    ({"accelerator_type": 1}, TYPE("accelerator_type", STR, "<class 'int'>")),
    ({"runtime_env": "x"}, TYPE("runtime_env", DICT, "<class 'str'>")),
    ({"scheduling_strategy": 1}, TYPE("scheduling_strategy", STRATEGIES, "<class 'int'>")),
    (
        {"placement_group_bundle_index": None},
        TYPE("placement_group_bundle_index", "<class 'int'>", "<class 'NoneType'>"),
    ),
    ({"placement_group_capture_child_tasks": 1}, TYPE("placement_group_capture_child_tasks", BOOL, "<class 'int'>")),
    ({"enable_task_events": 1}, TYPE("enable_task_events", "<class 'bool'>", "<class 'int'>")),
    ({"label_selector": []}, TYPE("label_selector", DICT, "<class 'list'>")),
    (
        {"label_selector": {"a/b/c": "x"}},
        "ValueError: Invalid label key prefix `a/b`. Prefix must be a series of DNS labels separated by dots (.), "
        "not longer than 253 characters in total.",
    ),
    (
        {"label_selector": {"a b": "x"}},
        "ValueError: Invalid label key name `a b`. Name must be 63 chars or less beginning and ending with an "
        "alphanumeric character ([a-z0-9A-Z]) with dashes (-), underscores (_),dots (.), and alphanumerics between.",
    ),
    (
        {"label_selector": {"a": "in()"}},
        "ValueError: Invalid label selector value `in()`. The label selector value should contain optional operators "
        "and a label value. Supported operators are: ! and {'in'}. Value must be 63 chars or less beginning and ending "
        "with an alphanumeric character ([a-z0-9A-Z]) with dashes (-), underscores (_),dots (.), and alphanumerics "
        "between.",
    ),
    ({"fallback_strategy": [1]}, "ValueError: Each element in fallback_strategy must be a dictionary."),
    ({"fallback_strategy": [{}]}, "ValueError: Empty dictionary found in `fallback_strategy`."),
    (
        {"fallback_strategy": [{"x": 1}]},
        "ValueError: Unsupported option found: 'x'. Only ['label_selector'] is currently supported.",
    ),
    (
        {"fallback_strategy": [{"label_selector": 1}]},
        'ValueError: The value of "label_selector" must be a dictionary.',
    ),
]

TASK: list[tuple[dict[str, Any], str]] = [
    ({"max_calls": -1}, COUNT("max_calls")),
    ({"max_calls": 1.5}, TYPE("max_calls", INT, "<class 'float'>")),
    ({"max_retries": -2}, INFINITE("max_retries")),
    ({"max_retries": 1.5}, TYPE("max_retries", INT, "<class 'float'>")),
    (
        {"num_returns": 1.5},
        TYPE("num_returns", "(<class 'int'>, <class 'str'>, <class 'NoneType'>)", "<class 'float'>"),
    ),
    ({"num_returns": "x"}, "TypeError: '>=' not supported between instances of 'str' and 'int'"),
    (
        {"num_returns": -1},
        "ValueError: Default None. When None is passed, The default value is 1 for a task and actor task, and "
        "'streaming' for generator tasks and generator actor tasks. The keyword 'num_returns' only accepts None, a "
        "non-negative integer, 'streaming' (for generators), or 'dynamic'. 'dynamic' flag will be deprecated in the "
        "future, and it is recommended to use 'streaming' instead.",
    ),
    (
        {"retry_exceptions": None},
        TYPE("retry_exceptions", "(<class 'bool'>, <class 'list'>, <class 'tuple'>)", "<class 'NoneType'>"),
    ),
    (
        {"retry_exceptions": [ValueError, "x"]},
        "ValueError: retry_exceptions must be either a boolean or a list of exceptions",
    ),
    (
        {"_generator_backpressure_num_objects": 0},
        "ValueError: _generator_backpressure_num_objects=0 is not allowed. Use a value > 0. If the value is equal to "
        "1, the behavior is identical to Python generator (generator 1 object whenever `next` is called). Use -1 to "
        "disable this feature. ",
    ),
    (
        {"_num_objects_per_yield": 0},
        "ValueError: _num_objects_per_yield is a private streaming generator option that must be set to a positive "
        "integer.",
    ),
    ({"object_store_memory": 5}, "ValueError: Setting 'object_store_memory' is not implemented for tasks"),
]

ACTOR: list[tuple[dict[str, Any], str]] = [
    ({"max_restarts": -2}, INFINITE("max_restarts")),
    ({"max_task_retries": -2}, INFINITE("max_task_retries")),
    ({"max_pending_calls": -2}, INFINITE("max_pending_calls")),
    ({"max_concurrency": -1}, COUNT("max_concurrency")),
    ({"object_store_memory": -1}, COUNT("object_store_memory")),
    ({"lifetime": "x"}, "ValueError: actor `lifetime` argument must be one of 'detached', 'non_detached' and 'None'."),
    ({"namespace": 1}, TYPE("namespace", STR, "<class 'int'>")),
    ({"get_if_exists": 1}, TYPE("get_if_exists", "<class 'bool'>", "<class 'int'>")),
    ({"get_if_exists": True}, "ValueError: The actor name must be specified to use `get_if_exists`."),
    (
        {"concurrency_groups": 1},
        TYPE("concurrency_groups", "(<class 'list'>, <class 'dict'>, <class 'NoneType'>)", "<class 'int'>"),
    ),
    (
        {"_actor_generator_backpressure_num_objects": 0},
        "ValueError: _actor_generator_backpressure_num_objects must be > 0 to cap the actor's total unconsumed "
        "generator objects, or -1 to disable. Got 0.",
    ),
]

REFUSED = [(kind, *row) for kind in ("task", "actor") for row in BOTH]
REFUSED += [("task", *row) for row in TASK] + [("actor", *row) for row in ACTOR]


@pytest.mark.parametrize(("kind", "options", "text"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_ray_refuses_is_refused_with_its_words(kind: str, options: dict[str, Any], text: str) -> None:
    assert refusal(kind, options) == text
    assert refusal(kind, options, in_options=True) == text


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("task", {}),
    ("task", {"num_cpus": 0.5, "num_gpus": 1.5, "memory": 1.5, "resources": {"a": 1, "TPU": 4, "neuron_cores": 2}}),
    ("task", {"num_cpus": None, "num_gpus": None, "memory": None, "resources": None, "object_store_memory": None}),
    ("task", {"max_calls": 1, "max_retries": -1, "num_returns": 0, "retry_exceptions": [ValueError], "name": "x"}),
    (
        "task",
        {"num_returns": "streaming", "retry_exceptions": (ValueError,), "_generator_backpressure_num_objects": -2},
    ),
    ("task", {"label_selector": {"ray.io/x": "!in(a, b)", "k": "!v", "e": "", "n": None, "p": "in(a,b)"}}),
    ("task", {"fallback_strategy": [{"label_selector": {"a": "b"}}, {"label_selector": None}]}),
    ("task", {"scheduling_strategy": "SPREAD", "placement_group": "default", "runtime_env": {}}),
    ("actor", {"name": "x", "get_if_exists": True, "lifetime": "detached", "max_restarts": -1, "namespace": "n"}),
    ("actor", {"concurrency_groups": {"io": 2}, "max_concurrency": 3, "allow_out_of_order_execution": True}),
]


@pytest.mark.parametrize(("kind", "options"), ACCEPTED, ids=str)
def test_what_ray_takes_is_taken_as_it_is(kind: str, options: dict[str, Any], strict: None) -> None:
    validate = {"task": o.validate_task_options, "actor": o.validate_actor_options}[kind]
    assert validate(options, in_options=False) == options


def test_an_unknown_option_is_told_with_the_known_ones() -> None:
    text = refusal("task", {"max_cals": 1})
    assert text.startswith("ValueError: Invalid option keyword max_cals for remote functions. Valid ones are ['label_s")
    assert text.endswith("'retry_exceptions', '_generator_backpressure_num_objects', '_num_objects_per_yield'].")
    assert refusal("actor", {"max_calls": 1}).startswith(
        "ValueError: Invalid option keyword max_calls for actors. Valid"
    )
    assert refusal("task", {"max_restarts": 1}).startswith(
        "ValueError: Invalid option keyword max_restarts for remote f"
    )


def test_some_options_are_for_the_decorator_alone() -> None:
    assert refusal("task", {"max_calls": 1}) == ""
    text = "ValueError: Setting '{}' is not supported in '.options()'."
    assert refusal("task", {"max_calls": 1}, in_options=True) == text.format("max_calls")
    assert refusal("actor", {"concurrency_groups": {}}, in_options=True) == text.format("concurrency_groups")


def test_object_store_memory_of_an_actor_is_deprecated_as_in_ray() -> None:
    with pytest.warns(DeprecationWarning, match="doesn't actually reserve"):
        assert o.validate_actor_options({"object_store_memory": "1k"}, in_options=False) == {
            "object_store_memory": 1000
        }


def test_strategies_are_known_by_their_name() -> None:
    module = "miniray.util.scheduling_strategies"
    strategy = type("NodeAffinitySchedulingStrategy", (), {"__module__": module})()
    assert refusal("task", {"scheduling_strategy": strategy}) == ""
    other = type("NodeAffinitySchedulingStrategy", (), {"__module__": "elsewhere"})()
    assert "must be" in refusal("task", {"scheduling_strategy": other})


def test_sizes_are_taken_as_text_and_refused_in_strict_mode(strict: None) -> None:
    assert refusal("task", {"memory": "1GB"}) == TYPE("memory", NUMBER, "<class 'str'>")
    assert refusal("task", {"_metadata": {}}).startswith("ValueError: Invalid option keyword _metadata")
    o.set_strict_mode(False)
    assert o.validate_task_options({"memory": "1GB"}, in_options=False) == {"memory": 10**9}
    assert o.validate_task_options({"_metadata": {"a": 1}}, in_options=True) == {"_metadata": {"a": 1}}
    assert refusal("task", {"memory": "lots"}).startswith("ValueError: 'lots' is not a size")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16GB", 16 * 10**9),
        ("2GiB", 2 * 2**30),
        ("512MB", 512 * 10**6),
        ("1.5g", 15 * 10**8),
        ("1.5 gib", 3 * 2**29),
        ("10", 10),
        ("10b", 10),
        ("1_000k", 10**6),
        ("3T", 3 * 10**12),
        ("9007199254740993", 9007199254740993),
        ("1e3", 1000),
        (7, 7),
        (7.9, 7),
    ],
)
def test_a_size_is_read(text: Any, size: int) -> None:
    assert o.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1XB", "1.5.2g", "inf", "nan", "one", "1 g b"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        o.parse_size(text)


@given(st.text(max_size=12))
def test_reading_a_size_gives_bytes_or_one_clear_error(text: str) -> None:
    try:
        assert o.parse_size(text) >= 0
    except ValueError as error:
        assert "is not a size" in str(error)


def test_options_replace_the_decorators_one_by_one() -> None:
    decorator = {"num_cpus": 1, "resources": {"a": 1}, "runtime_env": {"env_vars": {"A": "1"}}, "_metadata": {"a": 1}}
    merged = o.merge_options(decorator, {"resources": {"b": 1}, "runtime_env": {}, "_metadata": {"b": 2}})
    assert merged == {"num_cpus": 1, "resources": {"b": 1}, "runtime_env": {}, "_metadata": {"a": 1, "b": 2}}
    assert o.merge_options(decorator, {"num_cpus": None})["num_cpus"] is None


def test_defaults_come_from_the_table() -> None:
    task = o.with_defaults({"max_calls": 2}, is_actor=False)
    assert (task["num_cpus"], task["max_retries"], task["max_calls"], task["retry_exceptions"]) == (1, 3, 2, False)
    actor = o.with_defaults({}, is_actor=True)
    assert (actor["num_cpus"], actor["max_restarts"], actor["max_pending_calls"]) == (None, 0, -1)


U = o.RESOURCE_UNITS


@pytest.mark.parametrize(
    ("options", "task", "actor", "placement"),
    [
        ({}, {"CPU": U}, {}, {"CPU": U}),
        ({"num_cpus": 0}, {}, {}, {}),
        ({"num_cpus": None}, {}, {}, {"CPU": U}),
        ({"num_cpus": 2}, {"CPU": 2 * U}, {"CPU": 2 * U}, {"CPU": 2 * U}),
        ({"num_cpus": 0.0003}, {"CPU": 3}, {"CPU": 3}, {"CPU": 3}),
        ({"num_cpus": 1.00001}, {"CPU": U}, {"CPU": U}, {"CPU": U}),
        ({"num_gpus": 1}, {"CPU": U, "GPU": U}, {"CPU": U, "GPU": U}, {"CPU": U, "GPU": U}),
        ({"num_gpus": 0}, {"CPU": U}, {"CPU": U}, {"CPU": U}),
        ({"resources": {"a": 0.12345}}, {"a": 1234, "CPU": U}, {"a": 1234, "CPU": U}, {"a": 1234, "CPU": U}),
        ({"resources": {"a": 0}}, {"CPU": U}, {"CPU": U}, {"CPU": U}),
        ({"resources": {}}, {"CPU": U}, {}, {"CPU": U}),
        ({"memory": 1.5}, {"CPU": U, "memory": U}, {"memory": U}, {"CPU": U, "memory": U}),
        ({"memory": 0}, {"CPU": U}, {}, {"CPU": U}),
        (
            {"accelerator_type": "V100"},
            {"CPU": U, "accelerator_type:V100": 10},
            {"accelerator_type:V100": 10},
            {"CPU": U, "accelerator_type:V100": 10},
        ),
    ],
    ids=str,
)
def test_resources_follow_from_options_as_in_ray(
    options: dict[str, Any], task: dict[str, int], actor: dict[str, int], placement: dict[str, int]
) -> None:
    assert o.resource_request(options, is_actor=False) == task
    assert o.resource_request(options, is_actor=True) == actor
    assert o.placement_request(options) == placement


@given(st.integers(min_value=0, max_value=10**9))
def test_units_survive_the_noise_of_floats(units: int) -> None:
    assert o.to_units(units / U) == units


def test_requests_that_can_never_be_met_are_refused() -> None:
    with pytest.raises(ValueError) as caught:
        o.resource_request({"num_gpus": 1.5}, is_actor=False)
    text = "('GPU resource quantities >1 must', ' be whole numbers. The specified quantity 1.5 is invalid.')"
    assert str(caught.value) == text
    with pytest.raises(ValueError, match="must not contain the key 'memory' or 'object_store_memory'"):
        o.resource_request({"resources": {"memory": 1}}, is_actor=True)
    with pytest.raises(ValueError, match="should not include `bundle` which is reserved"):
        o.resource_request({"resources": {"bundle": 1}}, is_actor=False)
    with pytest.raises(TypeError, match="must be a string"):
        o.resource_request({"resources": {1: 1}}, is_actor=False)


def test_strategies_given_as_text_are_two() -> None:
    for strategy in (None, "DEFAULT", "SPREAD", object()):
        o.check_scheduling_strategy(strategy)
    with pytest.raises(ValueError, match="Invalid scheduling_strategy value spread. Valid values are"):
        o.check_scheduling_strategy("spread")


def test_names_and_namespaces_are_not_empty() -> None:
    o.check_actor_name(None)
    o.check_actor_name("x")
    o.check_namespace("x")
    with pytest.raises(ValueError, match="Actor name cannot be an empty string."):
        o.check_actor_name("")
    with pytest.raises(TypeError):
        o.check_actor_name(1)
    with pytest.raises(ValueError, match='"" is not a valid namespace. Pass None to not specify a namespace.'):
        o.check_namespace("")
    with pytest.raises(TypeError, match="namespace must be None or a string."):
        o.check_namespace(1)


def test_method_options_are_checked_as_in_ray() -> None:
    assert o.validate_method_options({"num_returns": 2, "concurrency_group": "io"}) == {
        "num_returns": 2,
        "concurrency_group": "io",
    }
    with pytest.raises(
        AssertionError, match="Unexpected keyword argument to @ray.method: 'foo'. The supported keyword"
    ):
        o.validate_method_options({"foo": 1})
    with pytest.raises(ValueError, match="num_returns must be >= 0, but got -1."):
        o.validate_method_options({"num_returns": -1})
    with pytest.raises(ValueError, match="can only be used with generator functions"):
        o.validate_method_options({"num_returns": "streaming"})
    o.validate_method_options({"num_returns": "streaming"}, is_generator=True)


class Plain:
    def method(self) -> None: ...


def test_options_of_a_call_are_checked_as_in_ray() -> None:
    o.check_call_options({"name": "a", "num_returns": 0, "concurrency_group": "io", "timeout_s": 1})
    with pytest.raises(TypeError, match=r"ActorMethod\._remote\(\) got an unexpected keyword argument 'num_retruns'"):
        o.check_call_options({"num_retruns": 2})
    with pytest.raises(ValueError, match="num_returns must be >= 0, but got -3"):
        o.check_call_options({"num_returns": -3})
    o.set_strict_mode(True)
    with pytest.raises(TypeError, match="timeout_s"):
        o.check_call_options({"timeout_s": 1})


def test_only_functions_and_classes_can_be_remote() -> None:
    o.check_remote_target(Plain)
    o.check_remote_target(lambda: 1)
    for target in (5, None, o):
        with pytest.raises(TypeError, match="must be applied to either a function or a class."):
            o.check_remote_target(target)


def test_other_callables_are_an_extension(strict: None) -> None:
    others = (len, functools.partial(print), Plain().method)
    for target in others:
        with pytest.raises(TypeError, match="must be applied to either a function or a class."):
            o.check_remote_target(target)
    o.set_strict_mode(False)
    for target in others:
        o.check_remote_target(target)


def test_async_functions_are_an_extension(strict: None) -> None:
    async def task() -> None: ...

    async def generator() -> Any:
        yield 1

    o.check_remote_target(generator)
    with pytest.raises(ValueError, match="'async def' should not be used for remote tasks. You can wrap the async"):
        o.check_remote_target(task)
    o.set_strict_mode(False)
    o.check_remote_target(task)


def test_empty_parentheses_are_an_extension(strict: None) -> None:
    wrong = "The @ray.remote decorator must be applied either with no arguments and no parentheses, for example"
    o.check_remote_arguments((Plain,), {})
    o.check_remote_arguments((), {"num_cpus": 1})
    for args, options in [((), {}), ((1,), {}), ((Plain, 2), {}), ((Plain,), {"num_cpus": 1}), ((None,), {})]:
        with pytest.raises(AssertionError) as caught:
            o.check_remote_arguments(args, options)
        assert str(caught.value).startswith(wrong)
        assert "the list ['max_calls', 'max_retries', 'num_cpus', 'num_returns', 'object" in str(caught.value)
        assert str(caught.value).endswith("""example '@ray.remote(num_returns=2, resources={"CustomResource": 1})'.""")
    o.set_strict_mode(False)
    o.check_remote_arguments((), {})


@pytest.mark.parametrize(("value", "strictly"), [("1", True), ("0", False), (None, False), ("true", True)])
def test_the_strict_flag_is_read_from_the_environment(value: str | None, strictly: bool) -> None:
    environment = {key: text for key, text in os.environ.items() if key != "MINIRAY_STRICT"}
    if value is not None:
        environment["MINIRAY_STRICT"] = value
    program = "from miniray.options import strict_mode; print(strict_mode())"
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == str(strictly)
