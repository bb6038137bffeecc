"""`FunctionNode`: a task of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import miniray
from miniray.dag.dag_node import DAGNode


class FunctionNode(DAGNode):
    """A call of a remote function. Made by ``f.bind(...)``."""

    def __init__(
        self,
        func_body: Callable[..., Any],
        func_args: tuple[Any, ...],
        func_kwargs: dict[str, Any],
        func_options: dict[str, Any],
        other_args_to_resolve: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(func_args, func_kwargs, func_options, other_args_to_resolve)
        self._body = func_body
        self._remote: Any = None  #: the remote function, with the options of its decorator

    def _run(self, args: list[Any], kwargs: dict[str, Any]) -> Callable[..., Any]:
        options = self._bound_options
        function = self._remote or miniray.remote(self._body)
        return lambda others, *given: (function.options(**options) if options else function).remote(*args, **kwargs)

    def _body_text(self) -> str:
        return str(self._body)
