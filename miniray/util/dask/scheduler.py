"""A Dask graph as tasks: each node is submitted once, with the refs of what it depends on as arguments, so that the
order, and what runs at the same time, follows from the refs. Values stay where they are made until they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import dask
from dask.core import flatten, ishashable, istask

import miniray

__all__ = ["disable_dask_on_ray", "enable_dask_on_ray", "ray_dask_get", "ray_dask_get_sync"]

try:
    from dask._task_spec import convert_legacy_graph  # dask 2024.12: tasks know what they depend on
except ImportError:
    convert_legacy_graph = None


@miniray.remote
def dask_task(node: Any, keys: tuple[Hashable, ...], *values: Any) -> Any:
    """Run one node; `values` belong to `keys`."""
    given = dict(zip(keys, values, strict=True))
    return node(given) if convert_legacy_graph is not None else _evaluate(node, given)


def ray_dask_get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Compute `keys` of a Dask graph. What Dask calls as its scheduler.

    Args:
        dsk: the graph.
        keys: a key, or nested lists of keys.
        **kwargs: `ray_persist=True` returns refs instead of values; `ray_remote_args`, options for all tasks; others
            are Dask's, and have no effect.

    Returns:
        The values, in lists nested as `keys` are.

    Raises:
        the error of a task, as its own type.

    Source: https://docs.ray.io/en/latest/ray-more-libs/dask-on-ray.html
    """
    refs = _submit(dsk, flatten([keys]), dict(kwargs.get("ray_remote_args") or {}))
    if kwargs.get("ray_persist"):
        return _nested(keys, refs)
    wanted = list(dict.fromkeys(flatten([keys])))
    values = dict(zip(wanted, miniray.get([refs[key] for key in wanted]), strict=True))
    return _nested(keys, values)


def ray_dask_get_sync(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """The same in this process, one task after another: for debugging."""
    from dask.local import get_sync

    return get_sync(dsk, keys)


def _submit(dsk: Any, keys: Iterable[Any], options: dict[str, Any]) -> dict[Any, Any]:
    """Submit what `keys` need; the refs, by key."""
    if not isinstance(dsk, Mapping):  # an expression of dask 2025
        dsk = dsk.__dask_graph__()
    graph: dict[Any, Any] = dict(convert_legacy_graph(dsk) if convert_legacy_graph is not None else dsk)
    task: Any = dask_task.options(**options) if options else dask_task
    refs: dict[Any, Any] = {}
    # A stack of our own: graphs are deeper than Python's.
    waiting = list(keys)
    while waiting:
        key = waiting[-1]
        if key in refs:
            waiting.pop()
            continue
        node = graph[key]
        needed = tuple(_dependencies(node, graph))
        missing = [dependency for dependency in needed if dependency not in refs]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        named = task if options.get("name") else task.options(name=f"dask:{_label(key)}")
        refs[key] = named.remote(node, needed, *(refs[dependency] for dependency in needed))
    return refs


def _label(key: Any) -> str:
    return str(key[0] if isinstance(key, tuple) else key)


def _dependencies(node: Any, graph: Mapping[Any, Any]) -> Iterable[Any]:
    if convert_legacy_graph is not None:
        return sorted(node.dependencies, key=str)
    from dask.core import get_dependencies

    return sorted(get_dependencies(graph, task=node), key=str)


def _evaluate(node: Any, given: Mapping[Any, Any]) -> Any:
    """A node of an older Dask: a key, a tuple of a function and its arguments, a list of nodes, or a value."""
    if istask(node):
        return node[0](*(_evaluate(argument, given) for argument in node[1:]))
    if isinstance(node, list):
        return [_evaluate(item, given) for item in node]
    return given[node] if ishashable(node) and node in given else node


def _nested(keys: Any, values: Mapping[Any, Any]) -> Any:
    return [_nested(key, values) for key in keys] if isinstance(keys, list) else values[keys]


class enable_dask_on_ray(dask.config.set):  # type: ignore[misc]  # dask has no types
    """Use `ray_dask_get` from now on, or in a ``with`` block.

    Args:
        shuffle: how Dask shuffles: "tasks".
        use_shuffle_optimization: no effect.
    """

    def __init__(self, shuffle: str | None = "tasks", use_shuffle_optimization: bool = True) -> None:
        super().__init__(scheduler=ray_dask_get, **({"dataframe.shuffle.method": shuffle} if shuffle else {}))


def disable_dask_on_ray() -> Callable[..., Any]:
    """Use Dask's own scheduler again."""
    return dask.config.set(scheduler=None)  # type: ignore[no-any-return]
