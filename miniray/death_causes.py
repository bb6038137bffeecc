"""Why an actor died, in the sentences that Ray ends an ActorDiedError with; programs look for their beginnings.

They are the ``error_message`` of ``exceptions.ActorDiedErrorContext``.
"""

from __future__ import annotations

KILLED = "The actor is dead because it was killed by `ray.kill`."
OUT_OF_SCOPE = "The actor is dead because all references to the actor were removed."
RESTARTING = "The actor is restarting"
"""The ``error_message`` of an ActorUnavailableError, while a new process is made."""

USER_EXIT = "Worker exits by an user request. Worker exits with an exit code 0."
EXIT_ACTOR = f"{USER_EXIT} exit_actor() is called."
CONNECTION_LOST = (
    "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the "
    "process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker "
    "crashed unexpectedly due to SIGSEGV or another unexpected error."
)


def worker_died(exit_type: str = "SYSTEM_ERROR", exit_detail: str = CONNECTION_LOST) -> str:
    """Its process ended.

    Args:
        exit_type: INTENDED_USER_EXIT, INTENDED_SYSTEM_EXIT, USER_ERROR or SYSTEM_ERROR.
        exit_detail: one of the sentences above, or another.
    """
    return (
        f"The actor is dead because its worker process has died. Worker exit type: {exit_type} "
        f"Worker exit detail: {exit_detail}"
    )


def owner_died(owner_id: bytes, owner_ip_address: str, exit_type: str = "INTENDED_SYSTEM_EXIT") -> str:
    """The process that made it, and that it does not outlive, ended."""
    return (
        f"The actor is dead because its owner has died. Owner Id: {owner_id.hex()} "
        f"Owner Ip address: {owner_ip_address} Owner worker exit type: {exit_type} "
        "Worker exit detail: Owner's worker process has crashed."
    )


def task_node_died(node_id: bytes, node_ip: str) -> str:
    """The text of a NodeDiedError."""
    return (
        f"Task failed because the node it was running on is dead or unavailable. Node IP: {node_ip}, node ID: "
        f"{node_id.hex()}. This can happen if the node was preempted, had a hardware failure, or its raylet crashed "
        "unexpectedly. To see node death information, use `ray list nodes --filter node_id="
        f"{node_id.hex()}`, check the Ray dashboard cluster page, search the node ID in the GCS logs, or use "
        f"`ray logs raylet.out -ip {node_ip}`."
    )


def node_died(node_id: bytes) -> str:
    """Its node is gone."""
    return f"The actor died because its node has died. Node Id: {node_id.hex()}"
