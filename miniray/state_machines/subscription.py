"""One consumer of a stream: its cursor, its bounded queue, what it lost, and how it fares.

Every consumer has a `Subscription` of its own, so that a slow one costs the others nothing. The stream numbers its
events (1, 2, 3, ...); a subscription gets those that its consumer wants, in that order, by `offer`. The consumer gets
them in batches by `take`, and says by `acknowledge` how far it has come.

Terms
-----
* `position`: the number of the last event that was handed out. `acknowledged`: the cursor, the number up to which the
  consumer is done; a durable consumer begins again after it.
* The *log*: where the stream's events are kept (a file, a table). A subscription can do without one, unless its policy
  is `SPILL` or it begins in the past.

What happens when the queue is full (`limit` events)
----------------------------------------------------
========== ===========================================================================================================
DROP_OLDEST the oldest event goes, and is counted
LATEST      only the newest event of each key is kept; those it replaces are counted. (Keys beyond `limit`: the oldest.)
SAMPLE      while the queue is more than half full, only every n-th event is queued; the rest is counted
SPILL       nothing is lost: the consumer reads the log until it has caught up with the live events again
========== ===========================================================================================================

Nobody ever waits: `offer` always returns at once.

From the log to live
--------------------
A consumer that begins in the past (`since`), or that spilled, is *catching up*: `wanted_from_log` says after which
number it wants to read on, `from_log` takes what was read. Meanwhile live events go to its queue as well; `_live_from`
is the number after which all of them are there. Once the log was read through that number, the consumer is live.
Events that came on both roads are handed out once: whatever is not after `_read_to` is passed over. So there is no gap
and no repeat, however the two roads interleave.

Exactness: ``offered == handed out + queued + dropped`` for a live consumer, at any time. `Heartbeat` and `health` are
computed from these counts; they have no other source.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar, Union

from msgspec import Struct

Item = TypeVar("Item")
Stream = TypeVar("Stream")

DROP_OLDEST, LATEST, SAMPLE, SPILL = "drop_oldest", "latest", "sample", "spill"
POLICIES = (DROP_OLDEST, LATEST, SAMPLE, SPILL)

#: `health`
OK, SLOW, DROPPING, STALLED = "ok", "slow", "dropping", "stalled"

#: events queued for one consumer
QUEUE_LIMIT = 10_000
#: seconds that the oldest event may wait before its consumer is slow, and without any `take` before it is stalled
SLOW_AFTER = 1.0
STALLED_AFTER = 5.0
#: seconds that a consumer counts as dropping after its last drop
DROPPING_FOR = 5.0


class Heartbeat(Struct, frozen=True):
    """How far a consumer or a component is."""

    component_id: str
    last_seq_id: int  #: the last event that was handed out
    total_events: int  #: offered to it
    dropped_events: int
    lag_ms: float  #: how long the oldest event that it has not got waits


class Overflowed(Struct, frozen=True):
    """Its queue is full. Comes with the first drop of a row; `dropped` is the total."""

    consumer: str
    dropped: int
    sequence: int  #: of the event that was lost


class HealthChanged(Struct, frozen=True):
    """ok, slow, dropping or stalled."""

    consumer: str
    before: str
    after: str


Effect = Union[Overflowed, HealthChanged]


class Queued(Struct, Generic[Item], gc=False):
    """An event in a queue."""

    sequence: int
    key: object
    item: Item
    at: float  #: when it was offered


class Subscription(Generic[Item]):
    """One consumer's view of one stream.

    Args:
        consumer: its name.
        limit: how many events may be queued.
        policy: what happens when the queue is full, see above.
        every: for `SAMPLE`: one of so many.
        acknowledges: `take` gives the next batch only after `acknowledge`.
        newest: the number of the stream's newest event so far.
        since: begin after this event, which may lie in the past (the log is read then); None: begin with what comes.
    """

    def __init__(
        self,
        consumer: str,
        *,
        limit: int = QUEUE_LIMIT,
        policy: str = DROP_OLDEST,
        every: int = 10,
        acknowledges: bool = False,
        newest: int = 0,
        since: int | None = None,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f"unknown policy {policy!r}: it is one of {', '.join(POLICIES)}")
        if limit < 1 or every < 1:
            raise ValueError("limit and every have to be at least 1")
        self.consumer = consumer
        self.limit = limit
        self.policy = policy
        self.every = every
        self.acknowledges = acknowledges
        start = newest if since is None else min(since, newest)
        self.position = start
        self.acknowledged = start
        self.offered = 0
        self.delivered = 0
        self.dropped = 0
        self.in_flight = False  #: a batch is not acknowledged yet
        self.catching_up = start < newest
        self.queue: deque[Queued[Item]] = deque()
        self._latest: dict[object, Queued[Item]] = {}  #: for LATEST, in order of the newest event of each key
        self._unacknowledged: deque[Queued[Item]] = deque()
        self._read_to = start  #: everything up to here was handed out, or is in the front of the queue
        self._live_from = newest
        self._from_log: deque[Queued[Item]] = deque()
        self._simple = policy in (DROP_OLDEST, SPILL)
        self._sampled = 0
        self._overflowing = False
        self._dropped_at: float | None = None
        self._taken_at: float | None = None
        self._health = OK

    # -- events in -------------------------------------------------------------------------------------------------

    def offer(self, sequence: int, key: object, item: Item, now: float) -> list[Effect]:
        """A live event that this consumer wants. Events come in the order of their numbers."""
        if self._simple and not self.catching_up and len(self.queue) < self.limit and sequence > self._read_to:
            # What nearly always happens: 0.3 us in place of 0.5.
            self.offered += 1
            self._overflowing = False
            if self._taken_at is None:
                self._taken_at = now
            self.queue.append(Queued(sequence, key, item, now))
            return []
        if not self.catching_up and sequence <= self._read_to:
            return []
        self.offered += 1
        if self._taken_at is None:
            self._taken_at = now
        queued = Queued(sequence, key, item, now)
        if self.catching_up:
            self.queue.append(queued)
            if len(self.queue) > self.limit:
                self._live_from = self.queue.popleft().sequence  # the log has it, and it is counted when it is read
                self.offered -= 1
            return []
        if self.policy == LATEST:
            return self._offer_latest(queued, now)
        queue = self.queue
        if self.policy == SAMPLE and 2 * len(queue) >= self.limit:
            self._sampled += 1
            if self._sampled % self.every:
                return self._drop(sequence, now)
        if len(queue) < self.limit:
            queue.append(queued)
            self._overflowing = False
            return []
        if self.policy == SPILL:
            # What is queued can be handed out before the log is read on; this event and what follows comes from there.
            self._from_log, self.queue = queue, deque([queued])
            self._read_to = self._from_log[-1].sequence
            self._live_from = sequence - 1
            self.catching_up = True
            return [Overflowed(self.consumer, self.dropped, sequence)]
        lost = queue.popleft()
        queue.append(queued)
        return self._drop(lost.sequence, now)

    def _offer_latest(self, queued: Queued[Item], now: float) -> list[Effect]:
        replaced = self._latest.pop(queued.key, None)
        self._latest[queued.key] = queued
        if replaced is None and len(self._latest) > self.limit:
            replaced = self._latest.pop(next(iter(self._latest)))
        if replaced is None:
            self._overflowing = False
            return []
        self.dropped += 1
        return []  # it is what was asked for, and no overflow

    def _drop(self, sequence: int, now: float) -> list[Effect]:
        self.dropped += 1
        self._dropped_at = now
        if self._overflowing:
            return []
        self._overflowing = True
        return [Overflowed(self.consumer, self.dropped, sequence)]

    # -- the log ---------------------------------------------------------------------------------------------------

    def wanted_from_log(self) -> int | None:
        """Read the log from the event after this number on, and tell `from_log`. None: nothing is wanted now."""
        return self._read_to if self.catching_up and len(self._from_log) < self.limit else None

    def from_log(self, events: Iterable[tuple[int, object, Item]], through: int, now: float) -> None:
        """What was read: the events that this consumer wants, after `wanted_from_log()`; `through`: the number up to
        which the log was read (it may be higher than that of the last event).
        """
        if not self.catching_up:
            return
        for sequence, key, item in events:
            if sequence > self._read_to:
                self._from_log.append(Queued(sequence, key, item, now))
                self._read_to = sequence
                self.offered += 1
        self._read_to = max(self._read_to, through)
        while self.queue and self.queue[0].sequence <= self._read_to:
            self.queue.popleft()
            self.offered -= 1  # it was counted twice
        if self._read_to >= self._live_from and len(self._from_log) + len(self.queue) <= self.limit:
            self._go_live()

    def _go_live(self) -> None:
        self.catching_up = False
        self._from_log.extend(self.queue)
        self.queue, self._from_log = self._from_log, deque()
        if self.policy == LATEST:
            for queued in self.queue:
                if self._latest.pop(queued.key, None) is not None:
                    self.dropped += 1
                self._latest[queued.key] = queued
            self.queue = deque()

    # -- events out ------------------------------------------------------------------------------------------------

    def has_some(self) -> bool:
        """Whether `take` would give something."""
        return not self.in_flight and bool(self._from_log if self.catching_up else self.queue or self._latest)

    def take(self, most: int, now: float) -> list[Item]:
        """The next batch; empty while one is unacknowledged."""
        return [queued.item for queued in self.take_queued(most, now)]

    def take_queued(self, most: int, now: float) -> list[Queued[Item]]:
        """Like `take`, with the numbers."""
        self._taken_at = now
        if self.in_flight:
            return []
        source = self._from_log if self.catching_up else self.queue
        if self._latest and not source:
            batch = [self._latest.pop(key) for key in list(self._latest)[:most]]
        else:
            batch = [source.popleft() for _ in range(min(most, len(source)))]
        if batch:
            self.position = batch[-1].sequence
            self._read_to = max(self._read_to, self.position)
            self.delivered += len(batch)
            if self.acknowledges:
                self.in_flight = True
                self._unacknowledged.extend(batch)
            else:
                self.acknowledged = self.position
        return batch

    def acknowledge(self, sequence: int | None = None) -> bool:
        """The consumer is done up to this number (None: with the batch that it got). True: there is more for it."""
        unacknowledged = self._unacknowledged
        while unacknowledged and (sequence is None or unacknowledged[0].sequence <= sequence):
            self.acknowledged = unacknowledged.popleft().sequence
        if not unacknowledged:
            self.in_flight = False
        return self.has_some()

    def redeliver(self) -> None:
        """The consumer came back and does not know what became of its last batch: it gets that again."""
        again = len(self._unacknowledged)
        target = self._from_log if self.catching_up else self.queue
        target.extendleft(reversed(self._unacknowledged))
        self._unacknowledged.clear()
        self.delivered -= again
        self.in_flight = False
        self.position = self.acknowledged

    # -- how it fares ----------------------------------------------------------------------------------------------

    def queued(self) -> int:
        """How many events wait for the consumer."""
        return len(self._from_log) + len(self.queue) + len(self._latest)

    def lag(self, now: float) -> float:
        """Seconds that the oldest event waits; 0 when none does."""
        for waiting in (self._unacknowledged, self._from_log, self.queue, self._latest.values()):
            for queued in waiting:
                return max(0.0, now - queued.at)
        return 0.0

    def heartbeat(self, now: float) -> Heartbeat:
        """Position, counts and lag."""
        lag_ms = self.lag(now) * 1000
        return Heartbeat(self.consumer, self.position, self.offered, self.dropped, lag_ms)

    def health(self, now: float) -> str:
        """ok, slow (it lags), dropping (it lost events lately), or stalled (it takes nothing)."""
        lag = self.lag(now)
        if lag >= STALLED_AFTER and (self._taken_at is None or now - self._taken_at >= STALLED_AFTER):
            return STALLED
        if self._dropped_at is not None and now - self._dropped_at < DROPPING_FOR:
            return DROPPING
        return SLOW if lag >= SLOW_AFTER or self.catching_up else OK

    def look(self, now: float) -> list[Effect]:
        """Call it now and then: says when the health has changed."""
        before, self._health = self._health, self.health(now)
        return [] if before == self._health else [HealthChanged(self.consumer, before, self._health)]


class SequenceCheck(Generic[Stream]):
    """The receiving side: sees gaps and repeats in streams that are numbered 1, 2, 3, ...

    Args:
        on_gap: called with (stream, number missing, last number, new number).
    """

    def __init__(self, on_gap: Callable[[Stream, int, int, int], None] | None = None) -> None:
        self._last: dict[Stream, int] = {}
        self._on_gap = on_gap
        self.gaps = 0
        self.missing = 0
        self.repeats = 0

    def saw(self, stream: Stream, sequence: int) -> bool:
        """An event came. False: it is a repeat (or older than one that was seen)."""
        last = self._last.get(stream)
        if last is not None and sequence <= last:
            self.repeats += 1
            return False
        self._last[stream] = sequence
        if last is not None and sequence > last + 1:
            self.gaps += 1
            self.missing += sequence - last - 1
            if self._on_gap is not None:
                self._on_gap(stream, sequence - last - 1, last, sequence)
        return True

    def last(self, stream: Stream) -> int:
        """The highest number seen, 0 for none."""
        return self._last.get(stream, 0)

    def last_of_all(self) -> dict[Stream, int]:
        """The highest number seen of each stream."""
        return dict(self._last)

    def restore(self, stream: Stream, sequence: int) -> None:
        """A cursor that was kept: what is not after it is a repeat."""
        self._last[stream] = sequence
