"""What is held, by whom and why: the rows behind ``miniray memory`` and `internal_api.memory_summary`.

Every process tells of the objects that it has refs of, so an object that is borrowed has several rows. The columns, the
reference types and the words are Ray's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from miniray.messages.state import ObjectRow
from miniray.util.state.source import Source

GROUP_BY = ("NODE_ADDRESS", "STACK_TRACE")
SORT_BY = ("PID", "OBJECT_SIZE", "REFERENCE_TYPE")
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}

#: The reference types in the order of the summary, with the words that head their columns.
_SUMMARY = {
    "LOCAL_REFERENCE": "Local References",
    "PINNED_IN_MEMORY": "Pinned",
    "USED_BY_PENDING_TASK": "Used by task",
    "CAPTURED_IN_OBJECT": "Captured in Objects",
    "ACTOR_HANDLE": "Actor Handles",
}
_COLUMNS = {
    "node_ip_address": ("IP Address", 13),
    "pid": ("PID", 8),
    "type": ("Type", 7),
    "call_site": ("Call Site", 9),
    "task_status": ("Status", 9),
    "attempt_number": ("Attempt", 8),
    "object_size": ("Size", 8),
    "reference_type": ("Reference Type", 14),
    "object_ref": ("Object Ref", 10),
}
_HINT = "To record callsite information for each ObjectRef created, set env variable RAY_record_ref_creation_sites=1"
#: Characters of a call site that a table shows, unless lines are not to be wrapped.
_SITE_WIDTH = 60


@dataclass
class Reference:
    """One object as one process holds it."""

    object_ref: str  #: its id, in hex
    pid: int
    node_ip_address: str
    object_size: int  #: bytes; -1: not known
    reference_type: str
    call_site: str
    task_status: str
    attempt_number: int
    local_ref_count: int
    pinned_in_memory: bool
    submitted_task_ref_count: int
    contained_in_owned: int  #: objects of this process that contain it
    borrowers: int  #: other processes that hold it
    owned: bool  #: by this process; else it is borrowed
    type: str  #: "Driver" or "Worker"
    node_id: str  #: where its value lies in shared memory, "" for a small one


@dataclass
class StoreStats:
    """The object stores of all nodes together."""

    object_store_bytes_used: int
    object_store_bytes_avail: int
    object_store_bytes_primary_copy: int
    num_local_objects: int
    missing: int  #: processes that did not tell


def references(source: Source) -> tuple[list[Reference], StoreStats]:
    """All references of a session, and the state of its stores."""
    answer = source.query("object_reports")
    processes = {row["worker_id"]: row for row in source.query("workers")}
    nodes = {row["NodeID"]: row for row in source.query("nodes")}
    found = []
    stored: dict[bytes, int] = {}
    for worker_id, rows, _ in answer["reports"]:
        process = processes.get(worker_id)
        if process is None:
            continue
        address = nodes.get(process["node_id"].hex(), {}).get("NodeManagerAddress", "127.0.0.1")
        for values in rows:
            row = ObjectRow(*values)
            if row.node_id:
                stored[row.object_id] = row.size
            if not (row.local or row.submitted or row.contained_in or row.borrowers):
                continue  # only its lineage is needed
            found.append(
                Reference(
                    row.object_id.hex(),
                    process["pid"],
                    address,
                    row.size,
                    row.reference_type,
                    row.call_site or "disabled",
                    "-" if row.task_status == "NIL" else row.task_status,
                    row.attempt + 1,
                    row.local,
                    row.reference_type == "PINNED_IN_MEMORY",
                    row.submitted,
                    row.contained_in,
                    row.borrowers,
                    row.owner_id == worker_id,
                    process["kind"].capitalize(),
                    row.node_id.hex(),
                )
            )
    stores = source.query("status")["object_store"].values()
    stats = StoreStats(
        sum(store["used"] for store in stores),
        sum(store["limit"] for store in stores),
        sum(stored.values()),
        len(stored),
        len(answer["missing"]),
    )
    return found, stats


def grouped(found: Iterable[Reference], group_by: str, sort_by: str) -> dict[str, list[Reference]]:
    """The references sorted, in groups.

    Raises:
        ValueError: there is no such order or group.
    """
    group_by, sort_by = group_by.upper(), sort_by.upper()
    if sort_by not in SORT_BY:
        raise ValueError(f"The sort-by input provided is not one of {', '.join(SORT_BY)}: {sort_by}.")
    if group_by not in GROUP_BY:
        raise ValueError(f"The group-by input provided is not one of {', '.join(GROUP_BY)}: {group_by}.")
    key = {"PID": "pid", "OBJECT_SIZE": "object_size", "REFERENCE_TYPE": "reference_type"}[sort_by]
    group = "node_ip_address" if group_by == "NODE_ADDRESS" else "call_site"
    groups: dict[str, list[Reference]] = {}
    for reference in sorted(found, key=lambda reference: getattr(reference, key)):
        groups.setdefault(getattr(reference, group), []).append(reference)
    return groups


def as_plain(groups: dict[str, list[Reference]], stats: StoreStats) -> dict[str, Any]:
    """Plain data, for ``--format json``."""
    return {
        "groups": {
            name: {"summary": _summary(rows), "entries": [asdict(row) for row in rows]} for name, rows in groups.items()
        },
        "store_stats": asdict(stats),
    }


def _summary(rows: list[Reference]) -> dict[str, dict[str, int]]:
    summary = {"TOTAL": {"count": len(rows), "bytes": _bytes(rows)}}
    for kind in _SUMMARY:
        of_kind = [row for row in rows if row.reference_type == kind]
        summary[kind] = {"count": len(of_kind), "bytes": _bytes(of_kind)}
    return summary


def _bytes(rows: list[Reference]) -> int:
    return sum(max(0, row.object_size) for row in rows)


def as_text(
    groups: dict[str, list[Reference]],
    *,
    group_by: str,
    sort_by: str,
    units: str = "B",
    line_wrap: bool = True,
    num_entries: int | None = None,
) -> str:
    """The tables."""
    if units not in UNITS:
        raise ValueError(f"The unit {units!r} is not one of {', '.join(UNITS)}.")
    by = group_by.lower().replace("_", " ")
    shown = f"{num_entries} entries per group" if num_entries is not None else "all entries per group"
    lines = [
        f"Grouping by {by}...        Sorting by {sort_by.lower().replace('_', ' ')}...        Display {shown}...",
        "",
    ]
    for name, rows in groups.items():
        lines += ["", f"--- Summary for {by}: {name} ---", *_summary_lines(rows, units), ""]
        lines += [f"--- Object references for {by}: {name} ---"]
        lines += _rows(rows[:num_entries], units, line_wrap)
    lines += ["", _HINT, ""]
    return "\n".join(lines)


def _summary_lines(rows: list[Reference], units: str) -> list[str]:
    summary = _summary(rows)
    cells = [("Mem Used by Objects", _size(summary["TOTAL"]["bytes"], units))]
    for kind, title in _SUMMARY.items():
        part = summary[kind]
        cells.append((title, f"{part['count']}, ({_size(part['bytes'], units)})"))
    widths = [max(len(title), len(cell)) + 2 for title, cell in cells]
    return [
        "".join(title.ljust(width) for (title, _), width in zip(cells, widths, strict=True)).rstrip(),
        "".join(cell.ljust(width) for (_, cell), width in zip(cells, widths, strict=True)).rstrip(),
    ]


def _rows(rows: list[Reference], units: str, line_wrap: bool) -> list[str]:
    table = [[title for title, _ in _COLUMNS.values()]]
    for row in rows:
        cells = [str(getattr(row, name)) for name in _COLUMNS]
        cells[6] = "?" if row.object_size < 0 else _size(row.object_size, units)
        if line_wrap and len(cells[3]) > _SITE_WIDTH:
            cells[3] = "..." + cells[3][3 - _SITE_WIDTH :]
        table.append(cells)
    widths = [max(width, *(len(cells[index]) for cells in table)) for index, (_, width) in enumerate(_COLUMNS.values())]
    return [
        " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in table
    ]


def _size(value: int, units: str) -> str:
    return f"{value / UNITS[units]} {units}"


def stats_text(stats: StoreStats) -> str:
    """The state of the stores in words."""
    limit = max(1, stats.object_store_bytes_avail)
    text = (
        "--- Aggregate object store stats across all nodes ---\n"
        f"Plasma memory usage {stats.object_store_bytes_used // 2**20} MiB, {stats.num_local_objects} objects, "
        f"{round(100 * stats.object_store_bytes_used / limit, 2)}% full, "
        f"{round(100 * stats.object_store_bytes_primary_copy / limit, 2)}% needed\n"
    )
    if stats.missing:
        text += f"{stats.missing} processes did not answer: what they hold is not shown.\n"
    return text
