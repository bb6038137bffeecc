"""`get_object_locations`: on which nodes objects lie, and how large they are.

Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.experimental.get_object_locations.html
"""

from __future__ import annotations

from typing import Any

from miniray.exceptions import RaySystemError
from miniray.processes import current

__all__ = ["get_local_object_locations", "get_object_locations"]


def get_object_locations(obj_refs: list[Any], timeout_ms: int = -1) -> dict[Any, dict[str, Any]]:
    """For each ref a dictionary: `node_ids` (in hex; empty until there is a value), `object_size` (in bytes, None if
    not known), `did_spill`.

    Args:
        obj_refs: refs.
        timeout_ms: no effect: what is told is what this process knows.

    Raises:
        RaySystemError: there is no session.
    """
    return get_local_object_locations(obj_refs)


def get_local_object_locations(obj_refs: list[Any]) -> dict[Any, dict[str, Any]]:
    """The same, from what this process knows without asking."""
    core = current.core_or_none()
    if core is None or core.closed:
        raise RaySystemError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    found: dict[Any, dict[str, Any]] = {}
    with core.lock:
        for ref in obj_refs:
            entry = core.objects.entries.get(ref.binary())
            payload = entry.payload if entry is not None else None
            nodes: list[str] = []
            size = None
            if payload is not None and payload.location is not None:
                nodes, size = [payload.location.node_id.hex()], payload.location.size
            elif payload is not None:
                nodes, size = [core.node_id.hex()], len(payload.data or b"")
            found[ref] = {"node_ids": nodes, "object_size": size, "did_spill": False}
    return found
