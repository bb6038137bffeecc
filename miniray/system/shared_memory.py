"""Objects in shared memory: each process writes its own segments, and maps everybody's.

A *segment* is a file in the session's directory on ``/dev/shm`` (``miniray.system.segment``). A *location* is
``(segment, offset, size)``: large objects have a segment of their own, small ones (up to 1 MiB) share *slabs*, because
a process may have only 65,530 mappings.

The rules
    * Only the process that created a segment (or adopted it) gives its memory out or takes it back. All others map it.
    * A location names one object until its creator frees it. A recycled segment gets a new name, so that a reader who
      comes too late finds no file, never another's bytes. (A slot in a slab cannot be renamed: there the owner's word
      has to do.)
    * ``free`` is told whether the memory is *recyclable*: that is the caller's knowledge that no other process views
      it. Views of its own process the store knows itself, and waits for the last one. What is not recyclable is
      unlinked at once; views stay valid, since a mapping outlives the name of its file.

Recycling
    A page fault costs ten times the copy: 1.6 GB/s into a fresh mapping, 13 to 20 GB/s into one written before. So
    freed segments go to a pool, mapping and all, and serve the next object of their size. The pool is bounded, counts
    against the quota, and is given back (``trim``) before anything fails for want of memory.

Views
    Each ``open`` makes an *exporter*, a ctypes array over the mapping, and returns a read-only memoryview of it. What
    is derived from that (slices, casts, numpy arrays) keeps the exporter alive, and the exporter the mapping; a weak
    reference to it tells when the last one is gone. That moment may come inside the garbage collector, in any thread,
    under any lock: the store only appends to a deque then, and looks at it on its next call (or ``collect``). **The
    ``on_release`` of ``open_tracked`` is called at that very moment: it must do no more than append to a deque.**

Threads
    All methods may be called from any thread. One lock, held for microseconds; never while ``reserve`` or ``release``
    is called, and never taken by a finaliser.

Alternatives not taken: ``multiprocessing.shared_memory``, whose resource tracker unlinks live segments when a process
that attached to them exits (until ``track=False`` in 3.13); one arena for all processes, as Ray's plasma has it, which
needs a server that owns the allocator (``src/ray/object_manager/plasma`` in Ray).
"""

from __future__ import annotations

import os
import threading
import weakref
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from miniray.exceptions import ObjectStoreFullError
from miniray.system.segment import PAGE, Segment, map_segment, segment_name, unlink
from miniray.system.slab_allocator import SlabAllocator, aligned

if TYPE_CHECKING:
    import mmap

    from miniray.system.serialization import SerializedObject

SLAB_SIZE = 16 << 20
SLAB_OBJECT_LIMIT = 1 << 20
POOL_LIMIT = 1 << 30

_SLAB_STEP = 1 << 20  # a slab gets its memory in steps: the first small object does not pay for 16 MiB
_OVERSIZE = 4  # a pooled segment may be larger than the object by a quarter

_T = TypeVar("_T")


class _View(weakref.ref[Any]):
    """Tells when an exporter is gone."""

    __slots__ = ("key", "offset", "on_release", "segment")
    key: int
    offset: int
    segment: Segment | None
    on_release: Callable[[], None] | None


class Buffer:
    """Memory for one new object: ``write`` it, ``seal`` it, and publish its location; or ``abort``.

    ``view`` is writable and ``size`` bytes long, of arbitrary content. It is gone after ``seal`` and ``abort``.
    """

    __slots__ = ("_memory", "_store", "offset", "segment", "size", "view")

    def __init__(self, store: SegmentStore, memory: Segment | None, offset: int, size: int) -> None:
        self._store = store
        self._memory = memory
        self.segment = "" if memory is None else memory.name
        self.offset = offset
        self.size = size
        whole = bytearray() if memory is None or memory.mapping is None else memory.mapping
        self.view = memoryview(whole)[offset : offset + size]

    def write(self, value: SerializedObject) -> None:
        """Write a serialized object, the fastest way: through the file into fresh memory, else by a copy."""
        memory = self._memory
        if (
            memory is None
            or memory.descriptor < 0
            or self.offset + self.size <= memory.touched
            or not hasattr(os, "pwrite")
        ):
            value.write_into(self.view)
        else:
            for offset, part in value.parts():
                memory.write(memoryview(part), self.offset + offset)

    def seal(self) -> None:
        """The object is complete. Raises BufferError while something else still exports the view."""
        self.view.release()
        memory = self._memory
        if memory is not None:
            memory.touched = max(memory.touched, self.offset + self.size)
            if memory.allocator is None:
                memory.close()

    def abort(self) -> None:
        """Take the memory back unpublished."""
        self.seal()
        self._store.free(self.segment, self.offset, self.size, recyclable=True)


class SegmentStore:
    """The shared memory of one process. See the module."""

    def __init__(
        self,
        directory: str,
        reserve: Callable[[int], None] = lambda size: None,
        release: Callable[[int], None] = lambda size: None,
        *,
        pool_limit: int = POOL_LIMIT,
        lock: AbstractContextManager[Any] | None = None,
        owner: int = 0,
    ) -> None:
        """``directory`` exists, and belongs to this session alone.

        ``reserve(bytes)`` is called before memory is taken from the system and may raise ``ObjectStoreFullError``;
        ``release(bytes)`` after it went back. ``pool_limit``: how many bytes of freed memory are kept warm.
        ``lock`` may be handed in by a runtime whose critical sections also hold signals back. ``owner``: the number in
        the names of its segments, the process id unless several stores live in one process.
        """
        self.directory = directory
        self.pool_limit = pool_limit
        self._reserve = reserve
        self._release = release
        self._lock: AbstractContextManager[Any] = threading.Lock() if lock is None else lock
        self._pid = os.getpid()
        self._owner = owner or self._pid
        self._counter = 0
        self._total = 0  # bytes reserved, and allocated or just about to be
        self._own: dict[str, Segment] = {}  # those with objects in them, and all slabs
        self._slabs: list[Segment] = []
        self._pool: list[tuple[int, int, Segment]] = []  # (capacity, age, segment), sorted
        self._pool_bytes = 0
        self._foreign: dict[str, weakref.ref[mmap.mmap]] = {}
        self._foreign_sweep = 64  # dead references are swept out when there are so many
        self._views: dict[int, _View] = {}
        self._gone: deque[_View] = deque()
        self._unlink_again: list[str] = []
        self._closed = False

    @property
    def used(self) -> int:
        """Bytes of memory that serve objects, the unused rest of their segments included."""
        with self._lock:
            return self._total - self._pooled()

    @property
    def pooled(self) -> int:
        """Bytes of memory that wait, warm, for the next object."""
        with self._lock:
            return self._pooled()

    def _pooled(self) -> int:
        return self._pool_bytes + sum(slab.capacity for slab in self._slabs if _is_idle(slab))

    # ---- create

    def create(self, size: int) -> Buffer:
        """Memory for an object of ``size`` bytes. Raises ``ObjectStoreFullError``."""
        if self._gone:
            self.collect()
        if size == 0:
            return Buffer(self, None, 0, 0)
        if size <= SLAB_OBJECT_LIMIT:
            return self._with_room(size, self._create_in_slab)
        capacity = -(-size // PAGE) * PAGE
        memory = self._from_pool(capacity) or self._with_room(capacity, self._create_segment)
        with self._lock:
            memory.objects[0] = size
            self._own[memory.name] = memory
        return Buffer(self, memory, 0, size)

    def _with_room(self, size: int, action: Callable[[int], _T]) -> _T:
        try:
            return action(size)
        except ObjectStoreFullError:
            if not self.trim(size):
                raise
            return action(size)

    def _create_segment(self, capacity: int) -> Segment:
        self._reserve(capacity)
        try:
            with self._lock:
                memory = self._new_segment(capacity)
            try:
                memory.allocate(capacity)
            except BaseException:
                memory.discard(self.directory)
                raise
        except BaseException:
            self._release(capacity)
            raise
        with self._lock:
            self._total += capacity
        return memory

    def _new_segment(self, size: int) -> Segment:
        if self._closed:
            raise RuntimeError("the segment store is closed")
        while True:
            try:
                return Segment.create(self.directory, self._next_name(), size)
            except FileExistsError:  # left behind by a process that had our pid: its objects may be alive
                continue

    def _next_name(self) -> str:
        self._counter += 1
        return segment_name(self._owner, self._counter)

    def _from_pool(self, capacity: int) -> Segment | None:
        """The smallest pooled segment that is large enough, and not much too large."""
        with self._lock:
            index = bisect_left(self._pool, (capacity,))
            if index == len(self._pool) or self._pool[index][0] > capacity + capacity // _OVERSIZE:
                return None
            memory = self._pool.pop(index)[2]
            self._pool_bytes -= memory.capacity
            name = self._next_name()
        try:
            memory.rename(self.directory, name)
        except OSError:  # somebody swept the directory
            with self._lock:
                self._total -= memory.capacity
            self._discard([memory])
            return None
        return memory

    def _create_in_slab(self, size: int) -> Buffer:
        credit = 0  # reserved outside the lock for the memory that the slot will need, if it still does then
        try:
            while True:
                with self._lock:
                    slab, offset = self._find_slot(size)
                    end = min(-(-(offset + aligned(size)) // _SLAB_STEP) * _SLAB_STEP, slab.size)
                    needed = max(0, end - slab.capacity)
                    if needed <= credit:
                        if needed:
                            slab.allocate(end)
                            self._total += needed
                            credit -= needed
                        assert slab.allocator is not None
                        slab.allocator.take(offset, size)
                        slab.objects[offset] = size
                        return Buffer(self, slab, offset, size)
                self._reserve(needed - credit)
                credit = needed
        finally:
            if credit:
                self._release(credit)

    def _find_slot(self, size: int) -> tuple[Segment, int]:
        """A free slot, rather one that has memory already. It is not taken yet."""
        for has_memory in (True, False):
            for slab in self._slabs:
                assert slab.allocator is not None
                offset = slab.allocator.find(size, slab.capacity if has_memory else slab.size)
                if offset is not None:
                    return slab, offset
        slab = self._new_segment(SLAB_SIZE)
        slab.allocator = SlabAllocator(SLAB_SIZE)
        self._own[slab.name] = slab
        self._slabs.append(slab)
        return slab, 0

    # ---- open

    def open(self, segment: str, offset: int, size: int) -> memoryview:
        """A read-only view of an object. Raises FileNotFoundError when its segment is gone."""
        return self.open_tracked(segment, offset, size, None)

    def open_tracked(self, segment: str, offset: int, size: int, on_release: Callable[[], None] | None) -> memoryview:
        """As ``open``; ``on_release`` is called once, when the last view derived from this one is gone.

        It is called from a finaliser: it must only append to a deque, or the like.
        """
        from ctypes import c_ubyte  # 2 ms that a process without large objects does not pay

        if self._gone:
            self.collect()
        with self._lock:
            own = self._own.get(segment)
            if size == 0:
                exporter = (c_ubyte * 0)()
            elif own is not None and own.mapping is not None:
                exporter = (c_ubyte * own.size).from_buffer(own.mapping)
                own.views[offset] = own.views.get(offset, 0) + 1
            else:
                own = None
                mapping = self._map(segment)
                exporter = (c_ubyte * len(mapping)).from_buffer(mapping)
            view = _View(exporter, self._when_gone)
            view.on_release = on_release
            view.segment = own
            view.offset = offset
            view.key = id(view)
            self._views[view.key] = view
        return memoryview(exporter).cast("B")[offset : offset + size].toreadonly()

    def _map(self, segment: str) -> mmap.mmap:
        """Another process's segment, mapped once for as long as something views it."""
        known = self._foreign.get(segment)
        mapping = None if known is None else known()
        if mapping is None:
            mapping = map_segment(self.directory, segment)
            if len(self._foreign) >= self._foreign_sweep:
                self._foreign = {name: known for name, known in self._foreign.items() if known() is not None}
                self._foreign_sweep = 64 + 2 * len(self._foreign)
            self._foreign[segment] = weakref.ref(mapping)
        return mapping

    def _when_gone(self, view: _View) -> None:
        """The finaliser. No lock, no allocation to speak of, no code that could wait."""
        self._gone.append(view)
        if view.on_release is not None:
            view.on_release()

    def collect(self) -> None:
        """Do what finalisers left to do: recycle what was freed while it was viewed. Other calls do it too."""
        discarded: list[Segment] = []
        while self._gone:
            with self._lock:
                try:
                    view = self._gone.popleft()
                except IndexError:  # another thread was faster
                    break
                self._views.pop(view.key, None)
                memory, offset = view.segment, view.offset
                if memory is None:
                    continue
                memory.views[offset] -= 1
                if memory.views[offset] == 0:
                    del memory.views[offset]
                    if offset in memory.deferred:
                        discarded += self._retire(memory, offset, memory.deferred.pop(offset), True)
        self._discard(discarded)

    # ---- free

    def free(self, segment: str, offset: int, size: int, recyclable: bool) -> bool:
        """Free an object, once. ``recyclable``: no other process views it, or will.

        False when this process has no such object: its creator, or who adopted its segment, has to be asked.
        """
        if self._gone:
            self.collect()
        if size == 0:
            return True
        with self._lock:
            memory = self._own.get(segment)
            if memory is None or memory.objects.pop(offset, None) is None:
                return False
            if recyclable and offset in memory.views:
                memory.deferred[offset] = size
                return True
            discarded = self._retire(memory, offset, size, recyclable)
        self._discard(discarded)
        return True

    def _retire(self, memory: Segment, offset: int, size: int, recyclable: bool) -> list[Segment]:
        """Reuse the memory of a freed object; or return the segments to discard, which are no longer counted."""
        discarded = []
        if memory.allocator is not None:
            if recyclable:
                memory.allocator.free(offset, size)
            if memory.objects or memory.deferred:
                return []
            if memory.allocator.empty and sum(map(_is_idle, self._slabs)) == 1:
                return []  # one warm slab is kept
            self._slabs.remove(memory)
            discarded.append(memory)
        elif memory.objects or memory.deferred:  # an adopted slab
            return []
        elif recyclable and not memory.adopted and memory.capacity <= self.pool_limit:
            self._counter += 1
            insort(self._pool, (memory.capacity, self._counter, memory))
            self._pool_bytes += memory.capacity
            while self._pool_bytes > self.pool_limit:
                discarded.append(self._oldest_of_pool())
        else:
            discarded.append(memory)
        self._own.pop(memory.name, None)
        self._total -= sum(segment.capacity for segment in discarded)
        return discarded

    def _oldest_of_pool(self) -> Segment:
        index = min(range(len(self._pool)), key=lambda i: self._pool[i][1])
        memory = self._pool.pop(index)[2]
        self._pool_bytes -= memory.capacity
        return memory

    def trim(self, size: int | None = None) -> int:
        """Give warm memory back to the system, oldest first: ``size`` bytes or more, or all. Returns how many."""
        discarded = []
        freed = 0
        with self._lock:
            while self._pool and (size is None or freed < size):
                discarded.append(self._oldest_of_pool())
                freed += discarded[-1].capacity
            for slab in [slab for slab in self._slabs if _is_idle(slab)]:
                if size is None or freed < size:
                    self._slabs.remove(slab)
                    del self._own[slab.name]
                    discarded.append(slab)
                    freed += slab.capacity
            self._total -= freed
        self._discard(discarded)
        return freed

    def _discard(self, segments: Iterable[Segment]) -> None:
        """Unlink, and tell the quota. Never under the lock."""
        freed = 0
        for segment in segments:
            freed += segment.capacity
            if not segment.discard(self.directory):
                self._unlink_again.append(segment.name)
        if freed:
            self._release(freed)
            self._unlink_again = [name for name in self._unlink_again if not unlink(self.directory, name)]

    def unlink(self, segment: str) -> None:
        """Unlink a segment by name, whoever made it: for the head, when its process is gone."""
        if not unlink(self.directory, segment):
            self._unlink_again.append(segment)

    # ---- ownership

    def hand_over(self) -> dict[str, list[tuple[int, int]]]:
        """Let go of all segments that hold objects, and name the objects: ``{segment: [(offset, size), ...]}``.

        For a process that exits: somebody else (``adopt``) frees them, and counts them, from now on.
        """
        with self._lock:
            handed = {name: memory for name, memory in self._own.items() if memory.objects}
            for name, memory in handed.items():
                del self._own[name]
                self._total -= memory.capacity
                memory.close()
            self._slabs = [slab for slab in self._slabs if slab.name not in handed]
        return {name: list(memory.objects.items()) for name, memory in handed.items()}

    def adopt(self, segment: str, objects: Iterable[tuple[int, int]]) -> int:
        """Own another's segment from now on, to free it when its ``(offset, size)`` objects are freed.

        Returns the bytes of memory it holds; they count as used, and are released, but were not reserved here. Raises
        FileNotFoundError.
        """
        memory = Segment.adopt(self.directory, segment)
        memory.objects.update(objects)
        with self._lock:
            self._own[segment] = memory
            self._total += memory.capacity
        return memory.capacity

    def close(self) -> None:
        """Unlink all that was not handed over. Views stay valid. In a forked child, only forget it."""
        with self._lock:
            self._closed = True
            segments = [*self._own.values(), *(entry[2] for entry in self._pool)]
            self._own, self._slabs, self._pool = {}, [], []
            self._pool_bytes = self._total = 0
        if os.getpid() == self._pid:
            self._discard(segments)
        else:
            for segment in segments:
                segment.close()


def _is_idle(slab: Segment) -> bool:
    return not slab.objects and not slab.deferred
