"""How the consumers of the head's events fare, told as events of their own.

On the channel of `RESOURCE_USAGE_BATCH` (Ray's for what is told again and again) everybody can hear, with the name of
the consumer as key and msgpack of plain data as value:

* ``{"kind": "overflow", "consumer", "dropped", "sequence"}``: its queue was full, the first time in a row;
* ``{"kind": "health", "consumer", "before", "after"}``: ok, slow, dropping or stalled;
* ``{"kind": "heartbeat", "component_id", "last_seq_id", "total_events", "dropped_events", "lag_ms"}``: of each
  consumer, every `INTERVAL`, as long as somebody listens. On demand: the query "publisher".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from miniray.state_machines.subscription import Effect, HealthChanged, Overflowed, Subscription
from miniray.state_machines.table_prefix import TablePubsub

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

#: seconds between two heartbeats
INTERVAL = 1.0
CHANNEL = TablePubsub.RESOURCE_USAGE_BATCH_PUBSUB

_encode = msgspec.msgpack.encode
_KINDS: dict[type, str] = {Overflowed: "overflow", HealthChanged: "health"}


class ConsumerHealth:
    """What the head tells of its consumers: of subscribers, and of those who watch tables."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._beating = False

    def subscribed(self, channel: int) -> None:
        """Somebody listens to a channel. To this one?"""
        if channel == CHANNEL and not self._beating:
            self._beating = True
            self._head.call_at(self._head.now, self._beat)

    def note(self, effects: Iterable[Effect]) -> None:
        """This happened to consumers."""
        for effect in effects:
            self._publish(effect.consumer, _KINDS[type(effect)], msgspec.structs.asdict(effect))

    def _beat(self) -> None:
        head = self._head
        self._beating = any(CHANNEL in found.channels for found in head.gcs.publisher.subscribers.values())
        if not self._beating:
            return
        subscriptions: list[Subscription[Any]] = [
            found.subscription for found in head.gcs.publisher.subscribers.values()
        ]
        subscriptions += [watch.subscription for watch in head.gcs.durable.feed.watches.values()]
        for subscription in subscriptions:
            self.note(subscription.look(head.now))
            heartbeat = msgspec.structs.asdict(subscription.heartbeat(head.now))
            self._publish(subscription.consumer, "heartbeat", heartbeat)
        head.call_at(head.now + INTERVAL, self._beat)

    def _publish(self, consumer: str, kind: str, fields: dict[str, Any]) -> None:
        self._head.gcs.publish(CHANNEL, consumer.encode(), _encode({"kind": kind, **fields}))
