"""What waiting for a ZeroMQ message costs: a blocking `recv`, `zmq.Poller`, `select.poll` or a few looks in front.

    python benchmarks/waiting.py [--rounds 1000] [--repeats 25]

Two processes, each with one PULL inbox and one PUSH socket to the other, over ``ipc://``, as in `system.sockets`. One
sends a frame and waits for its echo. The echo side waits in the same way. Each way is measured `--repeats` times, turn
by turn. The best run says what the way costs on a machine that has nothing else to do; the median says what it cost on
this one (where the two are far apart, others were using the processors).

The figures behind docs/decisions/0001-block-in-recv.md and 0007-look-before-blocking.md.
"""

from __future__ import annotations

import argparse
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import zmq

FRAME = b"x" * 120  # about a task push without arguments
STOP = b""
WARM_UP = 200

Receive = Callable[[], bytes]


def blocking(inbox: zmq.Socket[bytes]) -> Receive:
    """The reader blocks in `recv`."""
    return inbox.recv


def blocking_with_timeout(inbox: zmq.Socket[bytes]) -> Receive:
    """The same with RCVTIMEO set, as a wait with a deadline has it."""
    inbox.set(zmq.RCVTIMEO, 60_000)
    return inbox.recv


def zmq_poll(inbox: zmq.Socket[bytes]) -> Receive:
    """`zmq.Poller` over the inbox and one more descriptor, then `recv`."""
    poller = zmq.Poller()
    poller.register(inbox, zmq.POLLIN)
    wake, _ = os.pipe()
    poller.register(wake, zmq.POLLIN)

    def receive() -> bytes:
        poller.poll()
        return inbox.recv(zmq.NOBLOCK)

    return receive


def select_poll(inbox: zmq.Socket[bytes]) -> Receive:
    """`select.poll` over ZeroMQ's descriptor, which is edge-triggered: the socket has to be asked before and after."""
    poller = select.poll()
    poller.register(inbox.get(zmq.FD), select.POLLIN)
    wake, _ = os.pipe()
    poller.register(wake, select.POLLIN)

    def receive() -> bytes:
        while not inbox.get(zmq.EVENTS) & zmq.POLLIN:
            poller.poll()
        return inbox.recv(zmq.NOBLOCK)

    return receive


def look_first(inbox: zmq.Socket[bytes]) -> Receive:
    """The reader looks for 100 us and gives way between the looks, then blocks in `recv`."""

    def receive() -> bytes:
        until = time.perf_counter() + 1e-4
        while time.perf_counter() < until:
            if inbox.get(zmq.EVENTS) & zmq.POLLIN:
                return inbox.recv(zmq.NOBLOCK)
            os.sched_yield()
        return inbox.recv()

    return receive


WAYS = {
    "recv": blocking,
    "recv, RCVTIMEO set": blocking_with_timeout,
    "zmq.Poller, then recv": zmq_poll,
    "select.poll, then recv": select_poll,
    "look, then recv": look_first,
}


def open_pair(directory: str, mine: str, other: str) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """An inbox, and a socket to the other side's."""
    context = zmq.Context.instance()
    inbox = context.socket(zmq.PULL)
    inbox.bind(f"ipc://{directory}/{mine}")
    peer = context.socket(zmq.PUSH)
    peer.set(zmq.LINGER, 1000)
    peer.set(zmq.RECONNECT_IVL, 10)
    peer.connect(f"ipc://{directory}/{other}")
    return inbox, peer


def echo(directory: str, way: str) -> None:
    """The other process."""
    inbox, peer = open_pair(directory, "b", "a")
    receive = WAYS[way](inbox)
    while frame := receive():
        peer.send(frame)


def round_trip(way: str, rounds: int) -> float:
    """Seconds for one frame there and back."""
    with tempfile.TemporaryDirectory(prefix="mrb-", dir="/tmp") as directory:
        inbox, peer = open_pair(directory, "a", "b")
        process = subprocess.Popen([sys.executable, __file__, "--echo", way, directory])
        receive = WAYS[way](inbox)
        try:
            for _ in range(WARM_UP):
                peer.send(FRAME)
                receive()
            start = time.perf_counter()
            for _ in range(rounds):
                peer.send(FRAME)
                receive()
            return (time.perf_counter() - start) / rounds
        finally:
            peer.send(STOP)
            process.wait(10)
            inbox.close(linger=0)
            peer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1_000, help="round trips per run")
    parser.add_argument("--repeats", type=int, default=25, help="runs per way")
    parser.add_argument("--echo", nargs=2, metavar=("WAY", "DIRECTORY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.echo:
        echo(given.echo[1], given.echo[0])
        return
    runs: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(given.repeats):
        for way in WAYS:
            runs[way].append(round_trip(way, given.rounds) * 1e6)
    best = {way: min(times) for way, times in runs.items()}
    median = {way: statistics.median(times) for way, times in runs.items()}
    print(
        f"round trip over ipc, {len(FRAME)} bytes, {given.repeats} runs of {given.rounds}; pyzmq {zmq.__version__}, ",
        end="",
    )
    print(f"libzmq {zmq.zmq_version()}, Python {sys.version.split()[0]}, {os.cpu_count()} processors\n")
    print(f"| {'way of waiting':<22} | best, us | ratio | median, us | ratio |")
    print(f"|{'-' * 24}|---------:|------:|-----------:|------:|")
    for way in WAYS:
        ratios = best[way] / best["recv"], median[way] / median["recv"]
        print(f"| {way:<22} | {best[way]:8.1f} | {ratios[0]:5.2f} | {median[way]:10.1f} | {ratios[1]:5.2f} |")


if __name__ == "__main__":
    main()
