"""What `init_log_pubsub` and `init_error_pubsub` return: the lines and warnings that reach this driver, kept."""

from __future__ import annotations

import queue
from typing import Any

from miniray.processes import current


class _Subscriber:
    def __init__(self) -> None:
        self.found: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        core = current.core_or_none()
        if core is None:
            raise RuntimeError("There is no session to listen to: call init first.")
        self._core: Any = core

    def poll(self, timeout: float | None = None) -> dict[str, Any]:
        """The next one; {} when none came within `timeout` seconds."""
        try:
            return self.found.get(timeout=timeout)
        except queue.Empty:
            return {}

    def subscribe(self) -> None:
        """It has subscribed already."""


class LogSubscriber(_Subscriber):
    """Keeps the lines that workers print, as dictionaries with Ray's keys. The driver prints them as before."""

    def __init__(self) -> None:
        super().__init__()
        self._printing = self._core.on_log_lines
        self._core.on_log_lines = self._take

    def _take(self, message: Any) -> None:
        self.found.put(
            {
                "ip": self._core.node_ip,
                "pid": message.pid,
                "job": self._core.job_id.hex(),
                "is_err": message.stderr,
                "lines": list(message.lines),
                "actor_name": message.actor_repr or None,
                "task_name": message.name,
            }
        )
        if self._printing is not None:
            self._printing(message)

    def close(self) -> None:
        """Keep no more."""
        if self._core.on_log_lines == self._take:
            self._core.on_log_lines = self._printing


class ErrorSubscriber(_Subscriber):
    """Keeps the warnings of the head. They have no type here: it is ""."""

    def __init__(self) -> None:
        super().__init__()
        self._printing = self._core.on_warning
        self._core.on_warning = self._take

    def _take(self, message: Any) -> None:
        self.found.put({"job_id": self._core.job_id, "type": "", "error_message": message.message, "timestamp": 0.0})
        if self._printing is not None:
            self._printing(message)

    def close(self) -> None:
        """Keep no more."""
        if self._core.on_warning == self._take:
            self._core.on_warning = self._printing
