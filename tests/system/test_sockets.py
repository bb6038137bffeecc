"""The transport: order, greetings, wake-ups and ends, over ipc, TCP and inside one process."""

from __future__ import annotations

import contextlib
import gc
import secrets
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from miniray.messages.control import Exit, Goodbye, Hello
from miniray.messages.envelope import Envelope, Message
from miniray.messages.objects import Address
from miniray.messages.tasks import StealTasks
from miniray.system.sockets import CROWDED, CROWDED_FOR, LOOKING, LoopbackTransport, Transport, ZmqTransport
from tests.waiting import wait_for

TOKEN = b"t" * 32
KINDS = ("ipc", "tcp", "loopback")


class Net:
    """Makes transports of one kind that can reach each other."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self._directory = directory
        self._registry: dict[bytes, LoopbackTransport] = {}
        self._made: list[Transport] = []

    def make(self, name: str = "", token: bytes = TOKEN) -> Any:
        worker_id = secrets.token_bytes(28)
        name = name or worker_id.hex()[:8]
        made: Transport
        if self.kind == "loopback":
            made = LoopbackTransport(worker_id, self._registry, kind="worker", version="1")
        else:
            directory = str(self._directory) if self.kind == "ipc" else None
            made = ZmqTransport(worker_id, directory, name, kind="worker", version="1", token=token)
        self._made.append(made)
        return made

    def close(self) -> None:
        for transport in self._made:
            transport.close(goodbye=False)


@pytest.fixture(params=KINDS)
def net(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Net]:
    with network(request.param, tmp_path) as net:
        yield net


@contextlib.contextmanager
def network(kind: str, directory: Path) -> Iterator[Net]:
    net = Net(kind, directory)
    try:
        yield net
    finally:
        net.close()


def take(transport: Transport, count: int) -> list[tuple[bytes, Message]]:
    """Receive until there are so many messages, with their senders."""
    found: list[tuple[bytes, Message]] = []
    while len(found) < count:
        envelope = transport.receive(10)
        assert envelope is not None, f"only {len(found)} of {count} messages came"
        found += [(envelope.sender, message) for message in envelope.messages]
    return found


def numbers(found: list[tuple[bytes, Message]], sender: Transport) -> list[int]:
    return [
        message.count
        for origin, message in found
        if origin == sender.address.worker_id and isinstance(message, StealTasks)
    ]


# -- order, greetings -----------------------------------------------------------------------------------------------


def test_what_one_sender_sends_arrives_in_order(net: Net) -> None:
    receiver, first, second = net.make(), net.make(), net.make()
    for number in range(0, 100, 2):
        for sender in (first, second):
            sender.send(receiver.address, [StealTasks(number), StealTasks(number + 1)])
    found = take(receiver, 202)
    assert numbers(found, first) == numbers(found, second) == list(range(100))


def test_hello_comes_first_and_goodbye_last(net: Net) -> None:
    receiver, sender = net.make(), net.make()
    sender.send(receiver.address, [StealTasks(1)])
    sender.send(receiver.address, [StealTasks(2)])
    sender.close("enough")
    messages = [message for _, message in take(receiver, 4)]
    hello = messages[0]
    assert isinstance(hello, Hello)
    assert (hello.address, hello.version, hello.kind) == (sender.address, "1", "worker")
    assert messages[1:] == [StealTasks(1), StealTasks(2), Goodbye(sender.address.worker_id, "enough")]


def test_a_close_without_goodbye_says_nothing(net: Net) -> None:
    receiver, sender, witness = net.make(), net.make(), net.make()
    sender.send(receiver.address, [StealTasks(1)])
    take(receiver, 2)
    sender.close(goodbye=False)
    witness.send(receiver.address, [StealTasks(2)])
    assert {origin for origin, _ in take(receiver, 2)} == {witness.address.worker_id}


def test_what_was_sent_just_before_an_orderly_close_arrives(net: Net) -> None:
    receiver, sender = net.make(), net.make()
    for number in range(1000):
        sender.send(receiver.address, [StealTasks(number)])
    sender.close()
    assert numbers(take(receiver, 1002), sender) == list(range(1000))


def test_the_envelope_carries_sender_and_epoch(net: Net) -> None:
    receiver, sender = net.make(), net.make()
    sender.epoch = 7
    sender.send(receiver.address, [StealTasks(1)])
    envelope = receiver.receive(10)
    assert (envelope.sender, envelope.epoch) == (sender.address.worker_id, 7)


# -- forgetting ------------------------------------------------------------------------------------------------------


def test_nothing_goes_to_a_forgotten_peer(net: Net) -> None:
    receiver, sender, witness = net.make(), net.make(), net.make()
    sender.send(receiver.address, [StealTasks(1)])
    take(receiver, 2)
    sender.forget(receiver.address.worker_id)
    sender.send(receiver.address, [StealTasks(2)])
    sender.close()
    witness.send(receiver.address, [StealTasks(3)])
    assert {origin for origin, _ in take(receiver, 2)} == {witness.address.worker_id}


def test_forgetting_a_stranger_does_no_harm(net: Net) -> None:
    transport = net.make()
    transport.forget(b"s" * 28)
    transport.forget(b"s" * 28)


def test_what_is_sent_to_a_peer_that_is_away_is_held_until_it_is_back(tmp_path: Path) -> None:
    with network("ipc", tmp_path) as net:
        receiver, sender = net.make(), net.make()
        sender.send(receiver.address, [StealTasks(1)])
        take(receiver, 2)
        sender.hold(receiver.address.worker_id)
        assert list(sender.connected_peers()) == []
        sender.send(receiver.address, [StealTasks(2)])
        held = sender.release(receiver.address.worker_id)
        assert held == [StealTasks(2)]
        sender.send(receiver.address, held)
        assert [type(message) for _, message in take(receiver, 2)] == [Hello, StealTasks]


def test_a_peer_that_is_gone_delays_no_end(tmp_path: Path) -> None:
    with network("ipc", tmp_path) as net:
        sender, dead = net.make(), net.make()
        dead.close()
        sender.send(dead.address, [StealTasks(1)])
        sender.forget(dead.address.worker_id)
        sender.close()  # flushing to nobody would take the whole linger time, and the leak check would see the socket


def test_sending_never_blocks_however_much_is_unread(net: Net) -> None:
    receiver, sender = net.make(), net.make()
    for number in range(5000):
        sender.send(receiver.address, [StealTasks(number)])
    assert numbers(take(receiver, 5001), sender) == list(range(5000))


# -- who may speak over TCP ------------------------------------------------------------------------------------------


def test_over_tcp_frames_with_a_wrong_token_are_dropped(tmp_path: Path) -> None:
    with network("tcp", tmp_path) as net:
        receiver, stranger, friend = net.make(), net.make(token=b"x" * 32), net.make()
        stranger.send(receiver.address, [StealTasks(666)])
        stranger.close()
        take_until_dropped(receiver, 3)
        friend.send(receiver.address, [StealTasks(1)])
        assert [origin for origin, _ in take(receiver, 2)] == [friend.address.worker_id] * 2


@pytest.mark.parametrize("frame", [b"", b"t", TOKEN[:-1], b"\x93" * 100], ids=["empty", "short", "cut", "garbage"])
def test_over_tcp_raw_bytes_from_anybody_are_dropped(tmp_path: Path, frame: bytes) -> None:
    with network("tcp", tmp_path) as net, zmq.Context() as context:
        receiver, friend = net.make(), net.make()
        with context.socket(zmq.PUSH) as socket:
            socket.connect(receiver.address.endpoint)
            socket.send(frame)
            take_until_dropped(receiver, 1)
        friend.send(receiver.address, [StealTasks(1)])
        assert len(take(receiver, 2)) == 2


def take_until_dropped(receiver: Transport, frames: int) -> None:
    """Read `frames` frames that come to nothing."""
    for _ in range(frames):
        assert receiver.receive(10) is None


def test_the_token_is_not_sent_in_the_session_directory(tmp_path: Path) -> None:
    with network("ipc", tmp_path) as net, zmq.Context() as context:
        receiver = net.make("inbox")
        with context.socket(zmq.PUSH) as socket:
            socket.connect(receiver.address.endpoint)
            socket.send(msgspec.msgpack.encode(Envelope(b"s" * 28, 0, [StealTasks(3)])))
            assert take(receiver, 1) == [(b"s" * 28, StealTasks(3))]


def test_a_socket_path_that_is_too_long_is_refused_by_name(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    with pytest.raises(ValueError, match="longer than 107 bytes"):
        ZmqTransport(b"w" * 28, str(directory), "inbox", kind="worker", version="1")


# -- trace -----------------------------------------------------------------------------------------------------------


def test_the_trace_sees_each_message_as_it_goes_and_comes(net: Net) -> None:
    receiver, sender = net.make(), net.make()
    story: list[tuple[str, str, str]] = []

    def hook(name: str) -> Any:
        return lambda direction, peer, message: story.append((name, direction, type(message).__name__))

    sender.trace, receiver.trace = hook("sender"), hook("receiver")
    sender.send(receiver.address, [StealTasks(1), Exit("why")])
    sender.close()
    take(receiver, 4)
    kinds = ["Hello", "StealTasks", "Exit", "Goodbye"]
    assert [kind for name, way, kind in story if (name, way) == ("sender", "send")] == kinds
    assert [kind for name, way, kind in story if (name, way) == ("receiver", "recv")] == kinds


def test_the_trace_tells_nothing_about_what_is_not_sent(net: Net) -> None:
    receiver, sender = net.make(), net.make()
    story: list[Message] = []
    sender.forget(receiver.address.worker_id)
    sender.trace = lambda direction, peer, message: story.append(message)
    sender.send(receiver.address, [StealTasks(1)])
    assert story == []


# -- waiting and waking ----------------------------------------------------------------------------------------------


def test_a_receive_without_messages_times_out(net: Net) -> None:
    transport = net.make()
    assert transport.receive(0) is None
    assert transport.receive(0.001) is None
    assert not transport.pending()


def test_pending_says_whether_something_can_be_read(net: Net) -> None:
    receiver, sender = net.make(), net.make()
    sender.send(receiver.address, [StealTasks(1)])
    take(receiver, 2)
    assert not receiver.pending()
    receiver.wake()
    while not receiver.pending():
        pass
    assert receiver.receive(0) is None
    assert not receiver.pending()


def test_wake_ends_a_receive_of_another_thread(net: Net) -> None:
    transport = net.make()
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(transport.receive(None)))
    thread.start()
    transport.wake()
    thread.join()
    assert results == [None]


def test_wake_works_from_a_finalizer(net: Net) -> None:
    transport = net.make()

    class Dropped:
        def __del__(self) -> None:
            transport.wake()

    def drop_in_a_cycle() -> None:
        dropped: Any = Dropped()
        dropped.me = dropped
        del dropped
        gc.collect()

    thread = threading.Thread(target=drop_in_a_cycle)
    thread.start()
    assert transport.receive(None) is None
    thread.join()


def test_flags_set_before_a_wake_are_seen_after_it(net: Net) -> None:
    """Many threads raise a counter and wake; the reader sleeps without a timeout until it has seen all of them."""
    transport = net.make()
    threads, rounds = 4, 500
    counters = [0] * threads

    def raise_and_wake(index: int) -> None:
        for _ in range(rounds):
            counters[index] += 1
            transport.wake()

    workers = [threading.Thread(target=raise_and_wake, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    while sum(counters) < threads * rounds:
        transport.receive(None)
    for worker in workers:
        worker.join()


def test_a_wake_while_another_is_being_sent_is_not_lost(tmp_path: Path) -> None:
    with network("ipc", tmp_path) as net:
        transport = net.make()
        assert isinstance(transport, ZmqTransport)
        sent = []

        class Waker:
            def send(self, frame: bytes, flags: int) -> None:
                sent.append(frame)
                if len(sent) == 1:
                    transport.wake()  # the lock is taken: as if another thread came now

        real, transport._waker = transport._waker, Waker()  # type: ignore[assignment]
        try:
            transport.wake()
        finally:
            transport._waker = real
        assert len(sent) == 2


def test_many_threads_may_send_at_once(net: Net) -> None:
    receiver, sender = net.make(), net.make()

    def send(start: int) -> None:
        for number in range(start, start + 250):
            sender.send(receiver.address, [StealTasks(number)])

    threads = [threading.Thread(target=send, args=(1000 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    found = take(receiver, 1001)
    for thread in threads:
        thread.join()
    assert isinstance(found[0][1], Hello)
    arrived = numbers(found, sender)
    for index in range(4):
        mine = [number for number in arrived if number // 1000 == index]
        assert mine == list(range(1000 * index, 1000 * index + 250))


# -- ends ------------------------------------------------------------------------------------------------------------


def test_close_twice_is_close_once(net: Net) -> None:
    receiver, sender = net.make(), net.make()
    sender.send(receiver.address, [StealTasks(1)])
    sender.close()
    sender.close()
    take(receiver, 3)
    assert receiver.receive(0.01) is None


def test_after_close_nothing_is_sent_and_nothing_received(net: Net) -> None:
    receiver, sender = net.make(), net.make()
    receiver.close()
    sender.close()
    sender.send(receiver.address, [StealTasks(1)])
    assert receiver.receive(0) is None
    sender.wake()


def test_close_ends_a_receive_of_another_thread(tmp_path: Path) -> None:
    with network("ipc", tmp_path) as net:
        transport = net.make()
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(transport.receive(None)))
        thread.start()
        while not transport._receiving:
            pass
        transport.close()
        thread.join()
        assert results == [None]
        assert transport._ended


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an interval timer")
def test_close_in_a_signal_handler_that_interrupted_a_receive(tmp_path: Path) -> None:
    with network("ipc", tmp_path) as net:
        transport = net.make()
        previous = signal.signal(signal.SIGVTALRM, lambda number, frame: transport.close())
        try:
            threading.Timer(0.01, signal.pthread_kill, (threading.main_thread().ident, signal.SIGVTALRM)).start()
            while not transport._ended:
                transport.receive(None)
        finally:
            signal.signal(signal.SIGVTALRM, previous)


def test_a_connect_that_comes_before_the_bind_finds_its_way(tmp_path: Path) -> None:
    with network("ipc", tmp_path) as net:
        sender = net.make()
        endpoint = f"ipc://{tmp_path / 'late'}"
        worker_id = secrets.token_bytes(28)
        sender.send(Address(worker_id, endpoint), [StealTasks(1)])
        late = ZmqTransport(worker_id, str(tmp_path), "late", kind="worker", version="1")
        try:
            assert numbers(take(late, 2), sender) == [1]
        finally:
            late.close()


def test_the_descriptor_of_a_loopback_inbox_wakes_a_poll_for_every_frame_and_for_nothing_else(tmp_path: Path) -> None:
    with network("loopback", tmp_path) as net:
        inbox = net.make()
        poll = select.poll()
        poll.register(inbox.fileno(), select.POLLIN)
        assert not inbox.pending()
        assert poll.poll(0) == []
        senders = [net.make() for _ in range(4)]

        def send(sender: Any) -> None:
            for _ in range(500):
                sender.send(inbox.address, [Goodbye(sender.address.worker_id)])

        threads = [threading.Thread(target=send, args=(sender,)) for sender in senders]
        for thread in threads:
            thread.start()
        received = 0
        while received < 4 * 501:  # each begins with a Hello
            assert poll.poll(10_000), f"nothing came after {received} messages"
            while inbox.pending():
                envelope = inbox.receive_nowait()
                received += len(envelope.messages) if envelope is not None else 0
        for thread in threads:
            thread.join()
        assert not inbox.pending()
        assert poll.poll(0) == []


class Clock:
    """Stands still until somebody gives the processor away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, transport: ZmqTransport, away: float) -> None:
        self.now = 100.0
        self.away = away  #: seconds until a processor that was given away is back
        self.given_away = 0
        self.meanwhile = lambda: None  #: what others do with it
        monkeypatch.setattr("miniray.system.sockets._perf_counter", lambda: self.now)
        monkeypatch.setattr(transport, "_give_way", self.give_way)

    def give_way(self) -> None:
        self.given_away += 1
        self.now += self.away
        self.meanwhile()


@pytest.fixture
def looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any, Clock]]:
    """A transport whose last wait was short, another that can reach it, and the clock."""
    with network("ipc", tmp_path) as net:
        one, other = net.make("one"), net.make("other")
        other.send(one.address, [StealTasks(0)])
        drain(one, 2)
        one._lively = True
        yield one, other, Clock(monkeypatch, one, LOOKING / 1000)


def drain(transport: Any, number: int) -> None:
    """Receive so many envelopes."""
    while number:
        number -= transport.receive(10) is not None


def test_a_wait_after_a_short_one_gives_the_processor_away_until_a_message_is_there(looking: Any) -> None:
    one, other, clock = looking

    def send_once() -> None:
        other.send(one.address, [StealTasks(1)])
        clock.meanwhile = lambda: wait_for(one.pending)

    clock.meanwhile = send_once
    assert one.receive(10).messages == [StealTasks(1)]
    assert clock.given_away > 0


def test_a_wait_after_a_long_one_blocks_at_once(looking: Any) -> None:
    one, other, clock = looking
    one._lively = False
    other.send(one.address, [StealTasks(1)])
    drain(one, 1)
    assert clock.given_away == 0


def test_a_wait_looks_no_longer_than_it_may_and_the_next_one_blocks(looking: Any) -> None:
    one, _, clock = looking
    assert one.receive(0.01) is None
    assert 1000 <= clock.given_away <= 1001
    assert one.receive(0.01) is None
    assert clock.given_away <= 1001


def test_where_the_processor_is_wanted_by_others_waits_block_for_a_while(looking: Any) -> None:
    one, _, clock = looking
    clock.away = CROWDED * 2
    one.receive(0.01)
    assert clock.given_away == 1
    one._lively = True
    one.receive(0.01)
    assert clock.given_away == 1
    clock.now += CROWDED_FOR
    one._lively = True
    one.receive(0.01)
    assert clock.given_away == 2
