"""A bus inside one process: who publishes waits for nobody, and every subscriber has a queue and a cursor of its own.

Terms
-----
* A *stream* is what numbers count in: one agent of one run. The producer numbers its events, or the bus does.
* The *offset* is the number that the bus gives an event, across all streams: what cursors and logs count in.
* A *consumer* reads one topic, or all; what happens when it is slow is its policy (`state_machines.subscription`).

Guarantees: a consumer gets the events of its topic in the order in which they were published, each once; what its
policy drops is counted exactly (`overflow_stats`). With a log (`RunBus(log=path)`) nothing is lost to a consumer with
the policy "spill", nor to one that follows from a cursor: it reads the log until it has caught up, and goes on live
without a gap or a repeat. Without a log, what no queue holds is gone.

Limits: events of one process only (`shared_bus` spans several); an event that was published less than a batch before
the process is killed may not be in the log yet (`flush`).
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from miniray.state_machines.consumer_group import ConsumerGroup
from miniray.state_machines.subscription import (
    DROP_OLDEST,
    SPILL,
    HealthChanged,
    Heartbeat,
    Overflowed,
    SequenceCheck,
    Subscription,
)
from miniray.util.bus.bus_queue import BusQueue, GroupLock, GroupQueue
from miniray.util.bus.credits import Credits
from miniray.util.bus.event_log import EventLog, Logged
from miniray.util.bus.events import (
    NEXT,
    OWN_TOPICS,
    Stream,
    TelemetryEvent,
    Topic,
    TopicName,
    checked,
    now_iso,
    topic_name,
)
from miniray.util.bus.follower import CURSOR, Follower

logger = logging.getLogger("miniray.util.bus")

#: Called with (consumer, health before, health now).
HealthCallback = Callable[[str, str, str], None]


class RunBus:
    """Publish and subscribe.

    Args:
        max_queue: events that wait for one subscriber, at most.
        log: the path of a SQLite file that keeps all events; None: nothing is kept.
        heartbeat_s: seconds between two heartbeats (`Topic.HEARTBEAT`), and looks at the consumers' health; None: only
            when asked.
    """

    def __init__(
        self,
        max_queue: int = 2048,
        *,
        log: str | os.PathLike[str] | None = None,
        heartbeat_s: float | None = None,
    ) -> None:
        if max_queue < 1:
            raise ValueError(f"max_queue has to be at least 1, not {max_queue}")
        self.max_queue = max_queue
        self.log = EventLog(log) if log is not None else None
        self._lock = threading.RLock()
        self._offset = self.log.newest if self.log is not None else 0
        self._queues: dict[tuple[str, str], BusQueue] = {}  #: (topic, consumer), topic "": all
        self._by_topic: dict[str, list[BusQueue]] = {}
        self._groups: dict[tuple[str, str], tuple[ConsumerGroup[TelemetryEvent], GroupLock]] = {}
        self._check: SequenceCheck[Stream] = SequenceCheck(self._on_gap)
        for stream, number in (self.log.last_numbers() if self.log is not None else {}).items():
            self._check.restore(stream, number)
        self._found_gaps: list[TelemetryEvent] = []
        self._baseline: dict[tuple[str, str], int] = {}
        self._credits: dict[str, Credits] = {}
        self._health_callbacks: list[HealthCallback] = []
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if heartbeat_s is not None:
            self._thread = threading.Thread(target=self._beat, args=(heartbeat_s,), name="miniray-bus", daemon=True)
            self._thread.start()

    # -- subscribers -----------------------------------------------------------------------------------------------

    def subscribe(self, topic: TopicName | None, consumer_id: str, **settings: Any) -> queue.Queue[TelemetryEvent]:
        """A queue with the events of a topic from now on (None: of all topics); see `subscribe_with_size`."""
        return self.subscribe_with_size(topic, consumer_id, self.max_queue, **settings)

    def subscribe_with_size(
        self,
        topic: TopicName | None,
        consumer_id: str,
        max_queue: int,
        *,
        policy: str = DROP_OLDEST,
        every: int = 10,
        since: int | None = None,
        acknowledges: bool = False,
    ) -> BusQueue:
        """A queue with the events of a topic. Who subscribes to it again under the same name gets a new one.

        Args:
            topic: None: all topics.
            consumer_id: its name.
            max_queue: events that wait, at most.
            policy: "drop_oldest", "latest" (the newest of each stream), "sample" (one of `every` while it lags), or
                "spill" (to the log; nothing is lost).
            every: for "sample".
            since: begin after this offset, with what is in the log; None: with what comes.
            acknowledges: the next batch comes only after `acknowledge`.

        Raises:
            ValueError: there is no such policy, or there is no log for it.
        """
        if self.log is None and (policy == SPILL or since is not None):
            raise ValueError("to spill, or to begin in the past, the bus needs a log: RunBus(log=path)")
        name = topic_name(topic)
        with self._lock:
            subscription: Subscription[TelemetryEvent] = Subscription(
                consumer_id,
                limit=max_queue,
                policy=policy,
                every=every,
                acknowledges=acknowledges,
                newest=self._offset,
                since=since,
            )
            self.unsubscribe(topic, consumer_id)
            found = BusQueue(subscription, self._reader_of(name) if self.log is not None else None)
            self._queues[name, consumer_id] = found
            self._by_topic.setdefault(name, []).append(found)
        return found

    def _reader_of(self, topic: str) -> Callable[[int, int], tuple[list[Logged], int]]:
        log = self.log
        assert log is not None

        def read(after: int, limit: int) -> tuple[list[Logged], int]:
            with self._lock:
                offset = self._offset
            events, through, more = log.read(after, limit, topic)
            # The bus's own events have numbers, and are not logged.
            return events, through if more else max(through, offset)

        return read

    def unsubscribe(self, topic: TopicName | None, consumer_id: str) -> None:
        """No more events for this consumer; what its queue holds stays."""
        name = topic_name(topic)
        with self._lock:
            gone = self._queues.pop((name, consumer_id), None)
            if gone is not None:
                self._by_topic[name].remove(gone)
                self._baseline.pop((name, consumer_id), None)

    def join_group(
        self, topic: TopicName | None, group: str, member: str, *, max_queue: int | None = None
    ) -> GroupQueue:
        """Share the events of a topic with the other members: each event goes to one of them, those of a stream to
        the same one. An event counts as done when the member asks for the next; what a member leaves undone
        (`leave_group`) goes to the others.
        """
        key = (topic_name(topic), group)
        with self._lock:
            found = self._groups.get(key)
            if found is None:
                found = self._groups[key] = (ConsumerGroup(max_queue or self.max_queue), GroupLock())
        machine, mutex = found
        with mutex:
            machine.join(member)
            mutex.condition.notify_all()
        return GroupQueue(machine, member, mutex)

    def leave_group(self, topic: TopicName | None, group: str, member: str) -> None:
        """A member is gone."""
        machine, mutex = self._groups[topic_name(topic), group]
        with mutex:
            machine.leave(member)
            mutex.condition.notify_all()

    # -- publishing ------------------------------------------------------------------------------------------------

    def publish(self, event: TelemetryEvent) -> None:
        """Tell everybody who wants to hear of it. Never waits for a consumer, nor for the disk."""
        self.publish_many((event,))

    def publish_many(self, events: Iterable[TelemetryEvent]) -> None:
        """Several at once, in order; cheaper than one by one.

        Raises:
            TypeError: something is no event; then none of them is published.
        """
        events = checked(events)
        now, ts_iso = time.monotonic(), now_iso()
        with self._lock:
            batch: list[Logged] = []
            for event in events:
                batch.append((self._next_offset(), self._complete(event, ts_iso)))
            if not batch:
                return
            if self.log is not None:
                self.log.append(batch)
            self._deliver(batch, now)
            while self._found_gaps:
                self._say(self._found_gaps.pop(0), now)

    def _next_offset(self) -> int:
        offset = self._offset = self._offset + 1
        log = self.log
        if log is not None and offset > log.reserved:
            log.reserve(offset)  # waits for the disk, once in a million events
        return offset

    def _complete(self, event: TelemetryEvent, ts_iso: str) -> TelemetryEvent:
        seq_id = event.seq_id
        stream = event.stream
        if seq_id == NEXT:
            seq_id = self._check.last(stream) + 1
        self._check.saw(stream, seq_id)
        if seq_id == event.seq_id and event.ts_iso:
            return event
        return TelemetryEvent(event.topic, event.run_id, event.agent_id, seq_id, event.ts_iso or ts_iso, event.payload)

    def _deliver(self, batch: list[Logged], now: float) -> None:
        by_topic: dict[str, list[Logged]] = {}
        for logged in batch:
            by_topic.setdefault(topic_name(logged[1].topic), []).append(logged)
        for topic, found in [*by_topic.items(), ("", batch)]:
            for subscriber in tuple(self._by_topic.get(topic, ())):
                for effect in subscriber.offer(found, now):
                    self._on_effect(topic, effect, now)
            for (wanted, _), (group, mutex) in self._groups.items():
                if wanted == topic:
                    with mutex:
                        for offset, event in found:
                            group.offer(offset, event.stream, event)
                        mutex.condition.notify_all()

    def _on_effect(self, topic: str, effect: object, now: float) -> None:
        if isinstance(effect, Overflowed):
            payload = {
                "consumer": effect.consumer,
                "topic": topic,
                "dropped": effect.dropped,
                "offset": effect.sequence,
            }
            self._say(TelemetryEvent(Topic.OVERFLOW, "", "", 0, now_iso(), payload), now)
        elif isinstance(effect, HealthChanged):
            payload = {"consumer": effect.consumer, "before": effect.before, "after": effect.after}
            self._say(TelemetryEvent(Topic.HEALTH_CHANGED, "", "", 0, now_iso(), payload), now)

    def _say(self, event: TelemetryEvent, now: float) -> None:
        """One of the bus's own events: it is neither numbered in a stream nor logged, and its overflow is not told."""
        for subscriber in tuple(self._by_topic.get(topic_name(event.topic), ())):
            subscriber.offer([(self._next_offset(), event)], now)

    def _on_gap(self, stream: Stream, missing: int, last: int, new: int) -> None:
        run_id, agent_id = stream
        about = {"run_id": run_id, "agent_id": agent_id, "gap": missing, "last_seq": last, "new_seq": new}
        logger.warning(
            "Sequence gap detected in RunBus (run %s, agent %s, gap %d, last %d, new %d)",
            run_id,
            agent_id,
            missing,
            last,
            new,
            extra=about,
        )
        payload = {"gap": missing, "last_seq": last, "new_seq": new}
        self._found_gaps.append(TelemetryEvent(Topic.SEQUENCE_GAP, run_id, agent_id, 0, now_iso(), payload))

    # -- the log -----------------------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was published is in the log; whether it is, within `timeout` seconds."""
        return self.log is None or self.log.flush(timeout)

    def replay(self, stream: Stream, since_seq: int = 0) -> list[TelemetryEvent]:
        """The events of a run and agent after this number, from the log.

        Raises:
            ValueError: the bus has no log.
        """
        if self.log is None:
            raise ValueError("there is nothing to replay without a log: RunBus(log=path)")
        return self.log.of_stream(stream, since_seq)

    def follow(
        self, consumer: str, *, since: str | int | None = CURSOR, topic: TopicName | None = None, batch: int = 500
    ) -> Follower:
        """Every event, from the log and then live, without a gap or a repeat.

        Args:
            consumer: its name, under which the log keeps how far it is.
            since: "cursor": where it was last (a new one begins with the oldest event); an offset: after that;
                None: with what comes.
            topic: None: all topics.
            batch: events that are read at once.

        Raises:
            ValueError: the bus has no log.
        """
        log = self.log
        if log is None:
            raise ValueError("to follow from a cursor, the bus needs a log: RunBus(log=path)")
        if since == CURSOR:
            since = log.cursor_of(consumer) or 0
        if isinstance(since, str):
            raise ValueError(f"since is 'cursor', an offset or None, not {since!r}")
        found = self.subscribe_with_size(topic, consumer, self.max_queue, policy=SPILL, since=since, acknowledges=True)

        def done(offset: int) -> None:
            found.acknowledge(offset)
            log.keep_cursor(consumer, offset)

        return Follower(
            take=lambda most, timeout: found.get_numbered(most, timeout),
            done=done,
            leave=lambda: self.unsubscribe(topic, consumer),
            batch=batch,
        )

    # -- how it fares --------------------------------------------------------------------------------------------------

    def overflow_stats(self) -> dict[str, dict[str, int]]:
        """How many events each consumer has lost, by topic ("" for all topics) and name."""
        stats: dict[str, dict[str, int]] = {}
        with self._lock:
            for (topic, consumer), found in self._queues.items():
                lost = found.subscription.dropped - self._baseline.get((topic, consumer), 0)
                stats.setdefault(topic, {})[consumer] = lost
        return stats

    def reset_overflow_stats(self) -> None:
        """Count from 0 again."""
        with self._lock:
            self._baseline = {key: found.subscription.dropped for key, found in self._queues.items()}

    def queue_sizes(self) -> dict[str, dict[str, int]]:
        """How many events wait for each consumer, by topic and name."""
        sizes: dict[str, dict[str, int]] = {}
        with self._lock:
            for (topic, consumer), found in self._queues.items():
                sizes.setdefault(topic, {})[consumer] = found.qsize()
        return sizes

    def sequence_stats(self) -> dict[Stream, int]:
        """The last number of each stream (run and agent)."""
        with self._lock:
            return self._check.last_of_all()

    def heartbeats(self) -> list[Heartbeat]:
        """Where each consumer is: last offset, total, dropped, lag in milliseconds; and the bus itself ("bus")."""
        now = time.monotonic()
        with self._lock:
            beats = [found.subscription.heartbeat(now) for found in self._queues.values()]
            return [Heartbeat("bus", self._offset, self._offset, 0, 0.0), *beats]

    def health(self) -> dict[str, str]:
        """ok, slow, dropping or stalled, by consumer. Tells `on_health_change` what has changed."""
        now = time.monotonic()
        with self._lock:
            changes = [effect for found in self._queues.values() for effect in found.subscription.look(now)]
            health = {found.subscription.consumer: found.subscription.health(now) for found in self._queues.values()}
            for effect in changes:
                self._on_effect("", effect, now)
        for effect in changes:
            if isinstance(effect, HealthChanged):
                for callback in tuple(self._health_callbacks):
                    callback(effect.consumer, effect.before, effect.after)
        return health

    def on_health_change(self, callback: HealthCallback) -> None:
        """Call this with (consumer, before, after), in the thread that looked: of `health`, or of the heartbeat."""
        self._health_callbacks.append(callback)

    def latency_us(self, topic: TopicName | None, consumer_id: str, share: float = 0.5) -> float:
        """Microseconds from the publishing to the reading of this share of a consumer's events; 0.5: the median."""
        return self._queues[topic_name(topic), consumer_id].latency.quantile_us(share)

    def credits(self, consumer_id: str) -> Credits:
        """What this consumer has granted to producers; see `Credits`."""
        with self._lock:
            return self._credits.setdefault(consumer_id, Credits())

    def _beat(self, interval: float) -> None:
        while not self._closing.wait(interval):
            try:
                self.health()
            except Exception:  # of a callback: who else listens is told nevertheless
                logger.exception("A callback for changes of health failed.")
            now = time.monotonic()
            with self._lock:
                for beat in self.heartbeats():
                    payload = {name: getattr(beat, name) for name in beat.__struct_fields__}
                    self._say(TelemetryEvent(Topic.HEARTBEAT, "", beat.component_id, 0, now_iso(), payload), now)

    def close(self) -> None:
        """Write what is left of the log, and stop."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        if self.log is not None:
            self.log.close(self._offset)

    def __enter__(self) -> RunBus:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


_bus: RunBus | None = None
_bus_lock = threading.Lock()


def get_bus() -> RunBus:
    """The one bus of this process, made when it is first asked for."""
    global _bus
    with _bus_lock:
        if _bus is None:
            _bus = RunBus()
        return _bus


def reset_bus() -> None:
    """Close the bus of this process; `get_bus` makes a new one."""
    global _bus
    with _bus_lock:
        old, _bus = _bus, None
    if old is not None:
        old.close()


__all__ = ["OWN_TOPICS", "RunBus", "get_bus", "reset_bus"]
