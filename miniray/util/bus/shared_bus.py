"""The bus across processes: the same calls as `RunBus`, from every driver, task and actor of a session.

A named actor, the *hub*, holds a `RunBus`; everybody else talks to it. Publishers send batches by need: the first event
leaves at once, and what is published while it is under way leaves together. A subscriber has a thread that fetches for
its queue, and fetches on when there is room; what waits meanwhile waits at the hub, under the consumer's own policy.

Failures: a consumer that is killed loses what it had fetched and not dealt with, unless it follows from a cursor
(`follow`): then that comes again. When the hub is killed the log stays: the next `SharedBus` of that name goes on with
it, and consumers follow from where they were. What the hub had not written yet is lost with it (`flush` waits for it).
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterable
from typing import Any, TypeVar

import miniray
from miniray.exceptions import ActorUnavailableError, RayError
from miniray.state_machines.subscription import SPILL, Heartbeat
from miniray.util.bus.bus_queue import BusQueue
from miniray.util.bus.event_log import Logged
from miniray.util.bus.events import Stream, TelemetryEvent, TopicName, checked, topic_name, topic_of
from miniray.util.bus.follower import CURSOR, Follower
from miniray.util.bus.run_bus import RunBus

Held = TypeVar("Held")

logger = logging.getLogger("miniray.util.bus")

#: consumers that may wait at the hub at once
_CONSUMERS = 200
#: seconds that a fetch waits at the hub
_FETCH = 2.0
_BATCH = 500
#: seconds between two tries while the hub is made again
_AGAIN = 0.05
#: events that a publisher holds back, at most, while the hub does not answer
_HELD_BACK = 100_000


class Hub:
    """The actor in the middle."""

    def __init__(self, max_queue: int, log: str | None) -> None:
        self.bus = RunBus(max_queue, log=log)
        # Each with the ticket of whoever came last under the name.
        self._queues: dict[tuple[str, str], tuple[bytes, BusQueue]] = {}
        self._followers: dict[str, tuple[bytes, Follower]] = {}

    def publish(self, events: list[TelemetryEvent]) -> None:
        """A batch."""
        self.bus.publish_many(events)

    def subscribe(
        self, topic: str, consumer: str, ticket: bytes, max_queue: int, settings: dict[str, Any], again: bool
    ) -> None:
        """A consumer comes, or comes `again`, to a new hub: then not in the place of another."""
        if again:
            _of(ticket, self._queues.get((topic, consumer)))
        wanted = topic_of(topic) if topic else None
        self._queues[topic, consumer] = ticket, self.bus.subscribe_with_size(wanted, consumer, max_queue, **settings)

    def fetch(self, topic: str, consumer: str, ticket: bytes, most: int, timeout: float) -> list[Logged] | None:
        """The next events for a consumer; None: it is not subscribed."""
        found = _of(ticket, self._queues.get((topic, consumer)))
        return None if found is None else found.get_numbered(most, timeout)

    def unsubscribe(self, topic: str, consumer: str, ticket: bytes) -> None:
        """A consumer goes."""
        if self._queues.get((topic, consumer), (b"",))[0] == ticket:
            del self._queues[topic, consumer]
            self.bus.unsubscribe(topic_of(topic) if topic else None, consumer)

    def follow(
        self, consumer: str, ticket: bytes, since: str | int | None, topic: str, batch: int, again: bool
    ) -> None:
        """A consumer goes on from its cursor; `again` as for `subscribe`."""
        if again:
            _of(ticket, self._followers.get(consumer))
        wanted = topic_of(topic) if topic else None
        self._followers[consumer] = ticket, self.bus.follow(consumer, since=since, topic=wanted, batch=batch)

    def read(self, consumer: str, ticket: bytes, done: int, timeout: float) -> list[Logged] | None:
        """The next batch for a follower that is done with all up to an offset; None: the hub does not know it."""
        follower = _of(ticket, self._followers.get(consumer))
        if follower is None:
            return None
        if done >= follower.position:
            return follower.read(timeout)
        return []

    def commit(self, consumer: str, ticket: bytes, done: int) -> None:
        """A follower is done with all up to an offset."""
        follower = _of(ticket, self._followers.get(consumer))
        if follower is not None:
            follower.commit(done)

    def leave(self, consumer: str, ticket: bytes) -> None:
        """A follower goes."""
        if self._followers.get(consumer, (b"",))[0] == ticket:
            _, follower = self._followers.pop(consumer)
            follower.close()

    def grant(self, consumer: str, number: int) -> None:
        """A consumer grants credits."""
        self.bus.credits(consumer).grant(number)

    def acquire(self, consumer: str, number: int, timeout: float) -> bool:
        """A producer spends credits."""
        return self.bus.credits(consumer).acquire(number, timeout)

    def ask(self, what: str, *arguments: Any) -> Any:
        """What the bus says of itself."""
        return getattr(self.bus, what)(*arguments)

    def close(self) -> None:
        """Write what is left."""
        self.bus.close()


def _of(ticket: bytes, entry: tuple[bytes, Held] | None) -> Held | None:
    """What the hub holds for the owner of a ticket; None: nothing for anybody.

    Raises:
        ValueError: somebody else came later under the same name.
    """
    if entry is None:
        return None
    if entry[0] != ticket:
        raise ValueError("somebody else reads this bus under the same name now")
    return entry[1]


class SharedBus:
    """A bus that all processes of a session share.

    Args:
        name: whoever gives the same name shares the bus; the first one's other settings count.
        max_queue: events that wait for one subscriber, at most.
        log: the path of a SQLite file that keeps all events.

    Raises:
        RayError: there is no session, and none can be started.
    """

    def __init__(self, name: str = "bus", *, max_queue: int = 2048, log: str | os.PathLike[str] | None = None) -> None:
        self.name = name
        self.max_queue = max_queue
        path = os.path.abspath(os.fspath(log)) if log is not None else None
        hub = miniray.remote(num_cpus=0, max_concurrency=_CONSUMERS, max_restarts=-1, max_task_retries=0)(Hub)
        self._hub: Any = hub.options(
            name=f"miniray.util.bus:{name}", namespace="miniray.util.bus", get_if_exists=True, lifetime="detached"
        ).remote(max_queue, path)
        self._changed = threading.Condition()
        self._pending: list[TelemetryEvent] = []
        self._sending = False
        self._closed = False
        self.dropped = 0  #: events that were held back too long, or that the hub did not get
        self._fetchers: dict[tuple[str, str], tuple[bytes, threading.Event]] = {}
        self._sender: threading.Thread | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedBus, (self.name,)

    # -- publishing ------------------------------------------------------------------------------------------------

    def publish(self, event: TelemetryEvent) -> None:
        """Tell everybody who wants to hear of it; returns at once."""
        self.publish_many((event,))

    def publish_many(self, events: Iterable[TelemetryEvent]) -> None:
        """Several at once, in order.

        Raises:
            TypeError: something is no event; then none of them is published.
        """
        events = checked(events)
        with self._changed:
            if self._closed:
                raise ValueError("this bus was closed")
            self._pending.extend(events)
            surplus = len(self._pending) - _HELD_BACK
            if surplus > 0:
                del self._pending[:surplus]
                self.dropped += surplus
            if self._sender is None:
                self._sender = threading.Thread(target=self._send, name="miniray-bus-sender", daemon=True)
                self._sender.start()
            self._changed.notify_all()

    def _send(self) -> None:
        while True:
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._pending or self._closed)
                if not self._pending:
                    return
                batch, self._pending = self._pending, []
                self._sending = True
            self._send_batch(batch)

    def _send_batch(self, batch: list[TelemetryEvent]) -> None:
        try:
            miniray.get(self._hub.publish.remote(batch))
            return
        except RayError:  # there is no hub
            lost = len(batch)
        except Exception as error:  # what an event carries cannot be pickled
            if len(batch) > 1:
                for event in batch:
                    self._send_batch([event])
                return
            lost = 1
            logger.error("The bus %s cannot carry the event %r: %s", self.name, batch[0], error)
        with self._changed:
            self.dropped += lost

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was published here is at the hub, and in its log."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._pending and not self._sending, timeout):
                return False
        return bool(miniray.get(self._hub.ask.remote("flush", timeout)))

    # -- subscribers -----------------------------------------------------------------------------------------------

    def subscribe(self, topic: TopicName | None, consumer_id: str, **settings: Any) -> queue.Queue[TelemetryEvent]:
        """A queue with the events of a topic from now on (None: of all topics)."""
        return self.subscribe_with_size(topic, consumer_id, self.max_queue, **settings)

    def subscribe_with_size(
        self, topic: TopicName | None, consumer_id: str, max_queue: int, **settings: Any
    ) -> queue.Queue[TelemetryEvent]:
        """A queue; see `RunBus.subscribe_with_size`. `max_queue` events wait at the hub, and some more here. Who
        subscribed under the same name before, in whatever process, gets nothing more.

        Raises:
            ValueError: there is no such policy, or there is no log for it.
        """
        name = topic_name(topic)
        self.unsubscribe(topic, consumer_id)
        ticket = os.urandom(8)
        miniray.get(self._hub.subscribe.remote(name, consumer_id, ticket, max_queue, settings, False))
        found: queue.Queue[TelemetryEvent] = queue.Queue(min(max_queue, _BATCH))
        stopped = threading.Event()
        self._fetchers[name, consumer_id] = ticket, stopped
        threading.Thread(
            target=self._fetch,
            args=(name, consumer_id, ticket, max_queue, settings, found, stopped),
            name="miniray-bus-fetch",
            daemon=True,
        ).start()
        return found

    def _fetch(
        self,
        topic: str,
        consumer: str,
        ticket: bytes,
        max_queue: int,
        settings: dict[str, Any],
        found: queue.Queue[TelemetryEvent],
        stopped: threading.Event,
    ) -> None:
        while not stopped.is_set():
            try:
                events = miniray.get(self._hub.fetch.remote(topic, consumer, ticket, _BATCH, _FETCH))
                if events is None and not stopped.is_set():  # a new hub, which does not know us
                    miniray.get(self._hub.subscribe.remote(topic, consumer, ticket, max_queue, settings, True))
            except ActorUnavailableError:
                stopped.wait(_AGAIN)
                continue
            except (RayError, ValueError):
                return  # the bus was destroyed, the session is gone, or somebody else has the name now
            for offset, event in events or ():
                if settings.get("since") is not None or settings.get("policy") == SPILL:
                    settings["since"] = offset  # a new hub goes on from there
                while not stopped.is_set():
                    try:
                        found.put(event, timeout=0.1)
                        break
                    except queue.Full:
                        continue

    def unsubscribe(self, topic: TopicName | None, consumer_id: str) -> None:
        """No more events for this consumer; what its queue holds stays."""
        name = topic_name(topic)
        mine = self._fetchers.pop((name, consumer_id), None)
        if mine is not None:
            ticket, stopped = mine
            stopped.set()
            miniray.get(self._hub.unsubscribe.remote(name, consumer_id, ticket))

    def follow(
        self, consumer: str, *, since: str | int | None = CURSOR, topic: TopicName | None = None, batch: int = _BATCH
    ) -> Follower:
        """Every event, from the log and then live, without a gap or a repeat; see `RunBus.follow`.

        Raises:
            ValueError: the bus has no log; or (when it is read) somebody follows under the same name since.
        """
        hub, name, ticket = self._hub, topic_name(topic), os.urandom(8)
        miniray.get(hub.follow.remote(consumer, ticket, since, name, batch, False))
        committed = 0

        def take(most: int, timeout: float | None) -> list[Logged]:
            while True:
                wait = _FETCH if timeout is None else timeout
                events = miniray.get(hub.read.remote(consumer, ticket, committed, wait))
                if events is None:  # the hub has begun anew, and knows the log only
                    miniray.get(hub.follow.remote(consumer, ticket, committed or since, name, batch, True))
                elif events or timeout is not None:
                    return events  # type: ignore[no-any-return]

        def done(offset: int) -> None:
            nonlocal committed
            committed = offset
            miniray.get(hub.commit.remote(consumer, ticket, offset))

        return Follower(
            take=take, done=done, leave=lambda: miniray.get(hub.leave.remote(consumer, ticket)), batch=batch
        )

    # -- what the bus says -------------------------------------------------------------------------------------------

    def replay(self, stream: Stream, since_seq: int = 0) -> list[TelemetryEvent]:
        """The events of a run and agent after this number, from the log."""
        return self._ask("replay", stream, since_seq)  # type: ignore[no-any-return]

    def overflow_stats(self) -> dict[str, dict[str, int]]:
        """How many events each consumer has lost, by topic and name."""
        return self._ask("overflow_stats")  # type: ignore[no-any-return]

    def reset_overflow_stats(self) -> None:
        """Count from 0 again."""
        self._ask("reset_overflow_stats")

    def queue_sizes(self) -> dict[str, dict[str, int]]:
        """How many events wait for each consumer at the hub, by topic and name."""
        return self._ask("queue_sizes")  # type: ignore[no-any-return]

    def sequence_stats(self) -> dict[Stream, int]:
        """The last number of each stream (run and agent)."""
        return self._ask("sequence_stats")  # type: ignore[no-any-return]

    def heartbeats(self) -> list[Heartbeat]:
        """Where each consumer is."""
        return self._ask("heartbeats")  # type: ignore[no-any-return]

    def health(self) -> dict[str, str]:
        """ok, slow, dropping or stalled, by consumer."""
        return self._ask("health")  # type: ignore[no-any-return]

    def grant(self, consumer_id: str, number: int) -> None:
        """A consumer is ready for so many events more; see `Credits`."""
        miniray.get(self._hub.grant.remote(consumer_id, number))

    def acquire(self, consumer_id: str, number: int = 1, timeout: float = 10.0) -> bool:
        """A producer wants to publish so many; whether the consumer is ready for them within `timeout` seconds."""
        return bool(miniray.get(self._hub.acquire.remote(consumer_id, number, timeout)))

    def _ask(self, what: str, *arguments: Any) -> Any:
        return miniray.get(self._hub.ask.remote(what, *arguments))

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Send what was published here; the bus itself goes on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._sender is not None:
            self._sender.join()
        for _, stopped in self._fetchers.values():
            stopped.set()
        self._fetchers.clear()

    def destroy(self) -> None:
        """End the bus for everybody; its log stays."""
        self.close()
        miniray.get(self._hub.close.remote())
        miniray.kill(self._hub)
