"""The reactor: who waits is served, whoever reads the inbox, over real sockets and inside one process."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from miniray.messages.envelope import Envelope
from miniray.messages.objects import Address
from miniray.messages.tasks import StealTasks
from miniray.processes.reactor import Reactor, Waiter
from miniray.system.sockets import LoopbackTransport, Transport, ZmqTransport
from tests.waiting import wait_for

KINDS = ("ipc", "loopback")


class Peer:
    """A process in small: sends numbers, and finishes the waiter that is registered for a number that arrives."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.lock = threading.RLock()
        self.reactor = Reactor(transport, self.lock, self._handle, self._settle)
        self.waiters: dict[int, Waiter] = {}
        self.arrived: list[int] = []
        self.handled_by: list[threading.Thread] = []
        self.on_number: Callable[[bytes, int], None] | None = None
        self.greeted: dict[bytes, Address] = {}
        self.settled = 0
        self.released_lately = False

    def _handle(self, envelope: Envelope) -> None:
        for message in envelope.messages:
            if isinstance(message, StealTasks):
                self.arrived.append(message.count)
                self.handled_by.append(threading.current_thread())
                waiter = self.waiters.pop(message.count, None)
                if waiter is not None:
                    waiter.finish()
                if self.on_number is not None:
                    self.on_number(envelope.sender, message.count)
            elif hasattr(message, "address"):
                self.greeted[envelope.sender] = message.address

    def _settle(self) -> bool:
        self.settled += 1
        return self.released_lately

    def expect(self, number: int) -> Waiter:
        """A waiter for a number to come."""
        with self.lock:
            waiter = self.waiters[number] = Waiter()
            if number in self.arrived:
                waiter.finish()
        return waiter

    def send(self, peer: Peer, number: int) -> None:
        self.transport.send(peer.transport.address, [StealTasks(number)])

    def await_number(self, number: int, timeout: float = 20) -> bool:
        return self.reactor.wait(self.expect(number), time.monotonic() + timeout)

    def leader(self) -> Any:
        return self.reactor._leadership.leader

    def followers(self) -> int:
        return len(self.reactor._leadership.followers)

    def standby_leads(self) -> bool:
        return self.leader() is self.reactor._standby_waiter and self.reactor._blocking


class Counting:
    """A transport that counts how often `receive` returned with nothing."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.idle_returns = 0

    def receive(self, timeout: float | None) -> Envelope | None:
        envelope: Envelope | None = self._transport.receive(timeout)
        if envelope is None:
            self.idle_returns += 1
        return envelope

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Peer]]:
    registry: dict[bytes, LoopbackTransport] = {}
    peers: list[Peer] = []

    def make() -> Peer:
        worker_id = secrets.token_bytes(28)
        transport: Transport
        if request.param == "loopback":
            transport = LoopbackTransport(worker_id, registry, kind="worker", version="1")
        else:
            transport = ZmqTransport(worker_id, str(tmp_path), worker_id.hex()[:8], kind="worker", version="1")
        peers.append(Peer(transport))
        return peers[-1]

    yield make
    for peer in peers:
        peer.reactor.close()
        peer.transport.close(goodbye=False)


@contextlib.contextmanager
def thread(target: Callable[[], Any]) -> Iterator[threading.Thread]:
    """A thread that has ended when the block ends."""
    worker = threading.Thread(target=target)
    worker.start()
    try:
        yield worker
    finally:
        worker.join(30)
        assert not worker.is_alive()


@contextlib.contextmanager
def handler(number: int, function: Callable[[], Any]) -> Iterator[None]:
    previous = signal.signal(number, lambda *_: function())
    try:
        yield
    finally:
        signal.signal(number, previous)


def signal_main_thread(number: int) -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)


# -- who is served by whom -------------------------------------------------------------------------------------------


def test_a_thread_that_waits_alone_serves_itself(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    there.send(here, 1)
    assert here.await_number(1)
    assert here.handled_by == [threading.current_thread()]
    assert here.leader() is None


def test_what_is_done_already_needs_no_reading(make: Callable[[], Peer]) -> None:
    here = make()
    waiter = Waiter()
    waiter.finish()
    assert here.reactor.wait(waiter)
    assert here.settled == 0


@pytest.mark.parametrize("first", [1, 2], ids=["the leader first", "the follower first"])
def test_of_two_that_wait_both_are_served(make: Callable[[], Peer], first: int) -> None:
    here, there = make(), make()
    with thread(lambda: here.await_number(1)) as leading:
        wait_for(lambda: here.reactor._blocking)
        with thread(lambda: here.await_number(2)) as following:
            wait_for(lambda: here.followers() == 1)
            there.send(here, first)
            (leading if first == 1 else following).join()
            wait_for(lambda: here.followers() == 0)
            assert here.leader() is not None
            there.send(here, 3 - first)
    assert here.leader() is None
    assert here.handled_by == [leading, following if first == 1 else leading]


def test_the_one_who_waited_longest_leads_next(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    threads = []
    with contextlib.ExitStack() as stack:
        for number in range(5):
            threads.append(stack.enter_context(thread(lambda number=number: here.await_number(number))))
            wait_for(lambda number=number: here.reactor._blocking and here.followers() == number)
        for number in range(5):
            there.send(here, number)
            threads[number].join()
    assert here.handled_by == threads


def test_a_follower_whose_time_is_up_leaves(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    with thread(lambda: here.await_number(1)):
        wait_for(lambda: here.reactor._blocking)
        assert here.await_number(2, timeout=0.01) is False
        assert here.followers() == 0
        there.send(here, 1)


def test_a_leader_whose_time_is_up_names_the_next(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    with thread(lambda: here.await_number(1, timeout=0.05)) as leading:
        wait_for(lambda: here.reactor._blocking or not leading.is_alive())
        there_sends = threading.Thread(target=lambda: (leading.join(), there.send(here, 2)))
        there_sends.start()
        assert here.await_number(2)
        there_sends.join()
    assert here.handled_by == [threading.current_thread()]


@pytest.mark.parametrize("count", [1, 20])
def test_a_wait_without_time_takes_what_is_there(make: Callable[[], Peer], count: int) -> None:
    here, there = make(), make()
    for number in range(count):
        there.send(here, number)
    wait_for(here.transport.pending)
    waiter = here.expect(count - 1)
    wait_for(lambda: here.reactor.wait(waiter, time.monotonic()))


def test_a_wake_up_in_front_hides_no_message_from_a_wait_without_time(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    here.transport.wake()
    wait_for(here.transport.pending)
    there.send(here, 1)
    there.await_number(0, timeout=0.05)
    waiter = here.expect(1)
    wait_for(lambda: here.reactor.wait(waiter, time.monotonic()))


def test_a_wait_without_an_answer_times_out(make: Callable[[], Peer]) -> None:
    here = make()
    assert here.reactor.wait(Waiter(), time.monotonic()) is False
    assert here.reactor.wait(Waiter(), time.monotonic() + 0.01) is False
    assert here.leader() is None


def test_a_stream_of_other_messages_does_not_keep_a_wait_beyond_its_time(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    here.on_number = lambda sender, number: here.send(here, number + 1)
    there.send(here, 0)
    assert here.reactor.wait(Waiter(), time.monotonic() + 0.02) is False


def test_pump_handles_what_has_come_and_returns(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    here.reactor.pump()
    there.send(here, 1)
    wait_for(here.transport.pending)
    wait_for(lambda: here.reactor.pump() or here.arrived == [1])


# -- the standby -----------------------------------------------------------------------------------------------------


def test_while_nobody_waits_the_standby_serves(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    here.reactor.start_standby()
    there.send(here, 1)
    wait_for(lambda: here.arrived == [1])
    assert here.handled_by == [here.reactor._standby_thread]


def test_the_standby_gives_way_to_whoever_waits(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    here.reactor.start_standby()
    wait_for(here.standby_leads)
    waiter = here.expect(1)

    def send_when_led_by_the_waiter() -> None:
        wait_for(lambda: here.leader() is waiter and here.reactor._blocking)
        there.send(here, 1)

    with thread(send_when_led_by_the_waiter):
        assert here.reactor.wait(waiter)
    assert here.handled_by == [threading.current_thread()]
    wait_for(here.standby_leads)


def test_an_event_loop_is_served_by_the_standby_at_once(make: Callable[[], Peer]) -> None:
    here = make()
    here.reactor.start_standby()
    for _ in range(20):
        here.reactor.wait(Waiter(), time.monotonic() + 0.001)
        here.reactor.lead_at_once()
        wait_for(lambda: here.leader() is here.reactor._standby_waiter)


def test_an_error_while_the_standby_handles_is_reported_and_the_next_message_served(
    make: Callable[[], Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = make(), make()
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)

    def fail(sender: bytes, number: int) -> None:
        if number == 1:
            raise RuntimeError("planted")

    here.on_number = fail
    here.reactor.start_standby()
    there.send(here, 1)
    there.send(here, 2)
    wait_for(lambda: here.arrived == [1, 2])
    assert [type(report.exc_value) for report in reported] == [RuntimeError]


def test_an_idle_process_does_not_wake_up(make: Callable[[], Peer]) -> None:
    """With the standby leading, and with a waiting thread leading, nothing happens until something comes."""
    here, there = make(), make()
    counting = here.reactor.transport = Counting(here.transport)  # type: ignore[assignment]
    here.reactor.start_standby()
    wait_for(here.standby_leads)
    before = (counting.idle_returns, here.settled)
    there.await_number(0, timeout=0.3)
    assert (counting.idle_returns, here.settled) == before

    with thread(lambda: here.await_number(1)):
        wait_for(lambda: here.reactor._leadership.standby == "deep")
        before = (counting.idle_returns, here.settled)
        ticks: list[int] = []
        original = here.reactor._leadership.tick
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(here.reactor._leadership), "tick", lambda *_: ticks.append(1) or original(*_[1:]))
            there.await_number(0, timeout=0.3)
        assert (counting.idle_returns, here.settled) == before
        assert ticks == []
        there.send(here, 1)


# -- released refs and timers ----------------------------------------------------------------------------------------


def test_a_release_wakes_a_leader_that_blocks(make: Callable[[], Peer]) -> None:
    here = make()
    here.reactor.start_standby()
    wait_for(here.standby_leads)
    before = here.settled
    here.reactor.wake_for_release()
    wait_for(lambda: here.settled > before)


def test_a_release_between_the_look_at_refs_and_the_sleep_is_seen(make: Callable[[], Peer]) -> None:
    here = make()
    released = [True]
    looks: list[bool] = []

    def settle() -> bool:
        looks.append(bool(released))
        if len(looks) == 1:
            # As if another thread dropped a ref just after the refs were looked at.
            if here.reactor.deep:
                here.reactor.wake_for_release()
            else:
                released.append(True)
        else:
            waiter.finish()
        return False

    waiter = Waiter()
    here.reactor._settle = settle
    assert here.reactor.wait(waiter, time.monotonic() + 20)


def test_after_releases_the_standby_looks_again_by_itself(make: Callable[[], Peer]) -> None:
    here = make()
    here.released_lately = True
    here.reactor.start_standby()
    wait_for(here.standby_leads)
    before = here.settled
    wait_for(lambda: here.settled >= before + 3)
    here.released_lately = False
    wait_for(lambda: here.reactor.deep)


def test_timers_run_in_the_order_of_their_times(make: Callable[[], Peer]) -> None:
    here = make()
    story: list[int] = []
    waiter = Waiter()
    here.reactor.call_later(0.02, waiter.finish)
    here.reactor.call_later(0.01, lambda: story.append(2))
    here.reactor.call_later(0.0, lambda: story.append(1))
    here.reactor.call_later(0.005, lambda: story.append(0)).cancelled = True
    assert here.reactor.wait(waiter)
    assert story == [1, 2]


def test_a_timer_of_another_thread_wakes_the_leader(make: Callable[[], Peer]) -> None:
    here = make()
    waiter = Waiter()
    with thread(lambda: here.reactor.wait(waiter)):
        wait_for(lambda: here.reactor._blocking)
        here.reactor.call_later(0.0, waiter.finish)


def test_a_timer_runs_while_nobody_waits(make: Callable[[], Peer]) -> None:
    here = make()
    ran = threading.Event()
    here.reactor.start_standby()
    here.reactor.call_later(0.0, ran.set)
    assert ran.wait(20)


# -- signals ---------------------------------------------------------------------------------------------------------

needs_signals = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")


@needs_signals
def test_a_handler_that_interrupts_the_leader_waits_in_its_place(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    inner: list[bool] = []

    def on_signal() -> None:
        there.send(here, 1)
        inner.append(here.await_number(1))
        there.send(here, 2)

    with handler(signal.SIGUSR1, on_signal), thread(lambda: interrupt_once(here)):
        assert here.await_number(2)
    assert inner == [True]
    assert here.leader() is None


def interrupt_once(peer: Peer) -> None:
    wait_for(lambda: peer.reactor._blocking or peer.followers())
    signal_main_thread(signal.SIGUSR1)


@needs_signals
def test_a_handler_that_interrupts_a_follower_waits_whoever_leads(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    inner: list[bool] = []
    leading = threading.Thread(target=lambda: here.await_number(1))
    leading.start()
    wait_for(lambda: here.reactor._blocking)

    def on_signal() -> None:
        waiter = here.expect(2)
        there.send(here, 1)  # the leader leaves, and may name only one who can act
        leading.join()
        there.send(here, 2)
        inner.append(here.reactor.wait(waiter, time.monotonic() + 20))
        there.send(here, 3)

    with handler(signal.SIGUSR1, on_signal), thread(lambda: interrupt_when(lambda: here.followers() == 1)):
        assert here.await_number(3)
    assert inner == [True]
    assert here.arrived == [1, 2, 3]


@needs_signals
def test_the_lead_that_falls_to_a_suspended_wait_is_used_by_the_inner_one(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    inner: list[bool] = []
    leading = threading.Thread(target=lambda: here.await_number(1))
    leading.start()
    wait_for(lambda: here.reactor._blocking)

    def on_signal() -> None:
        with thread(lambda: (wait_for(lambda: here.followers() == 1), there.send(here, 1), leading.join())) as helper:
            threading.Thread(target=lambda: (helper.join(), there.send(here, 2))).start()
            inner.append(here.await_number(2))
        there.send(here, 3)

    with handler(signal.SIGUSR1, on_signal), thread(lambda: interrupt_when(lambda: here.followers() == 1)):
        assert here.await_number(3)
    assert inner == [True]


def interrupt_when(condition: Callable[[], bool]) -> None:
    wait_for(condition)
    signal_main_thread(signal.SIGUSR1)


@needs_signals
def test_a_timer_set_during_an_inner_wait_still_wakes_the_outer_one(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    waiter = Waiter()

    def on_signal() -> None:
        there.send(here, 1)
        here.await_number(1)
        threading.Thread(target=lambda: here.reactor.call_later(0.0, waiter.finish)).start()

    with handler(signal.SIGUSR1, on_signal), thread(lambda: interrupt_once(here)):
        assert here.reactor.wait(waiter, time.monotonic() + 20)


@needs_signals
def test_a_handler_may_close_the_reactor_under_a_wait(make: Callable[[], Peer]) -> None:
    here = make()
    here.reactor.start_standby()
    waiter = Waiter()

    def close() -> None:
        here.reactor.close()
        here.transport.close()

    with (
        handler(signal.SIGUSR1, close),
        thread(lambda: interrupt_when(lambda: here.leader() is waiter and here.reactor._blocking)),
    ):
        assert here.reactor.wait(waiter) is False


@needs_signals
def test_ctrl_c_ends_the_wait_of_a_leader(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    here.reactor.defer_sigint()
    try:
        with thread(lambda: (wait_for(lambda: here.reactor._blocking), signal_main_thread(signal.SIGINT))):
            with pytest.raises(KeyboardInterrupt):
                here.await_number(1)
        assert here.leader() is None
        there.send(here, 1)
        assert here.await_number(1)
    finally:
        here.reactor.restore_sigint()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@needs_signals
def test_ctrl_c_ends_the_wait_of_a_follower(make: Callable[[], Peer]) -> None:
    here, there = make(), make()
    here.reactor.defer_sigint()
    try:
        with thread(lambda: here.await_number(1)):
            wait_for(lambda: here.reactor._blocking)
            with thread(lambda: (wait_for(lambda: here.followers() == 1), signal_main_thread(signal.SIGINT))):
                with pytest.raises(KeyboardInterrupt):
                    here.await_number(2)
            assert here.followers() == 0
            there.send(here, 1)
    finally:
        here.reactor.restore_sigint()


@needs_signals
def test_ctrl_c_is_noted_while_the_lock_is_held(make: Callable[[], Peer]) -> None:
    here = make()
    here.reactor.defer_sigint()
    try:
        with here.lock:
            signal_main_thread(signal.SIGINT)
        assert here.reactor.interrupt_pending
        with pytest.raises(KeyboardInterrupt):
            here.reactor.wait(Waiter(), time.monotonic() + 20)
        assert not here.reactor.interrupt_pending
        with pytest.raises(KeyboardInterrupt):
            signal_main_thread(signal.SIGINT)
    finally:
        here.reactor.restore_sigint()


@needs_signals
def test_ctrl_c_loses_no_message_and_never_strands_the_lead(make: Callable[[], Peer]) -> None:
    """The main thread is interrupted again and again while a stream of numbers comes in."""
    here, there = make(), make()
    here.reactor.start_standby()
    total = 3000
    over = threading.Event()

    def stream() -> None:
        for number in range(total):
            there.send(here, number)
            if number % 10 == 0:
                there.await_number(-1, timeout=0.0005)

    def disturb() -> None:
        while not over.is_set():
            signal_main_thread(signal.SIGINT)
            over.wait(0.0007)

    def on_sigint() -> None:
        if here.reactor._main_waiter is not None:  # elsewhere it would hit the test itself
            here.reactor._on_sigint(signal.SIGINT, None)

    interrupted = 0
    with handler(signal.SIGINT, on_sigint), thread(stream):
        last = here.expect(total - 1)
        with thread(disturb):
            while not last.done:
                try:
                    here.reactor.wait(last, time.monotonic() + 20)
                except KeyboardInterrupt:
                    interrupted += 1
            over.set()
    assert here.arrived == list(range(total))
    assert interrupted > 0
    assert here.followers() == 0


def test_a_program_with_its_own_handler_keeps_it(make: Callable[[], Peer]) -> None:
    here = make()

    def mine(number: int, frame: Any) -> None: ...

    previous = signal.signal(signal.SIGINT, mine)
    try:
        here.reactor.defer_sigint()
        assert signal.getsignal(signal.SIGINT) is mine
        here.reactor.restore_sigint()
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, previous)


# -- the end ---------------------------------------------------------------------------------------------------------


def test_close_ends_every_wait_and_the_standby(make: Callable[[], Peer]) -> None:
    here = make()
    here.reactor.start_standby()
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(here.reactor.wait(Waiter()))) for _ in range(4)]
    for worker in threads:
        worker.start()
    wait_for(lambda: here.followers() == 3)
    standby = here.reactor._standby_thread
    assert standby is not None
    here.reactor.close()
    assert here.leader() is None  # so the sockets can be closed safely
    for worker in threads:
        worker.join()
    assert results == [False] * 4
    assert not standby.is_alive()
    assert here.reactor.wait(Waiter()) is False


def test_close_twice_and_without_a_standby(make: Callable[[], Peer]) -> None:
    here = make()
    here.reactor.close()
    here.reactor.close()
    assert here.reactor.wait(Waiter()) is False


# -- all at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standby", [True, False], ids=["with standby", "without standby"])
def test_eight_threads_with_two_thousand_calls_each_lose_nothing(make: Callable[[], Peer], standby: bool) -> None:
    here, echo = make(), make()
    over = Waiter()
    echo.on_number = lambda sender, number: echo.transport.send(here.transport.address, [StealTasks(number)])
    if standby:
        here.reactor.start_standby()
    calls, answered = 2000, itertools.count()

    def call(index: int) -> None:
        for number in range(index * calls, (index + 1) * calls):
            waiter = Waiter()
            with here.lock:
                here.waiters[number] = waiter
            here.send(echo, number)
            assert here.reactor.wait(waiter, time.monotonic() + 30), f"{number} was not answered"
            next(answered)

    with thread(lambda: echo.reactor.wait(over)):
        with contextlib.ExitStack() as stack:
            for index in range(8):
                stack.enter_context(thread(lambda index=index: call(index)))
        with echo.lock:
            over.finish()
        echo.transport.wake()
    assert next(answered) == 8 * calls
    assert here.waiters == {}
    assert sorted(here.arrived) == list(range(8 * calls))


ECHO = """
import sys
from miniray.messages.control import Hello
from miniray.messages.tasks import StealTasks
from miniray.processes.reactor import Reactor, Waiter
from miniray.system.sockets import ZmqTransport
import threading

directory, worker_id = sys.argv[1], bytes.fromhex(sys.argv[2])
transport = ZmqTransport(worker_id, directory, "echo", kind="worker", version="1")
over, greeted = Waiter(), {}

def handle(envelope):
    for message in envelope.messages:
        if isinstance(message, Hello):
            greeted[envelope.sender] = message.address
        elif message.count < 0:
            over.finish()
        else:
            transport.send(greeted[envelope.sender], [StealTasks(message.count)])

reactor = Reactor(transport, threading.RLock(), handle, lambda: False)
reactor.wait(over)
reactor.close()
transport.close()
"""


def test_calls_to_another_process_are_all_answered(tmp_path: Path) -> None:
    worker_id = secrets.token_bytes(28)
    process = subprocess.Popen([sys.executable, "-c", ECHO, str(tmp_path), worker_id.hex()])
    transport = ZmqTransport(secrets.token_bytes(28), str(tmp_path), "here", kind="driver", version="1")
    here = Peer(transport)
    here.reactor.start_standby()
    there = Address(worker_id, f"ipc://{tmp_path}/echo")

    def call(index: int) -> None:
        for number in range(index * 500, (index + 1) * 500):
            waiter = Waiter()
            with here.lock:
                here.waiters[number] = waiter
            transport.send(there, [StealTasks(number)])
            assert here.reactor.wait(waiter, time.monotonic() + 40), f"{number} was not answered"

    try:
        with contextlib.ExitStack() as stack:
            for index in range(4):
                stack.enter_context(thread(lambda index=index: call(index)))
        transport.send(there, [StealTasks(-1)])
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        here.reactor.close()
        transport.close()
    assert sorted(here.arrived) == list(range(2000))
