"""The slabs of one store: which of them has room for a small object, and which nobody needs any more.

Small objects share slabs, since a process may have only 65,530 mappings. Slabs in memory and slabs on disk, slabs whose
objects end with this process and others, never mix. Which slot of a slab is free, its `SlabAllocator` knows.

There is no lock here: the store calls all of it under its own.
"""

from __future__ import annotations

from collections.abc import Callable

from miniray.system import segment_viewers
from miniray.system.segment import LEDGER_SIZE, SLAB_SIZE, Segment
from miniray.system.slab_allocator import SlabAllocator

_FULL = 2 << 20  # a slab with less room than this, and none for an object, is full


class Slabs:
    """The slabs of one store."""

    def __init__(self, new_slab: Callable[[bool, bool], Segment]) -> None:
        """`new_slab(on_disk, owned)` makes the file of another one, `SLAB_SIZE` bytes long."""
        self._new_slab = new_slab
        self.in_memory: list[Segment] = []
        self.on_disk: list[Segment] = []
        self.lingering = 0  #: slots that are free, but for others who still view them
        #: those with room, by (on disk, owned): with thousands of slabs, a walk along all would cost more than the copy
        self.open: dict[tuple[bool, bool], dict[Segment, None]] = {
            (on_disk, owned): {} for on_disk in (False, True) for owned in (False, True)
        }

    def find(self, size: int, on_disk: bool, owned: bool) -> tuple[Segment, int]:
        """A free slot, rather one that has memory already. It is not taken yet."""
        if self.lingering:
            self.reap()
        open_slabs = self.open[on_disk, owned]
        for slab in open_slabs:
            assert slab.allocator is not None
            offset = slab.allocator.find(size, slab.capacity)
            if offset is not None:
                return slab, offset
        for slab in list(open_slabs):
            assert slab.allocator is not None
            offset = slab.allocator.find(size, slab.size)
            if offset is not None:
                return slab, offset
            if slab.allocator.free_bytes < _FULL:
                del open_slabs[slab]
        slab = self._new_slab(on_disk, owned)
        slab.on_disk = on_disk
        slab.owned = owned
        open_slabs[slab] = None
        slab.allocator = SlabAllocator(SLAB_SIZE)
        slab.allocator.take(0, LEDGER_SIZE)
        (self.on_disk if on_disk else self.in_memory).append(slab)
        return slab, LEDGER_SIZE

    def free(self, slab: Segment, offset: int, size: int, shared: bool) -> bool:
        """An object is freed. Whether its slab is none of ours any more: nobody needs it."""
        if slab.forked or (shared and segment_viewers.is_viewed(slab.descriptor, offset, size)):
            slab.lingering[offset] = size
            self.lingering += 1
        elif slab.allocator is not None:
            slab.allocator.free(offset, size)
            if not slab.moving:
                self.open[slab.on_disk, slab.owned][slab] = None
        return self.retire(slab)

    def retire(self, slab: Segment) -> bool:
        """Let go of a slab without objects, unless it is the only one. What lingers in it stays valid."""
        if slab.objects or slab.deferred or slab.moving or (slab.lingering and not slab.forked):
            return False
        if not slab.forked and not slab.on_disk and sum(map(is_idle, self.in_memory)) == 1:
            return False  # one warm slab is kept
        self.remove(slab)
        self.lingering -= len(slab.lingering)
        return True

    def remove(self, slab: Segment) -> None:
        """It takes no more objects."""
        (self.on_disk if slab.on_disk else self.in_memory).remove(slab)
        self.open[slab.on_disk, slab.owned].pop(slab, None)

    def put_back(self, slab: Segment) -> None:
        """One that was removed, to be moved to disk, is in memory still."""
        self.in_memory.append(slab)
        self.open[False, slab.owned][slab] = None

    def moved_to_disk(self, slab: Segment) -> None:
        """One that was removed is on disk now, where nothing is reused."""
        self.lingering -= len(slab.lingering)
        slab.lingering.clear()
        slab.allocator = None

    def idle(self) -> list[Segment]:
        """The warm ones, which serve nobody."""
        return [slab for slab in self.in_memory if is_idle(slab)]

    def reap(self) -> None:
        """Look whether others still view what lingers."""
        for slab in [slab for slab in (*self.in_memory, *self.on_disk) if slab.lingering and not slab.forked]:
            assert slab.allocator is not None
            for offset, size in list(slab.lingering.items()):
                if not segment_viewers.is_viewed(slab.descriptor, offset, size):
                    del slab.lingering[offset]
                    self.lingering -= 1
                    slab.allocator.free(offset, size)
                    self.open[slab.on_disk, slab.owned][slab] = None

    def drop(self, segments: dict[str, Segment]) -> None:
        """These segments, by name, are somebody else's now."""
        for memory in segments.values():
            self.open[memory.on_disk, memory.owned].pop(memory, None)
        self.in_memory = [slab for slab in self.in_memory if slab.name not in segments]
        self.on_disk = [slab for slab in self.on_disk if slab.name not in segments]

    def clear(self) -> None:
        """The store is closed."""
        self.in_memory, self.on_disk, self.lingering = [], [], 0
        for slabs in self.open.values():
            slabs.clear()


def is_idle(slab: Segment) -> bool:
    """Whether nobody needs this slab now."""
    return not slab.objects and not slab.deferred and not slab.lingering
