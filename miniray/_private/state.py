"""Under Ray's name ``ray._private.state``: the tables of the session, as dictionaries with Ray's old keys."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from miniray._private.utils import validate_actor_state_name
from miniray.api import _query, available_resources, cluster_resources, nodes, timeline
from miniray.ids import JobID

__all__ = [
    "GlobalState",
    "actors",
    "available_resources",
    "available_resources_per_node",
    "cluster_resources",
    "current_node_id",
    "jobs",
    "next_job_id",
    "node_ids",
    "nodes",
    "object_transfer_timeline",
    "state",
    "timeline",
    "total_resources_per_node",
    "workers",
]


def actors(actor_id: str | None = None, job_id: Any = None, actor_state_name: str | None = None) -> dict[str, Any]:
    """All actors by id, or the row of one of them, {} if there is none.

    Args:
        actor_id: in hex.
        job_id: only those of this job.
        actor_state_name: only those in this state.

    Raises:
        ValueError: there is no such state.
        RaySystemError: there is no session.
    """
    validate_actor_state_name(actor_state_name)
    if actor_id is not None:
        row = _query("actor", actor_id=bytes.fromhex(actor_id))
        return _actor(row) if row else {}
    rows = [_actor(row) for row in _query("actors")]
    return {
        row["ActorID"]: row
        for row in rows
        if (job_id is None or row["JobID"] == job_id.hex()) and actor_state_name in (None, row["State"])
    }


def _actor(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "ActorID": row["actor_id"],
        "ActorClassName": row["class_name"],
        "IsDetached": row["is_detached"],
        "Name": row["name"],
        "JobID": row["job_id"],
        "Address": {"IPAddress": "127.0.0.1", "Port": 0, "NodeID": row["node_id"] or ""},
        "OwnerAddress": {"IPAddress": "127.0.0.1", "Port": 0, "NodeID": ""},
        "State": row["state"],
        "NumRestarts": row["num_restarts"],
        "Timestamp": 0.0,
        "StartTime": 0,
        "EndTime": 0,
        "DeathCause": row["death_cause"],
        "Pid": row["pid"],
    }


def jobs() -> list[dict[str, Any]]:
    """One row per job."""
    rows: list[dict[str, Any]] = _query("jobs")
    return rows


def workers() -> dict[str, dict[str, Any]]:
    """The worker processes that are there, by id in hex."""
    session = _query("session")
    return {
        row["worker_id"].hex(): {
            "node_ip_address": "127.0.0.1",
            "plasma_store_socket": session["object_store_address"],
            "pid": str(row["pid"]),
        }
        for row in _query("workers")
        if row["alive"]
    }


def node_ids() -> list[str]:
    """The resources that stand for the nodes, ``node:`` and an address."""
    found = {name for row in nodes() for name in row["Resources"] if name.startswith("node:")}
    return sorted(name for name in found if name != "node:__internal_head__")


def current_node_id() -> str:
    """The resource that stands for this node."""
    from miniray.util.node_ip import get_node_ip_address

    return f"node:{get_node_ip_address()}"


def next_job_id() -> JobID:
    """The id that the next job will have."""
    return JobID.from_int(max((JobID(bytes.fromhex(row["JobID"])).int() for row in jobs()), default=0) + 1)


def available_resources_per_node() -> dict[str, dict[str, float]]:
    """What is free now, by node id in hex."""
    rows: dict[str, dict[str, float]] = _query("available_resources_per_node")
    return rows


def total_resources_per_node() -> dict[str, dict[str, float]]:
    """What there is, by node id in hex."""
    rows: dict[str, dict[str, float]] = _query("total_resources_per_node")
    return rows


def object_transfer_timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """Transfers of objects between machines: there are none."""
    if filename is None:
        return []
    with open(filename, "w", encoding="utf-8") as file:
        file.write("[]")
    return None


class GlobalState:
    """The same tables as methods."""

    def node_table(self) -> list[dict[str, Any]]:
        """One row per node."""
        return nodes()

    def job_table(self) -> list[dict[str, Any]]:
        """One row per job."""
        return jobs()

    def actor_table(self, actor_id: str | None, job_id: Any = None, actor_state_name: str | None = None) -> Any:
        """`actors`."""
        return actors(actor_id, job_id, actor_state_name)

    def placement_group_table(self, placement_group_id: Any = None) -> Any:
        """All placement groups by id, or one of them."""
        table: dict[str, Any] = import_module("miniray.util.placement_group").placement_group_table()
        return table if placement_group_id is None else table.get(placement_group_id.hex(), {})

    def workers(self) -> dict[str, dict[str, Any]]:
        """The worker processes."""
        return workers()

    def cluster_resources(self) -> dict[str, float]:
        """What there is on all nodes together."""
        return cluster_resources()

    def available_resources(self) -> dict[str, float]:
        """What is free on all nodes together."""
        return available_resources()

    def available_resources_per_node(self) -> dict[str, dict[str, float]]:
        """What is free, by node."""
        return available_resources_per_node()

    def total_resources_per_node(self) -> dict[str, dict[str, float]]:
        """What there is, by node."""
        return total_resources_per_node()

    def next_job_id(self) -> JobID:
        """The id that the next job will have."""
        return next_job_id()

    def get_node(self, node_id: str) -> dict[str, Any]:
        """The row of a node, {} if there is none."""
        return next((row for row in nodes() if row["NodeID"] == node_id), {})

    def chrome_tracing_dump(self, filename: str | None = None) -> Any:
        """`timeline`."""
        return timeline(filename)

    def disconnect(self) -> None:
        """Nothing is kept that could be let go."""

    def _initialize_global_state(self, options: Any) -> None:
        """Nothing to be prepared."""

    def _really_init_global_state(self) -> None:
        """Nothing to be prepared."""


state = GlobalState()
