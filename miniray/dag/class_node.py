"""`ClassNode` and `ClassMethodNode`: an actor of a graph, and calls of its methods, in the order of their ``bind``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import miniray
from miniray.dag.constants import BIND_INDEX_KEY, PARENT_CLASS_NODE_KEY, PREV_CLASS_METHOD_CALL_KEY
from miniray.dag.dag_node import DAGNode


class ClassNode(DAGNode):
    """An actor that each execution creates anew. Made by ``Class.bind(...)``; its attributes are its methods."""

    def __init__(
        self,
        cls: type,
        cls_args: tuple[Any, ...],
        cls_kwargs: dict[str, Any],
        cls_options: dict[str, Any],
        other_args_to_resolve: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(cls_args, cls_kwargs, cls_options, other_args_to_resolve)
        self._body = cls
        self._remote: Any = None  #: the actor class, with the options of its decorator
        self._last_call: ClassMethodNode | None = None

    def __getattr__(self, method_name: str) -> _UnboundClassMethodNode:
        if method_name.startswith("__") or "_body" not in self.__dict__:
            raise AttributeError(method_name)
        getattr(self._body, method_name)  # raises for what is no method
        return _UnboundClassMethodNode(self, method_name, {})

    def _run(self, args: list[Any], kwargs: dict[str, Any]) -> Callable[..., Any]:
        options = self._bound_options
        actor_class = self._remote or miniray.remote(self._body)
        chosen = actor_class.options(**options) if options else actor_class
        return lambda others, *given: chosen.remote(*args, **kwargs)

    def _body_text(self) -> str:
        return str(self._body)


class _UnboundClassMethodNode:
    """A method that has no arguments yet."""

    def __init__(self, parent: ClassNode | Any, method_name: str, options: dict[str, Any]) -> None:
        self._parent = parent
        self._method_name = method_name
        self._options = options

    def bind(self, *args: Any, **kwargs: Any) -> ClassMethodNode:
        """A call with these arguments, after all calls of this actor that were bound before."""
        parent = self._parent
        others = {PARENT_CLASS_NODE_KEY: parent, PREV_CLASS_METHOD_CALL_KEY: parent._last_call, BIND_INDEX_KEY: 0}
        parent._last_call = node = ClassMethodNode(self._method_name, args, kwargs, self._options, others)
        return node

    def __getattr__(self, attr: str) -> Any:
        if attr == "remote":
            raise AttributeError(
                ".remote() cannot be used on ClassMethodNodes. Use .bind() instead to express an symbolic actor call."
            )
        raise AttributeError(attr)

    def options(self, **options: Any) -> _UnboundClassMethodNode:
        """The same method with other options."""
        return _UnboundClassMethodNode(self._parent, self._method_name, {**self._options, **options})


class ClassMethodNode(DAGNode):
    """A call of an actor's method. Made by ``actor.method.bind(...)``, of a `ClassNode` or of a handle."""

    def __init__(
        self,
        method_name: str,
        method_args: tuple[Any, ...],
        method_kwargs: dict[str, Any],
        method_options: dict[str, Any],
        other_args_to_resolve: dict[str, Any],
    ) -> None:
        super().__init__(method_args, method_kwargs, method_options, other_args_to_resolve)
        self._method_name = method_name

    def get_method_name(self) -> str:
        """The name of the method."""
        return self._method_name

    def _get_bind_index(self) -> int:
        return int(self._bound_other_args_to_resolve.get(BIND_INDEX_KEY, 0))

    def _get_actor_handle(self) -> Any:
        parent = self._bound_other_args_to_resolve[PARENT_CLASS_NODE_KEY]
        return None if isinstance(parent, DAGNode) else parent

    def _run(self, args: list[Any], kwargs: dict[str, Any]) -> Callable[..., Any]:
        options, name = self._bound_options, self._method_name

        def submit(others: dict[str, Any], *given: Any) -> Any:
            method = getattr(others[PARENT_CLASS_NODE_KEY], name)
            return (method.options(**options) if options else method).remote(*args, **kwargs)

        return submit

    def _body_text(self) -> str:
        return f"{self._method_name}()"

    __repr__ = DAGNode.__str__
