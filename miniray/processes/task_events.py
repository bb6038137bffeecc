"""What happened to tasks, for the timeline and the state API: buffered in the worker, mailed to the head when it is
idle or many have piled up. Never on the way of a reply: an event is one tuple in a list.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from miniray.messages.control import TaskEvents

if TYPE_CHECKING:
    from miniray.messages.tasks import TaskPush
    from miniray.processes.core_worker import CoreWorker

#: Events that are mailed at once.
BATCH = 1000


class TaskEventBuffer:
    """The events of the tasks that ran in this worker."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._events: list[list[Any]] = []

    def executed(self, push: TaskPush, function: Any, duration: float, status: int) -> None:
        """A task ran for `duration` seconds, until now."""
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', push.name)}"
        core = self._core
        self._events.append(
            [push.task_id, push.attempt, push.name, name, time.time() - duration, duration, status, core.worker_id]
        )
        if len(self._events) >= BATCH:
            with core.lock:
                self.flush()

    def flush(self) -> None:
        """Mail what is there (under the lock)."""
        if self._events and not self._core.closed:
            events, self._events = self._events, []
            self._core.post(self._core.head, TaskEvents(events), True)
