"""Change feeds: consumers that get what was persisted, from any position, each at its own pace.

A change is offered to its watchers once it is in the journal, never before. Whoever begins in the past, or was too slow
for its queue, reads the database until it has caught up (`subscription`). The cursor of a durable consumer is what it
acknowledged; it is kept by the caller (`Moved`), and given to `watch` when the consumer is there again.
"""

from __future__ import annotations

from typing import Union

from msgspec import Struct

from miniray.messages.durable import Change
from miniray.state_machines import subscription as subscriptions
from miniray.state_machines.subscription import Subscription

#: changes that go to a watcher at once, and that are read from the database at once
BATCH = 500


class Moved(Struct):
    """Keep the cursor of this durable consumer."""

    consumer: str
    sequence: int


class Read(Struct):
    """Read the changes of this table after that number, and tell `was_read` so."""

    watcher: bytes
    consumer: str
    after: int
    table: int


class Send(Struct):
    """Send these to the watcher."""

    watcher: bytes
    consumer: str
    changes: list[Change]
    dropped: int


Effect = Union[Moved, Read, Send, subscriptions.Effect]


class Watch(Struct, eq=False):
    """What one consumer watches."""

    watcher: bytes
    consumer: str
    table: int
    namespace: bytes | None
    prefix: bytes
    durable: bool
    subscription: Subscription[Change]
    cursor: int  #: of a durable one, as the caller keeps it
    reading: int | None = None  #: after which change the log is being read

    def wants(self, change: Change) -> bool:
        return (
            change.table == self.table
            and change.key.startswith(self.prefix)
            and (self.namespace is None or change.namespace == self.namespace)
        )


class ChangeFeed:
    """All watches of a session. Consumers are named by (process, name); durable ones by name alone."""

    def __init__(self) -> None:
        self.watches: dict[tuple[bytes, str], Watch] = {}
        self.persisted = 0  #: number of the last change that was offered

    def watch(
        self,
        watcher: bytes,
        consumer: str,
        table: int,
        now: float,
        *,
        since: int | None = None,
        namespace: bytes | None = None,
        prefix: bytes = b"",
        limit: int = subscriptions.QUEUE_LIMIT,
        policy: str = subscriptions.SPILL,
        every: int = 10,
        durable: bool = False,
        cursor: int | None = None,
    ) -> tuple[int, list[Effect]]:
        """A consumer begins. The number after which its changes come. `cursor`: what is kept of a durable one.

        Raises:
            ValueError: it asks for what does not exist.
        """
        if durable:  # its former process may not be known to be dead yet
            for key in [key for key in self.watches if key[1] == consumer and self.watches[key].durable]:
                del self.watches[key]
        subscription: Subscription[Change] = Subscription(
            consumer,
            limit=limit,
            policy=policy,
            every=every,
            acknowledges=True,
            newest=self.persisted,
            since=since,
        )
        kept = min(cursor or 0, subscription.acknowledged)
        watch = Watch(watcher, consumer, table, namespace, prefix, durable, subscription, kept)
        self.watches[watcher, consumer] = watch
        return subscription.acknowledged, self._go_on(watch, now)

    def stop(self, watcher: bytes, consumer: str) -> None:
        """A consumer wants no more."""
        self.watches.pop((watcher, consumer), None)

    def remove(self, watcher: bytes) -> None:
        """A process is gone."""
        for key in [key for key in self.watches if key[0] == watcher]:
            del self.watches[key]

    def was_persisted(self, changes: list[Change], through: int, now: float) -> list[Effect]:
        """These are in the journal now, and all others up to that number."""
        self.persisted = max(self.persisted, through)
        effects: list[Effect] = []
        for watch in self.watches.values():
            for change in changes:
                if watch.wants(change):
                    effects += watch.subscription.offer(change.sequence, change.key, change, now)
            effects += self._go_on(watch, now)
        return effects

    def was_read(
        self, watcher: bytes, consumer: str, after: int, changes: list[Change], through: int, now: float
    ) -> list[Effect]:
        """The answer to `Read`. One that a former self of this consumer has asked for is passed over."""
        watch = self.watches.get((watcher, consumer))
        if watch is None or watch.reading != after:
            return []
        watch.reading = None
        wanted = [(change.sequence, change.key, change) for change in changes if watch.wants(change)]
        watch.subscription.from_log(wanted, through, now)
        return self._go_on(watch, now)

    def handled(self, watcher: bytes, consumer: str, sequence: int, now: float) -> list[Effect]:
        """A consumer is done up to this number."""
        watch = self.watches.get((watcher, consumer))
        if watch is None:
            return []
        watch.subscription.acknowledge(sequence)
        effects: list[Effect] = []
        # What it got from an earlier head is not in flight here.
        done = min(sequence, watch.subscription.acknowledged)
        if watch.durable and done > watch.cursor:
            watch.cursor = done
            effects.append(Moved(consumer, done))
        return effects + self._go_on(watch, now)

    def look(self, now: float) -> list[Effect]:
        """Now and then: who has become slow, or well again."""
        effects: list[Effect] = []
        for watch in self.watches.values():
            effects += watch.subscription.look(now)
        return effects

    def _go_on(self, watch: Watch, now: float) -> list[Effect]:
        effects: list[Effect] = []
        mine = watch.subscription
        batch = mine.take(BATCH, now)
        if batch:
            effects.append(Send(watch.watcher, watch.consumer, batch, mine.dropped))
        after = mine.wanted_from_log()
        if after is not None and watch.reading is None and (after < self.persisted or mine.queue):
            watch.reading = after
            effects.append(Read(watch.watcher, watch.consumer, after, watch.table))
        return effects
