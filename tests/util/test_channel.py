"""`util.channel`: sending, receiving, and the close that is counted."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import queue
import signal
from typing import Any

import pytest

import miniray
from miniray.actor import kill
from miniray.util.channel import (
    Closed,
    Empty,
    Full,
    Receiver,
    Sender,
    Timeout,
    broadcast,
    channel,
    delete_channel,
    get_channel,
    list_channels,
    oneshot,
    watch,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("session")


@miniray.remote(num_cpus=0)
class Client:
    """Holds ends of channels in a process of its own."""

    def pid(self) -> int:
        return os.getpid()

    def keep(self, *ends: Any) -> None:
        self.ends = ends

    def drop(self) -> None:
        del self.ends
        gc.collect()

    def send(self, tx: Sender, items: list[Any]) -> None:
        for item in items:
            tx.send(item)

    def recv(self, rx: Receiver) -> Any:
        return rx.recv()

    def recv_all(self, rx: Receiver) -> list[Any]:
        return list(rx)


@pytest.fixture
def client() -> Any:
    return Client.remote()


def test_items_of_all_kinds_come_out_in_order() -> None:
    tx, rx = channel()
    items = [None, 1, 2.5, "text", b"bytes", (1, 2), [3], {"k": {4}}, (0, "pair"), len]
    for item in items:
        tx.send(item)
    assert [rx.recv() for _ in items] == items


def test_a_ref_stays_a_ref() -> None:
    tx, rx = channel()
    ref = miniray.put(5)
    tx.send(ref)
    tx.send({"inner": ref})
    del ref
    assert miniray.get(rx.recv()) == 5
    assert miniray.get(rx.recv()["inner"]) == 5


def test_a_large_item_does_not_pass_through_the_actor() -> None:
    tx, rx = channel()
    item = b"x" * 1_000_000
    tx.send(item)
    ((code, content),) = miniray.get(tx._actor.__ray_call__.remote(_packed_items))
    assert isinstance(content, miniray.ObjectRef)
    assert rx.recv() == item


def _packed_items(actor: Any) -> list[Any]:
    return [slot.item for slot in actor._line.outlets[0].items]


def test_what_cannot_wait_says_so() -> None:
    tx, rx = channel(capacity=1)
    with pytest.raises(Empty) as empty:
        rx.try_recv()
    assert isinstance(empty.value, queue.Empty)
    tx.try_send(1)
    with pytest.raises(Full) as full:
        tx.try_send(2)
    assert isinstance(full.value, queue.Full)
    assert rx.try_recv() == 1


def test_what_waits_too_long_says_so() -> None:
    tx, rx = channel(capacity=1)
    with pytest.raises(Timeout) as late:
        rx.recv(timeout=0.01)
    assert isinstance(late.value, TimeoutError)
    tx.send(1)
    with pytest.raises(Timeout):
        tx.send(2, timeout=0.01)
    assert rx.recv_batch(9) == [1]


def test_batches_are_atomic() -> None:
    tx, rx = channel(capacity=3)
    tx.send_batch([1, 2])
    with pytest.raises(Full):
        tx.try_send_batch([3, 4])
    with pytest.raises(ValueError, match="never fits"):
        tx.send_batch([1, 2, 3, 4])
    tx.send_batch([])
    assert rx.recv_batch(2) == [1, 2]
    tx.send_batch([3, 4, 5])
    assert rx.try_recv_batch(2) == [3, 4]
    assert rx.recv_batch(2) == [5]
    with pytest.raises(ValueError, match="at least 1"):
        rx.recv_batch(0)


def test_an_unbounded_channel_never_holds_a_sender_up() -> None:
    tx, rx = channel(unbounded=True)
    tx.try_send_batch(range(20_000))
    assert tx.capacity is None
    assert rx.recv_batch(30_000) == list(range(20_000))


def test_capacities_are_checked() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        channel(capacity=0)


def test_receivers_get_what_is_left_and_then_the_end() -> None:
    tx, rx = channel()
    tx.send_batch([1, 2])
    tx.close()
    assert tx.closed
    tx.close()
    assert list(rx) == [1, 2]
    with pytest.raises(Closed):
        rx.recv()
    with pytest.raises(Closed):
        rx.try_recv()


def test_a_receiver_that_waits_is_woken_by_the_close(client: Any) -> None:
    tx, rx = channel()
    received = client.recv_all.remote(rx)
    wait_for(lambda: rx.stats()["waiting_receivers"] == 1)
    with tx:
        tx.send(1)
    assert miniray.get(received) == [1]


def test_each_copy_of_a_sender_counts(client: Any) -> None:
    tx, rx = channel()
    copy = tx.clone()
    miniray.get(client.keep.remote(tx))
    tx.close()
    copy.send(1)
    copy.close()
    assert rx.recv() == 1
    with pytest.raises(Empty):
        rx.try_recv()
    miniray.get(client.drop.remote())
    with pytest.raises(Closed):
        rx.recv(timeout=10)


def test_a_sender_under_way_counts(client: Any) -> None:
    tx, rx = channel()

    @miniray.remote(num_cpus=0)
    def later(gate: Any, ends: list[Sender]) -> None:
        ends[0].send("late")

    gate, opened = channel()
    held = client.recv.remote(opened)
    sent = later.remote(held, [tx])
    del tx
    gc.collect()
    with pytest.raises(Empty):
        rx.try_recv()
    gate.send("open")
    miniray.get(sent)
    assert list(rx) == ["late"]


def test_the_senders_of_a_dead_process_do_not_count(client: Any) -> None:
    tx, rx = channel()
    pid = miniray.get(client.pid.remote())
    miniray.get(client.keep.remote(tx))
    tx.close()
    with pytest.raises(Empty):
        rx.try_recv()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Closed):
        rx.recv(timeout=10)


def test_senders_hear_that_no_receiver_is_left(client: Any) -> None:
    tx, rx = channel(capacity=1)
    pid = miniray.get(client.pid.remote())
    miniray.get(client.keep.remote(rx))
    del rx
    gc.collect()
    tx.send(1)
    full = Client.remote()
    blocked = full.send.remote(tx, [2])
    wait_for(lambda: tx.stats()["waiting_senders"] == 1)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Closed):
        miniray.get(blocked)
    with pytest.raises(Closed):
        tx.send(3)


def test_a_closed_end_cannot_be_used() -> None:
    tx, rx = channel()
    tx.close()
    rx.close()
    for use in (lambda: tx.send(1), tx.clone, tx.stats, tx.subscribe, rx.recv, rx.clone, rx.try_recv):
        with pytest.raises(Closed):
            use()


def test_a_killed_receiver_takes_no_item(client: Any) -> None:
    tx, rx = channel()
    pid = miniray.get(client.pid.remote())
    lost = client.recv.remote(rx)
    wait_for(lambda: rx.stats()["waiting_receivers"] == 1)
    os.kill(pid, signal.SIGSTOP)
    tx.send("first")
    tx.send("second")
    tx.close()
    os.kill(pid, signal.SIGKILL)
    # What comes back may come late: the second may have been taken meanwhile.
    assert sorted(rx) == ["first", "second"]
    with pytest.raises(miniray.exceptions.ActorDiedError):
        miniray.get(lost)


def test_the_end_waits_for_what_a_stopped_receiver_may_give_back(client: Any) -> None:
    tx, rx = channel()
    pid = miniray.get(client.pid.remote())
    lost = client.recv.remote(rx)
    wait_for(lambda: rx.stats()["waiting_receivers"] == 1)
    os.kill(pid, signal.SIGSTOP)
    tx.send("item")
    tx.close()
    wait_for(lambda: not rx.stats()["senders_open"])
    with pytest.raises(Empty):
        rx.try_recv()
    os.kill(pid, signal.SIGKILL)
    assert list(rx) == ["item"]
    with pytest.raises(miniray.exceptions.ActorDiedError):
        miniray.get(lost)


def test_async_use() -> None:
    tx, rx = channel(capacity=2)

    async def use() -> list[Any]:
        async def produce() -> None:
            for number in range(5):
                await tx.send_async(number)
            tx.close()

        producer = asyncio.ensure_future(produce())
        received = [item async for item in rx]
        await producer
        with pytest.raises(Closed):
            await rx.recv_async()
        return received

    assert asyncio.run(use()) == list(range(5))


def test_a_cancelled_receive_takes_no_item() -> None:
    tx, rx = channel()

    async def use() -> None:
        receiver = asyncio.ensure_future(rx.recv_async())
        while (await rx._actor.stats.remote())["waiting_receivers"] == 0:
            pass
        tx.send("item")  # blocks the loop: the receiver cannot look at it before it is cancelled
        receiver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiver
        assert await rx.recv_async(timeout=10) == "item"

    asyncio.run(use())


def test_named_channels_are_found_by_name() -> None:
    tx, rx = channel(name="work")
    assert list_channels() == ["work"]
    assert [row["name"] for row in list_channels(all_namespaces=True)] == ["work"]
    with pytest.raises(ValueError, match="There is a channel named 'work' already"):
        channel(name="work")

    @miniray.remote(num_cpus=0)
    def send_by_name() -> None:
        tx, rx = get_channel("work")
        rx.close()
        tx.send("hello")

    miniray.get(send_by_name.remote())
    assert rx.recv() == "hello"
    tx.close()
    rx.close()
    wait_for(lambda: list_channels() == [])
    with pytest.raises(ValueError, match="There is no channel named 'work'"):
        get_channel("work")


def test_a_deleted_channel_is_closed_for_all(client: Any) -> None:
    tx, rx = channel(name="short")
    received = client.recv.remote(rx)
    wait_for(lambda: rx.stats()["waiting_receivers"] == 1)
    delete_channel("short")
    with pytest.raises(Closed):
        miniray.get(received)
    with pytest.raises(Closed):
        tx.send(1)
    with pytest.raises(ValueError, match="There is no channel named 'short'"):
        delete_channel("short")


def test_a_channel_whose_actor_died_is_closed() -> None:
    tx, rx = channel()
    kill(rx._actor)
    with pytest.raises(Closed, match="its actor died"):
        rx.recv()
    with pytest.raises(Closed, match="its actor died"):
        rx.stats()


def test_stats() -> None:
    tx, rx = channel(capacity=5)
    tx.send_batch([1, 2, 3])
    rx.recv()
    assert rx.stats() == {
        "name": None,
        "kind": "mpmc",
        "capacity": 5,
        "size": 2,
        "sent": 3,
        "received": 1,
        "waiting_senders": 0,
        "waiting_receivers": 0,
        "senders_open": True,
        "receivers_open": True,
    }


def test_receivers_share_the_items() -> None:
    tx, rx = channel()
    other = rx.clone()
    tx.send_batch([1, 2])
    assert (rx.recv(), other.recv()) == (1, 2)


def test_a_oneshot_is_for_one_item() -> None:
    tx, rx = oneshot()
    tx.send("answer")
    with pytest.raises(Closed):
        tx.send("another")
    assert rx.recv() == "answer"
    with pytest.raises(Closed):
        rx.recv()


def test_a_oneshot_that_is_never_sent_is_closed() -> None:
    tx, rx = oneshot()
    tx.close()
    with pytest.raises(Closed):
        rx.recv()


def test_a_broadcast_reaches_each_receiver() -> None:
    tx, first = broadcast()
    tx.send(1)
    second = tx.subscribe()
    third = first.clone()
    tx.send(2)
    tx.close()
    assert (list(first), list(second), list(third)) == ([1, 2], [2], [1, 2])


def test_the_slowest_receiver_holds_a_broadcast_up_until_it_is_gone() -> None:
    tx, rx = broadcast(capacity=1)
    slow = tx.subscribe()
    tx.send(1)
    assert rx.recv() == 1
    with pytest.raises(Full):
        tx.try_send(2)
    slow.close()
    tx.send(2, timeout=10)
    assert rx.recv() == 2


def test_a_watch_keeps_the_latest_value() -> None:
    tx, rx = watch("initial")
    assert rx.get() == "initial"
    with pytest.raises(Empty):
        rx.try_recv()
    tx.send("second")
    tx.send("third")
    assert rx.recv() == "third"
    other = rx.clone()
    with pytest.raises(Timeout):
        other.recv(timeout=0.01)
    late = tx.subscribe()
    assert late.get() == "third"


def test_a_watcher_that_waits_is_woken_by_a_value_and_by_the_close(client: Any) -> None:
    tx, rx = watch(0)
    seen = client.recv_all.remote(rx)
    wait_for(lambda: tx.stats()["waiting_receivers"] == 1)
    tx.send(1)
    wait_for(lambda: tx.stats()["waiting_receivers"] == 1)
    tx.close()
    assert miniray.get(seen)[-1] == 1
    assert rx.recv() == 1
    with pytest.raises(Closed):
        rx.recv()


def test_an_item_that_cannot_be_serialized_is_refused_where_it_is_sent() -> None:
    tx, _rx = channel()
    with pytest.raises((TypeError, pickle.PicklingError), match="Could not serialize the item"):
        tx.send(number for number in [])
