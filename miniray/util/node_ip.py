"""`get_node_ip_address`: where this node is."""

from __future__ import annotations

from miniray.processes import current


def get_node_ip_address(address: str = "8.8.8.8:53") -> str:
    """The IP address of this node: 127.0.0.1, as all nodes are on this machine.

    Args:
        address: has no effect: Ray asks for the way to it.
    """
    core = current.core_or_none()
    return core.node_ip if core is not None else "127.0.0.1"
