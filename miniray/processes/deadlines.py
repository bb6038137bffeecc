"""`timeout_s`: a task or call that runs too long ends with `TaskTimeoutError`, and its worker is free again.

At the deadline the task is interrupted as by `cancel`: KeyboardInterrupt in the main thread (also in a blocked `get`
or `sleep`), `asyncio` cancellation on an event loop, an asynchronous exception in a thread. So its `finally` blocks
run. A task that does not end within `GRACE` after that (it swallows the interrupt, or sits in C code that never
returns) is given up: its owner gets the error, and the process is killed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from miniray.exceptions import TaskTimeoutError
from miniray.messages import tasks
from miniray.messages.objects import KIND_ERROR, Address, Payload
from miniray.messages.tasks import TaskPush, TaskReply
from miniray.processes.reactor import Timer
from miniray.task_errors import to_wire

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.executor import Executor

#: Seconds between the interrupt and the end of the process.
GRACE = 2.0


class Deadlines:
    """The tasks of this worker that run under a time limit."""

    def __init__(self, core: CoreWorker, executor: Executor) -> None:
        self._core = core
        self._executor = executor
        self._timers: dict[bytes, Timer] = {}
        self._expired: set[bytes] = set()

    def begin(self, owner: Address, push: TaskPush, timeout: float) -> None:
        """The task starts now, and may run for `timeout` seconds."""
        self._timers[push.task_id] = self._core.reactor.call_later(timeout, partial(self._expire, owner, push, timeout))

    def end(self, task_id: bytes) -> None:
        """The task is done."""
        timer = self._timers.pop(task_id, None)
        if timer is not None:
            timer.cancelled = True

    def expired(self, task_id: bytes) -> bool:
        """Whether the interrupt that this task got was its deadline's."""
        return task_id in self._expired

    def reply(self, push: TaskPush, timeout: float) -> TaskReply:
        """The answer of a task that ran too long."""
        self._expired.discard(push.task_id)
        payload = Payload(KIND_ERROR, to_wire(TaskTimeoutError(push.name, timeout)))
        returns = [payload] * max(1, push.num_returns)
        return TaskReply(push.task_id, tasks.CANCELLED, returns, timeout, attempt=push.attempt)

    def _expire(self, owner: Address, push: TaskPush, timeout: float) -> None:
        if push.task_id not in self._timers:
            return
        self._expired.add(push.task_id)
        self._timers[push.task_id] = self._core.reactor.call_later(GRACE, partial(self._give_up, owner, push, timeout))
        self._executor.interrupt(push.task_id)

    def _give_up(self, owner: Address, push: TaskPush, timeout: float) -> None:
        if push.task_id not in self._timers:
            return
        core = self._core
        core.post(owner, self.reply(push, timeout), True)
        core.flush()
        # Sent is not delivered: an orderly end of the transport flushes it.
        core.transport.close("USER_ERROR: a task ran beyond its timeout_s and could not be interrupted")
        self._executor.host.die()
