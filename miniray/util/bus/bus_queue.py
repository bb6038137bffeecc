"""The queue that a subscriber gets: a plain `queue.Queue` to its reader, and a cursor with a policy to the bus."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from miniray.state_machines.consumer_group import ConsumerGroup
from miniray.state_machines.latency_histogram import LatencyHistogram
from miniray.state_machines.subscription import Effect, Queued, Subscription
from miniray.util.bus.event_log import Logged
from miniray.util.bus.events import TelemetryEvent

#: (after, limit) -> events and the number up to which the log was read
ReadLog = Callable[[int, int], tuple[list[Logged], int]]

#: events read from the log at once
_PAGE = 1000


class BusQueue(queue.Queue[TelemetryEvent]):
    """What is queued for one subscriber. Reading from it (`get`, `get_nowait`, `get_many`) is all that it is for.

    The log is read by the reader, and outside of the lock: the publisher waits for nobody.
    """

    def __init__(self, subscription: Subscription[TelemetryEvent], read_log: ReadLog | None = None) -> None:
        self.subscription = subscription
        self.latency = LatencyHistogram()  #: from the publishing to the reading
        self._read_log = read_log
        super().__init__()

    def _qsize(self) -> int:
        return self.subscription.queued()

    def put(self, item: TelemetryEvent, block: bool = True, timeout: float | None = None) -> None:
        """Not for readers."""
        raise TypeError("events come to this queue by way of the bus: publish them there")

    def offer(self, events: list[Logged], now: float) -> list[Effect]:
        """The bus has these for its reader."""
        effects: list[Effect] = []
        with self.mutex:
            for offset, event in events:
                effects += self.subscription.offer(offset, event.stream, event, now)
            self.not_empty.notify_all()
        return effects

    def get(self, block: bool = True, timeout: float | None = None) -> TelemetryEvent:
        """The next event.

        Raises:
            queue.Empty: there is none (within `timeout` seconds).
        """
        events = self.get_many(1, timeout if block else 0.0)
        if not events:
            raise queue.Empty
        return events[0]

    def get_many(self, most: int = _PAGE, timeout: float | None = None) -> list[TelemetryEvent]:
        """The next events, at least one; none only when there were none within `timeout` seconds."""
        return [event for _, event in self.get_numbered(most, timeout)]

    def get_numbered(self, most: int = _PAGE, timeout: float | None = None) -> list[Logged]:
        """Like `get_many`, with the numbers that the bus gave."""
        deadline = None if timeout is None else time.monotonic() + timeout
        subscription = self.subscription
        while True:
            with self.mutex:
                if subscription.has_some():
                    now = time.monotonic()
                    taken = subscription.take_queued(most, now)
                    self._measure(taken, now)
                    return [(queued.sequence, queued.item) for queued in taken]
                after = subscription.wanted_from_log() if self._read_log is not None else None
                if after is None:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return []
                    self.not_empty.wait(left)
                    continue
            assert self._read_log is not None
            events, through = self._read_log(after, _PAGE)
            with self.mutex:
                numbered = [(offset, event.stream, event) for offset, event in events]
                subscription.from_log(numbered, through, time.monotonic())

    def _measure(self, taken: list[Queued[TelemetryEvent]], now: float) -> None:
        """Events that were published together have waited for the same time: they are counted together."""
        at, count = taken[0].at, 0
        for queued in taken:
            if queued.at != at:
                self.latency.add(now - at, count)
                at, count = queued.at, 0
            count += 1
        self.latency.add(now - at, count)

    def acknowledge(self, offset: int | None = None) -> None:
        """The reader is done with what it got, up to this number."""
        with self.mutex:
            self.subscription.acknowledge(offset)
            self.not_empty.notify_all()

    def caught_up(self) -> bool:
        """Whether all that was published was read."""
        with self.mutex:
            return not self.subscription.catching_up and not self.subscription.queued()


class GroupLock:
    """The lock that all members of a group share, and the condition that wakes them."""

    def __init__(self) -> None:
        self.condition = threading.Condition()

    def __enter__(self) -> bool:
        return self.condition.__enter__()

    def __exit__(self, *args: Any) -> None:
        self.condition.__exit__(*args)


class GroupQueue(queue.Queue[TelemetryEvent]):
    """What one member of a consumer group gets. An event counts as done when the member asks for the next one."""

    def __init__(self, group: ConsumerGroup[TelemetryEvent], member: str, mutex: GroupLock) -> None:
        super().__init__()
        self.group = group
        self.member = member
        # All members of a group share one lock: what one leaves behind goes to the others.
        self.mutex = mutex  # type: ignore[assignment]
        self.not_empty = mutex.condition

    def _qsize(self) -> int:
        member = self.group.members.get(self.member)
        return len(member.waiting) if member is not None else 0

    def put(self, item: TelemetryEvent, block: bool = True, timeout: float | None = None) -> None:
        """Not for readers."""
        raise TypeError("events come to this queue by way of the bus: publish them there")

    def get(self, block: bool = True, timeout: float | None = None) -> TelemetryEvent:
        """The next event; what was got before is done.

        Raises:
            queue.Empty: there is none (within `timeout` seconds), or the member has left.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.mutex:
            while True:
                if self.member not in self.group.members:
                    raise queue.Empty
                self.group.acknowledge(self.member)
                taken = self.group.take(self.member, 1)
                if taken:
                    return taken[0].item
                left = 0.0 if not block else None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise queue.Empty
                self.not_empty.wait(left)
