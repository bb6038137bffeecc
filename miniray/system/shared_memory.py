"""Objects in shared memory: each process writes its own segments, and maps everybody's.

A *segment* is a file in the session's directory on ``/dev/shm`` (``miniray.system.segment``). A *location* is
``(segment, offset, size)``: large objects have a segment of their own, small ones (up to 1 MiB) share *slabs*
(``miniray.system.slabs``), because a process may have only 65,530 mappings.

The rules
    * Only the process that created a segment (or adopted it) gives its memory out or takes it back. All others map it.
    * A location names one object until its creator frees it. A recycled segment gets a new name, so that a reader who
      comes too late finds no file, never another's bytes. (A slot in a slab cannot be renamed: there the owner's word
      has to do.)
    * ``free`` is told whether the location ever left this process. If it did, the memory is used again only when the
      kernel says that nobody views it (``miniray.system.segment_viewers``); until then it *lingers*, and is counted.
      Views of its own process the store knows itself, and waits for the last one.

Recycling
    Freed segments go to a pool (``miniray.system.segment_pool``), and serve the next object of their size: memory that
    was written before is ten times as fast.

The disk
    What nobody views can be moved to files in ``spill_directory`` (``miniray.system.segment_mover``). It keeps its
    name, so no location changes: who finds no segment in memory maps the one on disk. When neither quota nor file
    system has room for a new object, it is created there at once.

Views
    ``open`` returns a read-only memoryview. What is derived from it (slices, casts, numpy arrays) keeps the mapping
    alive. When the last one is gone, a finaliser notes it (``miniray.system.segment_views``), and the store looks at
    the notes on its next call (or ``collect``).

Threads
    All methods may be called from any thread. One lock, held for microseconds; never while ``reserve`` or ``release``
    is called, never while bytes are copied, and never taken by a finaliser.

Alternatives not taken: ``multiprocessing.shared_memory``, whose resource tracker unlinks live segments when a process
that attached to them exits (until ``track=False`` in 3.13); one arena for all processes, as Ray's plasma has it, which
needs a server that owns the allocator (``src/ray/object_manager/plasma`` in Ray).
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from miniray.exceptions import ObjectStoreFullError
from miniray.system import segment_viewers, spilling
from miniray.system.buffer import Buffer
from miniray.system.foreign_segments import ForeignSegment, ForeignSegments
from miniray.system.segment import FREE, OWNED, PAGE, SLAB, SLAB_SIZE, Segment, segment_name, unlink
from miniray.system.segment_mover import SegmentMover
from miniray.system.segment_pool import POOL_LIMIT, SegmentPool
from miniray.system.segment_views import SegmentViews
from miniray.system.slab_allocator import aligned
from miniray.system.slabs import Slabs

SLAB_OBJECT_LIMIT = 1 << 20

_SLAB_STEP = 1 << 20  # a slab gets its memory in steps: the first small object does not pay for 16 MiB

_T = TypeVar("_T")
_numbers = itertools.count(1)


class SegmentStore:
    """The shared memory of one process. See the module."""

    def __init__(
        self,
        directory: str,
        reserve: Callable[[int], None] = lambda size: None,
        release: Callable[[int], None] = lambda size: None,
        *,
        writer: str = "",
        spill_directory: str = "",
        disk_threshold: float = 1.0,
        pool_limit: int = POOL_LIMIT,
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        """``directory`` exists, and belongs to this session alone; ``spill_directory`` likewise, "" for none.

        ``reserve(bytes)`` is called before memory is taken from the system and may raise ``ObjectStoreFullError``;
        ``release(bytes)`` after it went back. ``writer``: what the names of its segments begin with, unique in the
        directory. ``disk_threshold``: nothing is written to a disk that is fuller than this share.
        ``pool_limit``: how many bytes of freed memory are kept warm. ``lock`` may be handed in by a runtime whose
        critical sections also hold signals back.
        """
        self.directory = directory
        self.spill_directory = spill_directory
        self.disk_threshold = disk_threshold
        self._reserve = reserve
        self._release = release
        self._lock: AbstractContextManager[Any] = threading.Lock() if lock is None else lock
        self._pid = os.getpid()
        self._writer = writer or f"{self._pid:x}.{next(_numbers)}"
        self._counter = 0
        self.made = 0  # how many objects there have been
        self._total = 0  # bytes reserved, and allocated or just about to be
        self._own: dict[str, Segment] = {}  # those with objects in them, and all slabs; the oldest first
        self._slabs = Slabs(self._new_slab)
        self._pool = SegmentPool(pool_limit)
        self._lingering: list[Segment] = []  # free, but for others who still view them
        self._foreign = ForeignSegments((directory, spill_directory) if spill_directory else (directory,))
        self._views = SegmentViews()
        self.gone = self._views.gone  #: views that ended, and are to be collected
        self._unlink_again: list[str] = []
        self._trimming = threading.Lock()
        self._mover = SegmentMover(self)
        self._closed = False
        _stores.add(self)
        _watch_forks()

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

    @property
    def spilled(self) -> int:
        """Bytes of objects on disk."""
        with self._lock:
            return sum(sum(memory.objects.values()) for memory in self._own.values() if memory.on_disk)

    def _pooled(self) -> int:
        return self._pool.bytes + sum(slab.capacity for slab in self._slabs.idle())

    # ---- create

    def create(self, size: int, owned: bool = True) -> Buffer:
        """Memory for an object of ``size`` bytes. Raises ``ObjectStoreFullError``, ``OutOfDiskError``.

        ``owned``: by this process, so that it is lost when this process dies; else it outlives it.
        """
        if self.gone:
            self.collect()
        self.made += 1
        if size == 0:
            return Buffer(self, None, 0, 0)
        try:
            if size <= SLAB_OBJECT_LIMIT:
                return self._with_room(size, lambda size: self._create_in_slab(size, owned))
            capacity = -(-size // PAGE) * PAGE
            with self._lock:
                memory = self._pool.take(capacity)
            if memory is None and self._lingering and self.reap():
                with self._lock:
                    memory = self._pool.take(capacity)
            return self._filled(memory or self._with_room(capacity, self._create_segment), size, owned)
        except ObjectStoreFullError:
            if not self.spill_directory:
                raise
        return self._create_on_disk(size, owned)

    def _filled(self, memory: Segment, size: int, owned: bool) -> Buffer:
        with self._lock:
            if owned:
                memory.name += OWNED
            memory.objects[0] = size
            memory.unsealed += 1
            self._own[memory.name] = memory
        return Buffer(self, memory, 0, size)

    def _with_room(self, size: int, action: Callable[[int], _T]) -> _T:
        try:
            return action(size)
        except ObjectStoreFullError:
            if not self.trim(size) and not self.spill(size):
                raise
        try:
            return action(size)
        except ObjectStoreFullError:
            if not self.spill(size):
                raise
            return action(size)

    def _create_segment(self, capacity: int) -> Segment:
        self._reserve(capacity)
        try:
            with self._lock:
                memory = self._new_segment(capacity, self.directory, free=True)
            try:
                memory.allocate(capacity)
            except BaseException:
                memory.discard()
                raise
        except BaseException:
            self._release(capacity)
            raise
        with self._lock:
            self._total += capacity
        return memory

    def _create_on_disk(self, size: int, owned: bool) -> Buffer:
        """There is no room in memory for this object."""
        spilling.check_disk(self.spill_directory, self.disk_threshold)
        if size <= SLAB_OBJECT_LIMIT:
            with self._lock:
                slab, offset = self._slabs.find(size, True, owned)
                slab.allocate(max(slab.capacity, offset + aligned(size)))
                return self._take_slot(slab, offset, size)
        capacity = -(-size // PAGE) * PAGE
        with self._lock:
            memory = self._new_segment(capacity, self.spill_directory, free=True)
        memory.on_disk = True
        try:
            memory.allocate(capacity)
        except BaseException:
            memory.discard()
            raise
        return self._filled(memory, size, owned)

    def _new_segment(self, size: int, directory: str, free: bool, mark: str = "") -> Segment:
        if self._closed:
            raise RuntimeError("the segment store is closed")
        while True:
            try:
                return Segment.create(directory, self._next_name() + mark, size, free)
            except FileExistsError:  # whoever left it, its objects may be alive
                continue

    def _new_slab(self, on_disk: bool, owned: bool) -> Segment:
        directory = self.spill_directory if on_disk else self.directory
        slab = self._new_segment(SLAB_SIZE, directory, False, SLAB + OWNED * owned)
        self._own[slab.name] = slab
        return slab

    def _next_name(self) -> str:
        self._counter += 1
        return segment_name(self._writer, self._counter)

    def _create_in_slab(self, size: int, owned: bool) -> Buffer:
        credit = 0  # reserved outside the lock for the memory that the slot will need, if it still does then
        try:
            while True:
                with self._lock:
                    slab, offset = self._slabs.find(size, False, owned)
                    end = min(-(-(offset + aligned(size)) // _SLAB_STEP) * _SLAB_STEP, slab.size)
                    needed = max(0, end - slab.capacity)
                    if needed <= credit:
                        if needed:
                            slab.allocate(end)
                            self._total += needed
                            credit -= needed
                        return self._take_slot(slab, offset, size)
                self._reserve(needed - credit)
                credit = needed
        finally:
            if credit:
                self._release(credit)

    def _take_slot(self, slab: Segment, offset: int, size: int) -> Buffer:
        assert slab.allocator is not None
        slab.allocator.take(offset, size)
        slab.objects[offset] = size
        slab.note(offset, True)
        slab.unsealed += 1
        return Buffer(self, slab, offset, size)

    def sealed(self, memory: Segment, end: int, published: bool) -> None:
        """A buffer is written up to ``end``, or given up: then it is not published."""
        if memory.allocator is None and memory.path.endswith(FREE) and published:
            memory.publish()
        with self._lock:
            memory.unsealed -= 1
            memory.touched = max(memory.touched, end)

    # ---- open

    def open(self, segment: str, offset: int, size: int) -> memoryview:
        """A read-only view of an object. Raises FileNotFoundError when its segment is gone."""
        return self.open_tracked(segment, offset, size, None)

    def open_tracked(self, segment: str, offset: int, size: int, on_release: Callable[[], None] | None) -> memoryview:
        """As ``open``; ``on_release`` is called once, when the last view derived from this one is gone.

        It is called from a finaliser: it must only append to a deque, or the like.
        """
        from ctypes import c_ubyte  # 2 ms that a process without large objects does not pay

        if self.gone:
            self.collect()
        viewed: Segment | ForeignSegment | None
        with self._lock:
            own = self._own.get(segment)
            if size == 0:
                exporter, viewed = (c_ubyte * 0)(), None
            elif own is not None and own.mapping is not None:
                exporter, viewed = (c_ubyte * own.size).from_buffer(own.mapping), own
                own.views[offset] = own.views.get(offset, 0) + 1
            else:
                mapping, viewed = self._foreign.view(segment, offset, size, size <= SLAB_OBJECT_LIMIT)
                exporter = (c_ubyte * len(mapping)).from_buffer(mapping)
            self._views.watch(exporter, viewed, offset, on_release)
        return memoryview(exporter).cast("B")[offset : offset + size].toreadonly()

    def is_viewed(self, segment: str, offset: int) -> bool:
        """Whether this process views the object at that place."""
        if self.gone:
            self.collect()
        with self._lock:
            own = self._own.get(segment)
            return offset in own.views if own is not None else self._foreign.is_viewed(segment, offset)

    def collect(self) -> None:
        """Do what finalisers left to do: recycle what was freed while it was viewed. Other calls do it too."""
        discarded: list[Segment] = []
        while self.gone:
            with self._lock:
                view = self._views.take_gone()
                if view is None:
                    break
                memory, offset = view.segment, view.offset
                if isinstance(memory, ForeignSegment):
                    self._foreign.let_go(memory, offset)
                elif memory is not None:
                    memory.views[offset] -= 1
                    if memory.views[offset] == 0:
                        del memory.views[offset]
                        if offset in memory.deferred:
                            size, shared = memory.deferred.pop(offset)
                            discarded += self._retire(memory, offset, size, shared)
        self._discard(discarded)

    # ---- free

    def free(self, segment: str, offset: int, size: int, shared: bool) -> bool:
        """Free an object, once. ``shared``: its location was known outside of this process.

        False when this process has no such object: its creator, or who adopted its segment, has to be asked.
        """
        if self.gone:
            self.collect()
        if size == 0:
            return True
        with self._lock:
            memory = self._own.get(segment)
            if memory is None or memory.objects.pop(offset, None) is None:
                return False
            memory.note(offset, False)
            if offset in memory.views:
                memory.deferred[offset] = size, shared
                return True
            discarded = self._retire(memory, offset, size, shared)
        self._discard(discarded)
        return True

    def _retire(self, memory: Segment, offset: int, size: int, shared: bool) -> list[Segment]:
        """Reuse the memory of a freed object; or return the segments to discard, which are no longer counted."""
        if memory.moving and memory.allocator is None:
            return []  # who moves it will notice
        if memory.allocator is not None:
            return self._given_up(memory) if self._slabs.free(memory, offset, size, shared) else []
        if memory.objects or memory.deferred:  # a slab that was adopted, or moved to disk
            return []
        self._own.pop(memory.name, None)
        if memory.adopted or memory.on_disk or memory.forked or memory.capacity > self._pool.limit:
            return self._uncounted([memory])
        try:
            memory.withdraw(self._next_name())
            if shared and segment_viewers.is_file_viewed(memory.path):
                self._lingering.append(memory)
                return []
        except OSError:  # somebody swept the directory
            return self._uncounted([memory])
        return self._uncounted(self._pool.add(memory))

    def _given_up(self, memory: Segment) -> list[Segment]:
        """Nobody needs the segment: it is to be discarded."""
        self._own.pop(memory.name, None)
        return self._uncounted([memory])

    def _uncounted(self, discarded: list[Segment]) -> list[Segment]:
        self._total -= sum(segment.counted for segment in discarded)
        return discarded

    def reap(self) -> bool:
        """Look whether others still view what lingers. Returns whether anything came back."""
        discarded: list[Segment] = []
        with self._lock:
            lingering, self._lingering = self._lingering, []
            for memory in lingering:
                try:
                    if segment_viewers.is_file_viewed(memory.path):
                        self._lingering.append(memory)
                    else:
                        discarded += self._uncounted(self._pool.add(memory))
                except OSError:
                    discarded += self._uncounted([memory])
            back = len(self._lingering) < len(lingering)
            if self._slabs.lingering:
                self._slabs.reap()
        self._discard(discarded)
        return back

    def trim(self, size: int | None = None) -> int:
        """Give warm memory back to the system, oldest first: ``size`` bytes or more, or all. Returns how many."""
        with self._trimming:  # whoever comes second finds that the quota has the bytes of the first
            return self._trim(size)

    def _trim(self, size: int | None) -> int:
        if self._lingering or self._slabs.lingering:
            self.reap()
        discarded = []
        freed = 0
        with self._lock:
            while self._pool and (size is None or freed < size):
                discarded.append(self._pool.take_oldest())
                freed += discarded[-1].capacity
            for slab in self._slabs.idle():
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
        discarded = False
        for segment in segments:
            discarded = True
            freed += segment.counted
            if not segment.discard():
                self._unlink_again.append(segment.path)
        if freed:
            self._release(freed)
        if discarded and self._unlink_again:
            self._unlink_again = [path for path in self._unlink_again if not unlink(path)]

    # ---- spill

    def spill(self, size: int | None = None) -> int:
        """Move objects that nobody views to disk, the oldest first, until ``size`` bytes of memory came back, or all.

        Takes as long as the disk does. Returns how many bytes came back: less when there is nothing left to move, or
        when the disk is full; no object is lost by that.
        """
        if not self.spill_directory:
            return 0
        if self.gone:
            self.collect()
        return self._mover.move(size)

    # ---- ownership

    def hand_over(self) -> dict[str, list[tuple[int, int]]]:
        """Let go of all segments that hold objects, and name the objects: ``{segment: [(offset, size), ...]}``.

        For a process that exits: somebody else (``adopt``) frees them, and counts them, from now on.
        """
        with self._lock:
            handed = {name: memory for name, memory in self._own.items() if memory.objects}
            for name, memory in handed.items():
                del self._own[name]
                self._total -= memory.counted
                memory.close()
            self._slabs.drop(handed)
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

    def note_fork(self) -> None:
        """This process was forked: its child may view what it has now, and nobody will say until when."""
        for memory in (*self._own.values(), *self._lingering):
            memory.forked = True
        self._foreign.note_fork()

    def close(self) -> None:
        """Unlink all that was not handed over. Views stay valid. In a forked child, only forget it."""
        with self._lock:
            self._closed = True
            segments = [*self._own.values(), *self._pool.clear(), *self._lingering]
            self._own, self._lingering, self._total = {}, [], 0
            self._slabs.clear()
            self._foreign.close()
        if os.getpid() == self._pid:
            self._discard(segments)
        else:
            for segment in segments:
                segment.close()


_stores: weakref.WeakSet[SegmentStore] = weakref.WeakSet()
_forks_watched = False


def _watch_forks() -> None:
    global _forks_watched
    if not _forks_watched and hasattr(os, "register_at_fork"):
        _forks_watched = True
        os.register_at_fork(after_in_parent=_note_forks)


def _note_forks() -> None:
    for store in list(_stores):
        store.note_fork()
