"""`MultiOutputNode`: several results of one execution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from miniray.dag.dag_node import DAGNode


class MultiOutputNode(DAGNode):
    """`execute` gives a list: the refs of all these nodes.

    Args:
        args: a list or tuple of nodes.

    Raises:
        ValueError: neither.
    """

    def __init__(self, args: Any, other_args_to_resolve: dict[str, Any] | None = None) -> None:
        if isinstance(args, tuple):
            args = list(args)
        if not isinstance(args, list):
            raise ValueError(f"Invalid input type for `args`, {type(args)}.")
        super().__init__(tuple(args), {}, {}, other_args_to_resolve)

    def _run(self, args: list[Any], kwargs: dict[str, Any]) -> Callable[..., Any]:
        return lambda others, *given: args
