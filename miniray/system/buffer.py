"""Memory that one new object is written into."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from miniray.system.segment import Segment
    from miniray.system.serialization import SerializedObject
    from miniray.system.shared_memory import SegmentStore


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
        self._finish(True)

    def abort(self) -> None:
        """Take the memory back unpublished."""
        self._finish(False)
        self._store.free(self.segment, self.offset, self.size, shared=False)

    def _finish(self, published: bool) -> None:
        self.view.release()
        memory = self._memory
        if memory is not None:
            self._store.sealed(memory, self.offset + self.size, published)
            if memory.allocator is None:
                memory.close()
