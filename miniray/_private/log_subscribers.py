"""What `init_log_pubsub` and `init_error_pubsub` return: the lines and warnings that reach this driver, kept."""

from __future__ import annotations

import queue
from typing import Any, ClassVar

from miniray.processes import current


class _Subscriber:
    """Stands in front of a function of the core worker, and keeps what that is called with. It is called as before."""

    _function: ClassVar[str]

    def __init__(self) -> None:
        self.found: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        core = current.core_or_none()
        if core is None:
            raise RuntimeError("There is no session to listen to: call init first.")
        self._core: Any = core
        self._open = True
        self._before = getattr(core, self._function)
        setattr(core, self._function, self._take)

    def _take(self, message: Any) -> None:
        if self._open:
            self.found.put(self._row(message))
        if self._before is not None:
            self._before(message)

    def _row(self, message: Any) -> dict[str, Any]:
        raise NotImplementedError

    def poll(self, timeout: float | None = None) -> dict[str, Any]:
        """The next one; {} when none came within `timeout` seconds."""
        try:
            return self.found.get(timeout=timeout)
        except queue.Empty:
            return {}

    def subscribe(self) -> None:
        """It has subscribed already."""

    def close(self) -> None:
        """Keep no more."""
        self._open = False
        if getattr(self._core, self._function) == self._take:  # and no later one calls this
            setattr(self._core, self._function, self._before)


class LogSubscriber(_Subscriber):
    """Keeps the lines that workers print, as dictionaries with Ray's keys."""

    _function = "on_log_lines"

    def _row(self, message: Any) -> dict[str, Any]:
        return {
            "ip": self._core.node_ip,
            "pid": message.pid,
            "job": self._core.job_id.hex(),
            "is_err": message.stderr,
            "lines": list(message.lines),
            "actor_name": message.actor_repr or None,
            "task_name": message.name,
        }


class ErrorSubscriber(_Subscriber):
    """Keeps the warnings of the head. They have no type here: it is ""."""

    _function = "on_warning"

    def _row(self, message: Any) -> dict[str, Any]:
        return {"job_id": self._core.job_id, "type": "", "error_message": message.message, "timestamp": 0.0}
