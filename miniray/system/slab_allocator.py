"""Which bytes of a slab are free: first fit, lowest address first, neighbours merged when they come back.

Plain arithmetic, without memory or locks of its own. Lowest address first keeps the used part of a slab short, and
only the used part costs memory. Slots are at least 100 KiB, so a slab of 16 MiB has at most 160 of them, and a walk
along the list of holes is short.
"""

from __future__ import annotations

from bisect import bisect_left

ALIGNMENT = 64


def aligned(size: int) -> int:
    """``size`` in bytes, rounded up to the alignment."""
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


class SlabAllocator:
    """The free holes of ``capacity`` bytes (a multiple of the alignment)."""

    __slots__ = ("_holes", "capacity", "free_bytes")

    def __init__(self, capacity: int) -> None:
        if capacity <= 0 or capacity % ALIGNMENT:
            raise ValueError(f"a slab's capacity must be a positive multiple of {ALIGNMENT}, not {capacity}")
        self.capacity = capacity
        self.free_bytes = capacity
        self._holes: list[tuple[int, int]] = [(0, capacity)]  # (start, end), sorted, never touching

    def find(self, size: int, limit: int) -> int | None:
        """The offset of a free slot of ``size`` bytes that ends at or before ``limit``, or None. Nothing changes."""
        size = max(aligned(size), ALIGNMENT)
        for start, end in self._holes:
            if start + size > limit:
                return None
            if end - start >= size:
                return start
        return None

    def take(self, offset: int, size: int) -> None:
        """Allocate the slot that ``find(size, ...)`` found: ``offset`` is the start of a hole."""
        size = max(aligned(size), ALIGNMENT)
        index = bisect_left(self._holes, (offset, 0))
        start, end = self._holes[index]
        if start != offset or end - start < size:
            raise ValueError(f"{offset}+{size} is not a free slot")
        if end - start == size:
            del self._holes[index]
        else:
            self._holes[index] = (start + size, end)
        self.free_bytes -= size

    def free(self, offset: int, size: int) -> None:
        """Take back the slot of ``size`` bytes that was taken at ``offset``. Raises ValueError if it is not."""
        start, end = offset, offset + max(aligned(size), ALIGNMENT)
        holes = self._holes
        index = bisect_left(holes, (start, start))
        before = holes[index - 1] if index else None
        after = holes[index] if index < len(holes) else None
        if (before and before[1] > start) or (after and after[0] < end) or end > self.capacity or start < 0:
            raise ValueError(f"{offset}+{size} is not an allocated slot")
        self.free_bytes += end - start
        first = index
        if before and before[1] == start:
            start = before[0]
            first -= 1
        if after and after[0] == end:
            end = after[1]
            index += 1
        holes[first:index] = [(start, end)]

    @property
    def empty(self) -> bool:
        """Whether nothing is allocated."""
        return self.free_bytes == self.capacity
