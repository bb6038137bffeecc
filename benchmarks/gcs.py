"""Claims: the head's tables answer in one round trip; an event is delivered at once, whoever else does not read; the
durable path keeps up.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from importlib import import_module
from itertools import count
from threading import Event
from typing import Any

from benchmarks.claims import Claim, Goal, NotHere, Size
from benchmarks.rates import rate


def _internal_kv(ray: Any) -> Any:
    return import_module(f"{ray.__name__}.experimental.internal_kv")


def measure_put(ray: Any, size: Size) -> float:
    """``_internal_kv_put`` of a small value, each under a new key."""
    put, numbers = _internal_kv(ray)._internal_kv_put, count()
    return rate(lambda: put(b"benchmark-%d" % next(numbers), b"value"), size.seconds)


def measure_get(ray: Any, size: Size) -> float:
    """``_internal_kv_get`` of one of them."""
    kv = _internal_kv(ray)
    kv._internal_kv_put(b"benchmark", b"value")
    return rate(lambda: kv._internal_kv_get(b"benchmark"), size.seconds)


class _Listener:
    """Somebody who hears of the OBJECT table; `silent`: and never says that it may hear more."""

    def __init__(self, silent: bool) -> None:
        from miniray.messages import control
        from miniray.processes import current
        from miniray.state_machines.table_prefix import TablePubsub

        self.core = current.core_or_none()
        self.times: list[float] = []
        self.heard = Event()
        if silent:
            self._silence(control.Subscribe(TablePubsub.OBJECT_PUBSUB, None, True))
        else:
            self.core.head_client.subscribe(TablePubsub.OBJECT_PUBSUB, None, self._hear)

    def _silence(self, message: Any) -> None:
        from miniray.system.session import find_session
        from miniray.system.sockets import ZmqTransport
        from miniray.version import __version__

        info = find_session(self.core.session["session_name"])
        self.transport = ZmqTransport(
            os.urandom(28), info.paths.sockets, f"b{os.getpid()}", kind="client", version=__version__
        )
        self.transport.epoch = info.epoch
        self.transport.send(info.address, [message])

    def _hear(self, event: Any) -> None:
        self.times.append(time.perf_counter() - float(event.value))
        self.heard.set()


def _publish_until(ray: Any, seconds: float, *, silent: bool) -> float:
    """Write a row, wait until it was heard of, and again; the median in ms."""
    if ray.__name__ != "miniray":
        raise NotHere("Ray's tables are not open to programs")
    from miniray.messages.control import TablePut
    from miniray.state_machines.table_prefix import TablePrefix

    other = _Listener(True) if silent else None
    mine = _Listener(False)
    head, end = mine.core.head_client, time.perf_counter() + seconds
    while time.perf_counter() < end or not mine.times:
        value = b"%.9f" % time.perf_counter()
        head.request(lambda number, value=value: TablePut(number, TablePrefix.OBJECT, b"key", value))
        mine.heard.wait(1.0)
        mine.heard.clear()
    if other is not None:
        other.transport.close()
    return statistics.median(mine.times) * 1000


def measure_delivery(ray: Any, size: Size) -> float:
    """From the write of a row to the call of a subscriber in the same process, by way of the head."""
    return _publish_until(ray, size.seconds, silent=False)


def measure_delivery_beside_a_silent_one(ray: Any, size: Size) -> float:
    """The same, while another subscriber never reads."""
    return _publish_until(ray, size.seconds, silent=True)


def measure_publisher(engine: Any, size: Size) -> list[float]:
    """Events in a second that the publisher numbers, queues for three subscribers, and hands to each in batches."""
    from miniray.state_machines.publisher import Publisher

    figures = []
    for _ in range(size.repeats):
        publisher = Publisher()
        names = b"one", b"two", b"three"
        for name in names:
            publisher.subscribe(name, 5)

        def step(publisher: Publisher = publisher, names: tuple[bytes, ...] = names) -> None:
            for _ in range(100):
                publisher.publish(5, b"key", b"value")
            for name in names:
                publisher.take(name)

        figures.append(rate(step, size.seconds, 100))
    return figures


def measure_durable(engine: Any, size: Size) -> list[float]:
    """Records that go through the journal into the database in a second, in batches of a hundred."""
    from miniray.messages.durable import Record
    from miniray.system.durable_log import DurableLog

    figures = []
    for _ in range(size.repeats):
        with tempfile.TemporaryDirectory() as directory:
            log = DurableLog(directory, 0, lambda: None)
            number, start = 0, time.perf_counter()
            while time.perf_counter() - start < size.seconds:
                records = [Record(number + n, 18, b"", b"key-%d" % (n % 50), b"value" * 8) for n in range(1, 101)]
                number += 100
                log.append(records)
                while log.written < number - 20_000:
                    time.sleep(0.001)
            log.close()  # all of it is in the database then
            figures.append(number / (time.perf_counter() - start))
    return figures


CLAIMS = [
    Claim("internal_kv put", "/s", "more", in_session=measure_put, goals=(Goal("ray", 3),)),
    Claim("internal_kv get", "/s", "more", in_session=measure_get, goals=(Goal("ray", 3),)),
    Claim(
        "an event, from the write to its subscriber",
        "ms",
        "less",
        in_session=measure_delivery,
        goals=(Goal("figure", 0.3),),
        engines=("miniray",),
    ),
    Claim(
        "the same beside a subscriber that never reads",
        "ms",
        "less",
        in_session=measure_delivery_beside_a_silent_one,
        goals=(Goal("figure", 0.3),),
        engines=("miniray",),
    ),
    Claim(
        "events through the publisher to three subscribers",
        "/s",
        "more",
        alone=measure_publisher,
        goals=(Goal("figure", 100_000),),
        engines=("miniray",),
    ),
    Claim(
        "events into journal and database",
        "/s",
        "more",
        alone=measure_durable,
        goals=(Goal("figure", 50_000),),
        engines=("miniray",),
    ),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="gcs")
