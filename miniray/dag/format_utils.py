"""A graph as text: what `str` of a node gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miniray.dag.dag_node import DAGNode

_STEP = "    "


def node_as_text(node: DAGNode, body: str) -> str:
    """The node, and below it its arguments, options and what else it depends on."""
    shown = {name: value for name, value in node._bound_other_args_to_resolve.items() if name != "bind_index"}
    lines = [f"({type(node).__name__}, {node._stable_uuid})(", f"{_STEP}body={body}"]
    lines += _block("args", "[", [_argument(value) for value in node._bound_args], "]")
    lines += _block("kwargs", "{", [_named(name, value) for name, value in node._bound_kwargs.items()], "}")
    lines += _block("options", "{", [f"{name}: {value}" for name, value in node._bound_options.items()], "}")
    lines += _block("other_args_to_resolve", "{", [_named(name, value) for name, value in shown.items()], "}")
    return "\n".join([*lines, ")"])


def _is_node(value: Any) -> bool:
    return hasattr(value, "_stable_uuid")


def _argument(value: Any) -> str:
    return str(value) if _is_node(value) else f"{value}, "


def _named(name: str, value: Any) -> str:
    if not _is_node(value):
        return f"{name}: {value}"
    return f"{name}:    \n" + "\n".join(_STEP + line for line in str(value).split("\n"))


def _block(name: str, opening: str, items: list[str], closing: str) -> list[str]:
    if not items:
        return [f"{_STEP}{name}={opening}{closing}"]
    inside = [_STEP * 2 + line for item in items for line in item.split("\n")]
    return [f"{_STEP}{name}={opening}", *inside, f"{_STEP}{closing}"]
