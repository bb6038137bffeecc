"""The transport: one inbox per process, one sending socket per peer.

Rules
-----
* Each process binds **one PULL inbox** and opens **one PUSH socket per peer**. An address is a mailbox; whoever knows
  it can write. Order holds from one sender to one receiver, never between senders.
* The inbox is read only by the thread that leads the reactor (`system.reactor`). Sending takes one short lock. So no
  ZeroMQ socket is ever used by two threads at once.
* The first message on a new connection is `Hello`, the last one is `Goodbye` (after an orderly exit).
* High-water marks are off: PUSH never blocks; bounds stand in the protocol.
* PUSH does not report a dead peer and would reconnect for ever: `forget` closes the socket of a dead peer with linger
  0.

The leader blocks inside ``recv`` itself, not in a poll over several descriptors (`select.poll` over ZeroMQ's makes a
round trip a quarter slower, by `benchmarks/waiting.py`; `zmq.Poller` does not: docs/decisions/0001-block-in-recv.md).
While messages follow each other closely it looks for the next one a few dozen times before it blocks, and gives the
processor away between the looks: a processor that was put to sleep takes longer to wake than a task takes
(docs/decisions/0007-look-before-blocking.md).
Another thread of the process wakes the leader by a message through an ``inproc`` socket that ends in the same inbox;
the life line has a thread of its own (`system.lifeline`).

A limit: a signal interrupts the system call under `recv`, and pyzmq begins it anew, with the whole timeout. A program
that gets signals more often than its timeouts are long (an interval timer of the wall clock) waits until they stop.

`LoopbackTransport` is the same interface without sockets, for tests and for the in-process runtime. A trace hook sees
every message that leaves or arrives.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec
import zmq

from miniray.messages.control import Goodbye, Hello
from miniray.messages.envelope import Envelope, Message
from miniray.messages.objects import Address
from miniray.system import machine

#: called with ("send" | "recv", the other side's worker id, message)
TraceHook = Callable[[str, bytes, Message], None]

#: How long a wait looks for a message before it blocks, and how short waits must be for it to look at all, in seconds.
LOOKING = 1e-4
#: A processor that was given away and came back only after so long is wanted by others: then waits block at once for a
#: while, since who has slept is served before who has given way. Both in seconds.
CROWDED = 3e-4
CROWDED_FOR = 0.02

_KEPT_FORGOTTEN = 10_000
_WAKE = b""
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_NOBLOCK = zmq.NOBLOCK
_RCVTIMEO = int(zmq.RCVTIMEO)
_perf_counter = time.perf_counter


class Transport(Protocol):
    """What a core worker needs to talk to other processes."""

    address: Address
    epoch: int
    trace: TraceHook | None

    def send(self, peer: Address, messages: list[Message]) -> None: ...
    def receive(self, timeout: float | None) -> Envelope | None: ...
    def pending(self) -> bool: ...
    def wake(self) -> None: ...
    def forget(self, worker_id: bytes) -> None: ...
    def hold(self, worker_id: bytes) -> None: ...
    def release(self, worker_id: bytes) -> list[Message]: ...
    def close(self, reason: str = "", goodbye: bool = True) -> None: ...


class ZmqTransport:
    """Transport over ZeroMQ: ``ipc://`` inside the session directory, or ``tcp://127.0.0.1`` where there is no ipc.

    Args:
        worker_id: the 28-byte id of this process.
        directory: where the ipc socket goes (its path must stay under 107 bytes); None: TCP on the loopback interface.
        name: file name of the socket.
        kind: "driver", "worker" or "head".
        version: the version that `Hello` carries.
        token: secret of the session, put before each frame over TCP; frames without it are dropped unread.
    """

    def __init__(
        self, worker_id: bytes, directory: str | None, name: str, *, kind: str, version: str, token: bytes = b""
    ) -> None:
        self.epoch = 0
        self.trace: TraceHook | None = None
        self._token = b"" if directory else token
        endpoint = ""
        if directory:
            path = os.path.join(directory, name)
            if len(os.fsencode(path)) > 107:
                raise ValueError(
                    f"the socket path {path!r} is longer than 107 bytes: choose a shorter session directory"
                )
            endpoint = "ipc://" + path
        self._context = zmq.Context()
        # A thousand actors are a thousand PUSH sockets; the default limit is 1023.
        self._context.set(zmq.MAX_SOCKETS, 65000)
        self._inbox = self._context.socket(zmq.PULL)
        self._inbox.set(zmq.RCVHWM, 0)
        self._inbox.set(zmq.LINGER, 0)
        try:
            if endpoint:
                self._inbox.bind(endpoint)
            else:
                port = self._inbox.bind_to_random_port("tcp://127.0.0.1")
                endpoint = f"tcp://127.0.0.1:{port}"
        except zmq.ZMQError:
            self._context.destroy(linger=0)
            raise
        wake_name = f"inproc://wake-{worker_id.hex()}"
        self._inbox.bind(wake_name)
        self._waker = self._context.socket(zmq.PUSH)
        self._waker.set(zmq.LINGER, 0)
        self._waker.connect(wake_name)
        self._wake_lock = threading.Lock()
        self._wake_wanted = False
        self.address = Address(worker_id, endpoint)
        self._hello = Hello(self.address, version, kind, os.getpid())
        self._lock = threading.RLock()
        self._peers: dict[bytes, zmq.Socket[bytes]] = {}
        self._forgotten: dict[bytes, None] = {}  # the latest, so that it does not grow for ever
        self._held: dict[bytes, list[Message]] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Envelope).decode
        self._timeout_ms = -1
        self._receiving = False
        #: Gives the processor (and the GIL) to whoever waits for it; None where that cannot be, or gains nothing.
        self._give_way: Callable[[], None] | None = (
            getattr(os, "sched_yield", None) if machine.cpu_count() > 1 else None
        )
        self._lively = False  #: the last wait was short
        self._crowded_until = 0.0  #: until then nothing is gained by looking
        self._closed = False
        self._ended = False

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(self, peer: Address, messages: list[Message]) -> None:
        """Send a batch; never blocks. To a peer that was forgotten it goes nowhere."""
        frame = self._encode(Envelope(self.address.worker_id, self.epoch, messages))
        if self._token:
            frame = self._token + frame
        with self._lock:
            socket = self._peers.get(peer.worker_id)
            if socket is None:
                if peer.worker_id in self._held:
                    self._held[peer.worker_id] += messages
                    return
                if self._closed or peer.worker_id in self._forgotten:
                    return
                socket = self._connect(peer)
            if self.trace is not None:
                for message in messages:
                    self.trace("send", peer.worker_id, message)
            socket.send(frame, _NOBLOCK)

    def _connect(self, peer: Address) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PUSH)
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.LINGER, 2000)
        # The peer binds before it announces itself; should a connect come first all the same, retry soon.
        socket.set(zmq.RECONNECT_IVL, 10)
        socket.connect(peer.endpoint)
        self._peers[peer.worker_id] = socket
        if self.trace is not None:
            self.trace("send", peer.worker_id, self._hello)
        socket.send(self._token + self._encode(Envelope(self.address.worker_id, self.epoch, [self._hello])), _NOBLOCK)
        return socket

    def forget(self, worker_id: bytes) -> None:
        """Close the socket of a peer that is dead; what was on its way to it is dropped."""
        with self._lock:
            self._forgotten[worker_id] = None
            if len(self._forgotten) > _KEPT_FORGOTTEN:
                del self._forgotten[next(iter(self._forgotten))]
            socket = self._peers.pop(worker_id, None)
            if socket is not None:
                socket.close(linger=0)

    def hold(self, worker_id: bytes) -> None:
        """The peer is away: close its socket, and keep what is sent to it until `release`."""
        with self._lock:
            socket = self._peers.pop(worker_id, None)
            if socket is not None:
                socket.close(linger=0)
            self._held.setdefault(worker_id, [])

    def release(self, worker_id: bytes) -> list[Message]:
        """The peer is back (at another address, or from the dead): what was meant for it meanwhile, which is not sent
        by this.
        """
        with self._lock:
            self._forgotten.pop(worker_id, None)
            return self._held.pop(worker_id, [])

    # -- receiving (by the leading thread only) -----------------------------------------------------------------------

    def receive(self, timeout: float | None) -> Envelope | None:
        """Wait for the next envelope, at most `timeout` seconds (None: for ever). None: timed out, or woken by `wake`.

        Raises:
            KeyboardInterrupt, or whatever a signal handler of the main thread raises; no frame is lost by that.
        """
        milliseconds = -1 if timeout is None else max(0, int(timeout * 1000 + 0.999))
        if milliseconds == 0:
            return self.receive_nowait()
        outer = self._receiving  # in the frame that a signal handler has interrupted
        self._receiving = True
        try:
            if self._closed:
                return None
            began = _perf_counter()
            if self._lively and began >= self._crowded_until and self._look(began):
                return self._open(self._inbox.recv(_NOBLOCK))
            if milliseconds != self._timeout_ms:
                self._inbox.set(_RCVTIMEO, milliseconds)
                self._timeout_ms = milliseconds
            frame = self._inbox.recv()
            self._lively = _perf_counter() - began < 2 * LOOKING
        except zmq.Again:
            self._lively = False
            return None
        finally:
            self._receiving = outer
            if self._closed and not outer:
                self._end()
        return self._open(frame)

    def _look(self, now: float) -> bool:
        """Look for a frame for a moment, and give way between the looks. Whether there is one."""
        give_way = self._give_way
        if give_way is None:
            return False
        look, until = self._inbox.get, now + LOOKING
        while now < until:
            if look(_EVENTS) & _POLLIN:  # type: ignore[operator]
                return True
            before = now
            give_way()
            now = _perf_counter()
            if now - before > CROWDED:
                self._crowded_until = now + CROWDED_FOR
                break
        return False

    def receive_nowait(self) -> Envelope | None:
        """The next envelope if one is there. None also for a wake-up: ask `pending` whether more follows."""
        if self._closed or not self.pending():
            return None
        return self._open(self._inbox.recv(_NOBLOCK))

    def pending(self) -> bool:
        """Whether a frame can be received at once."""
        return not self._closed and bool(self._inbox.get(_EVENTS) & _POLLIN)  # type: ignore[operator]

    def fileno(self) -> int:
        """ZeroMQ's descriptor for event loops, edge-triggered: read until `pending` is False before waiting on it."""
        return int(self._inbox.fileno())

    def _open(self, frame: bytes) -> Envelope | None:
        if not frame:
            return None
        if self._token:
            import hmac  # takes 2 ms, and is needed over TCP only

            size = len(self._token)
            if not hmac.compare_digest(frame[:size], self._token):
                return None
            frame = frame[size:]
        envelope: Envelope = self._decode(frame)
        if self.trace is not None:
            for message in envelope.messages:
                self.trace("recv", envelope.sender, message)
        return envelope

    # -- waking and closing ----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Make the thread inside `receive` return. Callable from any thread, also from ``__del__``."""
        # Whoever finds the lock taken leaves the wish to its holder, who looks again after releasing it: the own
        # wake-up of the holder may have been read before those flags were set for which this one is meant.
        self._wake_wanted = True
        while self._wake_wanted and self._wake_lock.acquire(blocking=False):
            try:
                self._wake_wanted = False
                if not self._ended:
                    self._waker.send(_WAKE, _NOBLOCK)
            finally:
                self._wake_lock.release()

    def connected_peers(self) -> Iterable[bytes]:
        """The worker ids to which a socket is open."""
        return list(self._peers)

    def close(self, reason: str = "", goodbye: bool = True) -> None:
        """Say `Goodbye` to every peer, flush (2 s at most), and close all sockets.

        Callable also by a signal handler that interrupted `receive`: then the inbox is closed when that returns.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            farewell: list[Message] = [Goodbye(self.address.worker_id, reason)]
            frame = self._token + self._encode(Envelope(self.address.worker_id, self.epoch, farewell))
            for worker_id, socket in self._peers.items():
                if goodbye:
                    if self.trace is not None:
                        self.trace("send", worker_id, farewell[0])
                    socket.send(frame, _NOBLOCK)
                socket.close(linger=2000 if goodbye else 0)
            self._peers.clear()
        self.wake()
        if not self._receiving:
            self._end()

    def _end(self) -> None:
        """Close what is left. Done by `close`, or by the thread that was inside `receive` meanwhile."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        # A signal handler may have interrupted `wake` in this very thread: then the lock will not come free.
        free = self._wake_lock.acquire(timeout=1.0)
        self._waker.close(linger=0)
        if free:
            self._wake_lock.release()
        self._inbox.close(linger=0)
        self._context.term()


class LoopbackTransport:
    """The same interface inside one process: a registry of queues. Messages are encoded and decoded all the same."""

    _encode = msgspec.msgpack.Encoder().encode
    _decode = msgspec.msgpack.Decoder(Envelope).decode

    def __init__(self, worker_id: bytes, registry: dict[bytes, LoopbackTransport], *, kind: str, version: str) -> None:
        self.address = Address(worker_id, f"loopback://{worker_id.hex()}")
        self.epoch = 0
        self.trace: TraceHook | None = None
        self._registry = registry
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._hello = Hello(self.address, version, kind, os.getpid())
        self._greeted: set[bytes] = set()
        self._forgotten: set[bytes] = set()
        self._closed = False
        self._pipe: tuple[int, int] | None = None
        self._signalled = False
        registry[worker_id] = self

    def send(self, peer: Address, messages: list[Message]) -> None:
        """Put a batch into the peer's queue; nowhere when it is not there."""
        target = self._registry.get(peer.worker_id)
        if target is None or self._closed or peer.worker_id in self._forgotten:
            return
        if peer.worker_id not in self._greeted:
            self._greeted.add(peer.worker_id)
            messages = [self._hello, *messages]
        if self.trace is not None:
            for message in messages:
                self.trace("send", peer.worker_id, message)
        target._put(self._encode(Envelope(self.address.worker_id, self.epoch, messages)))

    def _put(self, frame: bytes) -> None:
        self._queue.put(frame)
        pipe = self._pipe
        # Who reads the inbox takes the flag back before it looks into the queue for the last time.
        if pipe is not None and not self._signalled:
            self._signalled = True
            os.write(pipe[1], b"x")

    def fileno(self) -> int:
        """A descriptor that is readable when something may be there: read until `pending` is False before waiting on
        it.
        """
        if self._pipe is None:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[0], False)
            os.set_blocking(self._pipe[1], False)
        return self._pipe[0]

    def receive(self, timeout: float | None) -> Envelope | None:
        """Wait for the next envelope, at most `timeout` seconds."""
        try:
            frame = self._queue.get(timeout=timeout) if timeout != 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
        return self._open(frame)

    def receive_nowait(self) -> Envelope | None:
        """The next envelope if one is there."""
        return self.receive(0)

    def _open(self, frame: bytes) -> Envelope | None:
        if not frame:
            return None
        envelope: Envelope = self._decode(frame)
        if self.trace is not None:
            for message in envelope.messages:
                self.trace("recv", envelope.sender, message)
        return envelope

    def pending(self) -> bool:
        """Whether a frame can be received at once."""
        if not self._queue.empty():
            return True
        if self._pipe is None:
            return False
        # Dry: whoever sends from here on writes to the pipe. What was sent before that lies in the queue.
        self._signalled = False
        try:
            os.read(self._pipe[0], 4096)
        except BlockingIOError:
            pass
        return not self._queue.empty()

    def wake(self) -> None:
        """Make `receive` return."""
        self._put(_WAKE)

    def forget(self, worker_id: bytes) -> None:
        """The peer is gone: nothing goes there any more."""
        self._forgotten.add(worker_id)
        self._greeted.discard(worker_id)

    def hold(self, worker_id: bytes) -> None:
        """Nobody here comes back, so there is nothing to keep."""
        self.forget(worker_id)

    def release(self, worker_id: bytes) -> list[Message]:
        """The peer is back."""
        self._forgotten.discard(worker_id)
        return []

    def close(self, reason: str = "", goodbye: bool = True) -> None:
        """Say `Goodbye` to everybody this transport has talked to, and leave the registry."""
        if self._closed:
            return
        self._closed = True
        self.wake()
        self._registry.pop(self.address.worker_id, None)
        if goodbye:
            for worker_id in list(self._greeted):
                target = self._registry.get(worker_id)
                if target is not None:
                    farewell: list[Message] = [Goodbye(self.address.worker_id, reason)]
                    if self.trace is not None:
                        self.trace("send", worker_id, farewell[0])
                    target._put(self._encode(Envelope(self.address.worker_id, self.epoch, farewell)))
        pipe, self._pipe = self._pipe, None
        for descriptor in pipe or ():
            os.close(descriptor)
