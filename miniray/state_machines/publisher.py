"""The live path: who hears what, in which order, and what happens to whom does not keep up.

Guarantees
----------
* Events of a channel carry a number that counts per channel; each subscriber gets those it asked for in that order.
* Every subscriber has a `Subscription` of its own: a position, a bounded queue, counts. When the queue is full its
  policy decides, for that subscriber alone. Nobody waits for anybody.
* `take` hands out what is queued for one subscriber, one batch at a time: the next one only after `acknowledge`, or at
  once for subscribers that do not acknowledge.

Events live in memory only; what must not be lost is read from the tables, or from the change feed (`change_feed`).
"""

from __future__ import annotations

from msgspec import Struct

from miniray.messages.control import Published
from miniray.state_machines.subscription import DROP_OLDEST, QUEUE_LIMIT, Effect, Subscription


class Subscriber(Struct, eq=False):
    """What it wants, and its part of the events. Their numbers in `subscription` count all channels."""

    subscription: Subscription[Published]
    channels: dict[int, set[bytes] | None] = {}  #: None: every key

    def wants(self, channel: int, key: bytes) -> bool:
        if channel not in self.channels:
            return False
        keys = self.channels[channel]
        return keys is None or key in keys


class Publisher:
    """Subscribers are named by bytes (worker ids)."""

    def __init__(self) -> None:
        self.subscribers: dict[bytes, Subscriber] = {}
        self.events: list[Effect] = []  #: what happened to subscriptions; whoever cares takes them out
        self._published = 0
        self._sequence: dict[int, int] = {}
        self._by_channel: dict[int, dict[bytes, Subscriber]] = {}

    def subscribe(
        self,
        subscriber: bytes,
        channel: int,
        key: bytes | None = None,
        *,
        limit: int = QUEUE_LIMIT,
        policy: str = DROP_OLDEST,
        acknowledges: bool = False,
    ) -> None:
        """From now on it hears of this key (None: every key) of the channel."""
        found = self.subscribers.get(subscriber)
        if found is None:
            subscription: Subscription[Published] = Subscription(
                subscriber.hex(), limit=limit, policy=policy, acknowledges=acknowledges, newest=self._published
            )
            found = self.subscribers[subscriber] = Subscriber(subscription)
        if key is None:
            found.channels[channel] = None
        else:
            keys = found.channels.setdefault(channel, set())
            if keys is not None:
                keys.add(key)
        self._by_channel.setdefault(channel, {})[subscriber] = found

    def unsubscribe(self, subscriber: bytes, channel: int, key: bytes | None = None) -> None:
        """No longer. With `key` None: not of any key."""
        found = self.subscribers.get(subscriber)
        if found is None or channel not in found.channels:
            return
        keys = found.channels[channel]
        if key is not None and keys is not None:
            keys.discard(key)
        if key is None or keys == set():
            del found.channels[channel]
            del self._by_channel[channel][subscriber]
        if not found.channels:
            del self.subscribers[subscriber]

    def remove(self, subscriber: bytes) -> None:
        """It is gone."""
        found = self.subscribers.pop(subscriber, None)
        if found is not None:
            for channel in found.channels:
                self._by_channel[channel].pop(subscriber, None)

    def publish(self, channel: int, key: bytes, value: bytes, now: float = 0.0) -> list[bytes]:
        """Number an event and queue it; the subscribers for whom `take` now has something."""
        sequence = self._sequence.get(channel, 0) + 1
        self._sequence[channel] = sequence
        self._published += 1
        ready = []
        event = None
        for subscriber, found in self._by_channel.get(channel, {}).items():
            if not found.wants(channel, key):
                continue
            if event is None:
                event = Published(channel, key, sequence, value)
            self.events += found.subscription.offer(self._published, (channel, key), event, now)
            if not found.subscription.in_flight:
                ready.append(subscriber)
        return ready

    def take(self, subscriber: bytes, most: int = 1000, now: float = 0.0) -> list[Published]:
        """The next batch for it; empty while one is unacknowledged."""
        found = self.subscribers.get(subscriber)
        return [] if found is None else found.subscription.take(most, now)

    def acknowledge(self, subscriber: bytes) -> bool:
        """It got the last batch. True: there is more for it."""
        found = self.subscribers.get(subscriber)
        return found is not None and found.subscription.acknowledge()
