"""Under Ray's name ``ray._private.internal_api``: what is held in the session, and giving it back by hand."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from miniray._private import memory_table
from miniray._private.absent import absent_functions
from miniray._private.state import GlobalState
from miniray.messages import control
from miniray.processes.auto_init import require_core
from miniray.refs import ObjectRef
from miniray.state_machines.actor_submission import ActorCall
from miniray.state_machines.task_submission import PUSHED, WAITING, PendingTask
from miniray.util.state.source import Source

__all__ = ["free", "global_gc"]

__getattr__ = absent_functions("ray._private.internal_api", "node_stats")


def global_gc() -> None:
    """Run Python's garbage collector in all processes of the session. It does not wait for them.

    Raises:
        RaySystemError: there is no session.
    """
    require_core().post_to_head(control.CollectGarbage())


def free(object_refs: ObjectRef[Any] | Sequence[ObjectRef[Any]], local_only: bool = False) -> None:
    """Give back the memory of objects though there are refs to them: from now on `get` of them raises
    `ObjectFreedError`, and nothing makes them again. What views them already stays valid.

    Ray had this function, and has it no more.

    Args:
        object_refs: one or several; those that are not ready stay as they are.
        local_only: only forget what this process has got of objects that others own.

    Raises:
        TypeError: something else than a ref.
    """
    if isinstance(object_refs, ObjectRef):
        object_refs = [object_refs]
    if not isinstance(object_refs, list):
        raise TypeError(f"free() expects a list of ObjectRef, got {type(object_refs)}")
    for ref in object_refs:
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"Attempting to call `free` on the value {ref}, which is not an ray.ObjectRef.")
    require_core().objects.freeing.free(object_refs, local_only)


def memory_summary(
    address: str | None = None,
    group_by: str = "NODE_ADDRESS",
    sort_by: str = "OBJECT_SIZE",
    units: str = "B",
    line_wrap: bool = True,
    stats_only: bool = False,
    num_entries: int | None = None,
) -> str:
    """What is held, by whom and why, as ``miniray memory`` prints it.

    Args:
        address: of the session; None: the one of this process.
        group_by: "NODE_ADDRESS" or "STACK_TRACE".
        sort_by: "PID", "OBJECT_SIZE" or "REFERENCE_TYPE".
        units: "B", "KB", "MB" or "GB".
        line_wrap: False shows call sites in full.
        stats_only: only the state of the object stores.
        num_entries: rows per group, at most.

    Raises:
        ValueError: there is no such group, order or unit.
    """
    found, stats = memory_table.references(Source(address))
    if stats_only:
        return memory_table.stats_text(stats)
    groups = memory_table.grouped(found, group_by, sort_by)
    text = memory_table.as_text(
        groups, group_by=group_by, sort_by=sort_by, units=units, line_wrap=line_wrap, num_entries=num_entries
    )
    return text + "\n" + memory_table.stats_text(stats)


def get_state_from_address(address: str | None = None) -> GlobalState:
    """The tables of the session that this process belongs to."""
    return GlobalState()


def get_memory_info_reply(
    state: Any,
    node_manager_address: str | None = None,
    node_manager_port: int | None = None,
    timeout_seconds: float = 60.0,
) -> Any:
    """The state of the object stores, as `store_stats` of the answer."""
    _, stats = memory_table.references(Source())
    return SimpleNamespace(store_stats=stats)


def store_stats_summary(reply: Any) -> str:
    """The state of the object stores in words, from the answer of `get_memory_info_reply`."""
    return memory_table.stats_text(reply.store_stats)


class LineageReconstructionTask(NamedTuple):
    """Tasks of one name that run once more because what they had made was lost."""

    name: str
    status: str


def get_local_ongoing_lineage_reconstruction_tasks() -> list[tuple[LineageReconstructionTask, int]]:
    """The tasks of this process that run once more for lost objects, and how many of each there are.

    Raises:
        RaySystemError: there is no session.
    """
    core = require_core()
    counts: dict[LineageReconstructionTask, int] = {}
    with core.lock:
        for record in core.objects.counter.lineage.records.values():
            if record.running:
                row = LineageReconstructionTask(record.task.push.name, _status(record.task))
                counts[row] = counts.get(row, 0) + 1
    return list(counts.items())


def _status(task: PendingTask | ActorCall) -> str:
    if isinstance(task, ActorCall):
        waits, sent = bool(task.unready), task.sent
    else:
        waits, sent = task.state == WAITING, task.state == PUSHED
    return "PENDING_ARGS_AVAIL" if waits else "SUBMITTED_TO_WORKER" if sent else "PENDING_NODE_ASSIGNMENT"
