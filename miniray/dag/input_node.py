"""`InputNode`: stands for what `execute` is given, and for its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from miniray.dag.dag_node import DAGNode

IN_CONTEXT_MANAGER = "__in_context_manager__"


class InputNode(DAGNode):
    """What `execute` is given: the one argument itself, else all of them as `DAGInputData`.

    ::

        with InputNode() as given:
            graph = f.bind(given[0], given.key)
        graph.execute(1, key=2)

    Args:
        input_type: the types of the input, for those who draw a form.
    """

    def __init__(self, *args: Any, input_type: Any = None, _other_args_to_resolve: Any = None, **kwargs: Any) -> None:
        if args or kwargs:
            raise ValueError("InputNode should not take any args or kwargs.")
        super().__init__((), {}, {}, _other_args_to_resolve)
        self.input_attribute_nodes: dict[Any, InputAttributeNode] = {}
        self.input_type = input_type

    def _run(self, args: list[Any], kwargs: dict[str, Any]) -> Callable[..., Any]:
        assert self._bound_other_args_to_resolve.get(IN_CONTEXT_MANAGER), (
            "InputNode is a singleton instance that should be only used in context manager for dag building and "
            "execution. See the docstring of class InputNode for examples."
        )

        def take(others: dict[str, Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            return given[0] if len(given) == 1 and not named else DAGInputData(*given, **named)

        return take

    def __enter__(self) -> InputNode:
        self._bound_other_args_to_resolve[IN_CONTEXT_MANAGER] = True
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __getattr__(self, key: str) -> InputAttributeNode:
        if key.startswith("_") or "input_attribute_nodes" not in self.__dict__:
            raise AttributeError(key)
        return self._attribute(key, "__getattr__")

    def __getitem__(self, key: int | str) -> InputAttributeNode:
        if not isinstance(key, (int, str)):
            raise ValueError("Please only use int index or str as first-level key to access fields of dag input.")
        return self._attribute(key, "__getitem__")

    def _attribute(self, key: int | str, accessor: str) -> InputAttributeNode:
        nodes = self.input_attribute_nodes
        if key not in nodes:
            nodes[key] = InputAttributeNode(self, key, accessor)
        return nodes[key]


class InputAttributeNode(DAGNode):
    """A part of the input: an argument by its place or name; of a single one, its item or attribute."""

    def __init__(
        self, dag_input_node: InputNode, key: int | str, accessor_method: str, input_type: str | None = None
    ) -> None:
        others = {
            "dag_input_node": dag_input_node,
            "key": key,
            "accessor_method": accessor_method,
            "result_type_string": input_type,
        }
        super().__init__((), {}, {}, others)
        self._key = key
        self._accessor_method = accessor_method

    def _run(self, args: list[Any], kwargs: dict[str, Any]) -> Callable[..., Any]:
        key, by_name = self._key, self._accessor_method == "__getattr__"

        def take(others: dict[str, Any], *given: Any) -> Any:
            value = others["dag_input_node"]
            if isinstance(value, DAGInputData):
                return value[key]
            return getattr(value, str(key)) if by_name else value[key]

        return take

    def _body_text(self) -> str:
        return f'["{self._key}"]'


class DAGInputData:
    """Several arguments of `execute` together: by index, or by name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._args = list(args)
        self._kwargs = kwargs

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, int):
            return self._args[key]
        if isinstance(key, str):
            return self._kwargs[key]
        raise ValueError("Please only use int index or str as first-level key to access fields of dag input.")
