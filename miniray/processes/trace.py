"""`MINIRAY_TRACE=1`: print every message that a process sends or receives."""

from __future__ import annotations

import os
import sys
import time

from miniray.messages.envelope import Message
from miniray.system.sockets import Transport


def install_trace(transport: Transport, kind: str) -> None:
    """Trace to standard error when the environment asks for it; one line a message, with time, process, direction
    and fields.
    """
    if os.environ.get("MINIRAY_TRACE", "0") in ("", "0"):
        return
    start = time.time()
    me = f"{kind} {os.getpid()}"
    stream = sys.__stderr__

    def trace(direction: str, other: bytes, message: Message) -> None:
        arrow = "->" if direction == "send" else "<-"
        text = f"{time.time() - start:9.6f} {me:>14} {arrow} {other.hex()[:6]} {_shown(message)}\n"
        if stream is not None:
            stream.write(text)
            stream.flush()

    transport.trace = trace


def _shown(message: Message) -> str:
    fields = []
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, bytes):
            value = f"{value.hex()[-8:]}" if len(value) <= 28 else f"<{len(value)} bytes>"
        elif value in (None, "", [], {}, 0, False, -1):
            continue
        text = repr(value) if not isinstance(value, str) else value
        fields.append(f"{name}={text if len(text) <= 60 else text[:57] + '...'}")
    return f"{type(message).__name__}({', '.join(fields)})"
