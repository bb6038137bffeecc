"""`DAGNode`: a node of a task graph: what it stands for, its arguments (nodes among them), how it is executed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from miniray.dag.format_utils import node_as_text


class DAGNode:
    """A node. `execute` runs it and all that it depends on."""

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
        other_args_to_resolve: dict[str, Any] | None = None,
    ) -> None:
        self._bound_args = tuple(args or ())
        self._bound_kwargs = dict(kwargs or {})
        self._bound_options = dict(options or {})
        self._bound_other_args_to_resolve = dict(other_args_to_resolve or {})
        self._stable_uuid = uuid.uuid4().hex
        self.cache_from_last_execute: dict[str, Any] = {}

    # -- what it is ------------------------------------------------------------------------------------------------

    def get_args(self) -> tuple[Any, ...]:
        """The bound positional arguments."""
        return self._bound_args

    def get_kwargs(self) -> dict[str, Any]:
        """The bound keyword arguments."""
        return dict(self._bound_kwargs)

    def get_options(self) -> dict[str, Any]:
        """The options of the task or actor."""
        return dict(self._bound_options)

    def get_other_args_to_resolve(self) -> dict[str, Any]:
        """What it depends on besides its arguments, by name."""
        return dict(self._bound_other_args_to_resolve)

    def get_stable_uuid(self) -> str:
        """A name that no other node has."""
        return self._stable_uuid

    def get_object_refs_from_last_execute(self) -> dict[str, Any]:
        """What each node gave when `execute` ran last with ``_ray_cache_refs=True``, by the nodes' names."""
        return dict(self.cache_from_last_execute)

    def clear_cache(self) -> None:
        """Forget that."""
        self.cache_from_last_execute = {}

    # -- running it ------------------------------------------------------------------------------------------------

    def execute(self, *args: Any, _ray_cache_refs: bool = False, **kwargs: Any) -> Any:
        """Run the graph below this node; each node once.

        Args:
            *args, **kwargs: what `InputNode` stands for.
            _ray_cache_refs: keep what every node gave, see `get_object_refs_from_last_execute`.

        Returns:
            A ref; a list of refs from `MultiOutputNode`; a handle from a class.
        """
        done: dict[str, Any] = {}

        def run(node: DAGNode) -> Any:
            if node._stable_uuid not in done:
                result = node._run(
                    [_resolved(arg, run) for arg in node._bound_args], _resolved(node._bound_kwargs, run)
                )(_resolved(node._bound_other_args_to_resolve, run), args, kwargs)
                done[node._stable_uuid] = result
            return done[node._stable_uuid]

        result = run(self)
        if _ray_cache_refs:
            self.cache_from_last_execute = done
        return result

    def _run(self, args: list[Any], kwargs: dict[str, Any]) -> Callable[..., Any]:
        raise NotImplementedError

    def experimental_compile(self, *args: Any, **kwargs: Any) -> NoReturn:
        """NotImplementedError: miniray has no compiled graphs."""
        raise NotImplementedError(
            "miniray has no compiled graphs (they belong to Ray's compiled code): use execute, or run this program on "
            "the real Ray."
        )

    # -- walking through it ----------------------------------------------------------------------------------------

    def _get_toplevel_child_nodes(self) -> list[DAGNode]:
        """The nodes that are arguments themselves, each once."""
        given = [*self._bound_args, *self._bound_kwargs.values(), *self._bound_other_args_to_resolve.values()]
        return list(dict.fromkeys(node for node in given if isinstance(node, DAGNode)))

    def _get_all_child_nodes(self) -> list[DAGNode]:
        """The nodes in its arguments, inside containers, too; each once."""
        given = (self._bound_args, self._bound_kwargs, self._bound_other_args_to_resolve)
        return list(dict.fromkeys(node for value in given for node in _nodes_in(value)))

    def apply_recursive(self, fn: Callable[[Any], Any]) -> Any:
        """Copy the graph bottom-up, with `fn(copy)` in place of each node; what `fn` gave for this one."""
        done: dict[str, Any] = {}

        def visit(node: DAGNode) -> Any:
            if node._stable_uuid not in done:
                done[node._stable_uuid] = fn(node._with(lambda value: _resolved(value, visit)))
            return done[node._stable_uuid]

        return visit(self)

    def _with(self, change: Callable[[Any], Any]) -> DAGNode:
        """A copy whose arguments went through `change`; it keeps its name."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._bound_args = tuple(change(list(self._bound_args)))
        copy._bound_kwargs = change(self._bound_kwargs)
        copy._bound_other_args_to_resolve = change(self._bound_other_args_to_resolve)
        return copy

    def traverse_and_apply(self, fn: Callable[[DAGNode], Any]) -> None:
        """Call `fn` with every node below this one and with this one, each once."""
        seen: set[str] = set()
        waiting: list[DAGNode] = [self]
        while waiting:
            node = waiting.pop()
            if node._stable_uuid not in seen:
                seen.add(node._stable_uuid)
                fn(node)
                waiting += node._get_all_child_nodes()

    def __getattr__(self, attr: str) -> Any:
        if attr == "remote":
            raise AttributeError(
                f".remote() cannot be used on {type(self)}. To execute the task graph for this node, use .execute()."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {attr!r}")

    def __reduce__(self) -> Any:
        # The state comes after the object: an actor and its calls name each other.
        return object.__new__, (type(self),), self.__dict__

    def __str__(self) -> str:
        return node_as_text(self, self._body_text())

    def _body_text(self) -> str:
        return f"__{type(self).__name__}__"


def _resolved(value: Any, run: Callable[[DAGNode], Any]) -> Any:
    """The value with the nodes in it replaced, in lists, tuples and dictionaries, too."""
    if isinstance(value, DAGNode):
        return run(value)
    if not any(True for _ in _nodes_in(value)):
        return dict(value) if type(value) is dict else list(value) if type(value) is list else value
    if isinstance(value, dict):
        return {key: _resolved(item, run) for key, item in value.items()}
    items = [_resolved(item, run) for item in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _nodes_in(value: Any) -> Iterator[DAGNode]:
    if isinstance(value, DAGNode):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _nodes_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _nodes_in(item)
