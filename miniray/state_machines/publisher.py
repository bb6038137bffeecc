"""The live path: who hears what, in which order, and what happens to whom does not keep up.

Guarantees
----------
* Events of a channel carry a number that counts per channel; each subscriber gets those it asked for in that order.
* Every subscriber has a queue of its own. When it is full the oldest event is dropped and counted, for that subscriber
  alone; the gap in the numbers and `Queue.dropped` tell. Nobody waits for anybody.
* `take` hands out what is queued for one subscriber, one batch at a time: the next one only after `acknowledge`, or at
  once for subscribers that do not acknowledge.

Events live in memory only; what must not be lost is read from the tables.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct, field

from miniray.messages.control import Published

#: events queued for one subscriber
QUEUE_LIMIT = 10_000


class Queue(Struct, eq=False):
    """One subscriber: what it wants, what it has not got yet, what it never will."""

    limit: int
    acknowledges: bool
    channels: dict[int, set[bytes] | None] = {}  #: None: every key
    events: deque[Published] = field(default_factory=deque)
    dropped: int = 0
    in_flight: bool = False

    def wants(self, channel: int, key: bytes) -> bool:
        if channel not in self.channels:
            return False
        keys = self.channels[channel]
        return keys is None or key in keys


class Publisher:
    """Subscribers are named by bytes (worker ids)."""

    def __init__(self) -> None:
        self.subscribers: dict[bytes, Queue] = {}
        self._sequence: dict[int, int] = {}
        self._by_channel: dict[int, dict[bytes, Queue]] = {}

    def subscribe(
        self,
        subscriber: bytes,
        channel: int,
        key: bytes | None = None,
        *,
        limit: int = QUEUE_LIMIT,
        acknowledges: bool = False,
    ) -> None:
        """From now on it hears of this key (None: every key) of the channel."""
        queue = self.subscribers.get(subscriber)
        if queue is None:
            queue = self.subscribers[subscriber] = Queue(limit, acknowledges)
        if key is None:
            queue.channels[channel] = None
        else:
            keys = queue.channels.setdefault(channel, set())
            if keys is not None:
                keys.add(key)
        self._by_channel.setdefault(channel, {})[subscriber] = queue

    def unsubscribe(self, subscriber: bytes, channel: int, key: bytes | None = None) -> None:
        """No longer. With `key` None: not of any key."""
        queue = self.subscribers.get(subscriber)
        if queue is None or channel not in queue.channels:
            return
        keys = queue.channels[channel]
        if key is not None and keys is not None:
            keys.discard(key)
        if key is None or keys == set():
            del queue.channels[channel]
            del self._by_channel[channel][subscriber]
        if not queue.channels:
            del self.subscribers[subscriber]

    def remove(self, subscriber: bytes) -> None:
        """It is gone."""
        queue = self.subscribers.pop(subscriber, None)
        if queue is not None:
            for channel in queue.channels:
                self._by_channel[channel].pop(subscriber, None)

    def publish(self, channel: int, key: bytes, value: bytes) -> list[bytes]:
        """Number an event and queue it; the subscribers for whom `take` now has something."""
        sequence = self._sequence.get(channel, 0) + 1
        self._sequence[channel] = sequence
        ready = []
        event = None
        for subscriber, queue in self._by_channel.get(channel, {}).items():
            if not queue.wants(channel, key):
                continue
            if event is None:
                event = Published(channel, key, sequence, value)
            if len(queue.events) >= queue.limit:
                queue.events.popleft()
                queue.dropped += 1
            queue.events.append(event)
            if not queue.in_flight:
                ready.append(subscriber)
        return ready

    def take(self, subscriber: bytes, most: int = 1000) -> list[Published]:
        """The next batch for it; empty while one is unacknowledged."""
        queue = self.subscribers.get(subscriber)
        if queue is None or queue.in_flight:
            return []
        batch = [queue.events.popleft() for _ in range(min(most, len(queue.events)))]
        queue.in_flight = queue.acknowledges and bool(batch)
        return batch

    def acknowledge(self, subscriber: bytes) -> bool:
        """It got the last batch. True: there is more for it."""
        queue = self.subscribers.get(subscriber)
        if queue is None:
            return False
        queue.in_flight = False
        return bool(queue.events)
