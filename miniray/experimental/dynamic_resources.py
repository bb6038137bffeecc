"""`set_resource`: gone in Ray, and so here."""

from __future__ import annotations

from typing import NoReturn


def set_resource(resource_name: str, capacity: float, node_id: str | None = None) -> NoReturn:
    """DeprecationWarning: resources of a node are given when it starts."""
    raise DeprecationWarning(
        "Dynamic custom resources are deprecated. Consider using placement groups instead "
        "(docs.ray.io/en/master/placement-group.html). You can also specify resources at Ray start time with the "
        "'resources' field in the cluster autoscaler."
    )
