"""Claims: the bus delivers at once, to several consumers, and its log keeps up."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from typing import Any

from benchmarks.claims import Claim, Goal, Size

_BATCH = 100
_CONSUMERS = 3


def _rate(size: Size, log: str | None) -> float:
    from miniray.util.bus import RunBus, TelemetryEvent, Topic

    events = size.calls * 100
    batch = [TelemetryEvent(Topic.STEP_APPENDED, "run", "agent", payload={"step": 1}) for _ in range(_BATCH)]
    with RunBus(max_queue=events, log=log) as bus:
        queues = [bus.subscribe_with_size(Topic.STEP_APPENDED, f"c{number}", events) for number in range(_CONSUMERS)]

        def read(number: int) -> None:
            left = events
            while left > 0:
                left -= len(queues[number].get_many(1000, 60))

        readers = [threading.Thread(target=read, args=(number,)) for number in range(_CONSUMERS)]
        start = time.perf_counter()
        for reader in readers:
            reader.start()
        for _ in range(events // _BATCH):
            bus.publish_many(batch)
        for reader in readers:
            reader.join()
        bus.flush()
        return events / (time.perf_counter() - start)


def measure_delivery(ray: Any, size: Size) -> float:
    """100,000 events in batches to three consumers in threads of the same process."""
    return _rate(size, None)


def measure_durable(ray: Any, size: Size) -> float:
    """The same with a log, until all of it is written."""
    with tempfile.TemporaryDirectory() as directory:
        return _rate(size, os.path.join(directory, "log.sqlite"))


def measure_latency(ray: Any, size: Size) -> float:
    """From `publish` to a consumer that waits in another thread: the median, in milliseconds."""
    from miniray.util.bus import RunBus, TelemetryEvent

    times: list[float] = []
    with RunBus() as bus:
        found = bus.subscribe_with_size(None, "c", 1000)

        def read() -> None:
            for _ in range(size.calls):
                event = found.get(timeout=60)
                times.append(time.perf_counter() - event.payload)

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(size.calls):
            bus.publish(TelemetryEvent("tick", "run", "agent", payload=time.perf_counter()))
            time.sleep(0.0005)
        reader.join()
    return statistics.median(times) * 1000


CLAIMS = [
    Claim(
        "bus: events to three consumers",
        "/s",
        "more",
        in_session=measure_delivery,
        goals=(Goal("figure", 100_000),),
        engines=("miniray",),
    ),
    Claim(
        "bus: events to three consumers and a log",
        "/s",
        "more",
        in_session=measure_durable,
        goals=(Goal("figure", 50_000),),
        engines=("miniray",),
    ),
    Claim(
        "bus: publish to delivery",
        "ms",
        "less",
        in_session=measure_latency,
        goals=(Goal("figure", 0.3),),
        engines=("miniray",),
    ),
]

if __name__ == "__main__":
    from benchmarks.__main__ import main

    main(module="bus")
