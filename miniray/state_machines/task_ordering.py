"""The order of an actor's calls: a reorder buffer per caller.

The rules
---------
* Each caller numbers its calls to one incarnation of an actor 0, 1, 2, ... The actor begins them in that order,
  whatever order they arrive in. Between callers there is no order, and a gap in one stream never holds another.
* A number that was seen before is a duplicate (a resend) and is dropped.
* A number that will never be used (the call was cancelled, or its arguments failed) is announced by `SkipSequence`:
  no gap ever stalls a stream.

Actors that run calls concurrently begin them as they arrive (`ordered=False`): duplicates are dropped all the same.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class CallerStream(Generic[T]):
    """The calls of one caller, as the actor sees them."""

    __slots__ = ("_early", "_ordered", "_seen", "client_processed_up_to", "expected")

    def __init__(self, ordered: bool = True) -> None:
        self.expected = 0  #: every number below has arrived
        self.client_processed_up_to = -1  #: the highest number whose answer the caller had when it made its last call
        self._ordered = ordered
        self._early: dict[int, T | None] = {}  #: arrived before their turn; None: skipped
        self._seen: set[int] = set()  #: (unordered) begun before their turn

    def arrive(self, number: int, item: T) -> list[T]:
        """A call came: the calls that can begin now, in order."""
        return self._take(number, item)

    def skip(self, number: int) -> list[T]:
        """A number will not be used: the calls that can begin now, in order."""
        return self._take(number, None)

    def waiting(self) -> int:
        """How many calls have arrived before their turn."""
        return sum(item is not None for item in self._early.values())

    def _take(self, number: int, item: T | None) -> list[T]:
        if number < self.expected or number in self._early or number in self._seen:
            return []
        if not self._ordered:
            self._seen.add(number)
            while self.expected in self._seen:
                self._seen.remove(self.expected)
                self.expected += 1
            return [] if item is None else [item]
        if number != self.expected:
            self._early[number] = item
            return []
        begin = [] if item is None else [item]
        self.expected += 1
        while self.expected in self._early:
            later = self._early.pop(self.expected)
            self.expected += 1
            if later is not None:
                begin.append(later)
        return begin
