"""ray.experimental.internal_kv: what its functions take and return."""

# mypy: ignore-errors
from __future__ import annotations

import importlib
import inspect

from ..catalog import program
from ..observe import outcome

AREA = "state"
SESSION = {"num_cpus": 2}


def kv(ray):
    """The module."""
    return importlib.import_module(f"{ray.__name__}.experimental.internal_kv")


def read(values, key, **where):
    """The value as text; None for none."""
    value = values._internal_kv_get(key, **where)
    return value if value is None else value.decode()


@program("state/internal-kv")
def a_put_says_whether_there_was_a_value(ray):
    values = kv(ray)
    return [
        values._internal_kv_put(b"put", b"1"),
        values._internal_kv_put(b"put", b"2"),
        read(values, b"put"),
        values._internal_kv_put(b"put", b"3", overwrite=False),
        read(values, b"put"),
        values._internal_kv_put(b"put-new", b"4", False),
        read(values, b"put-new"),
        read(values, b"put-none"),
    ]


@program("state/internal-kv")
def text_is_encoded(ray):
    values = kv(ray)
    return [
        values._internal_kv_put("text", "wörd"),
        read(values, "text"),
        read(values, b"text") == read(values, "text"),
        values._internal_kv_exists("text"),
        values._internal_kv_list("tex") == [b"text"],
        values._internal_kv_del("text"),
    ]


@program("state/internal-kv")
def namespaces_keep_keys_apart(ray):
    values = kv(ray)
    return [
        values._internal_kv_put(b"space", b"x", namespace=b"x"),
        values._internal_kv_put(b"space", b"y", namespace="y"),
        [read(values, b"space", namespace=name) for name in (b"x", "x", b"y", b"z", None)],
        [values._internal_kv_exists(b"space", namespace=name) for name in (b"x", "y", b"z", None)],
        [values._internal_kv_list(b"space", namespace=name) == [b"space"] for name in (b"x", b"z")],
        values._internal_kv_del(b"space", namespace=b"z"),
        values._internal_kv_del(b"space", namespace=b"x"),
        read(values, b"space", namespace=b"y"),
    ]


@program("state/internal-kv")
def keys_are_listed_and_deleted_by_prefix(ray):
    values = kv(ray)
    for key in (b"list-a1", b"list-a2", b"list-b"):
        values._internal_kv_put(key, b"")
    return [
        sorted(key.decode() for key in values._internal_kv_list(b"list-")),
        sorted(key.decode() for key in values._internal_kv_list(b"list-a")),
        values._internal_kv_list(b"list-c"),
        values._internal_kv_del(b"list-a"),
        values._internal_kv_del(b"list-a", del_by_prefix=True),
        values._internal_kv_del(b"list-b"),
        values._internal_kv_del(b"list-b"),
        values._internal_kv_list(b"list-"),
    ]


@program("state/internal-kv")
def empty_keys_and_values(ray):
    values = kv(ray)
    answers = [
        values._internal_kv_put(b"", b"empty"),
        read(values, b""),
        values._internal_kv_put(b"empty", b""),
        read(values, b"empty"),
        values._internal_kv_exists(b"empty"),
        values._internal_kv_del(b""),
    ]
    return answers


@program("state/internal-kv")
def what_is_no_text_is_refused(ray):
    values = kv(ray)
    return [
        outcome(lambda: values._internal_kv_get(3)),
        outcome(lambda: values._internal_kv_put(b"wrong", 3)),
        outcome(lambda: values._internal_kv_put(b"wrong", None)),
        outcome(lambda: values._internal_kv_put(None, b"wrong")),
        outcome(lambda: values._internal_kv_list(3)),
        outcome(lambda: values._internal_kv_put(b"wrong", b"", namespace=3)),
        outcome(lambda: values._internal_kv_put(b"@namespace_wrong", b"")),
        outcome(lambda: values._internal_kv_put(b"wrong", b"", 1)),
        outcome(lambda: values._internal_kv_get(b"wrong", b"positional"), text="none"),
    ]


@program("state/internal-kv")
def tasks_and_actors_share_the_values(ray):
    name = f"{ray.__name__}.experimental.internal_kv"

    @ray.remote
    def task(key):
        values = importlib.import_module(name)
        values._internal_kv_put(b"from-task", key)
        return values._internal_kv_initialized(), values._internal_kv_get(key).decode()

    @ray.remote
    class Actor:
        def read(self, key):
            return importlib.import_module(name)._internal_kv_get(key).decode()

    kv(ray)._internal_kv_put(b"from-driver", b"1")
    found = ray.get(task.remote(b"from-driver"))
    return [list(found), read(kv(ray), b"from-task"), ray.get(Actor.remote().read.remote(b"from-task"))]


@program("state/internal-kv")
def signatures_of_key_value_functions(ray):
    values = kv(ray)
    names = ["get", "put", "del", "exists", "list", "initialized", "reset"]
    functions = [getattr(values, f"_internal_kv_{name}") for name in names]
    return [[(item.name, item.kind.name) for item in inspect.signature(each).parameters.values()] for each in functions]


@program("state/internal-kv", fresh=True)
def key_values_before_after_and_between_sessions(ray):
    values = kv(ray)
    answers = [values._internal_kv_initialized(), outcome(lambda: values._internal_kv_get(b"a"))]
    ray.init(address="local", num_cpus=1)
    answers += [values._internal_kv_initialized(), values._internal_kv_put(b"a", b"1"), read(values, b"a")]
    answers += [values._internal_kv_reset(), values._internal_kv_initialized()]
    answers += [outcome(lambda: values._internal_kv_exists(b"a")), outcome(lambda: values._internal_kv_list(b"a"))]
    ray.shutdown()
    answers += [values._internal_kv_initialized(), outcome(lambda: values._internal_kv_del(b"a"))]
    ray.init(address="local", num_cpus=1)
    answers += [values._internal_kv_initialized(), read(values, b"a")]
    ray.shutdown()
    return answers
