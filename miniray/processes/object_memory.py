"""One process's part of the shared memory of its node, as the core worker uses it.

The store (`system.shared_memory`) is opened with the first large object. What it may take from the system is lent by
the head (`memory_quota`). An object's memory is given back to the process that wrote it. When that one is gone it may
not have read so: then the head is told what was lately freed.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from miniray.messages import control, objects
from miniray.messages.objects import Location
from miniray.processes.memory_quota import IdleMemory, MemoryQuota
from miniray.state_machines.reference_counter import ObjectEntry

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.system.shared_memory import SegmentStore

#: The latest locations freed of each writer that are told to the head when it dies.
_REMEMBERED = 1000


class ObjectMemory:
    """Where the large objects of one core worker lie."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self.quota = MemoryQuota(core)
        self.idle = IdleMemory(core)
        self.opened: SegmentStore | None = None  #: the store, once there was a large object
        self._opening = threading.Lock()
        #: writer -> what was lately freed of what it wrote, and when
        self._sent_frees: dict[bytes, deque[tuple[Location, int]]] = {}

    @property
    def store(self) -> SegmentStore:
        """This process's part of the shared memory, opened with the first large object."""
        store = self.opened
        if store is None:
            with self._opening:
                if self.opened is None:
                    from miniray.system.segment import writer_name
                    from miniray.system.shared_memory import SegmentStore  # 3 ms that most workers never need

                    session = self._core.session
                    self.opened = SegmentStore(
                        self._core.store_dir,
                        self.quota.reserve,
                        self.quota.release,
                        writer=writer_name(self._core.worker_id),
                        spill_directory=session.get("spill_dir", ""),
                        disk_threshold=session.get("disk_threshold", 1.0),
                    )
                store = self.opened
        return store

    def is_viewed(self, entry: ObjectEntry) -> bool:
        """Whether something in this process views the value in shared memory."""
        location = entry.payload.location if entry.payload is not None else None
        return (
            location is not None
            and self.opened is not None
            and self.opened.is_viewed(location.segment, location.offset)
        )

    # -- freeing ---------------------------------------------------------------------------------------------------

    def free(self, location: Location, shared: bool) -> None:
        """Give back a place in shared memory: to this process's own store, or to the process that wrote it."""
        core = self._core
        if location.writer == core.worker_id:
            self.store.free(location.segment, location.offset, location.size, shared)
            self.idle.wake()
            return
        from miniray.system import segment, shared_memory  # they are there already where large objects are

        freed_at = segment.clock()
        if location.size > shared_memory.SLAB_OBJECT_LIMIT:
            # The writer may be dead without our knowing it: then the name says to the head that nobody needs it.
            segment.mark_free(core.store_dir, location.segment, core.session.get("spill_dir", ""))
        writer = core.peer(location.writer)
        if writer is not None:
            core.post(writer, objects.FreeSegments([location]))
            sent = self._sent_frees.get(location.writer)
            if sent is None:
                sent = self._sent_frees[location.writer] = deque(maxlen=_REMEMBERED)
            sent.append((location, freed_at))
        elif not core.head_lost:
            core.post(core.head, objects.SegmentsOrphaned([(location, freed_at)]))

    def writer_left(self, worker_id: bytes) -> None:
        """A process that wrote for us is gone, and may not have read any more what we freed lately. Told twice does no
        harm.
        """
        sent = self._sent_frees.pop(worker_id, None)
        if sent and not self._core.head_lost:
            self._core.post(self._core.head, objects.SegmentsOrphaned(list(sent)))

    # -- making room -----------------------------------------------------------------------------------------------

    def give_back_warm(self, size: int | None = None) -> None:
        """Return memory that serves no object to the quota: so many bytes, or all."""
        core = self._core
        with core.lock:
            core.objects.drain()
            core.flush()  # the writers of what was freed give back theirs
        if self.opened is not None:
            self.opened.collect()
            self.opened.trim(size)

    def spill(self, size: int) -> int:
        """Move so many bytes of objects to disk, as far as there are; returns how many. Waits for the disk."""
        return 0 if self.opened is None else self.opened.spill(size)

    def on_trim(self, sender: bytes, message: control.TrimMemory) -> None:
        """Others on this node need memory."""
        if message.spill and self.opened is not None:
            threading.Thread(target=self._make_room, args=(message,), name="miniray-spill", daemon=True).start()
        else:
            self.give_back_warm()
            self.quota.give_all_back(message.token)

    def _make_room(self, message: control.TrimMemory) -> None:
        """Give back so many bytes, those first that serve no object. In a thread of its own: nobody waits here."""
        core = self._core
        try:
            left = self.quota.left
            self.give_back_warm(message.spill)
            missing = message.spill - max(left, self.quota.left)
            if missing > 0:
                self.spill(missing)
        finally:
            with core.lock:
                if not core.closed and not core.head_lost:
                    self.quota.give_all_back(message.token)
