"""The views that one process has of objects in shared memory, and the moment when each is gone.

Each view has an *exporter*, a ctypes array over the mapping. What is derived from the view (slices, casts, numpy
arrays) keeps the exporter alive, and the exporter the mapping; a weak reference to it tells when the last one is gone.
That moment may come inside the garbage collector, in any thread, under any lock: nothing is done then but an append to
``gone``, at which the store looks on its next call. **``on_release`` is called at that very moment: it must do no more
than append to a deque.**
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from miniray.system.foreign_segments import ForeignSegment
from miniray.system.segment import Segment


class View(weakref.ref[Any]):
    """Tells when an exporter is gone."""

    __slots__ = ("key", "offset", "on_release", "segment")
    key: int
    offset: int
    segment: Segment | ForeignSegment | None
    on_release: Callable[[], None] | None


class SegmentViews:
    """The views of one store."""

    def __init__(self) -> None:
        self.gone: deque[View] = deque()  #: what finalisers left to do
        self._alive: dict[int, View] = {}

    def watch(
        self,
        exporter: Any,
        segment: Segment | ForeignSegment | None,
        offset: int,
        on_release: Callable[[], None] | None,
    ) -> None:
        """This exporter shows what lies there; None: nothing (under the store's lock)."""
        view = View(exporter, self._when_gone)
        view.on_release = on_release
        view.segment = segment
        view.offset = offset
        view.key = id(view)
        self._alive[view.key] = view

    def _when_gone(self, view: View) -> None:
        """The finaliser. No lock, no allocation to speak of, no code that could wait."""
        self.gone.append(view)
        if view.on_release is not None:
            view.on_release()

    def take_gone(self) -> View | None:
        """The next one that is gone, to be counted; None when another thread was faster (under the store's lock)."""
        try:
            view = self.gone.popleft()
        except IndexError:
            return None
        self._alive.pop(view.key, None)
        return view
