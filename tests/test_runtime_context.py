"""The runtime context in drivers, tasks and threads; and the data that jobs and environments are made of."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import miniray
from miniray.deprecation import RayDeprecationWarning
from miniray.job_config import JobConfig
from miniray.logging_config import LoggingConfig
from miniray.runtime_env import RuntimeEnv

OPTIONS: dict[str, Any] = {
    "num_cpus": 2,
    "resources": {"custom": 2},
    "labels": {"zone": "here"},
    "namespace": "a namespace",
    "logging_level": "ERROR",
}


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    """The runtime context of a driver."""
    with miniray.init("local", **OPTIONS):
        yield miniray.get_runtime_context()


def in_a_task(function: Callable[[], Any], **options: Any) -> Any:
    remote = miniray.remote(function)
    return miniray.get(remote.options(**options).remote() if options else remote.remote())


# ---- ids and names ----


def test_a_driver_has_ids_but_no_task(context: Any) -> None:
    assert len(context.get_job_id()) == 8 and len(context.get_node_id()) == 56 and len(context.get_worker_id()) == 56
    assert context.get_task_id() is None and context.get_actor_id() is None
    assert context.get_task_name() is None and context.get_task_function_name() is None
    assert context.get_actor_name() is None and context.get_placement_group_id() is None


def test_there_is_one_context_per_process(context: Any) -> None:
    assert miniray.get_runtime_context() is context


def test_a_task_knows_its_ids(context: Any) -> None:
    @miniray.remote
    def look() -> tuple[Any, ...]:
        here = miniray.get_runtime_context()
        return here.get_task_id(), here.get_job_id(), here.get_node_id(), here.get_worker_id(), here.get_actor_id()

    ref = look.remote()
    task, job, node, worker, actor = miniray.get(ref)
    assert task == ref.task_id().hex()
    assert job == context.get_job_id() and node == context.get_node_id()
    assert worker != context.get_worker_id() and len(worker) == 56
    assert actor is None


def test_a_task_has_the_name_of_its_function_or_that_of_its_options(context: Any) -> None:
    def look() -> tuple[Any, ...]:
        here = miniray.get_runtime_context()
        return here.get_task_name(), here.get_task_function_name()

    assert in_a_task(look) == ("look", f"{__name__}.look")
    assert in_a_task(look, name="given") == ("given", f"{__name__}.look")


def test_a_thread_of_a_task_is_a_nameless_task_of_the_same_worker(context: Any) -> None:
    def look() -> list[Any]:
        answers: list[Any] = []

        def ask() -> None:
            here = miniray.get_runtime_context()
            answers.append([here.get_task_name(), here.get_task_function_name(), here.get_worker_id()])

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return [answers[0], miniray.get_runtime_context().get_worker_id()]

    there, worker = in_a_task(look)
    assert there == ["", "", worker]


def test_namespace_session_and_address_are_the_same_everywhere(context: Any) -> None:
    def look() -> tuple[Any, ...]:
        here = miniray.get_runtime_context()
        return here.namespace, here.get_session_name(), here.gcs_address, here.get_temp_dir()

    assert context.namespace == "a namespace"
    assert in_a_task(look) == look()


# ---- what the caller was given ----


def test_a_task_knows_its_resources(context: Any) -> None:
    def look() -> Any:
        return miniray.get_runtime_context().get_assigned_resources()

    assert in_a_task(look) == {"CPU": 1.0}
    assert in_a_task(look, num_cpus=0) == {}
    assert in_a_task(look, num_cpus=0.5, resources={"custom": 1.5}) == {"CPU": 0.5, "custom": 1.5}
    with pytest.raises(AssertionError, match=r"only available when the process is a +worker. Current mode: 0"):
        look()


def test_labels_are_those_of_the_node(context: Any) -> None:
    def look() -> Any:
        return miniray.get_runtime_context().get_node_labels()

    assert look() == in_a_task(look) == {"ray.io/node-id": context.get_node_id(), "zone": "here"}


def test_every_kind_of_accelerator_has_a_list_of_ids(context: Any) -> None:
    def look() -> Any:
        return miniray.get_runtime_context().get_accelerator_ids()

    assert look() == in_a_task(look)
    assert {"GPU", "TPU", "neuron_cores"} <= set(look()) and not any(look().values())
    assert miniray.get_gpu_ids() == []


def test_the_environment_of_a_task_is_that_of_its_options(context: Any) -> None:
    def look() -> Any:
        here = miniray.get_runtime_context()
        return here.runtime_env, here.get_runtime_env_string()

    assert look() == in_a_task(look) == ({}, "{}")
    assert type(look()[0]) is RuntimeEnv
    env, text = in_a_task(look, runtime_env={"env_vars": {"A": "1"}})
    assert env == {"env_vars": {"A": "1"}} and text == '{"env_vars": {"A": "1"}}'


def test_only_workers_can_be_cancelled(context: Any) -> None:
    assert in_a_task(lambda: miniray.get_runtime_context().is_canceled()) is False
    with pytest.raises(RuntimeError, match="only available when the process is a worker. Current mode: 0"):
        context.is_canceled()


def test_outside_of_actors_there_is_no_current_actor(context: Any) -> None:
    with pytest.raises(RuntimeError, match="This method is only available in an actor"):
        _ = context.current_actor
    with pytest.raises(AssertionError, match="only available when the process is a"):
        _ = context.was_current_actor_reconstructed


# ---- what Ray keeps for old programs ----


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("job_id", "get_job_id"),
        ("node_id", "get_node_id"),
        ("current_placement_group_id", "get_placement_group_id"),
    ],
)
def test_ids_as_objects_are_deprecated(context: Any, name: str, instead: str) -> None:
    with pytest.warns(RayDeprecationWarning, match=rf"Use {instead}\(\) instead") as caught:
        value = getattr(context, name)
    assert caught[0].filename == __file__
    assert value.is_nil() if "placement" in name else value.hex() == getattr(context, instead)()


@pytest.mark.parametrize("name", ["task_id", "actor_id"])
def test_a_driver_has_no_task_and_actor_as_objects(context: Any, name: str) -> None:
    with pytest.warns(RayDeprecationWarning), pytest.raises(AssertionError, match="only available when the process"):
        getattr(context, name)


def test_the_dictionary_has_no_key_for_what_there_is_not(context: Any) -> None:
    def look() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            here = miniray.get_runtime_context()
            return {key: getattr(value, "hex", lambda value=value: value)() for key, value in here.get().items()}

    assert look() == {
        "job_id": context.get_job_id(),
        "node_id": context.get_node_id(),
        "namespace": "a namespace",
    }
    assert set(in_a_task(look)) == {"job_id", "node_id", "namespace", "task_id"}


# ---- data ----


def test_a_job_config_checks_what_ray_checks() -> None:
    with pytest.raises(ValueError, match="Default actor lifetime must be one of `detached`, `non_detached`"):
        JobConfig(default_actor_lifetime="for ever")
    with pytest.raises(TypeError, match="The type of code search path is incorrect: <class 'str'>"):
        JobConfig(code_search_path="folder")  # type: ignore[arg-type]
    config = JobConfig.from_json({"ray_namespace": "n", "metadata": {"k": "v"}, "code_search_path": ["p"]})
    config.set_metadata("a", "b")
    assert (config.ray_namespace, config.metadata, config.code_search_path) == ("n", {"k": "v", "a": "b"}, ["p"])


def test_a_logging_config_checks_what_ray_checks() -> None:
    with pytest.raises(ValueError, match="Invalid encoding type: XML. Valid encoding types are: "):
        LoggingConfig("XML")
    with pytest.raises(ValueError, match="Unknown python logging standard attribute: zz. The valid attributes are: "):
        LoggingConfig(additional_log_standard_attrs=["zz"])
    config = LoggingConfig("JSON", "DEBUG", ["name"])
    assert LoggingConfig.from_dict(config.to_dict()) == config
    assert repr(config) == ("LoggingConfig(encoding='JSON', log_level='DEBUG', additional_log_standard_attrs=['name'])")
