"""The top of the package: its names, and what its functions refuse, in Ray's words."""

from __future__ import annotations

import inspect
from typing import Any
from unittest import mock

import pytest

import miniray
from miniray import ObjectRef, exceptions

RAYS_NAMES = {
    "SCRIPT_MODE",
    "WORKER_MODE",
    "ActorClassID",
    "ClientBuilder",
    "client",
    "java_actor_class",
    "java_function",
    "ActorID",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "Language",
    "LoggingConfig",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "__version__",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "util",
    "wait",
}


# ---- names ----


def test_all_public_names_are_names_of_ray() -> None:
    assert set(miniray.__all__) <= RAYS_NAMES
    assert len(miniray.__all__) == len(set(miniray.__all__))


def test_every_public_name_is_there() -> None:
    namespace: dict[str, Any] = {}
    exec("from miniray import *", namespace)
    assert set(miniray.__all__) <= set(namespace)
    assert set(miniray.__all__) <= set(dir(miniray))


@pytest.mark.parametrize("name", ["cloudpickle", "exceptions", "job_config", "runtime_context", "runtime_env", "util"])
def test_modules_are_attributes_without_being_imported(name: str) -> None:
    assert inspect.ismodule(getattr(miniray, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'miniray' has no attribute 'no_such_name'"):
        _ = miniray.no_such_name
    with pytest.raises(ImportError):
        exec("from miniray import no_such_name")


def test_functions_can_be_patched_where_users_patch_them() -> None:
    with mock.patch("miniray.get", return_value=5), mock.patch.object(miniray, "put"):
        assert miniray.get("anything") == 5
    with mock.patch("miniray.LoggingConfig", 7):
        assert miniray.LoggingConfig == 7
    assert miniray.get.__module__ == "miniray.api"


def test_constants_are_rays() -> None:
    assert (miniray.SCRIPT_MODE, miniray.WORKER_MODE) == (0, 1)
    assert miniray.ObjectID is ObjectRef
    assert repr(miniray.Language.PYTHON) == "PYTHON"


def test_every_function_says_where_ray_describes_it() -> None:
    functions = [getattr(miniray, name) for name in miniray.__all__ if inspect.isfunction(getattr(miniray, name))]
    assert [function.__name__ for function in functions if "https://docs.ray.io/" not in (function.__doc__ or "")] == []


# ---- get ----


def test_get_takes_a_ref_or_a_list_of_refs(session: Any) -> None:
    first, second = miniray.put(1), miniray.put("two")
    assert miniray.get(first) == 1
    assert miniray.get([first, second, first]) == [1, "two", 1]
    assert miniray.get([]) == []


@pytest.mark.parametrize("wrong", [5, "text", (1, 2), {1: 2}, None])
def test_get_of_what_is_neither_is_refused(session: Any, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^Invalid type of object refs, <class '\w+'>, is given. 'object_refs' must"):
        miniray.get(wrong)


def test_get_of_a_list_with_something_else_in_it_is_refused(session: Any) -> None:
    with pytest.raises(TypeError, match="Attempting to call `get` on the value 5, which is not an ray.ObjectRef."):
        miniray.get([miniray.put(1), 5])


def test_get_gives_up_after_its_timeout(session: Any) -> None:
    @miniray.remote
    def never() -> None:
        import threading

        threading.Event().wait()

    ref = never.remote()
    for timeout in (0, 0.01):
        with pytest.raises(exceptions.GetTimeoutError):
            miniray.get(ref, timeout=timeout)
        with pytest.raises(TimeoutError):
            miniray.get([ref], timeout=timeout)
    miniray.cancel(ref, force=True)


# ---- put ----


def test_put_of_a_ref_is_refused(session: Any) -> None:
    with pytest.raises(TypeError, match="Calling 'put' on an ray.ObjectRef is not allowed. If you really want to do"):
        miniray.put(miniray.put(1))


# ---- wait ----


def test_wait_returns_what_is_ready_and_the_rest_in_order(session: Any) -> None:
    refs = [miniray.put(number) for number in range(4)]
    assert miniray.wait(refs, num_returns=2) == (refs[:2], refs[2:])
    assert miniray.wait(refs, num_returns=4, timeout=0) == (refs, [])
    assert miniray.wait([]) == ([], [])


@pytest.mark.parametrize(
    ("given", "options", "kind", "text"),
    [
        ("one", {}, TypeError, "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got a single"),
        ("tuple", {}, TypeError, "ray.ObjectRefGenerator, got <class 'tuple'>"),
        ("mixed", {}, TypeError, "got list containing <class 'int'>"),
        ("twice", {}, ValueError, "Wait requires a list of unique ray_waitables."),
        ("list", {"num_returns": 0}, ValueError, "Invalid number of objects to return 0."),
        ("list", {"num_returns": 2}, ValueError, "num_returns cannot be greater than the number of ray_waitables"),
        ("list", {"timeout": -1}, ValueError, "The 'timeout' argument must be nonnegative. Received -1"),
    ],
)
def test_wait_refuses_what_ray_refuses(
    session: Any, given: str, options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    ref = miniray.put(1)
    refs = {"one": ref, "tuple": (ref,), "mixed": [ref, 1], "twice": [ref, ref], "list": [ref]}[given]
    with pytest.raises(kind) as caught:
        miniray.wait(refs, **options)  # type: ignore[arg-type]
    assert text in str(caught.value)


# ---- cancel, remote, and what a session looks like ----


def test_cancel_of_what_is_no_ref_is_refused(session: Any) -> None:
    with pytest.raises(TypeError, match=r"ray.cancel\(\) only supported for object refs. For actors, try ray.kill"):
        miniray.cancel(5)


@pytest.mark.parametrize("wrong", [5, "text", None])
def test_only_functions_and_classes_become_remote(wrong: Any) -> None:
    with pytest.raises(AssertionError, match="The @ray.remote decorator must be applied either with no arguments and"):
        miniray.remote(wrong)
    with pytest.raises(TypeError, match="The @ray.remote decorator must be applied to either a function or a class."):
        miniray.remote(num_cpus=1)(wrong)


def test_remote_functions_are_not_called_directly() -> None:
    @miniray.remote
    def function() -> None: ...

    with pytest.raises(TypeError, match="Remote functions cannot be called directly. Instead of running"):
        function()


def test_a_session_has_a_node_with_rays_keys(session: Any) -> None:
    (row,) = miniray.nodes()
    assert row["Alive"] is row["alive"] is True
    assert row["NodeID"] == session.address_info["node_id"] and len(row["NodeID"]) == 56
    assert row["Resources"] == miniray.cluster_resources()
    assert {"NodeManagerAddress", "NodeManagerHostname", "NodeName", "Labels"} <= set(row)


def test_resources_that_are_in_use_are_not_available(session: Any) -> None:
    @miniray.remote(num_cpus=2)
    def look() -> tuple[dict[str, float], dict[str, float]]:
        return miniray.available_resources(), miniray.cluster_resources()

    available, total = miniray.get(look.remote())
    assert "CPU" not in available and total["CPU"] == 2
    assert total["node:__internal_head__"] == 1
