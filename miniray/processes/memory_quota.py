"""This process's share of its node's object store: bytes are leased from the head in chunks, so that accounting stays
exact and most puts ask nobody.

When the store has no room, room is made in the order of what it costs: memory of this process that serves nothing;
objects of this process, which go to disk; what others have of both. What still finds no room is written to disk by the
store itself (`system.shared_memory`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from miniray.messages import control

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

#: Bytes to ask for at once.
CHUNK = 8 << 20
#: Seconds without a new object after which memory that is kept warm goes back to the system.
IDLE_AFTER = 10.0


class MemoryQuota:
    """How many bytes this process may still take from the system for objects."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._left = 0
        self.reserved = 0  #: bytes that the head has lent to this process
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Bytes that are reserved and not used."""
        return self._left

    def reserve(self, size: int) -> None:
        """Take `size` bytes. May ask the head, and wait for a disk, so call it without a lock.

        Raises:
            ObjectStoreFullError: the node's store has no room for them.
        """
        if self._take(size, all_of_it=True):
            return
        from miniray.exceptions import ObjectStoreFullError

        missing = max(0, size - self._left)
        try:
            self._ask(missing + CHUNK, False)
        except ObjectStoreFullError:
            pass
        else:
            with self._lock:
                self._left += missing + CHUNK
            return self.reserve(size)
        memory = self._core.objects.memory
        memory.give_back_warm(missing)
        if self._take_and_ask(size, False) or (memory.spill(missing) and self._take_and_ask(size, False)):
            return
        self._take_and_ask(size, True)

    def _take(self, size: int, all_of_it: bool) -> int:
        """Take up to `size` bytes of what is left here, or all of it or nothing."""
        with self._lock:
            taken = min(self._left, size)
            if all_of_it and taken < size:
                return 0
            self._left -= taken
            return taken

    def _take_and_ask(self, size: int, patient: bool) -> bool:
        """Take what is left here, and ask for the rest alone. Raises when it was `patient`, and in vain."""
        from miniray.exceptions import ObjectStoreFullError

        taken = self._take(size, all_of_it=False)
        try:
            if taken < size:
                self._ask(size - taken, patient)
            return True
        except BaseException as error:
            with self._lock:
                self._left += taken
            if patient or not isinstance(error, ObjectStoreFullError):
                raise
            return False

    def _ask(self, size: int, patient: bool) -> None:
        core = self._core
        core.head_client.request(lambda number: control.ReserveMemory(number, core.node_id, size, patient))
        with self._lock:
            self.reserved += size

    def give_all_back(self, token: int) -> None:
        """Others need memory: return what is reserved and not used (under the core worker's lock).

        `token`: of the `TrimMemory` that is answered.
        """
        with self._lock:
            left, self._left = self._left, 0
            self.reserved -= left
        self._core.post(self._core.head, control.ReleaseMemory(self._core.node_id, left, token), True)

    def release(self, size: int) -> None:
        """`size` bytes went back to the system. Takes no lock of the core worker's, whose holder may wait for this."""
        with self._lock:
            self._left += size
            if not self.has_surplus:
                return
        reactor = self._core.reactor
        if reactor.deep:  # else it is about to look anyway
            reactor.wake_for_release()

    @property
    def has_surplus(self) -> bool:
        """Whether there is something for the head."""
        return self._left > 2 * CHUNK

    def return_surplus(self) -> None:
        """What is more than two chunks goes back to the head (under the core worker's lock)."""
        with self._lock:
            surplus = self._left - CHUNK
            if surplus <= CHUNK:
                return
            self._left -= surplus
            self.reserved -= surplus
        core = self._core
        if not core.closed and not core.head_lost:
            core.post(core.head, control.ReleaseMemory(core.node_id, surplus))


class IdleMemory:
    """Warm memory goes back to the system when no object was made for a while."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._armed = False
        self._made = 0

    def wake(self) -> None:
        """Something was freed (under the core worker's lock)."""
        if not self._armed and not self._core.closed:
            self._armed = True
            self._made = self._core.objects.memory.store.made
            self._core.reactor.call_later(IDLE_AFTER, self._look)

    def _look(self) -> None:
        self._armed = False
        store = self._core.objects.memory.store
        if self._core.closed:
            return
        if store.made != self._made:
            self.wake()
            return
        # Unmapping a gigabyte takes a while, and this is the thread that leads.
        threading.Thread(target=self._trim, name="miniray-trim", daemon=True).start()

    def _trim(self) -> None:
        objects = self._core.objects
        objects.memory.store.trim()
        with self._core.lock:
            if not self._core.closed:
                objects.drain()
                self._core.flush()
