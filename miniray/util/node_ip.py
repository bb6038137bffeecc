"""`get_node_ip_address` and `get_node_instance_id`: where this node is."""

from __future__ import annotations

import os

from miniray.processes import current


def get_node_ip_address(address: str = "8.8.8.8:53") -> str:
    """The IP address of this node: 127.0.0.1, as all nodes are on this machine.

    Args:
        address: has no effect: Ray asks for the way to it.
    """
    core = current.core_or_none()
    return core.node_ip if core is not None else "127.0.0.1"


def get_node_instance_id() -> str:
    """The name that a cloud has given to this machine (``RAY_CLOUD_INSTANCE_ID``), "" elsewhere."""
    return os.environ.get("RAY_CLOUD_INSTANCE_ID", "")
