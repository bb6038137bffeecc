"""The timeline of a session: the tasks that have ended as a Chrome trace, which Perfetto and `chrome://tracing` load.

Times are in microseconds since the epoch, as in the trace event format
(https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU). Each task has Ray's four events. A
worker takes the time once before a task and once after it, so the time that it took to read the arguments and to store
the results is part of "task:execute"; the two events for these are moments.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import convert

from miniray.messages.state import EndedTasks, TaskRow
from miniray.state_machines.task_rows import rows_of

#: Ray's colours
_COLOURS = {
    "task:deserialize_arguments": "rail_load",
    "task:execute": "rail_animation",
    "task:store_outputs": "rail_idle",
}
_COLUMNS = TaskRow.__struct_fields__


def chrome_trace(batches: Iterable[Any], node_ip: str) -> list[dict[str, Any]]:
    """Complete events ("X") of all tasks that ran.

    Args:
        batches: of ended tasks (`messages.state.EndedTasks`), as the head keeps them.
        node_ip: the machine.
    """
    trace: list[dict[str, Any]] = []
    for batch in batches:
        for values in rows_of(convert(batch, EndedTasks)):
            row = dict(zip(_COLUMNS, values, strict=True))
            if row["started"]:
                trace += _events_of(row, node_ip)
    return trace


def _events_of(row: dict[str, Any], node_ip: str) -> list[dict[str, Any]]:
    start, end = row["started"] * 1e6, row["ended"] * 1e6
    tid = f"worker:{row['worker_id'].hex()}"

    def event(category: str, name: str, begin: float, duration: float, args: dict[str, Any]) -> dict[str, Any]:
        return {
            "cat": category,
            "name": name,
            "pid": node_ip,
            "tid": tid,
            "ts": begin,
            "dur": duration,
            "ph": "X",
            "cname": _COLOURS.get(category, "generic_work"),
            "args": args,
        }

    kinds = [
        event("task:deserialize_arguments", "task:deserialize_arguments", start, 0.0, {}),
        event("task:execute", "task:execute", start, end - start, {}),
        event("task:store_outputs", "task:store_outputs", end, 0.0, {}),
    ]
    title, name = row["title"], row["name"]
    about = {"name": title, "task_id": row["task_id"].hex()}
    return [*kinds, event(f"task::{name}", title, start, end - start, about)]
