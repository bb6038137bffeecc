"""`MINIRAY_TRACE=1`: print every message that a process sends or receives.

A line is: seconds since the trace began, the process, the direction, the other process, the message with the fields
that are set. Drivers print to standard error. What workers print there reaches the driver like all their output (so
`LogLines` itself is not traced); the lines of the head lie in its log. Sorted by time, the lines are the journey of a
task.
"""

from __future__ import annotations

import os
import sys
import time

from miniray.messages.envelope import Message
from miniray.messages.tasks import LogLines
from miniray.system.sockets import Transport

_ORIGIN = "MINIRAY_TRACE_ORIGIN"


def prepare_trace() -> bool:
    """Whether messages are traced. Call it before other processes are started: they inherit the origin of time."""
    if os.environ.get("MINIRAY_TRACE", "0") in ("", "0"):
        return False
    os.environ.setdefault(_ORIGIN, repr(time.time()))
    return True


def install_trace(transport: Transport, kind: str) -> None:
    """Trace this transport if the environment asks for it. `kind`: "driver", "worker" or "head"."""
    if not prepare_trace():
        return
    origin = float(os.environ[_ORIGIN])
    me = f"{kind} {os.getpid()}"
    names: dict[bytes, str] = {transport.address.worker_id: me}
    stream = sys.__stderr__

    def trace(direction: str, other: bytes, message: Message) -> None:
        if isinstance(message, LogLines) or stream is None:
            return
        if direction == "recv" and hasattr(message, "kind") and hasattr(message, "pid"):
            names[other] = f"{message.kind} {message.pid}"
        arrow = "->" if direction == "send" else "<-"
        there = names.get(other, other.hex()[:8])
        stream.write(f"{time.time() - origin:9.6f} {me:>13} {arrow} {there:<13} {_shown(message)}\n")
        stream.flush()

    transport.trace = trace


def _shown(message: Message) -> str:
    fields = []
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, bytes) and value:
            value = value.hex()[-8:] if len(value) <= 28 else f"<{len(value)} bytes>"
        elif not value or value == -1:
            continue
        text = value if isinstance(value, str) else repr(value)
        fields.append(f"{name}={text if len(text) <= 60 else text[:57] + '...'}")
    return f"{type(message).__name__}({', '.join(fields)})"
