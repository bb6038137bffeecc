"""What of a store is moved to disk, and when its memory counts as free.

The part of `SegmentStore` that makes room: it chooses the oldest segment that nobody views, has it copied
(`miniray.system.spilling`) without holding the store's lock, and then lets go of the memory, unless somebody has begun
to view it meanwhile. A segment that is `moving` stays where it is in the store's tables; objects in it may be freed.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from miniray.system import segment_viewers, spilling

if TYPE_CHECKING:
    from miniray.system.segment import Segment
    from miniray.system.shared_memory import SegmentStore


class SegmentMover:
    """Moves segments of one store to its `spill_directory`; one at a time."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store
        self._moving = threading.Lock()

    def move(self, size: int | None) -> int:
        """Move the oldest objects until `size` bytes of memory came back, or all. Returns how many bytes came back."""
        store = self._store
        freed = 0
        passed: set[str] = set()
        with self._moving:
            while size is None or freed < size:
                memory = self._choose_to_move(passed)
                if memory is None:
                    break
                passed.add(memory.name)
                moved = False
                try:
                    moved = spilling.copy_to_disk(memory, store.spill_directory, store.disk_threshold)
                finally:
                    freed += self._moved(memory, moved)
                if not moved and spilling.is_disk_full(store.spill_directory, store.disk_threshold):
                    break
        return freed

    def _choose_to_move(self, passed: set[str]) -> Segment | None:
        store = self._store
        with store._lock:
            for memory in store._own.values():
                if (
                    memory.objects
                    and memory.name not in passed
                    and not (memory.on_disk or memory.unsealed or memory.views or memory.deferred or memory.adopted)
                    and not segment_viewers.is_file_viewed(memory.path)
                ):
                    memory.moving = True
                    if memory.allocator is not None:
                        store._slabs.remove(memory)
                    return memory
        return None

    def _moved(self, memory: Segment, copied: bool) -> int:
        """Its objects are on disk too: let go of those in memory, unless somebody has begun to view them."""
        store = self._store
        discarded: list[Segment] = []
        with store._lock:
            memory.moving = False
            freed = memory.capacity
            if copied and not memory.views and (memory.objects or memory.deferred):
                copied = spilling.switch_to_disk(memory, store.spill_directory)
                if copied:
                    store._total -= freed
                    store._slabs.moved_to_disk(memory)
                    memory.touched = 0
            else:
                spilling.drop_copy(memory, store.spill_directory)
                copied = False
            if memory.on_disk:
                pass
            elif memory.allocator is not None:
                store._slabs.put_back(memory)
                if store._slabs.retire(memory):
                    discarded = store._given_up(memory)
            elif not memory.objects and not memory.deferred:
                discarded = store._retire(memory, 0, memory.size, True)
        store._discard(discarded)
        if copied:
            store._release(freed)
            return freed
        return sum(segment.counted for segment in discarded)
