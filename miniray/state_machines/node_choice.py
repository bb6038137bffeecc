"""On which node a task runs: Ray's scheduling strategies.

DEFAULT is Ray's hybrid policy: nodes are packed in order (the owner's own first) until they would be half full; beyond
that the emptiest one is taken. SPREAD takes the emptiest, in turn among equals. A node affinity names its node; a soft
one falls back to the rest.

A strategy travels as msgpack: ``b""`` for DEFAULT, ``"SPREAD"``, or ``["node", node_id, soft]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from miniray.state_machines.resources import NodeResources

_HALF_FULL = 0.5


class Candidate(msgspec.Struct, gc=False):
    """A living node, as the choice sees it."""

    node_id: bytes
    resources: NodeResources
    labels: dict[str, str]
    last_used: int  #: number of the last placement there, for taking turns


def decode_strategy(strategy: bytes) -> Any:
    """The plain data of a strategy."""
    return msgspec.msgpack.decode(strategy) if strategy else "DEFAULT"


def eligible(nodes: Sequence[Candidate], demand: Mapping[str, int], strategy: Any) -> list[Candidate]:
    """The nodes that could ever run it."""
    able = [node for node in nodes if node.resources.could_fit(demand)]
    if isinstance(strategy, list) and strategy[0] == "node":
        named = [node for node in able if node.node_id == strategy[1]]
        return named if named or not strategy[2] else able
    return able


def choose(
    nodes: Sequence[Candidate], demand: Mapping[str, int], strategy: Any, owner_node: bytes = b""
) -> Candidate | None:
    """The node to run it on now, None if it has to wait."""
    fitting = [node for node in nodes if node.resources.fits(demand)]
    if not fitting:
        return None
    if strategy == "SPREAD":
        return min(fitting, key=lambda node: (node.resources.utilization(demand), node.last_used))

    def hybrid(node: Candidate) -> tuple[float, bool]:
        utilization = node.resources.utilization(demand)
        return (0.0 if utilization <= _HALF_FULL else utilization, node.node_id != owner_node)

    return min(fitting, key=hybrid)
