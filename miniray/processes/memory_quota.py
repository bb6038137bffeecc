"""This process's share of its node's object store: bytes are leased from the head in chunks, so that accounting stays
exact and most puts ask nobody.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from miniray.messages import control

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

#: Bytes to ask for at once.
CHUNK = 8 << 20


class MemoryQuota:
    """How many bytes this process may still take from the system for objects."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._left = 0
        self._lock = threading.Lock()

    def reserve(self, size: int) -> None:
        """Take `size` bytes. May ask the head, so call it without a lock.

        Raises:
            ObjectStoreFullError: the node's store has no room for them.
        """
        with self._lock:
            if self._left >= size:
                self._left -= size
                return
            missing = size - self._left
        core = self._core
        granted = missing + CHUNK
        from miniray.exceptions import ObjectStoreFullError

        try:
            core.head_client.request(lambda number: control.ReserveMemory(number, core.node_id, granted))
        except ObjectStoreFullError:
            granted = missing
            core.head_client.request(lambda number: control.ReserveMemory(number, core.node_id, granted))
        with self._lock:
            self._left += granted - size

    def release(self, size: int) -> None:
        """`size` bytes went back to the system; what is more than two chunks goes back to the head."""
        with self._lock:
            self._left += size
            surplus = self._left - 2 * CHUNK
            if surplus <= 0:
                return
            surplus += CHUNK
            self._left -= surplus
        core = self._core
        with core.lock:
            if not core.closed and not core.head_lost:
                core.post(core.head, control.ReleaseMemory(core.node_id, surplus))
