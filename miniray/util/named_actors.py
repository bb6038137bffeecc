"""`list_named_actors`: which names are taken."""

from __future__ import annotations

from typing import Any

from miniray.messages.control import Query
from miniray.processes.auto_init import require_core
from miniray.processes.other_engine import handed_over


@handed_over
def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """The names of all actors that were created with one and are not dead.

    Args:
        all_namespaces: those of all namespaces, as ``{"namespace": ..., "name": ...}``.

    As https://docs.ray.io/en/latest/ray-core/api/doc/ray.util.list_named_actors.html
    """
    core = require_core()
    arguments = {"namespace": None if all_namespaces else core.namespace}
    rows = core.head_client.request(lambda number: Query(number, "list_named_actors", arguments))
    return list(rows) if all_namespaces else [row["name"] for row in rows]
