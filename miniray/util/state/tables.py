"""From what the head answers to rows: ids in hex, times in milliseconds, several reports of one task put together."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import convert

from miniray.messages.state import EndedTasks, ObjectRow, TaskRow
from miniray.state_machines.resources import from_units
from miniray.state_machines.task_rows import rows_of
from miniray.util.state.options import RAY_MAX_LIMIT_FROM_DATA_SOURCE, StateResource
from miniray.util.state.source import Source

_ANSI = re.compile(r"\x1b[^m]*m")
_TASK_TYPES = ("NORMAL_TASK", "ACTOR_CREATION_TASK", "ACTOR_TASK")
_FINISHED, _FAILED = "FINISHED", "FAILED"
#: Which of several reports of one attempt is the latest.
_RANK = {
    "PENDING_ARGS_AVAIL": 1,
    "PENDING_NODE_ASSIGNMENT": 2,
    "SUBMITTED_TO_WORKER": 3,
    "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY": 4,
    "RUNNING": 5,
    _FAILED: 6,  # as the owner sees it, for one whose worker had died
    _FINISHED: 7,
}
_COLUMN = {name: index for index, name in enumerate(TaskRow.__struct_fields__)}
_STATE, _NODE, _WORKER, _PID, _STARTED = (_COLUMN[name] for name in ("state", "node_id", "worker_id", "pid", "started"))


class Table(NamedTuple):
    """All rows of one kind, and how many there would have been."""

    rows: list[dict[str, Any]]
    total: int
    found: int  #: of these, how many could be looked at
    warning: str = ""


def read(source: Source, resource: StateResource, *, detail: bool, most: int | None, timeout: float) -> Table:
    """The rows of one kind, sorted by their ids.

    Args:
        most: how many are wanted; None: some will be left out by filters, so look at all that is remembered.
        timeout: seconds for the head's answers.
    """
    return _READERS[resource](source, detail, most, timeout)


# -- tasks -------------------------------------------------------------------------------------------------------------


def _tasks(source: Source, detail: bool, most: int | None, timeout: float) -> Table:
    limit = None if most is None else RAY_MAX_LIMIT_FROM_DATA_SOURCE
    answer = source.query("task_reports", timeout, events=limit)
    merged, told = merge_answer(answer)
    log_files = {}
    if detail:
        log_files = {row["worker_id"]: row["log_files"] for row in source.query("worker_states", timeout)}
    shown = sum(len(rows) for _, rows, _ in answer["reports"])
    pending = sum(total for _, _, total in answer["reports"])
    total = len(merged) + answer["dropped"] + answer["kept"] - told + max(0, pending - shown)
    found = len(merged) if limit is None else min(limit, len(merged))
    keys = sorted(merged)[:most]
    return Table([task_row(merged[key], detail, log_files) for key in keys], total, found, _warning_of(answer))


def merge_answer(answer: dict[str, Any]) -> tuple[dict[tuple[bytes, int], list[Any]], int]:
    """What the head and the processes say of tasks, a row for each attempt; and how many lines of the log that was."""
    ended = [rows_of(convert(batch, EndedTasks)) for batch in answer["events"]]
    return merge_tasks([*ended, *(rows for _, rows, _ in answer["reports"])]), sum(map(len, ended))


def merge_tasks(batches: Iterable[list[list[Any]]]) -> dict[tuple[bytes, int], list[Any]]:
    """One row for each attempt of a task, from all that was said about it."""
    merged: dict[tuple[bytes, int], list[Any]] = {}
    for batch in batches:
        for values in batch:
            key = (values[0], values[1])
            known = merged.get(key)
            if known is None:
                merged[key] = values
                continue
            # Of two that are equally late, the one of the process that ran it.
            if (_RANK[values[_STATE]], bool(values[_PID])) < (_RANK[known[_STATE]], bool(known[_PID])):
                values, known = known, values
            else:
                merged[key] = values
            for column in (_NODE, _WORKER, _PID, _STARTED):
                values[column] = values[column] or known[column]
    return merged


#: Few of these are different: jobs, parents, nodes, workers.
_hex = lru_cache(4096)(bytes.hex)


def _milliseconds(seconds: float) -> int | None:
    return int(seconds * 1000) if seconds else None


def task_row(values: list[Any], detail: bool, log_files: dict[str, list[str]]) -> dict[str, Any]:
    """A row of `TaskState`. `log_files`: of each worker, standard output and error."""
    (
        task_id,
        attempt,
        state,
        kind,
        name,
        function,
        job_id,
        parent,
        created,
        started,
        ended,
        node_id,
        worker_id,
        pid,
        error_type,
        error,
        resources,
        runtime_env,
        group_id,
        _,
    ) = values
    row = {
        "task_id": task_id.hex(),
        "attempt_number": attempt,
        "name": name,
        "state": state,
        "job_id": _hex(job_id),
        "actor_id": task_id[8:24].hex() if kind else None,
        "type": _TASK_TYPES[kind],
        "func_or_class_name": function,
        "parent_task_id": _hex(parent),
        "node_id": _hex(node_id) or None,
        "worker_id": _hex(worker_id) or None,
        "worker_pid": pid or None,
        "error_type": error_type or None,
    }
    if not detail:
        return row
    files = log_files.get(row["worker_id"] or "")
    row.update(
        language="PYTHON",
        required_resources={"CPU": 1.0} if resources is None else from_units(resources),
        runtime_env_info={
            "serialized_runtime_env": runtime_env or "{}",
            "runtime_env_config": {"setup_timeout_seconds": 600, "eager_install": True, "log_files": []},
        },
        placement_group_id=group_id.hex() or None,
        events=_events(state, kind, created, started, ended, bool(worker_id)),
        profiling_data=_profile(values) if started and ended else {},
        creation_time_ms=_milliseconds(created),
        start_time_ms=_milliseconds(started),
        end_time_ms=_milliseconds(ended),
        task_log_info={"stdout_file": files[0], "stderr_file": files[1]} if files and kind == 0 else None,
        error_message=_ANSI.sub("", error) if state == _FAILED else None,
        is_debugger_paused=None,
        call_site=None,
        label_selector={},
        fallback_strategy={"options": []},
    )
    return row


def _events(state: str, kind: int, created: float, started: float, ended: float, sent: bool) -> list[dict[str, Any]]:
    """The states that a task went through. Of those between its creation and its start only the order is known; they
    carry the times of these two.
    """
    steps = [("PENDING_ARGS_AVAIL", created)]
    if state != "PENDING_ARGS_AVAIL" and not (ended and not sent and not started):
        steps.append(("PENDING_NODE_ASSIGNMENT", created))
    if sent and kind != 1:
        steps.append(("SUBMITTED_TO_WORKER", started or created))
    if kind == 2 and (started or state == "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"):
        steps.append(("PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY", started or created))
    if started:
        steps.append(("RUNNING", started))
    if ended:
        steps.append((state, ended))
    return [{"state": name, "created_ms": float(int(at * 1000))} for name, at in steps]


def _profile(values: list[Any]) -> dict[str, Any]:
    row = TaskRow(*values)
    about = {"name": row.title, "task_id": row.task_id.hex()}
    span = {"start_time": row.started * 1000, "end_time": row.ended * 1000}
    return {
        "component_type": "worker",
        "component_id": row.worker_id.hex(),
        "node_ip_address": "127.0.0.1",
        "events": [
            {**span, "extra_data": {}, "event_name": "task:execute"},
            {**span, "extra_data": about, "event_name": f"task::{row.name}"},
        ],
    }


# -- objects -----------------------------------------------------------------------------------------------------------


def _objects(source: Source, detail: bool, most: int | None, timeout: float) -> Table:
    answer = source.query("object_reports", timeout)
    processes = {row["worker_id"]: row for row in source.query("worker_states", timeout)}
    rows = []
    for worker_id, reported, _ in answer["reports"]:
        process = processes.get(worker_id.hex())
        if process is None:
            continue
        about = {"type": process["worker_type"], "pid": process["pid"], "ip": "127.0.0.1"}
        for values in reported:
            row = ObjectRow(*values)
            if not (row.local or row.submitted or row.contained_in or row.borrowers):
                continue  # only its lineage is needed
            rows.append(
                {
                    "object_id": row.object_id.hex(),
                    "object_size": row.size,
                    "task_status": row.task_status,
                    "attempt_number": row.attempt + 1,
                    "reference_type": row.reference_type,
                    "call_site": row.call_site or "disabled",
                    **about,
                }
            )
    rows.sort(key=lambda row: row["object_id"])
    untold = sum(number - len(reported) for _, reported, number in answer["reports"])
    found = rows[:RAY_MAX_LIMIT_FROM_DATA_SOURCE]
    return Table(found, len(rows) + untold, len(found), _warning_of(answer))


# -- what the head knows -----------------------------------------------------------------------------------------------


def _actors(source: Source, detail: bool, most: int | None, timeout: float) -> Table:
    rows = {row["actor_id"]: row for row in source.query("actor_states", timeout)}
    answer = source.query("actor_reports", timeout)
    for _, reported, _ in answer["reports"]:
        for told in reported:
            known = rows.get(told["actor_id"])
            if known is not None:
                known["repr_name"] = told.get("repr_name") or known["repr_name"]
            elif "state" in told:
                rows[told["actor_id"]] = {**_UNBORN, **told}
    return _whole(rows.values(), "actor_id")


_UNBORN: dict[str, Any] = {
    "node_id": None,
    "pid": 0,
    "required_resources": {},
    "death_cause": None,
    "placement_group_id": None,
    "repr_name": "",
    "num_restarts": 0,
    "num_restarts_due_to_lineage_reconstruction": 0,
    "num_restarts_due_to_node_preemption": 0,
    "call_site": None,
    "label_selector": {},
    "fallback_strategy": None,
}


def _workers(source: Source, detail: bool, most: int | None, timeout: float) -> Table:
    rows = [{**row, "ip": "127.0.0.1"} for row in source.query("worker_states", timeout)]
    return _whole(rows, "worker_id")


def _placement_groups(source: Source, detail: bool, most: int | None, timeout: float) -> Table:
    rows = []
    for group in source.query("placement_groups", timeout):
        group_id = group["placement_group_id"]
        rows.append(
            {
                "placement_group_id": group_id,
                "name": group["name"],
                "creator_job_id": group["creator_job_id"],
                "state": group["state"],
                "bundles": [
                    {
                        "bundle_id": {"placement_group_id": group_id, "bundle_index": index},
                        "unit_resources": resources,
                        "node_id": node_id,
                        "label_selector": {},
                    }
                    for index, (resources, node_id) in enumerate(zip(group["bundles"], group["nodes"], strict=True))
                ],
                "is_detached": group["is_detached"],
                "stats": group["stats"],
                "topology_strategy": {},
                "topology_assignments": {},
            }
        )
    return _whole(rows, "placement_group_id")


def _of_head(query: str, key: str) -> Callable[[Source, bool, int | None, float], Table]:
    def read_rows(source: Source, detail: bool, most: int | None, timeout: float) -> Table:
        return _whole(source.query(query, timeout), key)

    return read_rows


def _no_events(source: Source, detail: bool, most: int | None, timeout: float) -> Table:
    return Table([], 0, 0)


def _whole(rows: Iterable[dict[str, Any]], key: str) -> Table:
    ordered = sorted(rows, key=lambda row: str(row[key]))
    found = ordered[:RAY_MAX_LIMIT_FROM_DATA_SOURCE]
    return Table(found, len(ordered), len(found))


def _warning_of(answer: dict[str, Any]) -> str:
    missing = len(answer["missing"])
    return f"{missing} processes did not tell what they know in time; what they run is not shown." if missing else ""


_READERS: dict[StateResource, Callable[[Source, bool, int | None, float], Table]] = {
    StateResource.TASKS: _tasks,
    StateResource.OBJECTS: _objects,
    StateResource.ACTORS: _actors,
    StateResource.WORKERS: _workers,
    StateResource.PLACEMENT_GROUPS: _placement_groups,
    StateResource.NODES: _of_head("node_states", "node_id"),
    StateResource.JOBS: _of_head("job_states", "job_id"),
    StateResource.RUNTIME_ENVS: _of_head("runtime_env_states", "node_id"),
    StateResource.CLUSTER_EVENTS: _no_events,
}

#: whether rows of objects carry call sites
CALL_SITES = os.environ.get("RAY_record_ref_creation_sites", "") == "1"  # noqa: SIM112 (Ray's name)
