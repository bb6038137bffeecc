"""Producers and consumers on a channel: nothing is lost, nothing comes twice, and each producer's items stay in order.

    python examples/channels.py [items] [producers] [consumers]

Each producer and each consumer is a process of its own. The channel closes itself when the last producer is done: no
producer has to know of the others, no consumer has to know how many items there will be. A named channel, opened by
its name where it is needed, carries the consumers' reports.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

import miniray
from miniray.util.channel import Closed, Receiver, Sender, channel, get_channel

BATCH = 250
REPORTS = "reports"


@miniray.remote
def produce(items: Sender, producer: int, count: int) -> None:
    """Send the numbers below `count`, signed with the name of the producer."""
    with items:
        for start in range(0, count, BATCH):
            items.send_batch([(producer, number) for number in range(start, min(start + BATCH, count))])


@miniray.remote
def consume(items: Receiver, consumer: int) -> None:
    """Take items until there will be no more, and check what can be seen from here."""
    reports, unused = get_channel(REPORTS)
    unused.close()
    counts: Counter[int] = Counter()
    totals: Counter[int] = Counter()
    last: dict[int, int] = {}
    in_order = True
    try:
        while True:
            for producer, number in items.recv_batch(BATCH):
                in_order = in_order and last.get(producer, -1) < number
                last[producer] = number
                counts[producer] += 1
                totals[producer] += number
    except Closed:
        pass
    reports.send((consumer, in_order, dict(counts), dict(totals)))


def run(items: int = 100_000, producers: int = 4, consumers: int = 4) -> dict[str, Any]:
    """Move so many items through one channel; returns what the consumers found."""
    shares = [items // producers + (number < items % producers) for number in range(producers)]
    tx, rx = channel(capacity=20 * BATCH)
    reports_tx, reports = channel(name=REPORTS)
    start = time.perf_counter()
    workers = [consume.remote(rx, number) for number in range(consumers)]
    workers += [produce.remote(tx, number, share) for number, share in enumerate(shares)]
    tx.close()  # the producers' copies are left, and count
    miniray.get(workers)
    reports_tx.close()
    seconds = time.perf_counter() - start
    counts: Counter[int] = Counter()
    totals: Counter[int] = Counter()
    in_order = True
    rows = []
    for consumer, ordered, counted, totalled in reports:
        in_order = in_order and ordered
        counts.update(counted)
        totals.update(totalled)
        rows.append((consumer, sum(counted.values())))
    complete = all(
        counts[producer] == share and totals[producer] == share * (share - 1) // 2
        for producer, share in enumerate(shares)
    )
    return {
        "received": sum(counts.values()),
        "complete": complete,
        "in order": in_order,
        "by consumer": sorted(rows),
        "seconds": seconds,
    }


def main() -> None:
    """Run, and print what came out."""
    items, producers, consumers = (int(text) for text in (sys.argv[1:] + ["100000", "4", "4"][len(sys.argv) - 1 :]))
    with miniray.init(num_cpus=producers + consumers):
        result = run(items, producers, consumers)
    for consumer, count in result["by consumer"]:
        print(f"consumer {consumer}: {count} items")
    print(f"{result['received']} items in {result['seconds']:.2f} s", end=", ")
    print("complete" if result["complete"] else "NOT COMPLETE", end=", ")
    print("in order" if result["in order"] else "NOT IN ORDER")
    if not (result["complete"] and result["in order"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
