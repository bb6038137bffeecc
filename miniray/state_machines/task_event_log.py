"""The newest task events of a session, in the batches in which they came.

The head keeps what has happened to tasks without looking into it: a batch is opaque bytes and a count. So a million
tasks cost it a thousand appends. The newest `limit` events are kept; older batches are dropped whole, and counted, so
that whoever reads can say how much is missing.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class TaskEventLog(Generic[Batch]):
    """A bounded log of batches.

    Args:
        limit: how many events are kept at least, if there were so many. Less than one more batch is kept besides.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept = 0
        self.dropped = 0
        self._batches: deque[tuple[int, Batch]] = deque()

    def add(self, count: int, batch: Batch) -> None:
        """`count` more events."""
        if count <= 0:
            return
        self._batches.append((count, batch))
        self.kept += count
        while self._batches and self.kept - self._batches[0][0] >= self.limit:
            oldest, _ = self._batches.popleft()
            self.kept -= oldest
            self.dropped += oldest

    def batches(self, most: int | None = None) -> list[Batch]:
        """What is kept, oldest first; with `most`: as many of the newest batches as are needed for so many events."""
        newest: deque[Batch] = deque()
        left = self.kept if most is None else most
        for size, batch in reversed(self._batches):
            if left <= 0:
                break
            newest.appendleft(batch)
            left -= size
        return list(newest)
