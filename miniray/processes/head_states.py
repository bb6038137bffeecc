"""The rows that the state API shows of what the head itself knows: plain data with Ray's columns and words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from miniray import death_causes
from miniray.messages.control import DEAD
from miniray.processes import head_actors
from miniray.state_machines import actor_lifecycle
from miniray.state_machines.table_prefix import TablePrefix

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head
    from miniray.state_machines.actor_record import Actor

_decode = msgspec.msgpack.decode

#: Ray's word for why an actor is dead, by `cause["kind"]`
_REASONS = {
    actor_lifecycle.KILLED: "RAY_KILL",
    actor_lifecycle.OUT_OF_SCOPE: "OUT_OF_SCOPE",
    actor_lifecycle.WORKER_DIED: "WORKER_DIED",
    actor_lifecycle.NODE_DIED: "NODE_DIED",
    actor_lifecycle.OWNER_DIED: "OWNER_DIED",
}
_INIT_FAILED = (
    "Worker exits because there was an exception in the initialization method (e.g., __init__). Fix the exceptions "
    "from the initialization to resolve the issue."
)


def actor_states(head: Head, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """All actors, the dead that are remembered among them."""
    return [_actor(actor) for actor in head.actors.lifecycle.actors.values()]


def _actor(actor: Actor) -> dict[str, Any]:
    return {
        **head_actors.row(actor),
        "class_name": actor.spec.qualified_name or actor.spec.class_name,
        "pid": actor.pid,
        "death_cause": _death_cause(actor),
        "repr_name": "",
        "num_restarts_due_to_lineage_reconstruction": 0,
        "num_restarts_due_to_node_preemption": 0,
        "call_site": None,
        "label_selector": dict(actor.spec.placement.label_selector),
        "fallback_strategy": None,
    }


def _death_cause(actor: Actor) -> dict[str, Any] | None:
    cause = actor.cause
    if cause is None or actor.state != DEAD:
        return None
    message = cause["error_message"]
    if cause["kind"] == actor_lifecycle.CREATION_FAILED:
        return {"creation_task_failure_context": {"formatted_exception_string": message}}
    if cause["kind"] == actor_lifecycle.UNPLACEABLE:
        return {"actor_unschedulable_context": {"detail": message}}
    context = {key: value.hex() if isinstance(value, bytes) else value for key, value in cause.items() if key != "kind"}
    context["class_name"] = actor.spec.qualified_name or actor.spec.class_name
    context["reason"] = _REASONS.get(cause["kind"], "UNSPECIFIED")
    return {"actor_died_error_context": context}


def worker_states(head: Head, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """All processes, those that have ended as long as they are remembered."""
    rows = {bytes(key): _decode(value) for key, value in head.gcs.tables.scan(TablePrefix.WORKERS)}
    for member in head.members.values():
        if member.registered:
            rows[member.worker_id] = member.row()
    return [_worker(row) for row in rows.values()]


def _worker(row: dict[str, Any]) -> dict[str, Any]:
    alive = row["alive"]
    exit_type, detail = (None, None) if alive else worker_exit(row.get("exit_type", ""), row.get("exit_detail", ""))
    started = row["start_time_ms"]
    return {
        "worker_id": row["worker_id"].hex(),
        "is_alive": alive,
        "worker_type": row["kind"].upper(),
        "exit_type": exit_type,
        "node_id": row["node_id"].hex(),
        "pid": row["pid"],
        "exit_detail": detail,
        "worker_launch_time_ms": started,
        "worker_launched_time_ms": started,
        "start_time_ms": started,
        "end_time_ms": row.get("end_time_ms", 0),
        "debugger_port": None,
        "num_paused_threads": None,
        "log_files": row["log_files"],
    }


def worker_exit(exit_type: str, detail: str) -> tuple[str, str]:
    """How a worker has ended, in Ray's words."""
    if detail.startswith("exit_actor"):
        return "INTENDED_USER_EXIT", death_causes.EXIT_ACTOR
    if detail in ("exit code 0", "exit code None"):
        return "INTENDED_USER_EXIT", death_causes.USER_EXIT
    if detail.startswith("exit code "):
        return "SYSTEM_ERROR", f"Worker exits with an {detail}."
    if detail == "max_calls":
        return (
            "INTENDED_USER_EXIT",
            f"{death_causes.USER_EXIT} Exited because worker reached max_calls for this method.",
        )
    if detail.endswith("its actor could not be created."):
        return "USER_ERROR", _INIT_FAILED
    if detail == "It was ended by the head: killed.":
        return "INTENDED_SYSTEM_EXIT", f"Worker exits because the actor is killed. {death_causes.KILLED}"
    if exit_type == "SYSTEM_ERROR":
        return exit_type, f"{death_causes.CONNECTION_LOST} {detail}"
    if exit_type == "NODE_DIED":
        return "SYSTEM_ERROR", detail
    return exit_type, detail


def node_states(head: Head, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """All virtual nodes."""
    rows = []
    for node in head.gcs.nodes.values():
        row = node.row
        alive = row["Alive"]
        rows.append(
            {
                "node_id": row["NodeID"],
                "node_ip": row["NodeManagerAddress"],
                "is_head_node": node.node_id == head.startup.node_id,
                "state": "ALIVE" if alive else "DEAD",
                "state_message": None if alive else row["DeathReasonMessage"] or None,
                "node_name": row["NodeName"],
                "resources_total": row["Resources"],
                "labels": row["Labels"],
                "start_time_ms": int(node.start_time * 1000),
                "end_time_ms": int(node.end_time * 1000),
            }
        )
    return rows


def job_states(head: Head, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """All jobs."""
    rows = []
    for job_id, job in head.gcs.jobs.items():
        config = job["config"]
        runtime_env = config.get("runtime_env") or {}
        rows.append(
            {
                "type": "DRIVER",
                "job_id": job_id.hex(),
                "submission_id": None,
                "driver_info": {"id": job_id.hex(), "node_ip_address": job["node_ip"], "pid": str(job["pid"])},
                "status": "SUCCEEDED" if job["is_dead"] else "RUNNING",
                "entrypoint": job["entrypoint"],
                "message": None,
                "error_type": None,
                "start_time": int(job["start_time"] * 1000),
                "end_time": int(job["end_time"] * 1000),
                "metadata": config.get("metadata") or {},
                "runtime_env": json.loads(runtime_env) if isinstance(runtime_env, str) else runtime_env,
                "driver_agent_http_address": None,
                "driver_node_id": None,
                "driver_exit_code": None,
            }
        )
    return rows


def runtime_env_states(head: Head, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The runtime environments that workers have, per node."""
    counts: dict[tuple[bytes, str], int] = {}
    for worker in head.leases.pool.workers.values():
        node_id, runtime_env = worker.kind[0], worker.kind[1]
        if runtime_env:
            counts[node_id, runtime_env] = counts.get((node_id, runtime_env), 0) + 1
    return [
        {
            "runtime_env": json.loads(runtime_env),
            "success": True,
            "creation_time_ms": 0.0,
            "node_id": node_id.hex(),
            "ref_cnt": number,
            "error": None,
        }
        for (node_id, runtime_env), number in counts.items()
    ]
