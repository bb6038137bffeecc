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
        self.reserved = 0  #: bytes that the head has lent to this process
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
        from miniray.exceptions import ObjectStoreFullError

        try:
            self._ask(missing + CHUNK, False)
            granted = missing + CHUNK
        except ObjectStoreFullError:
            # First what this process does not need, then what others do not.
            self._core.objects.give_back_warm_memory(missing)
            with self._lock:
                taken = min(self._left, size)
                self._left -= taken
            granted = size - taken
            try:
                if granted:
                    self._ask(granted, True)
            except BaseException:
                with self._lock:
                    self._left += taken
                raise
            return
        with self._lock:
            self._left += granted - size

    def _ask(self, size: int, patient: bool) -> None:
        core = self._core
        core.head_client.request(lambda number: control.ReserveMemory(number, core.node_id, size, patient))
        with self._lock:
            self.reserved += size

    def give_all_back(self) -> None:
        """Others need memory: return what is reserved and not used (under the core worker's lock)."""
        with self._lock:
            left, self._left = self._left, 0
            self.reserved -= left
        self._core.post(self._core.head, control.ReleaseMemory(self._core.node_id, left, True), True)

    def release(self, size: int) -> None:
        """`size` bytes went back to the system; what is more than two chunks goes back to the head."""
        with self._lock:
            self._left += size
            surplus = self._left - 2 * CHUNK
            if surplus <= 0:
                return
            surplus += CHUNK
            self._left -= surplus
            self.reserved -= surplus
        core = self._core
        with core.lock:
            if not core.closed and not core.head_lost:
                core.post(core.head, control.ReleaseMemory(core.node_id, surplus))
