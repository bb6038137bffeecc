"""Reading a bus from a cursor: the log first, then live."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from miniray.util.bus.event_log import Logged
from miniray.util.bus.events import TelemetryEvent

#: `follow(since=CURSOR)`: where the consumer was last
CURSOR = "cursor"


class Follower:
    """What `follow` gives: an iterator that never ends by itself, or batches.

    An event is done with when the next one is asked for, a batch when the next one is, or `commit` was called. What was
    not done with when the process ended comes again.

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

    def read(self, timeout: float | None = None) -> list[Logged]:
        """The next batch, with the numbers of its events; empty when there is none within `timeout` seconds."""
        self.commit()
        events = self._take(self._batch, timeout)
        if events:
            self.position = events[-1][0]
        return events

    def commit(self) -> None:
        """All that was handed out is done with."""
        if self.position > self._committed:
            self._committed = self.position
            self._done(self.position)

    def __iter__(self) -> Iterator[TelemetryEvent]:
        while True:
            for offset, event in self._take(self._batch, None):
                yield event
                self.position = offset
            self.commit()

    def close(self) -> None:
        """Read no more. What was handed out last counts as not done, unless it was committed."""
        self._leave()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()
