"""What ZeroMQ allows: bare messages of 150 bytes to another process and back, one by one and in batches.

The figures say why a thread that waits drives the socket itself, and what batches save. (How it waits: `waiting`.)
``python -m benchmarks.round_trips`` prints them.
"""

from __future__ import annotations

import json
import multiprocessing
import queue
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.rates import rate

#: about as long as a small task's push
PAYLOAD = b"x" * 150
IN_FLIGHT = 1000
BATCH = 100


def _echo(address: str, ready: Any) -> None:
    import zmq

    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(address)
    ready.set()
    while True:
        frames = socket.recv_multipart()
        if frames[1] == b"stop":
            return
        socket.send_multipart(frames)


@contextmanager
def _echo_socket() -> Iterator[Any]:
    """A DEALER whose messages are sent back by a process of its own."""
    import zmq

    processes = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/echo"
        ready = processes.Event()
        child = processes.Process(target=_echo, args=(address, ready))
        child.start()
        ready.wait()
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(address)
        try:
            yield socket
        finally:
            socket.send(b"stop")
            child.join()
            socket.close(0)
            context.term()


def zmq_limits(seconds: float) -> dict[str, float]:
    """Messages of 150 bytes to another process and back; the calling thread drives the socket."""
    with _echo_socket() as socket:
        send, receive = socket.send, socket.recv

        def round_trip() -> None:
            send(PAYLOAD)
            receive()

        def pipelined() -> None:
            for _ in range(IN_FLIGHT):
                send(PAYLOAD)
            for _ in range(IN_FLIGHT):
                receive()

        def batched() -> None:
            for _ in range(IN_FLIGHT // BATCH):
                send(PAYLOAD * BATCH)
            for _ in range(IN_FLIGHT // BATCH):
                receive()

        return {
            "zmq_round_trips_per_s": rate(round_trip, seconds),
            "zmq_pipelined_messages_per_s": rate(pipelined, seconds, IN_FLIGHT),
            "zmq_batched_messages_per_s": rate(batched, seconds, IN_FLIGHT),
            "zmq_round_trips_through_a_thread_per_s": _through_a_thread(socket, seconds),
        }


def _through_a_thread(socket: Any, seconds: float) -> float:
    """The same round trips when a thread of its own drives the socket, and hands over what came through a queue."""
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def drive() -> None:
        while (request := requests.get()) is not None:
            socket.send(request)
            answers.put(socket.recv())

    thread = threading.Thread(target=drive)
    thread.start()

    def round_trip() -> None:
        requests.put(PAYLOAD)
        answers.get()

    try:
        return rate(round_trip, seconds)
    finally:
        requests.put(None)
        thread.join()


if __name__ == "__main__":
    print(json.dumps(zmq_limits(1.0), indent=1))
