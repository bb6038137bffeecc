"""What can be asked of the head by name (`Query`), and the answers: plain data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from miniray.processes import head_actors, head_placement, head_states
from miniray.state_machines.resources import from_units

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

Answer = Callable[["Head", dict[str, Any]], Any]


def _nodes(head: Head, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    return [node.row for node in head.gcs.nodes.values()]


def _cluster_resources(head: Head, arguments: dict[str, Any]) -> dict[str, float]:
    return _sum(_shown(head, node_id, available=False) for node_id in head.leases.scheduler.nodes)


def _available_resources(head: Head, arguments: dict[str, Any]) -> dict[str, float]:
    # Counted per node: CPUs that are over-committed on one node do not hide free ones on another.
    return _sum(_shown(head, node_id, available=True) for node_id in head.leases.scheduler.nodes)


def _shown(head: Head, node_id: bytes, *, available: bool) -> dict[str, int]:
    scheduler = head.leases.scheduler
    resources = scheduler.nodes[node_id].resources
    units = resources.available if available else resources.total
    shown = {name: max(0, quantity) for name, quantity in units.items()}
    shown.update(head_placement.shown_resources(scheduler, node_id, available=available))
    return shown


def _sum(rows: Any) -> dict[str, float]:
    total: dict[str, int] = {}
    for row in rows:
        for name, quantity in row.items():
            total[name] = total.get(name, 0) + quantity
    return from_units(total)


def _available_per_node(head: Head, arguments: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {node_id.hex(): from_units(_shown(head, node_id, available=True)) for node_id in head.leases.scheduler.nodes}


def _total_per_node(head: Head, arguments: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        node_id.hex(): from_units(_shown(head, node_id, available=False)) for node_id in head.leases.scheduler.nodes
    }


def _job(head: Head, arguments: dict[str, Any]) -> dict[str, Any] | None:
    return head.gcs.jobs.get(arguments["job_id"])


def _jobs(head: Head, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "JobID": job_id.hex(),
            "DriverIPAddress": job["node_ip"],
            "DriverPid": job["pid"],
            "Timestamp": int((job["end_time"] or job["start_time"]) * 1000),
            "StartTime": int(job["start_time"] * 1000),
            "EndTime": int(job["end_time"] * 1000),
            "IsDead": job["is_dead"],
            "Entrypoint": job["entrypoint"],
        }
        for job_id, job in head.gcs.jobs.items()
    ]


def _workers(head: Head, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    pool = head.leases.pool.workers
    rows = []
    for member in head.members.values():
        row = member.row()
        row["state"] = pool[member.worker_id].state if member.worker_id in pool else ""
        rows.append(row)
    return rows


def _status(head: Head, arguments: dict[str, Any]) -> dict[str, Any]:
    startup = head.startup
    claims = head.leases.scheduler.claims.values()
    return {
        "session_name": head.config.session_name,
        "session_dir": head.config.session_dir,
        "address": f"127.0.0.1:{startup.port}",
        "version": head.config.version,
        "private": head.config.private,
        "pid": os.getpid(),
        "epoch": startup.epoch,
        "uptime_s": time.time() - startup.start_time,
        "nodes": len(head.leases.scheduler.nodes),
        "drivers": sum(member.kind == "driver" for member in head.members.values()),
        "workers": sum(member.kind == "worker" for member in head.members.values()),
        "leases": len(head.leases.scheduler.leases),
        "cluster_resources": _cluster_resources(head, arguments),
        "available_resources": _available_resources(head, arguments),
        "object_store": {
            node_id.hex(): {"used": node.store_used, "limit": node.store_limit}
            for node_id, node in head.gcs.nodes.items()
        },
        "demands": [
            {"resources": from_units(claim.spec.resources), "count": claim.count, "name": claim.spec.name}
            for claim in claims
            if claim.count
        ],
        "pending_groups": [
            {
                "name": group.spec.name,
                "strategy": group.spec.strategy,
                "state": group.progress,
                "bundles": [from_units(bundle.resources) for bundle in group.missing()],
            }
            for group in head.placement.groups.waiting.values()
        ],
    }


def _publisher(head: Head, arguments: dict[str, Any]) -> dict[str, Any]:
    rows = {}
    for subscriber, found in head.gcs.publisher.subscribers.items():
        subscription = found.subscription
        rows[subscriber.hex()] = {
            "queued": subscription.queued(),
            "dropped": subscription.dropped,
            "channels": list(found.channels),
            "health": subscription.health(head.now),
            **msgspec.structs.asdict(subscription.heartbeat(head.now)),
        }
    return rows


QUERIES: dict[str, Answer] = {
    "nodes": _nodes,
    "cluster_resources": _cluster_resources,
    "available_resources": _available_resources,
    "available_resources_per_node": _available_per_node,
    "total_resources_per_node": _total_per_node,
    "job": _job,
    "jobs": _jobs,
    "workers": _workers,
    "status": _status,
    "publisher": _publisher,
    "actor_states": head_states.actor_states,
    "worker_states": head_states.worker_states,
    "node_states": head_states.node_states,
    "job_states": head_states.job_states,
    "runtime_env_states": head_states.runtime_env_states,
    "named_actor": head_actors.query_named,
    "list_named_actors": head_actors.query_names,
    "actor": head_actors.query_actor,
    "actors": head_actors.query_actors,
    "placement_group": head_placement.query_group,
    "placement_groups": head_placement.query_groups,
    "session": lambda head, arguments: head.gcs.session(),
}
