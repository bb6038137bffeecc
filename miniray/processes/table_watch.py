"""Following a table: its changes in order, once they are persisted, from any position on (`WatchTable`)."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING

from miniray import exceptions
from miniray.messages import control
from miniray.messages.durable import Change
from miniray.messages.envelope import Message
from miniray.processes.reactor import Waiter

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker


class TableWatch:
    """One consumer of the changes of a table. For one thread at a time.

    Args:
        table: a `TablePrefix` number.
        since: begin after the change with this number; None: where a durable consumer was, else now.
        consumer: its name; needed for a durable one.
        durable: the session keeps how far it is (`done`), also over a restart of the head.
        prefix, namespace: only rows whose key begins so; only this namespace.
        limit, policy, every: what happens when it is slow, see `state_machines.subscription`.

    Raises:
        ValueError: settings that mean nothing.
        RaySystemError: the head is gone.
    """

    def __init__(
        self,
        core: CoreWorker,
        table: int,
        *,
        since: int | None = None,
        consumer: str = "",
        durable: bool = False,
        prefix: bytes = b"",
        namespace: bytes | None = None,
        limit: int = 10_000,
        policy: str = "spill",
        every: int = 10,
    ) -> None:
        if durable and not consumer:
            raise ValueError("a durable consumer needs a name")
        self._core = core
        self.consumer = consumer or os.urandom(8).hex()
        self.dropped = 0  #: changes that the policy has dropped so far
        self._settings = (table, prefix, namespace, limit, policy, every, durable)
        self._batches: deque[list[Change]] = deque()
        self._received = 0
        self._handled = 0
        self._waiter: Waiter | None = None
        core.head_client.watches[self.consumer] = self
        try:
            self.position: int = core.head_client.request(lambda number: self._message(number, since))
        except BaseException:
            del core.head_client.watches[self.consumer]
            raise
        self._received = max(self._received, self.position)

    def _message(self, number: int, since: int | None) -> control.WatchTable:
        table, prefix, namespace, limit, policy, every, durable = self._settings
        return control.WatchTable(number, self.consumer, table, since, prefix, namespace, limit, policy, every, durable)

    def again(self) -> list[Message]:
        """What a new head has to be told (under the lock): how far it is, of which the last news may be lost."""
        messages: list[Message] = [self._message(0, self._received)]
        if self._handled:
            messages.append(control.ChangesHandled(self.consumer, self._handled))
        return messages

    def on_changes(self, message: control.TableChanges) -> None:
        """Changes came (under the lock)."""
        changes = [change for change in message.changes if change.sequence > self._received]
        self.dropped = message.dropped
        if changes:
            self._received = changes[-1].sequence
            self._batches.append(changes)
            if self._waiter is not None:
                self._waiter.finish()

    def take(self, timeout: float | None = None) -> list[Change]:
        """The next changes; an empty list when there are none within `timeout` seconds (None: waits for ever).

        Raises:
            RaySystemError: the head is gone.
        """
        core = self._core
        with core.lock:
            if not self._batches:
                self._waiter = Waiter()
                if core.head_lost or core.closed:
                    raise exceptions.RaySystemError(core.head_lost or "This session was shut down.")
        if self._waiter is not None:
            try:
                core.reactor.wait(self._waiter, None if timeout is None else time.monotonic() + timeout)
            finally:
                self._waiter = None
        with core.lock:
            batch = self._batches.popleft() if self._batches else []
        if batch:
            self.position = batch[-1].sequence
        elif core.head_lost:
            raise exceptions.RaySystemError(core.head_lost)
        return batch

    def done(self, sequence: int | None = None) -> None:
        """All changes up to this number (None: all that were taken) are dealt with; the next ones may follow."""
        handled = self.position if sequence is None else sequence
        with self._core.lock:
            self._handled = handled
            self._core.post(self._core.head, control.ChangesHandled(self.consumer, handled), True)

    def lost_head(self) -> None:
        """The head is gone for good (under the lock)."""
        if self._waiter is not None:
            self._waiter.finish()

    def close(self) -> None:
        """No more of it; the cursor of a durable consumer stays."""
        core = self._core
        with core.lock:
            core.head_client.watches.pop(self.consumer, None)
            if not core.head_lost and not core.closed:
                core.post(core.head, control.StopWatching(self.consumer), True)
