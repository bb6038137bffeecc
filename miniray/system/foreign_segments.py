"""Other processes' segments, as this process maps them: each once, for as long as something views it.

Viewing is made known through `segment_viewers`. A segment that holds one object is locked whole, and its descriptor
closed: the lock ends with the mapping, at the very moment in which the last view is gone. Of a slab the slots are
locked one by one, which takes a descriptor until the last of them is let go.

A segment may have been given away between the moment in which it was opened and the one in which it was locked. So its
path is looked at once more under the lock: a file that is recycled has another name by then.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from miniray.system import segment_viewers
from miniray.system.segment import map_segment, open_segment

if TYPE_CHECKING:
    import mmap


class ForeignSegment:
    """One mapping. ``descriptor`` is open for a slab, else -1."""

    __slots__ = ("__weakref__", "descriptor", "forked", "mapping", "name", "views")

    def __init__(self, name: str, mapping: mmap.mmap, descriptor: int) -> None:
        self.name = name
        self.mapping = weakref.ref(mapping)
        self.descriptor = descriptor
        self.views: dict[int, tuple[int, int]] = {}  # offset -> how many exporters show it, and its size
        self.forked = False  # a forked child shares the open file: what is let go here would be let go there


class ForeignSegments:
    """All that this process maps. Called under the store's lock."""

    def __init__(self, directories: tuple[str, ...]) -> None:
        self._directories = directories
        self._known: dict[str, ForeignSegment] = {}
        self._sweep_at = 64  # what is dead is swept out when there are so many

    def __len__(self) -> int:
        return len(self._known)

    def view(self, name: str, offset: int, size: int, in_slab: bool) -> tuple[mmap.mmap, ForeignSegment]:
        """The mapping of a segment, of which an object is to be viewed. Raises FileNotFoundError."""
        known = self._known.get(name)
        mapping = None if known is None else known.mapping()
        if known is None or mapping is None:
            known, mapping = self._open(name, offset, size, in_slab)
        count, _ = known.views.get(offset, (0, 0))
        if count == 0 and known.descriptor >= 0:
            segment_viewers.hold(known.descriptor, offset, size)
        known.views[offset] = count + 1, size
        return mapping, known

    def _open(self, name: str, offset: int, size: int, in_slab: bool) -> tuple[ForeignSegment, mmap.mmap]:
        descriptor, path = open_segment(name, self._directories)
        try:
            if in_slab:
                segment_viewers.hold(descriptor, offset, size)
            else:
                segment_viewers.hold(descriptor)
            os.stat(path)
            mapping = map_segment(descriptor)
        except FileNotFoundError:  # moved to disk in this very moment, or freed
            os.close(descriptor)
            descriptor, path = open_segment(name, self._directories[1:])
            mapping = map_segment(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if not in_slab:
            os.close(descriptor)
            descriptor = -1
        if len(self._known) >= self._sweep_at:
            self._known = {name: known for name, known in self._known.items() if known.mapping() is not None}
            self._sweep_at = 64 + 2 * len(self._known)
        known = self._known[name] = ForeignSegment(name, mapping, descriptor)
        return known, mapping

    def is_viewed(self, name: str, offset: int) -> bool:
        """Whether this process views the object at that place."""
        known = self._known.get(name)
        return known is not None and offset in known.views

    def let_go(self, known: ForeignSegment, offset: int) -> None:
        """An exporter of an object is gone."""
        count, size = known.views[offset]
        if count > 1:
            known.views[offset] = count - 1, size
            return
        del known.views[offset]
        if known.descriptor >= 0 and known.views and not known.forked:
            segment_viewers.let_go(known.descriptor, offset, size)
        if not known.views:
            if known.descriptor >= 0:
                os.close(known.descriptor)
                known.descriptor = -1
            if self._known.get(known.name) is known and known.mapping() is None:
                del self._known[known.name]

    def note_fork(self) -> None:
        """This process was forked: what it maps, its child maps too."""
        for known in self._known.values():
            known.forked = True

    def close(self) -> None:
        """Close the descriptors; what is viewed stays valid."""
        for known in self._known.values():
            if known.descriptor >= 0:
                os.close(known.descriptor)
                known.descriptor = -1
        self._known = {}
