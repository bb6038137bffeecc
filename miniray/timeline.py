"""The timeline of a session: its task events as a Chrome trace.

Times are in microseconds since the epoch, as in the trace event format
(https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU).
"""

from __future__ import annotations

from typing import Any


def chrome_trace(events: list[list[Any]], node_ip: str) -> list[dict[str, Any]]:
    """One complete event ("X") per task that ran. `events`: rows of `processes.task_events`, as the head keeps them."""
    trace = []
    for task_id, _attempt, name, function_name, start, duration, _status, worker_id in events:
        trace.append(
            {
                "cat": f"task::{name}",
                "name": function_name,
                "pid": node_ip,
                "tid": f"worker:{bytes(worker_id).hex()}",
                "ts": start * 1e6,
                "dur": duration * 1e6,
                "ph": "X",
                "cname": "generic_work",
                "args": {"name": function_name, "task_id": bytes(task_id).hex()},
            }
        )
    return trace
