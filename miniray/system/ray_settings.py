"""Settings that have Ray's names: ``_system_config={name: value}`` of ``init`` first, then ``RAY_<name>`` in the
environment, then the default.

Only those that miniray has a use for are asked for; others are taken, and change nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, TypeVar

_T = TypeVar("_T", bool, int, float, str)

#: The share of the object store in use above which objects are spilled in the background.
SPILLING_THRESHOLD = "object_spilling_threshold", 0.8
SPILLING_ENABLED = "automatic_object_spilling_enabled", True
#: The share of a disk in use above which nothing more is written to it.
DISK_THRESHOLD = "local_fs_capacity_threshold", 0.95
#: How many actors stay known after their death. (Ray keeps 100,000.)
KEPT_DEAD = "maximum_gcs_destroyed_actor_cached_count", 10_000
#: How many nodes stay known after their death (Ray's number).
KEPT_DEAD_NODES = "maximum_gcs_dead_node_cached_count", 1000
#: How many workers and drivers stay known after their death. (Ray has no such limit; the name is in its style.)
KEPT_DEAD_WORKERS = "maximum_gcs_dead_worker_cached_count", 1000
#: How many jobs stay known after their end. (Ray has no such limit.)
KEPT_JOBS = "maximum_gcs_finished_job_cached_count", 10_000
#: How many events of ended tasks are kept (Ray's number): 20 MB at most.
KEPT_TASK_EVENTS = "task_events_max_num_task_in_gcs", 100_000


def setting(given: Mapping[str, Any], name: str, default: _T) -> _T:
    """One setting, as the type of its default. Raises ValueError for what cannot be read as that."""
    value = given.get(name)
    if value is None:
        value = os.environ.get(f"RAY_{name}")
        if value is None:
            return default
    try:
        if isinstance(default, bool):
            return value if isinstance(value, bool) else str(value).lower() in ("1", "true")
        return type(default)(value)
    except (TypeError, ValueError):
        raise ValueError(f"The setting {name} must be a {type(default).__name__}, and is {value!r}.") from None


def spilling_directory(given: Mapping[str, Any], explicit: str | None = None) -> str:
    """Where the user wants objects to be spilled to; "" for the session's own directory.

    Args:
        given: ``_system_config``.
        explicit: the parameter ``object_spilling_directory``, which comes first.

    Raises:
        ValueError: the configuration names something else than directories of this machine.
    """
    directory = explicit or setting(given, "object_spilling_directory", "")
    if directory:
        return directory
    config = given.get("object_spilling_config") or os.environ.get("RAY_object_spilling_config")  # noqa: SIM112
    if not config:
        return ""
    try:
        parsed = json.loads(config) if isinstance(config, str) else config
        kind, where = parsed["type"], parsed.get("params", {}).get("directory_path")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"object_spilling_config cannot be read: {config!r}") from error
    if kind != "filesystem":
        raise ValueError(f"Object spilling to {kind!r} is not available on one machine; use 'filesystem'.")
    if isinstance(where, list):
        where = where[0] if where else None
    if not isinstance(where, str):
        raise ValueError("directory_path should be provided to use object spilling.")
    return where
