"""Reading a bus from a cursor: the log first, then live."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from miniray.util.bus.event_log import Logged
from miniray.util.bus.events import TelemetryEvent

#: `follow(since=CURSOR)`: where the consumer was last
CURSOR = "cursor"


class Follower:
    """What `follow` gives: an iterator that never ends by itself, or batches.

    An event is done with when the next one is asked for, a batch when the next one is, or `commit` was called; the bus
    is told at the end of a batch. What it was not told when the process ended comes again. Who stops iterating and
    begins again goes on with the next event.

    Args:
        take: (most, timeout) -> events and their numbers.
        done: tells the bus how far this consumer is.
        leave: ends the subscription.
        batch: events taken at once.
    """

    def __init__(
        self,
        take: Callable[[int, float | None], list[Logged]],
        done: Callable[[int], object],
        leave: Callable[[], object],
        batch: int,
    ) -> None:
        self._take = take
        self._done = done
        self._leave = leave
        self._batch = batch
        self.position = 0  #: the offset of the last event that was handed out
        self._committed = 0
        self._left: deque[Logged] = deque()  #: of the batch that is iterated over

    def read(self, timeout: float | None = None) -> list[Logged]:
        """The next batch, with the numbers of its events; empty when there is none within `timeout` seconds."""
        self.commit()
        events = list(self._left) or self._take(self._batch, timeout)
        self._left.clear()
        if events:
            self.position = events[-1][0]
        return events

    def commit(self, through: int | None = None) -> None:
        """All that was handed out is done with, or all up to an offset."""
        position = self.position if through is None else min(through, self.position)
        if position > self._committed:
            self._committed = position
            self._done(position)

    def __iter__(self) -> Iterator[TelemetryEvent]:
        return self

    def __next__(self) -> TelemetryEvent:
        while not self._left:
            self.commit()
            self._left.extend(self._take(self._batch, None))
        self.position, event = self._left.popleft()
        return event

    def close(self) -> None:
        """Read no more. What was handed out last counts as not done, unless it was committed."""
        self._leave()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()
