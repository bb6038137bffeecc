"""Rows counted: tasks by name, actors by class, objects by call site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from miniray.util.state.options import SummaryResource

_MIB = 1 << 20


def _count(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1


def summarize_task_rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Tasks by name: how many are in which state."""
    summary: dict[str, dict[str, Any]] = {}
    kinds = {"NORMAL_TASK": 0, "ACTOR_TASK": 0, "ACTOR_CREATION_TASK": 0}
    for row in rows:
        name, kind = row["name"], row["type"]
        entry = summary.setdefault(name, {"func_or_class_name": name, "type": kind, "state_counts": {}})
        _count(entry["state_counts"], row["state"])
        kinds[kind] += 1
    return {
        "summary": summary,
        "total_tasks": kinds["NORMAL_TASK"],
        "total_actor_tasks": kinds["ACTOR_TASK"],
        "total_actor_scheduled": kinds["ACTOR_CREATION_TASK"],
        "summary_by": "func_name",
    }


def summarize_actor_rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Actors by class: how many are in which state."""
    summary: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = row["class_name"]
        _count(summary.setdefault(name, {"class_name": name, "state_counts": {}})["state_counts"], row["state"])
    return {"summary": summary, "total_actors": len(rows), "summary_by": "class"}


def summarize_object_rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Objects by call site: how many and how large they are, who holds them and why."""
    summary: dict[str, dict[str, Any]] = {}
    holders: dict[str, tuple[set[Any], set[Any]]] = {}
    total = 0.0
    for row in rows:
        site = row["call_site"]
        entry = summary.get(site)
        if entry is None:
            entry = summary[site] = {
                "total_objects": 0,
                "total_size_mb": 0.0,
                "total_num_workers": 0,
                "total_num_nodes": 0,
                "task_state_counts": {},
                "task_attempt_number_counts": {},
                "ref_type_counts": {},
            }
            holders[site] = (set(), set())
        _count(entry["task_state_counts"], row["task_status"])
        _count(entry["task_attempt_number_counts"], str(row["attempt_number"]))
        _count(entry["ref_type_counts"], row["reference_type"])
        entry["total_objects"] += 1
        if row["object_size"] != -1:
            entry["total_size_mb"] += row["object_size"] / _MIB
            total += row["object_size"] / _MIB
        holders[site][0].add(row["pid"])
        holders[site][1].add(row["ip"])
    for site, (workers, nodes) in holders.items():
        summary[site]["total_num_workers"], summary[site]["total_num_nodes"] = len(workers), len(nodes)
    return {
        "summary": summary,
        "total_objects": len(rows),
        "total_size_mb": total,
        "callsite_enabled": "disabled" not in summary,
        "summary_by": "callsite",
    }


SUMMARIES: dict[SummaryResource, Callable[[list[dict[str, Any]]], dict[str, Any]]] = {
    SummaryResource.TASKS: summarize_task_rows,
    SummaryResource.ACTORS: summarize_actor_rows,
    SummaryResource.OBJECTS: summarize_object_rows,
}
